//! The log's own tables with whatever stands in them: opening the log goes on from it, or refuses it where something is
//! not what its column is to hold; and then a second opening finds what the first has left.

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, Row};
use syncline::connectors::sqlite::fuzz::install;
use syncline::{StreamId, TableName};

use crate::sqlite::Stored;

#[derive(Debug, Arbitrary)]
struct Case {
    /// What is written: into which column, and which value.
    writes: Vec<(u8, Written)>,
    /// What is dropped.
    drops: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Written {
    Any(Stored),
    /// A map as the consumers' tables have it.
    Map(Vec<(Name, u8)>),
    Text(Name),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Captured,
    Other,
    Any(String),
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Captured => "t",
            Self::Other => "u",
            Self::Any(text) => text,
        }
    }
}

const COLUMNS: [(&str, &str); 13] = [
    ("log", "uuid"),
    ("log", "layout"),
    ("shapes", "tbl"),
    ("shapes", "columns"),
    ("shapes", "key"),
    ("tables", "tbl"),
    ("tables", "shape"),
    ("tables", "incarnation"),
    ("consumers", "name"),
    ("consumers", "stream"),
    ("consumers", "log"),
    ("consumers", "tables"),
    ("consumers", "position"),
];

const DROPS: [&str; 7] = [
    "DROP TABLE IF EXISTS syncline_changes",
    "DROP TABLE IF EXISTS syncline_consumers",
    "DROP TABLE IF EXISTS syncline_shapes",
    "DROP TABLE IF EXISTS syncline_tables",
    "DROP TRIGGER IF EXISTS syncline_inserted_t",
    "DELETE FROM syncline_log",
    "DELETE FROM sqlite_sequence",
];

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a TEXT PRIMARY KEY)")
        .unwrap();
    let tables = ["t", "u"].map(|name| TableName::new(name).unwrap());
    install(&connection, "fuzz", &tables).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (1, 2); INSERT INTO u VALUES ('a')").unwrap();
    // What a constraint forbids, or what a statement before it has dropped, is not written.
    for at in &case.drops {
        let _ = connection.execute_batch(DROPS[usize::from(*at) % DROPS.len()]);
    }
    for (at, written) in &case.writes {
        let (table, column) = COLUMNS[usize::from(*at) % COLUMNS.len()];
        let _ = connection.execute(&format!("UPDATE syncline_{table} SET {column} = ?1"), [written.stored()]);
    }
    let recorded: Option<(String, i64)> = connection
        .query_row("SELECT stream, position FROM syncline_consumers WHERE name = 'fuzz'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .ok();
    let is_sound = is_sound(&connection);
    let opened = install(&connection, "fuzz", &tables);
    assert!(opened.is_ok() || !is_sound, "{opened:?}");
    let Ok((stream, position)) = opened else { return };
    match recorded {
        Some((recorded, at)) if recorded == stream.as_str() => assert_eq!(position, at),
        // A new stream begins at the end of the log, which holds two records at the most.
        _ => assert!((0..=2).contains(&position), "{stream} begins at {position}"),
    }
    let again = install(&connection, "fuzz", &tables).expect("what was opened can be opened again");
    assert_eq!(again, (stream, position), "the second opening is another stream");
}

/// Whether the log holds nothing but what its columns are to hold. A table that is missing is made anew, and with that of
/// the changes the log is a new one.
fn is_sound(connection: &Connection) -> bool {
    let is_log = |row: &Row<'_>| Ok(row.get::<_, String>(0).is_ok() && row.get::<_, i64>(1)? == 1);
    let is_shape = |row: &Row<'_>| {
        let (_, columns, key): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let columns: Option<Vec<String>> = serde_json::from_str(&columns).ok();
        let key: Option<Vec<usize>> = serde_json::from_str(&key).ok();
        let fits = |(columns, key): (Vec<String>, Vec<usize>)| key.iter().all(|at| *at < columns.len());
        Ok(columns.zip(key).is_some_and(fits))
    };
    let is_table = |row: &Row<'_>| Ok(row.get::<_, i64>(0).is_ok() && row.get::<_, String>(1).is_ok());
    let is_consumer = |row: &Row<'_>| {
        let (stream, _, _): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(StreamId::new(stream).is_ok() && row.get::<_, i64>(3).is_ok())
    };
    let begins_anew = connection.prepare("SELECT 1 FROM syncline_changes").is_err();
    (begins_anew || all(connection, "SELECT uuid, layout FROM syncline_log", is_log) == Some(1))
        && all(connection, "SELECT tbl, columns, key FROM syncline_shapes", is_shape).is_some()
        && all(connection, "SELECT shape, incarnation FROM syncline_tables", is_table).is_some()
        && all(connection, "SELECT stream, log, tables, position FROM syncline_consumers", is_consumer)
            .is_some()
}

/// How many rows there are; `None` where one is none of these.
fn all(
    connection: &Connection,
    select: &str,
    is_one: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
) -> Option<usize> {
    // There are none where the table is missing.
    let Ok(mut select) = connection.prepare(select) else { return Some(0) };
    let rows = select.query_map([], |row| Ok(is_one(row).unwrap_or(false))).unwrap();
    let rows: Vec<bool> = rows.collect::<Result<_, _>>().unwrap();
    rows.iter().all(|is_one| *is_one).then_some(rows.len())
}

impl Written {
    fn stored(&self) -> Stored {
        match self {
            Self::Any(stored) => stored.clone(),
            Self::Text(name) => Stored::Text(name.text().into()),
            Self::Map(entries) => {
                let entries =
                    entries.iter().map(|(name, value)| (name.text().to_owned(), value.to_string().into()));
                let map: serde_json::Map<String, serde_json::Value> = entries.collect();
                Stored::Text(serde_json::Value::Object(map).to_string().into())
            }
        }
    }
}
