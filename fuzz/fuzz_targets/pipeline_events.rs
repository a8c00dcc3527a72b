//! See `fuzz::pipeline_events`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(pipeline_events);
