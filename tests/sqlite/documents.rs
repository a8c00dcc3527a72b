use syncline::change::Change;
use syncline::connectors::sqlite::{IndexDefinition, Related, SqliteDocuments, SqliteError};
use syncline::document::{Content, DocumentId};
use syncline::error::FaultKind;
use syncline::ports::{Built, ChangeCapture, DocumentBuilder, Field, FieldKind};
use syncline::row::Key;

use super::world::{World, opened, table, to_checkpoint};

const SHOP: &str = "
    CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT, published INT DEFAULT 1);
    CREATE TABLE authors(id TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE books_authors(book_id INT, author_id TEXT, PRIMARY KEY (book_id, author_id));
    CREATE TABLE reviews(id INTEGER PRIMARY KEY, book_id TEXT, stars INT);
    INSERT INTO books VALUES (1, 'Emma', 1), (2, 'Sanditon', 1), (3, 'Draft', 0);
    INSERT INTO authors VALUES ('ja', 'Jane Austen'), ('md', 'Marie Dobbs');
    INSERT INTO books_authors VALUES (1, 'ja'), (2, 'ja'), (2, 'md');
    INSERT INTO reviews VALUES (1, '1', 5), (2, '1', 4), (3, NULL, 1)";

const BOOKS: &str = "
    SELECT b.id, json_object(
        'title', b.title,
        'authors', json((SELECT json_group_array(a.name ORDER BY a.id) FROM books_authors ba
                         JOIN authors a ON a.id = ba.author_id WHERE ba.book_id = b.id)),
        'stars', (SELECT avg(r.stars) FROM reviews r WHERE r.book_id = b.id))
    FROM syncline_keys k JOIN books b ON b.id = k.k1 WHERE b.published";

fn books() -> IndexDefinition {
    IndexDefinition::new("books", "Books", BOOKS)
        .unwrap()
        .field(Field::new("title", FieldKind::Text))
        .related(Related::columns("books_authors", ["Book_Id"]).unwrap())
        .related(Related::columns("reviews", ["book_id"]).unwrap())
        .related(
            Related::query("authors", ["id"], "SELECT book_id FROM books_authors WHERE author_id = ?1")
                .unwrap(),
        )
}

fn documents(world: &World, definition: IndexDefinition) -> SqliteDocuments {
    SqliteDocuments::open(world.path(), [definition]).unwrap()
}

fn id(key: impl Into<Key>) -> DocumentId {
    DocumentId::new("books".parse().unwrap(), key)
}

fn told(built: &[Built<String>]) -> Vec<String> {
    built
        .iter()
        .map(|built| match built {
            Ok(document) => match &document.content {
                Content::Upsert(body) => format!("{} {body}", document.id),
                Content::Delete => format!("{} gone", document.id),
            },
            Err(failed) => format!("{} {:?}: {}", failed.id, failed.fault.kind(), failed.fault),
        })
        .collect()
}

#[tokio::test]
async fn b4_a_change_leads_to_every_document_it_touches() {
    let world = World::new(SHOP);
    let documents = documents(&world, books());
    let tables: Vec<String> = documents.tables().map(|table| table.to_string()).collect();
    assert_eq!(tables, ["authors", "books", "books_authors", "reviews"]);
    let capture =
        syncline::connectors::sqlite::SqliteCapture::new(world.path(), "search", documents.tables());
    capture.prepare(&documents.needs()).await.unwrap();
    let (mut stream, ..) = opened(&capture).await;
    for (statement, touched) in [
        ("INSERT INTO books VALUES (4, 'New', 1)", "[[books/4]]"),
        ("UPDATE books SET id = 5 WHERE id = 4", "[[books/4, books/5]]"),
        ("DELETE FROM books WHERE id = 5", "[[books/5]]"),
        ("INSERT INTO reviews VALUES (9, '1', 3)", "[[books/1]]"),
        ("UPDATE reviews SET book_id = '2' WHERE id = 9", "[[books/1, books/2]]"),
        ("DELETE FROM reviews WHERE id = 9", "[[books/2]]"),
        ("REPLACE INTO reviews VALUES (2, '2', 4)", "[[books/1], [books/2]]"),
        ("UPDATE reviews SET stars = 2 WHERE book_id IS NULL", "[[]]"),
        ("UPDATE authors SET name = 'J. Austen' WHERE id = 'ja'", "[[books/1, books/2]]"),
        ("UPDATE authors SET id = 'JA' WHERE id = 'md'", "[[books/2]]"),
        ("DELETE FROM books_authors WHERE author_id = 'ja'", "[[books/1], [books/2]]"),
        ("UPDATE authors SET name = 'nobody' WHERE id = 'ja'", "[[]]"),
    ] {
        world.run(statement);
        let (changes, _) = to_checkpoint(&mut stream.changes).await;
        let mut expected = syncline::ports::Resolved::default();
        let mut one_by_one = Vec::new();
        for change in &changes {
            let ids = documents.resolve(change).await.unwrap();
            expected.push(ids.clone());
            one_by_one.push(ids);
        }
        assert_eq!(format!("{one_by_one:?}"), touched, "{statement}");
        assert_eq!(documents.resolve_many(&changes).await.unwrap(), expected, "{statement}");
    }
}

#[tokio::test]
async fn bodies_are_what_the_sql_says_and_a_row_that_is_gone_is_a_tombstone() {
    let world = World::new(SHOP);
    let documents = documents(&world, books());
    let bool_key = Key::from(true);
    let ids =
        [id(2), id(3), id(77), id(1), id("1"), id(bool_key), id(Key::new([1.into(), 2.into()]).unwrap())];
    let built = documents.build_many(&ids, None).await.unwrap();
    assert_eq!(
        told(&built),
        [
            r#"books/2 {"title":"Sanditon","authors":["Jane Austen","Marie Dobbs"],"stars":null}"#,
            "books/3 gone",
            "books/77 gone",
            r#"books/1 {"title":"Emma","authors":["Jane Austen"],"stars":4.5}"#,
            "books/'1 gone",
            "books/true gone",
            "books/1:2 gone",
        ]
    );
    world.run("DELETE FROM books WHERE id = 2; UPDATE books SET published = 1 WHERE id = 3");
    assert_eq!(told(&documents.build_many(&ids[..1], None).await.unwrap()), ["books/2 gone"]);
    let body = documents.build(&id(3)).await.unwrap();
    assert_eq!(body.content, Content::Upsert(r#"{"title":"Draft","authors":[],"stars":null}"#.into()));
    assert_eq!(documents.body_bytes(&"ü".to_owned()), 2);
}

#[tokio::test]
async fn b9_a_document_that_cannot_be_made_fails_alone() {
    let world = World::new(SHOP);
    world.run("INSERT INTO books VALUES (4, x'ff00', 1)");
    let documents = documents(&world, books());
    let built = told(&documents.build_many(&[id(1), id(4), id(9)], None).await.unwrap());
    assert!(built[0].starts_with(r#"books/1 {"title":"Emma""#), "{built:?}");
    assert!(built[1].starts_with("books/4 Content: ") && built[1].contains("index `books`"), "{built:?}");
    assert!(built[1].contains("JSON cannot hold BLOB values"), "{built:?}");
    assert_eq!(built[2], "books/9 gone");
    assert_eq!(documents.build(&id(4)).await.unwrap_err().kind(), FaultKind::Content);
}

#[tokio::test]
async fn b15_bodies_that_are_no_objects_and_keys_that_were_not_asked_for() {
    let world = World::new(SHOP);
    let build = async |sql: &str| {
        documents(&world, IndexDefinition::new("books", "books", sql).unwrap())
            .build_many(&[id(1), id(2)], None)
            .await
    };
    let wrong = told(&build("SELECT k1, iif(k1 = 1, '[]', '{}') FROM syncline_keys").await.unwrap());
    assert!(wrong[0].starts_with("books/1 Content: its body is no JSON object"), "{wrong:?}");
    assert_eq!(wrong[1], "books/2 {}");
    let twice = told(&build("SELECT k1, '{\"a\":' || x || '}' FROM syncline_keys, (SELECT 1 AS x UNION SELECT k1 FROM syncline_keys)").await.unwrap());
    assert_eq!(twice[0], "books/1 Content: the SQL yields more than one body for it");
    let same = told(&build("SELECT k1, '{}' FROM syncline_keys, books").await.unwrap());
    assert_eq!(same, ["books/1 {}", "books/2 {}"]);
    let fault = build("SELECT id, '{}' FROM books").await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(
        fault.message().contains("the SQL of index `books` yields the key 3, which it was not asked for"),
        "{fault}"
    );
}

#[tokio::test]
async fn b15_sql_that_stops_fitting_is_fatal_and_names_the_index() {
    let world = World::new(SHOP);
    let documents = documents(&world, books());
    documents.build(&id(1)).await.unwrap();
    world.run("ALTER TABLE books RENAME COLUMN title TO name");
    let fault = documents.build_many(&[id(1), id(2)], None).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(
        fault.message().contains("building documents of index `books`: no such column: b.title"),
        "{fault}"
    );
}

#[tokio::test]
async fn b15_definitions_are_checked_against_the_database() {
    let world = World::new(SHOP);
    let open = |definition: IndexDefinition| SqliteDocuments::open(world.path(), [definition]).unwrap_err();
    let plain = |sql: &str| IndexDefinition::new("books", "books", sql).unwrap();
    let keys = "SELECT k1, '{}' FROM syncline_keys";
    for (definition, what) in [
        (IndexDefinition::new("books", "boks", keys).unwrap(), "there is no table `boks`"),
        (plain("SELECT"), "compiling the SQL of index `books`: incomplete input"),
        (plain("SELECT k1 FROM syncline_keys"), "the SQL of index `books` yields 1 column(s) instead of 2"),
        (plain("SELECT ?1, '{}'"), "the SQL of index `books` has 1 parameter(s); 0 can be given"),
        (plain("DELETE FROM books RETURNING id, title"), "the SQL of index `books` must not write"),
        (
            plain(keys).related(Related::columns("reviews", ["book"]).unwrap()),
            "index `books`, related table `reviews`: it has no column `book`; it has `id`, `book_id`, `stars`",
        ),
        (
            plain(keys).related(Related::columns("reviews", ["id", "book_id"]).unwrap()),
            "index `books`, related table `reviews`: 2 column(s) were named, and the key of the root has 1",
        ),
        (
            plain(keys).related(Related::query("reviews", ["id"], "SELECT ?2").unwrap()),
            "the SQL of index `books`, related table `reviews` has 2 parameter(s); 1 can be given",
        ),
        (plain(keys).related(Related::columns("rviews", ["id"]).unwrap()), "there is no table `rviews`"),
    ] {
        let message = syncline::error::Fault::from(open(definition)).message().to_owned();
        assert!(message.contains(what), "{message}");
        assert!(message.contains("shop.db"), "{message}");
    }
    let twice = SqliteDocuments::open(world.path(), [plain(keys), plain(keys)]).unwrap_err();
    assert!(twice.to_string().contains("the index `books` is defined twice"));
    assert!(
        SqliteDocuments::open(world.path(), []).unwrap_err().to_string().contains("no index was defined")
    );

    let documents = documents(&world, books());
    let fault = documents.build(&DocumentId::new("films".parse().unwrap(), 1)).await.unwrap_err();
    assert!(fault.message().contains("no index `films` is defined, but its document films/1 was asked for"));
    let fault = documents.resolve(&Change::upsert(table("reviews"), 1)).await.unwrap_err();
    assert!(fault.message().contains("+reviews/1 carries no row image"), "{fault}");
    assert_eq!(documents.resolve(&Change::upsert(table("books"), 1)).await.unwrap(), [id(1)]);
    assert_eq!(documents.resolve(&Change::upsert(table("elsewhere"), 1)).await.unwrap(), []);
}

#[tokio::test]
async fn b15_a_table_that_is_read_must_be_declared() {
    let world = World::new(SHOP);
    world.run(
        "CREATE TABLE genres(id INTEGER PRIMARY KEY, name TEXT);
         CREATE VIEW signed AS SELECT ba.book_id, a.name FROM books_authors ba JOIN authors a ON a.id = ba.author_id",
    );
    let open = |definition: IndexDefinition| SqliteDocuments::open(world.path(), [definition]);
    let plain = |sql: &str| IndexDefinition::new("books", "Books", sql).unwrap();
    let refused = |definition: IndexDefinition, table: &str| {
        let error = open(definition).unwrap_err();
        let SqliteError::Undeclared { table: named, .. } = &error else { panic!("{error}") };
        assert_eq!(named, table);
        error.to_string()
    };

    let reviewed = plain(
        "WITH rated AS (SELECT book_id, avg(stars) AS stars FROM reviews GROUP BY book_id)
         SELECT k.k1, json_object('stars', rated.stars) FROM syncline_keys k JOIN rated ON rated.book_id = k.k1",
    );
    let message = refused(reviewed.clone(), "reviews");
    assert!(
        message.contains("shop.db`: the SQL of index `books` reads the table `reviews`, which"),
        "{message}"
    );
    assert!(message.contains("`.related(...)`") && message.contains("`.constant(\"reviews\")`"), "{message}");
    open(reviewed.clone().related(Related::columns("Reviews", ["book_id"]).unwrap())).unwrap();
    let documents = open(reviewed.constant("REVIEWS").unwrap()).unwrap();
    let followed: Vec<String> = documents.tables().map(|table| table.to_string()).collect();
    assert_eq!(followed, ["books"], "a constant table is not captured");

    // A view is read through; naming the view itself declares nothing.
    let signed =
        plain("SELECT book_id, json_object('by', name) FROM signed JOIN syncline_keys ON book_id = k1")
            .constant("signed")
            .unwrap()
            .related(Related::columns("books_authors", ["book_id"]).unwrap());
    refused(signed.clone(), "authors");
    open(signed.constant("authors").unwrap()).unwrap();

    // A virtual table cannot be captured. What it reads for itself, when a connection meets it first, is its own affair.
    world.run("CREATE VIRTUAL TABLE found USING fts5(title)");
    let found =
        plain("SELECT f.rowid, json_object('t', f.title) FROM found f JOIN syncline_keys ON f.rowid = k1");
    refused(found.clone(), "found");
    open(found.constant("found").unwrap()).unwrap();

    // The way back is a dependency too.
    let led_back = plain("SELECT k1, '{}' FROM syncline_keys").related(
        Related::query("authors", ["id"], "SELECT book_id FROM books_authors WHERE author_id = ?1").unwrap(),
    );
    let message = refused(led_back, "books_authors");
    assert!(message.contains("the SQL of index `books`, related table `authors`, reads"), "{message}");

    // Of several indexes, each must declare its own.
    let genres =
        IndexDefinition::new("genres", "genres", "SELECT id, '{}' FROM genres JOIN syncline_keys ON id = k1")
            .unwrap();
    let with_genre =
        plain("SELECT b.id, json_object('genre', g.name) FROM books b JOIN genres g ON g.id = b.id");
    let error = SqliteDocuments::open(world.path(), [genres, with_genre]).unwrap_err();
    assert!(error.to_string().contains("index `books` reads the table `genres`"), "{error}");
}

#[tokio::test]
async fn composite_keys_and_several_indexes_are_built_in_one_snapshot() {
    let world = World::new(
        "CREATE TABLE prices(country TEXT, sku INT, cents INT, PRIMARY KEY (sku, country)) WITHOUT ROWID;
         CREATE TABLE offers(id INTEGER PRIMARY KEY, sku INT, country TEXT);
         INSERT INTO prices VALUES ('de', 1, 100), ('fr', 1, 120), ('de', 2, 300)",
    );
    let prices = IndexDefinition::new(
        "prices",
        "prices",
        "SELECT sku, country, json_object('cents', cents) FROM prices
         WHERE (sku, country) IN (SELECT k1, k2 FROM syncline_keys)",
    )
    .unwrap()
    .related(Related::columns("offers", ["sku", "country"]).unwrap());
    let offers = IndexDefinition::new(
        "offers",
        "offers",
        "SELECT id, json_object('sku', sku) FROM offers JOIN syncline_keys ON id = k1",
    )
    .unwrap();
    let documents = SqliteDocuments::open(world.path(), [prices, offers]).unwrap();
    let capture = world.capture(&["prices", "offers"]);
    let (mut stream, ..) = opened(&capture).await;
    world.run("INSERT INTO offers VALUES (7, 1, 'fr')");
    let (changes, _) = to_checkpoint(&mut stream.changes).await;
    let mut ids = documents.resolve(&changes[0]).await.unwrap();
    assert_eq!(format!("{ids:?}"), "[offers/7, prices/1:fr]");
    ids.push(DocumentId::new("prices".parse().unwrap(), Key::new([2.into(), "fr".into()]).unwrap()));
    let built = documents.build_many(&ids, None).await.unwrap();
    let mut told = told(&built);
    told.sort();
    assert_eq!(told, [r#"offers/7 {"sku":1}"#, r#"prices/1:fr {"cents":120}"#, "prices/2:fr gone"]);

    let scopes = documents.backfill_scopes();
    assert_eq!(scopes[0].root.table, table("prices"));
    assert_ne!(scopes[0].definition, scopes[1].definition);
    assert_eq!(documents.index_mappings().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_that_only_changed_its_spelling_leaves_a_tombstone() {
    let world = World::new(
        "CREATE TABLE users(name TEXT PRIMARY KEY COLLATE NOCASE); INSERT INTO users VALUES ('Ada')",
    );
    let sql = "SELECT name, '{}' FROM users JOIN syncline_keys ON name = k1";
    let documents = documents(&world, IndexDefinition::new("users", "users", sql).unwrap());
    let capture = world.capture(&["users"]);
    let (mut stream, ..) = opened(&capture).await;
    world.run("UPDATE users SET name = 'ADA'");
    let (changes, _) = to_checkpoint(&mut stream.changes).await;
    let ids = documents.resolve(&changes[0]).await.unwrap();
    assert_eq!(format!("{ids:?}"), "[users/ADA, users/Ada]");
    let built = documents.build_many(&ids, None).await.unwrap();
    assert_eq!(told(&built), ["users/ADA {}", "users/Ada gone"]);
    assert_eq!(told(&documents.build_many(&ids[1..], None).await.unwrap()), ["users/Ada gone"]);
}

#[tokio::test]
async fn many_builds_run_side_by_side() {
    let world = World::new(SHOP);
    let documents = documents(&world, books());
    let emma = id(1);
    let built = futures::future::join_all((0..40).map(|_| documents.build(&emma))).await;
    assert!(built.into_iter().all(|document| matches!(document.unwrap().content, Content::Upsert(_))));
    // None of their connections, which wait for the next builds, holds on to what it read.
    world.run("PRAGMA journal_mode = WAL; DELETE FROM books");
    assert_eq!(world.one::<i64>("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    assert_eq!(told(&documents.build_many(&[emma], None).await.unwrap()), ["books/1 gone"]);
}
