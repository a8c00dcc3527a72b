//! The behaviours A1 to A14, one by one, through the driver.

use std::time::Duration;

use syncline::{
    BatchPolicy, Engine, EngineError, FailurePolicies, FailurePolicy, Fault, FaultKind, Key, Limits,
    NoopObserver, Observer, RetryPolicy,
};

use crate::fakes::{self, Act, Shape, Step, World, id, index, poll_at_most};
use crate::units_of;

fn after(max_delay: Duration) -> BatchPolicy {
    BatchPolicy { max_delay, ..BatchPolicy::default() }
}

/// Five changes of five users.
fn five_users() -> World {
    let world = World::new(&["users"]);
    for key in 1..=5 {
        world.put("users", key, "name=x");
    }
    world
}

#[tokio::test(start_paused = true)]
async fn a1_each_change_reaches_the_sink_and_is_acknowledged() {
    let world = World::new(&["users"]);
    world.load("users", 2, "name=bob");
    world.put("users", 1, "name=ada");
    world.remove("users", 2);
    let engine = Engine::new(world.source.clone(), world.documents.clone(), world.sink.clone());
    engine.run().await.unwrap();
    assert_eq!(world.sink.writes(), ["upsert users 1", "delete users 2", "flush true"]);
    assert_eq!(world.source.confirmed(), 2);
}

#[tokio::test(start_paused = true)]
async fn a1_a_change_to_a_row_that_is_gone_is_a_deletion() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.remove("users", 2);
    world.engine().with_batch(units_of(2)).run().await.unwrap();
    let writes = world.sink.writes();
    assert_eq!(writes[..2], ["upsert users 1", "delete users 2"], "the row is gone when it is built");
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn a2_changes_that_arrive_within_the_delay_are_one_flush() {
    let world = World::new(&["users"]);
    world.source.never_end();
    let running = world.engine().with_batch(after(Duration::from_millis(50))).start();
    for key in 1..=3 {
        world.put("users", key, "name=x");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.sink.writes(), ["upsert users 1", "upsert users 2", "upsert users 3", "flush true"]);
    world.put("users", 4, "name=x");
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(world.sink.flushes().len(), 1, "the next one waits for its own delay");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.sink.flushes().len(), 2);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a2_a_full_unit_does_not_wait_for_the_delay() {
    let world = World::new(&["users"]);
    world.source.never_end();
    let batch =
        BatchPolicy { max_changes: 2, max_delay: Duration::from_secs(3600), ..BatchPolicy::default() };
    let _running = world.engine().with_batch(batch).start();
    world.put("users", 1, "name=x");
    world.put("users", 2, "name=x");
    world.put("users", 3, "name=x");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sink.writes(), ["upsert users 1", "upsert users 2", "flush false"]);
}

#[tokio::test(start_paused = true)]
async fn a2_a_stream_that_ends_flushes_what_is_open_at_once() {
    let world = five_users();
    let began = tokio::time::Instant::now();
    world.engine().with_batch(after(Duration::from_secs(3600))).run().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(world.sink.flushes(), [true]);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn a2_a_stream_that_ends_later_flushes_what_is_open_then() {
    let world = five_users();
    world.source.never_end();
    let running = world.engine().with_batch(after(Duration::from_secs(3600))).start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sink.writes(), [] as [&str; 0]);
    world.source.end();
    let began = tokio::time::Instant::now();
    running.outcome().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn a3_a_document_touched_by_several_changes_is_built_and_written_once() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=a");
    world.put("users", 1, "name=ad");
    world.put("users", 2, "name=bob");
    world.put("users", 1, "name=ada");
    world.engine().run().await.unwrap();
    assert_eq!(world.log.count("build users 1, users 2"), 1);
    assert_eq!(world.sink.writes(), ["upsert users 1", "upsert users 2", "flush true"]);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn a4_nothing_is_acknowledged_before_its_flush() {
    let world = World::new(&["users"]);
    for key in 1..=4 {
        world.put("users", key, "name=x");
    }
    world.engine().with_batch(units_of(2)).run().await.unwrap();
    let writes =
        ["upsert users 1", "upsert users 2", "flush false", "upsert users 3", "upsert users 4", "flush true"];
    assert_eq!(world.sink.writes(), writes);
    let confirms: Vec<_> = world
        .source
        .confirms()
        .into_iter()
        .map(|confirm| (confirm.position, confirm.flushes_asked, confirm.flushes_done))
        .collect();
    assert_eq!(confirms, [(2, 1, 1), (4, 2, 2)], "position, flushes asked for, flushes done");
}

#[tokio::test(start_paused = true)]
async fn a4_the_answer_to_an_acknowledgement_is_not_awaited() {
    let world = World::new(&["users"]);
    for key in 1..=4 {
        world.put("users", key, "name=x");
    }
    world.source.never_end();
    world.source.script.next("confirm", Act::Hang);
    let _running = world.engine().with_batch(units_of(2)).start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sink.flushes(), [false, true], "while the first acknowledgement hangs");
    assert_eq!(world.source.confirmed(), 0);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(world.source.confirmed(), 4, "after its time limit the newest is sent");
}

#[tokio::test(start_paused = true)]
async fn a5_an_unseeded_index_is_seeded_also_after_the_stream_has_ended() {
    let world = World::to_be_seeded(&["users"]);
    for key in 1..=3 {
        world.load("users", key, "name=x");
    }
    world.engine().run().await.unwrap();
    assert_eq!(world.log.count("snapshot users after the start"), 1);
    assert_eq!(world.sink.contents(), world.truth());
    assert!(
        world.log.place("flush true") < world.log.place("seeded users"),
        "it is marked once it is durable"
    );
}

#[tokio::test(start_paused = true)]
async fn a5_each_table_is_asked_for_once_and_only_unseeded_indexes_get_its_rows() {
    let world = World::to_be_seeded(&["users", "books"]);
    let shapes = ["people", "names"].map(|name| Shape::new(name).over("users"));
    world.documents.with(|state| state.shapes.extend(shapes));
    world.sink.set_seeded(&index("people"), "stream");
    world.load("users", 1, "name=ada");
    world.load("books", 7, "title=x");
    world.engine().run().await.unwrap();
    assert_eq!(world.log.count("snapshot users after the start"), 1);
    assert_eq!(world.log.count("snapshot books after the start"), 1);
    let held: Vec<String> = world.sink.contents().into_keys().collect();
    assert_eq!(held, ["books 7", "names 1", "users 1"], "`people` was seeded before and is not rewritten");
    for index in ["users", "books", "names"] {
        assert_eq!(world.log.count(&format!("seeded {index}")), 1);
    }
    assert_eq!(world.log.count("seeded people"), 0);
}

#[tokio::test(start_paused = true)]
async fn a6_a_seeded_index_is_not_snapshotted() {
    let world = World::to_be_seeded(&["users"]);
    world.sink.set_seeded(&index("users"), "stream");
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.engine().run().await.unwrap();
    assert_eq!(world.log.count("snapshot users after the start"), 0);
    assert_eq!(world.sink.writes(), ["upsert users 2", "flush true"]);
    assert!(!world.watcher.heard().iter().any(|line| line.starts_with("backfill started")));
}

#[tokio::test(start_paused = true)]
async fn a6_skip_backfill_starts_no_scan_and_writes_no_marker() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.engine().skip_backfill(true).run().await.unwrap();
    assert_eq!(world.sink.writes(), ["upsert users 2", "flush true"]);
    for line in ["snapshot users after the start", "rebuild users", "cursor users the start", "seeded users"]
    {
        assert_eq!(world.log.count(line), 0, "{line}");
    }
    world.engine().run().await.unwrap();
    world.assert_converged();
    assert_eq!(world.log.count("seeded users"), 1, "a later run seeds");
}

#[tokio::test(start_paused = true)]
async fn a7_indexes_are_ensured_at_every_start_before_anything_is_written() {
    for _first_and_second in 0..2 {
        let world = World::to_be_seeded(&["users", "books"]);
        world.load("books", 1, "title=x");
        world.put("users", 1, "name=ada");
        for _start in 0..2 {
            world.put("users", 2, "name=bob");
            world.log.clear();
            world.engine().run().await.unwrap();
            let ensured = world.log.place("ensure users").max(world.log.place("ensure books"));
            assert!(ensured < world.log.place("upsert users 2"));
            let writing = ["upsert ", "delete ", "rebuild ", "cursor ", "seeded "];
            let lines = world.log.all();
            let first = lines.iter().position(|line| writing.iter().any(|verb| line.starts_with(verb)));
            assert!(first.is_some_and(|first| ensured < first), "{lines:#?}");
            assert_eq!((world.log.count("ensure users"), world.log.count("ensure books")), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a8_the_observer_hears_everything_in_its_order() {
    let world = World::to_be_seeded(&["users", "books"]);
    world.source.never_end();
    world.load("users", 1, "name=ada");
    world.load("books", 7, "title=x");
    let running = world.engine().with_batch(units_of(2)).start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.commit([Step::Put("users", 2, "name=bob"), Step::Put("books", 8, "title=y")]);
    world.sink.script.next("flush", Act::Late(Duration::from_millis(30)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.source.end();
    running.outcome().await.unwrap();
    let heard = world.watcher.heard();
    let but_commits: Vec<&String> =
        heard.iter().filter(|line| !line.starts_with("committed: backfill")).collect();
    assert_eq!(
        but_commits,
        [
            "indexes ensured: 2",
            "backfill started: users, books",
            "index seeded: users",
            "index seeded: books",
            "backfill completed",
            "live started",
            "captured: 2",
            "committed: live, 2 changes, 2 documents (books 1, users 1)",
        ]
    );
    let stats = world.watcher.stats();
    assert_eq!(stats.last().unwrap().flush, Duration::from_millis(30));
    let commits =
        |name: &str| world.log.place(&format!("committed: backfill, 1 changes, 1 documents ({name} 1)"));
    assert!(commits("users") < world.log.place("index seeded: users"));
    assert!(commits("books") < world.log.place("index seeded: books"));
}

#[tokio::test(start_paused = true)]
async fn a8_a_stream_that_yields_at_once_keeps_the_two_orders_apart() {
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.engine().run().await.unwrap();
    let heard = world.watcher.heard();
    assert_eq!(heard[0], "indexes ensured: 1");
    for order in [
        ["backfill started: users", "index seeded: users", "backfill completed"],
        ["live started", "captured: 1", "committed: live, 1 changes, 1 documents (users 1)"],
    ] {
        let places = order.map(|line| world.log.place(line));
        assert!(places.is_sorted(), "{heard:#?}");
        assert_eq!(order.map(|line| world.log.count(line)), [1, 1, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a8_the_observer_hears_quarantines_retries_and_the_error() {
    let world = World::new(&["users"]);
    world.put("users", 1, "name=ada");
    world.sink.reject(id("users", 1), "too shiny");
    world.sink.script.next("flush", Act::Fail(Fault::transient("busy")));
    world.source.script.next("confirm", Act::Fail(Fault::fatal("no such slot")));
    let error = world.engine().with_failure_policies(FailurePolicy::Skip).run().await.unwrap_err();
    assert_eq!(
        world.watcher.heard(),
        [
            "indexes ensured: 1".to_owned(),
            "backfill completed".to_owned(),
            "live started".to_owned(),
            "captured: 1".to_owned(),
            "retry: flush after attempt 1: busy".to_owned(),
            "quarantined: users/1: too shiny (2)".to_owned(),
            "committed: live, 1 changes, 0 documents ()".to_owned(),
            format!("error: {error}"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a8_every_method_of_an_observer_has_a_default() {
    struct Deaf;
    impl Observer for Deaf {}
    let world = World::to_be_seeded(&["users"]);
    world.load("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.sink.script.next("flush", Act::Fail(Fault::transient("busy")));
    world.engine().with_observer(Deaf).run().await.unwrap();
    world.assert_converged();
    world.engine().with_observer(NoopObserver).run().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a9_a_fatal_flush_ends_the_run_and_nothing_of_it_is_acknowledged() {
    fn plain() -> Result<(), Fault> {
        "x".parse::<u32>()?;
        Ok(())
    }
    let fault = plain().unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    for act in [Act::Fail(fault.clone()), Act::FailAfter(fault.clone())] {
        let clean = five_users();
        clean.engine().with_batch(units_of(2)).run().await.unwrap();
        let world = five_users();
        world.sink.script.next("flush", Act::Well);
        world.sink.script.next("flush", act);
        let error = world.engine().with_batch(units_of(2)).run().await.unwrap_err();
        assert_eq!(error.fault(), Some(&fault));
        assert_eq!(world.source.confirmed(), 2, "the first flush is acknowledged, the second is not");
        world.log.clear();
        world.engine().with_batch(units_of(2)).run().await.unwrap();
        let again = ["upsert users 3", "upsert users 4", "flush false", "upsert users 5", "flush true"];
        assert_eq!(world.sink.writes(), again, "the next run is given the rest");
        assert_eq!(world.sink.contents(), clean.sink.contents());
        world.assert_converged();
    }
}

#[tokio::test(start_paused = true)]
async fn a10_a_flush_is_told_whether_it_is_caught_up() {
    let world = five_users();
    world.engine().with_batch(units_of(2)).run().await.unwrap();
    assert_eq!(world.sink.flushes(), [false, false, true]);
    assert_eq!(world.log.count("caught up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a10_the_backlog_of_a_stream_that_goes_on_is_told_the_same() {
    let world = five_users();
    world.source.never_end();
    let _running = world.engine().with_batch(units_of(2)).start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sink.flushes(), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a10_a_sink_that_was_told_otherwise_is_told_by_itself() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world.put("users", 1, "name=ada");
    let _running = world.engine().with_batch(after(Duration::ZERO)).start();
    world.documents.script.next("resolve", Act::Well);
    world.documents.script.next("resolve", Act::Late(Duration::from_secs(5)));
    world.documents.script.next("build", Act::Late(Duration::from_secs(1)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.put("stones", 1, "kind=hard");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.sink.flushes(), [false], "a change waits that may touch something");
    assert_eq!(world.log.count("caught up"), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((world.sink.flushes().len(), world.log.count("caught up")), (1, 1), "it touched nothing");
}

#[tokio::test(start_paused = true)]
async fn a10_a_sink_that_is_slow_to_hear_it_is_told_once_more_when_it_is_true_again() {
    for first in [Act::Late(Duration::from_secs(20)), Act::Fail(Fault::transient("busy"))] {
        let world = World::new(&["users"]);
        world.source.never_end();
        world.sink.script.next("caught_up", first);
        world.documents.script.always("build", Act::Late(Duration::from_millis(10)));
        let _running = world.engine().with_batch(after(Duration::ZERO)).start();
        for _time in 0..2 {
            world.documents.script.next("resolve", Act::Well);
            world.documents.script.next("resolve", Act::Late(Duration::from_millis(30)));
            world.put("users", 1, "name=ada");
            tokio::time::sleep(Duration::from_millis(1)).await;
            world.put("stones", 1, "kind=hard");
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.sink.flushes(), [false, false]);
        assert_eq!(world.log.count("caught up"), 2);
        assert_eq!(world.log.of(fakes::Port::Sink).last().map(String::as_str), Some("caught up"));
        world.assert_converged();
    }
}

/// Users 1 to 3 and book 1, in one flush that rejects user 2 and book 1.
fn two_rejected() -> World {
    let world = World::new(&["users", "books"]);
    for key in 1..=3 {
        world.put("users", key, "name=x");
    }
    world.put("books", 1, "title=x");
    world.sink.reject(id("users", 2), "no name");
    world.sink.reject(id("books", 1), "no title");
    world
}

#[tokio::test(start_paused = true)]
async fn a11_under_skip_rejected_documents_are_quarantined_and_acknowledged() {
    let world = two_rejected();
    let report = world.engine().with_failure_policies(FailurePolicy::Skip).run().await.unwrap();
    assert_eq!(report.quarantined, 2);
    world.log.place("quarantined: users/2: no name (1)");
    world.log.place("quarantined: books/1: no title (1)");
    assert_eq!(world.sink.contents().into_keys().collect::<Vec<_>>(), ["users 1", "users 3"]);
    assert_eq!(world.source.confirmed(), 4);
}

#[tokio::test(start_paused = true)]
async fn a11_under_stop_the_run_ends_and_nothing_of_that_flush_is_acknowledged() {
    let world = two_rejected();
    let error = world.engine().run().await.unwrap_err();
    let EngineError::DocumentsRejected(count, example) = error else { panic!("{error:?}") };
    assert_eq!((count, example.as_str()), (2, "users/2: no name"));
    assert_eq!(world.source.confirms(), []);
}

#[tokio::test(start_paused = true)]
async fn a11_verdicts_are_decided_per_call() {
    let world = two_rejected();
    let error = world.engine().with_batch(units_of(1)).run().await.unwrap_err();
    assert_eq!(error, EngineError::DocumentsRejected(1, "users/2: no name".to_owned()));
    assert_eq!(world.source.confirmed(), 1, "the flush before it is acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a11_a_policy_of_an_index_overrides_the_global_one() {
    for (global, own, index) in [
        (FailurePolicy::Stop, FailurePolicy::Skip, "users"),
        (FailurePolicy::Skip, FailurePolicy::Stop, "books"),
    ] {
        let policies = FailurePolicies::new(global).with_override(index, own);
        // Either way users skip and books stop.
        let world = two_rejected();
        world.sink.with(|state| state.rejects.remove(&id("books", 1)));
        world.engine().with_failure_policies(policies.clone()).run().await.unwrap();
        world.log.place("quarantined: users/2: no name (1)");
        assert_eq!(world.source.confirmed(), 4);

        let world = two_rejected();
        let error = world.engine().with_failure_policies(policies).run().await.unwrap_err();
        assert_eq!(error, EngineError::DocumentsRejected(1, "books/1: no title".to_owned()));
        assert_eq!(world.log.count("quarantined: users/2: no name (1)"), 0, "the stop is decided first");
        assert_eq!(world.source.confirms(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a12_a_documents_id_follows_from_its_key_alone() {
    let write = |columns: &'static str, unit| async move {
        let world = World::new(&["users"]);
        world.put("users", 42, columns);
        world.remove("users", 7);
        world.engine().with_batch(units_of(unit)).run().await.unwrap();
        let mut writes = world.sink.writes();
        writes.retain(|line| !line.starts_with("flush"));
        writes
    };
    assert_eq!(write("name=ada", 1).await, ["upsert users 42", "delete users 7"]);
    assert_eq!(write("name=bob age=7", 2).await, ["upsert users 42", "delete users 7"]);
    let key = Key::new(["eu".into(), 42.into()]).unwrap();
    assert_eq!(syncline::DocumentId::new(index("users"), key).sink_id(), "eu:42");
}

#[tokio::test(start_paused = true)]
async fn a13_a_full_queue_stops_the_engine_from_polling_the_source() {
    let world = World::new(&["users"]);
    for key in 1..=1000 {
        world.put("users", key, "name=x");
    }
    world.sink.script.next("flush", Act::Hang);
    let engine = world.engine().with_batch(units_of(2)).with_queue_capacity(8);
    let running = engine.start();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let polls = world.source.polls();
    assert!((8..=16).contains(&polls), "{polls} polls for 8 changes and what stands between them");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.source.polls(), polls);
    running.outcome().await.unwrap();
    world.assert_converged();
}

/// Everything at once: seeding, live changes, rejections, retries; and every call gives way.
fn busy_world() -> World {
    let world = World::to_be_seeded(&["users", "books"]);
    for key in 1..=3 {
        world.load("users", key, "name=x");
    }
    world.commit([Step::Put("users", 4, "name=y"), Step::Put("books", 1, "title=x")]);
    world.remove("users", 1);
    world.put("books", 2, "title=y");
    world.sink.reject(id("books", 2), "no");
    world.sink.script.times(4, "flush", Act::Well);
    world.sink.script.next("flush", Act::FailAfter(Fault::transient("busy")));
    for script in [&world.source.script, &world.documents.script, &world.sink.script, &world.store.script] {
        script.give_way();
    }
    world
}

#[tokio::test(start_paused = true)]
async fn a14_dropping_the_run_at_any_point_leaks_nothing_and_acknowledges_nothing_too_early() {
    let mut acknowledged = std::collections::BTreeSet::new();
    for polls in 1.. {
        let world = busy_world();
        let engine = || {
            world
                .engine()
                .with_quarantine(world.store.clone())
                .with_failure_policies(FailurePolicy::Skip)
                .with_retry(RetryPolicy { delay_min: Duration::from_millis(1), ..RetryPolicy::default() })
                .with_batch(units_of(1))
                .with_limits(Limits { builds: 2, units: 4, ..Limits::default() })
        };
        let outcome = poll_at_most(engine().run(), polls).await;
        world.assert_let_go();
        world.assert_acknowledged_is_durable();
        acknowledged.insert(world.source.confirmed());
        if let Some(outcome) = outcome {
            outcome.unwrap();
            assert!(polls > 20, "the run was dropped at {polls} points");
            break;
        }
        world.sink.with(|state| state.rejects.clear());
        engine().run().await.unwrap();
        world.assert_converged();
        assert_eq!(world.store.records(), []);
    }
    assert_eq!(acknowledged, [0, 1, 2, 3].into(), "some were dropped after each acknowledgement");
}

#[tokio::test(start_paused = true)]
async fn a14_dropping_a_handle_ends_its_run() {
    let world = five_users();
    world.source.never_end();
    world.sink.script.always("flush", Act::Hang);
    let running = world.engine().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(running);
    tokio::task::yield_now().await;
    world.assert_let_go();
    assert_eq!(world.source.confirms(), []);
}
