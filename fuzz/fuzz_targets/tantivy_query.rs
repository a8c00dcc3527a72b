//! See `fuzz::tantivy_query`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(tantivy_query);
