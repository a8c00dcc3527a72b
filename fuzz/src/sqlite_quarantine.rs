//! The quarantine's table with whatever rows there are: each is a record, whose id is spelled as it stands there, or the
//! reading is refused; and a record that is written is read as it was.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, params_from_iter};
use syncline::change::Operation;
use syncline::connectors::sqlite::fuzz::{create_quarantine, quarantine, quarantined};
use syncline::ports::QuarantinedDocument;
use syncline::{DocumentId, Epoch, IndexName, Version};

use crate::sqlite::{Asked, Stored};

#[derive(Debug, Arbitrary)]
struct Case {
    record: Record,
    rows: Vec<[Stored; 9]>,
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
    for row in &case.rows {
        // What a constraint forbids is not written.
        let _ = connection
            .prepare_cached(
                "INSERT OR IGNORE INTO syncline_quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .unwrap()
            .execute(params_from_iter(row));
    }
    let Ok(records) = quarantined(connection) else { return };
    let mut select = connection
        .prepare_cached("SELECT index_name, id FROM syncline_quarantine ORDER BY index_name, id")
        .unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>().unwrap();
    let read = records.iter().map(|record| &record.document.id);
    let read: Vec<_> = read.map(|id| (id.index.to_string(), id.sink_id())).collect();
    assert_eq!(read, rows);
}

impl Record {
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
