//! The `postgres` connector against a real server, which the tests start for themselves and stop again.
//!
//! They need the binaries of a PostgreSQL server (Debian: `apt-get install postgresql`), found on the `PATH`, under
//! `/usr/lib/postgresql`, or in the directory that `PG_BIN` names. Nothing of a server that runs already is touched. Where
//! there are none they are skipped, and say so; with `SYNCLINE_REQUIRE_SERVERS` set, they fail.

#![allow(clippy::unwrap_used, clippy::panic)]

/// What a run without the feature shows, so that nobody takes these tests for passed.
#[cfg(not(feature = "postgres"))]
#[test]
#[ignore = "the tests of the PostgreSQL connector need `--features postgres`, and a server's binaries (Debian: postgresql)"]
fn the_postgres_connector_is_tested_with_its_feature_only() {}

#[cfg(feature = "postgres")]
mod postgres {
    mod capture;
    mod cluster;
    mod documents;
    mod engine;
    mod fidelity;
    mod slots;
    mod standby;
    mod trouble;
    mod world;
}
