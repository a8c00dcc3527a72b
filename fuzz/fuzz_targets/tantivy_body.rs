//! See `fuzz::tantivy_body`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(tantivy_body);
