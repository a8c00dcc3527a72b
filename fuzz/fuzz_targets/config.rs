//! See `fuzz::config`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(config);
