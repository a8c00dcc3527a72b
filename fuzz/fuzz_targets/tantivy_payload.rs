//! See `fuzz::tantivy_payload`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(tantivy_payload);
