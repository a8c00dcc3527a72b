//! The resume point, and when it is another.

use std::time::Duration;

use syncline::connectors::postgres::PostgresCapture;
use syncline::error::FaultKind;
use syncline::ports::{ChangeCapture, TableNeeds};
use syncline::{Fault, Opened};

use super::capture::reopened;
use super::world::{World, checkpoint, fault, let_go, opened, table, told, transaction};

const BOOKS: &str = "CREATE TABLE books(id int PRIMARY KEY, title text); CREATE TABLE reviews(id int PRIMARY KEY, book_id int)";

#[tokio::test]
async fn b2_a_slot_that_was_dropped_is_another_stream() {
    let Some(world) = World::new(BOOKS) else { return };
    let capture = world.capture(&["books"]);
    let first = opened(&capture).await;
    let slot = world.slot();
    assert!(slot.starts_with(&format!("syncline_{}_", world.consumer())), "{slot}");
    let system = world.one("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(first.stream.as_str(), format!("postgres/{system}/{slot}"));
    let name = first.stream.clone();
    drop(first);
    // Opened again it is the same, by another process too.
    let again = reopened(&world.capture(&["books"])).await;
    assert_eq!(again.stream, name);
    drop(again);
    let_go(&world).await;
    world.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    let another = reopened(&world.capture(&["books"])).await;
    assert_ne!(another.stream, name);
    assert_eq!(
        world
            .one(&format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{}'", world.database)),
        "1"
    );
}

#[tokio::test]
async fn b2_a_slot_made_again_under_its_name_is_noticed_by_the_run_that_had_it() {
    let Some(world) = World::new(BOOKS) else { return };
    let capture = world.capture(&["books"]);
    let mut stream = opened(&capture).await;
    let position = checkpoint(&mut stream.changes).await;
    capture.confirm(&stream.stream, position).await.unwrap();
    let (slot, name) = (world.slot(), stream.stream.clone());
    drop(stream);
    let_go(&world).await;
    world.run(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); INSERT INTO books VALUES (1, 'missed');
         SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    let again = reopened(&capture).await;
    assert_ne!(again.stream, name);
    assert_ne!(world.slot(), slot);
}

#[tokio::test]
async fn b2_a_slot_that_the_server_invalidated_is_another_stream() {
    let settings =
        "max_slot_wal_keep_size = 1MB\nmin_wal_size = 32MB\nmax_wal_size = 32MB\nwal_keep_size = 0";
    let Some(world) = World::alone(settings, BOOKS) else { return };
    let capture = world.capture(&["books"]);
    let stream = opened(&capture).await;
    let (name, slot) = (stream.stream.clone(), world.slot());
    drop(stream);
    let_go(&world).await;
    let status = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while world.one(&status) != "lost" {
        world.run("INSERT INTO reviews SELECT (random() * 2000000000)::int, i FROM generate_series(1, 20000) i ON CONFLICT DO NOTHING; SELECT pg_switch_wal(); CHECKPOINT");
    }
    let mut stream = reopened(&capture).await;
    assert_ne!(stream.stream, name);
    world.run("INSERT INTO books VALUES (1, 'one')");
    assert_eq!(told(&mut stream.changes).await.len(), 1);
    assert_ne!(world.slot(), slot);
}

#[tokio::test]
async fn b2_a_table_that_was_not_published_brings_another_stream() {
    let Some(world) = World::new(BOOKS) else { return };
    let stream = opened(&world.capture(&["books"])).await;
    let publication = format!("syncline_{}", world.consumer());
    let tables = format!(
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = '{publication}'"
    );
    assert_eq!(world.one(&tables), "books");
    let name = stream.stream.clone();
    drop(stream);
    let_go(&world).await;
    // Added by us: changes of it may have been missed.
    let mut stream = reopened(&world.capture(&["books", "reviews"])).await;
    assert_ne!(stream.stream, name);
    assert_eq!(world.one(&tables), "books reviews");
    world.run("INSERT INTO reviews VALUES (1, 1)");
    assert_eq!(told(&mut stream.changes).await.len(), 1);
    let name = stream.stream.clone();
    drop(stream);
    let_go(&world).await;
    // Fewer tables need nothing, and one that only passes a part of the changes on is set right.
    let stream = reopened(&world.capture(&["books"])).await;
    assert_eq!(stream.stream, name);
    drop(stream);
    let_go(&world).await;
    world.run(&format!("ALTER PUBLICATION {publication} SET (publish = 'insert')"));
    let stream = reopened(&world.capture(&["books"])).await;
    assert_ne!(stream.stream, name);
    drop(stream);
    let_go(&world).await;
    // A table that was added by hand before it was needed keeps it.
    world.run(&format!(
        "CREATE TABLE late(id int PRIMARY KEY); ALTER PUBLICATION {publication} ADD TABLE late"
    ));
    let name = reopened(&world.capture(&["books"])).await.stream;
    let_go(&world).await;
    assert_eq!(reopened(&world.capture(&["books", "late"])).await.stream, name);
}

#[tokio::test]
async fn b2_a_table_that_is_dropped_or_unpublished_while_it_is_captured_is_noticed() {
    let Some(world) = World::new(BOOKS) else { return };
    let capture = world.capture(&["books", "reviews"]).check_interval(Duration::from_millis(100));
    let mut stream = opened(&capture).await;
    let name = stream.stream.clone();
    world.run(&format!("ALTER PUBLICATION syncline_{} DROP TABLE reviews", world.consumer()));
    let told = fault(&mut stream.changes).await;
    assert_eq!(told.kind(), FaultKind::Transient);
    assert!(told.message().contains("no longer published as it was"), "{told}");
    drop(stream);
    let mut stream = reopened(&capture).await;
    assert_ne!(stream.stream, name);
    let name = stream.stream.clone();
    // Dropped and made anew it is another table, which nobody publishes.
    world.run("DROP TABLE reviews; CREATE TABLE reviews(id int PRIMARY KEY, book_id int)");
    assert_eq!(fault(&mut stream.changes).await.kind(), FaultKind::Transient);
    drop(stream);
    let mut stream = reopened(&capture).await;
    assert_ne!(stream.stream, name);
    world.run("DROP TABLE reviews");
    assert_eq!(fault(&mut stream.changes).await.kind(), FaultKind::Transient);
    let fault = capture.open().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains(r#"there is no table `"public"."reviews"`"#), "{fault}");
}

#[tokio::test]
async fn b2_a_new_slot_appears_only_once_a_scan_can_see_what_it_does_not_stream() {
    // A commit that waits for a standby stands before the first position of a new slot, and no scan would show its row.
    // The server itself awaits the transactions that it meets when it begins, and those that run when these have ended: so
    // one of each is held open, and the commit comes after both.
    let Some(world) = World::alone("", BOOKS) else { return };
    let consumer = world.consumer();
    world.run(&format!(
        "CREATE PUBLICATION syncline_{consumer} FOR TABLE books WITH (publish_via_partition_root = true);
         ALTER SYSTEM SET synchronous_standby_names = 'nowhere'; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)"
    ));
    let (mut first, mut second, mut writer) = (world.session(), world.session(), world.session());
    first.run("BEGIN; INSERT INTO reviews VALUES (1, 1)");
    let capture = std::sync::Arc::new(world.capture(&["books"]));
    let opening = tokio::spawn({
        let capture = std::sync::Arc::clone(&capture);
        async move { reopened(&capture).await }
    });
    let awaited = async |newest: bool| {
        let order = if newest { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted AND transactionid =
                 (SELECT backend_xid FROM pg_stat_activity WHERE state = 'idle in transaction' ORDER BY xact_start {order} LIMIT 1)"
        );
        while world.one(&sql) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    awaited(false).await;
    second.run("BEGIN; INSERT INTO reviews VALUES (2, 2)");
    first.run("ROLLBACK");
    awaited(true).await;
    writer.send("INSERT INTO books VALUES (1, 'hidden')");
    while world.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.run("ROLLBACK");
    // The draft is made, and says from where it would stream: behind the commit.
    while world.one("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL") == "0"
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.slot(), "", "there is none yet that would be found");
    assert!(!opening.is_finished());
    world.run("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()");
    let Opened { .. } = opening.await.unwrap();
    assert_eq!(super::world::keys(&capture, &table("books"), None).await, [1.into()]);
}

#[tokio::test]
async fn b8_a_slot_that_is_in_use_is_transient() {
    let Some(world) = World::new(BOOKS) else { return };
    let first = world.capture(&["books"]);
    let _stream = opened(&first).await;
    let fault = world.capture(&["books"]).open().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    assert!(
        fault.message().contains("is active for PID") && fault.message().contains("SQLSTATE 55006"),
        "{fault}"
    );
    assert_eq!(world.capture(&["books"]).forget_consumer().await.unwrap_err().kind(), FaultKind::Transient);
    // Whoever begins is told before that, and whoever has it already is not.
    let fault = world.capture(&["books"]).prepare(&[]).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    assert!(fault.message().contains("is followed by another program"), "{fault}");
    first.prepare(&[]).await.unwrap();
}

#[tokio::test]
async fn b15_what_is_missing_is_said_with_the_sql_to_run() {
    let Some(world) = World::new(BOOKS) else { return };
    let db = &world.database;
    world.run(&format!(
        r#"CREATE ROLE "{db} reader" LOGIN; CREATE SCHEMA shut; CREATE TABLE shut.box(id int PRIMARY KEY); CREATE TABLE nothing(id int PRIMARY KEY);
           ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE TABLE keyless(a int, b int)"#
    ));
    let server = world.server_as(&format!("user='{db} reader'"));
    let consumer = world.consumer();
    let capture = |tables: &[&str]| {
        PostgresCapture::new(&server, consumer.clone(), tables.iter().map(|name| table(name)))
    };
    let denied = |fault: Fault, sql: &str| {
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
        assert!(fault.message().contains(&format!("run:\n{sql}")), "{sql}: {fault}");
        sql.to_owned()
    };
    // Each is run, and the next one is asked for.
    let steps = [
        format!(r#"ALTER ROLE "{db} reader" REPLICATION;"#),
        format!(r#"GRANT SELECT ON "public"."books" TO "{db} reader";"#),
        format!(
            "CREATE PUBLICATION \"syncline_{consumer}\" FOR TABLE \"public\".\"books\" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);"
        ),
    ];
    for sql in &steps {
        let fault = capture(&["books"]).open().await.unwrap_err();
        world.run(&denied(fault, sql));
    }
    let stream = opened(&capture(&["books"])).await;
    drop(stream);
    let_go(&world).await;
    let boxed = syncline::TableName::in_schema("shut", "box").unwrap();
    let both = PostgresCapture::new(&server, consumer.clone(), [table("books"), boxed]);
    let fault = both.open().await.unwrap_err();
    world.run(&denied(fault, &format!("GRANT USAGE ON SCHEMA \"shut\" TO \"{db} reader\";\nGRANT SELECT ON \"shut\".\"box\" TO \"{db} reader\";")));
    let fault = both.open().await.unwrap_err();
    world.run(&denied(
        fault,
        &format!("ALTER PUBLICATION \"syncline_{consumer}\" ADD TABLE \"shut\".\"box\";"),
    ));
    drop(reopened(&both).await);

    let capture = |tables: &[&str]| world.capture(tables);
    denied(
        capture(&["nothing"]).open().await.unwrap_err(),
        "ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT;",
    );
    denied(
        capture(&["keyless"]).open().await.unwrap_err(),
        "ALTER TABLE \"public\".\"keyless\" ADD PRIMARY KEY (...);",
    );
    let needs =
        |name: &str, column: &str| [TableNeeds { table: table(name), before: vec![column.parse().unwrap()] }];
    let reviews = capture(&["books", "reviews"]);
    let sql = denied(
        reviews.prepare(&needs("reviews", "book_id")).await.unwrap_err(),
        "ALTER TABLE \"public\".\"reviews\" REPLICA IDENTITY FULL;",
    );
    reviews.prepare(&needs("reviews", "id")).await.unwrap();
    world.run(&sql);
    reviews.prepare(&needs("reviews", "book_id")).await.unwrap();
    let fault = reviews.prepare(&needs("reviews", "book")).await.unwrap_err();
    assert!(
        fault.message().contains("has no column `book`, which the documents need; it has `id`, `book_id`"),
        "{fault}"
    );
    let fault = capture(&["books"]).prepare(&needs("reviews", "id")).await.unwrap_err();
    assert!(fault.message().contains(r#""public"."reviews" is not captured; name it among"#), "{fault}");
    for (consumer, what) in
        [("", "the consumer name \"\""), ("Search", "lower-case"), (&*"x".repeat(40), "37 at the most")]
    {
        let fault =
            PostgresCapture::new(&world.server(), consumer, [table("books")]).open().await.unwrap_err();
        assert!(fault.message().contains(what), "{fault}");
    }
    let fault = capture(&[]).open().await.unwrap_err();
    assert!(fault.message().contains("no tables were given to capture"), "{fault}");
    let fault = capture(&["boks"]).open().await.unwrap_err();
    assert!(fault.message().contains(r#"there is no table `"public"."boks"`"#), "{fault}");
}

#[tokio::test]
async fn b15_publications_that_pass_on_a_part_and_partitions_of_another_identity_are_refused() {
    let Some(world) = World::new(&format!(
        "{BOOKS}; CREATE TABLE sales(id int, day date, cents int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE sales_2030 PARTITION OF sales FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
         ALTER TABLE sales REPLICA IDENTITY FULL"
    )) else {
        return;
    };
    for part in ["books WHERE (id > 5)", "books (id)"] {
        world.run(&format!("DROP PUBLICATION IF EXISTS mine; CREATE PUBLICATION mine FOR TABLE {part} WITH (publish_via_partition_root = true)"));
        let fault = world.capture(&["books"]).publication("mine").open().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal);
        assert!(fault.message().contains("passes on a part of \"public\".\"books\" only"), "{fault}");
        assert!(
            fault.message().contains("ALTER PUBLICATION \"mine\" DROP TABLE \"public\".\"books\";"),
            "{fault}"
        );
    }
    let needs = [TableNeeds { table: table("sales"), before: vec!["cents".parse().unwrap()] }];
    let fault = world.capture(&["sales"]).prepare(&needs).await.unwrap_err();
    assert!(
        fault.message().contains("run:\nALTER TABLE public.sales_2030 REPLICA IDENTITY FULL;"),
        "{fault}"
    );
    world.run("ALTER TABLE public.sales_2030 REPLICA IDENTITY FULL");
    let capture = world.capture(&["sales"]);
    capture.prepare(&needs).await.unwrap();
    let mut stream = opened(&capture).await;
    world.run("INSERT INTO sales VALUES (1, '2030-01-01', 5); DELETE FROM sales");
    transaction(&mut stream.changes).await;
    assert_eq!(
        told(&mut stream.changes).await,
        [r#"-public.sales/[1, "2030-01-01"] before {"id": 1, "day": "2030-01-01", "cents": 5}"#]
    );
}

#[tokio::test]
async fn b15_a_server_that_logs_too_little_says_what_to_set() {
    let Some(world) = World::alone("wal_level = replica", BOOKS) else { return };
    let fault = world.capture(&["books"]).open().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains("its `wal_level` is `replica` instead of `logical`"), "{fault}");
    assert!(fault.message().contains("ALTER SYSTEM SET wal_level = logical;"), "{fault}");
}

#[tokio::test]
async fn rows_that_row_level_security_hides_are_an_error_and_not_skipped() {
    let Some(world) = World::new(BOOKS) else { return };
    let db = &world.database;
    world.run(&format!(
        "CREATE ROLE {db}_limited LOGIN REPLICATION; GRANT SELECT ON books TO {db}_limited;
         INSERT INTO books VALUES (1, 'one'), (2, 'two'); ALTER TABLE books ENABLE ROW LEVEL SECURITY;
         CREATE POLICY first_only ON books USING (id = 1)"
    ));
    let consumer = world.consumer();
    drop(opened(&world.capture(&["books"])).await);
    let_go(&world).await;
    let server = world.server_as(&format!("user={db}_limited"));
    let capture = PostgresCapture::new(&server, consumer, [table("books")]);
    let _stream = reopened(&capture).await;
    let scan = syncline::ports::SnapshotTable::new(table("books"));
    let mut keys = capture.snapshot(&scan, None).await.unwrap();
    let fault = futures::StreamExt::next(&mut keys).await.unwrap().unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains("row-level security"), "{fault}");
}
