//! Random worlds with random faults, through the driver: whatever happens, nothing is acknowledged that is not durable,
//! no document goes back, and once the faults are over the sink says what the tables say.

mod fakes;
mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use fakes::{Act, Shape, Step, World, id};
use random::Random;
use syncline::ports::Guarantees;
use syncline::{
    Alarms, BatchPolicy, Engine, EngineError, FailurePolicy, Fault, Limits, Report, RetryPolicy, Version,
};

const CALLS: [&str; 17] = [
    "begin",
    "mappings",
    "ensure",
    "prepare",
    "open",
    "resolve",
    "build",
    "flush",
    "flush",
    "confirm",
    "seed_state",
    "clear",
    "rebuild",
    "save_cursor",
    "mark_seeded",
    "snapshot",
    "caught_up",
];

/// Users and people over one table, with posts in users; some rows are there before anything is captured.
fn world(random: &mut Random) -> World {
    let world = World::to_be_seeded(&[]);
    let shapes = [Shape::new("users").with_child("posts", "user"), Shape::new("people").over("users")];
    world.documents.with(|state| state.shapes.extend(shapes));
    world.sink.with(|state| {
        state.guarantees = Guarantees { refuses_older_versions: true, refuses_older_epochs: true };
        state.concurrency = 3;
    });
    world.source.never_end();
    for key in 0..random.below(12) {
        world.load("users", key as i64, "name=x");
    }
    world
}

fn step(random: &mut Random) -> Step {
    let key = random.below(12) as i64;
    match random.below(6) {
        0 => Step::Remove("users", key),
        1 => Step::Put("posts", key, ["user=1 n=1", "user=2 n=1", "user=3 n=2"][random.below(3) as usize]),
        2 => Step::Remove("posts", key),
        _ => Step::Put("users", key, ["name=a", "name=b", "name=c", "name=d"][random.below(4) as usize]),
    }
}

fn act(random: &mut Random) -> Act {
    let busy = Fault::transient("busy");
    match random.below(8) {
        0 => Act::Fail(busy),
        1 => Act::FailAfter(busy),
        2 => Act::Hang,
        3 if random.below(3) == 0 => Act::Fail(Fault::fatal("broken")),
        _ => Act::Late(Duration::from_millis(random.below(300))),
    }
}

fn script(world: &World, random: &mut Random) {
    let call = CALLS[random.below(CALLS.len() as u64) as usize];
    let act = match (call, act(random)) {
        ("flush", Act::Hang) => Act::Land(Duration::from_millis(random.below(5000))),
        (_, act) => act,
    };
    for script in [&world.source.script, &world.documents.script, &world.sink.script] {
        script.next(call, act.clone());
    }
}

/// The sink takes some documents worse than others, from now on.
fn refuse(world: &World, random: &mut Random) {
    let id = id(["users", "people"][random.below(2) as usize], random.below(12) as i64);
    world.sink.with(|state| match random.below(5) {
        0 => drop(state.rejects.insert(id, "no")),
        1 => drop(state.chokes_on.insert(id)),
        2 => drop(state.throttles.insert(id, 2)),
        _ => {
            state.rejects.clear();
            state.chokes_on.clear();
        }
    });
    let id = fakes::id("users", random.below(12) as i64);
    world.documents.with(|state| match random.below(6) {
        0 => drop(state.chokes_on.insert(id)),
        1 => drop(state.broken.insert(id, Fault::content("no"))),
        2 => drop(state.broken.insert(id, Fault::transient("locked"))),
        _ => {
            state.chokes_on.clear();
            state.broken.clear();
        }
    });
}

fn engine(world: &World, random: &mut Random) -> Engine<fakes::Source, fakes::Documents, fakes::Recorder> {
    let builds = 1 + random.below(3) as usize;
    let flushes = 1 + random.below(3) as usize;
    let limits = Limits {
        changes: 1 + random.below(20) as usize,
        documents: 1 + random.below(10) as usize,
        resolves: 1 + random.below(3) as usize,
        resolve_changes: 1 + random.below(4) as usize,
        builds,
        flushes,
        units: builds.max(flushes) + random.below(3) as usize,
        backfill_rows: 1 + random.below(6) as usize,
        backfill_share: 1 + random.below(4) as u32,
        adaptive: random.percent(30),
    };
    let batch = BatchPolicy {
        max_changes: 1 + random.below(5) as usize,
        max_documents: 1 + random.below(6) as usize,
        max_bytes: 1 + random.below(100) as usize,
        max_delay: Duration::from_millis(random.below(100)),
    };
    let retry = RetryPolicy {
        attempts: 6,
        delay_min: Duration::from_millis(random.below(50)),
        delay_max: Duration::from_millis(50 + random.below(500)),
        attempt_timeout: Duration::from_millis(400 + random.below(2000)),
        seed: Some(random.next()),
    };
    world
        .engine()
        .with_quarantine(world.store.clone())
        .with_failure_policies(FailurePolicy::Skip)
        .with_limits(limits)
        .with_batch(batch)
        .with_retry(retry)
        .with_alarms(Alarms::default())
        .with_cursor_interval(Duration::from_millis(10 + random.below(300)))
        .with_grace(Duration::from_millis(random.below(1000)))
}

async fn one(seed: u64) {
    let mut random = Random(seed);
    let world = world(&mut random);
    let mut streams = 0;
    for _run in 0..4 {
        let running = engine(&world, &mut random).start();
        for _step in 0..random.below(30) {
            match random.below(10) {
                0..5 => {
                    let steps: Vec<Step> = (0..=random.below(4)).map(|_| step(&mut random)).collect();
                    world.commit(steps);
                }
                5..7 => script(&world, &mut random),
                7 => refuse(&world, &mut random),
                8 if random.below(4) == 0 => {
                    streams += 1;
                    world.source.recreate(&format!("stream {streams}"));
                    world.source.break_off(Fault::transient("the slot is gone"));
                }
                8 => world.source.break_off(Fault::transient("connection lost")),
                _ => {
                    world.source.push(Vec::new());
                }
            }
            tokio::time::sleep(Duration::from_millis(random.below(150))).await;
        }
        let within = Duration::from_millis(random.below(2000));
        let outcome = match random.below(3) {
            0 if !running.is_finished() => None,
            1 => Some(running.drain(within).await),
            _ => tokio::time::timeout(within, running.outcome()).await.ok(),
        };
        // The faults may end a run, but a panic never does, nor an answer that no port gave.
        let outcome = outcome.unwrap_or_else(|| Ok(Report::default()));
        assert!(matches!(outcome, Ok(_) | Err(EngineError::Failed { .. })), "{outcome:?}");
        tokio::task::yield_now().await;
        world.assert_acknowledged_is_durable();
    }
    for script in [&world.source.script, &world.documents.script, &world.sink.script] {
        script.forget();
    }
    world.sink.with(|state| {
        state.rejects.clear();
        state.chokes_on.clear();
        state.throttles.clear();
    });
    world.documents.with(|state| {
        state.broken.clear();
        state.chokes_on.clear();
    });
    let running = engine(&world, &mut random).start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!running.is_finished(), "{:?}", running.outcome().await);
    world.assert_converged();
    assert_eq!(world.store.records(), []);
    let status = running.status();
    assert_eq!((status.captured, status.dirty, status.in_flight), (status.durable, 0, 0));
    assert!(status.indexes.iter().all(|index| index.seeded), "{status:?}");
    let mut newest: BTreeMap<_, Version> = BTreeMap::new();
    for (id, version) in world.sink.with(|state| state.applied.clone()) {
        let before = newest.insert(id.clone(), version);
        assert!(before.is_none_or(|before| before <= version), "{id} went back");
    }
}

#[tokio::test(start_paused = true)]
async fn random_worlds_converge() {
    let from = std::env::var("SOAK_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let seeds = std::env::var("SOAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    for seed in from..from + seeds {
        // A failure names the seed: SOAK_FROM=<seed> SOAK_SEEDS=1 replays it.
        let world = tokio::spawn(one(seed));
        if let Err(error) = world.await {
            panic!("seed {seed}: {error}");
        }
    }
}
