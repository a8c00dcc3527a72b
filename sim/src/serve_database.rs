//! What the database does with a request.

use std::time::Duration;

use tokio::time::timeout;

use syncline::{Captured, Position, Seed};

use crate::marks::Mark;
use crate::message::{Answer, Call, Failed, Reply, Request};
use crate::outcome::Check;
use crate::plan::{Moment, Point, Poison};
use crate::serve::{done, pause};
use crate::tables::Body;
use crate::world::{State, World, incarnation_of};

pub(crate) async fn perform(world: &World, request: &Request, nth: u32) -> Reply {
    let query = world.plan.source.query_us;
    match &request.call {
        Call::Open => {
            pause(world, query, Point::Open, nth).await;
            let (incarnation, session) = world.with(|state| state.database.open());
            // Whoever had the stream open learns that it is gone.
            world.streamed.notify_waiters();
            // What was committed before the resume point is in no stream: readers must see all of it.
            let confirmed = world.with(|state| state.database.slot.as_ref().map(|slot| slot.confirmed));
            seen(world, confirmed.unwrap_or_default(), 0)?;
            seen(world, confirmed.unwrap_or_default(), world.plan.source.scan_lag_us)?;
            Ok(Answer::Opened { incarnation, session })
        }
        Call::Stream { session } => stream(world, *session).await,
        Call::Confirm { incarnation, position } => confirm(world, *incarnation, *position),
        Call::Scan { table, after, visible, incarnation } => {
            pause(world, query, Point::Scan, nth).await;
            scan(world, *table, after.as_deref(), *visible, *incarnation)
        }
        Call::Resolve { lookups, visible } => {
            pause(world, query, Point::Resolve, nth).await;
            let at = seen(world, *visible, 0)?;
            let find = |state: &mut State| {
                let tables = &state.database.tables;
                lookups.iter().map(|lookup| tables.look_up(&world.shape, lookup, at)).collect()
            };
            Ok(Answer::Found(world.with(find)))
        }
        Call::Build { docs, visible } => {
            pause(world, query, Point::Build, nth).await;
            let at = seen(world, *visible, 0)?;
            let build = |state: &mut State| {
                let tables = &state.database.tables;
                let built = docs.iter().map(|doc| (doc.clone(), tables.document(&world.shape, doc, at)));
                (built.collect::<Vec<_>>(), state.healed)
            };
            let (built, healed) = world.with(build);
            let is_at_fault = |body: &Body| body.poison == Poison::Unbuildable;
            let at_fault = built.iter().filter_map(|(_, body)| body.as_ref()).any(is_at_fault);
            if at_fault && !healed {
                world.pass(Point::Refuse, Moment::Before).await;
            }
            if at_fault && world.plan.source.refuses_builds && !healed {
                if docs.len() > 1 {
                    world.mark(Mark::BuildHalved);
                }
                return Err(Failed::content("a document of these cannot be built"));
            }
            Ok(Answer::Built(built))
        }
        Call::Lag => {
            let lag = world.with(|state| {
                let confirmed = state.database.slot.as_ref().map_or(0, |slot| slot.confirmed);
                state.database.newest - confirmed
            });
            Ok(Answer::Lag(lag))
        }
        _ => Err(Failed::fatal("this is a database")),
    }
}

/// The position that readers see who trail the others by so much, which must not be before this one.
fn seen(world: &World, visible: u64, lag_us: u64) -> Result<u64, Failed> {
    let now_us = world.now_us();
    let seen = world.with(|state| state.database.seen(now_us, lag_us, state.healed));
    if seen < visible {
        world.mark(Mark::NotYet);
        return Err(Failed::transient("the change is not visible yet"));
    }
    Ok(seen)
}

/// The next items; where there are none for a while, a checkpoint.
async fn stream(world: &World, session: u64) -> Reply {
    let broken = || Failed::transient("the stream is not open");
    let most = world.plan.source.stream_items.max(1);
    let take = || world.with(|state| state.database.next(session, most)).ok_or_else(broken);
    let keepalive = Duration::from_millis(world.plan.source.keepalive_ms);
    let news = world.streamed.notified();
    let mut portion = take()?;
    if portion.items.is_empty() {
        // Either is fine: what matters is whether there is something by now.
        let _ = timeout(keepalive, news).await;
        portion = take()?;
    }
    if portion.again > 0 {
        world.mark(Mark::AcknowledgedAgain);
    }
    if world.plan.source.says_more && world.with(|state| state.database.has_more()) {
        portion.items.push(Captured::More);
    }
    if portion.items.is_empty() {
        let newest = world.with(|state| state.database.idle());
        portion.items.push(Position(newest).into());
    }
    Ok(Answer::Items(portion.items))
}

fn confirm(world: &World, incarnation: u64, position: u64) -> Reply {
    let durable_each = world.plan.source.durable_confirms;
    let verdict = world.with(|state| {
        let State { database, judge, index, gauges, .. } = state;
        let position = position + database.base(incarnation);
        let slot = database.slot.as_ref()?;
        let (since, before) = (slot.created_at, slot.confirmed);
        database.confirm(incarnation, position, durable_each)?;
        gauges.flushed_since_confirm = false;
        let is_stream = |seed: &Seed| incarnation_of(seed.stream.as_str()) == Some(incarnation);
        let verdict =
            judge.on_confirm(since, position, |doc| index.standing(doc, is_stream), |doc| index.found(doc));
        let mut marks = Vec::new();
        if since > 1 && database.base(incarnation) > 0 {
            marks.push(Mark::PositionsRestarted);
        }
        if position > before && database.changes_at(position) == 0 {
            marks.push(Mark::IdleCheckpoint);
        }
        let limits = &world.plan.engine;
        for (at, documents) in judge.changed_between(before, position) {
            let changes = database.changes_at(at);
            let wide = documents > limits.max_documents.saturating_mul(3);
            let hard = [
                (Mark::OverThreeUnits, wide || changes > limits.max_changes.saturating_mul(3)),
                (Mark::LargerThanWindow, changes > limits.changes),
                (Mark::FanOut, documents > limits.documents + changes),
            ];
            marks.extend(hard.into_iter().filter(|(_, met)| *met).map(|(mark, _)| mark));
        }
        marks.into_iter().for_each(|mark| state.mark(mark));
        Some(verdict)
    });
    match verdict {
        None => Err(Failed::transient("there is no such position")),
        Some(verdict) => {
            world.judge(verdict);
            done()
        }
    }
}

fn scan(world: &World, table: usize, after: Option<&[i64]>, visible: u64, incarnation: u64) -> Reply {
    let number = usize::try_from(incarnation).ok().and_then(|number| number.checked_sub(1));
    let created = world.with(|state| state.database.created.get(number?).copied());
    let Some(created) = created else {
        world.fail(Check::ResumePoint, "a table was read before a resume point existed".to_owned());
        return done();
    };
    // What was committed before the stream begins is in no stream: a reader must see all of it.
    let at = seen(world, created.max(visible), world.plan.source.scan_lag_us)?;
    let rows = world.plan.source.page_rows.max(1);
    Ok(world.with(|state| {
        let mut keys: Vec<Vec<i64>> = Vec::new();
        let mut all = state.database.tables.scan(table, after, at).map(|(key, _)| key.clone());
        keys.extend(all.by_ref().take(rows));
        let end = all.next().is_none();
        drop(all);
        Answer::Rows { keys, end }
    }))
}
