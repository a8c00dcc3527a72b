//! See `fuzz::sqlite_quarantine`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_quarantine);
