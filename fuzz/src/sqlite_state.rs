//! The log's own tables with whatever stands in them: opening the log refuses it, or goes on from it, and then a second
//! opening finds what the first has left.

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::Connection;
use syncline::TableName;
use syncline::connectors::sqlite::fuzz::install;

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
    let Ok((stream, position)) = install(&connection, "fuzz", &tables) else { return };
    match recorded {
        Some((recorded, at)) if recorded == stream.as_str() => assert_eq!(position, at),
        // A new stream begins at the end of the log, which holds two records at the most.
        _ => assert!((0..=2).contains(&position), "{stream} begins at {position}"),
    }
    let again = install(&connection, "fuzz", &tables).expect("what was opened can be opened again");
    assert_eq!(again, (stream, position), "the second opening is another stream");
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
