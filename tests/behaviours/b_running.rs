//! B12, B13, B14, B15 and B18: a run as its program sees it, and what it is told of bad input.

use std::time::Duration;

use syncline::config::ConfigError;
use syncline::error::Stage;
use syncline::pipeline::Phase;
use syncline::{
    Alarms, BatchPolicy, ColumnName, EngineError, FailurePolicy, Fault, IndexName, IndexScope, Key, Limits,
    Position, RetryPolicy, SeedState, SnapshotTable, StreamId, TableName,
};

use crate::fakes::{self, Act, Step, Twist, World, id, index};
use crate::{ms, seconds, units_of};

fn put_users(world: &World, users: std::ops::RangeInclusive<i64>) {
    for key in users {
        world.put("users", key, "name=x");
    }
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_works_off_what_was_captured_and_takes_nothing_more_in() {
    let world = World::new(&["users"]);
    world.source.never_end();
    put_users(&world, 1..=5);
    let batch = BatchPolicy { max_delay: Duration::from_secs(3600), ..BatchPolicy::default() };
    let running = world.engine().with_batch(batch).start();
    seconds(1).await;
    assert_eq!(world.sink.flushes(), [] as [bool; 0]);
    world.sink.script.next("flush", Act::Late(Duration::from_secs(2)));
    running.request_drain(Duration::from_secs(10));
    seconds(1).await;
    assert_eq!(running.status().phase, Phase::Draining);
    put_users(&world, 6..=7);
    let began = tokio::time::Instant::now();
    let report = running.outcome().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1), "it ends with the flush, not at its deadline");
    assert_eq!((report.captured, report.unacknowledged), (5, 0));
    assert_eq!((report.acknowledged, world.source.confirmed()), (Some(Position(5)), 5));
    world.source.end();
    world.engine().run().await.unwrap();
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_that_cannot_finish_reports_what_would_be_replayed() {
    let world = World::new(&["users"]);
    world.source.never_end();
    put_users(&world, 1..=5);
    world.sink.script.next("flush", Act::Well);
    world.sink.script.always("flush", Act::Hang);
    let running = world.engine().with_batch(units_of(2)).with_grace(Duration::from_secs(3)).start();
    seconds(1).await;
    let began = tokio::time::Instant::now();
    let report = running.drain(Duration::from_secs(5)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(8), "the deadline, and the grace for what is under way");
    assert_eq!((report.captured, report.unacknowledged), (5, 3));
    assert_eq!((report.acknowledged, world.source.confirmed()), (Some(Position(2)), 2));
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_saves_the_cursors_of_a_backfill() {
    let world = World::to_be_seeded(&["users"]);
    for key in 1..=20 {
        world.load("users", key, "name=x");
    }
    world.sink.script.always("flush", Act::Late(ms(100)));
    let limits = Limits { backfill_rows: 4, ..Limits::default() };
    let running = world.engine().with_batch(units_of(2)).with_limits(limits).start();
    tokio::time::sleep(ms(350)).await;
    let report = running.drain(Duration::from_secs(10)).await.unwrap();
    assert_eq!(report.unseeded, [index("users")]);
    let written = world.sink.contents().len();
    assert!((4..20).contains(&written), "{written} rows are written");
    let (_, state) = world.sink.seed_state_of(&index("users")).unwrap();
    assert_eq!(state, SeedState::Seeding(Some(Key::from(written as i64))));
    world.log.clear();
    world.engine().run().await.unwrap();
    assert_eq!(world.log.count(&format!("upsert users {written}")), 0);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b12_of_several_drains_the_earliest_deadline_holds() {
    let world = World::new(&["users"]);
    world.source.never_end();
    put_users(&world, 1..=1);
    world.sink.script.always("flush", Act::Hang);
    let running = world.engine().with_grace(Duration::ZERO).start();
    seconds(1).await;
    running.request_drain(Duration::from_secs(50));
    running.request_drain(Duration::from_secs(5));
    // Whether or not the run has seen the first ones.
    running.request_drain(Duration::from_secs(500));
    tokio::task::yield_now().await;
    running.request_drain(Duration::from_secs(500));
    let began = tokio::time::Instant::now();
    assert_eq!(running.outcome().await.unwrap().unacknowledged, 1);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_before_the_source_was_opened_says_so() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=x");
    let report = world.engine().start().drain(Duration::from_secs(5)).await.unwrap();
    assert!(!report.started, "{report:?}");
    let running = world.engine().start();
    assert!(running.caught_up().await);
    let report = running.drain(Duration::from_secs(5)).await.unwrap();
    assert!(report.started && report.unseeded.is_empty(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn b14_a_program_can_wait_until_a_run_has_caught_up() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=x");
    world.source.never_end();
    put_users(&world, 2..=3);
    world.sink.script.next("flush", Act::Late(Duration::from_secs(2)));
    world.sink.script.next("mark_seeded", Act::Late(Duration::from_secs(3)));
    let running = world.engine().start();
    assert!(!running.status().caught_up);
    assert!(running.caught_up().await);
    world.assert_converged();
    assert_eq!(world.log.count("seeded users"), 1);

    // A future that is dropped leaves the run as it is.
    assert!(tokio::time::timeout(ms(10), running.outcome()).await.is_err());
    put_users(&world, 4..=4);
    assert_eq!(running.until(|status| status.captured == 3).await.captured, 3);
    assert!(running.caught_up().await);
    world.assert_converged();

    world.sink.script.always("flush", Act::Fail(Fault::fatal("no such index")));
    put_users(&world, 5..=5);
    assert_eq!(running.until(|status| status.captured == 99).await.phase, Phase::Ended);
    assert!(!running.caught_up().await, "it is over, and has not");
    let outcome = running.outcome().await;
    assert!(matches!(outcome, Err(EngineError::Failed { stage: Stage::Flush, .. })), "{outcome:?}");
    assert_eq!(running.outcome().await, outcome, "it can be asked for again");
    assert!(running.is_finished());
}

/// A source that is still reading is pending, and has not been caught up with.
#[tokio::test(start_paused = true)]
async fn b14_a_run_has_not_caught_up_with_a_source_that_says_more() {
    let world = World::to_be_seeded(&["users"]);
    world.source.never_end();
    world.source.say_more();
    let running = world.engine().start();
    let waited = tokio::time::timeout(Duration::from_secs(5), running.caught_up()).await;
    assert!(waited.is_err(), "{:?}", running.status());
    put_users(&world, 1..=2);
    world.source.say_more();
    let durable = running.until(|status| status.durable == 2).await;
    assert_eq!(durable.acknowledged.map(|position| position.0), Some(world.source.newest()));
    assert!(!running.status().caught_up);
    assert_eq!((world.log.count("flush true"), world.log.count("caught_up")), (0, 0));
    put_users(&world, 3..=3);
    assert!(running.caught_up().await);
    assert_eq!(world.log.count("flush true"), 1);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b14_the_status_follows_a_run() {
    let world = World::to_be_seeded(&["users", "books"]);
    world.sink.set_seeded(&index("books"), "stream");
    for key in 1..=4 {
        world.load("users", key, "name=x");
    }
    world.source.never_end();
    world.source.script.next("open", Act::Late(Duration::from_secs(1)));
    world.sink.script.times(4, "flush", Act::Late(Duration::from_secs(1)));
    let engine = world.engine().with_batch(units_of(1)).with_failure_policies(FailurePolicy::Skip);
    let running = engine.start();
    tokio::time::sleep(ms(500)).await;
    assert_eq!((running.status().phase, running.status().acknowledged), (Phase::Starting, None));
    seconds(3).await;
    let status = running.status();
    assert_eq!((status.phase, status.captured), (Phase::Running, 0));
    let rows: Vec<_> = status
        .indexes
        .iter()
        .map(|of| (of.index.as_str(), of.seeded, of.rows_read, of.rows_durable))
        .collect();
    assert_eq!(rows, [("users", false, 4, 2), ("books", true, 0, 0)]);
    seconds(10).await;
    assert!(running.status().indexes.iter().all(|of| of.seeded));

    world.sink.script.next("flush", Act::Fail(Fault::transient("busy")));
    world.sink.script.next("flush", Act::Late(Duration::from_secs(5)));
    world.sink.reject(id("users", 10), "no");
    put_users(&world, 10..=13);
    seconds(3).await;
    let status = running.status();
    assert_eq!((status.captured, status.durable, status.retries), (4, 0, 1));
    assert_eq!((status.dirty + status.in_flight, status.acknowledged), (4, None));
    let age = status.oldest_unacknowledged.unwrap();
    assert_eq!(age, Duration::from_secs(3), "also while nothing happens");
    seconds(10).await;
    let status = running.status();
    assert_eq!((status.captured, status.durable, status.quarantined), (4, 4, 1));
    assert_eq!((status.dirty, status.in_flight, status.oldest_unacknowledged), (0, 0, None));
    assert_eq!(status.acknowledged, Some(Position(world.source.newest())));
    running.request_drain(Duration::ZERO);
    seconds(1).await;
    assert_eq!(running.status().phase, Phase::Ended);
    assert!(running.is_finished());
}

#[test]
fn b15_names_that_are_empty_or_too_long() {
    let long = "x".repeat(256);
    assert_eq!(IndexName::new("").unwrap_err().to_string(), "the index name is empty");
    assert_eq!(TableName::new("").unwrap_err().to_string(), "the table name is empty");
    assert_eq!(TableName::in_schema("", "t").unwrap_err().to_string(), "the schema name is empty");
    assert_eq!(ColumnName::new("").unwrap_err().to_string(), "the column name is empty");
    assert_eq!(StreamId::new("").unwrap_err().to_string(), "the stream name is empty");
    let message = IndexName::new(&long).unwrap_err().to_string();
    assert_eq!(message, "the index name `xxxxxxxxxxxxxxxx…` is 256 bytes long; at most 255 are allowed");
    assert!(
        ColumnName::new(&long).is_err() && StreamId::new(&long).is_err() && TableName::new(&long).is_err()
    );
    assert!(TableName::in_schema(&long, "t").is_err() && TableName::in_schema("s", &long).is_err());
    assert!(IndexName::new("é".repeat(128)).is_err(), "the length is counted in bytes");
}

#[test]
fn b15_a_key_with_no_columns() {
    assert_eq!(Key::new([]).unwrap_err().to_string(), "a key needs at least one column");
    assert_eq!(fakes::row(1, "name=x").key(&[]), None);
}

#[tokio::test(start_paused = true)]
async fn b15_a_builder_that_answers_wrongly() {
    for (twist, what) in [
        (Twist::Foreign(id("users", 9)), "document users/9 was answered, but not asked for"),
        (Twist::Silent(id("users", 2)), "1 of 3 documents were not answered, among them users/2"),
        (Twist::Twice(id("users", 1)), "document users/1 was answered twice"),
    ] {
        let world = World::new(&["users"]);
        put_users(&world, 1..=3);
        world.documents.with(|state| state.twist = Some(twist));
        // No policy passes over it: it is the builder that is wrong, not a document.
        let error = world.engine().with_failure_policies(FailurePolicy::Skip).run().await.unwrap_err();
        assert_eq!(error, EngineError::Contract { stage: Stage::Build, what: what.to_owned() });
        assert_eq!(error.to_string(), format!("build broke its contract: {what}"));
        assert_eq!(world.source.confirms(), []);
        assert_eq!(world.sink.writes(), [] as [&str; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn b15_a_builder_that_describes_an_index_twice() {
    let world = World::to_be_seeded(&["users", "users"]);
    let error = world.engine().run().await.unwrap_err();
    assert_eq!(error.to_string(), "describe broke its contract: index users has two mappings");
    // The fingerprint is free to hold anything, also what no name may.
    let scope = IndexScope::new(index("users"), SnapshotTable::new(fakes::table("users")));
    assert_eq!(scope.with_definition("a\nb").definition, "a\nb");
}

#[tokio::test(start_paused = true)]
async fn b15_a_sink_that_reports_what_it_was_not_given() {
    use syncline::{FlushReport, RejectedDocument, Sink, Writes};
    struct Confused;
    impl Sink for Confused {
        type Body = String;
        async fn flush(&self, _writes: &Writes<String>, _caught_up: bool) -> Result<FlushReport, Fault> {
            Ok(FlushReport::rejected([RejectedDocument::new(&id("users", 9), "no")]))
        }
    }
    let world = World::new(&["users"]);
    put_users(&world, 1..=1);
    let engine = syncline::Engine::new(world.source.clone(), world.documents.clone(), Confused);
    let error = engine.with_failure_policies(FailurePolicy::Skip).run().await.unwrap_err();
    assert_eq!(error.to_string(), "flush broke its contract: document users/9 was reported, but not written");
    assert_eq!(world.source.confirms(), []);
}

#[tokio::test(start_paused = true)]
async fn b15_a_capture_whose_positions_go_back() {
    use syncline::{Captured, Change, ChangeCapture, Opened};
    struct Backwards;
    impl ChangeCapture for Backwards {
        async fn open(&self) -> Result<Opened, Fault> {
            let items = [
                Captured::from(Change::upsert(fakes::table("users"), 1)),
                Position(5).into(),
                Change::upsert(fakes::table("users"), 2).into(),
                Position(4).into(),
            ];
            let changes = Box::pin(futures::stream::iter(items.map(Ok)));
            Ok(Opened { stream: StreamId::new("stream")?, changes })
        }
    }
    let world = World::new(&["users"]);
    let engine = syncline::Engine::new(Backwards, world.documents.clone(), world.sink.clone());
    let error = engine.run().await.unwrap_err();
    assert_eq!(error.to_string(), "capture broke its contract: checkpoint @4 came after @5");
}

#[tokio::test(start_paused = true)]
async fn b15_a_configuration_that_contradicts_itself() {
    let run = |change: fn(&mut (BatchPolicy, Limits, RetryPolicy, Alarms))| async move {
        let world = World::new(&["users"]);
        put_users(&world, 1..=1);
        let mut settings = <(BatchPolicy, Limits, RetryPolicy, Alarms)>::default();
        change(&mut settings);
        let (batch, limits, retry, alarms) = settings;
        let engine =
            world.engine().with_batch(batch).with_limits(limits).with_retry(retry).with_alarms(alarms);
        let error = engine.run().await.unwrap_err();
        assert!(matches!(error, EngineError::Config(_)), "{error:?}");
        let heard = [format!("error: {error}")];
        assert_eq!(world.log.all(), heard, "nothing is started, and the observer hears why");
        error.to_string()
    };
    let zero = |field: &str| format!("`{field}` is 0; it must be greater");
    assert_eq!(run(|(batch, ..)| batch.max_changes = 0).await, zero("batch.max_changes"));
    assert_eq!(run(|(batch, ..)| batch.max_documents = 0).await, zero("batch.max_documents"));
    assert_eq!(run(|(batch, ..)| batch.max_bytes = 0).await, zero("batch.max_bytes"));
    assert_eq!(run(|(_, limits, ..)| limits.changes = 0).await, zero("limits.changes"));
    assert_eq!(run(|(_, limits, ..)| limits.backfill_share = 0).await, zero("limits.backfill_share"));
    assert_eq!(run(|(_, _, retry, _)| retry.attempts = 0).await, zero("retry.attempts"));
    let message = run(|(_, limits, ..)| limits.units = 1).await;
    assert_eq!(message, "`limits.builds` (4) is greater than `limits.units` (1)");
    let message = run(|(_, _, retry, _)| retry.delay_max = ms(1)).await;
    assert_eq!(message, "`retry.delay_min` (100ms) is greater than `retry.delay_max` (1ms)");
    let message = run(|(.., alarms)| alarms.lag_interval = Duration::ZERO).await;
    assert!(message.contains("`alarms.lag_interval` is 0"), "{message}");
    let message = run(|(_, limits, ..)| limits.changes = usize::MAX).await;
    assert!(message.contains("`limits.changes` is 18446744073709551615; at most"), "{message}");
    let error = ConfigError::Zero { field: "limits.changes" };
    assert_eq!(World::new(&[]).engine().with_queue_capacity(0).run().await.unwrap_err(), error.into());
}

#[tokio::test(start_paused = true)]
async fn b15_durations_without_end_are_taken() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.source.with(|state| state.lag = Some(1));
    let retry =
        RetryPolicy { delay_max: Duration::MAX, attempt_timeout: Duration::MAX, ..RetryPolicy::default() };
    let alarms = Alarms { unacknowledged_age: Duration::MAX, lag_bytes: None, lag_interval: Duration::MAX };
    let batch = BatchPolicy { max_delay: Duration::MAX, ..BatchPolicy::default() };
    let engine = world.engine().with_retry(retry).with_alarms(alarms).with_batch(batch);
    engine.with_grace(Duration::MAX).with_cursor_interval(Duration::MAX).run().await.unwrap();
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b18_the_observer_hears_when_the_oldest_change_passes_an_age() {
    let world = World::new(&["users"]);
    world.source.never_end();
    let alarms = Alarms { unacknowledged_age: Duration::from_secs(20), ..Alarms::default() };
    let _running = world.engine().with_alarms(alarms).start();
    seconds(5).await;
    for _time in 0..2 {
        world.log.clear();
        world.sink.script.next("flush", Act::Late(Duration::from_secs(40)));
        world.put("users", 1, "name=x");
        seconds(19).await;
        put_users(&world, 2..=3);
        assert_eq!(world.log.count("stalled: 20s"), 0);
        seconds(2).await;
        assert_eq!(world.log.count("stalled: 20s"), 1);
        seconds(30).await;
        let stalled = world.watcher.heard().iter().filter(|line| line.starts_with("stalled")).count();
        assert_eq!(stalled, 1, "told once until it is young again");
        world.assert_converged();
    }
}

#[tokio::test(start_paused = true)]
async fn b18_a_source_that_cannot_be_acknowledged_is_seen_too() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world.source.script.next("confirm", Act::Hang);
    let alarms = Alarms { unacknowledged_age: Duration::from_secs(20), ..Alarms::default() };
    let _running = world.engine().with_alarms(alarms).start();
    world.put("users", 1, "name=x");
    seconds(30).await;
    assert_eq!((world.log.flushes_done(), world.log.count("stalled: 20s")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn b18_the_observer_hears_when_the_lag_passes_a_size() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world.source.with(|state| state.lag = Some(10));
    let alarms = Alarms { lag_bytes: Some(100), lag_interval: Duration::from_secs(10), ..Alarms::default() };
    let _running = world.engine().with_alarms(alarms).start();
    seconds(5).await;
    for _time in 0..2 {
        world.log.clear();
        world.source.with(|state| state.lag = Some(500));
        seconds(30).await;
        assert_eq!((world.log.count("lag: 500"), world.log.count("lag exceeded: 500")), (3, 1));
        world.source.with(|state| state.lag = Some(100));
        seconds(10).await;
        assert_eq!((world.log.count("lag: 100"), world.log.count("lag exceeded: 100")), (1, 0));
    }
    world.source.script.next("lag", Act::Fail(Fault::fatal("no permission")));
    seconds(20).await;
    assert!(world.watcher.heard().iter().any(|line| line.starts_with("retry: lag")), "no reason to stop");
}

#[tokio::test(start_paused = true)]
async fn b14_a_program_can_ask_for_the_status_of_a_run_that_failed() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world.commit([Step::Put("users", 1, "name=x")]);
    world.sink.script.next("flush", Act::Fail(Fault::fatal("gone")));
    let running = world.engine().start();
    seconds(1).await;
    assert!(running.is_finished());
    assert_eq!((running.status().phase, running.status().captured), (Phase::Ended, 1));
    assert_eq!(running.outcome().await.unwrap_err().fault(), Some(&Fault::fatal("gone")));
}

#[tokio::test(start_paused = true)]
async fn b13_an_index_is_rebuilt_beside_live_traffic() {
    let world = World::to_be_seeded(&["users", "books"]);
    for key in 1..=20 {
        world.load("users", key, "name=x");
    }
    world.source.never_end();
    let running = world.engine().start();
    assert!(running.caught_up().await);
    // Something that no change tells of: the index is out of step until it is rebuilt.
    world.load("users", 5, "name=unseen");
    world.put("users", 21, "name=y");
    running.reindex(&index("users")).await.unwrap();
    world.put("books", 1, "title=z");
    world.remove("users", 3);
    assert!(running.caught_up().await);
    running.until(|status| status.caught_up && status.indexes.iter().all(|index| index.seeded)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.assert_converged();
    assert_eq!(world.sink.contents()["users 5"], "name=unseen");
    assert_eq!((world.log.count("rebuild users"), world.log.count("rebuild books")), (2, 1));
    assert_eq!(world.log.count("clear users"), 0);
}

/// Wherever it dies, the next run ends with what the tables say, and once the rebuild was durable it goes on with that.
#[tokio::test(start_paused = true)]
async fn b13_a_rebuild_survives_a_crash_at_every_step() {
    for polls in 1..60 {
        let world = World::to_be_seeded(&["users"]);
        for key in 1..=4 {
            world.load("users", key, "name=x");
        }
        world.engine().run().await.unwrap();
        world.source.never_end();
        let running = world.engine().start();
        assert!(running.caught_up().await);
        world.put("users", 9, "name=y");
        running.reindex(&index("users")).await.unwrap();
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        drop(running);
        world.source.end();
        world.engine().run().await.unwrap();
        world.assert_converged();
    }
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_without_a_deadline_works_everything_off() {
    let world = World::new(&["users"]);
    world.source.never_end();
    put_users(&world, 1..=5);
    world.sink.script.always("flush", Act::Late(Duration::from_secs(50)));
    let running = world.engine().with_batch(units_of(1)).start();
    seconds(1).await;
    assert!(!running.is_finished());
    let report = running.drain(Duration::MAX).await.unwrap();
    assert_eq!((report.captured, report.unacknowledged), (5, 0));
    world.assert_converged();
}
