//! The quickstart as a person runs it: the tour with few rows, a database of one's own, and what is said of wrong input.

#![cfg(all(feature = "sqlite", feature = "tantivy"))]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;

/// Cargo builds the examples for the tests, into the directory beside theirs.
fn quickstart() -> Command {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(format!("quickstart{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "a test that is built alone needs `cargo build --example quickstart` before it"
    );
    Command::new(program)
}

fn run(arguments: &[&str], directory: &Path) -> Output {
    quickstart().args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn shop() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, photo BLOB);
             CREATE TABLE orders(year INT, number INT, user_id INT, note TEXT, PRIMARY KEY (year, number));
             CREATE TABLE nameless(x);
             CREATE VIEW ordered AS SELECT u.id, o.note FROM users u JOIN orders o ON o.user_id = u.id;
             CREATE VIRTUAL TABLE found USING fts5(note);
             INSERT INTO users VALUES (1, 'Ada Lovelace', x'00ff'), (2, 'Grace Hopper', NULL);
             INSERT INTO orders VALUES (2031, 1, 1, 'an engine'), (2031, 2, 2, 'a compiler');",
        )
        .unwrap();
    (directory, path)
}

fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare("SELECT quote(id) || quote(name) || quote(photo) FROM users UNION ALL SELECT quote(note) FROM orders")
        .unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn log_objects(path: &Path) -> i64 {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline%'";
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn the_tour_survives_its_deaths_and_proves_it() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["--rows", "2000", "--dir", "tour"], directory.path());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert!(out.contains("equal, 0 missing, 0 stale, 0 ghosts"), "{out}");
    assert_eq!(out.matches("killed").count(), 3, "{out}");
    assert!(out.contains(" changes were replayed"), "{out}");
    // So few documents are made in no time: a rate would tell nothing.
    assert!(
        out.contains(" documents, made of 2,000 rows, in ") && !out.contains("documents a second"),
        "{out}"
    );
    assert!(!out.contains('\x1b') && !out.contains('\r'), "colours in a pipe: {out}");
    assert_eq!(err, "");

    let again = run(&["--rows", "2000", "--dir", "tour"], directory.path());
    assert_eq!((again.status.code(), text(&again.stderr).contains("holds an earlier run")), (Some(2), true));
}

#[test]
fn help_tells_every_option() {
    let output = run(&["--help"], Path::new("."));
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for option in [
        "--rows",
        "--dir",
        "--keep",
        "--db",
        "--table",
        "--sql",
        "--related",
        "--constant",
        "--search",
        "--once",
        "--remove",
    ] {
        assert!(out.contains(option), "{option}");
    }
}

#[test]
fn b15_wrong_input_gets_a_clear_error() {
    let (directory, _) = shop();
    std::fs::write(directory.path().join("letter.txt"), "Dear Sir or Madam, this is no database.").unwrap();
    let db = ["--db", "shop.db", "--table"];
    let reads_orders =
        "SELECT o.id, json_object('note', o.note) FROM syncline_keys k JOIN ordered o ON o.id = k.k1";
    for (arguments, wanted) in [
        (vec!["--frobnicate"], "invalid option '--frobnicate'"),
        (vec!["--rows", "many"], "\"many\""),
        (vec!["--rows", "5"], "at least 1000"),
        (vec!["--table", "users"], "need --db PATH"),
        (vec!["--db", "shop.db"], "needs at least one --table; the file has nameless, orders, users"),
        ([&db[..], &["users", "--table", "users"]].concat(), "--table users is given twice"),
        (vec!["--db", ".", "--table", "users"], "--db .: it is a directory"),
        (vec!["--db", "", "--table", "users"], "--db '': name the database's file"),
        (vec!["--db", ":memory:", "--table", "users"], "a database in memory"),
        ([&db[..], &["ordered"]].concat(), "--table ordered: it is a view; name the table"),
        ([&db[..], &["found"]].concat(), "--table found: it is a virtual table"),
        (vec!["--db", "shop.db", "--constant", "users"], "--constant belongs after the --table"),
        (vec!["--db", "shop.db", "--sql", "SELECT 1"], "after the --table"),
        (vec!["--db", "nowhere.db", "--table", "users"], "--db nowhere.db: there is no such file"),
        (vec!["--db", "letter.txt", "--table", "users"], "--db letter.txt: file is not a database"),
        ([&db[..], &["user"]].concat(), "there is no such table; the file has nameless, orders, users"),
        ([&db[..], &["nameless"]].concat(), "`nameless` has no PRIMARY KEY"),
        ([&db[..], &["users", "--sql", "SELEC 1"]].concat(), "syntax error"),
        ([&db[..], &["users", "--sql", "SELECT 1"]].concat(), "yields 1 column(s) instead of 2"),
        ([&db[..], &["users", "--sql", "SELECT k1 + 10, '{}' FROM syncline_keys"]].concat(), "not asked for"),
        ([&db[..], &["users", "--sql", reads_orders]].concat(), "add --related orders:COLUMN"),
        (
            [&db[..], &["orders", "--table", "users", "--sql", reads_orders]].concat(),
            "or --constant orders if",
        ),
        ([&db[..], &["users", "--related", "orders"]].concat(), "write TABLE:COLUMN"),
        ([&db[..], &["users", "--related", "orders:owner"]].concat(), "it has no column `owner`"),
        ([&db[..], &["users", "--related", "order:user_id"]].concat(), "there is no table `order`"),
        ([&db[..], &["users", "--once", "--search", "a:("]].concat(), "cannot be read"),
    ] {
        let output = run(&arguments, directory.path());
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(wanted), "{arguments:?}: {err}");
        assert!(err.lines().count() <= 2, "{arguments:?}: {err}");
    }
}

#[test]
fn a_database_of_ones_own_is_searched_and_left_as_it_was() {
    let (directory, path) = shop();
    let before = dump(&path);
    let once = ["--db", "shop.db", "--table", "users", "--table", "orders", "--once", "--search"];
    let output = run(&[&once[..], &["lovelace"]].concat(), directory.path());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("seeded: 4 documents written from 4 rows in "), "{out}");
    assert!(out.contains(r#"1  {"id":1,"name":"Ada Lovelace","photo":"00FF"}"#), "{out}");

    // What is changed while nothing runs is found by the next run, which seeds nothing.
    Connection::open(&path).unwrap().execute("UPDATE orders SET note = 'two compilers'", []).unwrap();
    let output = run(&[&once[..], &["compilers"]].concat(), directory.path());
    let out = text(&output.stdout);
    assert!(
        out.contains("was seeded before") && !out.contains("written from") && out.contains("2031:2  {"),
        "{out}"
    );
    Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE orders SET note = CASE number WHEN 1 THEN 'an engine' ELSE 'a compiler' END")
        .unwrap();

    assert!(log_objects(&path) > 0);
    let removed = run(&["--db", "shop.db", "--remove"], directory.path());
    assert_eq!(removed.status.code(), Some(0), "{}", text(&removed.stderr));
    assert_eq!((log_objects(&path), dump(&path)), (0, before));
}

#[test]
fn a_database_is_followed_with_its_related_rows() {
    let (directory, path) = shop();
    let sql = "SELECT u.id, json_object('name', u.name, 'notes', json((SELECT json_group_array(o.note) FROM orders o
               WHERE o.user_id = u.id))) FROM syncline_keys k JOIN users u ON u.id = k.k1";
    let mut following = quickstart()
        .args(["--db", "shop.db", "--table", "users", "--sql", sql, "--related", "orders:user_id"])
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.by_ref().find(|line| line.starts_with("Following shop.db")).unwrap();
    // Both users are rebuilt: the one the order is taken from, and the one it is given to.
    Connection::open(&path).unwrap().execute("UPDATE orders SET user_id = 2 WHERE number = 1", []).unwrap();
    let told = lines.by_ref().find(|line| line.contains("in users"));
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(told.clone().unwrap().contains("1 change; documents: 2 in users"), "{told:?}");
}

#[test]
fn documents_that_are_quarantined_are_told_once_for_each_reason_and_fail_the_run() {
    let (directory, path) = shop();
    Connection::open(&path).unwrap().execute("INSERT INTO users VALUES (3, NULL, NULL)", []).unwrap();
    // Two of the bodies are arrays, one is nothing at all.
    let sql = |body: &str| {
        format!("SELECT t.id, {body} FROM syncline_keys k JOIN users t ON t.id = k.k1 WHERE k.k1 < 9")
    };
    let run_with = |body: &str| {
        let sql = sql(body);
        let output = run(&["--db", "shop.db", "--table", "users", "--sql", &sql, "--once"], directory.path());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for _ in 0..2 {
        let (code, out, err) = run_with("'[' || t.name || ']'");
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(
            out.contains("✗ 2 documents quarantined, for example users/1: its body is no JSON object"),
            "{out}"
        );
        assert!(out.contains("✗ 1 document quarantined: users/3: its body is"), "{out}");
        assert!(!out.contains("have no document"), "{out}");
        assert!(err.contains("documents quarantined: 3; quarantine.db in shop.db.search tells why"), "{err}");
    }
    // Cured, they leave the quarantine.
    let (code, out, err) = run_with("json_object('name', t.name)");
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("seeded: 3 documents written from 3 rows in ") && !out.contains('✗'), "{out}");
}

#[test]
fn rows_without_a_document_and_empty_tables_are_told() {
    let (directory, path) = shop();
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE tags(name TEXT PRIMARY KEY, hidden INT);
             INSERT INTO tags VALUES ('ada', 0), ('GRACE', 0), ('edith', 0), (NULL, 0);
             CREATE TABLE drafts(id INTEGER PRIMARY KEY);",
        )
        .unwrap();
    let run = |arguments: &[&str]| {
        let output = run(&[&["--db", "shop.db", "--once"], arguments].concat(), directory.path());
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{out}{}", text(&output.stderr));
        out
    };
    // By another spelling a key is another document's.
    let upper = "SELECT upper(t.name), '{}' FROM syncline_keys k JOIN tags t ON t.name = k.k1";
    let out = run(&["--table", "tags", "--sql", upper]);
    assert!(out.contains("seeded: 1 documents written from 4 rows in "), "{out}");
    assert!(out.contains("3 of the 4 rows of tags have no document: the SQL yields none"), "{out}");
    let out = run(&["--table", "tags"]);
    assert!(out.contains("1 of the 4 rows of tags have no document: their keys hold a NULL"), "{out}");

    let out = run(&["--table", "drafts", "--dir", "drafts"]);
    assert!(out.contains("drafts is empty") && !out.contains("before") && !out.contains("seeded:"), "{out}");
    let out = run(&["--table", "drafts", "--dir", "drafts"]);
    assert!(out.contains("was seeded before") && !out.contains("empty"), "{out}");
    // Another table makes the whole directory anew, as --help says.
    let out = run(&["--table", "drafts", "--table", "users", "--dir", "drafts"]);
    assert!(
        out.contains("seeded: 2 documents written from 2 rows") && out.contains("drafts is empty"),
        "{out}"
    );
}

#[test]
fn a_table_that_the_sql_reads_may_be_constant() {
    let (directory, _) = shop();
    let sql = "SELECT o.id, json_object('note', o.note) FROM syncline_keys k JOIN ordered o ON o.id = k.k1";
    let arguments = ["--db", "shop.db", "--once", "--table", "users", "--sql", sql, "--constant", "orders"];
    let output = run(&arguments, directory.path());
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}{}", text(&output.stderr));
    assert!(out.contains(r#"1  {"note":"an engine"}"#), "{out}");
}
