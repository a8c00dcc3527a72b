//! The way of an index to being seeded: read, cleared, scanned, marked.

use alloc::vec::Vec;

use crate::document::DocumentId;
use crate::error::Fault;
use crate::pipeline::calls::{Call, Purpose};
use crate::pipeline::dirty::Cause;
use crate::pipeline::seeding::{Index, Stage};
use crate::pipeline::{CallId, Command, Notice, Pipeline, Then};
use crate::ports::SeedState;
use crate::row::Key;
use crate::time::Instant;

impl<B> Pipeline<B> {
    /// Takes every step of the seeding that needs no other event.
    pub(super) fn advance_seeding(&mut self) {
        if self.seeding.stream.is_none() {
            return;
        }
        for number in self.numbers() {
            let index = self.seeding.get(number);
            if index.stage == Stage::Settling && index.flying == 0 {
                self.seeding.get_mut(number).stage = Stage::Reading;
                self.make(Purpose::ReadSeed(number), 1);
            }
        }
        self.shut_anew();
        self.clear_shut();
        self.park_stopped();
        self.announce();
        if self.seeding.announced {
            for number in self.numbers() {
                if self.seeding.get(number).stage == Stage::Unseeded {
                    self.seeding.get_mut(number).stage = Stage::Clearing;
                    self.make(Purpose::Clear(number), 1);
                }
            }
        }
        if !self.ending.is_ending() && !self.is_listing() && self.seeding.next_scan() {
            if self.seeding.scan.as_ref().is_some_and(|scan| !scan.verifies) {
                self.cursors_at.get_or_insert(self.now.after(self.config.cursor_interval));
            }
            self.make(Purpose::Scan, 1);
        }
        self.wait_for_row();
        self.save_cursors();
        for number in self.numbers() {
            let index = self.seeding.get_mut(number);
            if index.stage == Stage::Scanned && index.rows.is_empty() && !index.saving {
                index.stage = Stage::Marking;
                index.cursor = None;
                self.make(Purpose::MarkSeeded(number), 1);
            }
        }
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<B> {
        (0..self.seeding.indexes.len()).map(|at| at as u32)
    }

    /// Tells which indexes will be seeded, once that is known of all, and that none is left.
    fn announce(&mut self) {
        if !self.seeding.is_read() {
            return;
        }
        if !self.seeding.announced {
            self.seeding.announced = true;
            // One that is stopping is not seeded until someone asks for it.
            let to_seed = |index: &&Index| !index.is_done() && index.stage != Stage::Parking;
            let unseeded = self.seeding.indexes.iter().filter(to_seed);
            let unseeded: Vec<_> = unseeded.map(|index| index.name.clone()).collect();
            if !unseeded.is_empty() && !self.config.skip_backfill {
                self.notify(Notice::BackfillStarted(unseeded));
            }
        }
        if !self.seeding.completed && self.seeding.is_done() {
            self.seeding.completed = true;
            self.notify(Notice::BackfillCompleted);
            self.tell_live();
        }
    }

    pub(super) fn on_seed_read(&mut self, call: Call, result: Result<SeedState, Fault>) {
        let Purpose::ReadSeed(number) = call.purpose else { return };
        match result {
            Ok(state) => {
                self.seeding.on_read(number, state);
                self.open_gate(number);
                if self.seeding.get(number).stage == Stage::Parked {
                    self.settle_until_cleared(number);
                    self.forget_parked(number);
                }
            }
            Err(fault) => self.on_fault(call, fault),
        }
    }

    /// Builds of an index may start, where its stage allows it.
    pub(super) fn open_gate(&mut self, number: u32) {
        if self.seeding.gate(number) {
            self.dirty.open_gate(number);
        }
    }

    pub(super) fn on_cleared(&mut self, number: u32) {
        self.settle_until_cleared(number);
        let index = self.seeding.get_mut(number);
        index.anew = false;
        index.rebuilt = !core::mem::take(&mut index.truncated);
        let skip = self.config.skip_backfill;
        self.seeding.get_mut(number).stage = if skip { Stage::Open } else { Stage::Starting };
        match skip {
            true => self.open_gate(number),
            false => self.make(Purpose::SaveCursor(number), 1),
        }
    }

    pub(super) fn on_cursor_saved(&mut self, number: u32) {
        let index = self.seeding.get_mut(number);
        if index.stage == Stage::Starting {
            index.stage = Stage::Ready(None);
            index.rebuilt = false;
            return self.open_gate(number);
        }
        index.saving = false;
        index.cursor = None;
    }

    pub(super) fn on_scan_opened(&mut self, call: CallId, attempt: u32) {
        if let Some(scan) = &mut self.seeding.scan {
            scan.open = Some(call);
            scan.attempt = attempt;
        }
    }

    /// When a row has been waited for too long.
    pub(super) fn scan_deadline(&self) -> Option<Instant> {
        let since = self.seeding.scan.as_ref()?.since.filter(|_| !self.ending.is_ending())?;
        Some(since.after(self.config.retry.attempt_timeout))
    }

    /// Gives up a snapshot that yields nothing.
    pub(super) fn watch_scan(&mut self) {
        if self.scan_deadline().is_some_and(|at| at <= self.now) {
            let Some(call) = self.seeding.scan.as_ref().and_then(|scan| scan.open) else { return };
            self.commands.push_back(Command::Abandon { call });
            let limit = self.config.retry.attempt_timeout;
            self.on_scan_failed(call, Fault::transient(alloc::format!("no row within {limit:?}")));
        }
    }

    /// A row is waited for from when one can be taken.
    fn wait_for_row(&mut self) {
        let can = self.scan_capacity() > 0;
        if let Some(scan) = &mut self.seeding.scan {
            scan.since = if can { scan.since.or(Some(self.now)) } else { None };
        }
    }

    pub(super) fn is_scanning(&self, call: CallId) -> bool {
        self.seeding.scan.as_ref().is_some_and(|scan| scan.open == Some(call))
    }

    pub(super) fn scan_capacity(&self) -> usize {
        let Some(scan) = self.seeding.scan.as_ref().filter(|scan| scan.open.is_some()) else { return 0 };
        let room = self.room_for_rows() / scan.members.len().max(1);
        // Where more indexes share a table than rows are allowed, one row at a time.
        room.max(usize::from(self.seeding.rows_owed() == 0))
    }

    /// How many more rows, or documents that a sink holds, may be owed.
    pub(super) fn room_for_rows(&self) -> usize {
        self.config.limits.backfill_rows.saturating_sub(self.seeding.rows_owed())
    }

    /// Whether no more rows are to be expected in the open unit.
    pub(super) fn is_scan_taken_in(&self) -> bool {
        self.scan_capacity() == 0
    }

    /// The rows of a snapshot only dirty documents: what is built is the row as it is then.
    pub(super) fn on_scanned(&mut self, call: CallId, keys: Vec<Key>, then: Then) {
        if !self.is_scanning(call) {
            return;
        }
        let Some(mut scan) = self.seeding.scan.take() else { return };
        for key in keys {
            let compares = scan.members.iter().any(|member| self.seeding.get(*member).skip_to.is_some());
            if let Some(after) = scan.after.as_ref().filter(|after| compares && **after >= key) {
                let table = &scan.table.table;
                let what = alloc::format!("row {key:?} of table {table} came after row {after:?}");
                // It is let go with the halt.
                self.seeding.scan = Some(scan);
                return self.halt_contract(crate::error::Stage::Scan, what);
            }
            for &number in &scan.members {
                let index = self.seeding.get_mut(number);
                match &index.skip_to {
                    Some(skip_to) if key <= *skip_to => continue,
                    Some(_) => index.skip_to = None,
                    None => {}
                }
                let id = DocumentId::new(index.name.clone(), key.clone());
                self.owe_row(number, id);
                if !scan.verifies {
                    self.seeding.get_mut(number).rows.mark(key.clone());
                }
            }
            scan.after = Some(key);
            scan.attempt = 1;
            scan.since = None;
        }
        if then == Then::End {
            for &number in &scan.members {
                let index = self.seeding.get_mut(number);
                match &mut index.verification {
                    // An index that is being seeded is not verified.
                    Some(verification) => verification.on_scanned(),
                    None => index.stage = Stage::Scanned,
                }
            }
        } else {
            self.seeding.scan = Some(scan);
        }
    }

    /// A document is owed for a row of its index's scan, or of what the index holds.
    pub(super) fn owe_row(&mut self, number: u32, id: DocumentId) {
        let index = self.seeding.get_mut(number);
        let row = index.rows.push(self.now);
        let gate = index.gate();
        let dirtied = self.dirty.dirty(number, id, Cause::Row(row), None, self.now, gate);
        if dirtied.holds {
            index.rows.hold(row);
        }
        if dirtied.fresh || dirtied.open {
            self.dirty.count_change(dirtied.slot);
        }
        index.rows.settle(row);
    }

    /// A snapshot is opened again after the last row that it gave.
    pub(super) fn on_scan_failed(&mut self, call: CallId, fault: Fault) {
        if !self.is_scanning(call) || self.ending.is_ending() {
            return;
        }
        let Some(scan) = &mut self.seeding.scan else { return };
        scan.open = None;
        scan.since = None;
        let attempt = scan.attempt;
        self.on_fault(Call { purpose: Purpose::Scan, attempt, made: self.now, deadline: self.now }, fault);
    }

    /// Drops the snapshot that is open, and saves no cursors any more.
    pub(super) fn close_scan(&mut self) {
        self.close_snapshot();
        self.cursors_at = None;
    }

    fn close_snapshot(&mut self) {
        self.abandon(|purpose| purpose == Purpose::Scan);
        let scan = self.seeding.scan.as_mut();
        if let Some(call) = scan.and_then(|scan| (scan.since.take(), scan.open.take()).1) {
            self.commands.push_back(Command::Abandon { call });
        }
    }

    /// An index takes no part in the scan any more; the last one ends it.
    pub(super) fn leave_scan(&mut self, number: u32) {
        let Some(scan) = &mut self.seeding.scan else { return };
        scan.members.retain(|member| *member != number);
        if scan.members.is_empty() {
            self.close_snapshot();
            self.seeding.scan = None;
        }
    }

    /// Saves the cursors of the backfill, where that is due: now and then, and before a drain is over.
    fn save_cursors(&mut self) {
        let due = self.cursors_at.is_some_and(|at| at <= self.now);
        let last = self.ending.is_draining() && self.dirty.documents() == 0;
        if !due && !last {
            return;
        }
        for number in self.numbers() {
            let index = self.seeding.get_mut(number);
            if !matches!(index.stage, Stage::Scanning | Stage::Scanned) || index.saving {
                continue;
            }
            if let Some(cursor) = index.rows.take_safe() {
                index.cursor = Some(cursor);
                index.saving = true;
                self.make(Purpose::SaveCursor(number), 1);
            }
        }
        if due {
            // A table that was read to its end has cursors to save until its rows are durable.
            let seeding = |index: &Index| matches!(index.stage, Stage::Scanning | Stage::Scanned);
            let again = self.seeding.indexes.iter().any(seeding) && !self.ending.is_ending();
            self.cursors_at = again.then(|| self.now.after(self.config.cursor_interval));
        }
    }

    pub(super) fn on_marked(&mut self, number: u32) {
        let index = self.seeding.get_mut(number);
        // It was truncated meanwhile, and will be cleared.
        if index.stage != Stage::Marking {
            return;
        }
        index.stage = Stage::Seeded;
        index.sees = None;
        let name = index.name.clone();
        self.notify(Notice::IndexSeeded(name));
    }
}
