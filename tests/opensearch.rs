//! The OpenSearch sink.

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

#[path = "opensearch/late.rs"]
mod late;
#[path = "opensearch/proxy.rs"]
mod proxy;
#[path = "opensearch/seeding.rs"]
mod seeding;
#[path = "opensearch/servers.rs"]
mod servers;
#[path = "opensearch/support.rs"]
mod support;
#[path = "opensearch/wire.rs"]
mod wire;
#[path = "opensearch/writing.rs"]
mod writing;
