//! The OpenSearch sink, against two servers that others wrote, and against what neither of them does.
//!
//! The servers come from PyPI into a virtual environment below `target/tmp`: `osmem-server` 0.1.6, which calls itself OpenSearch
//! 3.8, and `noida-db` 0.2.3, which calls itself Elasticsearch 8.15. Where they cannot be had, these tests say so and pass; with
//! `SYNCLINE_REQUIRE_SERVERS` set they fail. In front of them stands the proxy of `opensearch/proxy.rs`. A check that runs on
//! one server alone says in its body why.
//!
//! | checks | against |
//! | --- | --- |
//! | `writing`: what is written, found, rejected; mappings; requests cut, side by side, compressed | both servers |
//! | - before a refresh nothing is found | noida: osmem shows everything at once |
//! | `verifying`: what is compared and listed, in pages, across runs, through faults | both servers, in part behind the proxy |
//! | `seeding`: markers, cursors, UUIDs, aliases, leftovers, other people's indexes | both servers |
//! | - an index of the alias's name is refused | osmem: noida lets both have one name |
//! | `rebuilding`: an index built beside the one that searches find, both written; removed by hand, another mapping, earlier runs | both servers, in part behind the proxy |
//! | `resuming`: a rebuild that dies, or is not answered, at each of its requests; requests of it that land late | both servers, behind the proxy |
//! | `late`: epochs, requests that arrive after they were given up, runs that were followed by another | both servers, behind the proxy that holds a request back |
//! | - a write that is older than a deletion | osmem: noida forgets the versions of what was deleted |
//! | `quarantine` | both servers, in part behind the proxy |
//! | - a record that is older than its release | osmem, for the same reason |
//! | `faults`: throttled documents and requests, `Retry-After`, answers lost, cut and malformed, resets, silence, 413, and each of them at each other call | both servers, behind the proxy |
//! | `engine`: from SQLite, through faults, a killed run and a removed index; a refused document quarantined and cured | both servers, behind the proxy |
//! | `documented`: documents that a server cannot tell of, full queues, full disks, missing shards, circuit breakers, credentials, old servers, newer runs, dates | a stand-in that answers as its sources say |
//! | `secrets`: credentials, redirects | the proxy alone |
//!
//! The reading of answers, and TLS with an authority of one's own, are tested beside their code.

#![cfg(feature = "opensearch")]
// What clippy allows in a test by itself, it does not in a helper of tests.
#![allow(clippy::unwrap_used, clippy::panic)]

/// Runs checks against each of the two servers, which they are given started.
macro_rules! on_both {
    ($($check:ident)*) => {
        mod osmem {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                if let Some(server) = $crate::servers::Server::start($crate::servers::Kind::Osmem).await {
                    super::$check(server).await;
                }
            })*
        }
        mod noida {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                if let Some(server) = $crate::servers::Server::start($crate::servers::Kind::Noida).await {
                    super::$check(server).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

#[path = "opensearch/documented.rs"]
mod documented;
#[path = "opensearch/engine.rs"]
mod engine;
#[path = "opensearch/faults.rs"]
mod faults;
#[path = "held/mod.rs"]
mod held;
#[path = "opensearch/late.rs"]
mod late;
#[path = "opensearch/proxy.rs"]
mod proxy;
#[path = "opensearch/quarantine.rs"]
mod quarantine;
#[path = "opensearch/rebuilding.rs"]
mod rebuilding;
#[path = "opensearch/resuming.rs"]
mod resuming;
#[path = "opensearch/secrets.rs"]
mod secrets;
#[path = "opensearch/seeding.rs"]
mod seeding;
#[path = "opensearch/servers.rs"]
mod servers;
#[path = "opensearch/support.rs"]
mod support;
#[path = "opensearch/verifying.rs"]
mod verifying;
#[path = "opensearch/wire.rs"]
mod wire;
#[path = "opensearch/writing.rs"]
mod writing;
