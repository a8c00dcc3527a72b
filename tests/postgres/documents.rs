//! Documents by SQL.

use syncline::change::{Change, Visibility};
use syncline::connectors::postgres::{
    IndexDefinition, PostgresCapture, PostgresDocuments, PostgresError, Related,
};
use syncline::document::{Content, DocumentId};
use syncline::error::FaultKind;
use syncline::ports::{Built, ChangeCapture, DocumentBuilder, Field, FieldKind};
use syncline::row::Key;
use syncline::{Document, Fault};

use super::world::{World, opened, table, transaction};

pub(crate) const SHOP: &str = "
    CREATE TABLE books(id int PRIMARY KEY, title text, published bool DEFAULT true);
    CREATE TABLE authors(id text PRIMARY KEY, name text);
    CREATE TABLE books_authors(book_id int, author_id text, PRIMARY KEY (book_id, author_id));
    CREATE TABLE reviews(id int PRIMARY KEY, book_id numeric, stars int);
    ALTER TABLE reviews REPLICA IDENTITY FULL;
    INSERT INTO books VALUES (1, 'Emma', true), (2, 'Sanditon', true), (3, 'Draft', false);
    INSERT INTO authors VALUES ('ja', 'Jane Austen'), ('md', 'Marie Dobbs');
    INSERT INTO books_authors VALUES (1, 'ja'), (2, 'ja'), (2, 'md');
    INSERT INTO reviews VALUES (1, 1, 5), (2, 1.0, 4), (3, NULL, 1)";

const BOOKS: &str = "
    SELECT b.id, jsonb_build_object(
        'title', b.title,
        'authors', (SELECT coalesce(jsonb_agg(a.name ORDER BY a.id), '[]') FROM books_authors ba
                    JOIN authors a ON a.id = ba.author_id WHERE ba.book_id = b.id),
        'stars', (SELECT avg(r.stars)::float8 FROM reviews r WHERE r.book_id = b.id))
    FROM books b WHERE b.id = ANY($1) AND b.published; ";

pub(crate) fn books() -> IndexDefinition {
    IndexDefinition::new("books", "books", BOOKS)
        .unwrap()
        .field(Field::new("title", FieldKind::Text))
        .related(Related::columns("books_authors", ["book_id"]).unwrap())
        .related(Related::columns("reviews", ["book_id"]).unwrap())
        .related(
            Related::query(
                "authors",
                ["id"],
                "SELECT author_id, book_id FROM books_authors WHERE author_id = ANY($1)",
            )
            .unwrap(),
        )
}

async fn documents(world: &World, definition: IndexDefinition) -> PostgresDocuments {
    PostgresDocuments::open(&world.server(), [definition]).await.unwrap()
}

pub(crate) fn id(key: impl Into<Key>) -> DocumentId {
    DocumentId::new("books".parse().unwrap(), key)
}

pub(crate) fn told(built: &[Built<String>]) -> Vec<String> {
    built
        .iter()
        .map(|built| match built {
            Ok(Document { id, content: Content::Upsert(body) }) => format!("{id} {body}"),
            Ok(Document { id, content: Content::Delete }) => format!("{id} gone"),
            Err(failed) => format!("{} {:?}: {}", failed.id, failed.fault.kind(), failed.fault),
        })
        .collect()
}

/// As the engine does: again and again until the change is visible.
async fn resolved(documents: &PostgresDocuments, changes: &[Change]) -> syncline::ports::Resolved {
    loop {
        match documents.resolve_many(changes).await {
            Ok(resolved) => return resolved,
            Err(fault) => assert_eq!(fault, Fault::not_yet()),
        }
    }
}

#[tokio::test]
async fn b4_a_change_leads_to_every_document_it_touches() {
    let Some(world) = World::new(SHOP) else { return };
    let documents = documents(&world, books()).await;
    let tables: Vec<String> = documents.tables().map(|table| table.to_string()).collect();
    assert_eq!(tables, ["public.authors", "public.books", "public.books_authors", "public.reviews"]);
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    capture.prepare(&documents.needs()).await.unwrap();
    let mut stream = opened(&capture).await;
    for (statement, touched) in [
        ("INSERT INTO books VALUES (4, 'New', true)", "[[books/4]]"),
        ("UPDATE books SET id = 5 WHERE id = 4", "[[books/4, books/5]]"),
        ("DELETE FROM books WHERE id = 5", "[[books/5]]"),
        ("INSERT INTO reviews VALUES (9, 1.00, 3)", "[[books/1]]"),
        ("UPDATE reviews SET book_id = 2 WHERE id = 9", "[[books/1, books/2]]"),
        ("DELETE FROM reviews WHERE id = 9", "[[books/2]]"),
        ("UPDATE reviews SET stars = 2 WHERE book_id IS NULL", "[[]]"),
        ("UPDATE authors SET name = 'J. Austen' WHERE id = 'ja'", "[[books/1, books/2]]"),
        ("UPDATE authors SET name = name || '!'", "[[books/2], [books/1, books/2]]"),
        ("UPDATE authors SET id = 'JA' WHERE id = 'md'", "[[books/2]]"),
        ("DELETE FROM books_authors WHERE author_id = 'ja'", "[[books/1], [books/2]]"),
        ("UPDATE authors SET name = 'nobody' WHERE id = 'ja'", "[[]]"),
        // What leads to the documents came in the same transaction.
        (
            "BEGIN; INSERT INTO books_authors VALUES (3, 'x'); INSERT INTO authors VALUES ('x', 'X'); COMMIT",
            "[[books/3], [books/3]]",
        ),
    ] {
        world.run(statement);
        let (changes, _) = transaction(&mut stream.changes).await;
        let mut expected = syncline::ports::Resolved::default();
        let mut one_by_one = Vec::new();
        for change in &changes {
            resolved(&documents, std::slice::from_ref(change)).await;
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
    let Some(world) = World::new(SHOP) else { return };
    let documents = documents(&world, books()).await;
    let ids = [
        id(2),
        id(3),
        id(77),
        id(1),
        id("1"),
        id(true),
        id(1_i64 << 40),
        id(Key::new([1.into(), 2.into()]).unwrap()),
    ];
    let built = documents.build_many(&ids, None).await;
    // 2⁴⁰ is no value of the key's type, which only the server knows: that document fails alone.
    let built = told(&built.unwrap());
    assert_eq!(
        built[..6],
        [
            r#"books/2 {"stars": null, "title": "Sanditon", "authors": ["Jane Austen", "Marie Dobbs"]}"#,
            "books/3 gone",
            "books/77 gone",
            r#"books/1 {"stars": 4.5, "title": "Emma", "authors": ["Jane Austen"]}"#,
            "books/'1 gone",
            "books/true gone",
        ]
    );
    assert!(built[6].starts_with("books/1099511627776 Content: "), "{built:?}");
    assert_eq!(built[7], "books/1:2 gone");
    world.run("DELETE FROM books WHERE id = 2; UPDATE books SET published = true WHERE id = 3");
    assert_eq!(told(&documents.build_many(&ids[..1], None).await.unwrap()), ["books/2 gone"]);
    let body = documents.build(&id(3)).await.unwrap();
    assert_eq!(body.content, Content::Upsert(r#"{"stars": null, "title": "Draft", "authors": []}"#.into()));
    assert_eq!(documents.body_bytes(&"ü".to_owned()), 2);
}

#[tokio::test]
async fn bodies_may_be_json_text_or_a_row() {
    let Some(world) = World::new(SHOP) else { return };
    for (body, expected) in [
        ("json_build_object('t', title)", r#"{"t" : "Emma"}"#),
        ("'{\"t\": 1}'", r#"{"t": 1}"#),
        ("'{\"t\": 2}'::text", r#"{"t": 2}"#),
        ("b", r#"{"id":1,"title":"Emma","published":true}"#),
    ] {
        let sql = format!("SELECT id, {body} FROM books b WHERE id = ANY($1)");
        let documents = documents(&world, IndexDefinition::new("books", "books", sql).unwrap()).await;
        assert_eq!(
            told(&documents.build_many(&[id(1)], None).await.unwrap()),
            [format!("books/1 {expected}")]
        );
    }
}

#[tokio::test]
async fn b6_nothing_is_built_from_a_snapshot_that_does_not_show_the_change() {
    // A commit that waits for a standby is in the log, and streamed, but no other session sees it yet.
    let Some(world) = World::alone("synchronous_standby_names = ''", SHOP) else { return };
    let documents = documents(&world, books()).await;
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    let mut stream = opened(&capture).await;
    world.run("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'; SELECT pg_reload_conf(); SELECT pg_sleep(0.3)");
    let mut writer = world.session();
    writer.run("SET synchronous_commit = on");
    writer.send("UPDATE books SET title = 'Emma, again' WHERE id = 1");
    let (changes, _) = transaction(&mut stream.changes).await;
    let token = changes[0].visibility;
    assert!(world.one("SELECT title FROM books WHERE id = 1") == "Emma", "nobody else sees it");
    let fault = documents.build_many(&[id(1)], token).await.unwrap_err();
    assert_eq!((&fault, fault.kind()), (&Fault::not_yet(), FaultKind::Transient));
    // A child's change that leads over a query waits too.
    let link = Change::upsert(table("authors"), "ja")
        .with_after([("id".parse().unwrap(), "ja".into())].into_iter().collect())
        .with_visibility(token.unwrap());
    assert_eq!(documents.resolve_many(std::slice::from_ref(&link)).await.unwrap_err(), Fault::not_yet());
    // What does not depend on it need not wait.
    assert_eq!(
        documents.build_many(&[id(2)], Some(Visibility(token.unwrap().0 - 1))).await.unwrap().len(),
        1
    );

    world.run("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()");
    let built = loop {
        match documents.build_many(&[id(1)], token).await {
            Ok(built) => break told(&built),
            Err(fault) => assert_eq!(fault, Fault::not_yet()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(built[0].contains("Emma, again"), "{built:?}");
    documents.resolve_many(&[link]).await.unwrap();
}

#[tokio::test]
async fn b9_a_document_that_cannot_be_made_fails_alone() {
    let Some(world) = World::new(SHOP) else { return };
    world.run("INSERT INTO books VALUES (0, 'none', true)");
    let sql = "SELECT id, jsonb_build_object('x', 10 / id) FROM books WHERE id = ANY($1)";
    let documents = documents(&world, IndexDefinition::new("books", "books", sql).unwrap()).await;
    let built = told(&documents.build_many(&[id(1), id(0), id(9), id(2)], None).await.unwrap());
    assert_eq!(
        (&*built[0], &*built[2], &*built[3]),
        (r#"books/1 {"x": 10}"#, "books/9 gone", r#"books/2 {"x": 5}"#)
    );
    assert!(built[1].starts_with("books/0 Content: ") && built[1].contains("index `books`"), "{built:?}");
    assert!(built[1].contains("division by zero"), "{built:?}");
    assert_eq!(documents.build(&id(0)).await.unwrap_err().kind(), FaultKind::Content);
}

#[tokio::test]
async fn b15_bodies_that_are_no_objects_and_keys_that_were_not_asked_for() {
    let Some(world) = World::new(SHOP) else { return };
    let build = async |sql: &str| {
        documents(&world, IndexDefinition::new("books", "books", sql).unwrap())
            .await
            .build_many(&[id(1), id(2)], None)
            .await
    };
    let wrong = told(
        &build("SELECT k, CASE k WHEN 1 THEN '[]' ELSE '{}' END::jsonb FROM unnest($1) k").await.unwrap(),
    );
    assert!(
        wrong[0].starts_with("books/1 Content: its body is another kind of JSON than an object"),
        "{wrong:?}"
    );
    assert_eq!(wrong[1], "books/2 {}");
    let twice = told(
        &build("SELECT k, jsonb_build_object('a', x) FROM unnest($1) k, generate_series(1, 3 - k) x")
            .await
            .unwrap(),
    );
    assert_eq!(twice, ["books/1 Content: the SQL yields more than one body for it", r#"books/2 {"a": 1}"#]);
    let same = told(&build("SELECT k, '{}' FROM unnest($1) k, books").await.unwrap());
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
    let Some(world) = World::new(SHOP) else { return };
    let documents = documents(&world, books()).await;
    documents.build(&id(1)).await.unwrap();
    // A column that came, under statements that are prepared already.
    world.run("ALTER TABLE books ADD year int");
    documents.build(&id(1)).await.unwrap();
    world.run("ALTER TABLE books RENAME COLUMN title TO name");
    let fault = documents.build_many(&[id(1), id(2)], None).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(fault.message().contains("building documents of index `books`"), "{fault}");
    assert!(fault.message().contains("column b.title does not exist"), "{fault}");
}

/// On a connection that has prepared nothing yet.
#[tokio::test]
async fn b15_sql_that_never_fitted_says_so_itself() {
    let Some(world) = World::new(SHOP) else { return };
    let documents = documents(&world, books()).await;
    world.run("ALTER TABLE books RENAME COLUMN title TO name");
    let fault = documents.build_many(&[id(1), id(2)], None).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(fault.message().contains("column b.title does not exist"), "{fault}");
}

#[tokio::test]
async fn b8_a_statement_whose_result_changed_its_type_is_prepared_anew() {
    let Some(world) = World::new(SHOP) else { return };
    let sql = "SELECT id, b FROM books b WHERE id = ANY($1)";
    let documents = documents(&world, IndexDefinition::new("books", "books", sql).unwrap()).await;
    documents.build(&id(1)).await.unwrap();
    world.run("ALTER TABLE books ADD year int DEFAULT 1815");
    let built = loop {
        match documents.build(&id(1)).await {
            Ok(built) => break built,
            Err(fault) => assert_eq!(fault.kind(), FaultKind::Transient, "{fault}"),
        }
    };
    assert!(matches!(built.content, Content::Upsert(body) if body.contains(r#""year":1815"#)));
}

#[tokio::test]
async fn b15_definitions_are_checked_against_the_database() {
    let Some(world) = World::new(SHOP) else { return };
    world.run("CREATE VIEW titles AS SELECT id, title FROM books; CREATE UNLOGGED TABLE fast(id int PRIMARY KEY); CREATE TABLE notes(t text); CREATE TABLE tagged(t text[] PRIMARY KEY)");
    let plain = |sql: &str| IndexDefinition::new("books", "books", sql).unwrap();
    let keys = "SELECT k, '{}' FROM unnest($1) k";
    for (definition, what) in [
        (IndexDefinition::new("books", "boks", keys).unwrap(), "there is no table `boks`"),
        (IndexDefinition::new("books", "titles", keys).unwrap(), "`titles` is a view, not a table"),
        (IndexDefinition::new("books", "fast", keys).unwrap(), "`fast` is unlogged or temporary"),
        (IndexDefinition::new("books", "notes", keys).unwrap(), r#""public"."notes" has no primary key"#),
        (
            IndexDefinition::new("books", "tagged", keys).unwrap(),
            "the column `t`, whose type has no array type",
        ),
        (IndexDefinition::new("books", "a b c", keys).unwrap(), "invalid name syntax"),
        (plain("SELECT"), "the SQL of index `books` yields 0 column(s) instead of 2"),
        (plain("SELEC 1"), "compiling the SQL of index `books`"),
        (plain("SELECT k FROM unnest($1) k"), "the SQL of index `books` yields 1 column(s) instead of 2"),
        (plain("SELECT $2::int, '{}'"), "the SQL of index `books` has 2 parameter(s); 1 can be given"),
        (plain("DELETE FROM books RETURNING id, title"), "compiling the SQL of index `books`"),
        (
            plain(keys).related(Related::columns("reviews", ["book"]).unwrap()),
            "index `books`, related table `reviews`: it has no column `book`; it has `id`, `book_id`, `stars`",
        ),
        (
            plain(keys).related(Related::columns("reviews", ["id", "book_id"]).unwrap()),
            "index `books`, related table `reviews`: 2 column(s) were named, and the key of the root has 1",
        ),
        (
            plain(keys).related(Related::query("reviews", ["id"], "SELECT 1").unwrap()),
            "the SQL of index `books`, related table `reviews` yields 1 column(s) instead of 2",
        ),
        (plain(keys).related(Related::columns("rviews", ["id"]).unwrap()), "there is no table `rviews`"),
    ] {
        let error = PostgresDocuments::open(&world.server(), [definition]).await.unwrap_err();
        let fault = Fault::from(error);
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
        assert!(fault.message().contains(what), "{what}: {fault}");
        assert!(fault.message().contains(&world.database), "{fault}");
    }
    let twice = PostgresDocuments::open(&world.server(), [plain(keys), plain(keys)]).await.unwrap_err();
    assert!(twice.to_string().contains("the index `books` is defined twice"));
    let none = PostgresDocuments::open(&world.server(), []).await.unwrap_err();
    assert!(none.to_string().contains("no index was defined"));

    let documents = documents(&world, books()).await;
    let fault = documents.build(&DocumentId::new("films".parse().unwrap(), 1)).await.unwrap_err();
    assert!(fault.message().contains("no index `films` is defined, but its document films/1 was asked for"));
    let fault = documents.resolve(&Change::upsert(table("reviews"), 1)).await.unwrap_err();
    assert!(fault.message().contains("+public.reviews/1 carries no row image"), "{fault}");
    assert_eq!(documents.resolve(&Change::upsert(table("books"), 1)).await.unwrap(), [id(1)]);
    assert_eq!(documents.resolve(&Change::upsert(table("elsewhere"), 1)).await.unwrap(), []);
}

#[tokio::test]
async fn b15_a_table_that_is_read_must_be_declared() {
    let Some(world) = World::new(SHOP) else { return };
    world.run(
        "CREATE VIEW signed AS SELECT ba.book_id, a.name FROM books_authors ba JOIN authors a ON a.id = ba.author_id;
         CREATE SCHEMA other; CREATE TABLE other.reviews(id int PRIMARY KEY, book_id int)",
    );
    let open =
        async |definition: IndexDefinition| PostgresDocuments::open(&world.server(), [definition]).await;
    let plain = |sql: &str| IndexDefinition::new("books", "books", sql).unwrap();
    let refused = async |definition: IndexDefinition, table: &str| {
        let error = open(definition).await.unwrap_err();
        let PostgresError::Undeclared { table: named, .. } = &error else { panic!("{error}") };
        assert_eq!(named, table);
        error.to_string()
    };
    let reviewed = plain(
        "WITH rated AS (SELECT book_id, avg(stars) AS stars FROM reviews GROUP BY book_id)
         SELECT k, jsonb_build_object('stars', rated.stars) FROM unnest($1) k LEFT JOIN rated ON rated.book_id = k",
    );
    let message = refused(reviewed.clone(), "public.reviews").await;
    assert!(message.contains("declare it as related, or as constant"), "{message}");
    open(reviewed.clone().related(Related::columns("public.reviews", ["book_id"]).unwrap())).await.unwrap();
    let documents = open(reviewed.clone().constant("reviews")).await.unwrap();
    assert_eq!(documents.tables().collect::<Vec<_>>(), [table("books")], "a constant table is not captured");
    // One of the same name in another schema is another table.
    refused(reviewed.constant("other.reviews"), "public.reviews").await;

    // A view is read through; naming the view itself declares nothing.
    let signed = plain("SELECT book_id, jsonb_build_object('by', name) FROM signed WHERE book_id = ANY($1)")
        .constant("signed")
        .related(Related::columns("books_authors", ["book_id"]).unwrap());
    refused(signed.clone(), "public.authors").await;
    open(signed.constant("authors")).await.unwrap();

    // The way back is a dependency too.
    let led_back = plain("SELECT k, '{}' FROM unnest($1) k").related(
        Related::query(
            "authors",
            ["id"],
            "SELECT author_id, book_id FROM books_authors WHERE author_id = ANY($1)",
        )
        .unwrap(),
    );
    let message = refused(led_back, "public.books_authors").await;
    assert!(message.contains("the SQL of index `books`, related table `public.authors`, reads"), "{message}");
}

#[tokio::test]
async fn a_key_that_only_changed_its_spelling_leaves_a_tombstone() {
    let Some(world) = World::new(
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE users(name text COLLATE folded PRIMARY KEY); INSERT INTO users VALUES ('Ada')",
    ) else {
        return;
    };
    let sql = "SELECT name, '{}' FROM users WHERE name = ANY($1)";
    let documents = documents(&world, IndexDefinition::new("books", "users", sql).unwrap()).await;
    let mut stream = opened(&world.capture(&["users"])).await;
    world.run("UPDATE users SET name = 'ADA'");
    let (changes, _) = transaction(&mut stream.changes).await;
    let ids = documents.resolve(&changes[0]).await.unwrap();
    assert_eq!(format!("{ids:?}"), "[books/ADA, books/Ada]");
    assert_eq!(told(&documents.build_many(&ids, None).await.unwrap()), ["books/ADA {}", "books/Ada gone"]);
    assert_eq!(told(&documents.build_many(&ids[1..], None).await.unwrap()), ["books/Ada gone"]);
}

#[tokio::test]
async fn many_builds_run_side_by_side_over_few_connections() {
    let Some(world) = World::new(SHOP) else { return };
    let server = world.server().connections(2);
    let documents = PostgresDocuments::open(&server, [books()]).await.unwrap();
    let emma = id(1);
    let built = futures::future::join_all((0..40).map(|_| documents.build(&emma))).await;
    assert!(built.into_iter().all(|document| matches!(document.unwrap().content, Content::Upsert(_))));
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'syncline'",
        world.database
    );
    assert_eq!(world.one(&sessions), "2");
    assert_eq!(world.one(&format!("{sessions} AND state <> 'idle'")), "0", "none holds on to its snapshot");
}
