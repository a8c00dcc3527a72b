//! See `fuzz::sqlite_build`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_build);
