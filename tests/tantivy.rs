//! The tantivy sink: what it writes, what it refuses, what it finds again, and what a killed process leaves.

#![cfg(feature = "tantivy")]
// What clippy allows in a test by itself, it does not in a helper of tests.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "held/mod.rs"]
mod held;
#[path = "tantivy/kill.rs"]
mod kill;
#[path = "tantivy/late.rs"]
mod late;
#[path = "tantivy/physical.rs"]
mod physical;
#[path = "tantivy/seeding.rs"]
mod seeding;
#[path = "tantivy/support.rs"]
mod support;
#[path = "tantivy/verifying.rs"]
mod verifying;
#[path = "tantivy/writing.rs"]
mod writing;
