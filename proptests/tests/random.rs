//! Random runs: every promise is checked after every step, and when the failures stop the world converges.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptests::drive::Drive;
use proptests::op::{self, Op};
use proptests::random::{case, demand, run, search, tight_case};
use proptests::setup::Setup;

#[test]
fn every_promise_holds_at_every_step() {
    let met = RefCell::new(BTreeSet::new());
    search("safety", 1500, case(), |(setup, ops)| {
        met.borrow_mut().extend(run(setup, &ops).marks().iter().copied());
    });
    demand(&met.borrow(), &proptests::random::HARD);
}

#[test]
fn when_the_failures_stop_the_world_converges() {
    let most = RefCell::new(0);
    search("liveness", 1500, case(), |(setup, ops)| {
        let mut drive = run(setup, &ops);
        let owed = drive.model.log.len() + drive.model.rows.len() * drive.model.indexes.len();
        let steps = drive.heal();
        // Each change and each row takes a few calls, and a run that halts begins anew.
        assert!(steps <= 200 + 40 * owed, "{steps} steps for {owed} changes and rows");
        let mut most = most.borrow_mut();
        *most = steps.max(*most);
    });
}

/// What someone changed in the sink by hand is found, and what was skipped, no more and no less; and is right again.
#[test]
fn b17_what_differs_is_found_and_mended() {
    let found = RefCell::new(0);
    search("verification", 300, (case(), any::<u8>()), |((setup, ops), keys)| {
        let mut drive = run(setup, &ops);
        drive.settle();
        if !setup.scopes {
            return;
        }
        let index = drive.model.indexes[0].clone();
        drive.model.tamper(&index, keys);
        let differ = drive.model.differing(&index);
        // What the run knows to stand in quarantine is written anyway.
        let skipped: BTreeSet<_> = drive.model.quarantined.keys().cloned().collect();
        *found.borrow_mut() += differ.len();
        let before = drive.heard().verified.len();
        drive.step(Op::Verify(0));
        drive.settle();
        let [verified] = &drive.heard().verified[before..] else { panic!("no end of the verification") };
        assert_eq!(verified.index, index);
        let told: BTreeSet<_> = verified.documents.iter().cloned().collect();
        assert_eq!(verified.different as usize, told.len());
        assert!(told.is_subset(&differ), "told {told:?} of {differ:?}");
        assert!(differ.difference(&told).all(|id| skipped.contains(id)), "told {told:?} of {differ:?}");
        drive.heal();
    });
    assert!(found.into_inner() > 100, "nothing was changed by hand");
}

/// Whatever else happens while it is compared.
#[test]
fn b17_what_differs_is_found_beside_everything_else() {
    let met = RefCell::new(BTreeSet::new());
    let beside = vec(op::any(), 1..120);
    search(
        "verification beside everything",
        300,
        (case(), any::<u8>(), beside),
        |((setup, ops), keys, beside)| {
            let mut drive = run(Setup { scopes: true, ..setup }, &ops);
            drive.settle();
            let index = drive.model.indexes[0].clone();
            drive.model.tamper(&index, keys);
            drive.step(Op::Verify(0));
            beside.iter().for_each(|op| drive.step(*op));
            drive.heal();
            met.borrow_mut().extend(drive.marks().iter().copied());
        },
    );
    let demanded = [
        "a change came between two pages of a listing",
        "a difference was told",
        "a verification was interrupted",
        "crashed while verifying",
    ];
    demand(&met.borrow(), &demanded);
}

#[test]
fn the_same_operations_give_the_same_commands_byte_for_byte() {
    search("determinism", 300, case(), |(setup, ops)| {
        let journal = || {
            let mut drive = Drive::journalled(setup);
            let mut views = String::new();
            for op in &ops {
                drive.step(*op);
                views += &drive.canonical();
            }
            drive.heal();
            drive.journal().join("\n") + &views
        };
        assert_eq!(journal(), journal());
    });
}

/// A writer that takes so many bytes, and then fails.
struct Takes(usize);

impl fmt::Write for Takes {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_view_that_cannot_be_written_to_its_end_is_told() {
    search("view", 100, (case(), any::<prop::sample::Index>()), |((setup, ops), cut)| {
        let drive = run(setup, &ops);
        let length = drive.canonical().len();
        assert!(drive.write_canonical(&mut Takes(length)).is_ok());
        assert!(drive.write_canonical(&mut Takes(cut.index(length))).is_err());
    });
}

#[test]
fn every_limit_holds_where_there_is_no_room_to_spare() {
    let met = RefCell::new(BTreeSet::new());
    search("bounds", 500, tight_case(), |(setup, ops)| {
        let mut drive = run(setup, &ops);
        drive.heal();
        met.borrow_mut().extend(drive.marks().iter().copied());
    });
    demand(&met.borrow(), &["the window was full", "the dirty limit was reached", "the scan had no room"]);
}

/// One skips and the other parks, in the same calls.
#[test]
fn a11_each_index_has_its_own_policy() {
    let met = RefCell::new(BTreeSet::new());
    search("policies", 300, case(), |(setup, ops)| {
        let seeded = Setup { scopes: true, skip_backfill: false, indexes: setup.indexes.max(2), ..setup };
        let mut drive = run(Setup { skip: true, park: false, mixed: true, ..seeded }, &ops);
        drive.heal();
        met.borrow_mut().extend(drive.marks().iter().copied());
    });
    demand(&met.borrow(), &["one skipped and one parked", "quarantined", "a parked index reindexed"]);
}

#[test]
fn misuse_leaves_the_state_unchanged_wherever_it_comes() {
    search("misuse", 300, case(), |(setup, ops)| {
        let mut drive = Drive::new(setup);
        for op in ops {
            drive.step(op);
            drive.misuse_in_every_way();
        }
    });
}
