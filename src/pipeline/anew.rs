//! Indexes that are seeded anew, and those that stop alone.
//!
//! Both leave what they were doing in the same way: the gate is shut, the scan goes on without them, and what is being
//! remembered of their seeding (a cursor, a marker) is waited for, so that it does not land over what comes next.
//!
//! An index is seeded **anew** because a table that it is built from was truncated, or because someone asks for it: its
//! flights settle, it is emptied, and its root table is scanned again, beside everything else. Once it is emptied a crash
//! finds it not seeded, and it is emptied and scanned once more.
//!
//! It is emptied in one of two ways. Where its root table was truncated, it is **cleared**: its documents are gone. In every
//! other case it is **rebuilt** (it was asked for, its definition or the position is another, it had stopped, another table
//! was truncated): the sink begins it anew, empty, and may have what it held found until it is marked as seeded. Which it is
//! is decided whenever the call is made, so that a retry knows of a truncation that came since.
//!
//! An index is **parked** where a document of it fails and its policy says so. That it is parked is durable in the sink
//! before any change of its documents is acknowledged. From then on its documents are forgotten, in this run and in later
//! ones, so that it holds up no other index and no log; it keeps what it holds, and is seeded anew when someone asks.

use alloc::vec::Vec;

use crate::error::RejectedDocument;
use crate::name::IndexName;
use crate::pipeline::calls::Purpose;
use crate::pipeline::protocol::Refusal;
use crate::pipeline::seeding::Stage;
use crate::pipeline::{Notice, Pipeline};

/// Until when a document that failed is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Until it is durable that its index has stopped.
    UntilParked,
    /// Until its index is cleared.
    UntilCleared,
    /// No longer.
    No,
}

impl<B> Pipeline<B> {
    /// Whether an index can be seeded anew. Errors: why not.
    pub fn can_reindex(&self, name: &IndexName) -> Result<(), Refusal> {
        let mut indexes = self.seeding.indexes.iter();
        if self.ending.is_ending() {
            Err(Refusal::Ending)
        } else if self.config.skip_backfill {
            Err(Refusal::BackfillSkipped)
        } else if indexes.any(|index| index.name == *name && index.root.is_some()) {
            Ok(())
        } else {
            Err(Refusal::UnknownIndex)
        }
    }

    /// Someone asks for an index to be seeded anew.
    pub(super) fn on_reindex(&mut self, name: &IndexName) {
        let number = self.seeding.index(name);
        let index = self.seeding.get_mut(number);
        // One that was cleared, and of which nothing has been built since, is being seeded anew.
        index.anew = index.stage != Stage::Starting;
    }

    /// Shuts the indexes that are to be seeded anew, once it is known of them how far they are.
    pub(super) fn shut_anew(&mut self) {
        let mut again = Vec::new();
        for number in self.numbers() {
            let index = self.seeding.get(number);
            let is_known = match index.stage {
                // It is cleared anyway; or it stops first.
                Stage::Settling
                | Stage::Starting
                | Stage::Shut
                | Stage::Parking
                | Stage::Reading
                | Stage::Unseeded
                | Stage::Clearing => false,
                Stage::Parked
                | Stage::Open
                | Stage::Ready(_)
                | Stage::Scanning
                | Stage::Scanned
                | Stage::Marking
                | Stage::Seeded => true,
            };
            if index.anew && is_known {
                again.push(index.name.clone());
                self.shut(number, Stage::Shut);
            }
        }
        self.announce_again(again);
    }

    /// Of those that were to be seeded anyway it is told once the sink has told of all how far they are.
    pub(super) fn announce_again(&mut self, again: Vec<IndexName>) {
        if self.seeding.announced && !self.config.skip_backfill && !again.is_empty() {
            self.seeding.completed = false;
            self.notify(Notice::BackfillStarted(again));
        }
    }

    /// An index leaves what it was doing.
    pub(super) fn shut(&mut self, number: u32, stage: Stage) {
        let index = self.seeding.get_mut(number);
        index.stage = stage;
        index.rows.clear_marks();
        index.skip_to = None;
        index.verification = None;
        self.abandon(|purpose| purpose == Purpose::List(number));
        self.leave_scan(number);
    }

    /// Whether something of an index's seeding is being remembered.
    fn is_remembered(&self, number: u32) -> bool {
        [Purpose::SaveCursor(number), Purpose::MarkSeeded(number), Purpose::Clear(number)]
            .into_iter()
            .any(|purpose| self.calls.is_pending(purpose))
    }

    /// Clears what was shut, once nothing of it is under way.
    pub(super) fn clear_shut(&mut self) {
        for number in self.numbers() {
            let index = self.seeding.get(number);
            if index.stage != Stage::Shut || index.flying > 0 || self.is_remembered(number) {
                continue;
            }
            let index = self.seeding.get_mut(number);
            // The scan must see what was written before the clear, which may be acknowledged, and what was forgotten while
            // the index stopped.
            index.sees = index.sees.max(self.visibility);
            index.cursor = None;
            index.saving = false;
            if self.config.skip_backfill {
                index.stage = Stage::Clearing;
                self.make(Purpose::Clear(number), 1);
            } else {
                index.stage = Stage::Unseeded;
            }
        }
    }

    /// A document of an index failed, for which it stops. Returns until when the document is to be kept.
    pub(super) fn stop(&mut self, number: u32, document: RejectedDocument) -> Keep {
        let index = self.seeding.get(number);
        let is_cleared = index.anew || !index.until_cleared.is_empty();
        match index.stage {
            Stage::Parking => Keep::UntilParked,
            // Then every row of it is scanned again. A crash before may forget that it was to be.
            _ if is_cleared => Keep::UntilCleared,
            Stage::Shut | Stage::Unseeded | Stage::Clearing | Stage::Starting => Keep::UntilCleared,
            Stage::Parked => Keep::No,
            Stage::Settling
            | Stage::Reading
            | Stage::Open
            | Stage::Ready(_)
            | Stage::Scanning
            | Stage::Scanned
            | Stage::Marking
            | Stage::Seeded => {
                self.shut(number, Stage::Parking);
                self.seeding.get_mut(number).parked_for = Some(document);
                Keep::UntilParked
            }
        }
    }

    /// Has it remembered that an index stopped, once nothing else of it is being remembered.
    pub(super) fn park_stopped(&mut self) {
        for number in self.numbers() {
            let waits = || self.is_remembered(number) || self.calls.is_pending(Purpose::Park(number));
            if self.seeding.get(number).stage != Stage::Parking || waits() {
                continue;
            }
            let index = self.seeding.get_mut(number);
            index.cursor = None;
            index.saving = false;
            self.make(Purpose::Park(number), 1);
        }
    }

    /// That an index stopped is durable.
    pub(super) fn on_parked(&mut self, number: u32) {
        let index = self.seeding.get_mut(number);
        index.stage = Stage::Parked;
        if let Some(document) = index.parked_for.take() {
            self.notify(Notice::Parked(document));
        }
        self.settle_until_cleared(number);
        self.forget_parked(number);
    }

    /// Lets go of every document of an index that has stopped, and of what it was owed for.
    pub(super) fn forget_parked(&mut self, number: u32) {
        let (forgotten, visibility) = self.dirty.forget_index(number);
        // Who seeds it anew must see what is forgotten here.
        self.visibility = self.visibility.max(visibility);
        for owed in forgotten {
            self.release(number, owed);
        }
        self.let_go(number);
    }

    /// Lets go of the documents for which an index was to stop.
    pub(super) fn let_go(&mut self, number: u32) {
        for (unit, slots) in self.flights.take_parked(number) {
            self.settle(unit, slots);
            self.end_unit_if_settled(unit);
        }
    }
}
