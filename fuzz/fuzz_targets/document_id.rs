//! See `fuzz::document_id`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(document_id);
