//! What the fuzzers run, as plain functions of bytes: the binaries under `fuzz_targets/` hand them libFuzzer's inputs, and
//! `tests/corpora.rs` the committed ones, with any toolchain.
//!
//! A target panics where a promise is broken. Whatever the bytes, it reads some case out of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test: a check that fails panics")]

pub mod config;
pub mod document_id;
pub mod names;
pub mod opensearch_bulk;
pub mod opensearch_stored;
pub mod pipeline_events;
pub mod pipeline_ops;
pub mod postgres_pgoutput;
mod sqlite;
pub mod sqlite_affinity;
pub mod sqlite_build;
pub mod sqlite_log;
pub mod sqlite_quarantine;
pub mod sqlite_scan;
pub mod sqlite_state;
pub mod tantivy_body;
pub mod tantivy_meta;
pub mod tantivy_payload;
pub mod tantivy_query;

/// A target: the bytes of one input are judged. Panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its corpus.
pub const TARGETS: [(&str, Target); 18] = [
    ("config", config::run),
    ("document_id", document_id::run),
    ("names", names::run),
    ("opensearch_bulk", opensearch_bulk::run),
    ("opensearch_stored", opensearch_stored::run),
    ("pipeline_events", pipeline_events::run),
    ("pipeline_ops", pipeline_ops::run),
    ("postgres_pgoutput", postgres_pgoutput::run),
    ("sqlite_affinity", sqlite_affinity::run),
    ("sqlite_build", sqlite_build::run),
    ("sqlite_log", sqlite_log::run),
    ("sqlite_quarantine", sqlite_quarantine::run),
    ("sqlite_scan", sqlite_scan::run),
    ("sqlite_state", sqlite_state::run),
    ("tantivy_body", tantivy_body::run),
    ("tantivy_meta", tantivy_meta::run),
    ("tantivy_payload", tantivy_payload::run),
    ("tantivy_query", tantivy_query::run),
];

/// The binary of a target. Built with the flag `fuzzing` it is libFuzzer; without, it runs the files that it is given, to
/// look at a crash under any toolchain and debugger.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::$name::run(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            fuzz::run_files(fuzz::$name::run)
        }
    };
}

/// Runs a target on every file that the command line names. Errors: a file that cannot be read.
pub fn run_files(target: Target) -> std::io::Result<()> {
    std::env::args_os().skip(1).try_for_each(|path| {
        target(&std::fs::read(path)?);
        Ok(())
    })
}
