//! Truncated tables.
//!
//! A truncation is a barrier, and owed like a change. Every index that is built from one of its tables goes back to where
//! it was before it was first seeded: its gate is shut, its flights settle, it is cleared, and its root table is scanned
//! again. The truncation is owed until the clear is durable; from then on a crash finds an index that is not seeded, which
//! is cleared and scanned once more. Whatever is built or scanned after the barrier is read from a snapshot in which the
//! truncation can be seen: no row that is gone comes back, and none is missed that was written before the clear.
//!
//! Why scan a root table that was emptied? Where the source gives a truncation once more that it had been told to be
//! durable, the changes behind it need not come again, and their documents have just been cleared. The scan costs what was
//! inserted since.

use alloc::string::String;
use alloc::vec::Vec;

use crate::change::Truncation;
use crate::error::Fault;
use crate::pipeline::ledger::Handle;
use crate::pipeline::{Pipeline, seeding};

impl<B> Pipeline<B> {
    /// Tables were truncated. The handle is held once: as long as every index that is built from them needs it.
    pub(super) fn on_truncated(&mut self, handle: Handle, truncation: &Truncation) {
        self.visibility = self.visibility.max(truncation.visibility);
        let mut again = Vec::new();
        for number in self.numbers() {
            let index = self.seeding.get_mut(number);
            if !truncation.tables.iter().any(|table| index.is_built_from(table)) {
                continue;
            }
            index.sees = index.sees.max(truncation.visibility);
            let name = index.name.clone();
            if self.empty(number, handle) {
                again.push(name);
            }
        }
        self.ack.changes.settle(handle);
        self.announce_again(again);
    }

    /// Why a truncation cannot be followed. It must not be captured then, or it would be acknowledged.
    pub(super) fn cannot_follow(&self, truncation: &Truncation) -> Option<Fault> {
        self.why_not_to_follow(truncation).map(Fault::fatal)
    }

    fn why_not_to_follow(&self, truncation: &Truncation) -> Option<String> {
        let scoped = || self.seeding.indexes.iter().filter(|index| index.root.is_some());
        if let Some(index) = self.unscoped() {
            return Some(alloc::format!(
                "{truncation:?}: index {index} has no scope, so nobody can tell whether it is built from that"
            ));
        }
        if scoped().next().is_none() {
            return Some(alloc::format!("{truncation:?}: no index has a scope to be rebuilt from"));
        }
        let skips = |index: &&seeding::Index| {
            let mut tables = truncation.tables.iter();
            let is_emptied = index.root.as_ref().is_some_and(|root| truncation.tables.contains(&root.table));
            !is_emptied && tables.any(|table| index.is_built_from(table))
        };
        let index = scoped().find(skips).filter(|_| self.config.skip_backfill)?;
        Some(alloc::format!(
            "{truncation:?}: index {} must be built anew from other tables, and the backfill is skipped",
            index.name
        ))
    }

    /// An index holds what is no longer there. Returns whether that was not known of it before.
    fn empty(&mut self, number: u32, handle: Handle) -> bool {
        let is_new = match self.seeding.get(number).stage {
            // It was cleared, and nothing has been built since.
            seeding::Stage::Starting => return false,
            // It holds what it holds until it is seeded anew, and then it is cleared.
            seeding::Stage::Parked => return false,
            // It will be cleared, or is not seeded any more; where that is not known yet, it is so from now on.
            seeding::Stage::Settling
            | seeding::Stage::Shut
            | seeding::Stage::Reading
            | seeding::Stage::Unseeded
            | seeding::Stage::Clearing
            | seeding::Stage::Parking => false,
            seeding::Stage::Open
            | seeding::Stage::Ready(_)
            | seeding::Stage::Scanning
            | seeding::Stage::Scanned
            | seeding::Stage::Marking
            | seeding::Stage::Seeded => {
                self.shut(number, seeding::Stage::Shut);
                true
            }
        };
        self.ack.changes.hold(handle);
        self.seeding.get_mut(number).until_cleared.push(handle);
        is_new
    }

    /// An index is empty, or has stopped: what was owed until then is owed no more.
    pub(super) fn settle_until_cleared(&mut self, number: u32) {
        for handle in core::mem::take(&mut self.seeding.get_mut(number).until_cleared) {
            self.ack.changes.settle(handle);
        }
    }
}
