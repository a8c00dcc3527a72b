//! Truncated tables.
//!
//! A truncation is a barrier, and owed like a change. Every index that is built from one of its tables goes back to where
//! it was before it was first seeded: its gate is shut, its flights settle, it is emptied, and its root table is scanned
//! again. The truncation is owed until that it is empty is durable; from then on a crash finds an index that is not seeded,
//! which is emptied and scanned once more.
//!
//! An index whose root table was truncated is cleared: its documents are gone, and nothing of them is to be found any more.
//! Where it is being rebuilt, so that what it held may still be found, it is cleared nevertheless, and the truncation is owed
//! until then. Any other is rebuilt: its documents are still there, and what they were is better than nothing until they are
//! built anew.
//!
//! Whatever is built or scanned after the barrier is read from a snapshot in which the
//! truncation can be seen: no row that is gone comes back, and none is missed that was written before the clear.
//!
//! Why scan a root table that was emptied? Where the source gives a truncation once more that it had been told to be
//! durable, the changes behind it need not come again, and their documents have just been cleared. The scan costs what was
//! inserted since.

use alloc::string::String;
use alloc::vec::Vec;

use crate::change::Truncation;
use crate::error::Fault;
use crate::pipeline::calls::Purpose;
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
            let is_gone = index.is_rooted_in(&truncation.tables);
            let name = index.name.clone();
            if self.empty(number, handle, is_gone) {
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
            !index.is_rooted_in(&truncation.tables) && tables.any(|table| index.is_built_from(table))
        };
        let index = scoped().find(skips).filter(|_| self.config.skip_backfill)?;
        Some(alloc::format!(
            "{truncation:?}: index {} must be built anew from other tables, and the backfill is skipped",
            index.name
        ))
    }

    /// An index holds what is no longer there: all of it, or what was built from that. Returns whether that was not known of
    /// it before.
    fn empty(&mut self, number: u32, handle: Handle, is_gone: bool) -> bool {
        let index = self.seeding.get_mut(number);
        let is_empty = index.stage == seeding::Stage::Starting;
        if is_empty && !(index.rebuilt && is_gone) {
            // Nothing has been built since it was emptied, and nothing is found that is gone.
            return false;
        }
        let was_gone = index.truncated;
        index.truncated |= is_gone;
        let is_new = match index.stage {
            // It holds what it holds until it is seeded anew.
            seeding::Stage::Parked => return false,
            // It was rebuilt, and what it held is gone. Its start, which is being saved, is waited for.
            seeding::Stage::Starting => {
                self.shut(number, seeding::Stage::Shut);
                false
            }
            // It is being rebuilt, and what it held is gone by now.
            seeding::Stage::Clearing if is_gone && !was_gone => {
                self.abandon(|purpose| purpose == Purpose::Clear(number));
                self.make(Purpose::Clear(number), 1);
                false
            }
            // It will be emptied, or is not seeded any more; where that is not known yet, it is so from now on.
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
