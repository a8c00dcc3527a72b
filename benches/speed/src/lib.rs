//! How fast Syncline is, beside a floor, and beside whoever else is given the same work: the scenarios, the edges that do
//! nothing or sleep, and the one table. See `benches/README.md`.
//!
//! Every figure is taken in a process of its own, which runs one scenario by one contestant, once. The contestants take
//! turns, round by round, so that what else the machine does meets all of them; what is shown is the median.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its figures are what it is for")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a benchmark reads the clock")]

pub mod aims;
pub mod contestant;
pub mod engine;
pub mod floor;
pub mod live;
pub mod pipeline;
pub mod process;
pub mod rounds;
pub mod scenarios;
pub mod table;
pub mod work;

pub use contestant::{Contestant, Outcome};
pub use rounds::{Contest, compare};
pub use scenarios::Scenario;
