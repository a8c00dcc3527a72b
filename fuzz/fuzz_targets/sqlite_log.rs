//! See `fuzz::sqlite_log`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_log);
