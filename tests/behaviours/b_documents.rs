//! B4, B6 and B11: which documents are built, in which order they land, and how many of them are held.

use std::collections::BTreeMap;
use std::time::Duration;

use syncline::ports::Guarantees;
use syncline::{BatchPolicy, DocumentId, Fault, Limits, RetryPolicy, Version};

use crate::fakes::{Act, Shape, Step, World, id};
use crate::{ms, seconds, units_of};

/// Users 1 and 2, each with a post of theirs in it.
async fn users_with_posts() -> World {
    let world = World::new(&[]);
    world.documents.with(|state| state.shapes.push(Shape::new("users").with_child("posts", "user")));
    world.put("users", 1, "name=ada");
    world.put("users", 2, "name=bob");
    world.put("posts", 7, "user=1 title=x");
    world.put("posts", 8, "user=2 title=y");
    world.engine().run().await.expect("nothing is scripted to fail");
    assert_eq!(world.sink.contents()["users 1"], "name=ada [posts 7 user=1 title=x]");
    world.log.clear();
    world
}

#[tokio::test(start_paused = true)]
async fn b4_deleting_a_child_row_rebuilds_the_document_it_left() {
    let world = users_with_posts().await;
    world.remove("posts", 7);
    world.engine().run().await.unwrap();
    assert_eq!(world.sink.writes(), ["upsert users 1", "flush true"]);
    assert_eq!(world.sink.contents()["users 1"], "name=ada");
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b4_moving_a_child_row_rebuilds_both_documents() {
    let world = users_with_posts().await;
    world.put("posts", 7, "user=2 title=x");
    world.engine().run().await.unwrap();
    assert_eq!(world.sink.writes(), ["upsert users 1", "upsert users 2", "flush true"]);
    assert_eq!(
        world.sink.contents()["users 2"],
        "name=bob [posts 7 user=2 title=x] [posts 8 user=2 title=y]"
    );
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b4_changing_a_primary_key_deletes_the_old_document_and_writes_the_new() {
    let world = users_with_posts().await;
    world.commit([Step::Rekey("users", 1, 3)]);
    world.engine().run().await.unwrap();
    assert_eq!(world.sink.writes(), ["delete users 1", "upsert users 3", "flush true"]);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b4_the_source_is_asked_for_the_images_that_are_needed_before_the_sink_is_taken() {
    let world = users_with_posts().await;
    world
        .source
        .script
        .next("prepare", Act::Fail(Fault::fatal("run: ALTER TABLE posts REPLICA IDENTITY FULL")));
    let error = world.engine().run().await.unwrap_err();
    assert_eq!(error.to_string(), "describe failed: run: ALTER TABLE posts REPLICA IDENTITY FULL");
    let said = world.log.all();
    assert!(!said.iter().any(|line| line == "open" || line.starts_with("begin")), "{said:?}");
}

/// The versions that were applied of a document, in order.
fn versions(applied: &[(DocumentId, Version)], of: &DocumentId) -> Vec<Version> {
    applied.iter().filter(|(id, _)| id == of).map(|(_, version)| *version).collect()
}

#[tokio::test(start_paused = true)]
async fn b6_a_document_never_goes_back_with_many_builds_and_flushes_in_flight() {
    for seed in 0..20_u64 {
        let world = World::new(&["users"]);
        world.sink.with(|state| state.concurrency = 4);
        world.source.never_end();
        // Delays that differ from call to call, so that later calls overtake earlier ones.
        let delay = |call: u64| ms(call.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) % 83);
        for call in 0..100 {
            world.documents.script.next("build", Act::Late(delay(call)));
            world.sink.script.next("flush", Act::Late(delay(call + 1000)));
        }
        let limits = Limits { builds: 4, flushes: 4, units: 8, ..Limits::default() };
        let batch = BatchPolicy { max_changes: 1, max_delay: Duration::ZERO, ..BatchPolicy::default() };
        let _running = world.engine().with_batch(batch).with_limits(limits).start();
        for (round, columns) in ["n=1", "n=2", "n=3", "n=4", "n=5", "n=6"].iter().cycle().take(30).enumerate()
        {
            world.put("users", 1, columns);
            world.put("users", 2 + (round % 5) as i64, columns);
            tokio::time::sleep(ms(11)).await;
        }
        world.remove("users", 6);
        seconds(30).await;
        world.assert_converged();
        let (applied, most) = world.sink.with(|state| (state.applied.clone(), state.most_under_way));
        assert!(most > 1, "flushes ran side by side");
        for key in 1..=6 {
            let versions = versions(&applied, &id("users", key));
            assert!(versions.is_sorted_by(|a, b| a < b), "users {key}: {versions:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b6_a_hot_document_is_written_once_a_round_trip() {
    let world = World::new(&["users"]);
    world.source.never_end();
    world.sink.script.always("flush", Act::Late(ms(100)));
    let batch = BatchPolicy { max_delay: Duration::ZERO, ..BatchPolicy::default() };
    let _running = world.engine().with_batch(batch).start();
    for columns in ["n=1", "n=2", "n=3", "n=4"].iter().cycle().take(100) {
        world.put("users", 1, columns);
        tokio::time::sleep(ms(10)).await;
    }
    seconds(1).await;
    world.assert_converged();
    assert!(
        (9..=12).contains(&world.log.count("upsert users 1")),
        "{} writes in ten round trips",
        world.log.count("upsert users 1")
    );
}

/// The first flush is given up, and lands when everything else is over.
async fn late_write(guarantees: Guarantees) -> World {
    let world = World::new(&["users"]);
    world.sink.with(|state| state.guarantees = guarantees);
    world.source.never_end();
    world.sink.script.next("flush", Act::Land(Duration::from_secs(90)));
    let running = world.engine().start();
    world.put("users", 1, "name=old");
    seconds(70).await;
    world.put("users", 1, "name=new");
    seconds(10).await;
    world.assert_converged();
    seconds(60).await;
    assert_eq!(world.log.count("landed"), 1);
    drop(running);
    world
}

#[tokio::test(start_paused = true)]
async fn b6_a_write_that_lands_after_it_was_given_up_is_refused_by_its_version() {
    let world = late_write(Guarantees { refuses_older_versions: true, ..Guarantees::default() }).await;
    assert_eq!(world.log.count("refused users 1"), 1);
    world.assert_converged();
    let lost = late_write(Guarantees::default()).await;
    assert_eq!(lost.sink.contents()["users 1"], "name=old", "what is lost without");
}

#[tokio::test(start_paused = true)]
async fn b6_a_deletion_outlives_a_late_write() {
    let world = World::new(&["users"]);
    world.sink.with(|state| state.guarantees.refuses_older_versions = true);
    world.source.never_end();
    world.sink.script.next("flush", Act::Land(Duration::from_secs(90)));
    let _running = world.engine().start();
    world.put("users", 1, "name=old");
    seconds(70).await;
    world.remove("users", 1);
    seconds(60).await;
    assert_eq!((world.log.count("landed"), world.log.count("refused users 1")), (1, 1));
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b6_a_write_of_a_run_that_died_is_refused_by_its_epoch() {
    let world = World::new(&["users"]);
    world.sink.with(|state| state.guarantees.refuses_older_epochs = true);
    world.source.never_end();
    world.sink.script.next("flush", Act::Land(Duration::from_secs(30)));
    world.put("users", 1, "name=old");
    let dead = world.engine().start();
    seconds(1).await;
    drop(dead);
    world.put("users", 1, "name=new");
    let _running = world.engine().start();
    seconds(60).await;
    assert_eq!((world.log.count("begin 1"), world.log.count("begin 2")), (1, 1));
    assert_eq!((world.log.count("landed"), world.log.count("refused users 1")), (1, 1));
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b6_a_build_waits_for_a_snapshot_that_shows_the_change() {
    let world = World::new(&["users"]);
    world.source.with(|state| state.tokens = true);
    world.source.never_end();
    world.documents.with(|state| state.shows = Some(0));
    let _running = world.engine().start();
    world.put("users", 1, "name=ada");
    world.put("users", 1, "name=lovelace");
    tokio::time::sleep(ms(300)).await;
    world.documents.with(|state| state.shows = Some(1));
    tokio::time::sleep(ms(300)).await;
    assert_eq!(world.sink.writes(), [] as [&str; 0], "the newest token of all that wait is asked for");
    assert_eq!(world.source.confirms(), []);
    world.documents.with(|state| state.shows = Some(2));
    seconds(30).await;
    world.assert_converged();
    assert!(world.watcher.heard().iter().any(|line| line.contains("not visible yet")));
}

/// A thousand users, all of whom one setting touches.
fn fan_out() -> World {
    let world = World::new(&[]);
    world.documents.with(|state| state.shapes.push(Shape::new("users").touched_by("settings")));
    (1..=1000).for_each(|key| world.load("users", key, "name=abcdefghij"));
    world
}

#[tokio::test(start_paused = true)]
async fn b11_memory_is_bounded_whatever_a_change_fans_out_to() {
    let world = fan_out();
    world.source.never_end();
    world.sink.script.always("flush", Act::Late(ms(10)));
    for key in 1..=20 {
        world.put("settings", key, "x=1");
        world.put("users", key, "name=klmnopqrst");
    }
    let batch = BatchPolicy { max_documents: 50, max_bytes: 200, ..BatchPolicy::default() };
    let limits = Limits {
        documents: 100,
        resolves: 1,
        resolve_changes: 1,
        builds: 2,
        units: 3,
        changes: 16,
        ..Limits::default()
    };
    let running = world.engine().with_batch(batch).with_limits(limits).start();
    let mut most = (0, 0, 0);
    while world.source.confirmed() < world.source.newest() {
        tokio::time::sleep(ms(5)).await;
        let status = running.status();
        let owed = (status.captured - status.durable) as usize;
        most = (most.0.max(status.dirty + status.in_flight), most.1.max(status.in_flight), most.2.max(owed));
    }
    assert!(most.0 < 100 + 1000, "{} documents are dirty at once", most.0);
    assert!(most.1 <= 3 * 50, "{} documents are in flight", most.1);
    assert!(most.2 <= 16, "{} changes are owed", most.2);
    let (sizes, builds) =
        (world.sink.with(|state| state.sizes.clone()), world.documents.with(|state| state.most_documents));
    assert!(builds <= 50, "{builds} documents in a build");
    for (documents, bytes) in sizes {
        assert!(documents <= 50 && bytes <= 200, "{documents} documents, {bytes} bytes");
    }
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b11_a_transaction_larger_than_the_window_passes() {
    let world = World::new(&["users"]);
    world.commit((1..=50).map(|key| Step::Put("users", key, "name=x")));
    world.engine().with_queue_capacity(3).run().await.unwrap();
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b11_a_change_that_fans_out_beyond_the_dirty_limit_passes() {
    let world = fan_out();
    world.put("settings", 1, "x=1");
    world.put("settings", 1, "x=2");
    let limits = Limits { documents: 10, ..Limits::default() };
    // The delay must not be what gets it through: at the limit no more company can come.
    let batch = BatchPolicy { max_delay: Duration::from_secs(3600), ..BatchPolicy::default() };
    let began = tokio::time::Instant::now();
    world.engine().with_limits(limits).with_batch(batch).run().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b11_limits_of_one_pass_everything() {
    let world = World::to_be_seeded(&["users"]);
    (1..=5).for_each(|key| world.load("users", key, "name=x"));
    world.commit((3..=8).map(|key| Step::Put("users", key, "name=y")));
    world.put("users", 1, "name=z");
    let limits = Limits {
        changes: 1,
        documents: 1,
        resolves: 1,
        resolve_changes: 1,
        builds: 1,
        flushes: 1,
        units: 1,
        backfill_rows: 1,
        backfill_share: 1,
        adaptive: false,
    };
    let batch = BatchPolicy { max_changes: 1, max_documents: 1, max_bytes: 1, ..BatchPolicy::default() };
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    world.engine().with_limits(limits).with_batch(batch).with_retry(retry).run().await.unwrap();
    world.assert_converged();
}

#[tokio::test(start_paused = true)]
async fn b11_a_body_larger_than_a_flush_may_be_is_flushed_alone() {
    let world = World::new(&["users"]);
    let names: BTreeMap<i64, &'static str> =
        [(1, "name=a"), (2, "name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), (3, "name=b"), (4, "name=c")].into();
    world.commit(names.into_iter().map(|(key, columns)| Step::Put("users", key, columns)));
    let batch = BatchPolicy { max_bytes: 16, ..units_of(4) };
    world.engine().with_batch(batch).run().await.unwrap();
    assert_eq!(world.sink.with(|state| state.sizes.clone()), [(1, 6), (1, 36), (2, 12)]);
    world.assert_converged();
}
