//! The example `postgres_to_opensearch` as a service runs: a real PostgreSQL server, a search server from PyPI, signals, and what
//! it says of itself. Skipped, and it says so, where one of the servers cannot be had: see `postgres.rs` and `opensearch.rs`.

#![cfg(all(feature = "postgres", feature = "opensearch", unix))]
// What clippy allows in a test by itself, it does not in a helper of tests.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "postgres/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "opensearch/servers.rs"]
mod servers;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "opensearch/wire.rs"]
mod wire;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;

use cluster::Cluster;
use servers::{Kind, Server};
use wire::exchange;

const SHOP: &str = "CREATE DATABASE shop; CREATE ROLE search LOGIN REPLICATION PASSWORD 'correct horse'";
const TABLES: &str = "
    CREATE TABLE books(id int PRIMARY KEY, title text, price numeric);
    CREATE TABLE reviews(id int PRIMARY KEY, book_id int, stars int);
    ALTER TABLE reviews REPLICA IDENTITY FULL;
    GRANT SELECT ON books, reviews TO search;
    CREATE PUBLICATION syncline_search FOR TABLE books, reviews WITH (publish_via_partition_root = true);
    INSERT INTO books SELECT i, 'book ' || i, i FROM generate_series(1, 500) i;
    INSERT INTO reviews SELECT i, i, 5 FROM generate_series(1, 500) i";

/// Cargo builds the examples for the tests, into the directory beside theirs.
fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/postgres_to_opensearch");
    assert!(
        program.exists(),
        "a test that is built alone needs `cargo build --example postgres_to_opensearch --all-features` before it"
    );
    let mut command = Command::new(program);
    command.env_remove("PGPASSWORD").env_remove("SEARCH_PASSWORD").env_remove("SEARCH_API_KEY");
    command
}

struct World {
    postgres: Cluster,
    search: Server,
    directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let postgres = Cluster::start("")?;
        let search = Server::start(Kind::Osmem).await?;
        postgres.psql("postgres", SHOP).unwrap();
        postgres.psql("shop", TABLES).unwrap();
        Some(Self { postgres, search, directory: tempfile::tempdir().unwrap() })
    }

    /// The configuration that stands beside the example, with what is particular to this world.
    fn config(&self) -> PathBuf {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/postgres_to_opensearch/config.toml");
        let mut text = std::fs::read_to_string(example).unwrap();
        for (standard, own) in [
            ("127.0.0.1:9184", "127.0.0.1:0".to_owned()),
            ("host=127.0.0.1 ", format!("host=127.0.0.1 port={} ", self.postgres.port)),
            ("http://127.0.0.1:9200", self.search.url()),
            ("linger_seconds = 10", "linger_seconds = 600".to_owned()),
        ] {
            assert!(text.contains(standard), "the example's configuration lacks {standard}");
            text = text.replace(standard, &own);
        }
        let path = self.directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&self) -> Program {
        self.start_as("correct horse")
    }

    fn start_as(&self, password: &str) -> Program {
        let child = program()
            .arg(self.config())
            .env("PGPASSWORD", password)
            .env("SEARCH_PASSWORD", "battery staple")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Program::started(child)
    }

    /// What the search server has of a document.
    async fn document(&self, id: &str) -> Option<Json> {
        let answer = exchange(self.search.address, "GET", &format!("/books/_doc/{id}"), "").await.unwrap();
        (answer.status == 200).then(|| answer.json()["_source"].clone())
    }

    async fn until(&self, id: &str, what: impl Fn(Option<&Json>) -> bool) {
        let started = Instant::now();
        loop {
            let document = self.document(id).await;
            if what(document.as_ref()) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{id}: {document:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A process that a test does not leave behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program under way, and what it has said so far.
struct Program {
    child: Killed,
    errors: BufReader<ChildStderr>,
    said: String,
    address: SocketAddr,
}

impl Program {
    fn started(mut child: Child) -> Self {
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let before = said.len();
            assert_ne!(errors.read_line(&mut said).unwrap(), 0, "it ended: {said}");
            if let Some((_, address)) = said[before..].split_once("/health on ") {
                break address.trim().parse().unwrap();
            }
        };
        Self { child: Killed(child), errors, said, address }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = exchange(self.address, "GET", path, "").await.unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    /// The value of one of its measures.
    async fn measure(&self, name: &str) -> Option<f64> {
        let (status, page) = self.get("/metrics").await;
        assert_eq!(status, 200, "{page}");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// Waits until it is as much, or more. What is in the sink is counted a moment later.
    async fn until(&self, name: &str, least: f64) {
        let started = Instant::now();
        while self.measure(name).await.is_none_or(|value| value < least) {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", self.get("/metrics").await.1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.0.id(), name);
    }

    /// Waits until it has logged this.
    async fn until_said(mut self, what: &'static str) -> Self {
        let pid = self.child.0.id();
        let heard = move || {
            while !self.said.contains(what) {
                assert_ne!(self.errors.read_line(&mut self.said).unwrap(), 0, "it ended: {}", self.said);
            }
            self
        };
        patiently(pid, heard).await
    }

    async fn until_healthy(&self, wanted: (u16, &str)) {
        let started = Instant::now();
        while self.get("/health").await != (wanted.0, format!("{}\n", wanted.1)) {
            assert!(started.elapsed() < Duration::from_secs(60), "{:?}", self.get("/health").await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for its end. Returns its exit code and all that it said.
    async fn end(mut self) -> (Option<i32>, String) {
        let pid = self.child.0.id();
        let ended = move || {
            self.errors.read_to_string(&mut self.said).unwrap();
            let mut out = String::new();
            self.child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            (self.child.0.wait().unwrap().code(), self.said + &out)
        };
        patiently(pid, ended).await
    }
}

/// Waits for a program to do this, and kills it where it does not: nobody would be left to read what it says.
async fn patiently<T: Send + 'static>(pid: u32, what: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(what);
    match tokio::time::timeout(Duration::from_secs(60), done).await {
        Ok(done) => done.unwrap(),
        Err(_) => {
            signal(pid, "KILL");
            panic!("it is waited for in vain");
        }
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_is_stopped_and_goes_on_and_says_when_it_has_failed() {
    let Some(world) = World::new().await else { return };
    let program = world.start();
    program.until("syncline_caught_up", 1.0).await;
    assert_eq!(program.get("/health").await, (200, "caught up\n".to_owned()));
    assert_eq!(program.measure("syncline_index_seeded{index=\"books\"}").await, Some(1.0));
    assert_eq!(program.measure("syncline_index_rows_durable_total{index=\"books\"}").await, Some(500.0));
    assert_eq!(program.measure("syncline_phase{phase=\"running\"}").await, Some(1.0));
    assert_eq!(program.get("/").await.0, 404);
    assert_eq!(exchange(program.address, "POST", "/health", "").await.unwrap().status, 405);
    assert_eq!(world.document("7").await.unwrap()["title"], "book 7");
    let run = |sql: &str| world.postgres.psql("shop", sql).unwrap();
    run(
        "UPDATE books SET title = 'changed' WHERE id = 7; DELETE FROM reviews WHERE book_id = 8; DELETE FROM books WHERE id = 9",
    );
    world.until("7", |book| book.is_some_and(|book| book["title"] == "changed")).await;
    world.until("8", |book| book.is_some_and(|book| book["stars"].is_null())).await;
    world.until("9", |book| book.is_none()).await;
    program.until("syncline_documents_total{index=\"books\"}", 503.0).await;

    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped") && said.contains("to_be_given_again=0"), "{said}");
    for secret in ["correct horse", "battery staple"] {
        assert!(!said.contains(secret), "{said}");
    }

    // The next one reads no row again, and is given what came meanwhile.
    run("INSERT INTO books VALUES (1000, 'while it was away', 1)");
    let program = world.start();
    world.until("1000", |book| book.is_some()).await;
    program.until("syncline_caught_up", 1.0).await;
    assert_eq!(program.measure("syncline_index_rows_read_total{index=\"books\"}").await, Some(0.0));

    // A price that the index does not take: the policy is to stop.
    run("ALTER TABLE books ALTER price TYPE text; INSERT INTO books VALUES (1001, 'priceless', 'none')");
    // And nothing of the data.
    program.until_healthy((503, "ended: 1 document(s) rejected; the log tells why")).await;
    assert_eq!(program.measure("syncline_phase{phase=\"ended\"}").await, Some(1.0));
    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("run failed") && said.contains("books/1001"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_server_that_is_not_there_and_says_of_one_that_refuses_it() {
    let Some(world) = World::new().await else { return };
    world.postgres.down("INT");
    let program = world.start().until_said("to be tried again").await;
    assert_eq!(program.get("/health").await, (200, "starting\n".to_owned()));
    assert_eq!(program.measure("syncline_phase{phase=\"starting\"}").await, Some(1.0));
    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped before it had started"), "{said}");

    let program = world.start().until_said("to be tried again").await;
    world.postgres.up();
    program.until_healthy((200, "caught up")).await;
    program.signal("TERM");
    assert_eq!(program.end().await.0, Some(0));

    let program = world.start_as("hunter2");
    program.until_healthy((503, "ended: it could not start; the log tells why")).await;
    assert_eq!(program.measure("syncline_phase{phase=\"ended\"}").await, Some(1.0));
    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("password authentication failed") && !said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_leaves_the_first_alone_and_takes_over_once_that_has_ended() {
    let Some(world) = World::new().await else { return };
    let first = world.start();
    first.until_healthy((200, "caught up")).await;
    let second = world.start().until_said("is followed by another program").await;
    world.postgres.psql("shop", "UPDATE books SET title = 'by the first' WHERE id = 7").unwrap();
    world.until("7", |book| book.is_some_and(|book| book["title"] == "by the first")).await;
    assert_eq!(second.get("/health").await, (200, "starting\n".to_owned()));
    first.until_healthy((200, "caught up")).await;
    first.signal("TERM");
    let (code, said) = first.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    world.postgres.psql("shop", "UPDATE books SET title = 'by the second' WHERE id = 7").unwrap();
    world.until("7", |book| book.is_some_and(|book| book["title"] == "by the second")).await;
    second.until_healthy((200, "caught up")).await;
    second.signal("TERM");
    assert_eq!(second.end().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_is_wrong_with_its_configuration_and_with_its_servers() {
    let Some(world) = World::new().await else { return };
    let path = world.config();
    let config =
        std::fs::read_to_string(&path).unwrap().replace("linger_seconds = 600", "linger_seconds = 0");
    let tries = |text: &str, password: Option<&str>| -> Output {
        std::fs::write(&path, text).unwrap();
        let mut command = program();
        command.arg(&path).env("SEARCH_PASSWORD", "battery staple");
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        command.output().unwrap()
    };
    let first = config.lines().find(|line| line.starts_with("consumer")).unwrap();
    let right = Some("correct horse");
    for (code, text, password, what) in [
        (2, config.replace(first, "consumer = 7"), right, "line 5, column 12: expected a string"),
        (2, config.replace(first, "consumr = 'x'"), right, "line 5, column 1: unknown field `consumr`"),
        // A secret that stands where none should.
        (
            2,
            config.replace(first, "password = 'hunter2'"),
            right,
            "line 5, column 1: unknown field `password`",
        ),
        (2, config.replace(first, "consumer = hunter2'"), right, "line 5, column"),
        (
            2,
            config.replace("[postgres]", "[x]").replace(first, "postgres = 'hunter2'"),
            right,
            "expected struct Postgres",
        ),
        (
            2,
            config.replace("on_rejected = \"stop\"", "on_rejected = 'hunter2'"),
            right,
            "expected `stop` or `skip`",
        ),
        (2, config.replace("# password_file", "password_file"), right, "reading `/run/secrets/shop`"),
        (
            2,
            format!("index = []\n{}", config.split("[[index]]").next().unwrap()),
            right,
            "no `[[index]]` is defined",
        ),
        (1, config.clone(), Some("hunter2"), "password authentication failed"),
        (1, config.clone(), None, "password"),
        (1, config.replace("FROM books b", "FROM boks b"), right, "relation \"boks\" does not exist"),
        (2, config.replace(&world.search.url(), "ftp://x"), right, "neither http:// nor https://"),
    ] {
        let output = tries(&text, password);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(what), "{what}: {said}");
        assert!(
            !["correct horse", "hunter2", "battery staple"].iter().any(|secret| said.contains(secret)),
            "{said}"
        );
    }
    let output = program().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("usage: postgres_to_opensearch CONFIG.toml"));
}
