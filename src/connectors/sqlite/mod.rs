//! Changes and documents of an SQLite database: [`SqliteCapture`], [`SqliteDocuments`], and a durable
//! [`SqliteQuarantine`].
//!
//! ```no_run
//! use syncline::connectors::sqlite::{IndexDefinition, Related, SqliteCapture, SqliteDocuments};
//! use syncline::ports::{Field, FieldKind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let books = IndexDefinition::new(
//!     "books",
//!     "books",
//!     "SELECT b.id, json_object('title', b.title, 'stars',
//!                               (SELECT avg(r.stars) FROM reviews r WHERE r.book_id = b.id))
//!      FROM syncline_keys k JOIN books b ON b.id = k.k1",
//! )?
//! .field(Field::new("title", FieldKind::Text))
//! .field(Field::new("stars", FieldKind::Float))
//! .related(Related::columns("reviews", ["book_id"])?);
//!
//! let documents = SqliteDocuments::open("shop.db", [books])?;
//! let capture = SqliteCapture::new("shop.db", "search", documents.tables());
//! // Engine::new(capture, documents, sink).run().await
//! # Ok(())
//! # }
//! ```
//!
//! # How changes are captured
//!
//! Opening installs triggers on the captured tables. In the same transaction as a change they append it, with the row as
//! it was and as it is, to the table `syncline_changes`. So whatever program commits a change, in whatever language, the
//! change is in the log exactly if it is in the table; hooks and sessions of SQLite would see one connection's changes
//! only. A record's `AUTOINCREMENT` id is its [`Position`](crate::change::Position): SQLite has one writer at a time, so
//! that the order of the ids is that of the commits, and it never gives an id again. The log is followed by looking at
//! `PRAGMA data_version` every few milliseconds, which reads one counter.
//!
//! Each consumer has its confirmed position in the database, and the log is trimmed to the least of them. **A consumer
//! that never comes back keeps the log growing**: [`SqliteCapture::forget_consumer`] it.
//!
//! A consumer's stream gets another [`StreamId`](crate::name::StreamId), which seeds every index anew, whenever changes
//! may have been missed: the consumer is new, a table is captured that was not before, a trigger was missing or changed, a
//! key or a UNIQUE constraint is another, the log was dropped. Columns that were only added keep it.
//!
//! # Which tables an index reads
//!
//! A document is built again when a row of its root changes, or one of a [`related`](IndexDefinition::related) table.
//! [`SqliteDocuments::open`] asks SQLite which tables the SQL of an index reads, through views and common table
//! expressions too, and refuses a definition that says nothing of one of them ([`SqliteError::Undeclared`]): the index
//! would go stale without a word. A table whose changes do not matter, such as a list of countries, is declared with
//! [`IndexDefinition::constant`]; so is a virtual table, for which SQLite has no triggers.
//!
//! ```
//! # use syncline::connectors::sqlite::IndexDefinition;
//! let shops = IndexDefinition::new(
//!     "shops",
//!     "shops",
//!     "SELECT s.id, json_object('name', s.name, 'country', c.name)
//!      FROM syncline_keys k JOIN shops s ON s.id = k.k1 JOIN countries c ON c.code = s.country",
//! )?
//! .constant("countries")?;
//! # Ok::<(), syncline::name::NameError>(())
//! ```
//!
//! # What an application should know
//!
//! - The file is switched to write-ahead logging, unless [`SqliteCapture::write_ahead_log`] says otherwise.
//! - The engine is one more writer: now and then it writes down, in a short transaction, how far it has got, and trims the
//!   log. Applications should set a busy timeout, and begin transactions that read before they write with `BEGIN IMMEDIATE`:
//!   SQLite refuses a reader's first write at once (`SQLITE_BUSY_SNAPSHOT`) where somebody else has written since.
//! - Every captured table needs a declared `PRIMARY KEY`. A row with a NULL in it has no identity, and no document.
//! - `REPLACE` is captured: rows that a write would collide with, by the key or a UNIQUE constraint, are logged before it,
//!   as an upsert with a `before` image and no `after`, because they may be gone. Not seen is a row that is replaced
//!   through a unique index over an *expression* (opening logs a warning), or by an explicit `rowid` that is not the key.
//! - Not captured is what SQLite hides from triggers: `PRAGMA writable_schema`, a writer that turned triggers off
//!   (`SQLITE_DBCONFIG_ENABLE_TRIGGER`), and `DROP TABLE`, which ends the run with an error.
//! - The triggers name the tables' columns. `ALTER TABLE ... DROP COLUMN` is refused while they are there: drop the table's
//!   triggers `syncline_*` in the same migration, and the next opening makes them again, under another stream.
//!   `ALTER TABLE ... RENAME COLUMN` passes, and brings another stream too.
//! - A table that is renamed takes its triggers along. Its old name may go to a new table in the same transaction: the run
//!   opens the capture again, which makes the triggers anew and brings another stream. Where nothing goes by the captured name
//!   any more, the run ends with an error.
//! - A database that was restored from a backup, or copied, brings its consumers' positions and streams along, which the
//!   destination has passed by then: call [`SqliteCapture::forget_consumer`] before it is opened. Do not replace the file
//!   while anything runs.
//! - Text that is not valid UTF-8 travels in images as its bytes; in a key it is an error, which ends every run
//!   until the row has another key and the consumer was forgotten. UTF-16 databases are refused.
//! - A key column that ignores case (`COLLATE NOCASE`) works, but its snapshot sorts the whole table for each page, and a
//!   [`Related::columns`] must spell the key as its row does.

mod build;
mod capture;
mod database;
mod definition;
mod documents;
mod error;
#[cfg(feature = "__fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod index;
mod log;
mod quarantine;
mod reads;
mod schema;
mod snapshot;
mod triggers;

pub use capture::SqliteCapture;
pub use definition::{IndexDefinition, Related};
pub use documents::SqliteDocuments;
pub use error::SqliteError;
pub(crate) use error::classify;
pub use quarantine::{QuarantineRecord, SqliteQuarantine};
