//! The change log: the tables that hold it, who reads it, and how far.
//!
//! | table | holds |
//! | --- | --- |
//! | `syncline_log` | the log's UUID and the version of this layout |
//! | `syncline_changes` | the changes: `id` (the position, never used again), `shape`, `op`, and the images in `v0`, `v1`, ... |
//! | `syncline_shapes` | what the images of a change mean: the table, its columns and key when the triggers were made |
//! | `syncline_tables` | the captured tables, each with an incarnation: a UUID that changes when changes may have been missed |
//! | `syncline_consumers` | the consumers, each with its stream, its tables' incarnations and its confirmed position |

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::database::{Database, quoted};
use super::error::SqliteError;
use super::schema::{OWN, Table};
use super::triggers::triggers;
use crate::name::{StreamId, TableName};

/// The version of the layout. Another one is refused, because it was written by another version of this crate.
const LAYOUT: i64 = 1;

/// SQLite refuses tables of more than 2,000 columns; an update logs each of its own twice.
const MAX_IMAGE_VALUES: usize = 1_990;

/// How many records one transaction of trimming removes, so that no writer waits long for it.
const TRIM_ROWS: i64 = 10_000;

/// The columns that a log record's images hold, and which of them are the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// The table, in the spelling of the database.
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    pub(super) key: Vec<usize>,
}

impl Shape {
    fn of(table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| column.name.clone()).collect();
        Self { table: table.name.clone(), columns, key: table.key.clone() }
    }
}

/// A consumer that is registered, and what its stream rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) stream: StreamId,
    /// The tables' incarnations, by the tables' names in the spelling of the database.
    pub(super) incarnations: BTreeMap<String, String>,
    /// SQLite's count of changes to the schema, for a cheap look whether all this still stands.
    pub(super) schema_version: i64,
    /// The position from which on the consumer is owed the changes.
    pub(super) position: i64,
}

/// Makes sure that the log, the triggers of these tables and the consumer are there, all in one transaction. Where changes
/// may have been missed, the consumer's stream is another one than before.
pub(super) fn install(
    database: &Database,
    connection: &Connection,
    consumer: &str,
    tables: &[TableName],
) -> Result<Installed, SqliteError> {
    let doing = "opening the change log";
    let transaction = database.write(connection, doing)?;
    let log = create(database, &transaction)?;
    let mut incarnations = BTreeMap::new();
    for name in tables {
        let table = Table::read(database, &transaction, name)?;
        let incarnation = install_table(database, &transaction, &table)?;
        incarnations.insert(table.name, incarnation);
    }
    let (stream, position) = install_consumer(database, &transaction, &log, consumer, &incarnations)?;
    let schema_version = schema_version(&transaction).map_err(database.failed(doing))?;
    transaction.commit().map_err(database.failed(doing))?;
    Ok(Installed { stream, incarnations, schema_version, position })
}

/// The log's tables. A log whose changes were dropped by hand is a new one: its positions begin anew.
fn create(database: &Database, connection: &Connection) -> Result<String, SqliteError> {
    let failed = || database.failed("creating the change log");
    let there = exists(connection, "changes").map_err(failed())?;
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS syncline_log(
                 one INTEGER PRIMARY KEY CHECK (one = 1), uuid TEXT NOT NULL, layout INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS syncline_changes(
                 id INTEGER PRIMARY KEY AUTOINCREMENT, shape INTEGER NOT NULL, op TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS syncline_shapes(
                 id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, columns TEXT NOT NULL, key TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS syncline_tables(
                 tbl TEXT PRIMARY KEY, shape INTEGER NOT NULL, incarnation TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS syncline_consumers(
                 name TEXT PRIMARY KEY, stream TEXT NOT NULL, log TEXT NOT NULL, tables TEXT NOT NULL,
                 position INTEGER NOT NULL);",
        )
        .map_err(failed())?;
    if !there {
        connection
            .execute("INSERT OR REPLACE INTO syncline_log VALUES (1, ?1, ?2)", params![uuid(), LAYOUT])
            .map_err(failed())?;
        // Triggers that are left of an older log write into columns that this one does not have yet.
        connection.execute("DELETE FROM syncline_tables", []).map_err(failed())?;
    }
    let (uuid, layout): (String, i64) = connection
        .query_row("SELECT uuid, layout FROM syncline_log", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed())?;
    match layout == LAYOUT {
        true => Ok(uuid),
        false => Err(database.definition(format!(
            "its change log has layout {layout}, this version of Syncline writes {LAYOUT}; remove the log with \
             `SqliteCapture::remove_log` and every index is seeded anew"
        ))),
    }
}

/// The triggers of one table, and its incarnation: a new one where they were missing or logged something else, since rows
/// may have been changed unseen. Columns that were only added since leave it as it is: every change was logged, and what
/// the log did not hold of it no document was made from.
fn install_table(database: &Database, connection: &Connection, table: &Table) -> Result<String, SqliteError> {
    let failed = || database.failed(format!("creating the triggers of `{}`", table.name));
    if table.columns.len() * 2 > MAX_IMAGE_VALUES {
        let (name, columns) = (&table.name, table.columns.len());
        return Err(database
            .definition(format!("`{name}` has {columns} columns; at most {} fit", MAX_IMAGE_VALUES / 2)));
    }
    for index in &table.unseen_uniques {
        tracing::warn!(
            table = %table.name,
            index = %index,
            "rows that are replaced through a unique index over an expression are not captured"
        );
    }
    let found = installed(connection, &table.name).map_err(failed())?;
    let recorded: Option<(i64, String)> = connection
        .query_row("SELECT shape, incarnation FROM syncline_tables WHERE tbl = ?1", [&table.name], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(failed())?;
    let mut incarnation = uuid();
    if let Some((id, recorded)) = recorded
        && let Some(shape) = shape(database, connection, id)?
    {
        let current = Shape::of(table);
        let same_so_far = shape.key == current.key && current.columns.starts_with(&shape.columns);
        if same_so_far && found == triggers(table, shape.columns.len(), id).into_iter().collect() {
            if shape == current {
                return Ok(recorded);
            }
            incarnation = recorded;
        }
    }

    drop_triggers(connection, found.keys()).map_err(failed())?;
    widen(connection, table.columns.len() * 2).map_err(failed())?;
    let shape = Shape::of(table);
    connection
        .execute(
            "INSERT INTO syncline_shapes(tbl, columns, key) VALUES (?1, ?2, ?3)",
            params![
                shape.table,
                serde_json::Value::from(shape.columns).to_string(),
                serde_json::Value::from(shape.key).to_string()
            ],
        )
        .map_err(failed())?;
    let id = connection.last_insert_rowid();
    for (_, sql) in triggers(table, table.columns.len(), id) {
        connection.execute_batch(&sql).map_err(failed())?;
    }
    connection
        .execute(
            "INSERT OR REPLACE INTO syncline_tables VALUES (?1, ?2, ?3)",
            params![table.name, id, incarnation],
        )
        .map_err(failed())?;
    Ok(incarnation)
}

/// The connector's triggers of a table, by name, with their SQL.
fn installed(connection: &Connection, table: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE \
             AND name GLOB ?2",
        )?
        .query_map(params![table, format!("{OWN}*")], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn drop_triggers<'a>(
    connection: &Connection,
    names: impl Iterator<Item = &'a String>,
) -> rusqlite::Result<()> {
    for name in names {
        connection.execute_batch(&format!("DROP TRIGGER {}", quoted(name)))?;
    }
    Ok(())
}

/// Columns enough for the images of the widest table. They have no type, so that every value stays as it is.
fn widen(connection: &Connection, values: usize) -> rusqlite::Result<()> {
    let columns: u32 =
        connection
            .query_row("SELECT count(*) FROM pragma_table_info('syncline_changes')", [], |row| row.get(0))?;
    for at in (columns as usize).saturating_sub(3)..values {
        connection.execute_batch(&format!("ALTER TABLE syncline_changes ADD COLUMN v{at}"))?;
    }
    Ok(())
}

/// The consumer's row. It keeps its stream where it has seen this very log, and these very triggers, ever since; else it
/// gets a new one that begins at the log's end, since all that came before is seeded.
fn install_consumer(
    database: &Database,
    connection: &Connection,
    log: &str,
    consumer: &str,
    incarnations: &BTreeMap<String, String>,
) -> Result<(StreamId, i64), SqliteError> {
    let failed = || database.failed(format!("registering the consumer `{consumer}`"));
    let end = end(connection).map_err(failed())?;
    let recorded: Option<(String, String, String, i64)> = connection
        .query_row(
            "SELECT stream, log, tables, position FROM syncline_consumers WHERE name = ?1",
            [consumer],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .optional()
        .map_err(failed())?;
    let tables: serde_json::Map<String, serde_json::Value> =
        incarnations.iter().map(|(table, incarnation)| (table.clone(), incarnation.clone().into())).collect();
    let mut stream = format!("sqlite/{consumer}/{}", uuid());
    let mut position = end;
    if let Some((old_stream, old_log, old_tables, old_position)) = recorded {
        let old_tables: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&old_tables).unwrap_or_default();
        let continues = tables.iter().all(|(table, incarnation)| old_tables.get(table) == Some(incarnation));
        if continues && old_log == log && old_position <= end {
            (stream, position) = (old_stream, old_position);
        }
    }
    let named = StreamId::new(&stream).map_err(|error| {
        database.definition(format!("the consumer name `{consumer}` is no good: {error}"))
    })?;
    connection
        .execute(
            "INSERT OR REPLACE INTO syncline_consumers VALUES (?1, ?2, ?3, ?4, ?5)",
            params![consumer, stream, log, serde_json::Value::Object(tables).to_string(), position],
        )
        .map_err(failed())?;
    Ok((named, position))
}

/// The highest id that any committed change was ever given, also where it was trimmed since.
///
/// The sequence alone does not tell: a statement that fails and keeps what it has written (`INSERT OR FAIL`, `RAISE(FAIL)`)
/// leaves its records, and not the sequence.
pub(super) fn end(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'syncline_changes'), 0),
                        coalesce((SELECT max(id) FROM syncline_changes), 0))",
        )?
        .query_row([], |row| row.get(0))
}

/// Writes the sequence where it lags behind the records: once they are trimmed, it alone keeps their ids from being given
/// again.
fn keep_end(connection: &Connection) -> rusqlite::Result<()> {
    let end = [end(connection)?];
    connection
        .execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'syncline_changes' AND seq < ?1", end)?;
    connection.execute(
        "INSERT INTO sqlite_sequence(name, seq) SELECT 'syncline_changes', ?1
         WHERE ?1 > 0 AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'syncline_changes')",
        end,
    )?;
    Ok(())
}

/// The shape of this id, where there is one.
pub(super) fn shape(
    database: &Database,
    connection: &Connection,
    id: i64,
) -> Result<Option<Shape>, SqliteError> {
    let found: Option<(String, String, String)> = connection
        .prepare_cached("SELECT tbl, columns, key FROM syncline_shapes WHERE id = ?1")
        .and_then(|mut statement| {
            statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(database.failed("reading the change log's shapes"))?;
    let Some((table, columns, key)) = found else { return Ok(None) };
    let columns: Option<Vec<String>> = serde_json::from_str(&columns).ok();
    let key: Option<Vec<usize>> = serde_json::from_str(&key).ok();
    match (columns, key) {
        (Some(columns), Some(key)) if key.iter().all(|at| *at < columns.len()) => {
            Ok(Some(Shape { table, columns, key }))
        }
        _ => Err(database.unexpected(format!("shape {id} of its change log is malformed"))),
    }
}

/// The confirmed position of a consumer's stream; `None` where it has another one by now, or is forgotten.
pub(super) fn position(
    connection: &Connection,
    consumer: &str,
    stream: &StreamId,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT position FROM syncline_consumers WHERE name = ?1 AND stream = ?2")?
        .query_row([consumer, stream.as_str()], |row| row.get(0))
        .optional()
}

/// Whether a consumer's tables and triggers are still those that its stream rests on.
pub(super) fn still_stands(
    database: &Database,
    connection: &Connection,
    tables: &[TableName],
    incarnations: &BTreeMap<String, String>,
) -> Result<bool, SqliteError> {
    let failed = || database.failed("checking the triggers");
    for name in tables {
        let table = Table::read(database, connection, name)?;
        let recorded: Option<(i64, String)> = connection
            .query_row(
                "SELECT shape, incarnation FROM syncline_tables WHERE tbl = ?1",
                [&table.name],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(failed())?;
        let Some((id, incarnation)) = recorded else { return Ok(false) };
        let expected = triggers(&table, table.columns.len(), id).into_iter().collect();
        if incarnations.get(&table.name) != Some(&incarnation)
            || installed(connection, &table.name).map_err(failed())? != expected
        {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0))
}

/// Durably moves a consumer forward, never back, and removes what every consumer has confirmed. A stream that the
/// consumer no longer has is passed over: its positions mean nothing any more.
pub(super) fn confirm(
    database: &Database,
    connection: &Connection,
    consumer: &str,
    stream: &StreamId,
    position: u64,
) -> Result<(), SqliteError> {
    let doing = "confirming a position";
    let target = i64::try_from(position).unwrap_or(i64::MAX);
    let confirmed = self::position(connection, consumer, stream).map_err(database.failed(doing))?;
    if confirmed.is_some_and(|confirmed| confirmed < target) {
        let transaction = database.write(connection, doing)?;
        let past_the_end = end(&transaction).map_err(database.failed(doing))? < target;
        if past_the_end {
            return Err(
                database.definition(format!("position {position} lies past the end of its change log"))
            );
        }
        transaction
            .execute(
                "UPDATE syncline_consumers SET position = max(position, ?3) WHERE name = ?1 AND stream = ?2",
                params![consumer, stream.as_str(), target],
            )
            .map_err(database.failed(doing))?;
        transaction.commit().map_err(database.failed(doing))?;
        trim(database, connection)?;
    }
    Ok(())
}

/// Removes what every consumer has confirmed, a few records at a time.
fn trim(database: &Database, connection: &Connection) -> Result<(), SqliteError> {
    let failed = || database.failed("trimming the change log");
    loop {
        let transaction = database.write(connection, "trimming the change log")?;
        keep_end(&transaction).map_err(failed())?;
        let removed = transaction
            .execute(
                "DELETE FROM syncline_changes WHERE id <= min(
                     (SELECT min(position) FROM syncline_consumers),
                     (SELECT min(id) FROM syncline_changes) + ?1 - 1)",
                [TRIM_ROWS],
            )
            .map_err(failed())?;
        transaction.commit().map_err(failed())?;
        if removed == 0 {
            return Ok(());
        }
    }
}

/// Forgets a consumer, so that the log is no longer kept for it; with the last one goes the log, which nobody would trim
/// any more. Returns whether there was one of this name.
pub(super) fn forget(
    database: &Database,
    connection: &Connection,
    consumer: &str,
) -> Result<bool, SqliteError> {
    let failed = || database.failed(format!("forgetting the consumer `{consumer}`"));
    if !exists(connection, "consumers").map_err(failed())? {
        return Ok(false);
    }
    let forgotten =
        connection.execute("DELETE FROM syncline_consumers WHERE name = ?1", [consumer]).map_err(failed())?
            > 0;
    let others: bool = connection
        .query_row("SELECT EXISTS (SELECT 1 FROM syncline_consumers)", [], |row| row.get(0))
        .map_err(failed())?;
    match others {
        true => trim(database, connection)?,
        false => remove(database, connection)?,
    }
    Ok(forgotten)
}

/// Removes every trigger and table of the log, and with them all consumers.
pub(super) fn remove(database: &Database, connection: &Connection) -> Result<(), SqliteError> {
    let doing = "removing the change log";
    let transaction = database.write(connection, doing)?;
    let names: Vec<String> = transaction
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB ?1")
        .and_then(|mut statement| {
            statement.query_map([format!("{OWN}*")], |row| row.get(0))?.collect::<Result<_, _>>()
        })
        .map_err(database.failed(doing))?;
    drop_triggers(&transaction, names.iter()).map_err(database.failed(doing))?;
    for table in ["changes", "shapes", "tables", "consumers", "log"] {
        transaction
            .execute_batch(&format!("DROP TABLE IF EXISTS {OWN}{table}"))
            .map_err(database.failed(doing))?;
    }
    transaction.commit().map_err(database.failed(doing))
}

fn exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?
        .exists([format!("{OWN}{table}")])
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
