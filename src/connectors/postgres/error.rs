//! What can go wrong with a PostgreSQL server, and what it means for the call.

use std::error::Error as _;
use std::io;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use super::pgoutput::DecodeError;
use crate::error::FaultKind;
use crate::name::{IndexName, TableName};

/// Why the connector could not do its work. The message names the server, and the table, index or slot at fault; it
/// never holds a password. What the server or the network said is the error's source; a [`Fault`](crate::error::Fault) that
/// is made of it says that, too, and so do the engine's log and its errors.
///
/// Converted into a [`Fault`](crate::error::Fault) with `?`, a server that is away, restarting or busy is transient, and
/// everything that only a change of the program or of the database can cure is fatal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The settings of the connection cannot be used.
    #[error("the settings of the PostgreSQL connection: {what}")]
    Settings {
        /// What is wrong with them.
        what: String,
    },
    /// The server answered with an error, or could not be reached.
    #[error("PostgreSQL at `{server}`, {doing}")]
    Database {
        /// Host, port and database.
        server: String,
        /// What was being done.
        doing: String,
        /// The answer.
        source: tokio_postgres::Error,
    },
    /// A connection failed.
    #[error("PostgreSQL at `{server}`, {doing}")]
    Connection {
        /// Host, port and database.
        server: String,
        /// What was being done.
        doing: String,
        /// How.
        source: io::Error,
    },
    /// The server refused something on the replication connection, or ended it.
    #[error("PostgreSQL at `{server}`, {doing}: {message} (SQLSTATE {code})")]
    Refused {
        /// Host, port and database.
        server: String,
        /// What was being done.
        doing: String,
        /// The SQLSTATE of the answer.
        code: String,
        /// Its message.
        message: String,
    },
    /// The server, a table or a role is not set up for this. The cure is SQL that somebody with the right to must run.
    #[error("PostgreSQL at `{server}`: {what}; run:\n{sql}")]
    Setup {
        /// Host, port and database.
        server: String,
        /// What is missing.
        what: String,
        /// The statements, each ended with a semicolon.
        sql: String,
    },
    /// The tables, names or SQL that were given do not fit each other or the database.
    #[error("PostgreSQL at `{server}`: {what}")]
    Definition {
        /// Host, port and database.
        server: String,
        /// What does not fit, and what to do about it.
        what: String,
    },
    /// The SQL of an index reads a table that its definition says nothing of, so that no change to it would be followed.
    #[error(
        "PostgreSQL at `{server}`: the SQL of index `{index}`{} reads the table `{table}`, which is neither its root nor \
         declared, so that its changes would be missed: declare it as related, or as constant if its changes do \
         not matter",
        query_of.as_ref().map(|table| format!(", related table `{table}`,")).unwrap_or_default()
    )]
    Undeclared {
        /// Host, port and database.
        server: String,
        /// The index.
        index: IndexName,
        /// The related table whose query it is; none where it is the SQL of the documents.
        query_of: Option<TableName>,
        /// The table that is read, as SQL spells it.
        table: String,
    },
    /// A message of the stream cannot be decoded.
    #[error("PostgreSQL at `{server}`: a message of the change stream cannot be decoded ({what})")]
    Malformed {
        /// Host, port and database.
        server: String,
        /// What is wrong with it, and where.
        what: String,
    },
    /// What was streamed or read is not what can be made a change or a document of.
    #[error("PostgreSQL at `{server}`: {what}")]
    Unexpected {
        /// Host, port and database.
        server: String,
        /// What was read, and where.
        what: String,
    },
    /// The capture's ground was changed while it ran, or is not ready yet: it must be opened again.
    #[error("PostgreSQL at `{server}`: {what}; the capture must be opened again")]
    Stale {
        /// Host, port and database.
        server: String,
        /// What was changed.
        what: String,
    },
    /// Another connection follows a slot of the consumer: of another program, or one that has died and is not missed yet.
    #[error(
        "PostgreSQL at `{server}`: the replication slot `{slot}` is followed by another program, or by one that has just died (process {pid} of the server)"
    )]
    Followed {
        /// Host, port and database.
        server: String,
        /// The slot.
        slot: String,
        /// The server's process for whoever follows it.
        pid: i32,
    },
    /// No connection of the pool came free in time.
    #[error("PostgreSQL at `{server}`: no connection came free in time; the pool has {connections}")]
    Busy {
        /// Host, port and database.
        server: String,
        /// The size of the pool.
        connections: usize,
    },
}

/// What an error of the client library means: trouble of the moment where the server is away, restarting, short of
/// something or busy; fatal otherwise.
pub(crate) fn classify(error: &tokio_postgres::Error) -> FaultKind {
    if let Some(code) = error.code() {
        return classify_code(code.code());
    }
    if error.is_closed() {
        return FaultKind::Transient;
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => classify_io(source),
        None => FaultKind::Fatal,
    }
}

/// A name that cannot be looked up, a socket that is not there yet: a server that starts comes late. What is no such thing
/// is a certificate that does not fit, and an answer that is not PostgreSQL's.
fn classify_io(error: &io::Error) -> FaultKind {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied => {
            FaultKind::Fatal
        }
        _ => FaultKind::Transient,
    }
}

/// By SQLSTATE, as "PostgreSQL Error Codes" of the manual lists them.
fn classify_code(code: &str) -> FaultKind {
    let transient = matches!(&code.get(..2), Some("08" | "40" | "53" | "57" | "58"))
        // A lock that was not had, a slot that another connection still holds, a transaction that idled, and a cached statement or its plan that
        // no longer fits the tables: the connection is given up, the next one prepares it anew.
        || matches!(code, "55006" | "55P03" | "26000" | "0A000" | "25P03" | "25P04");
    // Not the moment's: all slots or senders are configured away, the database is gone, a statement that was too large.
    let fatal = matches!(code, "53400" | "57P04");
    if transient && !fatal { FaultKind::Transient } else { FaultKind::Fatal }
}

impl PostgresError {
    /// What this failure means for the call that failed.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Database { source, .. } => classify(source),
            Self::Connection { source, .. } => classify_io(source),
            Self::Refused { code, .. } => classify_code(code),
            Self::Followed { .. } | Self::Stale { .. } | Self::Busy { .. } => FaultKind::Transient,
            Self::Settings { .. }
            | Self::Setup { .. }
            | Self::Definition { .. }
            | Self::Undeclared { .. }
            | Self::Malformed { .. }
            | Self::Unexpected { .. } => FaultKind::Fatal,
        }
    }

    /// Whether the role may not do what was tried.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Database { source, .. } if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
    }

    /// Whether the server gave up on what a statement was computing, rather than on the statement or the moment: then
    /// another row may pass.
    pub(super) fn lies_in_the_row(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        let Some(code) = source.code() else { return false };
        // Data exceptions, a subquery of several rows, what a function raises, a limit of the program.
        matches!(&code.code().get(..2), Some("22" | "21" | "P0" | "54"))
    }
}

/// Who is spoken to, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(pub(super) String);

impl Place {
    pub(super) fn failed(
        &self,
        doing: impl Into<String>,
    ) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
        let (server, doing) = (self.0.clone(), doing.into());
        move |source| PostgresError::Database { server, doing, source }
    }

    pub(super) fn cut(&self, doing: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
        let (server, doing) = (self.0.clone(), doing.into());
        move |source| PostgresError::Connection { server, doing, source }
    }

    pub(super) fn pooled(&self, connections: usize) -> impl FnOnce(PoolError) -> PostgresError {
        let server = self.0.clone();
        move |error| match error {
            PoolError::Backend(source) => {
                PostgresError::Database { server, doing: "connecting".into(), source }
            }
            // The pool has room, and the server did not take the connection in time.
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                let source = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                PostgresError::Connection { server, doing: "connecting".into(), source }
            }
            _ => PostgresError::Busy { server, connections },
        }
    }

    pub(super) fn setup(&self, what: impl Into<String>, sql: impl Into<String>) -> PostgresError {
        PostgresError::Setup { server: self.0.clone(), what: what.into(), sql: sql.into() }
    }

    pub(super) fn definition(&self, what: impl Into<String>) -> PostgresError {
        PostgresError::Definition { server: self.0.clone(), what: what.into() }
    }

    pub(super) fn unexpected(&self, what: impl Into<String>) -> PostgresError {
        PostgresError::Unexpected { server: self.0.clone(), what: what.into() }
    }

    pub(super) fn stale(&self, what: impl Into<String>) -> PostgresError {
        PostgresError::Stale { server: self.0.clone(), what: what.into() }
    }

    pub(super) fn malformed(&self, error: DecodeError) -> PostgresError {
        PostgresError::Malformed { server: self.0.clone(), what: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    #[test]
    fn b8_what_a_server_says_is_classified_by_its_code() {
        let refused = |code: &str| PostgresError::Refused {
            server: "a".into(),
            doing: "streaming".into(),
            code: code.into(),
            message: String::new(),
        };
        for code in [
            "08006", "40001", "40P01", "53300", "53100", "55006", "57P01", "57P03", "57014", "58030", "25P03",
        ] {
            assert_eq!(Fault::from(refused(code)).kind(), FaultKind::Transient, "{code}");
        }
        for code in ["28P01", "3D000", "42501", "42P01", "42704", "53400", "57P04", "XX000", "XX001", "", "é"]
        {
            assert_eq!(Fault::from(refused(code)).kind(), FaultKind::Fatal, "{code}");
        }
    }
}
