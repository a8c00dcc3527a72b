//! Faults that belong together: situations that chance alone seldom brings about.

use crate::draw::Options;
use crate::plan::{Act, At, Fault, Kind, Moment, Node, Point, Schema};
use crate::random::Random;

/// More of them, for a plan in which anything goes wrong.
pub(super) fn more(
    random: &mut Random,
    seed: u64,
    options: &Options,
    schema: &Schema,
    churns: bool,
) -> Vec<Fault> {
    let mut faults = silences(random, options);
    faults.extend(absences(random, options, schema));
    faults.extend(latecomers(random, churns));
    faults.extend(refusals(&mut Random::new(seed, "refusals")));
    faults.extend(drains(random));
    faults.extend(last(random));
    faults.extend(reindexes(random, schema));
    faults.extend(verifications(&mut Random::new(seed, "verifications"), schema));
    faults.extend(hands(&mut Random::new(seed, "hands"), schema));
    faults
}

/// Someone has an index seeded anew, now and then where something else goes wrong.
fn reindexes(random: &mut Random, schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..if random.permille(800) { 0 } else { random.between(1, 3) } {
        let point = random.pick(&[
            Point::Commit,
            Point::Build,
            Point::Flush,
            Point::Confirm,
            Point::Scan,
            Point::Mark,
        ]);
        let at = At { point, moment: Moment::After, nth: random.below(20) as u32 };
        let index = random.below(schema.indexes.len() as u64) as usize;
        faults.push(Fault { at, act: Act::Reindex { index } });
        if random.permille(300) {
            let restart_ms = random.between(1, 100);
            let at = At {
                point: Point::Clear,
                moment: random.pick(&[Moment::Before, Moment::After]),
                nth: random.below(8) as u32,
            };
            faults.push(Fault { at, act: Act::Kill { node: Node::Engine, restart_ms } });
        }
    }
    faults
}

/// Someone has an index compared with its source.
fn verifications(random: &mut Random, schema: &Schema) -> Vec<Fault> {
    let count = if random.permille(700) { 0 } else { random.between(1, 3) };
    let mut verification = |_| {
        let point = random.pick(&[Point::Commit, Point::Flush, Point::Confirm, Point::Mark, Point::Mark]);
        let at = At { point, moment: Moment::After, nth: random.below(20) as u32 };
        let index = random.below(schema.indexes.len() as u64) as usize;
        Fault { at, act: Act::Verify { index } }
    };
    (0..count).map(&mut verification).collect()
}

/// Someone tampers with what an index holds, and may have it compared afterwards.
fn hands(random: &mut Random, schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..if random.permille(800) { 0 } else { random.between(1, 4) } {
        let point = random.pick(&[Point::Commit, Point::Confirm, Point::CaughtUp, Point::Mark, Point::End]);
        let moment = if point == Point::End { Moment::Before } else { Moment::After };
        let nth = if point == Point::End { 0 } else { random.below(10) as u32 };
        let index = random.below(schema.indexes.len() as u64) as usize;
        faults.push(Fault {
            at: At { point, moment, nth },
            act: Act::Tamper { index, nth: random.below(30) as usize },
        });
        if random.permille(500) {
            let at = At { point, moment, nth: nth + random.between(1, 3) as u32 };
            faults.push(Fault { at, act: Act::Verify { index } });
        }
    }
    faults
}

/// The stream is opened again while an index is about to be scanned.
pub(super) fn reopenings(random: &mut Random) -> Vec<Fault> {
    let count = if random.permille(600) { 0 } else { random.between(1, 3) };
    let mut reopening = |_| {
        let point = random.pick(&[Point::Clear, Point::Clear, Point::Cursor, Point::Scan]);
        let moment = random.pick(&[Moment::Before, Moment::After]);
        Fault { at: At { point, moment, nth: random.below(8) as u32 }, act: Act::BreakStream }
    };
    (0..count).map(&mut reopening).collect()
}

/// A builder that does not answer for all that it was asked for.
fn silences(random: &mut Random, options: &Options) -> Vec<Fault> {
    let builds = (0..60).filter(|_| random.permille(options.silence_permille));
    let at = |nth| At { point: Point::Build, moment: Moment::After, nth };
    builds.map(|nth| Fault { at: at(nth), act: Act::LeaveOut }).collect()
}

/// The position is lost while the engine is away: what happens until it is back is in no stream. It may die again while it
/// begins anew, after all indexes were cleared for the first time.
fn absences(random: &mut Random, options: &Options, schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..if random.permille(750) { 0 } else { random.between(1, 2) } {
        let nth = random.below(options.transactions) as u32;
        let at = At { point: Point::Commit, moment: Moment::After, nth };
        faults.push(Fault { at, act: Act::LosePosition });
        let restart_ms = random.pick(&[50, 300, 1000]);
        faults.push(Fault { at, act: Act::Kill { node: Node::Engine, restart_ms } });
        if random.permille(500) {
            let indexes = schema.indexes.len() as u64;
            let nth = (indexes + random.below(indexes)) as u32;
            let at = At { point: Point::Clear, moment: Moment::Before, nth };
            faults.push(Fault { at, act: Act::Lose });
            faults.push(Fault { at, act: Act::Kill { node: Node::Engine, restart_ms: 1 } });
        }
    }
    faults
}

/// Writes that land long after they were given up, or after their sender has died.
fn latecomers(random: &mut Random, churns: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..if random.permille(if churns { 100 } else { 800 }) { 0 } else { random.between(2, 8) } {
        let at = At { point: Point::Flush, moment: Moment::Before, nth: random.below(30) as u32 };
        faults.push(Fault { at, act: Act::Hold { ms: random.pick(&[100, 300, 1000, 3000]) } });
        if random.permille(600) {
            let restart_ms = random.pick(&[1, 20, 200]);
            faults.push(Fault { at, act: Act::Kill { node: Node::Engine, restart_ms } });
        }
    }
    faults
}

/// Builds that are refused as a whole, and not at once.
fn refusals(random: &mut Random) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..if random.permille(500) { 0 } else { random.between(4, 12) } {
        let at = At { point: Point::Build, moment: Moment::Before, nth: random.below(40) as u32 };
        faults.push(Fault { at, act: Act::Hold { ms: random.pick(&[20, 100, 300]) } });
        faults.push(Fault { at, act: Act::Fail { kind: Kind::Content } });
    }
    faults
}

/// Drains in the middle of work.
fn drains(random: &mut Random) -> Vec<Fault> {
    let count = if random.permille(500) { 0 } else { random.between(1, 3) };
    let mut drain = |_| {
        let point = random.pick(&[Point::Stream, Point::Resolve, Point::Build, Point::Flush, Point::Confirm]);
        let at = At { point, moment: Moment::After, nth: random.below(30) as u32 };
        Fault { at, act: Act::Drain { within_ms: random.pick(&[0, 20, 500, 500]) } }
    };
    (0..count).map(&mut drain).collect()
}

/// Something goes wrong last of all, when everything else may be done.
fn last(random: &mut Random) -> Option<Fault> {
    let node = random.pick(&[Node::Engine, Node::Database, Node::Database, Node::Index]);
    let act = match random.below(20) {
        0..5 => Act::Kill { node, restart_ms: random.between(1, 100) },
        5 => Act::LosePosition,
        6 => Act::BreakStream,
        _ => return None,
    };
    Some(Fault { at: At { point: Point::End, moment: Moment::Before, nth: 0 }, act })
}

/// Faults that belong together, at a place where they meet.
pub(super) fn situation(random: &mut Random, faults: &mut Vec<Fault>) {
    let mut add = |point, moment, nth, act| faults.push(Fault { at: At { point, moment, nth }, act });
    let kill = |random: &mut Random, node| Act::Kill { node, restart_ms: random.between(1, 50) };
    let nth = random.below(12) as u32;
    let (before, after) = (Moment::Before, Moment::After);
    match random.below(12) {
        // A write is held, and lands when its run has died and another one has begun, or has given it up.
        0 => {
            add(Point::Flush, before, nth, Act::Hold { ms: random.between(30, 800) });
            add(Point::Flush, before, nth, kill(random, Node::Engine));
        }
        1 | 7 => add(Point::Flush, before, nth / 2, Act::Hold { ms: random.between(300, 3000) }),
        // What is staged is torn.
        2 | 8 | 10 => add(Point::Sync, before, 4 + random.below(24) as u32, kill(random, Node::Index)),
        // Someone drains while a call waits to be made again.
        3 => {
            let within_ms = random.pick(&[0, 20, 500]);
            add(Point::Flush, before, nth, Act::Fail { kind: Kind::Transient });
            add(Point::Retry, after, random.below(3) as u32, Act::Drain { within_ms });
        }
        // The position is lost between two crashes, and it takes a while until there is another one.
        4 | 9 => {
            let start = random.between(1, 2) as u32;
            add(Point::Flush, before, nth.min(4), kill(random, Node::Engine));
            add(Point::Start, before, start, Act::LosePosition);
            add(Point::Start, before, start, kill(random, Node::Engine));
            add(Point::Open, before, start, Act::Hold { ms: random.between(50, 800) });
        }
        // A confirm is taken, and its answer lost; or forgotten.
        5 => add(Point::Confirm, after, nth, Act::Lose),
        6 => add(Point::Confirm, after, nth, kill(random, Node::Database)),
        // The engine dies silently: nobody hears of it until it is back.
        _ => {
            let ms = random.between(20, 1000);
            add(Point::Poll, before, nth * 8, Act::Cut { node: Node::Engine, ms });
            add(Point::Poll, before, nth * 8 + 1, kill(random, Node::Engine));
        }
    }
}
