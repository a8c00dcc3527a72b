use std::time::Duration;

use syncline::change::{Captured, Position};
use syncline::error::FaultKind;
use syncline::ports::{ChangeCapture, TableNeeds};

use super::world::{World, next, opened, silent, table, to_checkpoint, told};

const BOOKS: &str = "CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT)";

#[tokio::test]
async fn b4_changes_carry_both_images_and_each_transaction_ends_in_a_checkpoint() {
    for write_ahead_log in [true, false] {
        let world = World::new(BOOKS);
        world.run("INSERT INTO books VALUES (1, 'before the log')");
        let capture = world.capture(&["books"]).write_ahead_log(write_ahead_log);
        let (mut stream, changes, position) = opened(&capture).await;
        assert_eq!((changes.len(), position), (0, Position(0)), "an idle stream has a checkpoint");
        let mode: String = world.one("PRAGMA journal_mode");
        assert_eq!(mode, if write_ahead_log { "wal" } else { "delete" });

        world.run(
            "BEGIN; INSERT INTO books VALUES (2, 'two'); UPDATE books SET title = 'one' WHERE id = 1; COMMIT",
        );
        let (changes, position) = to_checkpoint(&mut stream.changes).await;
        assert_eq!(
            format!("{changes:?}"),
            concat!(
                r#"[+books/2 after {"id": 2, "title": "two"}, "#,
                r#"+books/1 before {"id": 1, "title": "before the log"} after {"id": 1, "title": "one"}]"#
            )
        );
        assert_eq!(position, Position(2));

        world.run("UPDATE books SET id = 7 WHERE id = 2");
        assert_eq!(
            told(&mut stream.changes).await,
            [r#"+books/7 before {"id": 2, "title": "two"} after {"id": 7, "title": "two"}"#]
        );
        world.run("DELETE FROM books WHERE id = 7");
        assert_eq!(told(&mut stream.changes).await, [r#"-books/7 before {"id": 7, "title": "two"}"#]);
        // A DELETE without a condition fires the triggers too.
        world.run("DELETE FROM books");
        assert_eq!(told(&mut stream.changes).await, [r#"-books/1 before {"id": 1, "title": "one"}"#]);
        assert!(silent(&mut stream.changes).await);
    }
}

#[tokio::test]
async fn what_is_rolled_back_is_not_captured() {
    let world = World::new(BOOKS);
    let (mut stream, ..) = opened(&world.capture(&["books"])).await;
    world.run("BEGIN; INSERT INTO books VALUES (1, 'one'); ROLLBACK");
    assert!(silent(&mut stream.changes).await);
    world.run("BEGIN; INSERT INTO books VALUES (2, 'two'); SAVEPOINT s; INSERT INTO books VALUES (3, 'no'); ROLLBACK TO s; COMMIT");
    assert_eq!(told(&mut stream.changes).await, [r#"+books/2 after {"id": 2, "title": "two"}"#]);
}

#[tokio::test]
async fn every_commit_is_noticed() {
    let world = World::new(BOOKS);
    let (mut stream, ..) = opened(&world.capture(&["books"])).await;
    let writer = world.connection();
    for id in 0..20 {
        assert!(silent(&mut stream.changes).await);
        writer.execute("INSERT INTO books VALUES (?1, 'x')", [id]).unwrap();
        assert_eq!(
            told(&mut stream.changes).await,
            [format!(r#"+books/{id} after {{"id": {id}, "title": "x"}}"#)]
        );
    }
}

/// A reader between two pages is pending, and must not be taken for one that has nothing more.
#[tokio::test]
async fn b14_a_capture_that_is_still_reading_its_log_says_so() {
    let world = World::new(BOOKS);
    let capture = world.capture(&["books"]).page_rows(2);
    let (stream, ..) = opened(&capture).await;
    drop(stream);
    world.run("INSERT INTO books VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')");
    let mut stream = capture.open().await.unwrap();
    let mut items = String::new();
    while !items.contains('@') {
        items += match futures::StreamExt::next(&mut stream.changes).await.unwrap().unwrap() {
            Captured::Change(_) => "change ",
            Captured::Truncate(_) => "truncate ",
            Captured::Checkpoint(_) => "@",
            Captured::More => "more ",
        };
    }
    assert_eq!(items, "more change change more change change more change @");
}

#[tokio::test]
async fn a1_composite_keys_generated_columns_and_tables_without_rowid() {
    let world = World::new(
        "CREATE TABLE prices(country TEXT, sku INT, cents INT, euros REAL AS (cents / 100.0) STORED,
             label TEXT AS (country || sku), PRIMARY KEY (sku, country)) WITHOUT ROWID;
         CREATE TABLE strict(a INTEGER, b ANY, PRIMARY KEY (b, a)) STRICT",
    );
    let (mut stream, ..) = opened(&world.capture(&["prices", "strict"])).await;
    world.run("INSERT INTO prices(country, sku, cents) VALUES ('de', 5, 150)");
    assert_eq!(
        told(&mut stream.changes).await,
        [
            r#"+prices/[5, "de"] after {"country": "de", "sku": 5, "cents": 150, "euros": 1.5, "label": "de5"}"#
        ]
    );
    world.run("UPDATE prices SET cents = 300, country = 'fr'");
    assert_eq!(
        told(&mut stream.changes).await,
        [concat!(
            r#"+prices/[5, "fr"] before {"country": "de", "sku": 5, "cents": 150, "euros": 1.5, "label": "de5"}"#,
            r#" after {"country": "fr", "sku": 5, "cents": 300, "euros": 3.0, "label": "fr5"}"#
        )]
    );
    world.run("INSERT INTO strict VALUES (1, 2.0)");
    assert_eq!(told(&mut stream.changes).await, [r#"+strict/[2.0, 1] after {"a": 1, "b": 2.0}"#]);
}

#[tokio::test]
async fn identifiers_may_be_anything_that_sqlite_takes() {
    let world = World::new(
        r#"CREATE TABLE "or""der; --"("se""lect" INTEGER PRIMARY KEY, "new.x" TEXT UNIQUE, "1 'two'" , "группа" TEXT)"#,
    );
    let name = "or\"der; --";
    let (mut stream, ..) = opened(&world.capture(&[name])).await;
    world.run(r#"INSERT INTO "or""der; --" VALUES (1, 'a', x'00', 'б')"#);
    world.run(r#"INSERT OR REPLACE INTO "or""der; --" VALUES (2, 'a', 5, '')"#);
    let mut told = Vec::new();
    while told.len() < 3 {
        told.extend(to_checkpoint(&mut stream.changes).await.0);
    }
    assert_eq!(told[0].table, table(name));
    assert_eq!(
        format!("{:?}", told[0].after.as_ref().unwrap()),
        r#"{"se\"lect": 1, "new.x": "a", "1 'two'": 0x00, "группа": "б"}"#
    );
    assert_eq!(told[1].before, told[0].after, "the replaced row");
}

#[tokio::test]
async fn b7_what_a_consumer_does_not_capture_still_moves_it_on() {
    let world = World::new(&format!("{BOOKS}; CREATE TABLE reviews(id INTEGER PRIMARY KEY, book_id INT)"));
    let (mut books, ..) = opened(&world.consumer("books", &["books"])).await;
    let (mut reviews, ..) = opened(&world.consumer("reviews", &["reviews"])).await;
    world.run("INSERT INTO reviews VALUES (1, 9)");
    assert_eq!(told(&mut reviews.changes).await, [r#"+reviews/1 after {"id": 1, "book_id": 9}"#]);
    let (changes, position) = to_checkpoint(&mut books.changes).await;
    assert_eq!((changes.len(), position), (0, Position(1)));
}

#[tokio::test]
async fn b11_a_transaction_of_50_000_rows_passes_page_by_page_and_pins_nothing() {
    let world = World::new(BOOKS);
    let capture = world.capture(&["books"]).page_rows(500);
    let (mut stream, ..) = opened(&capture).await;
    world.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
         INSERT INTO books SELECT i, 'book ' || i FROM n",
    );
    for _ in 0..1_250 {
        assert!(matches!(next(&mut stream.changes).await.unwrap(), Captured::Change(_)));
    }
    // In the middle of the third page: no snapshot is held, so that the whole write-ahead log can be moved away.
    let busy: i64 = world.one("PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(busy, 0);
    // And the rest was not read ahead: a record that is touched up by hand is seen as it is now.
    world.run("UPDATE syncline_changes SET v1 = 'late' WHERE id IN (1501, 50000)");
    let (changes, position) = to_checkpoint(&mut stream.changes).await;
    assert_eq!((changes.len(), position), (48_750, Position(50_000)));
    let told = |at: usize| format!("{:?}", changes[at]);
    assert_eq!(told(250), r#"+books/1501 after {"id": 1501, "title": "late"}"#);
    assert_eq!(told(48_749), r#"+books/50000 after {"id": 50000, "title": "late"}"#);
    let lag = capture.lag().await.unwrap().unwrap();
    assert!((500_000..5_000_000).contains(&lag), "{lag}");
    capture.confirm(&stream.stream, position).await.unwrap();
    assert_eq!(capture.lag().await.unwrap(), Some(0));
    assert_eq!(world.one::<i64>("SELECT count(*) FROM syncline_changes"), 0);
}

#[tokio::test]
async fn pages_are_bounded_by_bytes_too() {
    let world = World::new("CREATE TABLE files(id INTEGER PRIMARY KEY, content BLOB)");
    let (mut stream, ..) = opened(&world.capture(&["files"])).await;
    world.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
         INSERT INTO files SELECT i, zeroblob(3000000) FROM n",
    );
    next(&mut stream.changes).await.unwrap();
    world.run("UPDATE syncline_changes SET v1 = 'late' WHERE id > 2");
    let (changes, position) = to_checkpoint(&mut stream.changes).await;
    assert_eq!((changes.len(), position), (19, Position(20)));
    let third = changes[1].after.as_ref().unwrap().value("content");
    assert!(third == Some(&"late".into()), "20 images of 3 MB were read at once");
}

#[tokio::test]
async fn b15_errors_name_what_is_wrong_and_where() {
    let world = World::new(&format!(
        "{BOOKS}; CREATE TABLE notes(text TEXT); CREATE VIEW titles AS SELECT title FROM books;
         CREATE VIRTUAL TABLE words USING fts5(text)"
    ));
    let path = world.path();
    for (tables, what) in [
        (&["boks"][..], "there is no table `boks`"),
        (
            &["notes"],
            "`notes` has no PRIMARY KEY, so that nothing names its rows (a hidden rowid does not last)",
        ),
        (&["books", "titles"], "`titles` is a view, not a table"),
        (&["words"], "`words` is a virtual, not a table"),
        (&[], "no tables were given to capture"),
    ] {
        let fault = world.capture(tables).open().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
        assert!(fault.message().contains(what), "{fault}");
        assert!(fault.message().contains(path.to_str().unwrap()), "{fault}");
        assert_eq!(world.capture(tables).prepare(&[]).await.unwrap_err().message(), fault.message());
    }
    assert!(
        world
            .consumer("", &["books"])
            .open()
            .await
            .unwrap_err()
            .message()
            .contains("the consumer name is empty")
    );
    let long = "x".repeat(300);
    let fault = world.consumer(&long, &["books"]).open().await.unwrap_err();
    assert!(fault.message().contains("the consumer name `xxx"), "{fault}");

    let capture = world.capture(&["books"]);
    let needs =
        |name: &str, column: &str| TableNeeds { table: table(name), before: vec![column.parse().unwrap()] };
    capture.prepare(&[needs("books", "title")]).await.unwrap();
    let fault = capture.prepare(&[needs("books", "titel")]).await.unwrap_err();
    assert!(
        fault
            .message()
            .contains("`books` has no column `titel`, which the documents need; it has `id`, `title`")
    );
    let fault = capture.prepare(&[needs("reviews", "id")]).await.unwrap_err();
    assert!(fault.message().contains("`reviews` is not captured; name it among the tables"), "{fault}");

    std::fs::remove_file(&path).unwrap();
    let fault = capture.prepare(&[]).await.unwrap_err();
    assert!(fault.message().starts_with("there is no SQLite database at `"), "{fault}");
    assert!(!path.exists(), "nothing was created");
}

#[tokio::test]
async fn b15_a_corrupt_record_is_named() {
    for (harm, what) in [
        ("op = 'x'", "record 1 of its change log, of `books`: its operation is unknown"),
        ("op = 5, v0 = x'ff'", "record 1 of its change log, of `books`: its operation is unknown"),
        ("shape = 77", "record 1 of its change log has shape 77, which is not there"),
        ("v0 = CAST(x'ff' AS TEXT)", "record 1 of its change log, of `books`: its key is not valid UTF-8"),
    ] {
        let world = World::new(BOOKS);
        let (mut stream, ..) = opened(&world.capture(&["books"])).await;
        world.run(&format!(
            "BEGIN; INSERT INTO books VALUES (1, 'x'); UPDATE syncline_changes SET {harm}; COMMIT"
        ));
        let fault = next(&mut stream.changes).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{harm}");
        assert!(fault.message().contains(what), "{fault}");
    }
}

#[tokio::test]
async fn b8_a_locked_database_is_transient() {
    let world = World::new(BOOKS);
    let capture = world.capture(&["books"]).busy_timeout(Duration::from_millis(20));
    let writer = world.connection();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let fault = capture.open().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    writer.execute_batch("ROLLBACK").unwrap();
    let (stream, ..) = opened(&capture).await;
    world.run("INSERT INTO books VALUES (1, 'x')");
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fault = capture.confirm(&stream.stream, Position(1)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
}
