//! From PostgreSQL into a file, by anyone who can follow the one into the other.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use speed::work::{Pace, Work};
use speed::{Contestant, Outcome, Scenario};
use syncline::connectors::postgres::{IndexDefinition, PostgresCapture, PostgresDocuments, Related, Server};
use syncline::{Engine, Running};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::Cluster;
use crate::distance;
use crate::file::{FileSink, Reader};

const PASSWORD: &str = "bench";
const BACKFILL: &str = "E2 backfill";
const CATCHING_UP: &str = "E2 catching up";
const FAMILIES: &str = "E2 families";
const CHILDREN: &str = "E2 children";

const ITEMS: &str = "CREATE TABLE items(id bigint PRIMARY KEY, name text, price int, sold boolean);
    CREATE PUBLICATION flusso FOR TABLE items;";
const USERS: &str = "CREATE TABLE users(id bigint PRIMARY KEY, name text);
    CREATE TABLE orders(id bigint PRIMARY KEY, user_id bigint, amount int);
    CREATE INDEX ON orders(user_id);
    ALTER TABLE orders REPLICA IDENTITY FULL;
    CREATE PUBLICATION flusso FOR TABLE users, orders;";

/// The scenarios.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let of = |name, about, changes| {
        let work = Work { pace: Pace::Real, ..Work::of(changes, 256) };
        Scenario { name, about, work, rounds: 3, with_peers: true }
    };
    vec![
        of(BACKFILL, "PostgreSQL to a file: 200,000 flat rows", 200_000),
        of(CATCHING_UP, "100,000 updates of single rows, in transactions of 100", 100_000),
        of(FAMILIES, "20,000 users with 5 orders each", 20_000),
        of(CHILDREN, "20,000 updates of orders, each of another user, in transactions of 100, live", 20_000),
    ]
}

/// A shop's database, on a server that is its own.
pub(crate) struct Shop {
    cluster: Cluster,
    /// Where it is reached by whoever follows.
    port: u16,
    /// The file, and whatever else a follower needs.
    pub(crate) directory: tempfile::TempDir,
    pub(crate) has_orders: bool,
}

impl Shop {
    /// With so many items, or users who have five orders each.
    fn start(rows: u64, has_orders: bool) -> Self {
        let cluster = Cluster::start("max_wal_size = 4GB").expect("a PostgreSQL server is installed");
        let port = distance::port(cluster.port);
        let shop = Self { cluster, port, directory: tempfile::tempdir().expect("a directory"), has_orders };
        shop.psql("postgres", &format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'; CREATE DATABASE shop"));
        shop.run(if has_orders { USERS } else { ITEMS });
        shop.run(&match has_orders {
            true => format!(
                "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, {rows}) i;
                 INSERT INTO orders SELECT i * 5 + n, i, n FROM generate_series(1, {rows}) i, generate_series(0, 4) n"
            ),
            false => {
                format!("INSERT INTO items SELECT i, 'item ' || i, i % 1000, i % 2 = 0 FROM generate_series(1, {rows}) i")
            }
        });
        shop.psql("shop", "VACUUM ANALYZE; CHECKPOINT");
        File::create(shop.file()).expect("a file");
        shop
    }

    /// Runs a statement in transactions of a hundred: it is given the first and the last number of each.
    fn in_hundreds(&self, rows: u64, statement: &str) {
        let last = rows / 100 - 1;
        self.run(&format!("DO $$ BEGIN FOR t IN 0..{last} LOOP {statement}; COMMIT; END LOOP; END $$"));
    }

    fn run(&self, sql: &str) {
        self.psql("shop", sql);
    }

    fn psql(&self, database: &str, sql: &str) -> String {
        self.cluster
            .psql(database, sql)
            .map_err(|error| format!("{sql}: {error}"))
            .expect("the server takes it")
    }

    /// Waits until every slot is in use, or none is.
    fn wait_until_followed(&self, is_followed: bool) {
        let expected = if is_followed { "t" } else { "f" };
        let asked = "SELECT coalesce(bool_and(active), false) FROM pg_replication_slots WHERE NOT temporary";
        while self.psql("shop", asked) != expected {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("documents")
    }

    /// For whoever takes a URL.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/shop", self.port)
    }

    fn server(&self) -> Server {
        let port = self.port;
        Server::new(&format!("host=127.0.0.1 port={port} dbname=shop user=postgres password={PASSWORD}"))
            .expect("a server")
    }
}

/// Someone who follows a shop into its file.
pub(crate) trait Follower {
    /// Begins: with all rows that are there, or with the changes alone since it followed last.
    fn follow(&self, shop: &Shop, with_rows: bool) -> Box<dyn Following>;
}

pub(crate) trait Following {
    /// Ends. Returns the most memory it had, in KiB, where it was another process.
    fn stop(self: Box<Self>) -> Option<u64>;
}

/// Has someone do the work of a scenario.
pub(crate) fn run(follower: &dyn Follower, scenario: &Scenario) -> Outcome {
    let changes = scenario.work.changes;
    let shop = Shop::start(changes, [FAMILIES, CHILDREN].contains(&scenario.name));
    let mut reader = Reader::of(&shop.file());
    let mut begun = Instant::now();
    let mut following = follower.follow(&shop, true);
    reader.wait_for(changes as usize, "");
    if scenario.name == CATCHING_UP {
        shop.wait_until_followed(true);
        following.stop();
        shop.wait_until_followed(false);
        shop.in_hundreds(changes, "UPDATE items SET price = 7777 WHERE id > t * 100 AND id <= t * 100 + 100");
        begun = Instant::now();
        following = follower.follow(&shop, false);
        reader.wait_for(changes as usize, "7777");
    } else if scenario.name == CHILDREN {
        shop.wait_until_followed(true);
        // Whatever it does when it has caught up.
        std::thread::sleep(Duration::from_secs(2));
        begun = Instant::now();
        shop.in_hundreds(
            changes,
            "UPDATE orders SET amount = 7777 WHERE id IN
            (SELECT i * 5 FROM generate_series(t * 100 + 1, t * 100 + 100) i)",
        );
        reader.wait_for(changes as usize, "7777");
    }
    let took = Some(begun.elapsed());
    Outcome { took, peak_kib: following.stop(), ..Outcome::default() }
}

/// Syncline, with its own connector, on two threads.
#[derive(Debug, Clone, Copy)]
pub struct Syncline;

impl Contestant for Syncline {
    fn name(&self) -> &'static str {
        "Syncline"
    }

    fn run(&self, scenario: &Scenario) -> Outcome {
        run(self, scenario)
    }
}

struct Started {
    runtime: Runtime,
    running: Running,
}

impl Follower for Syncline {
    fn follow(&self, shop: &Shop, with_rows: bool) -> Box<dyn Following> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let running = runtime.block_on(start(shop, with_rows, &shop.file()));
        Box::new(Started { runtime, running })
    }
}

impl Following for Started {
    fn stop(self: Box<Self>) -> Option<u64> {
        let drained = self.runtime.block_on(self.running.drain(Duration::from_secs(60)));
        drained.expect("a run without faults");
        None
    }
}

async fn start(shop: &Shop, with_rows: bool, file: &Path) -> Running {
    let definition = match shop.has_orders {
        true => IndexDefinition::new(
            "users",
            "users",
            "SELECT u.id, json_build_object('id', u.id, 'name', u.name, 'orders',
                 (SELECT coalesce(json_agg(json_build_object('id', o.id, 'amount', o.amount) ORDER BY o.id), '[]')
                  FROM orders o WHERE o.user_id = u.id))
             FROM users u WHERE u.id = ANY($1)",
        )
        .and_then(|users| Ok(users.related(Related::columns("orders", ["user_id"])?))),
        false => IndexDefinition::new("items", "items", "SELECT id, i FROM items i WHERE id = ANY($1)"),
    };
    let server = shop.server();
    let documents =
        PostgresDocuments::open(&server, [definition.expect("names")]).await.expect("a definition");
    let capture = PostgresCapture::new(&server, "bench", documents.tables());
    Engine::new(capture, documents, Arc::new(FileSink::append_to(file))).skip_backfill(!with_rows).start()
}
