//! A unit's way: cut, built, flushed, settled; and what the verdicts of a call mean.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::Operation;
use crate::config::FailurePolicy;
use crate::document::{Content, DocumentId, Version, Write, Writes};
use crate::error::{EngineError, Fault, FaultKind, RejectedDocument, Stage};
use crate::name::IndexName;
use crate::pipeline::adaptive::{all_but_one, is_of_the_sink};
use crate::pipeline::anew::Keep;
use crate::pipeline::calls::{Call, PartId, Purpose};
use crate::pipeline::dirty::Owed;
use crate::pipeline::flight::Part;
use crate::pipeline::slab::Slot;
use crate::pipeline::{CallId, Command, Notice, Pipeline, build, flush, seeding};
use crate::ports::{BatchStats, Built, CuredDocument, FlushReport, Lane, QuarantinedDocument};

/// A document that its sink, or its builder, will not have as it is.
struct Refused {
    slot: Slot,
    operation: Operation,
    reason: Arc<str>,
}

fn operation<B>(content: &Content<B>) -> Operation {
    match content {
        Content::Upsert(_) => Operation::Upsert,
        Content::Delete => Operation::Delete,
    }
}

impl<B> Pipeline<B> {
    /// Whether a unit of this lane may start: the capture was opened, there is a free build, and a place among the units
    /// in flight. Where there are several, the backfill leaves one of each to the live lane.
    pub(super) fn has_room(&self, lane: Lane) -> bool {
        let limits = self.config.limits;
        let room = self.capture.is_started() && self.has_free_build() && self.flights.len() < limits.units;
        match lane {
            Lane::Live => room,
            Lane::Backfill => {
                room && self.flights.in_lane(lane) < all_but_one(limits.units)
                    && self.backfill_builds_under_way() < all_but_one(self.build_limit.at_once())
            }
        }
    }

    fn has_free_build(&self) -> bool {
        self.builds_under_way() < self.build_limit.at_once()
    }

    /// Builds while there is room: first what is to be built again, then units that are cut for it. Live ones go first;
    /// the backfill keeps its share.
    pub(super) fn start_builds(&mut self) {
        while self.has_free_build() {
            let Some((unit, attempt)) = self.flights.take_build() else { break };
            self.make(Purpose::Build(unit), attempt);
        }
        loop {
            let due =
                |lane: Lane, at_once: bool| self.has_room(lane) && self.dirty.is_due(lane, self.now, at_once);
            let live = due(Lane::Live, self.is_taken_in());
            let backfill = due(Lane::Backfill, self.is_scan_taken_in());
            let lane = match (live, backfill) {
                (false, false) => return,
                (true, false) => Lane::Live,
                (false, true) => Lane::Backfill,
                (true, true) => self.turn(self.live_cuts),
            };
            self.live_cuts = if lane == Lane::Live { self.live_cuts + 1 } else { 0 };
            let seeding = &self.seeding;
            let Some(cut) = self.dirty.cut(lane, |index| seeding.gate(index)) else { continue };
            let ids: Arc<[DocumentId]> = cut.slots.iter().map(|slot| self.dirty.id(*slot).clone()).collect();
            for &slot in &cut.slots {
                self.seeding.get_mut(self.dirty.index_of(slot)).flying += 1;
            }
            self.visibility = self.visibility.max(cut.visibility);
            let unit = self.flights.start(lane, cut.slots, ids, self.visibility, cut.changes);
            self.make(Purpose::Build(unit), 1);
        }
    }

    /// Whose turn it is after so many live ones in a row, where both lanes wait.
    fn turn(&self, live: u32) -> Lane {
        if live + 1 >= self.config.limits.backfill_share { Lane::Backfill } else { Lane::Live }
    }

    pub(super) fn build_command(&self, call: CallId, unit: u64) -> Option<Command<B>> {
        let unit = self.flights.get(unit)?;
        Some(Command::Build { call, ids: unit.ids.clone(), visibility: unit.visibility })
    }

    pub(super) fn on_built(&mut self, call: Call, result: Result<Vec<Built<B>>, Fault>, bytes: Vec<usize>) {
        let Purpose::Build(number) = call.purpose else { return };
        let answers = match result {
            Ok(answers) => answers,
            Err(fault) if fault.kind() == FaultKind::Content => {
                return self.on_build_refused(call, number, &fault);
            }
            Err(fault) => return self.on_fault(call, fault),
        };
        let Some(unit) = self.flights.get_mut(number) else { return };
        let (answers, bytes) = match build::in_order(&unit.ids, answers, bytes) {
            Ok(in_order) => in_order,
            Err(what) => return self.halt_contract(Stage::Build, what),
        };
        self.builds += 1;
        let version = Version { epoch: self.epoch, build: self.builds };
        let slots = core::mem::take(&mut unit.slots);
        unit.building = false;
        unit.version = version;
        let mut writes = Vec::with_capacity(slots.len());
        let (mut sizes, mut written) = (Vec::with_capacity(slots.len()), Vec::with_capacity(slots.len()));
        let (mut refused, mut again) = (Vec::new(), Vec::new());
        let mut fault = None;
        for ((built, size), slot) in answers.into_iter().zip(bytes).zip(slots) {
            match built {
                Ok(document) => {
                    writes.push(Write { document, version });
                    sizes.push(size);
                    written.push(slot);
                }
                Err(failed) => match failed.fault.kind() {
                    FaultKind::Content => {
                        let reason = failed.fault.message().into();
                        refused.push(Refused { slot, operation: Operation::Upsert, reason });
                    }
                    FaultKind::Fatal => return self.halt_failed(Stage::Build, call.attempt, failed.fault),
                    FaultKind::Transient => {
                        again.push(slot);
                        fault = Some(failed.fault);
                    }
                },
            }
        }
        // A builder may say anything of its bodies, so that their sum may be more than can be counted to.
        let bytes = sizes.iter().fold(0_usize, |sum, bytes| sum.saturating_add(*bytes));
        self.dirty.learn_body_bytes(sizes.len(), bytes);
        unit_mut(&mut self.flights, number).slots = written;
        if let Some(fault) = fault {
            self.build_again(call, number, again, fault);
        }
        // The last attempt of those may have ended the run.
        if self.ending.is_halting() || !self.refuse(number, refused, call.attempt) {
            return;
        }
        self.write(number, Writes::new(writes), &sizes);
        self.end_unit_if_settled(number);
    }

    /// What a unit has built is written, or compared first.
    fn write(&mut self, number: u64, writes: Writes<B>, sizes: &[usize]) {
        if !self.seeding.is_verifying() {
            return self.add_parts(number, &writes, sizes, Part::Flush);
        }
        let (compared, written) = self.compared_first(number, &writes);
        let of = |places: &[usize]| -> Vec<usize> { places.iter().map(|at| sizes[*at]).collect() };
        let (compared_sizes, written_sizes) = (of(&compared), of(&written));
        self.add_parts(number, &writes.pick(compared), &compared_sizes, Part::Compare);
        self.add_parts(number, &writes.pick(written), &written_sizes, Part::Flush);
    }

    /// Adds writes of a unit, in calls of which none is too large.
    fn add_parts(
        &mut self,
        number: u64,
        writes: &Writes<B>,
        sizes: &[usize],
        part: fn(Writes<B>) -> Part<B>,
    ) {
        for call in flush::parts(writes, sizes, self.config.batch.max_bytes) {
            if let Some(part) = self.flights.add(number, part(call), 1) {
                self.flights.ready(part);
            }
        }
    }

    /// Documents of a unit whose build failed for the moment are built again, as a unit of their own. Where those are all
    /// of them, its changes are counted there.
    fn build_again(&mut self, call: Call, number: u64, slots: Vec<Slot>, fault: Fault) {
        let unit = unit_mut(&mut self.flights, number);
        unit.unsettled -= slots.len();
        let (lane, visibility) = (unit.lane, unit.visibility);
        let changes = if unit.unsettled == 0 { core::mem::take(&mut unit.changes) } else { 0 };
        let ids = slots.iter().map(|slot| self.dirty.id(*slot).clone()).collect();
        let again = self.flights.start(lane, slots, ids, visibility, changes);
        self.on_fault(Call { purpose: Purpose::Build(again), ..call }, fault);
    }

    /// A whole build was refused for its content: its halves are built for themselves, until the document at fault
    /// stands alone.
    fn on_build_refused(&mut self, call: Call, number: u64, fault: &Fault) {
        let Some(unit) = self.flights.get_mut(number) else { return };
        if let [slot] = unit.slots[..] {
            self.builds += 1;
            unit.building = false;
            unit.version = Version { epoch: self.epoch, build: self.builds };
            unit.slots.clear();
            let refused = Refused { slot, operation: Operation::Upsert, reason: fault.message().into() };
            if self.refuse(number, alloc::vec![refused], call.attempt) {
                self.end_unit_if_settled(number);
            }
            return;
        }
        if self.ending.is_halting() {
            return;
        }
        let Some(unit) = self.flights.remove(number) else { return };
        for &slot in &unit.slots {
            self.seeding.get_mut(self.dirty.index_of(slot)).flying -= 1;
        }
        if unit.changes == 0 {
            self.dirty.count_no_more(&unit.slots);
        }
        debug_assert_eq!(
            self.dirty.counted(&unit.slots),
            unit.changes,
            "a unit counts all of its changes, or none"
        );
        let (first, second) = unit.slots.split_at(unit.slots.len() / 2);
        for half in [second, first] {
            for (index, owed) in self.dirty.put_back(half) {
                self.release(index, owed);
            }
        }
        // An index that has stopped meanwhile has forgotten its documents.
        for number in self.numbers() {
            if self.seeding.get(number).stage == seeding::Stage::Parked {
                self.forget_parked(number);
            }
        }
    }

    /// Flushes what is ready, oldest first, while the sink takes more. Live parts go first; the backfill keeps its share, and
    /// where there are several places leaves one to the live lane, once live changes flow.
    pub(super) fn start_flushes(&mut self) {
        while self.calls.under_way(is_of_the_sink) < self.flush_limit.at_once() {
            let backfill = self.flights.is_ready(Lane::Backfill)
                && self.backfill_flushes_under_way() < self.backfill_flushes();
            let lane = match (self.flights.is_ready(Lane::Live), backfill) {
                (false, false) => return,
                (true, false) => Lane::Live,
                (false, true) => Lane::Backfill,
                (true, true) => self.turn(self.live_flushes),
            };
            self.live_flushes = if lane == Lane::Live { self.live_flushes + 1 } else { 0 };
            let Some(part) = self.flights.take_ready(lane) else { return };
            let attempt = self.flights.attempt(part);
            if matches!(self.flights.part(part), Some(Part::Compare(_))) {
                self.make(Purpose::Compare(part), attempt);
                continue;
            }
            if let Some(unit) = self.flights.get_mut(part.unit) {
                unit.flush_began.get_or_insert(self.now);
            }
            self.make(Purpose::Flush(part), attempt);
        }
    }

    pub(super) fn flush_command(&mut self, call: CallId, id: PartId) -> Option<Command<B>> {
        let Some(Part::Flush(writes)) = self.flights.part(id) else { return None };
        let writes = writes.clone();
        let unit = self.flights.get(id.unit)?;
        let ends =
            || (0..writes.len()).filter(|at| self.dirty.ends_live(unit.slots[writes.place(*at)])).count();
        let caught_up = self.is_intake_quiet() && ends() == self.dirty.live_documents();
        self.told_caught_up = caught_up;
        Some(Command::Flush { call, writes, caught_up })
    }

    /// Nothing live is known to wait before the dirty set, nor to be cleared.
    fn is_intake_quiet(&self) -> bool {
        self.capture.is_quiet() && self.resolve.is_empty() && !self.seeding.owes_a_clear()
    }

    /// Whether nothing live is owed.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_intake_quiet() && self.dirty.live_documents() == 0
    }

    /// Tells the sink that it is caught up, where that became true only after a flush that was told otherwise. Where it is
    /// still being told so of an earlier time, its answer comes first.
    pub(super) fn tell_caught_up(&mut self) {
        if !self.told_caught_up && self.is_caught_up() && !self.calls.is_pending(Purpose::CaughtUp) {
            self.told_caught_up = true;
            self.make(Purpose::CaughtUp, 1);
        }
    }

    pub(super) fn on_flushed(&mut self, call: Call, result: Result<FlushReport, Fault>) {
        let Purpose::Flush(id) = call.purpose else { return };
        let report = match result {
            Ok(report) => report,
            Err(fault) if fault.kind() == FaultKind::Content => {
                return self.on_flush_refused(call, id, &fault);
            }
            Err(fault) => return self.on_fault(call, fault),
        };
        let Some(Part::Flush(writes)) = self.flights.take_part(id) else { return };
        let verdicts = match flush::verdicts(&writes, report) {
            Ok(verdicts) => verdicts,
            Err(what) => return self.halt_contract(Stage::Flush, what),
        };
        let unit = unit_mut(&mut self.flights, id.unit);
        unit.flush_ended = Some(self.now);
        let slot = |at: usize| unit.slots[writes.place(at)];
        let refused = verdicts.rejected.into_iter().map(|(at, reason)| Refused {
            slot: slot(at),
            operation: operation(&writes.get(at).document.content),
            reason,
        });
        let refused: Vec<Refused> = refused.collect();
        let applied: Vec<Slot> = verdicts.applied.into_iter().map(slot).collect();
        if !self.refuse(id.unit, refused, call.attempt) {
            return;
        }
        if !verdicts.throttled.is_empty() {
            let throttled = writes.pick(verdicts.throttled);
            self.flush_throttled(call, id.unit, throttled);
        }
        self.written(id.unit, applied);
        self.end_unit_if_settled(id.unit);
    }

    /// The sink could not take some documents at the moment: these alone are tried again.
    fn flush_throttled(&mut self, call: Call, unit: u64, throttled: Writes<B>) {
        if self.ending.is_halting() {
            return;
        }
        let fault = Fault::transient(alloc::format!("the sink throttled {} document(s)", throttled.len()));
        if let Some(part) = self.flights.add(unit, Part::Flush(throttled), call.attempt + 1) {
            self.on_fault(Call { purpose: Purpose::Flush(part), ..call }, fault);
        }
    }

    /// A whole call was refused for its content: its halves are sent for themselves, until the document at fault stands
    /// alone.
    fn on_flush_refused(&mut self, call: Call, id: PartId, fault: &Fault) {
        let Some(Part::Flush(writes)) = self.flights.take_part(id) else { return };
        if writes.len() > 1 {
            let middle = writes.len() / 2;
            for half in [writes.slice(0, middle), writes.slice(middle, writes.len())] {
                let part = self.flights.add(id.unit, Part::Flush(half), 1);
                if let Some(part) = part.filter(|_| !self.ending.is_halting()) {
                    self.flights.ready(part);
                }
            }
            return;
        }
        let unit = unit_mut(&mut self.flights, id.unit);
        unit.flush_ended = Some(self.now);
        let refused = writes.iter().enumerate().map(|(at, write)| Refused {
            slot: unit.slots[writes.place(at)],
            operation: operation(&write.document.content),
            reason: fault.message().into(),
        });
        let refused = refused.collect();
        if self.refuse(id.unit, refused, call.attempt) {
            self.end_unit_if_settled(id.unit);
        }
    }

    /// What happens where a document of an index fails. Nobody could seed one anew that has no scope, nor any where the
    /// backfill is skipped: it cannot stop alone.
    fn failure_policy(&self, index: &IndexName) -> FailurePolicy {
        let policy = self.config.failure_policies.of(index);
        let mut scoped = self.seeding.indexes.iter().filter(|known| known.root.is_some());
        let mut can_be_seeded = || !self.config.skip_backfill && scoped.any(|known| known.name == *index);
        if policy == FailurePolicy::Park && !can_be_seeded() { FailurePolicy::Stop } else { policy }
    }

    /// Decides about documents that will not be had as they are, those of one call together: where one of them belongs to
    /// an index that stops the run, it halts, and nothing of the call is settled. Else each is quarantined, or its index
    /// stops alone. Returns whether the rest of the call may be settled.
    fn refuse(&mut self, unit: u64, refused: Vec<Refused>, attempts: u32) -> bool {
        let failed = refused.into_iter().map(|refused| {
            let id = self.dirty.id(refused.slot).clone();
            (RejectedDocument { id, reason: refused.reason.clone() }, refused)
        });
        let failed: Vec<(RejectedDocument, Refused)> = failed.collect();
        let policy = |document: &RejectedDocument| self.failure_policy(&document.id.index);
        let mut stops = failed.iter().filter(|(document, _)| policy(document) == FailurePolicy::Stop);
        if let Some((example, _)) = stops.next() {
            let count = 1 + stops.count();
            let example = alloc::format!("{example}");
            self.halt(Some(EngineError::DocumentsRejected(count, example)));
            return false;
        }
        let (parked, skipped): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(document, _)| policy(document) == FailurePolicy::Park);
        for (document, Refused { slot, .. }) in parked {
            self.park(unit, document, slot);
        }
        if !skipped.is_empty() {
            self.skip(unit, skipped, attempts);
        }
        true
    }

    /// Documents are passed over; where there is a quarantine, once it has recorded them.
    fn skip(&mut self, unit: u64, skipped: Vec<(RejectedDocument, Refused)>, attempts: u32) {
        for (document, _) in &skipped {
            self.notify(Notice::Quarantined(document.clone(), attempts));
        }
        self.quarantined_count += skipped.len() as u64;
        let slots: Vec<Slot> = skipped.iter().map(|(_, refused)| refused.slot).collect();
        if !self.config.quarantine {
            return self.settle(unit, slots);
        }
        let version = unit_mut(&mut self.flights, unit).version;
        let records = skipped.into_iter().map(|(document, refused)| QuarantinedDocument {
            id: document.id,
            operation: refused.operation,
            reason: document.reason,
            attempts,
            version,
        });
        let records: Arc<[QuarantinedDocument]> = records.collect();
        self.quarantined.extend(records.iter().map(|record| record.id.clone()));
        if let Some(part) = self.flights.add(unit, Part::Quarantine(records, slots), 1) {
            self.make(Purpose::Quarantine(part), 1);
        }
    }

    /// A document fails for which its index stops.
    fn park(&mut self, unit: u64, document: RejectedDocument, slot: Slot) {
        let number = self.dirty.index_of(slot);
        match self.stop(number, document) {
            Keep::UntilParked => drop(self.flights.add(unit, Part::Parked(number, alloc::vec![slot]), 1)),
            Keep::UntilCleared => {
                unit_mut(&mut self.flights, unit).unsettled -= 1;
                let (number, owed) = self.land(slot);
                self.seeding.get_mut(number).until_cleared.extend(owed.live);
                self.release(number, Owed { live: None, ..owed });
            }
            Keep::No => self.settle(unit, alloc::vec![slot]),
        }
    }

    /// Documents are durable in the sink. Those that stand in quarantine leave it first.
    fn written(&mut self, unit: u64, mut slots: Vec<Slot>) {
        let flight = unit_mut(&mut self.flights, unit);
        let version = flight.version;
        for same in slots.chunk_by(|a, b| self.dirty.index_of(*a) == self.dirty.index_of(*b)) {
            *flight.written.entry(self.dirty.index_of(same[0])).or_default() += same.len();
        }
        if !self.quarantined.is_empty() {
            let (dirty, quarantined) = (&self.dirty, &self.quarantined);
            let cured: Vec<Slot> =
                slots.iter().copied().filter(|slot| quarantined.contains(dirty.id(*slot))).collect();
            if !cured.is_empty() {
                slots.retain(|slot| !cured.contains(slot));
                let documents = cured
                    .iter()
                    .map(|slot| CuredDocument { id: self.dirty.id(*slot).clone(), version })
                    .collect();
                if let Some(part) = self.flights.add(unit, Part::Release(documents, cured), 1) {
                    self.make(Purpose::Release(part), 1);
                }
            }
        }
        self.settle(unit, slots);
    }

    /// The quarantine has recorded, or released, some documents of a unit: they are settled.
    pub(super) fn on_part_done(&mut self, id: PartId) {
        let slots = match self.flights.take_part(id) {
            Some(Part::Quarantine(_, slots)) => slots,
            Some(Part::Release(documents, slots)) => {
                for CuredDocument { id, .. } in documents.iter() {
                    self.quarantined.remove(id);
                    self.notify(Notice::Released(id.clone()));
                }
                slots
            }
            Some(Part::Compare(..) | Part::Flush(..) | Part::Parked(..)) | None => return,
        };
        self.settle(id.unit, slots);
        self.end_unit_if_settled(id.unit);
    }

    /// Nothing is owed any more for these documents as they were when their build began.
    pub(super) fn settle(&mut self, unit: u64, slots: Vec<Slot>) {
        unit_mut(&mut self.flights, unit).unsettled -= slots.len();
        for slot in slots {
            let (index, owed) = self.land(slot);
            self.release(index, owed);
        }
    }

    /// The flight of a document is over: its index, and what it was owed for.
    fn land(&mut self, slot: Slot) -> (u32, Owed) {
        let seeding = &self.seeding;
        let (index, owed) = self.dirty.settle(slot, |index| seeding.gate(index));
        self.seeding.get_mut(index).flying -= 1;
        (index, owed)
    }

    /// A document holds on to these no longer.
    pub(super) fn release(&mut self, index: u32, owed: Owed) {
        if let Some(change) = owed.live {
            self.ack.changes.settle(change);
        }
        if let Some(row) = owed.row {
            self.seeding.get_mut(index).rows.settle(row);
        }
    }

    pub(super) fn end_unit_if_settled(&mut self, number: u64) {
        if self.flights.get(number).is_none_or(|unit| unit.unsettled > 0) {
            return;
        }
        let Some(unit) = self.flights.remove(number) else { return };
        if unit.changes == 0 && unit.written.is_empty() {
            return;
        }
        let by_index: BTreeMap<_, _> = unit
            .written
            .iter()
            .map(|(index, count)| (self.seeding.get(*index).name.clone(), *count))
            .collect();
        let flush = match (unit.flush_began, unit.flush_ended) {
            (Some(began), Some(ended)) => ended.since(began),
            _ => core::time::Duration::ZERO,
        };
        self.notify(Notice::Committed(BatchStats {
            lane: unit.lane,
            changes: unit.changes,
            documents: unit.written.values().sum(),
            documents_by_index: by_index.into_iter().collect(),
            flush,
        }));
    }
}

/// A unit that a part, or a call, still belongs to.
fn unit_mut<B>(flights: &mut super::Flights<B>, number: u64) -> &mut super::flight::Unit<B> {
    flights.get_mut(number).expect("a unit stays until all of its documents are settled")
}
