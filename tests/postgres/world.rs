//! A database of a test's own, and short words for looking at what is captured from it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use syncline::change::{Captured, Change, Position};
use syncline::connectors::postgres::{PostgresCapture, Server};
use syncline::error::Fault;
use syncline::name::TableName;
use syncline::ports::{ChangeCapture, ChangeStream, Opened, SnapshotTable};
use syncline::row::Key;

use super::cluster::Cluster;

pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) database: String,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl World {
    /// A database on the shared server; `None` where there are no binaries of one.
    pub(crate) fn new(schema: &str) -> Option<Self> {
        Self::on(Cluster::shared()?, schema)
    }

    /// A database on a server of its own, with these settings.
    pub(crate) fn alone(settings: &str, schema: &str) -> Option<Self> {
        Self::on(Arc::new(Cluster::start(settings)?), schema)
    }

    fn on(cluster: Arc<Cluster>, schema: &str) -> Option<Self> {
        let database = format!("world{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        cluster.psql("postgres", &format!("CREATE DATABASE {database}")).unwrap();
        let world = Self { cluster, database };
        world.run(schema);
        Some(world)
    }

    /// The same database on a standby of this server.
    pub(crate) fn standby(&self) -> Self {
        Self { cluster: Arc::new(self.cluster.standby()), database: self.database.clone() }
    }

    /// As the superuser, over the Unix socket.
    pub(crate) fn server(&self) -> Server {
        self.server_as("user=postgres")
    }

    pub(crate) fn server_as(&self, who: &str) -> Server {
        let host = self.cluster.directory().display();
        let (port, database) = (self.cluster.port, &self.database);
        Server::new(&format!("host={host} port={port} dbname={database} {who}")).unwrap()
    }

    pub(crate) fn run(&self, sql: &str) {
        if let Err(error) = self.cluster.psql(&self.database, sql) {
            panic!("{sql}: {error}");
        }
    }

    pub(crate) fn one(&self, sql: &str) -> String {
        self.cluster.psql(&self.database, sql).unwrap()
    }

    /// A connection that stays open, such as any other program has one.
    pub(crate) fn session(&self) -> Session {
        let mut command = self.cluster.session(&self.database);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Session { child, input, output: BufReader::new(output) }
    }

    /// A capture by the consumer `search`.
    pub(crate) fn capture(&self, tables: &[&str]) -> PostgresCapture {
        PostgresCapture::new(&self.server(), self.consumer(), tables.iter().map(|name| table(name)))
    }

    /// Slots belong to the whole server: each world has its own.
    pub(crate) fn consumer(&self) -> String {
        format!("search_{}", self.database)
    }

    pub(crate) fn slot(&self) -> String {
        self.one(&format!(
            "SELECT slot_name FROM pg_replication_slots WHERE database = '{}' AND NOT temporary",
            self.database
        ))
    }
}

/// Waits until nothing streams from the slot any more.
pub(crate) async fn let_go(world: &World) {
    let active =
        format!("SELECT count(*) FROM pg_replication_slots WHERE active AND database = '{}'", world.database);
    while world.one(&active) != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Slots are few, and a database that has one cannot go.
        let _ = self.cluster.psql(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{0}' AND active;
                 SELECT pg_sleep(0.05);
                 SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{0}';",
                self.database
            ),
        );
    }
}

pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Sends some SQL, and does not wait for it.
    pub(crate) fn send(&mut self, sql: &str) {
        writeln!(self.input, "{sql};").unwrap();
        self.input.flush().unwrap();
    }

    /// Runs some SQL to its end.
    pub(crate) fn run(&mut self, sql: &str) {
        writeln!(self.input, "{sql};\n\\echo ready").unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the session ended: {sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A table of the schema `public`.
pub(crate) fn table(name: &str) -> TableName {
    TableName::in_schema("public", name).unwrap()
}

/// The changes up to the first checkpoint behind a change.
pub(crate) async fn transaction(changes: &mut ChangeStream) -> (Vec<Change>, Position) {
    let mut taken = Vec::new();
    loop {
        match next(changes).await.unwrap() {
            Captured::Change(change) => taken.push(change),
            Captured::Checkpoint(position) if !taken.is_empty() => return (taken, position),
            Captured::Truncate(truncation) => panic!("{truncation:?} was not expected"),
            Captured::Checkpoint(_) | Captured::More => {}
        }
    }
}

/// The same, as text, without the tokens.
pub(crate) async fn told(changes: &mut ChangeStream) -> Vec<String> {
    let (changes, _) = transaction(changes).await;
    changes.into_iter().map(|change| format!("{:?}", Change { visibility: None, ..change })).collect()
}

/// The next checkpoint, with nothing before it.
pub(crate) async fn checkpoint(changes: &mut ChangeStream) -> Position {
    loop {
        match next(changes).await.unwrap() {
            Captured::Checkpoint(position) => return position,
            Captured::More => {}
            item @ (Captured::Change(_) | Captured::Truncate(_)) => panic!("{item:?} was not expected"),
        }
    }
}

pub(crate) async fn next(changes: &mut ChangeStream) -> Result<Captured, Fault> {
    tokio::time::timeout(Duration::from_secs(60), changes.next())
        .await
        .expect("the capture yields")
        .expect("the stream goes on")
}

/// The fault that the stream ends with.
pub(crate) async fn fault(changes: &mut ChangeStream) -> Fault {
    let ended = async {
        loop {
            if let Err(fault) = next(changes).await {
                return fault;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the stream ends")
}

pub(crate) async fn opened(capture: &PostgresCapture) -> Opened {
    capture.open().await.unwrap()
}

/// The keys of a table after a cursor.
pub(crate) async fn keys(capture: &PostgresCapture, name: &TableName, after: Option<&Key>) -> Vec<Key> {
    let scan = capture.snapshot(&SnapshotTable::new(name.clone()), after).await.unwrap();
    scan.map(|key| key.unwrap()).collect().await
}
