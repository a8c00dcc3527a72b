//! The dirty set: the documents that are owed a build, coalesced and cut into units.
//!
//! A document is owed a build that starts after the change was captured; being dirty twice is being dirty once. It is in
//! flight at most once. Dirtied in between it waits, in no unit, until its flight is settled: a unit never waits for a
//! document, and no older read overwrites a newer one however many units are in flight.
//!
//! Documents live in one slab; units hold slots of it, in the order in which they were dirtied. A unit whose document was
//! taken by another keeps a stale slot, which is passed over when the unit starts.

#[cfg(test)]
mod tests;
pub(super) mod view;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::change::Visibility;
use crate::config::BatchPolicy;
use crate::document::DocumentId;
use crate::pipeline::ledger::Handle;
use crate::pipeline::slab::{Entry, Slab, Slot};
use crate::ports::Lane;
use crate::time::Instant;

/// What a document is held dirty for: the oldest change, and the oldest row of its index's scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Owed {
    pub(super) live: Option<Handle>,
    pub(super) row: Option<Handle>,
}

/// Why a document is dirtied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// A change of the live lane.
    Live(Handle),
    /// A row of its index's scan.
    Row(Handle),
    /// It stood in quarantine when the run began.
    Retrial,
}

/// A build that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Debt {
    lane: Lane,
    owed: Owed,
    /// The newest token among all that wait.
    visibility: Option<Visibility>,
    since: Instant,
    /// How many changes are counted with this document.
    changes: u32,
}

/// Where a waiting document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// In the open or a closed unit of this number.
    Unit(u64),
    /// Aside, until builds of its index may start.
    Held,
    /// Aside, until its flight is settled.
    Deferred,
}

/// What a document is owed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Account {
    waiting: Option<(Debt, Place)>,
    flying: Option<Debt>,
}

impl Account {
    fn is_live(&self) -> bool {
        self.waiting.as_ref().is_some_and(|(debt, _)| debt.lane == Lane::Live)
            || self.flying.as_ref().is_some_and(|debt| debt.lane == Lane::Live)
    }
}

/// What became of a document that was dirtied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dirtied {
    pub(super) slot: Slot,
    /// The document holds on to the cause: nothing older of its kind was waiting.
    pub(super) holds: bool,
    /// It was not waiting before.
    pub(super) fresh: bool,
    /// It stands in the unit that is still open.
    pub(super) open: bool,
}

/// A unit that was cut: what to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) slots: Vec<Slot>,
    pub(super) changes: usize,
    pub(super) visibility: Option<Visibility>,
}

/// Documents that will be built together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Unit {
    number: u64,
    /// In the order in which they were dirtied. Some may have left since.
    slots: Vec<Slot>,
    documents: usize,
    changes: usize,
    since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Queue {
    open: Unit,
    closed: VecDeque<Unit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Dirty {
    policy: BatchPolicy,
    documents: Slab<Account>,
    live: Queue,
    backfill: Queue,
    /// For each index the documents that wait until its builds may start.
    held: Vec<Vec<Slot>>,
    next_unit: u64,
    live_documents: usize,
    flying: usize,
    /// The mean size of bodies that were built, to foresee the size of a unit.
    body_bytes: usize,
}

impl Dirty {
    pub(super) fn new(policy: BatchPolicy) -> Self {
        let queue = |number| Queue {
            open: Unit { number, slots: Vec::new(), documents: 0, changes: 0, since: None },
            closed: VecDeque::new(),
        };
        Self {
            policy,
            documents: Slab::default(),
            live: queue(0),
            backfill: queue(1),
            held: Vec::new(),
            next_unit: 2,
            live_documents: 0,
            flying: 0,
            body_bytes: 0,
        }
    }

    /// Owes a document a build. `gate` tells whether builds of its index may start.
    pub(super) fn dirty(
        &mut self,
        index: u32,
        id: DocumentId,
        cause: Cause,
        visibility: Option<Visibility>,
        now: Instant,
        gate: bool,
    ) -> Dirtied {
        let slot = self.documents.find_or_insert(index, id);
        let entry = self.entry(slot);
        let was_live = entry.is_live();
        let lane = if matches!(cause, Cause::Row(_)) { Lane::Backfill } else { Lane::Live };
        let in_flight = entry.flying.is_some();
        let fresh = entry.waiting.is_none();
        let mut debt = match entry.waiting {
            Some((debt, _)) => debt,
            None => Debt { lane, owed: Owed::default(), visibility: None, since: now, changes: 0 },
        };
        let holds = match cause {
            Cause::Live(handle) => hold(&mut debt.owed.live, handle),
            Cause::Row(handle) => hold(&mut debt.owed.row, handle),
            Cause::Retrial => false,
        };
        debt.visibility = debt.visibility.max(visibility);
        let promoted = debt.lane == Lane::Backfill && lane == Lane::Live;
        // The rows of a scan are not counted among the changes of the live lane.
        let rows = if promoted { core::mem::take(&mut debt.changes) } else { 0 };
        let place = match entry.waiting {
            Some((_, place @ (Place::Held | Place::Deferred))) => place,
            Some((_, place @ Place::Unit(_))) if !promoted => place,
            Some((_, Place::Unit(number))) => {
                self.leave(Lane::Backfill, number, rows);
                self.join(slot, Lane::Live, &debt, index, gate)
            }
            None if in_flight => Place::Deferred,
            None => self.join(slot, lane, &debt, index, gate),
        };
        if promoted {
            debt.lane = Lane::Live;
        }
        let entry = self.entry(slot);
        entry.waiting = Some((debt, place));
        if !was_live && entry.is_live() {
            self.live_documents += 1;
        }
        Dirtied { slot, holds, fresh, open: place == Place::Unit(self.queue(lane).open.number) }
    }

    /// Counts a change with the document that it touched last, and closes the open unit once it is full. What coalesced
    /// into a unit that is closed counts in none.
    pub(super) fn count_change(&mut self, slot: Slot) {
        let entry = self.entry(slot);
        let Some((Debt { lane, .. }, place)) = entry.waiting else { return };
        let queue = self.queue(lane);
        let is_open = place == Place::Unit(queue.open.number);
        if is_open {
            queue.open.changes += 1;
        }
        if is_open || matches!(place, Place::Held | Place::Deferred) {
            if let Some((debt, _)) = &mut self.entry(slot).waiting {
                debt.changes += 1;
            }
            self.close_if_full(lane);
        }
    }

    /// Puts a document that waits into the open unit, or aside where builds of its index may not start.
    fn join(&mut self, slot: Slot, lane: Lane, debt: &Debt, index: u32, gate: bool) -> Place {
        if !gate {
            set_aside(&mut self.held, index, slot);
            return Place::Held;
        }
        let (since, changes) = (debt.since, debt.changes as usize);
        self.close_if_full(lane);
        let open = &mut self.queue(lane).open;
        open.slots.push(slot);
        open.documents += 1;
        open.changes += changes;
        open.since = Some(open.since.map_or(since, |oldest| oldest.min(since)));
        Place::Unit(open.number)
    }

    /// A document leaves a unit that has not started.
    fn leave(&mut self, lane: Lane, number: u64, changes: u32) {
        let queue = self.queue(lane);
        let unit = core::iter::once(&mut queue.open)
            .chain(&mut queue.closed)
            .find(|unit| unit.number == number)
            .expect("a waiting document stands in a unit that has not started");
        unit.documents -= 1;
        unit.changes -= changes as usize;
    }

    fn close_if_full(&mut self, lane: Lane) {
        let BatchPolicy { max_changes, max_documents, max_bytes, .. } = self.policy;
        let body_bytes = self.body_bytes;
        let open = &self.queue(lane).open;
        let foreseen = open.documents.saturating_mul(body_bytes);
        if open.documents > 0
            && (open.changes >= max_changes || open.documents >= max_documents || foreseen >= max_bytes)
        {
            self.close(lane);
        }
    }

    fn close(&mut self, lane: Lane) {
        let number = self.next_unit;
        self.next_unit += 1;
        let queue = self.queue(lane);
        let open = Unit { number, slots: Vec::new(), documents: 0, changes: 0, since: None };
        let closed = core::mem::replace(&mut queue.open, open);
        queue.closed.push_back(closed);
    }

    /// Whether a unit of this lane could start: a closed one, or the open one where it is due.
    pub(super) fn is_due(&self, lane: Lane, now: Instant, at_once: bool) -> bool {
        let queue = self.queue_ref(lane);
        !queue.closed.is_empty()
            || (queue.open.documents > 0 && (at_once || self.due_at(lane).is_some_and(|due| due <= now)))
    }

    /// When the open unit is due.
    pub(super) fn due_at(&self, lane: Lane) -> Option<Instant> {
        let open = &self.queue_ref(lane).open;
        open.since.filter(|_| open.documents > 0).map(|since| since.after(self.policy.max_delay))
    }

    /// Cuts the next unit of a lane: its documents are in flight from here on. Those whose index is shut are set aside.
    /// Nothing where no document is left of it.
    pub(super) fn cut(&mut self, lane: Lane, gates: impl Fn(u32) -> bool) -> Option<Cut> {
        if self.queue(lane).closed.is_empty() {
            self.close(lane);
        }
        let unit = self.queue(lane).closed.pop_front()?;
        let mut cut = Cut { slots: unit.slots, changes: 0, visibility: None };
        let (documents, held) = (&mut self.documents, &mut self.held);
        cut.slots.retain(|&slot| {
            let Some(entry) = documents.get_mut(slot) else { return false };
            let index = entry.index;
            let Some((debt, place)) = entry.waiting.as_mut() else { return false };
            if *place != Place::Unit(unit.number) {
                return false;
            }
            if !gates(index) {
                *place = Place::Held;
                set_aside(held, index, slot);
                return false;
            }
            cut.changes += debt.changes as usize;
            cut.visibility = cut.visibility.max(debt.visibility);
            entry.flying = Some(*debt);
            entry.waiting = None;
            true
        });
        self.flying += cut.slots.len();
        (!cut.slots.is_empty()).then_some(cut)
    }

    /// Builds of an index may start: what was set aside for it joins the open units.
    pub(super) fn open_gate(&mut self, index: u32) {
        let Some(held) = self.held.get_mut(index as usize) else { return };
        for slot in core::mem::take(held) {
            let waiting = self.entry(slot).waiting;
            let (debt, _) = waiting.expect("a document that is set aside waits until its index is opened");
            let place = self.join(slot, debt.lane, &debt, index, true);
            self.entry(slot).waiting = Some((debt, place));
            self.close_if_full(debt.lane);
        }
    }

    /// A flight is over: the document is written, or quarantined. Returns its index, and what it was owed for. Dirtied
    /// meanwhile, it joins the open unit.
    pub(super) fn settle(&mut self, slot: Slot, gates: impl Fn(u32) -> bool) -> (u32, Owed) {
        let entry = self.entry(slot);
        let was_live = entry.is_live();
        let debt = entry.flying.take().expect("a document is settled once for each flight");
        let (waiting, index) = (entry.waiting, entry.index);
        self.flying -= 1;
        match waiting {
            Some((waiting, _)) => {
                let place = self.join(slot, waiting.lane, &waiting, index, gates(index));
                let entry = self.entry(slot);
                entry.waiting = Some((waiting, place));
                let is_live = entry.is_live();
                self.live_documents -= usize::from(was_live && !is_live);
                self.close_if_full(waiting.lane);
            }
            None => {
                self.live_documents -= usize::from(was_live);
                self.documents.remove(slot);
            }
        }
        (index, debt.owed)
    }

    /// The changes of flights that are to be put back were counted with other documents of their unit.
    pub(super) fn count_no_more(&mut self, slots: &[Slot]) {
        for &slot in slots {
            if let Some(debt) = &mut self.entry(slot).flying {
                debt.changes = 0;
            }
        }
    }

    /// How many changes count with these flights.
    pub(super) fn counted(&self, slots: &[Slot]) -> usize {
        let flying = |entry: &Entry<Account>| entry.flying.map_or(0, |debt| debt.changes as usize);
        slots.iter().filter_map(|slot| self.documents.get(*slot)).map(flying).sum()
    }

    /// Flights that are to be built once more, as a unit of their own that goes before all others of its lane. What
    /// waited for such a document meanwhile is merged: what is no longer held of it is returned with its index, to be
    /// settled.
    pub(super) fn put_back(&mut self, slots: &[Slot]) -> Vec<(u32, Owed)> {
        let number = self.next_unit;
        self.next_unit += 1;
        let mut unit =
            Unit { number, slots: slots.to_vec(), documents: slots.len(), changes: 0, since: None };
        let mut lane = Lane::Backfill;
        let mut dropped = Vec::new();
        for &slot in slots {
            let entry = self.entry(slot);
            let Some(mut debt) = entry.flying.take() else { continue };
            if let Some((newer, _)) = entry.waiting {
                let live = merge(&mut debt.owed.live, newer.owed.live);
                let row = merge(&mut debt.owed.row, newer.owed.row);
                dropped.push((entry.index, Owed { live, row }));
                debt.visibility = debt.visibility.max(newer.visibility);
                // The rows of a scan are not counted among the changes of the live lane.
                let both = debt.lane.min(newer.lane);
                let counted = |debt: &Debt| if debt.lane == both { debt.changes } else { 0 };
                debt.changes = counted(&debt) + counted(&newer);
                debt.lane = both;
            }
            entry.waiting = Some((debt, Place::Unit(number)));
            unit.since = Some(unit.since.map_or(debt.since, |since: Instant| since.min(debt.since)));
            lane = lane.min(debt.lane);
            self.flying -= 1;
        }
        for &slot in slots {
            if let Some((debt, _)) = &mut self.entry(slot).waiting {
                if debt.lane != lane {
                    debt.changes = 0;
                }
                debt.lane = lane;
                unit.changes += debt.changes as usize;
            }
        }
        self.queue(lane).closed.push_front(unit);
        self.recount_live();
        dropped
    }

    /// No document of an index waits any more: what each was owed for, and the newest token among all. Those in flight stay
    /// so.
    pub(super) fn forget_index(&mut self, index: u32) -> (Vec<Owed>, Option<Visibility>) {
        if let Some(held) = self.held.get_mut(index as usize) {
            held.clear();
        }
        let waiting =
            self.documents.iter().filter(|(_, entry)| entry.index == index && entry.waiting.is_some());
        let waiting: Vec<Slot> = waiting.map(|(slot, _)| slot).collect();
        let (mut forgotten, mut visibility) = (Vec::with_capacity(waiting.len()), None);
        for slot in waiting {
            let entry = self.entry(slot);
            let flies = entry.flying.is_some();
            let Some((debt, place)) = entry.waiting.take() else { continue };
            if let Place::Unit(number) = place {
                self.leave(debt.lane, number, debt.changes);
            }
            if !flies {
                self.documents.remove(slot);
            }
            forgotten.push(debt.owed);
            visibility = visibility.max(debt.visibility);
        }
        self.recount_live();
        (forgotten, visibility)
    }

    /// The tokens of another stream say nothing of this one.
    pub(super) fn forget_visibility(&mut self) {
        for entry in self.documents.iter_mut() {
            if let Some((debt, _)) = &mut entry.waiting {
                debt.visibility = None;
            }
        }
    }

    /// Learns the size of what was built.
    pub(super) fn learn_body_bytes(&mut self, documents: usize, bytes: usize) {
        let Some(mean) = bytes.checked_div(documents) else { return };
        self.body_bytes = match self.body_bytes {
            0 => mean,
            known => known - known / 8 + mean / 8,
        };
    }

    pub(super) fn id(&self, slot: Slot) -> &DocumentId {
        &self.get(slot).expect("a slot is valid while its document is in flight").id
    }

    pub(super) fn index_of(&self, slot: Slot) -> u32 {
        self.get(slot).expect("a slot is valid while its document is in flight").index
    }

    /// Whether a document in flight has live changes that this flight settles, and none that wait for the next.
    pub(super) fn ends_live(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|entry| {
            entry.flying.as_ref().is_some_and(|debt| debt.lane == Lane::Live)
                && entry.waiting.as_ref().is_none_or(|(debt, _)| debt.lane != Lane::Live)
        })
    }

    /// Whether a document in flight waits for live changes, too.
    pub(super) fn awaits_live(&self, slot: Slot) -> bool {
        self.get(slot)
            .and_then(|entry| entry.waiting.as_ref())
            .is_some_and(|(debt, _)| debt.lane == Lane::Live)
    }

    /// Documents that are dirty or in flight for live changes.
    pub(super) fn live_documents(&self) -> usize {
        self.live_documents
    }

    /// Documents that are dirty or in flight.
    pub(super) fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Documents in flight.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// For every document: its id, what it waits for, and what it flies for.
    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_>> {
        self.documents.iter().map(|(slot, entry)| Seen {
            slot,
            id: &entry.id,
            index: entry.index,
            live: entry.is_live(),
            waiting: entry.waiting.as_ref().map(|(debt, place)| SeenWaiting {
                owed: debt.owed,
                unit: match place {
                    Place::Unit(number) => Some(*number),
                    Place::Held | Place::Deferred => None,
                },
                deferred: *place == Place::Deferred,
            }),
            flying: entry.flying.as_ref().map(|debt| debt.owed),
        })
    }

    /// The units that have not started, in the order in which they will: lane, number, documents, slots.
    pub(super) fn units(&self) -> impl Iterator<Item = (Lane, u64, usize, &[Slot])> {
        [Lane::Live, Lane::Backfill].into_iter().flat_map(|lane| {
            let queue = self.queue_ref(lane);
            queue
                .closed
                .iter()
                .chain(core::iter::once(&queue.open))
                .map(move |unit| (lane, unit.number, unit.documents, unit.slots.as_slice()))
        })
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Backfill => &mut self.backfill,
        }
    }

    fn queue_ref(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Live => &self.live,
            Lane::Backfill => &self.backfill,
        }
    }

    fn recount_live(&mut self) {
        self.live_documents = self.documents.iter().filter(|(_, entry)| entry.is_live()).count();
    }

    fn entry(&mut self, slot: Slot) -> &mut Entry<Account> {
        self.documents.get_mut(slot).expect("a slot is valid while its document is dirty or in flight")
    }

    fn get(&self, slot: Slot) -> Option<&Entry<Account>> {
        self.documents.get(slot)
    }
}

/// A document as an observer of the set sees it.
#[derive(Debug, Clone)]
pub(super) struct Seen<'a> {
    pub(super) slot: Slot,
    pub(super) id: &'a DocumentId,
    pub(super) index: u32,
    pub(super) live: bool,
    pub(super) waiting: Option<SeenWaiting>,
    pub(super) flying: Option<Owed>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SeenWaiting {
    pub(super) owed: Owed,
    pub(super) unit: Option<u64>,
    pub(super) deferred: bool,
}

fn set_aside(held: &mut Vec<Vec<Slot>>, index: u32, slot: Slot) {
    let index = index as usize;
    if held.len() <= index {
        held.resize(index + 1, Vec::new());
    }
    held[index].push(slot);
}

/// Holds on to a handle where nothing older is held.
fn hold(held: &mut Option<Handle>, handle: Handle) -> bool {
    if held.is_some() {
        return false;
    }
    *held = Some(handle);
    true
}

/// Keeps the older of two handles; returns the newer one where both are there.
fn merge(older: &mut Option<Handle>, newer: Option<Handle>) -> Option<Handle> {
    match (&older, newer) {
        (Some(_), newer) => newer,
        (None, newer) => {
            *older = newer;
            None
        }
    }
}
