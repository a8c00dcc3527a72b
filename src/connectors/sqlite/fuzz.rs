//! Private: the fuzzers' doors to what reads records and rows that others may have written. No part of the API.
//!
//! The connections may be to databases in memory, which the rest of the connector refuses.

use rusqlite::Connection;

use super::capture::Reader;
use super::database::Database;
use super::definition::IndexDefinition;
use super::error::SqliteError;
use super::index::Index;
use super::quarantine::{self, QuarantineRecord};
use super::schema::{self, Table};
use super::snapshot::Scan;
use super::{build, log};
use crate::change::Captured;
use crate::document::DocumentId;
use crate::name::{StreamId, TableName};
use crate::ports::{Built, QuarantinedDocument};
use crate::row::Key;
use crate::value::Value;

fn database() -> Database {
    Database::new("fuzzed.db")
}

/// A capture that is open.
#[derive(Debug)]
pub struct Log(Reader);

impl Log {
    /// Installs the log, its triggers and a consumer.
    pub fn open(
        connection: Connection,
        consumer: &str,
        tables: &[TableName],
        page_rows: usize,
    ) -> Result<Self, SqliteError> {
        let installed = log::install(&database(), &connection, consumer, tables)?;
        Ok(Self(Reader::new(
            database(),
            connection,
            consumer.to_owned(),
            tables.into(),
            installed,
            page_rows,
        )))
    }

    /// The connection, to write what others may have written.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Everything from here on to the end of the log.
    pub fn read(&mut self, page_rows: usize) -> Result<Vec<Captured>, SqliteError> {
        self.0.begin_anew(page_rows);
        let mut items = Vec::new();
        loop {
            items.extend(self.0.step()?);
            if self.0.is_at_the_end() {
                return Ok(items);
            }
        }
    }
}

/// Installs the log over whatever stands there: the stream, and where it begins.
pub fn install(
    connection: &Connection,
    consumer: &str,
    tables: &[TableName],
) -> Result<(StreamId, i64), SqliteError> {
    let installed = log::install(&database(), connection, consumer, tables)?;
    Ok((installed.stream, installed.position))
}

/// Makes the table of the quarantine.
pub fn create_quarantine(connection: &Connection) -> Result<(), SqliteError> {
    quarantine::create(&database(), connection)
}

/// What the quarantine holds.
pub fn quarantined(connection: &Connection) -> Result<Vec<QuarantineRecord>, SqliteError> {
    quarantine::records(&database(), connection)
}

/// Records a document in the quarantine.
pub fn quarantine(connection: &Connection, document: &QuarantinedDocument) -> Result<(), SqliteError> {
    quarantine::record(&database(), connection, std::slice::from_ref(document))
}

/// The keys of a table after this one, by pages of so many rows.
pub fn scan(
    connection: &Connection,
    name: &TableName,
    after: Option<Key>,
    page_rows: usize,
) -> Result<Vec<Key>, SqliteError> {
    let table = Table::read(&database(), connection, name)?;
    let scan = Scan::of(&database(), connection, name.clone(), table, after.as_ref(), page_rows)?;
    let (mut keys, mut after) = (Vec::new(), after);
    loop {
        let page = scan.page(&database(), connection, after.as_ref())?;
        let is_last = page.len() < page_rows;
        after = page.last().cloned();
        keys.extend(page);
        if is_last {
            return Ok(keys);
        }
    }
}

/// Builds these documents of an index.
pub fn build(
    connection: &Connection,
    definition: &IndexDefinition,
    ids: Vec<DocumentId>,
) -> Result<Vec<Built<String>>, SqliteError> {
    let root = Table::read(&database(), connection, &definition.root)?;
    let index = Index::check(&database(), connection, definition, &root)?;
    build::documents(&database(), connection, [(&index, ids)])
}

/// A value as a column of this declared type would hold it.
pub fn converted(declared: &str, value: Value) -> Value {
    schema::affinity(declared, false).apply(value)
}

/// A value as SQLite has it.
pub fn value(stored: rusqlite::types::ValueRef<'_>) -> Value {
    super::database::value(stored)
}
