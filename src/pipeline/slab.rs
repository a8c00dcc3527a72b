//! Documents with what is known of them, in a slab, found by a hash table over it.
//!
//! Nothing takes its order from that table; the slab's own order follows from what was done to it.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash, Hasher};
use core::ops::{Deref, DerefMut};

use hashbrown::HashTable;
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
        if let Some(at) = self.table.find(hash, same) {
            return Slot(*at);
        }
        let entry = Some(Entry { id, index, hash, known: T::default() });
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        let hash_of = |at: &u32| entries[*at as usize].as_ref().map_or(0, |entry| entry.hash);
        self.table.insert_unique(hash, at, hash_of);
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
