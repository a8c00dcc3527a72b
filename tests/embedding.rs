//! How a program embeds the engine: its handle, ports behind pointers, several sinks as one, and ports that misbehave.

mod fakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fakes::{Act, Log, Recorder, World, id, index};
use futures::{StreamExt, stream};
use syncline::ports::{BoxQuarantine, Guarantees, Opened, Seed};
use syncline::{
    BoxSink, Change, ChangeCapture, Document, DocumentBuilder, DocumentId, Engine, EngineError, Epoch,
    FailurePolicy, FanOut, Fault, FaultKind, FlushReport, IndexMapping, Key, Position, SeedState, Sink,
    StreamId, Version, Write, Writes,
};

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn seed() -> Seed {
    Seed { stream: StreamId::new("stream").expect("it has a name"), definition: "".into() }
}

fn writes(keys: impl IntoIterator<Item = i64>) -> Writes<String> {
    let write = |key| Write {
        document: Document::upsert(id("users", key), "name=x".to_owned()),
        version: Version { epoch: Epoch(1), build: 1 },
    };
    keys.into_iter().map(write).collect()
}

/// Two sinks, and both as one.
fn two() -> (Recorder, Recorder, FanOut<String>) {
    let (a, b) = (Recorder::new(&Log::default()), Recorder::new(&Log::default()));
    let both = FanOut::new([BoxSink::new(a.clone()), BoxSink::new(b.clone())]);
    (a, b, both)
}

#[tokio::test(start_paused = true)]
async fn a_sink_may_be_chosen_at_run_time() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    let sink: BoxSink<String> = BoxSink::new(world.sink.clone());
    Engine::new(world.source.clone(), world.documents.clone(), sink.clone()).run().await.unwrap();
    world.assert_converged();
    assert_eq!(sink.seed_state(&index("users"), &seed()).await.unwrap(), SeedState::Seeded);
    assert_eq!((sink.concurrency(), sink.guarantees()), (1, Guarantees::default()));
}

#[tokio::test(start_paused = true)]
async fn ports_behind_pointers_are_ports() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.put("users", 3, "name=eve");
    world.sink.reject(id("users", 3), "no");
    world.source.with(|state| state.lag = Some(7));
    let (source, documents) = (Arc::new(world.source.clone()), Arc::new(world.documents.clone()));
    let (sink, store) = (Arc::new(world.sink.clone()), Arc::new(world.store.clone()));
    Engine::new(source, documents, sink.clone())
        .with_observer(Arc::new(world.watcher.clone()))
        .with_quarantine(BoxQuarantine::new(store))
        .with_failure_policies(FailurePolicy::Skip)
        .run()
        .await
        .unwrap();
    world.assert_acknowledged_is_durable();
    assert_eq!(world.source.confirmed(), 2);
    assert_eq!(world.store.records().len(), 1);
    for line in
        ["ensure users", "rebuild users", "seeded users", "lag: 7", "live started", "backfill completed"]
    {
        assert_eq!(world.log.count(line), 1, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_writes_every_document_to_every_sink() {
    let (a, b, both) = two();
    let world = World::to_be_seeded(&["users"]);
    (1..=3).for_each(|key| world.load("users", key, "name=x"));
    world.put("users", 4, "name=y");
    Engine::new(world.source.clone(), world.documents.clone(), both).run().await.unwrap();
    for sink in [&a, &b] {
        assert_eq!(sink.contents(), world.truth());
        assert_eq!(sink.seed_state_of(&index("users")), Some((seed(), SeedState::Seeded)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_joins_a_fan_out_later_is_seeded_with_all() {
    let (a, b, both) = two();
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=x");
    Engine::new(world.source.clone(), world.documents.clone(), a.clone()).run().await.unwrap();
    Engine::new(world.source.clone(), world.documents.clone(), both).run().await.unwrap();
    assert_eq!((a.contents(), b.contents()), (world.truth(), world.truth()));
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_is_as_far_as_the_sink_that_is_least_far() {
    let (a, b, both) = two();
    let (users, seed) = (index("users"), seed());
    let state = || async { both.seed_state(&users, &seed).await.unwrap() };
    assert_eq!(state().await, SeedState::Unseeded);
    a.mark_seeded(&users, &seed).await.unwrap();
    assert_eq!(state().await, SeedState::Unseeded);
    b.save_cursor(&users, &seed, Some(&Key::from(5))).await.unwrap();
    assert_eq!(state().await, SeedState::Seeding(Some(Key::from(5))));
    a.save_cursor(&users, &seed, Some(&Key::from(3))).await.unwrap();
    assert_eq!(state().await, SeedState::Seeding(Some(Key::from(3))));
    a.save_cursor(&users, &seed, None).await.unwrap();
    assert_eq!(state().await, SeedState::Seeding(None));
    both.mark_seeded(&users, &seed).await.unwrap();
    assert_eq!(state().await, SeedState::Seeded);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_rejects_what_one_rejects_and_throttles_what_one_throttles() {
    let (a, b, both) = two();
    a.reject(id("users", 1), "not here");
    b.with(|state| state.throttles.extend([(id("users", 1), 1), (id("users", 2), 1)]));
    let report = both.flush(&writes(1..=3), true).await.unwrap();
    let rejected: Vec<String> = report.rejected.iter().map(ToString::to_string).collect();
    assert_eq!(rejected, ["users/1: not here"]);
    assert_eq!(report.throttled, [id("users", 2)], "what is rejected is not throttled too");
    let engine_of = |policy| {
        let world = World::new(&["users"]);
        (1..=3).for_each(|key| {
            world.put("users", key, "name=x");
        });
        let engine = Engine::new(world.source.clone(), world.documents.clone(), both.clone());
        (world, engine.with_failure_policies(policy))
    };
    let (world, engine) = engine_of(FailurePolicy::Stop);
    let error = engine.run().await.unwrap_err();
    assert_eq!(error, EngineError::DocumentsRejected(1, "users/1: not here".to_owned()));
    assert_eq!(world.source.confirms(), []);
    let (world, engine) = engine_of(FailurePolicy::Skip);
    assert_eq!(engine.run().await.unwrap().quarantined, 1);
    assert_eq!(world.source.confirmed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_waits_for_all_also_where_one_fails() {
    let (a, b, both) = two();
    a.script.next("flush", Act::Fail(Fault::transient("busy")));
    b.script.next("flush", Act::Late(Duration::from_secs(5)));
    let began = tokio::time::Instant::now();
    assert_eq!(both.flush(&writes([1]), true).await.unwrap_err(), Fault::transient("busy"));
    assert_eq!(began.elapsed(), Duration::from_secs(5), "a dropped call might still write, after its retry");
    assert_eq!(b.contents().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_raises_every_sink_to_the_greatest_epoch() {
    let (a, b, both) = two();
    for _run in 0..4 {
        a.begin(Epoch(0)).await.unwrap();
    }
    assert_eq!(both.begin(Epoch(0)).await.unwrap(), Epoch(5));
    assert_eq!((a.with(|state| state.epoch), b.with(|state| state.epoch)), (5, 5));
    assert_eq!(both.begin(Epoch(0)).await.unwrap(), Epoch(6));
    assert_eq!(both.begin(Epoch(9)).await.unwrap(), Epoch(9));
    let all = Guarantees { refuses_older_versions: true, refuses_older_epochs: true };
    a.with(|state| (state.guarantees, state.concurrency) = (all, 4));
    b.with(|state| state.guarantees.refuses_older_versions = true);
    let expected = Guarantees { refuses_older_versions: true, refuses_older_epochs: false };
    assert_eq!((both.guarantees(), both.concurrency()), (expected, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_started_is_seen_drained_and_awaited() {
    let world = World::new(&["users"]);
    world.source.never_end();
    let running = world.engine().start();
    world.put("users", 1, "name=ada");
    seconds(1).await;
    assert_eq!((running.status().captured, running.status().durable), (1, 1));
    assert!(!running.is_finished());
    running.request_drain(Duration::from_secs(1));
    let report = running.outcome().await.unwrap();
    assert_eq!((report.captured, report.unacknowledged), (1, 0));
    world.assert_converged();
    world.assert_let_go();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_aborts_the_run() {
    let world = World::new(&["users"]);
    world.source.never_end();
    let running = world.engine().start();
    seconds(1).await;
    drop(running);
    world.put("users", 1, "name=ada");
    seconds(10).await;
    world.assert_let_go();
    assert_eq!(world.sink.writes(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_panics_stops_its_run_alone() {
    for call in ["open", "resolve", "build", "flush", "confirm"] {
        let world = World::new(&["users"]);
        world.put("users", 1, "name=ada");
        for script in [&world.source.script, &world.documents.script, &world.sink.script] {
            script.next(call, Act::Panic);
        }
        let error = world.engine().start().outcome().await.unwrap_err();
        assert!(matches!(error, EngineError::Stopped(_)), "{call}: {error:?}");
        assert!(error.to_string().contains("a port panicked"), "{call}: {error}");
        assert_eq!(world.source.confirmed(), 0);
        world.assert_let_go();
        world.engine().run().await.unwrap();
        world.assert_converged();
    }
}

/// A builder and a sink that know nothing of faults, as a first embedding is written.
struct Plain;

impl DocumentBuilder for Plain {
    type Body = u32;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        Ok(vec![DocumentId::new(index(change.table.table()), change.key.clone())])
    }

    async fn build(&self, id: &DocumentId) -> Result<Document<u32>, Fault> {
        Ok(Document::upsert(id.clone(), "not a number".parse()?))
    }
}

struct PlainSink;

impl Sink for PlainSink {
    type Body = u32;

    async fn flush(&self, _writes: &Writes<u32>, _caught_up: bool) -> Result<FlushReport, Fault> {
        Ok(FlushReport::clean())
    }
}

#[tokio::test(start_paused = true)]
async fn plain_conversions_are_fatal() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=ada");
    let engine = Engine::new(world.source.clone(), Plain, PlainSink);
    let error = engine.with_failure_policies(FailurePolicy::Skip).run().await.unwrap_err();
    assert_eq!(error.fault().map(Fault::kind), Some(FaultKind::Fatal));
    assert_eq!(error.to_string(), "build failed: invalid digit found in string");
    assert_eq!(world.source.confirms(), []);
    let well_known = Fault::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    assert_eq!(well_known.kind(), FaultKind::Transient);
}

#[tokio::test(start_paused = true)]
async fn of_a_fan_out_no_call_is_dropped_because_another_failed() {
    let (a, b, both) = two();
    for call in ["begin", "ensure", "flush", "caught_up", "clear", "rebuild", "save_cursor", "mark_seeded"] {
        a.script.next(call, Act::Fail(Fault::transient("busy")));
        b.script.next(call, Act::Late(Duration::from_secs(10)));
        let began = tokio::time::Instant::now();
        let users = index("users");
        let failed = match call {
            "begin" => both.begin(Epoch(1)).await.map(drop),
            "ensure" => both.ensure_index(&IndexMapping::new(users, [])).await,
            "flush" => both.flush(&writes([1]), false).await.map(drop),
            "caught_up" => both.caught_up().await,
            "clear" => both.clear(&users).await,
            "rebuild" => both.rebuild(&users).await,
            "save_cursor" => both.save_cursor(&users, &seed(), None).await,
            _ => both.mark_seeded(&users, &seed()).await,
        };
        assert_eq!(failed.unwrap_err().message(), "busy", "{call}");
        assert_eq!(began.elapsed(), Duration::from_secs(10), "{call}: the other one was waited for");
    }
}

/// A source that has a checkpoint ready whenever it is asked.
struct Ticking {
    asked: Arc<AtomicU64>,
    asked_before_confirm: Arc<AtomicU64>,
}

impl ChangeCapture for Ticking {
    async fn open(&self) -> Result<Opened, Fault> {
        let asked = self.asked.clone();
        let ticks = stream::repeat_with(move || Ok(Position(asked.fetch_add(1, Ordering::Relaxed)).into()));
        Ok(Opened { stream: StreamId::new("ticks")?, changes: Box::pin(ticks.take(1_000_000)) })
    }

    async fn confirm(&self, _stream: &StreamId, _position: Position) -> Result<(), Fault> {
        self.asked_before_confirm.fetch_min(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_pauses_is_taken_in_bursts() {
    let (asked, before) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let world = World::new(&["users"]);
    let source = Ticking { asked: asked.clone(), asked_before_confirm: before.clone() };
    let report = Engine::new(source, world.documents.clone(), world.sink.clone()).run().await.unwrap();
    assert_eq!(report.acknowledged, Some(Position(999_999)));
    let before = before.load(Ordering::Relaxed);
    assert!(before < 10_000, "the first position was confirmed after {before} were taken");
}
