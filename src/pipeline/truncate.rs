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
use crate::pipeline::calls::Purpose;
use crate::pipeline::ledger::Handle;
use crate::pipeline::{Notice, Pipeline, seeding};

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
            if self.shut(number, handle) {
                again.push(name);
            }
        }
        self.ack.changes.settle(handle);
        // Of those that were to be seeded anyway it is told once the sink has told of all how far they are.
        if self.seeding.announced && !self.config.skip_backfill && !again.is_empty() {
            self.seeding.completed = false;
            self.notify(Notice::BackfillStarted(again));
        }
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
    fn shut(&mut self, number: u32, handle: Handle) -> bool {
        let index = self.seeding.get_mut(number);
        let is_new = match index.stage {
            // It was cleared, and nothing has been built since.
            seeding::Stage::Starting => return false,
            // It will be cleared; where that is not known yet, it is from now on.
            seeding::Stage::Settling
            | seeding::Stage::Truncated
            | seeding::Stage::Reading
            | seeding::Stage::Unseeded
            | seeding::Stage::Clearing => false,
            seeding::Stage::Open
            | seeding::Stage::Ready(_)
            | seeding::Stage::Scanning
            | seeding::Stage::Scanned
            | seeding::Stage::Marking
            | seeding::Stage::Seeded => {
                index.stage = seeding::Stage::Truncated;
                index.rows.clear_marks();
                index.skip_to = None;
                self.leave_scan(number);
                true
            }
        };
        self.ack.changes.hold(handle);
        self.seeding.get_mut(number).truncations.push(handle);
        is_new
    }

    /// Clears what was truncated, once nothing of it is under way.
    pub(super) fn clear_truncated(&mut self) {
        for number in self.numbers() {
            let index = self.seeding.get(number);
            let is_remembered = || {
                self.calls.is_pending(Purpose::SaveCursor(number))
                    || self.calls.is_pending(Purpose::MarkSeeded(number))
            };
            if index.stage != seeding::Stage::Truncated || index.flying > 0 || is_remembered() {
                continue;
            }
            let index = self.seeding.get_mut(number);
            index.cursor = None;
            index.saving = false;
            if self.config.skip_backfill {
                index.stage = seeding::Stage::Clearing;
                self.make(Purpose::Clear(number), 1);
            } else {
                index.stage = seeding::Stage::Unseeded;
            }
        }
    }

    /// An index is empty: nothing is owed for what was truncated.
    pub(super) fn settle_truncations(&mut self, number: u32) {
        for handle in core::mem::take(&mut self.seeding.get_mut(number).truncations) {
            self.ack.changes.settle(handle);
        }
    }
}
