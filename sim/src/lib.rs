//! The simulation of Syncline: the unchanged engine among a database, an index and a network that fail in every way the
//! plan says, judged by checks that know nothing of its bookkeeping. `README.md` tells how to run it.
//!
//! A [`plan::Plan`] is turned into an [`outcome::Outcome`] or an [`outcome::Failure`].

#![cfg(madsim)]
// The simulated runtime's instant is std's by type, and simulated all the same.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod cli;
pub mod draw;
pub mod kill_points;
pub mod marks;
pub mod outcome;
pub mod plan;
pub mod planted;
pub mod random;
pub mod run;
pub mod shrink;
pub mod swarm;
pub mod timeline;
pub mod trace;

mod chaos;
mod client;
mod conduct;
mod database;
mod engine;
mod gauges;
mod index;
mod judge;
mod message;
mod observer;
mod ports;
mod serve;
mod serve_database;
mod serve_index;
mod tables;
mod world;
