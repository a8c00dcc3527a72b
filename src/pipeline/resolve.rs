//! The changes that wait to be resolved, and the resolves that are under way. Answers are taken in capture order.

//!
//! Changes are gathered into groups as they come, so that none is moved again on its way to the resolve.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::Change;
use crate::pipeline::ledger::Handle;
use crate::ports::Resolved;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    number: u64,
    changes: Arc<Vec<Change>>,
    handles: Vec<Handle>,
    answer: Option<Resolved>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Gathered {
    changes: Vec<Change>,
    handles: Vec<Handle>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resolve {
    /// The most changes of a group.
    most: usize,
    waiting: VecDeque<Gathered>,
    groups: VecDeque<Group>,
    next: u64,
}

impl Resolve {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: VecDeque::new(), groups: VecDeque::new(), next: 0 }
    }

    /// Takes a change that was captured.
    pub(super) fn push(&mut self, handle: Handle, change: Change) {
        if self.waiting.back().is_none_or(|gathered| gathered.changes.len() >= self.most) {
            self.waiting.push_back(Gathered::default());
        }
        if let Some(gathered) = self.waiting.back_mut() {
            gathered.changes.push(change);
            gathered.handles.push(handle);
        }
    }

    /// The next group is to be resolved: its number. Nothing where none waits.
    pub(super) fn start(&mut self) -> Option<u64> {
        let Gathered { changes, handles } = self.waiting.pop_front()?;
        let number = self.next;
        self.next += 1;
        self.groups.push_back(Group { number, changes: Arc::new(changes), handles, answer: None });
        Some(number)
    }

    /// The changes of a group.
    pub(super) fn changes(&self, number: u64) -> Option<Arc<Vec<Change>>> {
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
    pub(super) fn take(&mut self) -> Option<(Vec<Handle>, Arc<Vec<Change>>, Resolved)> {
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
        self.waiting.iter().map(|gathered| gathered.changes.len()).sum::<usize>()
            + self.groups.iter().map(|group| group.changes.len()).sum::<usize>()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Every change that is not resolved, in capture order, with its entry in the ledger.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, &Change)> {
        let groups = self.groups.iter().map(|group| (&group.handles, &*group.changes));
        let waiting = self.waiting.iter().map(|gathered| (&gathered.handles, &gathered.changes));
        groups.chain(waiting).flat_map(|(handles, changes)| handles.iter().copied().zip(changes))
    }

    /// The groups under way, in capture order: whether each is answered.
    pub(super) fn answered(&self) -> impl Iterator<Item = (u64, bool)> {
        self.groups.iter().map(|group| (group.number, group.answer.is_some()))
    }

    fn group(&self, number: u64) -> Option<&Group> {
        self.groups.iter().find(|group| group.number == number)
    }
}
