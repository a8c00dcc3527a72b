//! See `fuzz::opensearch_bulk`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(opensearch_bulk);
