//! See `fuzz::pipeline_ops`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(pipeline_ops);
