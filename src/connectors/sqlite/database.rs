//! Connections to one database file, and the values that pass through them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, Transaction, TransactionBehavior};

use super::error::SqliteError;
use crate::error::{Fault, FaultKind};
use crate::value::Value;

/// How long a call waits for another process's lock before it fails as transient. The blocking threads wait, no task.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One database file: what every connection to it has in common, and the errors that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) path: PathBuf,
    pub(super) busy_timeout: Duration,
}

impl Database {
    pub(super) fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), busy_timeout: BUSY_TIMEOUT }
    }

    /// A connection to the file, which must be there and must be a database.
    pub(super) fn connect(&self) -> Result<Connection, SqliteError> {
        self.refuse_memory()?;
        if !self.path.exists() {
            return Err(SqliteError::NoFile { path: self.path.clone() });
        }
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// A connection to the file, which is created where it is missing.
    pub(super) fn connect_or_create(&self) -> Result<Connection, SqliteError> {
        self.refuse_memory()?;
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    fn refuse_memory(&self) -> Result<(), SqliteError> {
        match self.path.as_os_str().is_empty() || self.path.as_os_str() == ":memory:" {
            true => Err(SqliteError::InMemory { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, SqliteError> {
        let doing = "opening it";
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(self.failed(doing))?;
        connection.busy_timeout(self.busy_timeout).map_err(self.failed(doing))?;
        connection.set_prepared_statement_cache_capacity(64);
        // The first read of the file tells whether it is a database at all.
        let encoding: String =
            connection.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(self.failed(doing))?;
        connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .map_err(self.failed(doing))?;
        if encoding != "UTF-8" {
            // BINARY compares UTF-16 text by its bytes too, which is another order than that of `Value`.
            return Err(
                self.definition(format!("its text is {encoding}; only UTF-8 databases can be captured"))
            );
        }
        Ok(connection)
    }

    /// Takes the write lock first, so that what is read afterwards is still true at the commit.
    pub(super) fn write<'c>(
        &self,
        connection: &'c Connection,
        doing: &'static str,
    ) -> Result<Transaction<'c>, SqliteError> {
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(self.failed(doing))
    }

    pub(super) fn failed(&self, doing: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> SqliteError {
        let (path, doing) = (self.path.clone(), doing.into());
        move |source| SqliteError::Database { path, doing, source }
    }

    pub(super) fn definition(&self, what: impl Into<String>) -> SqliteError {
        SqliteError::Definition { path: self.path.clone(), what: what.into() }
    }

    pub(super) fn unexpected(&self, what: impl Into<String>) -> SqliteError {
        SqliteError::Unexpected { path: self.path.clone(), what: what.into() }
    }

    pub(super) fn stale(&self, what: impl Into<String>) -> SqliteError {
        SqliteError::Stale { path: self.path.clone(), what: what.into() }
    }
}

/// Connections that wait for their next use. A call that failed leaves its connection out, with whatever ailed it.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) database: Database,
    idle: Mutex<Vec<Connection>>,
}

/// How many idle connections are kept: as many as builds usually run at once.
const IDLE_CONNECTIONS: usize = 8;

impl Connections {
    pub(super) fn new(database: Database) -> Self {
        Self { database, idle: Mutex::new(Vec::new()) }
    }

    /// Runs some work on a connection of its own, where blocking is allowed.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Database, &Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, Fault> {
        let connections = Arc::clone(self);
        blocking(move || {
            let idle = connections.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connections.database.connect()?,
            };
            let result = work(&connections.database, &connection)?;
            let mut idle = connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_CONNECTIONS {
                idle.push(connection);
            }
            Ok(result)
        })
        .await
    }
}

/// Runs SQLite's calls, which block, where blocking is allowed. The call goes on to its end when the future is dropped;
/// every one of them is short.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result.map_err(|error| Fault::new(error.kind(), error))?),
        Err(stopped) => Err(Fault::new(FaultKind::Fatal, stopped)),
    }
}

/// An identifier as SQL text, whatever characters it has.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A value as SQLite has it. Text that is not UTF-8 comes as its bytes, which is exact, though of another kind; no key
/// may hold such text (see [`key_value`]).
pub(super) fn value(stored: ValueRef<'_>) -> Value {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        // SQLite knows one zero: it stores -0.0 in a REAL column as 0, yet a trigger may still see the sign.
        ValueRef::Real(value) => Value::Float(value + 0.0),
        ValueRef::Text(bytes) => match core::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(bytes),
        },
        ValueRef::Blob(bytes) => Value::from(bytes),
    }
}

/// A value of a key; `None` for text that is not UTF-8, which could not be asked for again.
pub(super) fn key_value(stored: ValueRef<'_>) -> Option<Value> {
    match stored {
        ValueRef::Text(bytes) if core::str::from_utf8(bytes).is_err() => None,
        other => Some(value(other)),
    }
}

/// A value as a parameter of a statement.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Float(value) => ValueRef::Real(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What a value takes in memory and, near enough, in the file.
pub(super) fn stored_bytes(stored: ValueRef<'_>) -> usize {
    match stored {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted_whatever_they_hold() {
        assert_eq!(quoted("a\"b c"), "\"a\"\"b c\"");
    }

    #[test]
    fn one_zero_and_text_that_is_none() {
        assert_eq!(value(ValueRef::Real(-0.0)), Value::Float(0.0));
        assert_eq!(value(ValueRef::Text(&[0xff])), Value::from(&[0xff_u8][..]));
        assert_eq!(key_value(ValueRef::Text(&[0xff])), None);
        assert_eq!(key_value(ValueRef::Text(b"a\0b")), Some(Value::from("a\0b")));
    }

    #[test]
    fn b15_a_path_that_leads_to_no_database_is_named() {
        let message = |path: &str| Database::new(path).connect().unwrap_err().to_string();
        assert_eq!(message("/nowhere/shop.db"), "there is no SQLite database at `/nowhere/shop.db`");
        assert!(message(":memory:").contains("in memory"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("letter.txt");
        std::fs::write(&path, "Dear Sir or Madam, ".repeat(100)).unwrap();
        let fault = Fault::from(Database::new(&path).connect().unwrap_err());
        assert_eq!(fault.kind(), FaultKind::Fatal);
        assert!(fault.message().contains("letter.txt"), "{fault}");
        assert!(fault.message().contains("file is not a database"), "{fault}");
    }
}
