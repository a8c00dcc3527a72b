//! The writes of a flush, and any part of them, are what a list of them would be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proptest::collection::vec;
use proptest::prelude::*;
use proptests::random::search;
use syncline::document::{Epoch, Write, Writes};
use syncline::{Document, DocumentId, IndexName, Version};

fn write() -> impl Strategy<Value = Write<u8>> {
    (0_i64..3, prop::option::of(0_u8..2), 0_u64..2).prop_map(|(key, body, build)| {
        let id = DocumentId::new(IndexName::new("users").unwrap(), key);
        let document = match body {
            Some(body) => Document::upsert(id, body),
            None => Document::delete(id),
        };
        Write { document, version: Version { epoch: Epoch(1), build } }
    })
}

fn hash(writes: &Writes<u8>) -> u64 {
    let mut hasher = DefaultHasher::new();
    writes.hash(&mut hasher);
    hasher.finish()
}

/// Some writes, and a part of them.
fn part() -> impl Strategy<Value = (Vec<Write<u8>>, usize, usize)> {
    (vec(write(), 0..5), 0_usize..7, 0_usize..7)
}

#[test]
fn a_part_is_what_a_slice_would_be() {
    search("parts", 5000, part(), |(list, from, to)| {
        let part = Writes::new(list.clone()).slice(from, to);
        let end = to.min(list.len());
        let start = from.min(end);
        let expected = &list[start..end];
        assert_eq!(part.len(), expected.len());
        assert_eq!(part.is_empty(), expected.is_empty());
        assert!(part.iter().eq(expected.iter()));
        let again = part.slice(1, to);
        assert!(again.iter().eq(expected.get(1..to.clamp(1, expected.len().max(1))).into_iter().flatten()));
    });
}

/// Equal where the same is written in the same order, however it came about; and then hashed alike, but not all the same.
#[test]
fn two_parts_are_equal_where_they_write_the_same() {
    let hashes = std::cell::RefCell::new(BTreeSet::new());
    search("equality", 5000, (part(), vec(write(), 0..3)), |((list, from, to), other)| {
        let part = Writes::new(list).slice(from, to);
        let same: Writes<u8> = part.iter().cloned().collect();
        assert!(part == same && hash(&part) == hash(&same));
        let other = Writes::new(other);
        assert_eq!(part == other, part.iter().eq(other.iter()));
        hashes.borrow_mut().insert(hash(&part));
    });
    assert!(hashes.borrow().len() > 10, "the hash tells nothing");
}
