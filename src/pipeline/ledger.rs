//! What is owed, in order, and the newest mark that stands before each of it.
//!
//! The live lane keeps one ledger, of captured changes with checkpoints between them; each index that is being seeded
//! keeps one, of snapshot rows with cursors between them. An entry is owed while anything holds on to it (it is
//! unresolved, or a document waits or flies for it). Once nothing does, it leaves at once, wherever it stands, so that a
//! transaction larger than the window passes; the mark before it passes on to its successor.
//!
//! All operations take constant time, and the memory is that of the entries still owed: of the marks, only the newest
//! before each of those is kept. The idea of a contiguous checkpointer with a cap is Redpanda Connect's; here the list
//! itself is sparse, so that settled entries behind an old one cost nothing.

use alloc::vec::Vec;
use core::num::NonZero;

use crate::time::Instant;

/// An entry that is owed. Valid until the last holder has settled it. One more than its place, so that an absent one needs
/// no room of its own: each dirty document may hold four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Handle(NonZero<u32>);

impl Handle {
    fn new(at: u32) -> Self {
        Self(NonZero::<u32>::MIN.saturating_add(at))
    }

    fn at(self) -> usize {
        self.0.get() as usize - 1
    }
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry<M> {
    number: u64,
    since: Instant,
    /// How many hold on to it; 0 where the place is free.
    holders: u32,
    /// The newest mark between the owed entry before this one and this one.
    mark: Option<M>,
    previous: u32,
    /// The next owed entry, or the next free place.
    next: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ledger<M> {
    entries: Vec<Entry<M>>,
    free: u32,
    first: u32,
    last: u32,
    owed: usize,
    next_number: u64,
    /// The newest mark after the last owed entry.
    latest: Option<M>,
}

impl<M> Default for Ledger<M> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            first: NONE,
            last: NONE,
            owed: 0,
            next_number: 0,
            latest: None,
        }
    }
}

impl<M> Ledger<M> {
    /// Takes a new last entry, held once.
    pub(super) fn push(&mut self, since: Instant) -> Handle {
        let entry = Entry {
            number: self.next_number,
            since,
            holders: 1,
            mark: self.latest.take(),
            previous: self.last,
            next: NONE,
        };
        self.next_number += 1;
        let at = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].next;
            self.entries[at as usize] = entry;
            at
        };
        match self.last {
            NONE => self.first = at,
            last => self.entries[last as usize].next = at,
        }
        self.last = at;
        self.owed += 1;
        Handle::new(at)
    }

    /// Sets a mark after everything pushed so far. It replaces one that has nothing owed after it.
    pub(super) fn mark(&mut self, mark: M) {
        self.latest = Some(mark);
    }

    /// The mark that nothing has been pushed after.
    pub(super) fn latest_mut(&mut self) -> Option<&mut M> {
        self.latest.as_mut()
    }

    /// One more holds on to an entry.
    pub(super) fn hold(&mut self, handle: Handle) {
        self.entries[handle.at()].holders += 1;
    }

    /// One holder less; the last one lets the entry go.
    pub(super) fn settle(&mut self, handle: Handle) {
        let entry = &mut self.entries[handle.at()];
        debug_assert!(entry.holders > 0, "an entry is settled by those alone who hold it");
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        let (mark, previous, next) = (entry.mark.take(), entry.previous, entry.next);
        entry.next = self.free;
        self.free = handle.at() as u32;
        self.owed -= 1;
        match previous {
            NONE => self.first = next,
            previous => self.entries[previous as usize].next = next,
        }
        let heir = match next {
            NONE => {
                self.last = previous;
                &mut self.latest
            }
            next => {
                let next = &mut self.entries[next as usize];
                next.previous = previous;
                &mut next.mark
            }
        };
        if heir.is_none() {
            *heir = mark;
        }
    }

    /// Takes the newest mark that nothing owed stands before; `None` where there is no newer one than was taken before.
    pub(super) fn take_safe(&mut self) -> Option<M> {
        match self.first {
            NONE => self.latest.take(),
            first => self.entries[first as usize].mark.take(),
        }
    }

    /// Forgets every mark.
    pub(super) fn clear_marks(&mut self) {
        self.latest = None;
        let mut at = self.first;
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            entry.mark = None;
            at = entry.next;
        }
    }

    /// How many entries are owed.
    pub(super) fn len(&self) -> usize {
        self.owed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owed == 0
    }

    /// How many entries were ever taken.
    pub(super) fn pushed(&self) -> u64 {
        self.next_number
    }

    /// The entry's number among all ever taken.
    pub(super) fn number(&self, handle: Handle) -> u64 {
        self.entries[handle.at()].number
    }

    /// What is owed, oldest first: number, since when, holders, and the mark before it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, u64, Instant, u32, Option<&M>)> {
        core::iter::successors(self.entry(self.first), |(_, entry)| self.entry(entry.next)).map(
            |(at, entry)| (Handle::new(at), entry.number, entry.since, entry.holders, entry.mark.as_ref()),
        )
    }

    /// The newest mark of all, where nothing owed stands after it.
    pub(super) fn latest(&self) -> Option<&M> {
        self.latest.as_ref()
    }

    fn entry(&self, at: u32) -> Option<(u32, &Entry<M>)> {
        (at != NONE).then(|| (at, &self.entries[at as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::ORIGIN;

    #[test]
    fn a_mark_is_safe_once_nothing_before_it_is_owed() {
        let mut ledger = Ledger::default();
        let first = ledger.push(NOW);
        let second = ledger.push(NOW);
        ledger.mark(10);
        let third = ledger.push(NOW);
        ledger.mark(20);
        ledger.settle(third);
        ledger.settle(first);
        assert_eq!(ledger.take_safe(), None, "the second is owed");
        ledger.settle(second);
        assert_eq!(ledger.take_safe(), Some(20));
        assert_eq!(ledger.take_safe(), None, "it is taken once");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Mark,
        Hold(usize),
        Settle(usize),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Push),
            2 => Just(Step::Mark),
            1 => any::<usize>().prop_map(Step::Hold),
            4 => any::<usize>().prop_map(Step::Settle),
            2 => Just(Step::Take),
        ]
    }

    proptest! {
        /// Against a list of everything that ever happened.
        #[test]
        fn it_agrees_with_a_naive_ledger(steps in proptest::collection::vec(step(), 0..60)) {
            let mut ledger = Ledger::default();
            let mut held: Vec<(Handle, u64, u32)> = Vec::new();
            let mut marks: Vec<(u64, u64)> = Vec::new();
            let mut taken = None;
            for (at, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push => held.push((ledger.push(NOW), ledger.pushed() - 1, 1)),
                    Step::Mark => {
                        ledger.mark(at as u64);
                        marks.push((ledger.pushed(), at as u64));
                    }
                    Step::Hold(which) if !held.is_empty() => {
                        let which = which % held.len();
                        ledger.hold(held[which].0);
                        held[which].2 += 1;
                    }
                    Step::Settle(which) if !held.is_empty() => {
                        let which = which % held.len();
                        ledger.settle(held[which].0);
                        held[which].2 -= 1;
                        if held[which].2 == 0 {
                            held.remove(which);
                        }
                    }
                    Step::Hold(_) | Step::Settle(_) => {}
                    Step::Take => {
                        let oldest = held.iter().map(|entry| entry.1).min().unwrap_or(u64::MAX);
                        let safe = marks.iter().filter(|(after, _)| *after <= oldest).map(|mark| mark.1).max();
                        let newer = safe.filter(|safe| taken.is_none_or(|taken| *safe > taken));
                        prop_assert_eq!(ledger.take_safe(), newer);
                        taken = newer.or(taken);
                    }
                }
                prop_assert_eq!(ledger.len(), held.len());
                let mut numbers: Vec<u64> = held.iter().map(|entry| entry.1).collect();
                numbers.sort_unstable();
                prop_assert_eq!(ledger.iter().map(|entry| entry.1).collect::<Vec<_>>(), numbers);
            }
        }
    }
}
