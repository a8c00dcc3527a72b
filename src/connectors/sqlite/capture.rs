//! The capture: follows the change log.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::database::{Connections, Database, blocking, key_value, stored_bytes, value};
use super::error::SqliteError;
use super::log::{self, Installed};
use super::schema::Table;
use super::snapshot;
use super::triggers::Op;
use crate::change::{Captured, Change, Position};
use crate::error::Fault;
use crate::name::{ColumnName, StreamId, TableName};
use crate::ports::{ChangeCapture, KeyStream, Opened, SnapshotTable, TableNeeds};
use crate::row::{Columns, Key, Row};

/// How many bytes of row images one page of the log holds, besides its last row.
const PAGE_BYTES: usize = 4 << 20;

/// How many of the newest log records the estimate of the lag looks at.
const LAG_SAMPLE: i64 = 64;

/// Captures the changes of chosen tables of an SQLite database. See the [module](super) for how.
#[derive(Debug)]
pub struct SqliteCapture {
    connections: Arc<Connections>,
    consumer: String,
    tables: Arc<[TableName]>,
    options: Options,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    poll_interval: Duration,
    page_rows: usize,
    write_ahead_log: bool,
}

impl SqliteCapture {
    /// A capture of these tables of the database file at `path`, for the consumer of this name. Nothing is opened yet.
    ///
    /// The log keeps a position for each consumer's name. Give every destination its own name, and let one process at a
    /// time use it. For documents of [`SqliteDocuments`](super::SqliteDocuments), the tables are
    /// [`SqliteDocuments::tables`](super::SqliteDocuments::tables).
    pub fn new(
        path: impl AsRef<Path>,
        consumer: impl Into<String>,
        tables: impl IntoIterator<Item = TableName>,
    ) -> Self {
        let mut distinct: Vec<TableName> = Vec::new();
        for table in tables {
            if !distinct.iter().any(|known| known.table().eq_ignore_ascii_case(table.table())) {
                distinct.push(table);
            }
        }
        Self {
            connections: Arc::new(Connections::new(Database::new(path))),
            consumer: consumer.into(),
            tables: distinct.into(),
            options: Options {
                poll_interval: Duration::from_millis(5),
                page_rows: 1_000,
                write_ahead_log: true,
            },
        }
    }

    /// How long to wait between two looks for new commits, where there were none. Default: 5 ms. A look reads a counter
    /// and takes some 20 µs.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = interval;
        self
    }

    /// How many log records, or keys of a snapshot, are read at once. Default: 1,000; at least one.
    #[must_use]
    pub fn page_rows(mut self, rows: usize) -> Self {
        self.options.page_rows = rows.max(1);
        self
    }

    /// Whether opening switches the database to write-ahead logging, which stays with the file. Default: it does, where
    /// the file system allows it: without it every read, however short, makes a commit wait and every commit makes
    /// reads wait, in the application's own connections too. With `false` the file is left in the mode it has; all of
    /// the connector works in either.
    #[must_use]
    pub fn write_ahead_log(mut self, switch: bool) -> Self {
        self.options.write_ahead_log = switch;
        self
    }

    /// How long a call waits for another process's lock before it fails as transient. Default: 5 seconds.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        let database = Database { busy_timeout: timeout, ..self.connections.database.clone() };
        self.connections = Arc::new(Connections::new(database));
        self
    }

    /// Forgets this consumer, so that the log is no longer kept for it; where it was the last one, the whole log is
    /// removed with its triggers. Opened again, it has a new stream and all of its indexes are seeded anew: what to do
    /// after the database was restored from a backup. Returns whether there was such a consumer.
    ///
    /// Errors: a database that cannot be opened or is busy.
    pub async fn forget_consumer(&self) -> Result<bool, Fault> {
        let consumer = self.consumer.clone();
        self.connections.run(move |database, connection| log::forget(database, connection, &consumer)).await
    }

    /// Removes the change log with its triggers and all consumers, of this name or another: the database is as if it had
    /// never been captured. A capture that is running fails as transient, and makes a new log when it is opened again.
    ///
    /// Errors: a database that cannot be opened or is busy.
    pub async fn remove_log(&self) -> Result<(), Fault> {
        self.connections.run(log::remove).await
    }

    fn check(&self) -> Result<(), SqliteError> {
        let database = &self.connections.database;
        if self.consumer.is_empty() {
            return Err(database.definition("the consumer name is empty"));
        }
        match self.tables.is_empty() {
            true => Err(database.definition("no tables were given to capture")),
            false => Ok(()),
        }
    }
}

impl ChangeCapture for SqliteCapture {
    async fn prepare(&self, needs: &[TableNeeds]) -> Result<(), Fault> {
        self.check()?;
        let (tables, needs) = (Arc::clone(&self.tables), needs.to_vec());
        self.connections
            .run(move |database, connection| {
                for name in tables.iter() {
                    Table::read(database, connection, name)?;
                }
                needs.iter().try_for_each(|needs| check_needs(database, connection, &tables, needs))
            })
            .await
    }

    async fn open(&self) -> Result<Opened, Fault> {
        self.check()?;
        let (connections, consumer) = (Arc::clone(&self.connections), self.consumer.clone());
        let (tables, options) = (Arc::clone(&self.tables), self.options);
        let reader = blocking(move || {
            let database = connections.database.clone();
            let connection = database.connect()?;
            if options.write_ahead_log {
                // Where another connection is reading just now, or the file system has no shared memory, the mode stays.
                let switched =
                    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
                tracing::debug!(?switched, "asked for write-ahead logging");
            }
            let installed = log::install(&database, &connection, &consumer, &tables)?;
            Ok(Reader::new(database, connection, consumer, tables, installed, options.page_rows))
        })
        .await?;
        let stream = reader.installed.stream.clone();
        let changes = stream::try_unfold(
            (reader, VecDeque::from([Captured::More])),
            move |(mut reader, mut ready)| async move {
                loop {
                    if let Some(item) = ready.pop_front() {
                        return Ok::<_, Fault>(Some((item, (reader, ready))));
                    }
                    (reader, ready) = blocking(move || {
                        let ready = reader.step()?;
                        Ok((reader, ready))
                    })
                    .await?;
                    if ready.is_empty() && reader.is_at_the_end() {
                        tokio::time::sleep(options.poll_interval).await;
                    }
                }
            },
        );
        Ok(Opened { stream, changes: changes.boxed() })
    }

    async fn confirm(&self, stream: &StreamId, position: Position) -> Result<(), Fault> {
        let (consumer, stream) = (self.consumer.clone(), stream.clone());
        self.connections
            .run(move |database, connection| {
                log::confirm(database, connection, &consumer, &stream, position.0)
            })
            .await
    }

    async fn snapshot(&self, table: &SnapshotTable, after: Option<&Key>) -> Result<KeyStream, Fault> {
        let name = &table.table;
        if !self.tables.iter().any(|known| known.table().eq_ignore_ascii_case(name.table())) {
            return Err(self.connections.database.definition(not_captured(name)).into());
        }
        snapshot::keys(&self.connections, name.clone(), after.cloned(), self.options.page_rows).await
    }

    /// An estimate: how many records lie between the confirmed position and the end of the log, times the mean size of
    /// the newest ones. Records of tables that this consumer does not capture are counted too.
    async fn lag(&self) -> Result<Option<u64>, Fault> {
        let consumer = self.consumer.clone();
        self.connections.run(move |database, connection| lag(database, connection, &consumer)).await
    }
}

fn not_captured(table: &TableName) -> String {
    format!("`{table}` is not captured; name it among the tables given to `SqliteCapture::new`")
}

fn check_needs(
    database: &Database,
    connection: &Connection,
    captured: &[TableName],
    needs: &TableNeeds,
) -> Result<(), SqliteError> {
    let name = &needs.table;
    if !captured.contains(name) {
        return Err(database.definition(not_captured(name)));
    }
    let table = Table::read(database, connection, name)?;
    for column in &needs.before {
        if !table.column_names().contains(&column.as_str()) {
            let known = table.column_names().join("`, `");
            return Err(database.definition(format!(
                "`{name}` has no column `{column}`, which the documents need; it has `{known}`"
            )));
        }
    }
    Ok(())
}

fn lag(database: &Database, connection: &Connection, consumer: &str) -> Result<Option<u64>, SqliteError> {
    let failed = || database.failed("reading the lag");
    let read = || -> rusqlite::Result<Option<u64>> {
        let mut statement = connection.prepare("SELECT position FROM syncline_consumers WHERE name = ?1")?;
        let mut rows = statement.query([consumer])?;
        let Some(position) = rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()? else {
            return Ok(None);
        };
        let records = u64::try_from(log::end(connection)? - position).unwrap_or(0);
        let mut newest = connection.prepare("SELECT * FROM syncline_changes ORDER BY id DESC LIMIT ?1")?;
        let mut rows = newest.query([LAG_SAMPLE])?;
        let (mut bytes, mut sampled) = (0_u64, 0_u64);
        while let Some(row) = rows.next()? {
            let columns = row.as_ref().column_count();
            for at in 0..columns {
                bytes += stored_bytes(row.get_ref(at)?) as u64;
            }
            sampled += 1;
        }
        Ok(Some(records.saturating_mul(bytes) / sampled.max(1)))
    };
    match read() {
        // Before the first opening there is no log, and nothing is known.
        Err(_) if connection.prepare("SELECT 1 FROM syncline_consumers").is_err() => Ok(None),
        result => result.map_err(failed()),
    }
}

/// What the images of one shape mean to this consumer.
#[derive(Debug, Clone)]
struct Known {
    table: TableName,
    columns: Columns,
    key: Vec<usize>,
}

/// One opening: a connection that follows the log.
///
/// It reads the log's end first, and then the records up to it in pages, each in a short read of its own: an unpolled stream
/// keeps no snapshot open, which would stop the write-ahead log from being reused. It is right all the same. Whatever
/// snapshot showed the end showed whole transactions only, and SQLite has one writer, so that every record up to that end
/// was committed, with its whole transaction, before any later one; records never change, and only what this consumer
/// has confirmed is trimmed. So after the last page the end is a place to resume from, and no page before is.
#[derive(Debug)]
pub(super) struct Reader {
    database: Database,
    pub(super) connection: Connection,
    consumer: String,
    tables: Arc<[TableName]>,
    installed: Installed,
    page_rows: usize,
    /// SQLite's mark of the commits that other connections made; `None` before the first look.
    data_version: Option<i64>,
    /// The shapes met so far; `None` where another consumer's table has it.
    shapes: BTreeMap<i64, Option<Known>>,
    /// Every record up to here has been read.
    read: i64,
    /// The log's end when it was last looked for.
    end: i64,
}

impl Reader {
    pub(super) fn new(
        database: Database,
        connection: Connection,
        consumer: String,
        tables: Arc<[TableName]>,
        installed: Installed,
        page_rows: usize,
    ) -> Self {
        let read = installed.position;
        Self {
            database,
            connection,
            consumer,
            tables,
            installed,
            page_rows,
            data_version: None,
            shapes: BTreeMap::new(),
            read,
            end: read,
        }
    }

    /// As if it had just been opened, with another size of a page.
    #[cfg(feature = "__fuzz")]
    pub(super) fn begin_anew(&mut self, page_rows: usize) {
        let read = self.installed.position;
        (self.read, self.end, self.page_rows) = (read, read, page_rows);
        self.data_version = None;
        self.shapes.clear();
    }

    /// Whether it has read all that there was when it last looked.
    pub(super) fn is_at_the_end(&self) -> bool {
        self.read == self.end
    }

    /// The next items there are: a page of the log, with a checkpoint where that reaches the end. Empty where nothing
    /// was committed, or where a page held only records of others. Errors: stale, where the log was removed meanwhile,
    /// whatever read it was that missed a table of it.
    pub(super) fn step(&mut self) -> Result<VecDeque<Captured>, SqliteError> {
        self.try_step().map_err(|error| match log::is_whole(&self.connection) {
            Ok(false) => self.database.stale("the change log was removed"),
            _ => error,
        })
    }

    fn try_step(&mut self) -> Result<VecDeque<Captured>, SqliteError> {
        let mut items = VecDeque::new();
        let first = self.data_version.is_none();
        if self.read == self.end && !self.look()? {
            return Ok(items);
        }
        if self.read < self.end {
            self.page(&mut items)?;
        } else if !first {
            return Ok(items);
        }
        if self.read < self.end {
            items.push_back(Captured::More);
        } else if let Ok(end) = u64::try_from(self.end) {
            items.push_back(Captured::Checkpoint(Position(end)));
        }
        Ok(items)
    }

    /// Looks for commits since the last look, and whether the log still is the one that was opened. Returns whether
    /// there were any.
    fn look(&mut self) -> Result<bool, SqliteError> {
        let failed = || self.database.failed("looking for new commits");
        // The mark is read before the end: a commit in between is then seen twice, and not never.
        let data_version: i64 = self
            .connection
            .prepare_cached("PRAGMA main.data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failed())?;
        if self.data_version == Some(data_version) {
            return Ok(false);
        }
        let snapshot =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Deferred).map_err(failed())?;
        let schema_version = log::schema_version(&snapshot).map_err(failed())?;
        if schema_version != self.installed.schema_version {
            let stands =
                log::still_stands(&self.database, &snapshot, &self.tables, &self.installed.incarnations);
            if !stands? {
                return Err(self.database.stale("a captured table or its triggers were changed"));
            }
        }
        let position = log::position(&snapshot, &self.consumer, &self.installed.stream).map_err(failed())?;
        if position.is_none() {
            let consumer = &self.consumer;
            return Err(self
                .database
                .stale(format!("the consumer `{consumer}` was forgotten or opened elsewhere")));
        }
        let end = log::end(&snapshot).map_err(failed())?;
        if end < self.read {
            return Err(self.database.stale("the change log was set back"));
        }
        drop(snapshot);
        self.installed.schema_version = schema_version;
        self.end = end;
        self.data_version = Some(data_version);
        Ok(true)
    }

    fn page(&mut self, items: &mut VecDeque<Captured>) -> Result<(), SqliteError> {
        let Self { database, connection, shapes, .. } = self;
        let failed = || database.failed("reading the change log");
        // Prepared for each page, so that columns added to the log meanwhile are read.
        let mut statement = connection
            .prepare("SELECT * FROM syncline_changes WHERE id > ?1 AND id <= ?2 ORDER BY id")
            .map_err(failed())?;
        let mut rows = statement.query([self.read, self.end]).map_err(failed())?;
        let (mut records, mut bytes) = (0, 0);
        while let Some(row) = rows.next().map_err(failed())? {
            let id: i64 = row.get(0).map_err(failed())?;
            let shape: i64 = row.get(1).map_err(failed())?;
            let known = match shapes.entry(shape) {
                Entry::Occupied(met) => met.into_mut(),
                Entry::Vacant(new) => new.insert(known(database, connection, &self.tables, id, shape)?),
            };
            if let Some(known) = known {
                let change = decode(known, row, &mut bytes).map_err(|what| {
                    database
                        .unexpected(format!("record {id} of its change log, of `{}`: {what}", known.table))
                })?;
                items.push_back(Captured::Change(change));
            }
            self.read = id;
            records += 1;
            if records == self.page_rows || bytes >= PAGE_BYTES {
                return Ok(());
            }
        }
        // Ids that were rolled back, or trimmed away with the records of other consumers, leave gaps.
        self.read = self.end;
        Ok(())
    }
}

fn known(
    database: &Database,
    connection: &Connection,
    tables: &[TableName],
    id: i64,
    shape: i64,
) -> Result<Option<Known>, SqliteError> {
    let wrong = |what: String| database.unexpected(format!("record {id} of its change log {what}"));
    let found = log::shape(database, connection, shape)?
        .ok_or_else(|| wrong(format!("has shape {shape}, which is not there")))?;
    let Some(table) = tables.iter().find(|table| table.table().eq_ignore_ascii_case(&found.table)) else {
        return Ok(None);
    };
    let columns: Vec<ColumnName> = found
        .columns
        .iter()
        .map(ColumnName::new)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("is of a table with a malformed column: {error}")))?;
    Ok(Some(Known { table: table.clone(), columns: columns.into(), key: found.key }))
}

/// One record as a change. Errors say what is wrong with it.
fn decode(known: &Known, row: &rusqlite::Row<'_>, bytes: &mut usize) -> Result<Change, String> {
    let width = known.columns.len();
    let stored = |at: usize| row.get_ref(3 + at).map_err(|error| error.to_string());
    let ValueRef::Text(letter) = row.get_ref(2).map_err(|error| error.to_string())? else {
        return Err("its operation is no text".into());
    };
    let op = Op::read(letter).ok_or("its operation is unknown")?;
    let mut image = |from: usize| -> Result<Row, String> {
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            let stored = stored(from + at)?;
            *bytes += stored_bytes(stored) + size_of::<crate::value::Value>();
            values.push(Some(value(stored)));
        }
        Ok(Row::new(Arc::clone(&known.columns), values))
    };
    let before = op.has_before().then(|| image(0)).transpose()?;
    let after = op.has_after().then(|| image(if op == Op::Update { width } else { 0 })).transpose()?;
    let key_image = if op == Op::Update { width } else { 0 };
    let mut values = Vec::with_capacity(known.key.len());
    for at in &known.key {
        let part = key_value(stored(key_image + at)?).ok_or(
            "its key is not valid UTF-8, so that no document can be named after it; give the row another key or delete it, \
             then call `SqliteCapture::forget_consumer`, since the record stays: every index is seeded anew",
        )?;
        values.push(part);
    }
    let key = Key::new(values).map_err(|error| error.to_string())?;
    let change = match op {
        Op::Insert | Op::Update | Op::Replace => Change::upsert(known.table.clone(), key),
        Op::Delete => Change::delete(known.table.clone(), key),
    };
    Ok(Change { before, after, ..change })
}
