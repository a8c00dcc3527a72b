//! See `fuzz::sqlite_affinity`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(sqlite_affinity);
