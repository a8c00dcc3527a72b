//! B8, B9, B10 and B16: what is retried, what is halved, what is quarantined, and what stops alone.

use std::time::Duration;

use syncline::error::Stage;
use syncline::{EngineError, FailurePolicies, FailurePolicy, Fault, Limits, Operation, Refusal, RetryPolicy};

use crate::fakes::{Act, World, id, index};
use crate::{seconds, units_of};

/// So many users, each in a transaction of its own.
fn put_users(world: &World, users: i64) {
    for key in 1..=users {
        world.put("users", key, "name=x");
    }
}

/// The calls that are retried, by the names of the scripts.
const CALLS: [(&str, Stage); 15] = [
    ("begin", Stage::Begin),
    ("mappings", Stage::Describe),
    ("ensure", Stage::Ensure),
    ("load", Stage::Quarantine),
    ("prepare", Stage::Describe),
    ("open", Stage::Capture),
    ("resolve", Stage::Resolve),
    ("build", Stage::Build),
    ("flush", Stage::Flush),
    ("confirm", Stage::Ack),
    ("seed_state", Stage::Seed),
    ("rebuild", Stage::Seed),
    ("save_cursor", Stage::Seed),
    ("mark_seeded", Stage::Seed),
    ("snapshot", Stage::Scan),
];

/// A row to scan and a change, with this act for the next so many calls of a name, whichever port has it.
fn world_where(call: &'static str, times: usize, act: &Act) -> World {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    for script in [&world.source.script, &world.documents.script, &world.sink.script, &world.store.script] {
        script.times(times, call, act.clone());
    }
    world
}

#[tokio::test(start_paused = true)]
async fn b8_transient_failures_of_every_call_are_retried() {
    for (call, stage) in CALLS {
        for act in [Act::Fail(Fault::transient("busy")), Act::FailAfter(Fault::transient("busy")), Act::Hang]
        {
            let world = world_where(call, 2, &act);
            world.engine().with_quarantine(world.store.clone()).run().await.unwrap();
            world.assert_converged();
            let retries = world.watcher.retries();
            assert!(retries.len() >= 2, "{call}: {retries:?}");
            assert!(retries.iter().all(|retry| retry.0 == stage), "{call}: {retries:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b8_at_the_limit_the_run_halts_whatever_the_policy() {
    for (call, stage) in CALLS {
        let world = world_where(call, 100, &Act::Fail(Fault::transient("down")));
        let retry = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let engine = world.engine().with_quarantine(world.store.clone()).with_retry(retry);
        let error = engine.with_failure_policies(FailurePolicy::Skip).run().await.unwrap_err();
        let expected = EngineError::Failed { stage, attempts: 3, fault: Fault::transient("down") };
        assert_eq!(error, expected, "{call}");
        assert!(!world.watcher.heard().iter().any(|line| line.starts_with("quarantined")));
        world.assert_acknowledged_is_durable();
    }
}

#[tokio::test(start_paused = true)]
async fn b8_delays_grow_exponentially_with_jitter() {
    let world = world_where("flush", 6, &Act::Fail(Fault::transient("busy")));
    let retry = RetryPolicy {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(1),
        ..RetryPolicy::default()
    };
    world.engine().skip_backfill(true).with_retry(retry).run().await.unwrap();
    let delays: Vec<Duration> = world.watcher.retries().into_iter().map(|(_, _, delay)| delay).collect();
    assert_eq!(delays.len(), 6);
    for (delay, whole) in delays.iter().zip([100, 200, 400, 800, 1000, 1000].map(Duration::from_millis)) {
        assert!(*delay >= whole / 2 && *delay <= whole, "{delay:?} of {whole:?}");
    }
    let other = world_where("flush", 6, &Act::Fail(Fault::transient("busy")));
    other
        .engine()
        .skip_backfill(true)
        .with_retry(RetryPolicy { seed: Some(1), ..retry })
        .run()
        .await
        .unwrap();
    assert_ne!(other.watcher.retries(), world.watcher.retries(), "another seed draws other delays");
}

#[tokio::test(start_paused = true)]
async fn b8_a_delay_that_the_other_side_asks_for_is_kept() {
    let fault = Fault::transient("too many requests").with_retry_after(Duration::from_secs(120));
    let world = world_where("flush", 1, &Act::Fail(fault));
    let began = tokio::time::Instant::now();
    world.engine().skip_backfill(true).run().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn b8_throttled_documents_are_retried_alone() {
    let world = World::new(&["users"]);
    put_users(&world, 4);
    world.sink.with(|state| state.throttles.insert(id("users", 3), 2));
    world.engine().run().await.unwrap();
    let all = ["upsert users 1", "upsert users 2", "upsert users 3", "upsert users 4", "flush true"];
    let alone = ["upsert users 3", "flush true"];
    assert_eq!(world.sink.writes(), [&all[..], &alone, &alone].concat());
    world.assert_converged();
    assert!(world.source.confirms().iter().all(|confirm| confirm.position == 2 || confirm.flushes_done == 3));
}

#[tokio::test(start_paused = true)]
async fn b8_a_document_that_is_throttled_for_good_halts_the_run() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=x");
    world.sink.with(|state| state.throttles.insert(id("users", 1), 100));
    let retry = RetryPolicy { attempts: 4, ..RetryPolicy::default() };
    let engine = world.engine().with_retry(retry).with_failure_policies(FailurePolicy::Skip);
    let error = engine.run().await.unwrap_err();
    assert!(matches!(error, EngineError::Failed { stage: Stage::Flush, attempts: 4, .. }), "{error}");
    assert_eq!(world.source.confirms(), []);
}

#[tokio::test(start_paused = true)]
async fn b8_deleting_what_is_not_there_is_success() {
    let world = World::new(&["users"]);
    world.remove("users", 1);
    world.engine().run().await.unwrap();
    assert_eq!(world.sink.writes(), ["delete users 1", "flush true"]);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b8_each_attempt_has_a_time_limit() {
    let world = world_where("flush", 1, &Act::Hang);
    let retry = RetryPolicy {
        attempt_timeout: Duration::from_secs(7),
        delay_min: Duration::ZERO,
        delay_max: Duration::ZERO,
        ..RetryPolicy::default()
    };
    let began = tokio::time::Instant::now();
    world.engine().skip_backfill(true).with_retry(retry).run().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    world.log.place("retry: flush after attempt 1: no answer within 7s");
}

#[tokio::test(start_paused = true)]
async fn b8_a_stream_that_breaks_off_is_opened_again_and_nothing_is_lost() {
    let world = World::new(&["users"]);
    put_users(&world, 6);
    for item in [0, 3, 8] {
        world.source.with(|state| state.faults.insert(item, Fault::transient("connection lost")));
    }
    world.engine().with_batch(units_of(2)).run().await.unwrap();
    assert_eq!(world.log.count("open"), 4);
    world.assert_converged();
    let sent: Vec<u64> = world.source.confirms().iter().map(|confirm| confirm.position).collect();
    assert!(sent.is_sorted(), "what is acknowledged never goes back: {sent:?}");
}

#[tokio::test(start_paused = true)]
async fn b8_a_unit_that_waits_for_a_retry_holds_up_no_other() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world
        .sink
        .script
        .next("flush", Act::Fail(Fault::transient("busy").with_retry_after(Duration::from_secs(30))));
    let _running = world.engine().with_batch(units_of(1)).start();
    put_users(&world, 3);
    seconds(5).await;
    assert_eq!(world.sink.contents().into_keys().collect::<Vec<_>>(), ["users 2", "users 3"]);
    assert_eq!(world.source.confirms(), [], "the first is owed");
    seconds(30).await;
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b8_when_every_place_waits_for_a_retry_that_is_back_pressure() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world
        .sink
        .script
        .always("flush", Act::Fail(Fault::transient("busy").with_retry_after(Duration::from_secs(30))));
    let limits = Limits { builds: 2, units: 2, changes: 4, ..Limits::default() };
    let _running = world.engine().with_batch(units_of(1)).with_limits(limits).start();
    put_users(&world, 100);
    seconds(5).await;
    assert_eq!(world.sink.flushes().len(), 2);
    assert!(world.source.polls() <= 8, "{} polls", world.source.polls());
}

/// Eight users in one unit.
fn eight_users() -> World {
    let world = World::new(&["users"]);
    put_users(&world, 8);
    world
}

#[tokio::test(start_paused = true)]
async fn b9_a_flush_refused_for_its_content_is_halved_until_the_document_at_fault_stands_alone() {
    let world = eight_users();
    world.sink.with(|state| state.chokes_on.insert(id("users", 3)));
    let report = world.engine().with_failure_policies(FailurePolicy::Skip).run().await.unwrap();
    assert_eq!(report.quarantined, 1);
    world.log.place("quarantined: users/3: malformed (1)");
    let kept: Vec<String> = [1, 2, 4, 5, 6, 7, 8].iter().map(|key| format!("users {key}")).collect();
    assert_eq!(world.sink.contents().into_keys().collect::<Vec<_>>(), kept);
    assert_eq!(world.source.confirmed(), 8);
    let mut sizes: Vec<usize> = world.sink.with(|state| state.sizes.iter().map(|size| size.0).collect());
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 2, 2, 4, 4, 8]);
}

#[tokio::test(start_paused = true)]
async fn b9_under_stop_a_refused_document_ends_the_run() {
    let world = eight_users();
    world.sink.with(|state| state.chokes_on.insert(id("users", 3)));
    let error = world.engine().run().await.unwrap_err();
    assert_eq!(error, EngineError::DocumentsRejected(1, "users/3: malformed".to_owned()));
    assert!(world.source.confirmed() < 3);
    world.assert_acknowledged_is_durable();
}

#[tokio::test(start_paused = true)]
async fn b9_a_document_that_cannot_be_built_meets_its_failure_policy() {
    let broken = || {
        let world = eight_users();
        world.documents.with(|state| state.broken.insert(id("users", 3), Fault::content("no such field")));
        world
    };
    let world = broken();
    let error = world.engine().run().await.unwrap_err();
    assert_eq!(error, EngineError::DocumentsRejected(1, "users/3: no such field".to_owned()));
    assert_eq!(world.source.confirms(), []);

    let world = broken();
    let policies = FailurePolicies::default().with_override("users", FailurePolicy::Skip);
    world.engine().with_failure_policies(policies).with_quarantine(world.store.clone()).run().await.unwrap();
    world.log.place("quarantined: users/3: no such field (1)");
    assert_eq!((world.sink.contents().len(), world.source.confirmed()), (7, 8));
    world.assert_acknowledged_is_durable();
}

#[tokio::test(start_paused = true)]
async fn b9_a_build_refused_as_a_whole_is_halved_too() {
    let world = eight_users();
    world.documents.with(|state| state.chokes_on.insert(id("users", 6)));
    world.engine().with_failure_policies(FailurePolicy::Skip).run().await.unwrap();
    world.log.place("quarantined: users/6: one of them makes no sense (1)");
    assert_eq!((world.sink.contents().len(), world.source.confirmed()), (7, 8));
}

#[tokio::test(start_paused = true)]
async fn b9_a_document_that_cannot_be_built_at_the_moment_is_retried_alone() {
    let world = eight_users();
    world.source.never_end();
    world.documents.with(|state| state.broken.insert(id("users", 3), Fault::transient("its row is locked")));
    let _running = world.engine().start();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!((world.sink.contents().len(), world.source.confirmed()), (7, 2), "the others are written");
    world.documents.with(|state| state.broken.clear());
    seconds(10).await;
    assert_eq!(world.log.count("build users 3"), 1, "alone");
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b10_a_quarantined_document_is_recorded_before_its_acknowledgement() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=x");
    world.remove("users", 2);
    world.sink.reject(id("users", 1), "no name");
    world.sink.reject(id("users", 2), "read only");
    world.sink.script.next("flush", Act::Fail(Fault::transient("busy")));
    world.store.script.next("record", Act::Late(Duration::from_secs(5)));
    world.source.never_end();
    let engine = world.engine().with_failure_policies(FailurePolicy::Skip);
    let _running = engine.with_quarantine(world.store.clone()).start();
    seconds(3).await;
    assert_eq!(world.source.confirms(), [], "while it is being recorded");
    seconds(5).await;
    assert_eq!(world.source.confirmed(), 2);
    let records: Vec<_> = world
        .store
        .records()
        .into_iter()
        .map(|record| (record.id, record.operation, record.reason.to_string(), record.attempts))
        .collect();
    assert_eq!(
        records,
        [
            (id("users", 1), Operation::Upsert, "no name".to_owned(), 2),
            (id("users", 2), Operation::Delete, "read only".to_owned(), 2),
        ]
    );
    assert!(world.log.place("record users 1") < world.log.place("confirm 2"));
}

#[tokio::test(start_paused = true)]
async fn b10_without_its_record_nothing_is_acknowledged() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=x");
    world.sink.reject(id("users", 1), "no name");
    world.store.script.always("record", Act::Fail(Fault::transient("disk full")));
    let engine = world.engine().with_failure_policies(FailurePolicy::Skip);
    let error = engine.with_quarantine(world.store.clone()).run().await.unwrap_err();
    assert!(matches!(error, EngineError::Failed { stage: Stage::Quarantine, attempts: 10, .. }), "{error}");
    assert_eq!(world.source.confirms(), []);
}

#[tokio::test(start_paused = true)]
async fn b10_a_document_leaves_the_quarantine_when_a_later_write_succeeds() {
    for at_the_next_start in [false, true] {
        let world = World::new(&["users"]);
        world.put("users", 1, "name=x");
        world.sink.reject(id("users", 1), "no name");
        let engine =
            || world.engine().with_failure_policies(FailurePolicy::Skip).with_quarantine(world.store.clone());
        if at_the_next_start {
            engine().run().await.unwrap();
            engine().run().await.unwrap();
            assert_eq!(world.log.count("upsert users 1"), 2, "it is tried once at every start");
            assert_eq!(world.store.records().len(), 1);
            world.sink.with(|state| state.rejects.clear());
            engine().run().await.unwrap();
        } else {
            world.source.never_end();
            let _running = engine().start();
            seconds(1).await;
            assert_eq!(world.store.records().len(), 1);
            world.sink.with(|state| state.rejects.clear());
            let cured = world.put("users", 1, "name=y");
            world.store.script.next("release", Act::Late(Duration::from_secs(5)));
            seconds(3).await;
            assert_eq!(world.source.confirmed(), 1, "its record goes first");
            seconds(5).await;
            assert_eq!(world.source.confirmed(), cured);
        }
        assert_eq!(world.store.records(), []);
        world.log.place("released: users/1");
        world.assert_converged();
    }
}

/// Users and books are to be seeded; the index of users stops for user 2.
async fn parked() -> World {
    let world = World::to_be_seeded(&["users", "books"]);
    world.load("users", 1, "name=x");
    world.engine().run().await.expect("nothing is scripted to fail");
    world.sink.reject(id("users", 2), "no name");
    world.put("users", 2, "name=y");
    world.put("books", 7, "title=z");
    let report =
        world.engine().with_failure_policies(FailurePolicy::Park).run().await.expect("one index stops alone");
    assert_eq!(report.parked, [index("users")]);
    world
}

#[tokio::test(start_paused = true)]
async fn b16_one_bad_index_stops_no_other_and_pins_no_log() {
    let world = parked().await;
    assert_eq!(world.sink.contents()["books 7"], "title=z");
    assert_eq!(world.sink.contents()["users 1"], "name=x", "it keeps what it holds");
    assert_eq!(world.source.confirmed(), world.source.newest());
    world.log.place("parked: users/2: no name");
    // That it is parked is durable before the acknowledgement that passes it.
    assert!(world.log.place("park users") < world.log.place("confirm 2"));

    // A later run leaves it as it is.
    world.log.clear();
    world.put("users", 3, "name=w");
    world.put("books", 8, "title=v");
    let report = world.engine().with_failure_policies(FailurePolicy::Park).run().await.unwrap();
    assert_eq!((report.parked, report.unacknowledged), (vec![index("users")], 0));
    assert_eq!((world.log.count("rebuild users"), world.sink.contents().contains_key("users 3")), (0, false));
    assert_eq!(world.sink.contents()["books 8"], "title=v");
}

#[tokio::test(start_paused = true)]
async fn b16_what_is_not_durably_parked_is_not_acknowledged() {
    let world = World::to_be_seeded(&["users", "books"]);
    world.engine().run().await.unwrap();
    world.sink.reject(id("users", 2), "no name");
    world.put("users", 2, "name=y");
    world.sink.script.next("park", Act::Fail(Fault::fatal("read only")));
    world.engine().with_failure_policies(FailurePolicy::Park).run().await.unwrap_err();
    assert_eq!(world.source.confirms(), []);
}

#[tokio::test(start_paused = true)]
async fn b16_a_parked_index_is_seeded_anew_on_request() {
    let world = parked().await;
    world.sink.with(|state| state.rejects.clear());
    world.source.never_end();
    let running = world.engine().with_failure_policies(FailurePolicy::Park).start();
    assert!(running.caught_up().await, "a parked index holds nothing up");
    assert!(running.status().indexes.iter().any(|status| status.index == index("users") && status.parked));
    running.reindex(&index("users")).await.unwrap();
    running.until(|status| status.indexes.iter().all(|index| index.seeded)).await;
    world.assert_converged();
    assert_eq!(world.sink.contents()["users 2"], "name=y");
    assert_eq!(running.reindex(&index("nobody")).await, Err(Refusal::UnknownIndex));
    running.drain(Duration::from_secs(5)).await.unwrap();
    assert_eq!(running.reindex(&index("users")).await, Err(Refusal::Ending));
}

#[tokio::test(start_paused = true)]
async fn b8_a_call_that_was_given_up_is_dropped() {
    for (call, _) in CALLS {
        let world = world_where(call, 1, &Act::Hang);
        world.source.never_end();
        let running = world.engine().with_quarantine(world.store.clone()).start();
        assert!(running.caught_up().await);
        seconds(90).await;
        world.assert_converged();
        let scripts =
            [&world.source.script, &world.documents.script, &world.sink.script, &world.store.script];
        assert!(scripts.iter().all(|script| script.hanging() == 0), "{call} is still under way");
    }
}

#[tokio::test(start_paused = true)]
async fn b12_a_drain_drops_the_snapshot_that_is_read() {
    let world = World::to_be_seeded(&["users"]);
    for key in 1..=9 {
        world.load("users", key, "name=x");
    }
    world.source.never_end();
    world.sink.script.always("flush", Act::Hang);
    let limits = Limits { backfill_rows: 2, ..Limits::default() };
    let running = world.engine().with_limits(limits).start();
    seconds(1).await;
    assert_eq!(world.source.with(|state| state.snapshots), 1);
    running.request_drain(Duration::from_secs(30));
    seconds(1).await;
    assert!(!running.is_finished());
    assert_eq!(world.source.with(|state| state.snapshots), 0);
}
