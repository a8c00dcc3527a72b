//! What goes over the wire: bulk requests as bytes, and what the bytes that come back mean; of what is read, too.
//!
//! Nothing here does I/O, so that it can be tested and fuzzed alone. Whatever comes back is taken for what a stranger
//! sent: an answer that is no answer is a [`Malformed`], never a panic, and never silence about a document.

mod answer;
mod refusal;
mod request;
mod stored;

pub use answer::{Expected, Malformed, Outcome, read_bulk};
pub use refusal::Refusal;
pub use request::{Action, Line, check_id, cut, named};
pub use stored::{Sought, Stored, read_names, read_stored};

/// The field that every document has beside its own, and that holds its id: a keyword, by which documents are listed in
/// order. The server's own `_id` has no order: sorting by it holds every id in memory, and is disallowed by default in
/// Elasticsearch since 8.0 (`indices.id_field_data.enabled`, <https://github.com/elastic/elasticsearch/pull/49166>).
pub const NAME: &str = "syncline_id";

/// How a document's version is spelled in the one number that the server compares: 23 bits of epoch over 40 bits of build
/// number, which is less than 2⁶³.
const BUILD_BITS: u32 = 40;

/// The first epoch that a version has no room for: 8,388,608 runs.
pub const EPOCHS: u64 = 1 << (63 - BUILD_BITS);

/// The external version that stands for an engine's [`Version`](crate::document::Version); `None` where an epoch or a
/// build number is greater than it has room for.
#[must_use]
pub fn external_version(version: crate::document::Version) -> Option<u64> {
    let fits = version.epoch.0 < EPOCHS && version.build < 1 << BUILD_BITS;
    fits.then_some(version.epoch.0 << BUILD_BITS | version.build)
}

/// The epoch in an external version.
#[must_use]
pub fn epoch_of(external: u64) -> crate::document::Epoch {
    crate::document::Epoch(external >> BUILD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Epoch, Version};

    #[test]
    fn external_versions_keep_the_order_and_fit_a_signed_number() {
        let version = |epoch, build| Version { epoch: Epoch(epoch), build };
        let last = version(EPOCHS - 1, (1 << BUILD_BITS) - 1);
        assert_eq!(external_version(last), Some(i64::MAX as u64));
        assert!(external_version(version(1, 1 << 39)) < external_version(version(2, 0)));
        assert!(external_version(version(2, 1)) < external_version(version(2, 2)));
        assert_eq!(external_version(version(EPOCHS, 0)), None);
        assert_eq!(external_version(version(0, 1 << BUILD_BITS)), None);
        assert_eq!(epoch_of(external_version(version(7, 9)).unwrap()), Epoch(7));
    }
}
