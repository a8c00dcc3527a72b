//! The changes that wait to be resolved, and the resolves that are under way. Answers are taken in capture order.
//!
//! Changes stay in the burst that they were captured in, so that none is moved on its way to the resolve; only small
//! bursts are joined.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::change::{Change, Changes};
use crate::pipeline::ledger::Handle;
use crate::ports::Resolved;

/// Changes with their entries in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Burst {
    changes: Changes,
    handles: VecDeque<Handle>,
    /// A group was cut off its front.
    is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    number: u64,
    changes: Changes,
    handles: Vec<Handle>,
    answer: Option<Resolved>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resolve {
    /// The most changes of a group.
    most: usize,
    waiting: VecDeque<Burst>,
    groups: VecDeque<Group>,
    next: u64,
}

impl Resolve {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: VecDeque::new(), groups: VecDeque::new(), next: 0 }
    }

    /// Takes changes that were captured, with their entries in the ledger.
    pub(super) fn push(&mut self, changes: Vec<Change>, handles: Vec<Handle>) {
        if changes.is_empty() {
            return;
        }
        match self.waiting.back_mut() {
            Some(last) if !last.is_cut && last.changes.len() + changes.len() <= self.most => {
                last.changes.append(changes);
                last.handles.extend(handles);
            }
            _ => self.waiting.push_back(Burst {
                changes: changes.into(),
                handles: handles.into(),
                is_cut: false,
            }),
        }
    }

    /// The next group is to be resolved: its number. Nothing where none waits.
    pub(super) fn start(&mut self) -> Option<u64> {
        let burst = self.waiting.front_mut()?;
        let changes = burst.changes.split_front(self.most);
        let handles = burst.handles.drain(..changes.len()).collect();
        burst.is_cut = true;
        if burst.changes.is_empty() {
            self.waiting.pop_front();
        }
        let number = self.next;
        self.next += 1;
        self.groups.push_back(Group { number, changes, handles, answer: None });
        Some(number)
    }

    /// The changes of a group.
    pub(super) fn changes(&self, number: u64) -> Option<Changes> {
        self.group(number).map(|group| group.changes.clone())
    }

    /// Takes the answer for a group. Errors: what is wrong with it.
    pub(super) fn answer(&mut self, number: u64, answer: Resolved) -> Result<(), alloc::string::String> {
        let Some(group) = self.groups.iter_mut().find(|group| group.number == number) else { return Ok(()) };
        if answer.len() != group.changes.len() {
            return Err(alloc::format!("{} of {} changes were answered", answer.len(), group.changes.len()));
        }
        group.answer = Some(answer);
        Ok(())
    }

    /// The oldest group, once it is answered.
    pub(super) fn take(&mut self) -> Option<(Vec<Handle>, Changes, Resolved)> {
        self.groups.front()?.answer.as_ref()?;
        let group = self.groups.pop_front()?;
        Some((group.handles, group.changes, group.answer?))
    }

    /// How many groups are under way.
    pub(super) fn under_way(&self) -> usize {
        self.groups.len()
    }

    /// Whether every change has been resolved.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.groups.is_empty()
    }

    /// How many changes are not resolved.
    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(|burst| burst.changes.len()).sum::<usize>()
            + self.groups.iter().map(|group| group.changes.len()).sum::<usize>()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Every change that is not resolved, in capture order, with its entry in the ledger.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, &Change)> {
        let groups = self.groups.iter().flat_map(|group| group.handles.iter().zip(group.changes.iter()));
        let waiting = self.waiting.iter().flat_map(|burst| burst.handles.iter().zip(burst.changes.iter()));
        groups.chain(waiting).map(|(handle, change)| (*handle, change))
    }

    /// The bursts that wait, in capture order: the number of changes, and whether some were cut off.
    pub(super) fn bursts(&self) -> impl Iterator<Item = (usize, bool)> {
        self.waiting.iter().map(|burst| (burst.changes.len(), burst.is_cut))
    }

    /// The groups under way, in capture order: the number of changes, and whether it is answered.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u64, usize, bool)> {
        self.groups.iter().map(|group| (group.number, group.changes.len(), group.answer.is_some()))
    }

    /// The groups under way, in capture order: number, changes, and the answer that waits for those before it.
    pub(super) fn answers(&self) -> impl Iterator<Item = (u64, usize, Option<&Resolved>)> {
        self.groups.iter().map(|group| (group.number, group.changes.len(), group.answer.as_ref()))
    }

    fn group(&self, number: u64) -> Option<&Group> {
        self.groups.iter().find(|group| group.number == number)
    }
}
