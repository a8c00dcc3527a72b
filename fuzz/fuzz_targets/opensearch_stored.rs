//! See `fuzz::opensearch_stored`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(opensearch_stored);
