//! Which writes are older than what an index holds.

use std::collections::{BTreeMap, VecDeque};

use crate::document::{Epoch, Version};

/// How many deletions are remembered for each index.
const TOMBSTONES: usize = 65_536;

/// What is known of the versions in one index without reading it.
///
/// A write that is newer than every write before it needs no look at the index, and nearly all are. Only one that is
/// not is compared with the stored document, or with the deletion that is remembered for it. Deletions need not outlive
/// the process: after it the epoch is another one, and decides.
#[derive(Debug)]
pub(super) struct Versions {
    /// No document of the index has a greater version.
    newest: Version,
    deleted: BTreeMap<Box<str>, Version>,
    /// The deletions in the order in which they are forgotten.
    order: VecDeque<(Box<str>, Version)>,
}

impl Versions {
    /// For an index that was written by runs unknown here: each write is compared until one of them begins.
    pub(super) fn unknown() -> Self {
        let newest = Version { epoch: Epoch(u64::MAX), build: u64::MAX };
        Self { newest, deleted: BTreeMap::new(), order: VecDeque::new() }
    }

    /// For an index that is empty, or that no run after this epoch has written.
    pub(super) fn before(epoch: Epoch) -> Self {
        Self { newest: Version { epoch, build: 0 }, ..Self::unknown() }
    }

    /// Whether the stored document decides about a write of this version.
    pub(super) fn may_be_old(&self, version: Version) -> bool {
        version <= self.newest
    }

    /// The version of a deletion of this document, where it is remembered.
    pub(super) fn deletion(&self, id: &str) -> Option<Version> {
        self.deleted.get(id).copied()
    }

    /// A write of this version is about to be committed. It counts from here on, because a commit that fails may have
    /// taken effect.
    pub(super) fn attempted(&mut self, version: Version) {
        self.newest = self.newest.max(version);
    }

    /// A deletion was committed.
    pub(super) fn deleted(&mut self, id: &str, version: Version) {
        self.deleted.insert(id.into(), version);
        self.order.push_back((id.into(), version));
        while self.order.len() > TOMBSTONES {
            if let Some((id, version)) = self.order.pop_front()
                && self.deleted.get(&id) == Some(&version)
            {
                self.deleted.remove(&id);
            }
        }
    }

    /// A document was committed.
    pub(super) fn upserted(&mut self, id: &str) {
        self.deleted.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, build: u64) -> Version {
        Version { epoch: Epoch(epoch), build }
    }

    #[test]
    fn only_what_may_be_old_is_looked_up() {
        let mut versions = Versions::before(Epoch(3));
        assert!(!versions.may_be_old(version(3, 1)));
        versions.attempted(version(3, 5));
        assert!(versions.may_be_old(version(3, 5)));
        assert!(!versions.may_be_old(version(3, 6)));
        assert!(!versions.may_be_old(version(4, 1)));
        assert!(Versions::unknown().may_be_old(version(9, 9)));
    }

    #[test]
    fn deletions_are_remembered_up_to_a_limit_and_the_oldest_go_first() {
        let mut versions = Versions::before(Epoch(1));
        versions.deleted("a", version(1, 1));
        versions.deleted("b", version(1, 2));
        versions.deleted("a", version(1, 3));
        for at in 0..TOMBSTONES as u64 - 1 {
            versions.deleted(&format!("x{at}"), version(1, 10 + at));
        }
        assert_eq!((versions.deletion("a"), versions.deletion("b")), (Some(version(1, 3)), None));
        versions.deleted("y", version(1, 1 << 20));
        assert_eq!(versions.deletion("a"), None);
        versions.upserted("y");
        assert_eq!(versions.deletion("y"), None);
        assert!(versions.deleted.len() <= TOMBSTONES && versions.order.len() <= TOMBSTONES);
    }
}
