//! What can go wrong with an SQLite database, and what it means for the call.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::error::FaultKind;
use crate::name::{IndexName, TableName};

/// Why the connector could not do its work. The message names the file, and the table, index or log record at fault.
///
/// Converted into a [`Fault`](crate::error::Fault) with `?`, a database that is busy is transient, and everything that
/// only a change of the program or of the database can cure is fatal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// There is no such file. The connector never creates a database: one that is empty would only hide a wrong path.
    #[error("there is no SQLite database at `{}`", path.display())]
    NoFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// A database in memory belongs to one connection alone; nothing another connection writes could be seen.
    #[error("`{}` names a database in memory; changes can only be captured from a file", path.display())]
    InMemory {
        /// The path that was given.
        path: PathBuf,
    },
    /// SQLite answered with an error.
    #[error("SQLite database `{}`, {doing}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        doing: String,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The tables, names or SQL that were given do not fit each other or the database.
    #[error("SQLite database `{}`: {what}", path.display())]
    Definition {
        /// The database file.
        path: PathBuf,
        /// What does not fit, and what to do about it.
        what: String,
    },
    /// The SQL of an index reads a table that its definition says nothing of, so that no change to it would be followed.
    #[error(
        "SQLite database `{}`: the SQL of index `{index}`{} reads the table `{table}`, which is neither its root nor \
         declared, so that its changes would be missed: declare it with `.related(...)`, or with \
         `.constant(\"{table}\")` if its changes do not matter",
        path.display(), query_of_text(query_of.as_ref())
    )]
    Undeclared {
        /// The database file.
        path: PathBuf,
        /// The index.
        index: IndexName,
        /// The related table whose query it is; none where it is the SQL of the documents.
        query_of: Option<TableName>,
        /// The table that is read.
        table: String,
    },
    /// What was read from the database is not what the connector has written, or not what SQL was asked for.
    #[error("SQLite database `{}`: {what}", path.display())]
    Unexpected {
        /// The database file.
        path: PathBuf,
        /// What was read, and where.
        what: String,
    },
    /// The capture's ground was changed while it ran: it must be opened again.
    #[error("SQLite database `{}`: {what}; the capture must be opened again", path.display())]
    Stale {
        /// The database file.
        path: PathBuf,
        /// What was changed.
        what: String,
    },
}

/// What an error of SQLite means: trouble of the moment where another process, the disk or the memory is in the way,
/// because the same call may succeed later; fatal otherwise.
///
/// A file that is missing never comes here (see [`SqliteError::NoFile`]), so that one that cannot be opened is most
/// likely short of file handles or of its directory's write-ahead log.
pub(crate) fn classify(error: &rusqlite::Error) -> FaultKind {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged
            | ErrorCode::OperationInterrupted
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory,
        ) => FaultKind::Transient,
        _ => FaultKind::Fatal,
    }
}

impl SqliteError {
    /// What this failure means for the call that failed.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Database { source, .. } => classify(source),
            Self::Stale { .. } => FaultKind::Transient,
            Self::NoFile { .. }
            | Self::InMemory { .. }
            | Self::Definition { .. }
            | Self::Undeclared { .. }
            | Self::Unexpected { .. } => FaultKind::Fatal,
        }
    }

    /// Whether SQLite gave up on what a statement was computing, rather than on the file or the moment: then another
    /// row may pass.
    pub(super) fn lies_in_the_row(&self) -> bool {
        matches!(self, Self::Database { source, .. } if matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::Unknown | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        ))
    }
}

fn query_of_text(table: Option<&TableName>) -> String {
    table.map(|table| format!(", related table `{table}`,")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    fn failure(code: i32) -> SqliteError {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        SqliteError::Database { path: "a.db".into(), doing: "reading".into(), source }
    }

    #[test]
    fn b8_a_busy_database_is_transient_and_a_wrong_one_is_fatal() {
        use rusqlite::ffi;
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED, ffi::SQLITE_FULL, ffi::SQLITE_IOERR] {
            assert_eq!(Fault::from(failure(code)).kind(), FaultKind::Transient, "{code}");
            assert_eq!(failure(code).kind(), FaultKind::Transient, "{code}");
        }
        for code in [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR] {
            assert_eq!(Fault::from(failure(code)).kind(), FaultKind::Fatal, "{code}");
            assert_eq!(failure(code).kind(), FaultKind::Fatal, "{code}");
        }
    }
}
