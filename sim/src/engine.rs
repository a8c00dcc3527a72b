//! The engine as a node: the unchanged `syncline::Engine`, started again whenever a run ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use syncline::error::Stage;
use syncline::{Engine, EngineError, FaultKind, Refusal, Report, Running};
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::conduct::Conduct;
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
            state.conduct = Conduct::default();
            state.outcome.starts += 1;
            state.run
        });
        world.say(Lane::Engine, format_args!("run {run} starts"));
        world.pass(Point::Start, Moment::Before).await;
        let client = Client::connect(world.clone(), run).await;
        let outcome = live(&world, client).await;
        let now_us = world.now_us();
        let (drained, conduct) = world.with(|state| {
            let drained = state.drain_within_ms.is_some();
            state.end_run(now_us);
            (drained, std::mem::take(&mut state.conduct))
        });
        judge_end(&world, &outcome, drained);
        world.judge(conduct.on_ended(now_us, outcome.as_ref().ok(), &world.names, &world.plan.engine));
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
                    let now_us = world.now_us();
                    world.with(|state| state.conduct.on_drain(now_us, within));
                    running.request_drain(Duration::from_millis(within));
                }
            }
            () = sleep(LOOKED_AFTER) => look_after(world, &running).await,
        }
    }
}

/// Looks at what the run says of itself, and whether it has anything to do by that; and, once the world is tended, has those
/// indexes seeded anew that have stopped, and those compared that were tampered with.
async fn look_after(world: &World, running: &Running) {
    let status = running.status();
    let is_verifying = status.indexes.iter().any(|index| index.verifying);
    let is_owed = status.oldest_unacknowledged.is_some();
    let is_idle = status.dirty == 0 && status.in_flight == 0 && !is_owed && !is_verifying;
    let (is_durable, verdict) = world.with(|state| state.conduct.on_status(&status, &world.names));
    world.judge(verdict);
    if is_durable {
        world.judge(world.with(|state| state.judge_caught_up(|_| false)));
    }
    let tended = world.with(|state| {
        state.caught_up = (status.caught_up && is_idle).then_some(state.run);
        state.tended
    });
    if !tended {
        return;
    }
    for index in status.indexes {
        let Some(number) = world.names.iter().position(|name| *name == index.index) else { continue };
        if index.parked {
            reindex(world, running, number).await;
        } else if status.caught_up && world.with(|state| !state.index.tampered(number).is_empty()) {
            verify(world, running, number).await;
        }
    }
}

async fn reindex(world: &World, running: &Running, index: usize) {
    let name = &world.names[index];
    world.with(|state| state.conduct.on_promised(index));
    match running.reindex(name).await {
        Ok(()) => {
            world.say(Lane::Seed, format_args!("{name} is to be seeded anew"));
            world.mark(Mark::Reindexed);
        }
        Err(Refusal::Ending) => world.with(|state| state.conduct.on_refused(index)),
        Err(refusal) => world.fail(Check::Reason, format!("{name} is not to be seeded anew: {refusal}")),
    }
}

/// Has an index compared. Whoever asks does not wait for the end: it is told to the observer.
async fn verify(world: &World, running: &Running, index: usize) {
    let name = &world.names[index];
    world.with(|state| {
        let tampered = state.index.tampered(index);
        state.conduct.on_verifying(index, tampered);
    });
    match timeout(Duration::from_millis(1), running.verify(name)).await {
        Err(_) => world.say(Lane::Seed, format_args!("{name} is being compared")),
        Ok(Ok(_) | Err(Refusal::Verifying)) => {}
        Ok(Err(_)) => world.with(|state| state.conduct.on_not_verifying(index)),
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
    let config = plan.config();
    Engine::new(Capture(client.clone()), Documents(client.clone()), Index(client.clone()))
        .with_quarantine(Store(client))
        .with_observer(Ear::new(world.clone()))
        .with_failure_policies(config.failure_policies)
        .with_batch(config.batch)
        .with_limits(config.limits)
        .with_retry(config.retry)
        .with_alarms(config.alarms)
        .with_cursor_interval(config.cursor_interval)
        .with_grace(config.grace)
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
        // The index that it wrote to was taken away by a run that has died.
        Err(EngineError::Failed { fault, .. })
            if fault.kind() == FaultKind::Fatal
                && world.with(|state| state.index.cleared_under == Some(state.run)) => {}
        Err(EngineError::DocumentsRejected(_, example)) if !stops(world, example) => {
            world.fail(Check::Ended, format!("a run ended for {example}, whose index goes on without it"));
        }
        Err(EngineError::DocumentsRejected(..)) if !healed && is_poisoned(&world.plan) => {}
        Err(EngineError::Contract { stage: Stage::Build, .. }) if !healed && is_silent(&world.plan) => {
            world.mark(Mark::LeftOut);
        }
        Err(error) => world.fail(Check::Ended, format!("a run ended without a reason: {error}")),
    }
}

/// Whether a run ends where this document is rejected, whose name begins with that of its index.
fn stops(world: &World, document: &str) -> bool {
    let mut indexes = world.plan.schema.indexes.iter();
    let name = document.split('/').next();
    indexes.any(|index| name == Some(index.name.as_str()) && !index.skips && !index.parks)
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
