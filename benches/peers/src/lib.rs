//! Syncline beside others of its kind: their engines over edges that do what Syncline's do in `speed`; a program of theirs
//! beside Syncline on the same database; and Syncline between a database and a search index that are real.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a benchmark reads the clock")]

/// The server that the tests of the connector start.
#[path = "../../../tests/postgres/cluster.rs"]
#[allow(dead_code, reason = "the tests do more with it")]
#[allow(clippy::unwrap_used, reason = "it is theirs")]
mod cluster;
mod distance;
pub mod file;
pub mod flusso;
pub mod flusso_cli;
pub mod postgres_to_file;
pub mod sqlite_to_tantivy;

use speed::engine::{FLUSHING, Syncline};
use speed::floor::Floor;
use speed::pipeline::Alone;
use speed::{Contest, Contestant, scenarios};

/// All that is compared.
#[must_use]
pub fn contests() -> Vec<Contest> {
    let mut no_op: Vec<&dyn Contestant> =
        vec![&Floor, &Syncline, &Alone, &flusso::newest::Flusso, &flusso::first::Flusso];
    no_op.extend(FLUSHING.iter().map(|flushing| flushing as &dyn Contestant));
    vec![
        Contest { scenarios: scenarios::all(), contestants: no_op },
        Contest {
            scenarios: sqlite_to_tantivy::scenarios(),
            contestants: vec![&sqlite_to_tantivy::Syncline],
        },
        Contest {
            scenarios: postgres_to_file::scenarios(),
            contestants: vec![&postgres_to_file::Syncline, &flusso_cli::FlussoCli],
        },
    ]
}
