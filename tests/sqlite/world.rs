//! A database file in a directory of its own, and short words for looking at what is captured from it.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use rusqlite::Connection;
use syncline::change::{Captured, Change, Position};
use syncline::connectors::sqlite::SqliteCapture;
use syncline::error::Fault;
use syncline::name::TableName;
use syncline::ports::{ChangeCapture, ChangeStream, Opened, SnapshotTable};
use syncline::row::Key;

pub(crate) struct World {
    directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(schema: &str) -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        world.run(schema);
        world
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("shop.db")
    }

    /// A connection such as any other program has one.
    pub(crate) fn connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection
    }

    pub(crate) fn run(&self, sql: &str) {
        self.connection().execute_batch(sql).unwrap();
    }

    pub(crate) fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// A capture by the consumer `search`.
    pub(crate) fn capture(&self, tables: &[&str]) -> SqliteCapture {
        self.consumer("search", tables)
    }

    pub(crate) fn consumer(&self, name: &str, tables: &[&str]) -> SqliteCapture {
        SqliteCapture::new(self.path(), name, tables.iter().map(|name| table(name)))
    }
}

pub(crate) fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

/// Opens a capture and takes what it holds up to its first checkpoint.
pub(crate) async fn opened(capture: &SqliteCapture) -> (Opened, Vec<String>, Position) {
    let mut opened = capture.open().await.unwrap();
    let (changes, position) = to_checkpoint(&mut opened.changes).await;
    (opened, changes.iter().map(|change| format!("{change:?}")).collect(), position)
}

/// The changes up to the next checkpoint.
pub(crate) async fn to_checkpoint(changes: &mut ChangeStream) -> (Vec<Change>, Position) {
    let mut taken = Vec::new();
    loop {
        match next(changes).await.unwrap() {
            Captured::Change(change) => taken.push(change),
            Captured::Checkpoint(position) => return (taken, position),
            item @ (Captured::More | Captured::Truncate(_)) => unreachable!("{item:?}"),
        }
    }
}

/// The same, as text.
pub(crate) async fn told(changes: &mut ChangeStream) -> Vec<String> {
    to_checkpoint(changes).await.0.iter().map(|change| format!("{change:?}")).collect()
}

/// The next change or checkpoint.
pub(crate) async fn next(changes: &mut ChangeStream) -> Result<Captured, Fault> {
    loop {
        let item = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
        match item.expect("the capture yields").expect("the stream goes on") {
            Ok(Captured::More) => {}
            item => return item,
        }
    }
}

/// Whether the stream stays silent.
pub(crate) async fn silent(changes: &mut ChangeStream) -> bool {
    tokio::time::timeout(Duration::from_millis(100), changes.next()).await.is_err()
}

/// All keys of a table after this one.
pub(crate) async fn keys(capture: &SqliteCapture, name: &str, after: Option<&Key>) -> Vec<Key> {
    let keys = capture.snapshot(&SnapshotTable::new(table(name)), after).await.unwrap();
    keys.map(Result::unwrap).collect().await
}
