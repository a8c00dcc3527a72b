//! Comparing an index with its source, beside everything else.
//!
//! Every document that has a row, and then every document that the sink holds, is owed a build as by a scan, and goes the
//! way of all documents, so that no write of it can come in between. But before it is written the sink is asked whether it
//! holds it like this already: then nothing is left to do. Where it does not, it is written, and the difference is told.
//!
//! A build may see a change before the stream tells of it. A difference that a change explains which comes within the time
//! limit of an attempt is none. Nothing of a verification is durable: a run that dies forgets it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::document::{DocumentId, Writes};
use crate::error::{Fault, FaultKind, Stage};
use crate::name::IndexName;
use crate::pipeline::calls::{Call, Purpose};
use crate::pipeline::flight::Part;
use crate::pipeline::protocol::{CallId, Command, Refusal};
use crate::pipeline::seeding::{Scan, Seeding};
use crate::pipeline::slab::Slot;
use crate::pipeline::status::Verified;
use crate::pipeline::{Notice, Pipeline};
use crate::ports::Lane;
use crate::time::Instant;

/// So many documents that differ are told by name.
const NAMED: usize = 100;

/// So many are held, so that a change may explain them. What differs beyond those is counted.
const HELD: usize = 10_000;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    /// It waits for its rows to be scanned.
    Waiting,
    /// They are.
    Rows,
    /// What the sink holds after this document is listed.
    Held(Option<DocumentId>),
    /// All of it has been listed, and is being compared.
    Comparing,
    /// It ends then, unless changes explain every difference before.
    Until(Instant),
}

/// The comparison of an index with its source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Verification {
    step: Step,
    compared: u64,
    /// Documents that differed, and that no change has explained yet.
    different: BTreeSet<DocumentId>,
    /// How many differed while so many were held already.
    beyond: u64,
}

impl Verification {
    fn on_different(&mut self, id: &DocumentId) {
        if self.different.len() < HELD {
            self.different.insert(id.clone());
        } else if !self.different.contains(id) {
            self.beyond += 1;
        }
    }

    /// Whether its rows are being read.
    pub(super) fn reads_rows(&self) -> bool {
        self.step == Step::Rows
    }

    /// Every row has been read.
    pub(super) fn on_scanned(&mut self) {
        self.step = Step::Held(None);
    }

    /// What it found.
    fn end(self, index: IndexName) -> Verified {
        Verified {
            index,
            compared: self.compared,
            different: self.different.len() as u64 + self.beyond,
            documents: self.different.into_iter().take(NAMED).collect(),
        }
    }

    /// As the canonical view tells it.
    pub(super) fn view<T: core::fmt::Debug>(&self, relative: impl Fn(Instant) -> T) -> String {
        let (step, after, until) = match &self.step {
            Step::Waiting => ("waiting", None, None),
            Step::Rows => ("rows", None, None),
            Step::Held(after) => ("held", after.as_ref(), None),
            Step::Comparing => ("comparing", None, None),
            Step::Until(at) => ("until", None, Some(relative(*at))),
        };
        alloc::format!(
            "{step} {after:?} {until:?} compared {} different {:?} {}",
            self.compared,
            self.different,
            self.beyond
        )
    }
}

impl Seeding {
    /// A change touches a document: what was found of it may be that.
    pub(super) fn explain(&mut self, index: u32, id: &DocumentId) {
        if let Some(verification) = &mut self.get_mut(index).verification {
            verification.different.remove(id);
        }
    }

    pub(super) fn is_verifying(&self) -> bool {
        self.indexes.iter().any(|index| index.verification.is_some())
    }

    pub(super) fn stop_verifying(&mut self) {
        self.indexes.iter_mut().for_each(|index| index.verification = None);
    }

    /// Begins to scan the rows of the next index that is to be compared.
    pub(super) fn next_verification(&mut self) -> bool {
        let next = self.indexes.iter_mut().enumerate().find_map(|(at, index)| {
            let waits =
                index.verification.as_mut().filter(|verification| verification.step == Step::Waiting)?;
            Some((at, index.root.clone()?, waits))
        });
        let Some((at, table, verification)) = next else { return false };
        verification.step = Step::Rows;
        let members = alloc::vec![at as u32];
        self.scan =
            Some(Scan { open: None, table, after: None, members, attempt: 1, since: None, verifies: true });
        true
    }
}

impl<B> Pipeline<B> {
    /// Whether an index can be compared with its source. Errors: why not.
    pub fn can_verify(&self, name: &IndexName) -> Result<(), Refusal> {
        let mut indexes = self.seeding.indexes.iter();
        if self.ending.is_ending() {
            return Err(Refusal::Ending);
        }
        match indexes.find(|index| index.name == *name && index.root.is_some()) {
            None => Err(Refusal::UnknownIndex),
            Some(index) if index.verification.is_some() => Err(Refusal::Verifying),
            Some(index) if !index.is_seeded() => Err(Refusal::NotSeeded),
            Some(_) => Ok(()),
        }
    }

    /// Someone asks for an index to be compared.
    pub(super) fn on_verify(&mut self, name: &IndexName) {
        let number = self.seeding.index(name);
        let index = self.seeding.get_mut(number);
        index.verified = None;
        index.verification =
            Some(Verification { step: Step::Waiting, compared: 0, different: BTreeSet::new(), beyond: 0 });
    }

    /// The places of a unit's writes that are compared first, and those that are not: what a change has touched is to be
    /// written anyway, and so is what stands in quarantine.
    pub(super) fn compared_first(&self, unit: u64, writes: &Writes<B>) -> (Vec<usize>, Vec<usize>) {
        let Some(unit) = self.flights.get(unit).filter(|unit| unit.lane == Lane::Backfill) else {
            return (Vec::new(), (0..writes.len()).collect());
        };
        (0..writes.len()).partition(|at| {
            let index = self.dirty.index_of(unit.slots[*at]);
            let is_compared = self.seeding.get(index).verification.is_some();
            is_compared && !self.quarantined.contains(&writes.get(*at).document.id)
        })
    }

    pub(super) fn on_compared(&mut self, call: Call, result: Result<Vec<DocumentId>, Fault>) {
        let Purpose::Compare(id) = call.purpose else { return };
        if let Err(fault) = &result
            && fault.kind() != FaultKind::Content
        {
            return self.on_fault(call, fault.clone());
        }
        let Some(Part::Compare(writes)) = self.flights.take_part(id) else { return };
        // What the sink cannot even compare is for it to refuse.
        let differing = result.map_or_else(|_| Ok((0..writes.len()).collect()), |ids| places(&writes, &ids));
        let differing: BTreeSet<usize> = match differing {
            Ok(differing) => differing,
            Err(what) => return self.halt_contract(Stage::Verify, what),
        };
        let Some(unit) = self.flights.get(id.unit) else { return };
        let slots: Vec<Slot> = (0..writes.len()).map(|at| unit.slots[writes.place(at)]).collect();
        for (at, slot) in slots.iter().enumerate() {
            let is_different = differing.contains(&at) && !self.dirty.awaits_live(*slot);
            let index = self.dirty.index_of(*slot);
            if let Some(verification) = &mut self.seeding.get_mut(index).verification {
                verification.compared += 1;
                if is_different {
                    verification.on_different(&writes.get(at).document.id);
                }
            }
        }
        let equal = slots.iter().enumerate().filter(|(at, _)| !differing.contains(at));
        self.settle(id.unit, equal.map(|(_, slot)| *slot).collect());
        if !differing.is_empty()
            && let Some(part) = self.flights.add(id.unit, Part::Flush(writes.pick(differing)), 1)
        {
            self.flights.ready(part);
        }
        self.end_unit_if_settled(id.unit);
    }

    pub(super) fn list_command(&self, call: CallId, number: u32) -> Option<Command<B>> {
        let index = self.seeding.get(number);
        match &index.verification.as_ref()?.step {
            Step::Held(after) => Some(Command::List {
                call,
                index: index.name.clone(),
                after: after.clone(),
                limit: self.room_for_rows().max(1),
            }),
            Step::Waiting | Step::Rows | Step::Comparing | Step::Until(_) => None,
        }
    }

    /// What the sink holds is owed a build.
    pub(super) fn on_listed(&mut self, call: Call, result: Result<Vec<DocumentId>, Fault>) {
        let Purpose::List(number) = call.purpose else { return };
        let ids = match result {
            Ok(ids) => ids,
            Err(fault) => return self.on_fault(call, fault),
        };
        // No less than was asked for: meanwhile nothing takes more room.
        let room = self.room_for_rows().max(1);
        let index = self.seeding.get_mut(number);
        let Some(verification) = &mut index.verification else { return };
        if let Some(foreign) = ids.iter().find(|id| id.index != index.name) {
            let what = alloc::format!("document {foreign} was listed of index {}", index.name);
            return self.halt_contract(Stage::Verify, what);
        }
        if ids.len() > room {
            let what = alloc::format!("{} documents were listed; there is room for {room}", ids.len());
            return self.halt_contract(Stage::Verify, what);
        }
        verification.step = match ids.last() {
            Some(last) => Step::Held(Some(last.clone())),
            None => Step::Comparing,
        };
        for id in ids {
            self.owe_row(number, id);
        }
    }

    /// Whether the sink is being asked what it holds.
    pub(super) fn is_listing(&self) -> bool {
        self.numbers().any(|number| {
            self.seeding.get(number).verification.is_some() && self.calls.is_pending(Purpose::List(number))
        })
    }

    /// Takes every step of the verifications that needs no other event.
    pub(super) fn advance_verifications(&mut self) {
        for number in self.numbers() {
            let index = self.seeding.get(number);
            let Some(verification) = &index.verification else { continue };
            let is_settled = index.rows.is_empty();
            match verification.step {
                Step::Held(_) if self.room_for_rows() > 0 && !self.is_listing() => {
                    // A scan would take the room that is asked for here.
                    if self.seeding.scan.is_none() {
                        self.make(Purpose::List(number), 1);
                    }
                }
                Step::Comparing if is_settled => {
                    let until = self.now.after(self.config.retry.attempt_timeout);
                    if let Some(verification) = &mut self.seeding.get_mut(number).verification {
                        verification.step = Step::Until(until);
                    }
                    self.end_verification(number);
                }
                Step::Until(_) => self.end_verification(number),
                Step::Waiting | Step::Rows | Step::Held(_) | Step::Comparing => {}
            }
        }
    }

    /// Ends a verification, where nothing can explain what is left of its differences, or nothing is.
    fn end_verification(&mut self, number: u32) {
        let now = self.now;
        let index = self.seeding.get_mut(number);
        let is_over = |verification: &mut Verification| {
            let is_late = matches!(verification.step, Step::Until(at) if at <= now);
            is_late || verification.different.is_empty()
        };
        let Some(verification) = index.verification.take_if(is_over) else { return };
        let verified = verification.end(index.name.clone());
        index.verified = Some(Arc::new(verified.clone()));
        self.notify(Notice::Verified(verified));
    }

    /// When a verification ends at the latest.
    pub(super) fn verified_at(&self) -> Option<Instant> {
        let steps = self.seeding.indexes.iter().filter_map(|index| Some(&index.verification.as_ref()?.step));
        let ends = steps.filter_map(|step| match step {
            Step::Until(at) => Some(*at),
            Step::Waiting | Step::Rows | Step::Held(_) | Step::Comparing => None,
        });
        ends.min()
    }
}

/// Where these documents stand in a call. Errors: one that does not.
fn places<B>(writes: &Writes<B>, ids: &[DocumentId]) -> Result<BTreeSet<usize>, String> {
    let places: BTreeMap<&DocumentId, usize> =
        writes.iter().enumerate().map(|(at, write)| (&write.document.id, at)).collect();
    let place = |id: &DocumentId| {
        places.get(id).copied().ok_or_else(|| alloc::format!("document {id} was told of, but not compared"))
    };
    ids.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_beyond_what_is_held_is_counted() {
        let name = IndexName::new("users").unwrap();
        let mut verification =
            Verification { step: Step::Comparing, compared: 0, different: BTreeSet::new(), beyond: 0 };
        for key in [1, 1].into_iter().chain(2..HELD as i64 + 8).chain([1]) {
            verification.on_different(&DocumentId::new(name.clone(), key));
        }
        assert_eq!((verification.different.len(), verification.beyond), (HELD, 7));
        let told = verification.end(name);
        assert_eq!((told.different, told.documents.len()), (HELD as u64 + 7, NAMED));
    }
}
