//! The invariants that the [module](super) lists, in one function.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::pipeline::Pipeline;
use crate::pipeline::calls::Purpose;
use crate::pipeline::flight::Part;
use crate::pipeline::ledger::Handle;
use crate::pipeline::seeding::{Scan, Stage};
use crate::pipeline::slab::Slot;
use crate::pipeline::verify::Verification;

/// So many documents are checked after every event of a debug build; more would make a long run quadratic.
#[cfg(debug_assertions)]
const SMALL: usize = 256;

impl<B> Pipeline<B> {
    #[cfg(debug_assertions)]
    pub(super) fn check_while_small(&self) {
        if self.dirty.documents() + self.resolve.len() <= SMALL {
            self.check_invariants();
        }
    }

    /// Checks every invariant that the [module](super) lists, in time linear in what the pipeline holds.
    ///
    /// # Panics
    ///
    /// Where one does not hold, with its number: a bug of the pipeline.
    pub fn check_invariants(&self) {
        self.check_ledgers();
        self.check_flights();
        self.check_units();
        self.check_limits();
        self.check_calls();
        self.check_acks();
        self.check_gates();
        self.check_progress();
        self.check_scan();
    }

    fn check_ledgers(&self) {
        let mut changes: BTreeMap<Handle, u32> = BTreeMap::new();
        let mut rows: BTreeMap<(u32, Handle), u32> = BTreeMap::new();
        for (handle, _) in self.resolve.iter() {
            *changes.entry(handle).or_default() += 1;
        }
        for document in self.dirty.iter() {
            let waiting = document.waiting.map(|waiting| waiting.owed);
            for owed in waiting.into_iter().chain(document.flying) {
                if let Some(handle) = owed.live {
                    *changes.entry(handle).or_default() += 1;
                }
                if let Some(handle) = owed.row {
                    *rows.entry((document.index, handle)).or_default() += 1;
                }
            }
        }
        for handle in self.seeding.indexes.iter().flat_map(|index| &index.until_cleared) {
            *changes.entry(*handle).or_default() += 1;
        }
        let ledger: BTreeMap<Handle, u32> =
            self.ack.changes.iter().map(|(handle, _, _, holders, _)| (handle, holders)).collect();
        assert_eq!(ledger, changes, "I1: a change is held by those who point to it");
        let mut ledger = BTreeMap::new();
        for (at, index) in self.seeding.indexes.iter().enumerate() {
            ledger.extend(index.rows.iter().map(|(handle, _, _, holders, _)| ((at as u32, handle), holders)));
        }
        assert_eq!(ledger, rows, "I1: a row is held by those who point to it");
    }

    fn check_flights(&self) {
        let mut flying: Vec<Slot> = Vec::new();
        for (number, unit) in self.flights.iter() {
            let mut slots: Vec<Slot> = Vec::new();
            if unit.building {
                slots.extend(&unit.slots);
            }
            for (part, _) in unit.parts.values() {
                match part {
                    Part::Compare(writes) | Part::Flush(writes) => {
                        slots.extend((0..writes.len()).map(|at| unit.slots[writes.place(at)]));
                    }
                    Part::Quarantine(_, held) | Part::Release(_, held) | Part::Parked(_, held) => {
                        slots.extend(held)
                    }
                }
            }
            if !self.ending.is_halting() {
                assert_eq!(slots.len(), unit.unsettled, "I2: unit {number} holds what it has not settled");
                assert!(!slots.is_empty(), "I2: unit {number} is over");
            }
            flying.extend(slots);
        }
        let distinct: BTreeSet<Slot> = flying.iter().copied().collect();
        assert_eq!(distinct.len(), flying.len(), "I2: a document is in flight once");
        let marked: BTreeSet<Slot> = self
            .dirty
            .iter()
            .filter(|document| document.flying.is_some())
            .map(|document| document.slot)
            .collect();
        assert_eq!(marked.len(), self.dirty.flying(), "I2: flights are counted");
        if !self.ending.is_halting() {
            assert_eq!(distinct, marked, "I2: a document flies where a unit holds it");
        }
    }

    fn check_units(&self) {
        let mut standing: BTreeMap<Slot, u64> = BTreeMap::new();
        for document in self.dirty.iter() {
            let Some(waiting) = document.waiting else {
                assert!(document.flying.is_some(), "I3: {} is neither dirty nor in flight", document.id);
                continue;
            };
            assert_eq!(
                waiting.deferred,
                document.flying.is_some(),
                "I3: {} is deferred while it is in flight",
                document.id
            );
            let stage = &self.seeding.get(document.index).stage;
            assert_ne!(*stage, Stage::Parked, "I3: {} waits, and its index has stopped", document.id);
            if let Some(unit) = waiting.unit {
                standing.insert(document.slot, unit);
            }
        }
        let mut counted = 0;
        for (_, number, documents, slots) in self.dirty.units() {
            let here: BTreeSet<&Slot> =
                slots.iter().filter(|slot| standing.get(slot) == Some(&number)).collect();
            assert_eq!(here.len(), documents, "I3: unit {number} counts its documents");
            counted += documents;
        }
        assert_eq!(counted, standing.len(), "I3: a document waits in one unit");
        let live = self.dirty.iter().filter(|document| document.live).count();
        assert_eq!(live, self.dirty.live_documents(), "I3: live documents are counted");
    }

    fn check_limits(&self) {
        let limits = self.config.limits;
        assert!(self.ack.changes.len() <= limits.changes, "I4: changes");
        assert!(self.resolve.under_way() <= limits.resolves, "I4: resolves");
        let builds = self.calls.under_way(|purpose| matches!(purpose, Purpose::Build(_)));
        assert!(builds <= limits.builds, "I4: builds");
        let flushes =
            self.calls.under_way(|purpose| matches!(purpose, Purpose::Flush(_) | Purpose::Compare(_)));
        assert!(flushes <= self.flush_limit.most(), "I4: flushes");
    }

    fn check_calls(&self) {
        let made = self.calls.made().map(|(_, call)| call.purpose);
        let all: Vec<Purpose> = made.chain(self.calls.waiting().map(|(_, purpose, _)| purpose)).collect();
        let distinct: BTreeSet<Purpose> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len(), "I5: one call for each purpose");
        for purpose in all {
            let needed = match purpose {
                Purpose::Resolve(group) => {
                    self.resolve.groups().any(|(number, _, answered)| number == group && !answered)
                }
                Purpose::Build(unit) => self.flights.get(unit).is_some_and(|unit| unit.building),
                Purpose::Flush(part) => matches!(self.flights.part(part), Some(Part::Flush(..))),
                Purpose::Compare(part) => matches!(self.flights.part(part), Some(Part::Compare(..))),
                Purpose::List(index) => self.seeding.get(index).verification.is_some(),
                Purpose::Quarantine(part) => matches!(self.flights.part(part), Some(Part::Quarantine(..))),
                Purpose::Release(part) => matches!(self.flights.part(part), Some(Part::Release(..))),
                Purpose::Ack => self.ack.outgoing().0.is_some(),
                Purpose::ReadSeed(index) => self.seeding.get(index).stage == Stage::Reading,
                Purpose::Clear(index) => self.seeding.get(index).stage == Stage::Clearing,
                Purpose::SaveCursor(index) => {
                    let index = self.seeding.get(index);
                    index.saving
                        || index.stage == Stage::Starting
                        || (index.rebuilt && index.stage == Stage::Shut)
                }
                Purpose::MarkSeeded(index) => {
                    matches!(self.seeding.get(index).stage, Stage::Marking | Stage::Shut | Stage::Parking)
                }
                Purpose::Park(index) => self.seeding.get(index).stage == Stage::Parking,
                Purpose::Scan => self.seeding.scan.as_ref().is_some_and(|scan| scan.open.is_none()),
                Purpose::Open => !self.capture.is_open(),
                Purpose::Begin
                | Purpose::Describe
                | Purpose::Ensure(_)
                | Purpose::LoadQuarantine
                | Purpose::CaughtUp
                | Purpose::ReadLag => true,
            };
            assert!(needed, "I5: {purpose:?} is made for nobody");
        }
    }

    fn check_acks(&self) {
        let oldest = self.ack.changes.iter().next().map(|(_, number, ..)| number);
        let (sent, safe) = self.ack.outgoing();
        for checkpoint in sent.into_iter().chain(safe) {
            if let Some(oldest) = oldest {
                assert!(checkpoint.captured <= oldest, "I6: {checkpoint:?} passes change {oldest}");
            }
        }
    }

    fn check_gates(&self) {
        let mut flying: BTreeMap<u32, usize> = BTreeMap::new();
        for document in self.dirty.iter().filter(|document| document.flying.is_some()) {
            *flying.entry(document.index).or_default() += 1;
        }
        for (at, index) in self.seeding.indexes.iter().enumerate() {
            let counted = flying.get(&(at as u32)).copied().unwrap_or_default();
            assert_eq!(index.flying, counted, "I7: flights of index {} are counted", index.name);
            let leaves =
                matches!(index.stage, Stage::Settling | Stage::Shut | Stage::Parking | Stage::Parked);
            if !index.gate() && !leaves {
                assert_eq!(index.flying, 0, "I7: index {} is being cleared", index.name);
            }
        }
    }

    fn check_progress(&self) {
        if self.ending.is_over() {
            return;
        }
        let owed = !self.resolve.is_empty() || self.dirty.documents() > 0 || self.seeding.owes_a_clear();
        // A call that is under way has a time limit.
        assert!(!owed || self.poll_timeout().is_some(), "I8: something is owed, and nothing will happen");
        if self.flights.all_ready().next().is_some() {
            let flushes =
                self.calls.under_way(|purpose| matches!(purpose, Purpose::Flush(_) | Purpose::Compare(_)));
            assert!(flushes > 0, "I8: a part is ready, and nothing is being flushed");
        }
        if self.flights.ready_builds().next().is_some() {
            let builds = self.calls.under_way(|purpose| matches!(purpose, Purpose::Build(_)));
            assert!(builds > 0, "I8: a unit is to be built again, and nothing is being built");
        }
    }

    fn check_scan(&self) {
        let scan = self.seeding.scan.as_ref();
        for (at, index) in self.seeding.indexes.iter().enumerate() {
            let is_compared = index.verification.is_some();
            assert!(
                !is_compared || index.is_seeded(),
                "I9: index {} is compared, and is not seeded",
                index.name
            );
            let reads = index.verification.as_ref().is_some_and(Verification::reads_rows);
            let of_scan = |scan: &&Scan| scan.members.contains(&(at as u32));
            let Some(scan) = scan.filter(of_scan) else {
                assert!(!reads, "I9: the rows of index {} are compared, and not read", index.name);
                continue;
            };
            // A run that ends compares nothing more, and keeps how far its scan was.
            let is_over = scan.verifies && self.ending.is_ending();
            assert!(
                is_over || reads == scan.verifies,
                "I9: index {} is in a scan of another kind",
                index.name
            );
            let seeds = index.stage == Stage::Scanning;
            assert_ne!(seeds, scan.verifies, "I9: index {} is in a scan, and is not read", index.name);
        }
    }
}

#[cfg(test)]
mod tests;
