//! The behaviours by number, one by one, through the driver, over a source, documents and a sink that do what a test says.

// What clippy allows in a test by itself, it does not in a helper of tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod behaviours {
    mod a;
    mod b_documents;
    mod b_failures;
    mod b_positions;
    mod b_running;
    mod b_verifying;
}
mod fakes;

use std::time::Duration;

use syncline::BatchPolicy;

pub(crate) fn units_of(max_changes: usize) -> BatchPolicy {
    BatchPolicy { max_changes, ..BatchPolicy::default() }
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
