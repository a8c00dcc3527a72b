//! The driver: runs a [`Pipeline`](crate::pipeline::Pipeline) over an embedder's ports, on tokio.
//!
//! It is one task and decides nothing: it translates what happens into [`Event`](crate::pipeline::Event)s and each
//! [`Command`](crate::pipeline::Command) into a call. The contract it keeps:
//!
//! **After every `handle`, poll commands until `None`, then ask for the timeout.**
//!
//! Every call it makes is a future that it owns, so dropping the run drops them all: no task is left behind, and nothing
//! is acknowledged that is not durable.

// The simulated runtime's instant is std's by type, and simulated all the same.
#![cfg_attr(madsim, allow(clippy::disallowed_types, clippy::disallowed_methods))]

mod edges;
mod engine;
mod handle;
mod intake;
mod observe;
mod shared;
mod turns;

pub use engine::Engine;
pub use handle::Running;
