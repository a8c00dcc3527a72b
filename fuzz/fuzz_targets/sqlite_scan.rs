//! See `fuzz::sqlite_scan`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_scan);
