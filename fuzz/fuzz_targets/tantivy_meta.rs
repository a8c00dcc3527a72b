//! See `fuzz::tantivy_meta`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(tantivy_meta);
