//! Documents with what is known of them, in a slab, found by a hash table over it.
//!
//! Nothing takes its order from that table; the slab's own order follows from what was done to it.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash, Hasher};
use core::ops::{Deref, DerefMut};

use hashbrown::{HashTable, hash_table};
use rustc_hash::FxBuildHasher;

use crate::document::DocumentId;

/// A document's place in the slab, valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u32);

/// A document, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry<T> {
    pub(super) id: DocumentId,
    /// The number of its index.
    pub(super) index: u32,
    hash: u64,
    known: T,
}

impl<T> Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.known
    }
}

impl<T> DerefMut for Entry<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.known
    }
}

#[derive(Debug, Clone)]
pub(super) struct Slab<T> {
    entries: Vec<Option<Entry<T>>>,
    free: Vec<u32>,
    /// From ids to slots.
    table: HashTable<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), table: HashTable::new() }
    }
}

impl<T: Default> Slab<T> {
    /// The document of this id, which is new where there was none.
    pub(super) fn find_or_insert(&mut self, index: u32, id: DocumentId) -> Slot {
        let hash = FxBuildHasher.hash_one((index, &id.key));
        let entries = &self.entries;
        let same = |at: &u32| {
            entries[*at as usize]
                .as_ref()
                .is_some_and(|entry| entry.hash == hash && entry.index == index && entry.id.key == id.key)
        };
        let hash_of = |at: &u32| entries[*at as usize].as_ref().map_or(0, |entry| entry.hash);
        let vacant = match self.table.entry(hash, same, hash_of) {
            hash_table::Entry::Occupied(known) => return Slot(*known.get()),
            hash_table::Entry::Vacant(vacant) => vacant,
        };
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        vacant.insert(at);
        let entry = Some(Entry { id, index, hash, known: T::default() });
        match self.entries.get_mut(at as usize) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        Slot(at)
    }
}

impl<T> Slab<T> {
    pub(super) fn get(&self, Slot(at): Slot) -> Option<&Entry<T>> {
        self.entries.get(at as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, Slot(at): Slot) -> Option<&mut Entry<T>> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, Slot(at): Slot) {
        let Some(entry) = self.entries.get_mut(at as usize).and_then(Option::take) else { return };
        if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == at) {
            found.remove();
        }
        self.free.push(at);
    }

    /// After how many others a free place is given to a new document.
    pub(super) fn turn(&self, Slot(at): Slot) -> Option<usize> {
        self.free.iter().rev().position(|free| *free == at)
    }

    /// How many documents there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry<T>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(at, entry)| Some((Slot(at as u32), entry.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<T>> {
        self.entries.iter_mut().flatten()
    }
}

// The table is derived from the entries.

impl<T: PartialEq> PartialEq for Slab<T> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.free == other.free
    }
}

impl<T: Eq> Eq for Slab<T> {}

impl<T: Hash> Hash for Slab<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
        self.free.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::IndexName;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    type Naive = Vec<Option<(u32, i64)>>;

    fn id(key: i64) -> DocumentId {
        DocumentId::new(IndexName::new("users").unwrap(), key)
    }

    fn hash(slab: &Slab<u8>) -> u64 {
        let mut hasher = DefaultHasher::new();
        slab.hash(&mut hasher);
        hasher.finish()
    }

    /// Finds, inserts and removes as the steps say; beside it the same in a list, where the place that became free last is
    /// taken first.
    fn after(steps: &[(bool, u32, i64)]) -> (Slab<u8>, Naive, Vec<usize>) {
        let (mut slab, mut naive, mut free) = (Slab::default(), Naive::new(), Vec::new());
        for &(inserts, index, key) in steps {
            let known = naive.iter().position(|entry| *entry == Some((index, key)));
            let at = match (inserts, known) {
                (true, Some(at)) => at,
                (true, None) => {
                    let at = free.pop().unwrap_or(naive.len());
                    naive.resize(naive.len().max(at + 1), None);
                    naive[at] = Some((index, key));
                    at
                }
                (false, Some(at)) => {
                    naive[at] = None;
                    free.push(at);
                    slab.remove(Slot(at as u32));
                    continue;
                }
                (false, None) => continue,
            };
            assert_eq!(slab.find_or_insert(index, id(key)), Slot(at as u32));
        }
        (slab, naive, free)
    }

    fn steps() -> impl Strategy<Value = Vec<(bool, u32, i64)>> {
        let many = proptest::collection::vec((prop::bool::weighted(0.9), 0_u32..2, 0_i64..300), 0..400);
        // Of so many, some have hashes that the table takes for equal at first sight.
        let of_many_indexes =
            proptest::collection::vec((prop::bool::weighted(0.9), 0_u32..300, 0_i64..2), 0..400);
        prop_oneof![
            proptest::collection::vec((any::<bool>(), 0_u32..2, 0_i64..3), 0..12),
            many,
            of_many_indexes
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list(steps in steps(), other in steps()) {
            let (slab, naive, free) = after(&steps);
            let there: Vec<_> = slab.iter().map(|(Slot(at), entry)| (at as usize, entry.index, entry.id.clone())).collect();
            let entries = naive.iter().enumerate();
            let expected: Vec<_> = entries.filter_map(|(at, entry)| entry.map(|(index, key)| (at, index, id(key)))).collect();
            prop_assert_eq!(there, expected.clone());
            prop_assert_eq!(slab.len(), expected.len());
            for at in 0..naive.len() {
                let turn = free.iter().rev().position(|place| *place == at);
                prop_assert_eq!(slab.turn(Slot(at as u32)), turn);
            }
            let (second, other_naive, other_free) = after(&other);
            let same = naive == other_naive && free == other_free;
            prop_assert_eq!(slab == second, same);
            prop_assert_eq!(hash(&slab) == hash(&second), same);
            prop_assert!(slab == after(&steps).0);
        }
    }
}
