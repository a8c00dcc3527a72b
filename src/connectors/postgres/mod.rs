//! Changes and documents of a PostgreSQL database: [`PostgresCapture`] and [`PostgresDocuments`], over one [`Server`].
//!
//! ```no_run
//! use syncline::connectors::postgres::{IndexDefinition, PostgresCapture, PostgresDocuments, Related, Server};
//! use syncline::ports::{Field, FieldKind};
//!
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::new("host=db.example.com user=search dbname=shop")?.password_file("/run/secrets/shop");
//! let books = IndexDefinition::new(
//!     "books",
//!     "books",
//!     "SELECT b.id, jsonb_build_object('title', b.title, 'stars',
//!                                      (SELECT avg(r.stars) FROM reviews r WHERE r.book_id = b.id))
//!      FROM books b WHERE b.id = ANY($1)",
//! )?
//! .field(Field::new("title", FieldKind::Text))
//! .field(Field::new("stars", FieldKind::Float))
//! .related(Related::columns("reviews", ["book_id"])?);
//!
//! let documents = PostgresDocuments::open(&server, [books]).await?;
//! let capture = PostgresCapture::new(&server, "search", documents.tables());
//! // Engine::new(capture, documents, sink).run().await
//! # Ok(())
//! # }
//! ```
//!
//! # What the server needs
//!
//! PostgreSQL 13 or later; the tests run against 15. Set, and restart it:
//!
//! ```sql
//! ALTER SYSTEM SET wal_level = logical;
//! ALTER SYSTEM SET max_replication_slots = 10;  -- one for each consumer, and one more while a slot is made
//! ALTER SYSTEM SET max_wal_senders = 10;        -- one for each consumer
//! ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- gives a consumer up before the disk is full
//! ```
//!
//! A role that replicates and reads, and, once, by the owner of the tables:
//!
//! ```sql
//! CREATE ROLE search LOGIN REPLICATION PASSWORD '...';
//! GRANT USAGE ON SCHEMA public TO search;
//! GRANT SELECT ON books, reviews TO search;
//! CREATE PUBLICATION syncline_search FOR TABLE books, reviews
//!     WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
//! ALTER TABLE reviews REPLICA IDENTITY FULL;  -- so that a deleted or moved review tells its book
//! ```
//!
//! Whatever of this is missing is done where the role may (a role that owns the tables may publish them), and otherwise the
//! run does not start: the error holds the very SQL to run. `pg_hba.conf` must let the role in with `replication` for
//! its database as well as without. Connect to the server itself: a pooler passes no replication on.
//!
//! # How changes are captured
//!
//! By logical replication, as a standby would be fed: from a slot, through a publication, in the format of `pgoutput`,
//! which every server has. Changes come in the order of their commits, whole transactions at a time; after each there is a
//! checkpoint, and where nothing is under way every sign of life of the server is one, so that a slot moves on with the log
//! while the captured tables are idle. A stream that waits says that more follows
//! ([`More`](crate::change::Captured::More)) inside of a transaction, and until it has come to where the log ended when it
//! was opened. Nothing but a confirmed position is ever told to the server. A transaction of any size passes through a
//! buffer of some 4 MB, and the connection is kept alive while the engine does not ask for more.
//!
//! **A consumer that never comes back keeps the log growing**, up to `max_slot_wal_keep_size`: see
//! [`PostgresCapture::forget_consumer`], and the engine's alarm on [`lag`](crate::ports::ChangeCapture::lag).
//!
//! A consumer's stream gets another [`StreamId`](crate::name::StreamId), which seeds every index anew, whenever changes
//! may have been missed. A slot's name ends in a number of its own, and is never made again: when a slot is gone, when the
//! server has invalidated it (`wal_status = 'lost'`), or when the publication lacked a table or an option, a new one is
//! made under another name. A slot that somebody has moved, or dropped and made again under its very name, is noticed by
//! the run that had it, since it is ahead of what that run has confirmed; not by one that was started later.
//!
//! To add an index over a new table without seeding the others again, add the table to the publication yourself before
//! the program that needs it is started: then nothing was missed.
//!
//! # What is read, and when
//!
//! A row is named by its primary key, or by the columns of the index that is the table's replica identity. Values travel
//! as the text of their type, in the same session settings everywhere, so that a key is equal out of the stream, out of a
//! snapshot and into a query.
//!
//! A commit is streamed before other sessions see it; on a standby, long before. A document is built only from a
//! snapshot that shows the change that asks for it, and everything before the point from which the stream resumes, and is
//! tried again until there is one. So [`PostgresDocuments`] may read from a standby, by a [`Server`] of its own: a physical
//! standby of the captured server, in the same process as its capture. With any other server the first change ends the run,
//! and so does a standby that stays behind for longer than the engine tries again.
//!
//! A table is scanned page by page in the order in which its keys are sorted as [`Value`](crate::value::Value)s. For
//! integers, UUIDs, `bytea` and, under the `C` collation, texts, that is the order of the key's own index. For any other
//! key each page of 64,000 sorts the table; for a text key an index of `(key COLLATE "C")` avoids that.
//!
//! # What an application should know
//!
//! - `TRUNCATE` of a captured table empties every index that is built from it, which is then seeded again: for a large
//!   index whose documents have a part in a small truncated table, `DELETE` is kinder to searchers.
//! - Every captured table needs a primary key, or a replica identity by an index. Generated columns are not in the stream,
//!   and cannot lead to documents.
//! - A table whose role has no `BYPASSRLS` and whose policies would hide rows is an error, not a smaller index.
//! - Columns may come and go while a run goes on. When the key of a table or its replica identity is changed, the capture
//!   is opened again and everything checked again. A table that is dropped, made anew, or taken out of the publication is
//!   noticed within [`PostgresCapture::check_interval`]; taken out and put back within it, it is not.
//! - Partitions are captured as their root. **`TRUNCATE`, `DETACH` and `DROP` of a single partition are in no stream**:
//!   delete its rows first, or forget the consumer afterwards. `REPLICA IDENTITY` is each partition's own: set it on a new one too, before it
//!   is attached.
//! - A slot is made when all transactions that are open have ended: a long one delays the first start.
//! - After a restart PostgreSQL may give again what was confirmed just before. It is written again, which changes nothing.
//! - A clean stop of the server waits for what was not confirmed yet, as it does for a standby.
//! - A database that was restored from a backup has no slots, and so brings another stream.
//! - Text in a database of encoding `SQL_ASCII` that is not valid UTF-8 travels in images as its bytes; in a key it is an
//!   error. A key of an array type cannot be asked for.

mod backlog;
mod build;
mod capture;
mod definition;
mod documents;
mod error;
mod feed;
#[cfg(feature = "__fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod index;
mod pgoutput;
mod relation;
mod schema;
mod server;
mod slot;
mod snapshot;
mod tls;
mod value;
mod visible;
mod wire;

pub use capture::PostgresCapture;
pub use definition::{IndexDefinition, Related};
pub use documents::PostgresDocuments;
pub use error::PostgresError;
pub(crate) use error::classify;
pub use server::Server;
pub use tls::Tls;
