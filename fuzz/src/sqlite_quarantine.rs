//! The quarantine's table with whatever rows there are: where each is a record all are read, under the ids that stand
//! there, else the reading is refused; and a record that is written is read as it was.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params_from_iter};
use syncline::change::Operation;
use syncline::connectors::sqlite::fuzz::{create_quarantine, quarantine, quarantined};
use syncline::document::decode_key;
use syncline::ports::QuarantinedDocument;
use syncline::{DocumentId, Epoch, IndexName, Version};

use crate::sqlite::{Asked, Stored};

#[derive(Debug, Arbitrary)]
struct Case {
    record: Record,
    rows: Vec<Written>,
}

#[derive(Debug, Arbitrary)]
enum Written {
    Any([Stored; 9]),
    /// A record as the connector writes it, and then in one of its columns something else.
    Record(Record, Option<(u8, Stored)>),
}

#[derive(Debug, Arbitrary)]
struct Record {
    index: String,
    key: Asked,
    deletes: bool,
    reason: String,
    attempts: u32,
    epoch: u64,
    build: u64,
}

thread_local! {
    static DATABASE: RefCell<Connection> = RefCell::new({
        let connection = Connection::open_in_memory().unwrap();
        create_quarantine(&connection).unwrap();
        connection
    });
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(bytes)) else { return };
    DATABASE.with_borrow(|connection| check(connection, &case));
}

fn check(connection: &Connection, case: &Case) {
    connection.execute_batch("DELETE FROM syncline_quarantine").unwrap();
    if let Some(document) = case.record.document() {
        quarantine(connection, &document).unwrap();
        let read: Vec<_> =
            quarantined(connection).unwrap().into_iter().map(|record| record.document).collect();
        assert_eq!(read, [document]);
    }
    for written in &case.rows {
        let Some(row) = written.row() else { continue };
        // What a constraint forbids is not written.
        let _ = connection
            .prepare_cached(
                "INSERT OR IGNORE INTO syncline_quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .unwrap()
            .execute(params_from_iter(row));
    }
    let mut select = connection.prepare_cached("SELECT * FROM syncline_quarantine").unwrap();
    let mut are_records = select.query_map([], |row| Ok(is_record(row))).unwrap();
    let are_records = are_records.all(|is_record| is_record.unwrap());
    let read = quarantined(connection);
    assert_eq!(read.is_ok(), are_records, "{read:?}");
    let Ok(records) = read else { return };
    let mut select = connection
        .prepare_cached("SELECT index_name, id FROM syncline_quarantine ORDER BY index_name, id")
        .unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>().unwrap();
    let read = records.iter().map(|record| &record.document.id);
    let read: Vec<_> = read.map(|id| (id.index.to_string(), id.sink_id())).collect();
    assert_eq!(read, rows);
}

/// Whether a row is one that the connector may have written.
fn is_record(row: &Row<'_>) -> bool {
    let text = |at: usize| match row.get_ref(at).unwrap() {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    let counts = |at: usize, most: i64| match row.get_ref(at).unwrap() {
        ValueRef::Integer(count) => (0..=most).contains(&count),
        _ => false,
    };
    text(0).is_some_and(|index| IndexName::new(index).is_ok())
        && text(1).is_some_and(|id| decode_key(id).is_some())
        && matches!(text(2), Some("upsert" | "delete"))
        && [3, 5, 6].into_iter().all(|at| text(at).is_some())
        && counts(4, u32::MAX.into())
        && counts(7, i64::MAX)
        && counts(8, i64::MAX)
}

impl Written {
    /// The row; `None` where the record is of no document.
    fn row(&self) -> Option<[Stored; 9]> {
        match self {
            Self::Any(row) => Some(row.clone()),
            Self::Record(record, other) => {
                let mut row = record.row()?;
                if let Some((at, stored)) = other {
                    row[usize::from(*at) % row.len()] = stored.clone();
                }
                Some(row)
            }
        }
    }
}

impl Record {
    fn row(&self) -> Option<[Stored; 9]> {
        let document = self.document()?;
        let text = |text: &str| Stored::Text(text.into());
        let count = |count: u64| Stored::Int(count.cast_signed());
        Some([
            text(document.id.index.as_str()),
            text(&document.id.sink_id()),
            text(if self.deletes { "delete" } else { "upsert" }),
            text(&self.reason),
            Stored::Int(self.attempts.into()),
            text("2031-01-31T23:59:59.123Z"),
            text("2031-01-31T23:59:59.123Z"),
            count(document.version.epoch.0),
            count(document.version.build),
        ])
    }

    /// The document that it is of; `None` where nothing can be named so.
    fn document(&self) -> Option<QuarantinedDocument> {
        let id = DocumentId::new(IndexName::new(&self.index).ok()?, self.key.key()?);
        // SQLite counts so far, and no run does.
        let version = Version { epoch: Epoch(self.epoch >> 1), build: self.build >> 1 };
        let operation = if self.deletes { Operation::Delete } else { Operation::Upsert };
        Some(QuarantinedDocument {
            id,
            operation,
            reason: (&*self.reason).into(),
            attempts: self.attempts,
            version,
        })
    }
}
