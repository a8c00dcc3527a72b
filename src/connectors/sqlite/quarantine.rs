//! A quarantine in a table.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::database::{Connections, Database};
use super::error::SqliteError;
use crate::change::Operation;
use crate::document::{DocumentId, Epoch, Version, decode_key};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{CuredDocument, Quarantine, QuarantinedDocument};

/// A durable [`Quarantine`] in the table `syncline_quarantine` of an SQLite file: the one that is captured, or any other.
///
/// The table is there to be looked at by people and other programs:
///
/// | column | holds |
/// | --- | --- |
/// | `index_name`, `id` | the document, its id as the sink spells it ([`encode_key`](crate::document::encode_key)) |
/// | `operation` | `upsert` or `delete` |
/// | `reason`, `attempts` | why it was not applied, and how often the last unit tried |
/// | `first_at`, `last_at` | when it came in, and when it last failed: UTC, as `2031-01-31T23:59:59.123Z` |
#[derive(Debug)]
pub struct SqliteQuarantine {
    connections: Arc<Connections>,
}

/// A record of the quarantine, with its times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuarantineRecord {
    /// What the engine recorded.
    pub document: QuarantinedDocument,
    /// When the document came in: UTC, in the form of ISO 8601.
    pub first_at: String,
    /// When it last failed.
    pub last_at: String,
}

impl SqliteQuarantine {
    /// The quarantine in the file at `path`. The file and the table are made where they are missing; blocks for as long.
    ///
    /// Errors: a file that is no database, or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqliteError> {
        let database = Database::new(path);
        let connection = database.connect_or_create()?;
        create(&database, &connection)?;
        Ok(Self { connections: Arc::new(Connections::new(database)) })
    }

    /// Every record, in the order of indexes and ids. Errors: a database that is busy, or a record that was not written
    /// by this crate.
    pub async fn records(&self) -> Result<Vec<QuarantineRecord>, Fault> {
        self.connections.run(records).await
    }
}

pub(super) fn create(database: &Database, connection: &Connection) -> Result<(), SqliteError> {
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS syncline_quarantine(
                 index_name TEXT NOT NULL, id TEXT NOT NULL, operation TEXT NOT NULL, reason TEXT NOT NULL,
                 attempts INTEGER NOT NULL, first_at TEXT NOT NULL, last_at TEXT NOT NULL,
                 epoch INTEGER NOT NULL, build INTEGER NOT NULL,
                 PRIMARY KEY (index_name, id)) WITHOUT ROWID",
        )
        .map_err(database.failed("creating the quarantine"))
}

pub(super) fn records(
    database: &Database,
    connection: &Connection,
) -> Result<Vec<QuarantineRecord>, SqliteError> {
    let failed = || database.failed("reading the quarantine");
    let mut statement = connection
        .prepare_cached(
            "SELECT index_name, id, operation, reason, attempts, first_at, last_at, epoch, build \
             FROM syncline_quarantine \
             ORDER BY index_name, id",
        )
        .map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let text = |at: usize| row.get::<_, String>(at).map_err(failed());
        let (index, id, operation) = (text(0)?, text(1)?, text(2)?);
        let wrong = || database.unexpected(format!("the quarantine's record of {index}/{id} is malformed"));
        let number = |at: usize| {
            row.get::<_, i64>(at).ok().and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong)
        };
        records.push(QuarantineRecord {
            document: QuarantinedDocument {
                id: DocumentId::new(
                    IndexName::new(&index).map_err(|_| wrong())?,
                    decode_key(&id).ok_or_else(wrong)?,
                ),
                operation: match &*operation {
                    "upsert" => Operation::Upsert,
                    "delete" => Operation::Delete,
                    _ => return Err(wrong()),
                },
                reason: text(3)?.into(),
                attempts: row.get(4).map_err(|_| wrong())?,
                version: Version { epoch: Epoch(number(7)?), build: number(8)? },
            },
            first_at: text(5)?,
            last_at: text(6)?,
        });
    }
    Ok(records)
}

pub(super) fn record(
    database: &Database,
    connection: &Connection,
    documents: &[QuarantinedDocument],
) -> Result<(), SqliteError> {
    let doing = "recording in the quarantine";
    let transaction = database.write(connection, doing)?;
    for document in documents {
        let operation = match document.operation {
            Operation::Upsert => "upsert",
            Operation::Delete => "delete",
        };
        transaction
            .prepare_cached(
                "INSERT INTO syncline_quarantine
                 SELECT ?1, ?2, ?3, ?4, ?5, now, now, ?6, ?7
                 FROM (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now) WHERE true
                 ON CONFLICT DO UPDATE SET operation = excluded.operation, reason = excluded.reason,
                     attempts = excluded.attempts, last_at = excluded.last_at, epoch = excluded.epoch,
                     build = excluded.build",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    document.id.index.as_str(),
                    document.id.sink_id(),
                    operation,
                    &*document.reason,
                    document.attempts,
                    stored(document.version.epoch.0),
                    stored(document.version.build),
                ])
            })
            .map_err(database.failed(doing))?;
    }
    transaction.commit().map_err(database.failed(doing))
}

/// SQLite's integers end at 2⁶³ - 1, which no run counts to.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Quarantine for SqliteQuarantine {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        Ok(self.records().await?.into_iter().map(|record| record.document.id).collect())
    }

    async fn record(&self, documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        let documents = documents.to_vec();
        self.connections.run(move |database, connection| record(database, connection, &documents)).await
    }

    async fn release(&self, documents: &[CuredDocument]) -> Result<(), Fault> {
        let documents = documents.to_vec();
        self.connections
            .run(move |database, connection| {
                let doing = "releasing from the quarantine";
                let transaction = database.write(connection, doing)?;
                for CuredDocument { id, version } in &documents {
                    transaction
                        .prepare_cached(
                            "DELETE FROM syncline_quarantine
                             WHERE index_name = ?1 AND id = ?2 AND (epoch, build) <= (?3, ?4)",
                        )
                        .and_then(|mut statement| {
                            statement.execute(params![
                                id.index.as_str(),
                                id.sink_id(),
                                stored(version.epoch.0),
                                stored(version.build)
                            ])
                        })
                        .map_err(database.failed(doing))?;
                }
                transaction.commit().map_err(database.failed(doing))
            })
            .await
    }
}
