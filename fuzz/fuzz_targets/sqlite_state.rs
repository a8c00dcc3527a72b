//! See `fuzz::sqlite_state`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_state);
