//! Units in flight: from the start of their build until every document of theirs is settled.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::Visibility;
use crate::document::{DocumentId, Version, Writes};
use crate::pipeline::calls::PartId;
use crate::pipeline::slab::Slot;
use crate::ports::{CuredDocument, Lane, QuarantinedDocument};
use crate::time::Instant;

/// What is still to be done for some documents of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part<B> {
    /// See whether they are held like this already.
    Compare(Writes<B>),
    /// Write them.
    Flush(Writes<B>),
    /// Record them in the quarantine.
    Quarantine(Arc<[QuarantinedDocument]>, Vec<Slot>),
    /// They were written: remove their records from the quarantine.
    Release(Arc<[CuredDocument]>, Vec<Slot>),
    /// They failed, and the index of this number stops for it: nothing, once that is durable.
    Parked(u32, Vec<Slot>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Unit<B> {
    pub(super) lane: Lane,
    /// While it is built: all documents. Then: those that are written, in the order of the writes.
    pub(super) slots: Vec<Slot>,
    pub(super) ids: Arc<[DocumentId]>,
    pub(super) visibility: Option<Visibility>,
    /// Whether its build is still awaited.
    pub(super) building: bool,
    /// How new what was built is.
    pub(super) version: Version,
    pub(super) changes: usize,
    /// What is still to be done, with the number of the next attempt.
    pub(super) parts: BTreeMap<u32, (Part<B>, u32)>,
    next_part: u32,
    /// Documents of it that are in flight.
    pub(super) unsettled: usize,
    /// How many were written, by index.
    pub(super) written: BTreeMap<u32, usize>,
    pub(super) flush_began: Option<Instant>,
    pub(super) flush_ended: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Flights<B> {
    units: BTreeMap<u64, Unit<B>>,
    next: u64,
    /// The parts that can be flushed, oldest first, by lane.
    live: BTreeSet<PartId>,
    backfill: BTreeSet<PartId>,
    /// The units that can be built again, each with the number of the attempt, oldest first.
    builds: BTreeSet<(u64, u32)>,
}

impl<B> Default for Flights<B> {
    fn default() -> Self {
        Self {
            units: BTreeMap::new(),
            next: 1,
            live: BTreeSet::new(),
            backfill: BTreeSet::new(),
            builds: BTreeSet::new(),
        }
    }
}

impl<B> Flights<B> {
    /// A unit starts with its build: its number.
    pub(super) fn start(
        &mut self,
        lane: Lane,
        slots: Vec<Slot>,
        ids: Arc<[DocumentId]>,
        visibility: Option<Visibility>,
        changes: usize,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let unit = Unit {
            lane,
            unsettled: slots.len(),
            slots,
            ids,
            visibility,
            building: true,
            version: Version::default(),
            changes,
            parts: BTreeMap::new(),
            next_part: 0,
            written: BTreeMap::new(),
            flush_began: None,
            flush_ended: None,
        };
        self.units.insert(number, unit);
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<&Unit<B>> {
        self.units.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Unit<B>> {
        self.units.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Unit<B>> {
        self.units.remove(&number)
    }

    /// Adds what is to be done for some documents of a unit.
    pub(super) fn add(&mut self, number: u64, part: Part<B>, attempt: u32) -> Option<PartId> {
        let unit = self.units.get_mut(&number)?;
        let id = PartId { unit: number, part: unit.next_part };
        unit.next_part += 1;
        unit.parts.insert(id.part, (part, attempt));
        Some(id)
    }

    pub(super) fn part(&self, id: PartId) -> Option<&Part<B>> {
        self.units.get(&id.unit)?.parts.get(&id.part).map(|(part, _)| part)
    }

    /// How often a part will have been tried with its next attempt.
    pub(super) fn attempt(&self, id: PartId) -> u32 {
        self.units.get(&id.unit).and_then(|unit| unit.parts.get(&id.part)).map_or(1, |(_, attempt)| *attempt)
    }

    pub(super) fn set_attempt(&mut self, id: PartId, next: u32) {
        if let Some((_, attempt)) = self.units.get_mut(&id.unit).and_then(|unit| unit.parts.get_mut(&id.part))
        {
            *attempt = next;
        }
    }

    pub(super) fn take_part(&mut self, id: PartId) -> Option<Part<B>> {
        self.units.get_mut(&id.unit)?.parts.remove(&id.part).map(|(part, _)| part)
    }

    /// Takes what waits for an index to have stopped: the documents, by unit.
    pub(super) fn take_parked(&mut self, index: u32) -> Vec<(u64, Vec<Slot>)> {
        let mut taken = Vec::new();
        for (number, unit) in &mut self.units {
            let mut slots = Vec::new();
            unit.parts.retain(|_, (part, _)| match part {
                Part::Parked(of, held) if *of == index => {
                    slots.append(held);
                    false
                }
                Part::Parked(..)
                | Part::Compare(_)
                | Part::Flush(_)
                | Part::Quarantine(..)
                | Part::Release(..) => true,
            });
            if !slots.is_empty() {
                taken.push((*number, slots));
            }
        }
        taken
    }

    /// A part can be flushed.
    pub(super) fn ready(&mut self, id: PartId) {
        match self.units.get(&id.unit).map(|unit| unit.lane) {
            Some(Lane::Live) => self.live.insert(id),
            Some(Lane::Backfill) => self.backfill.insert(id),
            None => false,
        };
    }

    pub(super) fn is_ready(&self, lane: Lane) -> bool {
        match lane {
            Lane::Live => !self.live.is_empty(),
            Lane::Backfill => !self.backfill.is_empty(),
        }
    }

    /// Takes the oldest part of a lane that can be flushed.
    pub(super) fn take_ready(&mut self, lane: Lane) -> Option<PartId> {
        match lane {
            Lane::Live => self.live.pop_first(),
            Lane::Backfill => self.backfill.pop_first(),
        }
    }

    /// Nothing that is ready will be built or flushed any more.
    pub(super) fn clear_ready(&mut self) {
        self.live.clear();
        self.backfill.clear();
        self.builds.clear();
    }

    /// A unit can be built again.
    pub(super) fn build_ready(&mut self, number: u64, attempt: u32) {
        self.builds.insert((number, attempt));
    }

    /// Takes the oldest unit that can be built again, with the number of the attempt.
    pub(super) fn take_build(&mut self) -> Option<(u64, u32)> {
        self.builds.pop_first()
    }

    /// Every unit that can be built again, with the number of the attempt.
    pub(super) fn ready_builds(&self) -> impl Iterator<Item = (u64, u32)> {
        self.builds.iter().copied()
    }

    /// How many units of a lane are in flight.
    pub(super) fn in_lane(&self, lane: Lane) -> usize {
        self.units.values().filter(|unit| unit.lane == lane).count()
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Unit<B>)> {
        self.units.iter().map(|(number, unit)| (*number, unit))
    }

    /// Every part that can be flushed.
    pub(super) fn all_ready(&self) -> impl Iterator<Item = PartId> {
        self.live.iter().chain(&self.backfill).copied()
    }
}
