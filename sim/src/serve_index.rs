//! What the index does with a request. What it answers is durable.

use std::collections::BTreeMap;

use syncline::{Seed, SeedState};

use crate::index::Op;
use crate::marks::Mark;
use crate::message::{Answer, Call, Failed, Reply, Request, Written};
use crate::outcome::Check;
use crate::plan::{Moment, Point, Poison};
use crate::random::mix;
use crate::serve::{done, pause};
use crate::tables::{Body, Doc, to_key};
use crate::world::{State, World};

pub(crate) async fn perform(world: &World, request: &Request, nth: u32, throttle: u32) -> Reply {
    let point = request.call.point();
    world.with(|state| state.index.run = state.index.run.max(request.run));
    pause(world, world.plan.sink.stage_us, point, nth).await;
    // Without versions, what lands late does harm: such an index takes requests of those alone who wait for the answer; and,
    // where it knows the epochs of the dead, the writes of those who waited for it when they died. The others know by
    // versions, physical indexes and the order of clears what is out of date.
    let sink = &world.plan.sink;
    let is_flush = matches!(request.call, Call::Flush { .. });
    let orphaned = is_flush && sink.checks_epochs && world.is_orphaned(request.run, request.until_us);
    let lasting = !matches!(request.call, Call::Begin { .. } | Call::Ensure { .. });
    let guarded = orphaned || (lasting && sink.checks_versions);
    if !guarded && !world.is_awaited(request.run, request.until_us) {
        return Err(Failed::transient("nobody waits for this"));
    }
    let late = matches!(
        request.call,
        Call::Clear { .. } | Call::Cursor { .. } | Call::Mark { .. } | Call::Park { .. }
    );
    if late && !world.is_awaited(request.run, request.until_us) {
        world.mark(Mark::LateSeeding);
    }
    let staged = match &request.call {
        Call::Begin { least } => {
            let (epoch, staged) = world.with(|state| {
                let epoch = state.index.begin(*least);
                (epoch, state.index.stage([Op::Begin(epoch)]))
            });
            durable(world, staged, point, nth).await;
            return Ok(Answer::Epoch(epoch));
        }
        Call::Ensure { index } => return ensure(world, *index, nth).await,
        Call::Flush { writes } => return flush(world, request, writes, nth, throttle).await,
        Call::Compare { writes } => return compare(world, writes),
        Call::List { index, generation, after, limit } => {
            return list(world, *index, *generation, after.as_ref(), *limit);
        }
        Call::CaughtUp => return done(),
        Call::SeedState { index, generation, seed } => return seed_state(world, *index, *generation, seed),
        Call::Clear { index, epoch, keeps } => {
            alive(world, *epoch)?;
            let order = (request.run, request.number);
            let staged = world.with(|state| {
                let generation = state.index.new_generation();
                if state.index.contents(*index).next().is_some() {
                    state.mark(Mark::SeededAgain);
                }
                state.index.stage([Op::Clear { index: *index, generation, order, keeps: *keeps }])
            });
            durable(world, staged, point, nth).await;
            let generation = world.with(|state| state.index.current[*index]);
            return generation.map(Answer::Generation).ok_or_else(gone);
        }
        Call::Cursor { generation, seed, after, epoch } => {
            let state = SeedState::Seeding(after.as_deref().map(to_key));
            return set_marker(world, request, *generation, seed, state, *epoch, nth).await;
        }
        Call::Mark { generation, seed, epoch } => {
            return set_marker(world, request, *generation, seed, SeedState::Seeded, *epoch, nth).await;
        }
        Call::Park { generation, seed, epoch } => {
            let of =
                world.with(|state| state.index.generations.get(generation).map(|physical| physical.index));
            if let Some(index) = of.filter(|index| !world.plan.schema.indexes[*index].parks) {
                world.fail(Check::Reason, format!("{} is to stop, which must not", world.names[index]));
            }
            return set_marker(world, request, *generation, seed, SeedState::Parked, *epoch, nth).await;
        }
        Call::Load => {
            let recorded = world.with(|state| state.index.recorded.keys().cloned().collect());
            return Ok(Answer::Loaded(recorded));
        }
        Call::Record { docs } => {
            world.mark(Mark::Quarantined);
            world.judge(world.with(|state| state.judge.on_recorded(docs.iter().map(|(doc, _)| doc))));
            let ops = docs.iter().map(|(doc, version)| Op::Record(doc.clone(), *version));
            world.with(|state| state.index.stage(ops))
        }
        Call::Release { docs } => {
            world.mark(Mark::Released);
            let ops = docs.iter().map(|(doc, version)| Op::Release(doc.clone(), *version));
            world.with(|state| state.index.stage(ops))
        }
        _ => return Err(Failed::fatal("this is an index")),
    };
    durable(world, staged, point, nth).await;
    done()
}

fn gone() -> Failed {
    Failed::fatal("there is no such index")
}

fn alive(world: &World, epoch: u64) -> Result<(), Failed> {
    match world.with(|state| state.index.is_dead(epoch)) {
        true => {
            world.mark(Mark::DeadEpochRefused);
            Err(Failed::fatal("a newer run has begun"))
        }
        false => Ok(()),
    }
}

fn known(world: &World, generation: u64) -> Result<(), Failed> {
    match world.with(|state| state.index.generations.contains_key(&generation)) {
        true => Ok(()),
        false => Err(gone()),
    }
}

async fn set_marker(
    world: &World,
    request: &Request,
    generation: u64,
    seed: &Seed,
    state: SeedState,
    epoch: u64,
    nth: u32,
) -> Reply {
    alive(world, epoch)?;
    known(world, generation)?;
    let op = Op::Marker { generation, seed: seed.clone(), state, order: (request.run, request.number) };
    let staged = world.with(|state| state.index.stage([op]));
    durable(world, staged, request.call.point(), nth).await;
    known(world, generation)?;
    done()
}

/// Waits until what was staged is durable.
async fn durable(world: &World, staged: u64, point: Point, nth: u32) {
    world.pass(Point::Sync, Moment::Before).await;
    pause(world, world.plan.sink.sync_us, point, nth).await;
    world.sync(staged);
}

async fn ensure(world: &World, index: usize, nth: u32) -> Reply {
    let staged = world.with(|state| match state.index.current[index] {
        Some(_) => None,
        None => {
            let generation = state.index.new_generation();
            Some(state.index.stage([Op::Create { index, generation }]))
        }
    });
    if let Some(staged) = staged {
        durable(world, staged, Point::Ensure, nth).await;
    }
    world.with(|state| state.index.current[index]).map(Answer::Generation).ok_or_else(gone)
}

fn seed_state(world: &World, index: usize, generation: u64, seed: &Seed) -> Reply {
    let state = world.with(|state| {
        let physical =
            state.index.generation(index).filter(|_| state.index.current[index] == Some(generation));
        let held = physical.ok_or_else(gone)?.marker.clone();
        let held = held.filter(|(held, _)| held == seed).map(|(_, state)| state);
        if matches!(held, Some(SeedState::Seeding(Some(_)))) {
            state.mark(Mark::CursorResumed);
        }
        Ok(held.unwrap_or_default())
    });
    state.map(Answer::Seeded)
}

/// Which documents are not held like this. What is staged is not durable yet, and not held.
fn compare(world: &World, writes: &[Written]) -> Reply {
    let mut differing = Vec::new();
    for written in writes {
        known(world, written.generation)?;
        let text = |body: &Body| (body.text.clone(), body.definition);
        let held = world.with(|state| state.index.body(written.generation, &written.doc).map(text));
        let is_right = held == written.body.as_ref().map(text);
        world.mark(if is_right { Mark::HeldRight } else { Mark::HeldWrong });
        if !is_right {
            differing.push(written.doc.clone());
        }
    }
    Ok(Answer::Documents(differing))
}

/// What an index holds, in the order of the documents' names.
fn list(world: &World, index: usize, generation: u64, after: Option<&String>, limit: usize) -> Reply {
    known(world, generation)?;
    let held: BTreeMap<String, Doc> = world.with(|state| {
        let docs = state.index.contents(index).map(|(doc, _)| doc);
        docs.map(|doc| (syncline::document::encode_key(&to_key(&doc.key)), doc.clone())).collect()
    });
    let rest = held.into_iter().filter(|(name, _)| Some(name) > after);
    Ok(Answer::Documents(rest.map(|(_, doc)| doc).take(limit).collect()))
}

async fn flush(world: &World, request: &Request, writes: &[Written], nth: u32, throttle: u32) -> Reply {
    let limit = world.plan.sink.request_documents;
    if limit > 0 && writes.len() > limit {
        world.mark(Mark::Halved);
        return Err(Failed::content("the request is too large"));
    }
    let healed = world.with(|state| state.healed);
    let poison = |written: &Written| match &written.body {
        Some(body) if !healed => body.poison,
        _ => Poison::None,
    };
    if writes.iter().any(|written| poison(written) == Poison::Refused) {
        if writes.len() > 1 {
            world.mark(Mark::Halved);
        }
        return Err(Failed::content("the request is malformed"));
    }
    if writes.iter().any(|written| poison(written) == Poison::Rejected) {
        world.pass(Point::Refuse, Moment::Before).await;
    }
    let (mut rejected, mut throttled, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut ops = Vec::new();
    let stage = |state: &mut State| {
        for (at, written) in writes.iter().enumerate() {
            if !state.index.generations.contains_key(&written.generation) {
                return Err(gone());
            }
            let doc: Doc = written.doc.clone();
            if poison(written) == Poison::Rejected {
                rejected.push(doc);
            } else if throttle > 0 && mix(u64::from(nth) ^ at as u64).is_multiple_of(u64::from(throttle)) {
                throttled.push(doc);
            } else {
                if written.body.is_none() && state.index.body(written.generation, &doc).is_none() {
                    missing.push(doc.clone());
                }
                let (generation, version, body) = (written.generation, written.version, written.body.clone());
                ops.push(Op::Write { generation, doc, version, body, run: request.run });
            }
        }
        for (mark, docs) in [(Mark::Throttled, &throttled), (Mark::DeletedMissing, &missing)] {
            if !docs.is_empty() {
                state.mark(mark);
            }
        }
        Ok(state.index.stage(std::mem::take(&mut ops)))
    };
    let staged = world.with(stage)?;
    durable(world, staged, Point::Flush, nth).await;
    // An index that was deleted meanwhile has taken the writes with it.
    for written in writes {
        known(world, written.generation)?;
    }
    Ok(Answer::Flushed { rejected, throttled, missing })
}
