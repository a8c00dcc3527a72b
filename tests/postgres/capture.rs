//! What the stream tells.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use syncline::change::{Captured, Position};
use syncline::connectors::postgres::PostgresCapture;
use syncline::error::FaultKind;
use syncline::ports::ChangeCapture;

use super::world::{World, checkpoint, fault, let_go, next, opened, table, told, transaction};

const BOOKS: &str = "CREATE TABLE books(id int PRIMARY KEY, title text)";

#[tokio::test]
async fn b4_changes_carry_both_images_and_each_transaction_ends_in_a_checkpoint() {
    let Some(world) = World::new(BOOKS) else { return };
    world.run("ALTER TABLE books REPLICA IDENTITY FULL; INSERT INTO books VALUES (1, 'before the slot')");
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    let idle = checkpoint(&mut stream.changes).await;

    world.run(
        "BEGIN; INSERT INTO books VALUES (2, 'two'); UPDATE books SET title = 'one' WHERE id = 1; COMMIT",
    );
    let (changes, position) = transaction(&mut stream.changes).await;
    assert!(position > idle, "{position} {idle}");
    assert!(changes.iter().all(|change| change.table == table("books")));
    assert!(changes[0].visibility.is_some() && changes[0].visibility == changes[1].visibility);
    assert!(changes[0].visibility.unwrap().0 < position.0);
    let images: Vec<_> = changes.iter().map(|change| (&change.before, &change.after)).collect();
    assert_eq!(
        format!("{images:?}"),
        concat!(
            r#"[(None, Some({"id": 2, "title": "two"})), "#,
            r#"(Some({"id": 1, "title": "before the slot"}), Some({"id": 1, "title": "one"}))]"#
        )
    );
    world.run("UPDATE books SET id = 7 WHERE id = 2");
    assert_eq!(
        told(&mut stream.changes).await,
        [r#"+public.books/7 before {"id": 2, "title": "two"} after {"id": 7, "title": "two"}"#]
    );
    world.run("DELETE FROM books WHERE id = 7");
    assert_eq!(told(&mut stream.changes).await, [r#"-public.books/7 before {"id": 7, "title": "two"}"#]);
}

#[tokio::test]
async fn b4_without_a_full_identity_the_key_alone_is_told_of_old_rows() {
    let Some(world) = World::new(&format!(
        "{BOOKS}; CREATE TABLE links(a int NOT NULL, b int NOT NULL, note text, UNIQUE (b, a));
         ALTER TABLE links REPLICA IDENTITY USING INDEX links_b_a_key"
    )) else {
        return;
    };
    let mut stream = opened(&world.capture(&["books", "links"])).await;
    world.run("INSERT INTO books VALUES (1, 'one'); INSERT INTO links VALUES (1, 2, 'x')");
    assert_eq!(told(&mut stream.changes).await, [r#"+public.books/1 after {"id": 1, "title": "one"}"#]);
    assert_eq!(
        told(&mut stream.changes).await,
        [r#"+public.links/[2, 1] after {"a": 1, "b": 2, "note": "x"}"#],
        "the key is that of the index, in its order"
    );
    world.run("UPDATE books SET title = 'eins'; UPDATE books SET id = 2; DELETE FROM books");
    for expected in [
        r#"+public.books/1 before {"id": 1} after {"id": 1, "title": "eins"}"#,
        r#"+public.books/2 before {"id": 1} after {"id": 2, "title": "eins"}"#,
        r#"-public.books/2 before {"id": 2}"#,
    ] {
        assert_eq!(told(&mut stream.changes).await, [expected]);
    }
    world.run("UPDATE links SET b = 3; DELETE FROM links");
    assert_eq!(
        told(&mut stream.changes).await,
        [r#"+public.links/[3, 1] before {"a": 1, "b": 2} after {"a": 1, "b": 3, "note": "x"}"#]
    );
    assert_eq!(told(&mut stream.changes).await, [r#"-public.links/[3, 1] before {"a": 1, "b": 3}"#]);
}

#[tokio::test]
async fn b4_values_stored_out_of_line_are_known_where_the_server_tells_them() {
    let schema = "CREATE TABLE whole(id int PRIMARY KEY, long text, n int);
         CREATE TABLE keyed(id int PRIMARY KEY, long text, n int);
         CREATE TABLE long_key(id text PRIMARY KEY, n int);
         ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER long SET STORAGE EXTERNAL;
         ALTER TABLE keyed ALTER long SET STORAGE EXTERNAL; ALTER TABLE long_key ALTER id SET STORAGE EXTERNAL;";
    let Some(world) = World::new(schema) else { return };
    let mut stream = opened(&world.capture(&["whole", "keyed", "long_key"])).await;
    for name in ["whole", "keyed"] {
        world.run(&format!("INSERT INTO {name} VALUES (1, repeat('x', 100000), 1)"));
        transaction(&mut stream.changes).await;
        world.run(&format!("UPDATE {name} SET n = 2"));
        let (changes, _) = transaction(&mut stream.changes).await;
        let after = changes[0].after.as_ref().unwrap();
        let known = (name == "whole").then(|| syncline::Value::from("x".repeat(100_000)));
        assert_eq!((after.value("long"), after.value("n")), (known.as_ref(), Some(&2.into())), "{name}");
    }
    let key = format!("{}{}", "k".repeat(2_400), "é");
    world.run(&format!("INSERT INTO long_key VALUES ('{key}', 1)"));
    transaction(&mut stream.changes).await;
    world.run("UPDATE long_key SET n = 2; DELETE FROM long_key");
    for _ in ["update", "delete"] {
        let (changes, _) = transaction(&mut stream.changes).await;
        assert_eq!(changes[0].key, key.as_str().into());
    }
}

#[tokio::test]
async fn what_is_rolled_back_or_not_captured_is_not_told() {
    let Some(world) = World::new(&format!("{BOOKS}; CREATE TABLE others(id int PRIMARY KEY)")) else {
        return;
    };
    world.run("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)");
    let capture = world.capture(&["books"]).publication("everything");
    let mut stream = opened(&capture).await;
    world.run(
        "BEGIN; INSERT INTO books VALUES (1, 'no'); ROLLBACK; INSERT INTO others VALUES (1);
         BEGIN; INSERT INTO books VALUES (2, 'yes'); SAVEPOINT s; INSERT INTO books VALUES (3, 'no'); ROLLBACK TO s;
         INSERT INTO books VALUES (4, 'yes'); COMMIT",
    );
    let told = told(&mut stream.changes).await;
    assert_eq!(
        told,
        [
            r#"+public.books/2 after {"id": 2, "title": "yes"}"#,
            r#"+public.books/4 after {"id": 4, "title": "yes"}"#
        ]
    );
}

#[tokio::test]
async fn b7_an_idle_stream_moves_on_with_the_log() {
    let Some(world) = World::new(&format!("{BOOKS}; CREATE TABLE others(id int)")) else { return };
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    let mut last = checkpoint(&mut stream.changes).await;
    capture.confirm(&stream.stream, last).await.unwrap();
    for _ in 0..3 {
        world.run("INSERT INTO others SELECT generate_series(1, 1000)");
        let end: u64 =
            world.one("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8 - 65536").parse().unwrap();
        while last.0 < end {
            let position = checkpoint(&mut stream.changes).await;
            assert!(position > last);
            last = position;
            capture.confirm(&stream.stream, last).await.unwrap();
        }
    }
    // What was confirmed is what the server was told.
    let slot = world.slot();
    let confirmed = format!(
        "SELECT (confirmed_flush_lsn - '0/0')::int8 FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    let started = tokio::time::Instant::now();
    while world.one(&confirmed).parse::<u64>().unwrap() < last.0 {
        assert!(started.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn b1_what_was_not_confirmed_is_given_again_and_nothing_that_was() {
    let Some(world) = World::new(BOOKS) else { return };
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    world.run("INSERT INTO books VALUES (1, 'one'); INSERT INTO books VALUES (2, 'two'); INSERT INTO books VALUES (3, 'three')");
    let (first, position) = transaction(&mut stream.changes).await;
    let (second, _) = transaction(&mut stream.changes).await;
    assert_eq!((first[0].key.clone(), second[0].key.clone()), (1.into(), 2.into()));
    capture.confirm(&stream.stream, position).await.unwrap();
    // Another stream's position is not this one's.
    capture.confirm(&"postgres/1/another".parse().unwrap(), Position(u64::MAX)).await.unwrap();
    let name = stream.stream.clone();
    drop(stream);
    let mut again = reopened(&capture).await;
    assert_eq!(again.stream, name);
    let (changes, _) = transaction(&mut again.changes).await;
    assert_eq!(changes[0].key, 2.into());
    // The last word of a stream is not lost with it: what is confirmed when nothing streams is confirmed too.
    let (_, position) = transaction(&mut again.changes).await;
    drop(again);
    let_go(&world).await;
    capture.confirm(&name, position).await.unwrap();
    world.run("INSERT INTO books VALUES (4, 'four')");
    let mut again = reopened(&capture).await;
    let (changes, _) = transaction(&mut again.changes).await;
    assert_eq!(changes[0].key, 4.into());
}

/// Opens once the connection before has let the slot go.
pub(crate) async fn reopened(capture: &PostgresCapture) -> syncline::Opened {
    let started = tokio::time::Instant::now();
    loop {
        match capture.open().await {
            Ok(opened) => return opened,
            Err(fault) => {
                assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
                assert!(started.elapsed() < Duration::from_secs(60), "{fault}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[tokio::test]
async fn b11_a_large_transaction_passes_through_a_bounded_buffer() {
    let Some(world) =
        World::alone("wal_sender_timeout = 3s", "CREATE TABLE books(id int PRIMARY KEY, title text)")
    else {
        return;
    };
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    world.run("INSERT INTO books SELECT i, repeat('x', 1000) || i FROM generate_series(1, 100000) i");
    let Captured::Change(first) = next_change(&mut stream.changes).await else { unreachable!() };
    assert_eq!(first.key, 1.into());
    // Not polled for longer than the server waits for a sign of life: the connection is kept alive, and little is read.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waits = world.one(
        "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'syncline'",
    );
    assert_eq!(waits, "WalSenderWriteData", "the server waits for room to send");
    let (changes, _) = transaction(&mut stream.changes).await;
    assert_eq!(changes.len(), 99_999);
    assert_eq!(changes[99_998].key, 100_000.into());
}

async fn next_change(changes: &mut syncline::ports::ChangeStream) -> Captured {
    loop {
        if let change @ Captured::Change(_) = next(changes).await.unwrap() {
            return change;
        }
    }
}

#[tokio::test]
async fn schema_changes_between_two_changes_are_followed() {
    let Some(world) = World::new(BOOKS) else { return };
    let mut stream = opened(&world.capture(&["books"])).await;
    world.run(
        "INSERT INTO books VALUES (1, 'one'); ALTER TABLE books ADD year int DEFAULT 1900;
         INSERT INTO books VALUES (2, 'two', 2000); ALTER TABLE books DROP title;
         INSERT INTO books VALUES (3, 3000); ALTER TABLE books RENAME year TO published;
         BEGIN; UPDATE books SET published = 1 WHERE id = 3; ALTER TABLE books ADD title text;
         UPDATE books SET title = 'three' WHERE id = 3; COMMIT",
    );
    for expected in [
        r#"[+public.books/1 after {"id": 1, "title": "one"}]"#,
        r#"[+public.books/2 after {"id": 2, "title": "two", "year": 2000}]"#,
        r#"[+public.books/3 after {"id": 3, "year": 3000}]"#,
        concat!(
            r#"[+public.books/3 before {"id": 3} after {"id": 3, "published": 1}, "#,
            r#"+public.books/3 before {"id": 3} after {"id": 3, "published": 1, "title": "three"}]"#
        ),
    ] {
        let told: Vec<String> = told(&mut stream.changes).await;
        assert_eq!(format!("[{}]", told.join(", ")), expected);
    }
    world.run("ALTER TABLE books RENAME id TO number; INSERT INTO books VALUES (4)");
    let fault = fault(&mut stream.changes).await;
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    assert!(
        fault.message().contains(r#"the key or the replica identity of "public"."books" was changed"#),
        "{fault}"
    );
}

#[tokio::test]
async fn partitions_are_told_as_their_root() {
    let schema =
        "CREATE TABLE sales(day date, id int, cents int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE sales_2030 PARTITION OF sales FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
         CREATE TABLE odd(id int NOT NULL, day date NOT NULL, cents int);
         ALTER TABLE odd ADD PRIMARY KEY (id, day);
         ALTER TABLE sales ATTACH PARTITION odd FOR VALUES FROM ('2031-01-01') TO ('2032-01-01')";
    let Some(world) = World::new(schema) else { return };
    let mut stream = opened(&world.capture(&["sales"])).await;
    world.run("INSERT INTO sales VALUES ('2030-05-05', 1, 100); INSERT INTO odd(day, id, cents) VALUES ('2031-06-06', 2, 200)");
    for expected in [
        r#"+public.sales/[1, "2030-05-05"] after {"day": "2030-05-05", "id": 1, "cents": 100}"#,
        r#"+public.sales/[2, "2031-06-06"] after {"day": "2031-06-06", "id": 2, "cents": 200}"#,
    ] {
        assert_eq!(told(&mut stream.changes).await, [expected]);
    }
    // From one partition to another it is a deletion and an insertion.
    world.run("UPDATE sales SET day = '2031-01-02' WHERE id = 1");
    assert_eq!(
        told(&mut stream.changes).await,
        [
            r#"-public.sales/[1, "2030-05-05"] before {"day": "2030-05-05", "id": 1}"#,
            r#"+public.sales/[1, "2031-01-02"] after {"day": "2031-01-02", "id": 1, "cents": 100}"#,
        ]
    );
    world.run(
        "CREATE TABLE sales_2032 PARTITION OF sales FOR VALUES FROM ('2032-01-01') TO ('2033-01-01');
         INSERT INTO sales VALUES ('2032-01-01', 3, 1)",
    );
    assert_eq!(told(&mut stream.changes).await.len(), 1, "a partition that came later is told too");
}

#[tokio::test]
async fn tables_of_one_name_and_identifiers_of_any_characters() {
    let schema = r#"CREATE TABLE books(id int PRIMARY KEY); CREATE SCHEMA "Old ""shop"""; CREATE SCHEMA other;
         CREATE TABLE "Old ""shop""".books("Se""lect" int, "x.y" text, "группа" text, PRIMARY KEY ("Se""lect", "x.y"));
         CREATE TABLE other.books(id int PRIMARY KEY)"#;
    let Some(world) = World::new(schema) else { return };
    let odd = syncline::TableName::in_schema("Old \"shop\"", "books").unwrap();
    // The role's search path finds the one that is named without a schema.
    let plain = syncline::TableName::new("books").unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), [plain, odd.clone()]);
    let mut stream = opened(&capture).await;
    world.run(
        r#"INSERT INTO other.books VALUES (9); INSERT INTO "Old ""shop""".books VALUES (1, 'a''b', 'б');
           INSERT INTO books VALUES (2)"#,
    );
    let (changes, _) = transaction(&mut stream.changes).await;
    assert_eq!(changes[0].table, odd);
    assert_eq!(
        format!("{:?}", changes[0].after.as_ref().unwrap()),
        r#"{"Se\"lect": 1, "x.y": "a'b", "группа": "б"}"#
    );
    assert_eq!(super::world::keys(&capture, &odd, None).await, [changes[0].key.clone()]);
    assert_eq!(told(&mut stream.changes).await, [r#"+public.books/2 after {"id": 2}"#]);
}

#[tokio::test]
async fn b5_a_truncation_is_an_item_of_its_transaction() {
    let Some(world) = World::new(&format!("{BOOKS}; CREATE TABLE others(id int PRIMARY KEY)")) else {
        return;
    };
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    world.run("TRUNCATE others; BEGIN; INSERT INTO books VALUES (2, 'two'); TRUNCATE books, others; INSERT INTO books VALUES (3, 'three'); COMMIT");
    let mut told = Vec::new();
    let mut tokens = Vec::new();
    loop {
        match next(&mut stream.changes).await.unwrap() {
            Captured::Change(change) => {
                tokens.push(change.visibility);
                told.push(format!("{:?}", change.operation));
            }
            Captured::Truncate(truncation) => {
                tokens.push(truncation.visibility);
                told.push(truncation.tables.iter().map(ToString::to_string).collect());
            }
            Captured::Checkpoint(_) if told.len() >= 3 => break,
            Captured::Checkpoint(_) | Captured::More => {}
        }
    }
    assert_eq!(told, ["Upsert", "public.books", "Upsert"], "tables that are not captured are left out");
    assert!(tokens[0].is_some() && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[tokio::test]
async fn a10_a_backlog_is_told_from_silence() {
    let Some(world) = World::new(BOOKS) else { return };
    let capture = world.capture(&["books"]);
    drop(opened(&capture).await);
    // One large transaction, and many small ones.
    world.run("INSERT INTO books SELECT i, 'old' FROM generate_series(1, 5000) i");
    world.run(&"UPDATE books SET title = 'new' WHERE id = 1;".repeat(500));
    let mut stream = reopened(&capture).await;
    let (mut last, mut changes) = (None, 0);
    while changes < 5_500 || !matches!(last, Some(Captured::Checkpoint(_))) {
        let item = match stream.changes.next().now_or_never() {
            Some(item) => item.unwrap().unwrap(),
            None => {
                assert_eq!(last, Some(Captured::More), "pending after {changes} changes of the backlog");
                next(&mut stream.changes).await.unwrap()
            }
        };
        changes += usize::from(matches!(item, Captured::Change(_)));
        last = Some(item);
    }
    // The log goes on a little behind the last commit, and then there is nothing: the stream waits behind a checkpoint.
    loop {
        match stream.changes.next().now_or_never() {
            Some(item) => last = Some(item.unwrap().unwrap()),
            None if matches!(last, Some(Captured::Checkpoint(_))) => break,
            None => last = Some(next(&mut stream.changes).await.unwrap()),
        }
    }
}
