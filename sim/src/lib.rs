//! The simulation of Syncline: the unchanged engine among a database, an index and a network that fail in every way the
//! plan says, judged by checks that know nothing of its bookkeeping. `README.md` tells how to run it.
//!
//! A [`plan::Plan`] is turned into an [`outcome::Outcome`] or an [`outcome::Failure`].

#![cfg(madsim)]

pub mod marks;
pub mod outcome;
pub mod plan;
pub mod random;
pub mod trace;
