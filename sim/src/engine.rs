//! The engine as a node: the unchanged `syncline::Engine`, started again whenever a run ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use syncline::error::Stage;
use syncline::{
    Alarms, BatchPolicy, Engine, EngineError, FailurePolicies, FailurePolicy, FaultKind, Limits, Report,
    RetryPolicy, Running,
};
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::marks::Mark;
use crate::observer::Ear;
use crate::outcome::Check;
use crate::plan::{Act, Moment, Plan, Point, Poison, Statement};
use crate::ports::{Capture, Documents, Index, Store};
use crate::trace::Lane;
use crate::world::{CHAOS, World};

/// How often someone looks after indexes that have stopped alone.
const LOOKED_AFTER: Duration = Duration::from_millis(50);

/// Runs until the node dies.
pub(crate) async fn engine(world: Arc<World>) {
    loop {
        let run = world.with(|state| {
            state.run += 1;
            state.is_running = true;
            state.gauges.restart();
            state.outcome.starts += 1;
            state.run
        });
        world.say(Lane::Engine, format_args!("run {run} starts"));
        world.pass(Point::Start, Moment::Before).await;
        let client = Client::connect(world.clone(), run).await;
        let outcome = live(&world, client).await;
        let now_us = world.now_us();
        let drained = world.with(|state| {
            let drained = state.drain_within_ms.is_some();
            state.end_run(now_us);
            drained
        });
        judge_end(&world, &outcome, drained);
        sleep(Duration::from_millis(world.plan.engine.restart_ms)).await;
    }
}

async fn live(world: &Arc<World>, client: Arc<Client>) -> Result<Report, EngineError> {
    let counting = world.clone();
    let running = build(&world.plan, world, client).start_within(|run| polled(counting, run));
    let mut outcome = pin!(running.outcome());
    loop {
        tokio::select! {
            biased;
            outcome = &mut outcome => return outcome,
            () = world.asked.notified() => {
                for index in world.with(|state| std::mem::take(&mut state.reindex)) {
                    reindex(world, &running, index).await;
                }
                for index in world.with(|state| std::mem::take(&mut state.verify)) {
                    verify(world, &running, index).await;
                }
                if let Some(within) = world.with(|state| state.drain_within_ms) {
                    world.say(Lane::Engine, format_args!("drain within {within} ms"));
                    running.request_drain(Duration::from_millis(within));
                }
            }
            // Once nothing fails any more someone looks after the indexes that have stopped.
            () = sleep(LOOKED_AFTER), if world.with(|state| state.healed) => {
                let parked = running.status().indexes.into_iter().filter(|index| index.parked);
                for index in parked.filter_map(|index| world.names.iter().position(|name| *name == index.index)) {
                    reindex(world, &running, index).await;
                }
            }
        }
    }
}

async fn reindex(world: &World, running: &Running, index: usize) {
    let name = &world.names[index];
    if running.reindex(name).await.is_ok() {
        world.say(Lane::Seed, format_args!("{name} is to be seeded anew"));
        world.mark(Mark::Reindexed);
    }
}

/// Has an index compared. Whoever asks does not wait for the end: it is told to the observer.
async fn verify(world: &World, running: &Running, index: usize) {
    let name = &world.names[index];
    if timeout(Duration::from_millis(1), running.verify(name)).await.is_err() {
        world.say(Lane::Seed, format_args!("{name} is being compared"));
    }
}

/// Counts the polls of a run, each a point at which it can be killed: between two polls it stands at an await.
async fn polled<F: Future>(world: Arc<World>, run: F) -> F::Output {
    let mut run = pin!(run);
    let mut held = None;
    poll_fn(|cx| {
        if held.is_none() {
            let (_, _, for_nodes) = world.come_to(Point::Poll, Moment::Before);
            held = for_nodes.then(|| Box::pin(sleep(CHAOS)));
        }
        // What is done to nodes is done before this poll, not after it.
        if let Some(hold) = &mut held {
            ready!(hold.as_mut().poll(cx));
            held = None;
        }
        run.as_mut().poll(cx)
    })
    .await
}

fn build(plan: &Plan, world: &Arc<World>, client: Arc<Client>) -> Engine<Capture, Documents, Index> {
    let of = &plan.engine;
    let millis = Duration::from_millis;
    let mut policies = FailurePolicies::default();
    for index in plan.schema.indexes.iter().filter(|index| index.skips) {
        policies = policies.with_override(&index.name, FailurePolicy::Skip);
    }
    for index in plan.schema.indexes.iter().filter(|index| index.parks) {
        policies = policies.with_override(&index.name, FailurePolicy::Park);
    }
    Engine::new(Capture(client.clone()), Documents(client.clone()), Index(client.clone()))
        .with_quarantine(Store(client))
        .with_observer(Ear::new(world.clone()))
        .with_failure_policies(policies)
        .with_batch(BatchPolicy {
            max_changes: of.max_changes,
            max_documents: of.max_documents,
            max_bytes: of.max_bytes,
            max_delay: millis(of.max_delay_ms),
        })
        .with_limits(Limits {
            changes: of.changes,
            documents: of.documents,
            resolves: of.resolves,
            resolve_changes: of.resolve_changes,
            builds: of.builds,
            flushes: of.flushes,
            units: of.units,
            backfill_rows: of.backfill_rows,
            backfill_share: of.backfill_share,
        })
        .with_retry(RetryPolicy {
            delay_min: millis(of.retry_min_ms),
            delay_max: millis(of.retry_max_ms),
            attempts: of.attempts,
            attempt_timeout: millis(of.attempt_ms),
            seed: Some(plan.seed),
        })
        .with_alarms(Alarms::default())
        .with_cursor_interval(millis(of.cursor_interval_ms))
        .with_grace(millis(of.grace_ms))
}

/// A run ends because it was drained, or for a reason that a fault explains.
fn judge_end(world: &World, outcome: &Result<Report, EngineError>, drained: bool) {
    let healed = world.with(|state| state.healed && state.run > state.run_at_heal);
    match outcome {
        Ok(report) => {
            world.say(Lane::Engine, format_args!("run ended: {} unacknowledged", report.unacknowledged));
            if !drained {
                world.fail(Check::Ended, "a run ended, though its stream goes on".to_owned());
            }
        }
        Err(EngineError::Failed { attempts, fault, .. })
            if fault.kind() == FaultKind::Transient && *attempts < world.plan.engine.attempts =>
        {
            world.fail(Check::Ended, format!("a run ended after {attempts} attempts: {fault}"));
        }
        Err(EngineError::Failed { fault, .. })
            if !healed && (fault.kind() == FaultKind::Transient || !world.plan.faults.is_empty()) => {}
        Err(EngineError::DocumentsRejected(..)) if !healed && is_poisoned(&world.plan) => {}
        Err(EngineError::Contract { stage: Stage::Build, .. }) if !healed && is_silent(&world.plan) => {
            world.mark(Mark::LeftOut);
        }
        Err(error) => world.fail(Check::Ended, format!("a run ended without a reason: {error}")),
    }
}

/// Whether some document may be refused for its content.
fn is_poisoned(plan: &Plan) -> bool {
    let poisons =
        |statement: &Statement| matches!(statement, Statement::Put { poison, .. } if *poison != Poison::None);
    let refuses =
        |act: &crate::plan::Act| matches!(act, crate::plan::Act::Fail { kind: crate::plan::Kind::Content });
    plan.rows.iter().any(poisons)
        || plan.workload.iter().any(|transaction| transaction.statements.iter().any(poisons))
        || plan.faults.iter().any(|fault| refuses(&fault.act))
}

/// Whether a builder may leave out a document that it was asked for.
fn is_silent(plan: &Plan) -> bool {
    plan.faults.iter().any(|fault| fault.act == Act::LeaveOut)
}

/// The engine's node dies: what that cut short.
pub(crate) fn on_killed(world: &World) {
    let now_us = world.now_us();
    world.with(|state| {
        if state.is_running && state.gauges.flushed_since_confirm {
            state.mark(Mark::CrashBetweenFlushAndAck);
        }
        if state.gauges.under_way(Point::Build, now_us) > 0 {
            state.mark(Mark::CrashDuringBuild);
        }
        if state.database.slot.is_none() && state.database.slots > 0 {
            state.mark(Mark::PositionLostAndCrash);
        }
        state.end_run(now_us);
    });
}
