//! See `fuzz::postgres_pgoutput`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(postgres_pgoutput);
