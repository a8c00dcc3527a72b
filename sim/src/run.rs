//! A plan becomes an outcome: the world is made, lives through its workload and its faults, heals, and must converge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madsim::Config;
use madsim::runtime::{Handle, NodeHandle, Runtime};
use syncline::SeedState;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::chaos::{Chaos, Nodes};
use crate::engine::engine;
use crate::marks::Mark;
use crate::outcome::{Check, Failure, Outcome};
use crate::plan::{Act, Moment, Node, Plan, Point, Statement, Transaction};
use crate::serve::{address, serve};
use crate::tables::Doc;
use crate::trace::Lane;
use crate::world::{World, incarnation_of};

/// How long the faults may go on after the workload.
const STORM_MAX: Duration = Duration::from_secs(5);
/// Once healed, everything must be acknowledged and converged within this.
const LIVENESS_MAX: Duration = Duration::from_secs(120);

/// Runs a plan in a world of its own. The same plan gives the same outcome, with the same trace. Errors: the first promise
/// that was broken.
pub fn simulate(plan: &Plan) -> Result<Outcome, Failure> {
    let world: Arc<Mutex<Option<Arc<World>>>> = Arc::default();
    let (inside, plan_inside) = (world.clone(), plan.clone());
    let life = move || live(&plan_inside, &inside);
    // The order of a hash map is drawn once for each thread: a fresh one makes it follow from the seed alone.
    #[expect(clippy::disallowed_methods, reason = "the thread is joined, and alone with its world")]
    let thread = std::thread::spawn(life);
    let joined = thread.join();
    let world = world.lock().unwrap_or_else(PoisonError::into_inner).take();
    let verdict = world.map_or_else(|| Ok(Outcome::default()), |world| world.verdict());
    match (joined, verdict) {
        (Ok(Ok(())), verdict) | (_, verdict @ Err(_)) => verdict,
        (Ok(Err(what)), Ok(outcome)) => Err(failure(Check::Panic, what, outcome)),
        (Err(panic), Ok(outcome)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(failure(Check::Panic, text.unwrap_or("something panicked").to_owned(), outcome))
        }
    }
}

fn failure(check: Check, what: String, outcome: Outcome) -> Failure {
    Failure { check, what, at_us: outcome.simulated_us, outcome: Box::new(outcome) }
}

fn live(plan: &Plan, outside: &Mutex<Option<Arc<World>>>) -> Result<(), String> {
    let mut config = Config::default();
    let latency = plan.network.latency_us;
    config.net.send_latency =
        Duration::from_micros(latency.min)..Duration::from_micros(latency.max.max(latency.min) + 1);
    config.net.packet_loss_rate = f64::from(plan.network.lost_ppm) / 1e6;
    let runtime = Runtime::with_seed_and_config(plan.seed, config);
    runtime.block_on(async {
        let (world, acts) = World::new(plan.clone())?;
        *outside.lock().unwrap_or_else(PoisonError::into_inner) = Some(world.clone());
        let (chaos, nodes) = populate(&world, acts);
        tokio::select! {
            biased;
            () = world.failed.notified() => {}
            () = history(&world, &chaos) => {}
        }
        // A runtime whose nodes are alive is never freed.
        for node in nodes {
            Handle::current().kill(node.id());
        }
        sleep(Duration::from_millis(2)).await;
        Ok(())
    })
}

/// Makes the nodes.
fn populate(world: &Arc<World>, acts: mpsc::UnboundedReceiver<Act>) -> (Arc<Chaos>, Vec<NodeHandle>) {
    let handle = Handle::current();
    let serving = |node: Node, name: &str| {
        let world = world.clone();
        let ip: IpAddr = address(node).ip();
        handle.create_node().name(name).ip(ip).init(move || serve(world.clone(), node)).build()
    };
    let database = serving(Node::Database, "database");
    let index = serving(Node::Index, "index");
    let running = world.clone();
    let ip = address(Node::Engine).ip();
    let engine = handle.create_node().name("engine").ip(ip).init(move || engine(running.clone())).build();
    let nodes = Nodes { database: database.id(), index: index.id(), engine: engine.id() };
    let chaos = Chaos::new(world.clone(), nodes);
    let reign = handle.create_node().name("chaos").ip(IpAddr::from([10, 0, 0, 4])).build();
    drop(reign.spawn(chaos.clone().reign(acts)));
    (chaos, vec![database, index, engine, reign])
}

/// Workload and faults; then the faults are over, and everything must become right; then all of it once more.
async fn history(world: &World, chaos: &Chaos) {
    for transaction in &world.plan.workload {
        sleep(Duration::from_millis(transaction.after_ms)).await;
        commit(world, transaction).await;
    }
    let storm_ends = tokio::time::Instant::now() + STORM_MAX;
    while tokio::time::Instant::now() < storm_ends && unsettled(world, Until::Mended).is_some() {
        sleep(Duration::from_millis(50)).await;
    }
    world.pass(Point::End, Moment::Before).await;
    heal(world).await;
    // First by itself: what a new run would mend must not be what hides that this one is stuck.
    if !settles(world, Check::Live, Until::Mended).await {
        return;
    }
    world.say(Lane::Check, format_args!("mended by itself; now what only a start can mend"));
    reboot(world, chaos).await;
    if !settles(world, Check::Live, Until::Started).await {
        return;
    }
    world.say(Lane::Check, format_args!("mended by a start; now what someone has to ask for"));
    world.with(|state| state.tended = true);
    if !settles(world, Check::Live, Until::Right).await {
        return;
    }
    let before = contents(world);
    world.say(Lane::Check, format_args!("converged; now the whole log again"));
    world.with(|state| state.database.rewind());
    reboot(world, chaos).await;
    if !settles(world, Check::Replay, Until::Right).await {
        return;
    }
    if contents(world) != before {
        world.fail(Check::Replay, "replaying the whole log changed the indexes".to_owned());
    }
    world.say(Lane::Check, format_args!("holds"));
}

async fn commit(world: &World, transaction: &Transaction) {
    let (nth, _) = world.pass(Point::Commit, Moment::Before).await;
    let source = &world.plan.source;
    let delay_us = world.draw(source.visible_us, Point::Commit, nth);
    let lag_us = world.draw(source.replica_lag_us, Point::Resolve, nth);
    let visible_at_us = world.now_us() + delay_us + lag_us;
    let statements = &transaction.statements;
    let (position, touched, unseen) = world.with(|state| {
        let unseen = state.database.slot.is_none() && state.database.slots > 0;
        let (position, touched) = state.database.commit(
            &world.shape,
            statements,
            source.before_images,
            visible_at_us,
            &mut state.judge,
        );
        state.outcome.commits += 1;
        if state.gauges.scans_open && !touched.is_empty() {
            state.mark(Mark::ChangedUnderScan);
        }
        (position, touched, unseen)
    });
    world.say(Lane::Source, format_args!("commit @{position}: {} statements, {touched:?}", statements.len()));
    world.on_dirtied(&touched);
    for statement in statements {
        match statement {
            Statement::Remove { .. } if unseen => world.mark(Mark::VanishedUnseen),
            Statement::Remove { table, .. } if is_child(world, table) => world.mark(Mark::ChildLeft),
            Statement::Rekey { .. } => world.mark(Mark::Rekeyed),
            Statement::Truncate { .. } if !touched.is_empty() => {
                world.mark(Mark::Truncated);
                if world.with(|state| state.gauges.scans_open) {
                    world.mark(Mark::TruncatedUnderScan);
                }
            }
            _ => {}
        }
    }
    world.streamed.notify_waiters();
    world.pass(Point::Commit, Moment::After).await;
}

fn is_child(world: &World, table: &str) -> bool {
    world.plan.schema.indexes.iter().any(|index| index.children.iter().any(|child| child == table))
}

/// The faults are over: whatever is down comes back, and nothing goes wrong any more.
async fn heal(world: &World) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while world.with(|state| state.outstanding > 0) && tokio::time::Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    world.with(|state| {
        state.healed = true;
        state.run_at_heal = state.run;
    });
    madsim::net::NetSim::current().update_config(|config| config.packet_loss_rate = 0.0);
    world.asked.notify_one();
    world.say(Lane::Fault, format_args!("healed"));
}

/// The engine dies and comes back, so that what is tried at a start is tried. What is still on its way to the index arrives
/// while nobody runs: it must not be what the next run is judged by.
async fn reboot(world: &World, chaos: &Chaos) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    chaos.kill(Node::Engine);
    sleep(Duration::from_millis(5) + Duration::from_micros(world.plan.network.latency_us.max)).await;
    while world.with(|state| state.served > 0) && tokio::time::Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    chaos.restart(Node::Engine);
}

/// Waits until everything is acknowledged and converged. Returns whether it was, in time.
async fn settles(world: &World, check: Check, until: Until) -> bool {
    let deadline = tokio::time::Instant::now() + LIVENESS_MAX;
    let mut wait = Duration::from_millis(2);
    loop {
        sleep(wait).await;
        wait = (wait * 5 / 4).min(Duration::from_millis(200));
        let Some((what, is_content)) = unsettled(world, until) else { return true };
        if tokio::time::Instant::now() >= deadline {
            let check = if is_content && check == Check::Live { Check::Converged } else { check };
            world.fail(check, format!("after {LIVENESS_MAX:?} without faults {what}"));
            return false;
        }
    }
}

/// How much must be as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    /// What the run that is alive can know of: not an index that was deleted by hand or by a clear that came late, or is
    /// defined otherwise by now, nor documents in the quarantine.
    Mended,
    /// What a start knows of: all but an index that has stopped, and stays as it is until someone asks, and documents that
    /// someone has tampered with.
    Started,
    /// Everything.
    Right,
}

/// What is still to be done, and whether it concerns what the indexes hold; `None` where everything is as it should be.
fn unsettled(world: &World, until: Until) -> Option<(String, bool)> {
    world.with(|state| {
        let is_judged = |index: usize| {
            let is_known = state.index.current[index].is_some()
                && !state.index.has_lost_marker(index)
                && state.definitions[index] == state.definitions_of_run[index];
            until > Until::Mended || is_known
        };
        let slot = state.database.slot.as_ref();
        let stands = |index: usize, wanted: SeedState| {
            let marker = state.index.generation(index).and_then(|generation| generation.marker.as_ref());
            marker.is_some_and(|(seed, at)| {
                *at == wanted
                    && incarnation_of(seed.stream.as_str()) == slot.map(|slot| slot.incarnation)
                    && seed.definition.as_str() == state.definitions[index].to_string()
            })
        };
        let is_judged =
            |index: usize| is_judged(index) && (until == Until::Right || !stands(index, SeedState::Parked));
        let is_excused = |doc: &Doc| {
            !is_judged(doc.index)
                || (until == Until::Mended && state.index.recorded.contains_key(doc))
                || (until < Until::Right && {
                    let current = state.index.current[doc.index];
                    current.is_some_and(|current| state.index.is_tampered(current, doc))
                })
        };
        if let Some(index) = state.conduct.promised() {
            let what = format!("{} was to be seeded anew, and was not", world.names[index]);
            return Some((what, false));
        }
        if until > Until::Mended && !state.conduct.is_told() {
            return Some(("the index is not told that the engine is caught up".to_owned(), false));
        }
        if until > Until::Mended && state.caught_up != Some(state.run) {
            return Some(("the engine does not say that it is caught up".to_owned(), false));
        }
        let Some(slot) = &state.database.slot else {
            return Some(("there is no position".to_owned(), false));
        };
        if slot.confirmed < state.database.newest {
            let what = format!("@{} is confirmed of @{}", slot.confirmed, state.database.newest);
            return Some((what, false));
        }
        for index in (0..world.names.len()).filter(|index| is_judged(*index)) {
            if !stands(index, SeedState::Seeded) {
                let marker = state.index.generation(index).and_then(|generation| generation.marker.as_ref());
                return Some((format!("{} is not seeded: {marker:?}", world.names[index]), false));
            }
        }
        let truth = state.database.tables.documents(&world.shape, state.database.newest);
        for (doc, body) in truth.iter().filter(|(doc, _)| !is_excused(doc)) {
            let generation = state.index.current[doc.index].unwrap_or_default();
            let held = state.index.body(generation, doc);
            let right = held.is_some_and(|held| {
                held.text == body.text && held.definition == state.definitions[doc.index]
            });
            if !right {
                return Some((format!("{doc:?} is {held:?}, and should be `{}`", body.text), true));
            }
        }
        for index in 0..world.names.len() {
            let ghost = |(doc, _): &(&Doc, _)| !truth.contains_key(doc) && !is_excused(doc);
            if let Some((doc, _)) = state.index.contents(index).find(ghost) {
                return Some((format!("{doc:?} should not be there"), true));
            }
        }
        let recorded = state.index.recorded.keys().find(|doc| !is_excused(doc));
        recorded.map(|doc| (format!("{doc:?} stands in the quarantine"), true))
    })
}

fn contents(world: &World) -> BTreeMap<Doc, Arc<str>> {
    world.with(|state| {
        let all = (0..world.names.len()).flat_map(|index| state.index.contents(index));
        all.map(|(doc, body)| (doc.clone(), body.text.clone())).collect()
    })
}
