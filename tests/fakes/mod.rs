//! A small world in memory: tables, a source that captures what is done to them, a builder, a sink, an observer and a
//! quarantine. Every port writes what it is asked into one log, in one order, and does what its script says.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses a part of it")]

mod documents;
mod script;
mod sink;
mod source;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use documents::{Documents, Shape, Twist};
pub use script::{Act, Script};
pub use sink::Recorder;
pub use source::Source;
use syncline::{
    Change, ColumnName, DocumentId, Engine, IndexName, Key, Position, Row, TableName, Value, Visibility,
};
pub use watch::{Store, Watcher};

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Source,
    Documents,
    Sink,
    Observer,
    Quarantine,
}

#[derive(Default)]
struct Lines {
    lines: Vec<(Port, String)>,
    flushes_asked: usize,
    flushes_done: usize,
}

/// What every port was asked, in one order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Lines>>);

impl Log {
    pub fn say(&self, port: Port, line: impl Into<String>) {
        lock(&self.0).lines.push((port, line.into()));
    }

    pub fn of(&self, port: Port) -> Vec<String> {
        let log = lock(&self.0);
        log.lines.iter().filter(|(from, _)| *from == port).map(|(_, line)| line.clone()).collect()
    }

    pub fn all(&self) -> Vec<String> {
        lock(&self.0).lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Where a line stands among all; the test fails where it does not.
    #[track_caller]
    pub fn place(&self, line: &str) -> usize {
        let all = self.all();
        let place = all.iter().position(|said| said == line);
        assert!(place.is_some(), "`{line}` is not in {all:#?}");
        place.unwrap_or_default()
    }

    pub fn count(&self, line: &str) -> usize {
        self.all().iter().filter(|said| *said == line).count()
    }

    pub fn clear(&self) {
        *lock(&self.0) = Lines::default();
    }

    pub fn flushes_asked(&self) -> usize {
        lock(&self.0).flushes_asked
    }

    pub fn flushes_done(&self) -> usize {
        lock(&self.0).flushes_done
    }

    fn flush_asked(&self) {
        lock(&self.0).flushes_asked += 1;
    }

    fn flush_done(&self) {
        lock(&self.0).flushes_done += 1;
    }
}

/// A mutex that a scripted panic does not poison.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn table(name: &str) -> TableName {
    TableName::new(name).expect("a test's table has a name")
}

pub fn index(name: &str) -> IndexName {
    IndexName::new(name).expect("a test's index has a name")
}

pub fn column(name: &str) -> ColumnName {
    ColumnName::new(name).expect("a test's column has a name")
}

pub fn id(name: &str, key: i64) -> DocumentId {
    DocumentId::new(index(name), key)
}

/// A row of these columns: `"name=ada user=1"`. Digits are an integer.
pub fn row(key: i64, columns: &str) -> Row {
    let named = columns.split_whitespace().map(|column| {
        let (name, value) = column.split_once('=').expect("a test's column is written name=value");
        let value = value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from);
        (self::column(name), value)
    });
    std::iter::once((column("id"), Value::from(key))).chain(named).collect()
}

/// The tables as they are now.
pub type Tables = Arc<Mutex<BTreeMap<TableName, BTreeMap<Key, Row>>>>;

/// What a transaction does to one row.
#[derive(Debug, Clone)]
pub enum Step {
    Put(&'static str, i64, &'static str),
    Remove(&'static str, i64),
    /// The row of the first key has the second from now on.
    Rekey(&'static str, i64, i64),
}

/// Everything that an engine runs on.
pub struct World {
    pub log: Log,
    pub tables: Tables,
    pub source: Source,
    pub documents: Documents,
    pub sink: Recorder,
    pub watcher: Watcher,
    pub store: Store,
}

impl World {
    /// A world of these indexes, each over the table of its name. None of them is to be seeded, and the stream is finite.
    pub fn new(indexes: &[&str]) -> Self {
        let log = Log::default();
        let tables = Tables::default();
        Self {
            source: Source::new(&log, &tables),
            documents: Documents::new(&log, &tables, indexes.iter().map(|name| Shape::new(name)).collect()),
            sink: Recorder::new(&log),
            watcher: Watcher::new(&log),
            store: Store::new(&log),
            log,
            tables,
        }
    }

    /// The same, whose indexes are to be seeded.
    pub fn to_be_seeded(indexes: &[&str]) -> Self {
        let world = Self::new(indexes);
        world.documents.with(|state| state.scopes = true);
        world
    }

    /// An engine over its ports, which is observed.
    pub fn engine(&self) -> Engine<Source, Documents, Recorder> {
        Engine::new(self.source.clone(), self.documents.clone(), self.sink.clone())
            .with_observer(self.watcher.clone())
    }

    /// A row that was there before anything was captured.
    pub fn load(&self, name: &str, key: i64, columns: &str) {
        lock(&self.tables).entry(table(name)).or_default().insert(key.into(), row(key, columns));
    }

    /// A row vanishes, and nobody captures it.
    pub fn erase(&self, name: &str, key: i64) {
        lock(&self.tables).entry(table(name)).or_default().remove(&key.into());
    }

    /// Writes a row, as a transaction of its own.
    pub fn put(&self, name: &'static str, key: i64, columns: &'static str) -> u64 {
        self.commit([Step::Put(name, key, columns)])
    }

    /// Deletes a row, as a transaction of its own.
    pub fn remove(&self, name: &'static str, key: i64) -> u64 {
        self.commit([Step::Remove(name, key)])
    }

    /// A transaction: its position.
    pub fn commit(&self, steps: impl IntoIterator<Item = Step>) -> u64 {
        let mut tables = lock(&self.tables);
        let mut changes = Vec::new();
        for step in steps {
            let (name, from, to, new) = match step {
                Step::Put(name, key, columns) => (name, key, key, Some(row(key, columns))),
                Step::Remove(name, key) => (name, key, key, None),
                Step::Rekey(name, from, to) => {
                    let old = tables.get(&table(name)).and_then(|rows| rows.get(&from.into()).cloned());
                    let columns = old.as_ref().map(render).unwrap_or_default();
                    (name, from, to, Some(row(to, &columns)))
                }
            };
            let rows = tables.entry(table(name)).or_default();
            let before = rows.remove(&from.into());
            let mut change = match &new {
                Some(_) => Change::upsert(table(name), to),
                None => Change::delete(table(name), to),
            };
            change.before = before;
            change.after = new.clone();
            rows.extend(new.map(|row| (to.into(), row)));
            changes.push(change);
        }
        drop(tables);
        self.source.push(changes)
    }

    /// Empties tables at once, in a transaction of its own: its position.
    pub fn truncate(&self, names: &[&str]) -> u64 {
        for name in names {
            lock(&self.tables).remove(&table(name));
        }
        self.source.truncate(names, Vec::new())
    }

    /// Every document as it should be: `users 1` → its body.
    pub fn truth(&self) -> BTreeMap<String, String> {
        self.documents.all()
    }

    /// The sink says what the tables say, and everything is acknowledged.
    #[track_caller]
    pub fn assert_converged(&self) {
        assert_eq!(self.sink.contents(), self.truth());
        assert_eq!(self.source.confirmed(), self.source.newest(), "everything is acknowledged");
    }

    /// Whatever was acknowledged stands in the sink, or in the quarantine, unless it was changed once more since.
    #[track_caller]
    pub fn assert_acknowledged_is_durable(&self) {
        let (truth, contents) = (self.truth(), self.sink.contents());
        let records = self.store.records();
        let (acknowledged, others) = self.source.acknowledged_and_not();
        let touched = |changes: &[Change]| -> BTreeSet<DocumentId> {
            changes.iter().flat_map(|change| self.documents.touched(change)).collect()
        };
        for id in touched(&acknowledged).difference(&touched(&others)) {
            let name = named(id);
            let durable =
                contents.get(&name) == truth.get(&name) || records.iter().any(|record| record.id == *id);
            assert!(durable, "{name} was acknowledged, but is not durable");
        }
    }

    /// Nobody but the world holds on to its ports.
    #[track_caller]
    pub fn assert_let_go(&self) {
        let holders = (
            Arc::strong_count(&self.source.state),
            Arc::strong_count(&self.documents.state),
            Arc::strong_count(&self.sink.state),
        );
        assert_eq!(holders, (1, 1, 1), "the ports are let go");
    }
}

/// The columns of a row but its key, as they are written in tests.
pub fn render(row: &Row) -> String {
    let columns = row.known().filter(|(name, _)| name.as_str() != "id").map(|(name, value)| match value {
        Value::Text(text) => format!("{name}={text}"),
        other => format!("{name}={other:?}"),
    });
    columns.collect::<Vec<_>>().join(" ")
}

/// A document as the sink's log names it: `users 1`.
pub fn named(id: &DocumentId) -> String {
    format!("{} {}", id.index, id.sink_id())
}

/// A visibility token for each change of a transaction: its position.
pub fn token(position: Position) -> Visibility {
    Visibility(position.0)
}

/// Polls a future so often at most, then drops it.
pub async fn poll_at_most<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}
