//! The simulation can fail: planted bugs are found, each within a stated number of seeds.

#![cfg(madsim)]

use sim::planted::bugs;
use sim::planted::copy::Copy;
use sim::planted::hunt::{hunt, traces, traces_of};

/// So many seeds may it take to find one of these. `cargo sim -- planted` hunts all bugs.
const SEEDS: u64 = 500;

const BUGS: [&str; 7] = [
    "acknowledge-a-half-durable-transaction",
    "forget-a-document-dirtied-in-flight",
    "lose-the-odd-document-when-halving",
    "read-before-the-change-is-visible",
    "release-before-the-write-is-durable",
    "resume-a-cursor-one-row-too-far",
    "take-resolves-out-of-order",
];

#[test]
fn planted_bugs_are_found() {
    let copy = Copy::make().unwrap();
    assert_eq!(
        traces_of(&copy, &(0..20)).unwrap(),
        traces(0..20),
        "the copy is the original, while no bug is awake"
    );
    assert!(bugs().unwrap().len() >= 24);
    for bug in BUGS {
        let found = hunt(&copy, bug, &(0..SEEDS), 2).unwrap();
        assert!(found.is_some(), "{bug} was not found by {SEEDS} seeds");
    }
}
