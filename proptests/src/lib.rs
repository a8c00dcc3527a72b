//! The pipeline in a small world: one alphabet of operations, one reference model, one set of checks.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`op`] | everything that can happen, as data |
//! | [`setup`] | the limits of a run and the shape of its world, as data |
//! | [`model`] | what is true outside the engine: the rows, the log, the sink, the resume point |
//! | [`owed`] | a naive account of what the pipeline owes, kept from its commands and answers alone |
//! | [`check`] | one function for each promise, called after every step |
//! | [`drive`] | the laziest legal driver: it feeds operations to the real `Pipeline` |
//! | [`explore`], [`worlds`] | every interleaving of a small world |
//! | [`random`] | operations at random, reduced to the fewest that still fail, printed as Rust |
//!
//! The suites under `tests/`, the fuzzers and the explorer differ in nothing but how they choose the next operation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test: a check that fails panics")]

pub mod check;
pub mod drive;
pub mod explore;
pub mod model;
pub mod op;
pub mod owed;
pub mod random;
pub mod setup;
pub mod worlds;
