//! What a capture yields: row changes, punctuated by checkpoints.

use core::fmt;

use crate::name::TableName;
use crate::row::{Key, Row};

/// A place in a source's stream from which it could resume. Opaque to the engine, which only compares positions; they
/// never decrease within one opening of a capture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// From when on a change can be seen by a query: a commit position or a transaction id, in the source's own terms. Of
/// two tokens of a source the greater one is visible later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Visibility(pub u64);

/// What happened to a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// It was inserted or updated.
    Upsert,
    /// It was deleted.
    Delete,
}

/// One row was changed.
///
/// The images serve to find the documents it touches: `before` tells which parent a deleted or moved child left. The
/// document itself is built from the current rows, never from these.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// The table of the row.
    pub table: TableName,
    /// The row's key: after the change, or before it where the row was deleted.
    pub key: Key,
    /// What happened.
    pub operation: Operation,
    /// The row before the change, as far as the source knows it.
    pub before: Option<Row>,
    /// The row after the change, as far as the source knows it.
    pub after: Option<Row>,
    /// From when on a query sees the change; `None` where that is as soon as it is captured.
    pub visibility: Option<Visibility>,
}

impl Change {
    /// An insert or update of this row, without images.
    pub fn upsert(table: TableName, key: impl Into<Key>) -> Self {
        Self::new(table, key.into(), Operation::Upsert)
    }

    /// A deletion of this row, without images.
    pub fn delete(table: TableName, key: impl Into<Key>) -> Self {
        Self::new(table, key.into(), Operation::Delete)
    }

    fn new(table: TableName, key: Key, operation: Operation) -> Self {
        Self { table, key, operation, before: None, after: None, visibility: None }
    }

    /// The same change with the row as it was before.
    #[must_use]
    pub fn with_before(self, row: Row) -> Self {
        Self { before: Some(row), ..self }
    }

    /// The same change with the row as it was after.
    #[must_use]
    pub fn with_after(self, row: Row) -> Self {
        Self { after: Some(row), ..self }
    }

    /// The same change, seen by queries from this token on.
    #[must_use]
    pub fn with_visibility(self, visibility: Visibility) -> Self {
        Self { visibility: Some(visibility), ..self }
    }

    /// The images there are: before, then after.
    pub fn images(&self) -> impl Iterator<Item = &Row> {
        self.before.iter().chain(&self.after)
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operation {
            Operation::Upsert => '+',
            Operation::Delete => '-',
        };
        write!(f, "{sign}{}/{:?}", self.table, self.key)?;
        if let Some(before) = &self.before {
            write!(f, " before {before:?}")?;
        }
        if let Some(after) = &self.after {
            write!(f, " after {after:?}")?;
        }
        if let Some(Visibility(token)) = self.visibility {
            write!(f, " visible {token}")?;
        }
        Ok(())
    }
}

/// One item of a capture's stream.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Captured {
    /// A row was changed.
    Change(Change),
    /// Once everything before this item is durable, the source may resume from here. It stands after the last change of
    /// each transaction, and now and then in an idle stream. Only checkpoints are ever acknowledged, so that no
    /// transaction is acknowledged in part.
    Checkpoint(Position),
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(change) => change.fmt(f),
            Self::Checkpoint(position) => position.fmt(f),
        }
    }
}

impl From<Change> for Captured {
    fn from(change: Change) -> Self {
        Self::Change(change)
    }
}

impl From<Position> for Captured {
    fn from(position: Position) -> Self {
        Self::Checkpoint(position)
    }
}
