//! Every invariant is seen where it is broken.

use alloc::string::String;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::change::Position;
use crate::pipeline::adaptive::Limit;
use crate::pipeline::calls::{Calls, PartId, Purpose};
use crate::pipeline::flight::Unit;
use crate::pipeline::protocol::Event;
use crate::pipeline::seeding::Stage;
use crate::pipeline::slab::Slot;
use crate::pipeline::transcript::after;

type Pipeline = crate::pipeline::Pipeline<String>;

/// A unit is flushed, one is built; `users/1` is in flight and waits, `users/4` waits in a unit; a group is resolved, and
/// the answer of the next one waits for it.
const BUSY: &str = "# Busy
config max_changes=1 builds=2 units=2 resolve_changes=4
> start users
> captured +users/1 @10 +users/2 +users/3 +users/4 @20 idle
> resolved
> built
> captured +users/1 @30 idle
> resolved
> captured +users/6 +users/7 +users/8 +users/9 +users/5 @40 idle
> resolved #13
";

/// A change of an index that is being cleared waits.
const HELD: &str = "# Held
> start users=unseeded
> captured +users/1 @10 idle
> resolved
";

/// A change that is being resolved, and nothing else.
const UNRESOLVED: &str = "# Unresolved
> start users
> captured +users/1 @10 idle
";

/// A truncation is owed, and nothing else.
const TRUNCATED: &str = "# Truncated
> start users
> captured truncate:users @10 idle
";

/// Rows of a scan are dirty.
const SCANNED: &str = "# Scanned
> start users=after:1
> done
> scanned 2 3 idle
";

/// The rows of an index are being compared.
const VERIFIED: &str = "# Verified
> start users
> verify users
> done
> scanned 2 3 idle
";

/// A document is being recorded in the quarantine, and its unit is not over.
const QUARANTINE: &str = "# Quarantine
config policy=skip quarantine max_changes=1
> start users
> captured +users/1 @10 idle
> resolved
> built users/1!content:poison
";

fn unit(pipeline: &mut Pipeline, building: bool) -> &mut Unit<String> {
    let found = pipeline.flights.iter().find(|(_, unit)| unit.building == building);
    let number = found.expect("there is such a unit").0;
    pipeline.flights.get_mut(number).expect("it was found")
}

fn slot(pipeline: &Pipeline, id: &str) -> Slot {
    let mut documents = pipeline.dirty.iter();
    documents.find(|document| alloc::format!("{}", document.id) == id).expect("it is dirty").slot
}

/// A call that nobody needs, within every limit.
fn needless(purpose: Purpose) -> impl Fn(&mut Pipeline) {
    move |pipeline| {
        pipeline.flush_limit = Limit::new(usize::MAX, false);
        pipeline.calls.make(purpose, 1, pipeline.now);
    }
}

/// No call is under way, and no alarm will go off.
fn nothing_happens(pipeline: &mut Pipeline) {
    pipeline.calls = Calls::new(pipeline.config.retry);
    pipeline.stalled = true;
    pipeline.lag_at = None;
    pipeline.cursors_at = None;
}

#[track_caller]
fn seen(what: &str, story: &str, breaks: impl Fn(&mut Pipeline)) {
    let mut pipeline = after(story);
    pipeline.check_invariants();
    breaks(&mut pipeline);
    let outcome = catch_unwind(AssertUnwindSafe(|| pipeline.check_invariants()));
    let why = outcome.expect_err(what);
    let why = why.downcast_ref::<String>().cloned().or(why.downcast_ref::<&str>().map(|why| (*why).into()));
    assert!(why.as_ref().is_some_and(|why| why.contains(what)), "not {what}, but {why:?}");
}

#[test]
fn i1_an_entry_is_held_by_those_who_point_to_it() {
    seen("I1: a change", BUSY, |pipeline| {
        let (handle, _) = pipeline.resolve.iter().next().expect("one is not resolved");
        pipeline.ack.changes.hold(handle);
    });
    seen("I1: a row", SCANNED, |pipeline| {
        let rows = &mut pipeline.seeding.get_mut(0).rows;
        let handle = rows.iter().next().expect("one is owed").0;
        rows.hold(handle);
    });
}

#[test]
fn i2_a_document_flies_where_one_unit_holds_it() {
    seen("holds what it has not settled", BUSY, |pipeline| unit(pipeline, true).unsettled += 1);
    seen("is over", BUSY, |pipeline| {
        let unit = unit(pipeline, false);
        unit.parts.clear();
        unit.unsettled = 0;
    });
    seen("in flight once", BUSY, |pipeline| {
        let unit = unit(pipeline, true);
        unit.slots.push(unit.slots[0]);
        unit.unsettled += 1;
    });
    seen("flights are counted", BUSY, |pipeline| pipeline.dirty.miscount_flights());
    seen("flies where a unit holds it", BUSY, |pipeline| {
        let waits = slot(pipeline, "users/4");
        unit(pipeline, true).slots[0] = waits;
    });
}

#[test]
fn i3_a_document_waits_in_one_unit() {
    seen("is neither dirty nor in flight", BUSY, |pipeline| {
        let waits = slot(pipeline, "users/4");
        pipeline.ack.changes = {
            let mut changes = pipeline.ack.changes.clone();
            let owed = pipeline.dirty.iter().find(|document| document.slot == waits);
            let owed = owed.and_then(|document| document.waiting).expect("it waits").owed;
            changes.settle(owed.live.expect("for a change"));
            changes
        };
        pipeline.dirty.forget(waits);
    });
    seen("is deferred while it is in flight", BUSY, |pipeline| {
        let defers = slot(pipeline, "users/1");
        pipeline.dirty.set_aside(defers);
    });
    seen("counts its documents", BUSY, |pipeline| pipeline.dirty.miscount_unit());
    seen("waits in one unit", BUSY, |pipeline| {
        let waits = slot(pipeline, "users/4");
        pipeline.dirty.strand(waits);
    });
    seen("live documents are counted", BUSY, |pipeline| pipeline.dirty.miscount_live());
}

#[test]
fn i4_no_limit_is_exceeded() {
    seen("I4: changes", BUSY, |pipeline| pipeline.config.limits.changes = 1);
    seen("I4: resolves", BUSY, |pipeline| pipeline.config.limits.resolves = 1);
    seen("I4: builds", BUSY, |pipeline| pipeline.config.limits.builds = 0);
    seen("I4: flushes", BUSY, |pipeline| pipeline.flush_limit = Limit::new(0, false));
}

#[test]
fn i5_a_call_has_someone_who_needs_it() {
    seen("one call for each purpose", BUSY, |pipeline| {
        let (_, call) = pipeline.calls.made().next().expect("one is under way");
        pipeline.calls.make(call.purpose, 1, pipeline.now);
    });
    let answered = after(BUSY).resolve.groups().find(|(.., answered)| *answered).expect("one waits").0;
    let flushed = after(BUSY).flights.iter().find(|(_, unit)| !unit.building).expect("one is flushed").0;
    let nobody = PartId { unit: u64::MAX, part: 0 };
    let purposes = [
        Purpose::Resolve(u64::MAX),
        Purpose::Resolve(answered),
        Purpose::Build(u64::MAX),
        Purpose::Build(flushed),
        Purpose::Flush(nobody),
        Purpose::Quarantine(nobody),
        Purpose::Release(nobody),
        Purpose::Ack,
        Purpose::ReadSeed(0),
        Purpose::Clear(0),
        Purpose::SaveCursor(0),
        Purpose::MarkSeeded(0),
        Purpose::Scan,
        Purpose::Open,
    ];
    for purpose in purposes {
        seen("is made for nobody", BUSY, needless(purpose));
    }
    // A cursor of an index that was rebuilt is forgotten once it is shut, and of no other.
    for (stage, rebuilt) in [(Stage::Shut, false), (Stage::Seeded, true)] {
        seen("is made for nobody", BUSY, |pipeline| {
            let index = pipeline.seeding.get_mut(0);
            (index.stage, index.rebuilt) = (stage.clone(), rebuilt);
            needless(Purpose::SaveCursor(0))(pipeline);
        });
    }
    let (number, quarantined) = {
        let pipeline = after(QUARANTINE);
        let (number, unit) = pipeline.flights.iter().next().expect("it is not over");
        (number, *unit.parts.keys().next().expect("it is being recorded"))
    };
    let part = PartId { unit: number, part: quarantined };
    for purpose in [Purpose::Flush(part), Purpose::Release(part)] {
        seen("is made for nobody", QUARANTINE, needless(purpose));
    }
}

#[test]
fn i6_nothing_is_confirmed_whose_changes_are_owed() {
    seen("I6", BUSY, |pipeline| {
        let owed = pipeline.ack.changes.clone();
        for (handle, _, _, holders, _) in owed.iter() {
            (0..holders).for_each(|_| pipeline.ack.changes.settle(handle));
        }
        pipeline.ack.on_checkpoint(Position(99));
        pipeline.ack.advance();
        pipeline.ack.changes = owed;
    });
}

#[test]
fn i7_while_an_index_is_cleared_none_of_it_is_in_flight() {
    seen("flights of index users are counted", BUSY, |pipeline| pipeline.seeding.get_mut(0).flying += 1);
    seen("is being cleared", BUSY, |pipeline| pipeline.seeding.get_mut(0).stage = Stage::Clearing);
}

#[test]
fn i8_the_pipeline_is_never_stuck() {
    for story in [HELD, UNRESOLVED, TRUNCATED] {
        seen("nothing will happen", story, nothing_happens);
    }
    seen("nothing is being flushed", BUSY, |pipeline| {
        pipeline.calls.abandon(|purpose| matches!(purpose, Purpose::Flush(_)));
        let (unit, part) = {
            let (number, unit) =
                pipeline.flights.iter().find(|(_, unit)| !unit.building).expect("it is there");
            (number, *unit.parts.keys().next().expect("it is to be written"))
        };
        pipeline.flights.ready(PartId { unit, part });
    });
    seen("nothing is being built", BUSY, |pipeline| {
        pipeline.calls.abandon(|purpose| matches!(purpose, Purpose::Build(_)));
        let number = pipeline.flights.iter().find(|(_, unit)| unit.building).expect("it is there").0;
        pipeline.flights.build_ready(number, 2);
    });
}

#[test]
fn i9_a_scan_compares_or_seeds() {
    let verification = |pipeline: &mut Pipeline| pipeline.seeding.get_mut(0).verification.take();
    let begun = || verification(&mut after(VERIFIED)).expect("it is compared");
    seen("is compared, and is not seeded", SCANNED, |pipeline| {
        pipeline.seeding.get_mut(0).verification = Some(begun());
    });
    seen("compared, and not read", VERIFIED, |pipeline| pipeline.seeding.scan = None);
    seen("in a scan of another kind", VERIFIED, |pipeline| drop(verification(pipeline)));
    seen("in a scan of another kind", VERIFIED, |pipeline| {
        let index = pipeline.seeding.get_mut(0);
        index.verification.as_mut().expect("it is compared").on_scanned();
    });
    seen("in a scan of another kind", SCANNED, |pipeline| {
        pipeline.seeding.scan.as_mut().expect("it is scanned").verifies = true;
    });
    seen("in a scan, and is not read", SCANNED, |pipeline| pipeline.seeding.get_mut(0).stage = Stage::Seeded);
}

/// A debug build checks them after every event.
#[test]
fn a_small_pipeline_is_checked_after_every_event() {
    let mut pipeline = after(BUSY);
    pipeline.dirty.miscount_live();
    let now = pipeline.now;
    let outcome = catch_unwind(AssertUnwindSafe(|| pipeline.handle(now, Event::Elapsed)));
    assert!(outcome.is_err(), "it was not checked");
}
