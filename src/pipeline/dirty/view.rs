//! The dirty set in the canonical view: slots, units and changes are named by where they stand.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::pipeline::dirty::{Debt, Dirty, Owed, Place, Unit};
use crate::pipeline::ledger::Handle;
use crate::pipeline::slab::Slot;
use crate::ports::Lane;
use crate::time::Instant;

/// How the pipeline names what the dirty set holds handles and times of.
pub(in crate::pipeline) struct Names<'a> {
    /// A change, by its distance to the oldest that is owed.
    pub(in crate::pipeline) change: &'a dyn Fn(Handle) -> u64,
    /// A row of an index, likewise.
    pub(in crate::pipeline) row: &'a dyn Fn(u32, Handle) -> u64,
    /// When something is due.
    pub(in crate::pipeline) due: &'a dyn Fn(Instant) -> Option<i128>,
}

impl Names<'_> {
    fn owed(&self, index: u32, owed: Owed) -> (Option<u64>, Option<u64>) {
        (owed.live.map(self.change), owed.row.map(|handle| (self.row)(index, handle)))
    }
}

impl Dirty {
    pub(in crate::pipeline) fn describe(&self, text: &mut dyn Write, names: &Names<'_>) -> fmt::Result {
        for lane in [Lane::Live, Lane::Backfill] {
            let queue = self.queue_ref(lane);
            for unit in &queue.closed {
                write!(text, "unit {lane:?} closed")?;
                self.describe_slots(text, &unit.slots, |place| place == Place::Unit(unit.number))?;
            }
            // Only of the open unit is it still counted how full, and remembered how old it is.
            let Unit { number, slots, documents, changes, since } = &queue.open;
            let due = self.due_at(lane).map(names.due);
            // It may be older than its documents are: one that left may have been the oldest.
            let old = since.map(|since| (names.due)(since.after(self.policy.max_delay)));
            write!(text, "unit {lane:?} open {documents} documents {changes} changes {due:?} {old:?}")?;
            self.describe_slots(text, slots, |place| place == Place::Unit(*number))?;
        }
        for (index, slots) in self.held.iter().enumerate() {
            write!(text, "held {index}")?;
            self.describe_slots(text, slots, |place| place == Place::Held)?;
        }
        self.describe_accounts(text, names)?;
        writeln!(text, "body bytes {}", self.body_bytes)
    }

    /// The documents that stand in a unit, in their order. A stale slot decides where its document, or the next that is
    /// given its place in the slab, will stand if it joins this unit again.
    fn describe_slots(
        &self,
        text: &mut dyn Write,
        slots: &[Slot],
        stands: impl Fn(Place) -> bool,
    ) -> fmt::Result {
        let mut seen = BTreeSet::new();
        for slot in slots.iter().filter(|slot| seen.insert(**slot)) {
            match self.get(*slot) {
                Some(entry) => {
                    let stale = !entry.waiting.is_some_and(|(_, place)| stands(place));
                    write!(text, " {}{}", if stale { "stale " } else { "" }, entry.id)?;
                }
                None => write!(text, " free {:?}", self.documents.turn(*slot))?,
            }
        }
        writeln!(text)
    }

    fn describe_accounts(&self, text: &mut dyn Write, names: &Names<'_>) -> fmt::Result {
        let numbers: Vec<u64> = self.units().map(|(_, number, ..)| number).collect();
        let debt = |index: u32, debt: &Debt| {
            let since = (names.due)(debt.since.after(self.policy.max_delay));
            (debt.lane, names.owed(index, debt.owed), debt.visibility, since, debt.changes)
        };
        let mut entries: Vec<_> = self.documents.iter().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        for entry in entries {
            write!(text, "document {} of {}", entry.id, entry.index)?;
            if let Some((waiting, place)) = &entry.waiting {
                write!(text, " waits {:?}", debt(entry.index, waiting))?;
                match place {
                    Place::Unit(number) => {
                        write!(text, " in {:?}", numbers.iter().position(|other| other == number))?;
                    }
                    Place::Held | Place::Deferred => write!(text, " {place:?}")?,
                }
            }
            if let Some(flying) = &entry.flying {
                write!(text, " flies {:?}", debt(entry.index, flying))?;
            }
            writeln!(text)?;
        }
        Ok(())
    }
}
