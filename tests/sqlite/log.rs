//! What lasts: positions, consumers, triggers, and which stream they make.

use syncline::change::Position;
use syncline::error::FaultKind;
use syncline::name::StreamId;
use syncline::ports::ChangeCapture;

use super::world::{World, next, opened, silent, to_checkpoint, told};

const SCHEMA: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, x); CREATE TABLE b(id INTEGER PRIMARY KEY, x)";

#[tokio::test]
async fn b1_what_was_not_confirmed_is_given_again_and_nothing_else() {
    let world = World::new(SCHEMA);
    let (mut stream, ..) = opened(&world.capture(&["a"])).await;
    world.run("INSERT INTO a VALUES (1, 1)");
    let (_, position) = to_checkpoint(&mut stream.changes).await;
    world.run("BEGIN; INSERT INTO a VALUES (2, 2); INSERT INTO a VALUES (3, 3); COMMIT");
    next(&mut stream.changes).await.unwrap();
    world.capture(&["a"]).confirm(&stream.stream, position).await.unwrap();
    drop(stream);
    world.run("INSERT INTO a VALUES (4, 4)");

    let capture = world.capture(&["a"]);
    let (again, changes, end) = opened(&capture).await;
    assert_eq!(
        changes,
        [
            r#"+a/2 after {"id": 2, "x": 2}"#,
            r#"+a/3 after {"id": 3, "x": 3}"#,
            r#"+a/4 after {"id": 4, "x": 4}"#
        ]
    );
    // Never backwards, whatever order the confirmations arrive in.
    capture.confirm(&again.stream, end).await.unwrap();
    capture.confirm(&again.stream, position).await.unwrap();
    let (last, changes, position) = opened(&world.capture(&["a"])).await;
    assert_eq!((changes.len(), position), (0, end));
    assert_eq!(last.stream, again.stream);
}

#[tokio::test]
async fn positions_are_never_used_again() {
    let world = World::new(SCHEMA);
    let capture = world.capture(&["a"]);
    let (mut stream, ..) = opened(&capture).await;
    for id in 1..4 {
        world.run(&format!("INSERT INTO a VALUES ({id}, 0)"));
        let (_, position) = to_checkpoint(&mut stream.changes).await;
        assert_eq!(position, Position(id));
        capture.confirm(&stream.stream, position).await.unwrap();
        assert_eq!(world.one::<i64>("SELECT count(*) FROM syncline_changes"), 0);
    }
    let fault = capture.confirm(&stream.stream, Position(4)).await.unwrap_err();
    assert!(fault.message().contains("position 4 lies past the end of its change log"), "{fault}");
}

#[tokio::test]
async fn the_log_is_trimmed_to_the_consumer_that_is_furthest_behind() {
    let world = World::new(SCHEMA);
    let (fast, slow) = (world.consumer("fast", &["a"]), world.consumer("slow", &["a"]));
    let (mut first, ..) = opened(&fast).await;
    let (second, ..) = opened(&slow).await;
    assert_ne!(first.stream, second.stream);
    world.run("INSERT INTO a VALUES (1, 0), (2, 0), (3, 0)");
    let (_, position) = to_checkpoint(&mut first.changes).await;
    fast.confirm(&first.stream, position).await.unwrap();
    let kept = || world.one::<i64>("SELECT count(*) FROM syncline_changes");
    assert_eq!(kept(), 3);
    slow.confirm(&second.stream, Position(2)).await.unwrap();
    assert_eq!(kept(), 1);
    let (_, changes, _) = opened(&slow).await;
    assert_eq!(changes, [r#"+a/3 after {"id": 3, "x": 0}"#]);
    // Another's stream moves nothing.
    slow.confirm(&first.stream, position).await.unwrap();
    assert_eq!(kept(), 1);
    assert!(slow.forget_consumer().await.unwrap());
    assert!(!slow.forget_consumer().await.unwrap());
    assert_eq!(kept(), 0);
}

/// SQLite keeps the rows that such a statement has written before it fails, and does not write the log's sequence.
#[tokio::test]
async fn what_a_statement_keeps_that_fails_half_way_is_captured_and_its_positions_are_not_used_again() {
    let world = World::new(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, x UNIQUE); CREATE TABLE b(id INTEGER PRIMARY KEY, x);
         CREATE TRIGGER no AFTER INSERT ON b WHEN NEW.x = 0 BEGIN SELECT RAISE(FAIL, 'no'); END;
         INSERT INTO a VALUES (1, 'a')",
    );
    let capture = world.capture(&["a", "b"]);
    let (mut stream, ..) = opened(&capture).await;
    let mut last = 0;
    for (failing, told) in [
        ("INSERT OR FAIL INTO a VALUES (2, 'b'), (3, 'c'), (4, 'a')", &["a/2", "a/3"][..]),
        ("UPDATE OR FAIL a SET x = iif(id < 3, id, 1)", &["a/1", "a/2"]),
        ("INSERT INTO b VALUES (1, 1), (2, 0), (3, 1)", &["b/1", "b/2"]),
    ] {
        world.connection().execute(failing, []).unwrap_err();
        let (changes, position) = to_checkpoint(&mut stream.changes).await;
        let changes: Vec<String> =
            changes.iter().map(|change| format!("{}/{:?}", change.table, change.key)).collect();
        assert!(told.iter().all(|row| changes.iter().any(|change| change == row)), "{failing}: {changes:?}");
        assert!(position.0 > last, "{failing}: {position} after {last}");
        last = position.0;
        // With the records goes the only sign that their positions were given.
        capture.confirm(&stream.stream, position).await.unwrap();
        assert_eq!(world.one::<i64>("SELECT count(*) FROM syncline_changes"), 0);
    }
    let (again, changes, position) = opened(&capture).await;
    assert_eq!((again.stream, changes.len(), position), (stream.stream.clone(), 0, Position(last)));
    world.run("INSERT INTO a VALUES (9, 9)");
    assert_eq!(to_checkpoint(&mut stream.changes).await.1, Position(last + 1));
}

/// The stream of the consumer `search` of these tables.
async fn stream(world: &World, tables: &[&str]) -> StreamId {
    opened(&world.capture(tables)).await.0.stream
}

#[tokio::test]
async fn b2_a_stream_lasts_as_long_as_nothing_can_have_been_missed() {
    let world = World::new(SCHEMA);
    let first = stream(&world, &["a"]).await;
    assert!(first.as_str().starts_with("sqlite/search/"), "{first}");
    assert_eq!(stream(&world, &["a"]).await, first);
    assert_eq!(stream(&world, &["A"]).await, first);

    let wider = stream(&world, &["a", "b"]).await;
    assert_ne!(wider, first, "changes to `b` were not captured before");
    assert_eq!(stream(&world, &["b", "a"]).await, wider);
    assert_eq!(stream(&world, &["a"]).await, wider, "fewer tables miss nothing");
    let again = stream(&world, &["a", "b"]).await;
    assert_ne!(again, wider, "changes to `b` were passed over meanwhile");

    let mut last = again;
    for (harm, why) in [
        ("DROP TRIGGER syncline_deleted_a", "a trigger was missing"),
        ("DROP TABLE a; CREATE TABLE a(id INTEGER PRIMARY KEY, x)", "the table is another one"),
        ("ALTER TABLE a RENAME COLUMN x TO y", "the images name other columns"),
        ("CREATE UNIQUE INDEX y ON a(y)", "rows were replaced unseen"),
        ("DELETE FROM syncline_consumers", "its place was lost"),
        ("INSERT INTO b VALUES (1, 1); DELETE FROM syncline_changes", ""),
        ("DROP TABLE syncline_changes", "the log was lost"),
        ("INSERT INTO b VALUES (2, 1)", ""),
    ] {
        world.run(harm);
        let next = stream(&world, &["a", "b"]).await;
        assert_eq!(next == last, why.is_empty(), "{harm}: {why}");
        assert_eq!(stream(&world, &["a", "b"]).await, next, "{harm}");
        last = next;
    }
    let capture = world.capture(&["a", "b"]);
    let (opening, _, end) = opened(&capture).await;
    capture.confirm(&opening.stream, end).await.unwrap();
    world.run("DELETE FROM syncline_changes; DELETE FROM sqlite_sequence");
    assert_ne!(stream(&world, &["a", "b"]).await, last, "positions began anew");
}

#[tokio::test]
async fn b2_triggers_made_again_for_one_consumer_count_for_all() {
    let world = World::new(SCHEMA);
    let (first, ..) = opened(&world.consumer("first", &["a"])).await;
    let (second, ..) = opened(&world.consumer("second", &["a"])).await;
    world.run("DROP TRIGGER syncline_updated_a");
    let (third, ..) = opened(&world.consumer("second", &["a"])).await;
    assert_ne!(second.stream, third.stream);
    assert_ne!(opened(&world.consumer("first", &["a"])).await.0.stream, first.stream);
}

#[tokio::test]
async fn a_column_that_is_added_keeps_the_stream_and_comes_into_the_images() {
    let world = World::new(SCHEMA);
    let (mut stream, ..) = opened(&world.capture(&["a"])).await;
    world.run("INSERT INTO a VALUES (1, 1); ALTER TABLE a ADD COLUMN y DEFAULT 7");
    // The running capture notices, and asks to be opened again.
    let fault = loop {
        match next(&mut stream.changes).await {
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert!(fault.message().contains("a captured table or its triggers were changed"), "{fault}");
    world.run("INSERT INTO a VALUES (2, 2, 2)");
    let (mut again, changes, _) = opened(&world.capture(&["a"])).await;
    assert_eq!(again.stream, stream.stream);
    assert_eq!(changes, [r#"+a/1 after {"id": 1, "x": 1}"#, r#"+a/2 after {"id": 2, "x": 2}"#]);
    world.run("INSERT INTO a VALUES (3, 3, 3)");
    assert_eq!(told(&mut again.changes).await, [r#"+a/3 after {"id": 3, "x": 3, "y": 3}"#]);
    // A change of the schema that does not concern the captured tables concerns nobody.
    world.run("CREATE TABLE c(id); CREATE INDEX i ON a(x); INSERT INTO a VALUES (4, 4, 4)");
    assert_eq!(told(&mut again.changes).await, [r#"+a/4 after {"id": 4, "x": 4, "y": 4}"#]);
}

#[tokio::test]
async fn another_consumer_may_widen_the_log_while_a_stream_runs() {
    let world = World::new(SCHEMA);
    world.run("CREATE TABLE wide(id INTEGER PRIMARY KEY, a, b, c, d, e, f, g)");
    let (mut narrow, ..) = opened(&world.consumer("narrow", &["a"])).await;
    world.run("INSERT INTO a VALUES (1, 1)");
    assert_eq!(told(&mut narrow.changes).await.len(), 1);
    let (mut wide, ..) = opened(&world.consumer("wide", &["wide", "a"])).await;
    world.run(
        "INSERT INTO a VALUES (2, 2); UPDATE a SET x = 3 WHERE id = 2; INSERT INTO wide(id, g) VALUES (1, 7)",
    );
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(told(&mut narrow.changes).await);
    }
    assert_eq!(seen[1], r#"+a/2 before {"id": 2, "x": 2} after {"id": 2, "x": 3}"#);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(told(&mut wide.changes).await);
    }
    assert!(seen[2].ends_with(r#""f": null, "g": 7}"#), "{seen:?}");
}

#[tokio::test]
async fn a_running_stream_ends_where_its_ground_is_taken_away() {
    for remove in [true, false] {
        let world = World::new(SCHEMA);
        let capture = world.capture(&["a"]);
        let (mut stream, ..) = opened(&capture).await;
        let (_other, ..) = opened(&world.consumer("other", &["a"])).await;
        match remove {
            true => capture.remove_log().await.unwrap(),
            false => assert!(capture.forget_consumer().await.unwrap()),
        }
        let fault = next(&mut stream.changes).await.unwrap_err();
        assert_eq!(fault.kind(), if remove { FaultKind::Fatal } else { FaultKind::Transient }, "{fault}");
        assert_ne!(opened(&capture).await.0.stream, stream.stream);
    }
}

#[tokio::test]
async fn removing_the_log_leaves_the_database_as_it_was() {
    let world = World::new(SCHEMA);
    let objects = || {
        world.one::<String>("SELECT group_concat(name || coalesce(sql, ''), ';') FROM sqlite_schema WHERE name <> 'sqlite_sequence'")
    };
    let before = objects();
    let capture = world.capture(&["a", "b"]);
    opened(&capture).await;
    assert_ne!(objects(), before);
    capture.remove_log().await.unwrap();
    assert_eq!(objects(), before);
    capture.remove_log().await.unwrap();
    assert_eq!(capture.lag().await.unwrap(), None);
    // With the last consumer goes the log.
    opened(&capture).await;
    capture.forget_consumer().await.unwrap();
    assert_eq!(objects(), before);
    world.run("INSERT INTO a VALUES (1, 1)");
}

#[tokio::test]
async fn a_log_of_another_layout_is_refused() {
    let world = World::new(SCHEMA);
    opened(&world.capture(&["a"])).await;
    world.run("UPDATE syncline_log SET layout = 2");
    let fault = world.capture(&["a"]).open().await.unwrap_err();
    assert!(
        fault.message().contains("its change log has layout 2, this version of Syncline writes 1"),
        "{fault}"
    );
}

#[tokio::test]
async fn a_dropped_stream_leaves_nothing_running() {
    let world = World::new(SCHEMA);
    let (mut stream, ..) = opened(&world.capture(&["a"])).await;
    assert!(silent(&mut stream.changes).await);
    drop(stream);
    // Where every connection is closed, the last one removes the write-ahead log.
    let wal = world.path().with_extension("db-wal");
    for _ in 0..100 {
        if !wal.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a connection stayed open");
}
