//! What a capture yields: row changes, punctuated by checkpoints.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;

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

/// Tables were emptied at once: no row of them is given for itself.
///
/// Every index that is built from one of them (see [`IndexScope`](crate::IndexScope)) is emptied, and seeded again from
/// the rows that are there by then.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Truncation {
    /// The tables.
    pub tables: Vec<TableName>,
    /// From when on a query sees it; `None` where that is as soon as it is captured.
    pub visibility: Option<Visibility>,
}

impl Truncation {
    /// These tables were emptied.
    pub fn new(tables: impl IntoIterator<Item = TableName>) -> Self {
        Self { tables: tables.into_iter().collect(), visibility: None }
    }

    /// The same, seen by queries from this token on.
    #[must_use]
    pub fn with_visibility(self, visibility: Visibility) -> Self {
        Self { visibility: Some(visibility), ..self }
    }
}

impl fmt::Debug for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "truncate")?;
        self.tables.iter().try_for_each(|table| write!(f, " {table}"))?;
        match self.visibility {
            Some(Visibility(token)) => write!(f, " visible {token}"),
            None => Ok(()),
        }
    }
}

/// One item of a capture's stream.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Captured {
    /// A row was changed.
    Change(Change),
    /// Tables were emptied. It counts as one change, and belongs to a transaction like one.
    Truncate(Truncation),
    /// Once everything before this item is durable, the source may resume from here. It stands after the last change of
    /// each transaction, and now and then in an idle stream. Only checkpoints are ever acknowledged, so that no
    /// transaction is acknowledged in part.
    Checkpoint(Position),
    /// More is known to follow, though it is not ready: the source is still reading what was there before. Until the next
    /// item, a stream that is pending is not taken for one that has nothing, and the run is not caught up. A source that
    /// reads ahead of its consumer, or that cannot tell, never says so.
    More,
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(change) => change.fmt(f),
            Self::Truncate(truncation) => truncation.fmt(f),
            Self::Checkpoint(position) => position.fmt(f),
            Self::More => f.write_str("more"),
        }
    }
}

impl From<Change> for Captured {
    fn from(change: Change) -> Self {
        Self::Change(change)
    }
}

impl From<Truncation> for Captured {
    fn from(truncation: Truncation) -> Self {
        Self::Truncate(truncation)
    }
}

impl From<Position> for Captured {
    fn from(position: Position) -> Self {
        Self::Checkpoint(position)
    }
}

/// What a capture yielded in one go, in order. Changes are kept for themselves, so that none is moved again on its way to
/// the resolve.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Captures {
    changes: Vec<Change>,
    /// What stands between them, in order, each with the number of changes before it.
    between: Vec<(usize, Between)>,
    truncations: usize,
}

/// What stands between changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Between {
    Checkpoint(Position),
    Truncation(Truncation),
}

impl Between {
    fn shown(&self) -> &dyn fmt::Debug {
        match self {
            Self::Checkpoint(position) => position,
            Self::Truncation(truncation) => truncation,
        }
    }
}

impl Captures {
    /// Room for this many changes.
    #[must_use]
    pub fn with_capacity(changes: usize) -> Self {
        Self { changes: Vec::with_capacity(changes), between: Vec::new(), truncations: 0 }
    }

    /// Takes the next item. That more follows is not kept: it is what the stream is, not what it gave.
    pub fn push(&mut self, item: Captured) {
        let before = self.changes.len();
        match item {
            Captured::Change(change) => self.changes.push(change),
            Captured::Truncate(truncation) => {
                self.truncations += 1;
                self.between.push((before, Between::Truncation(truncation)));
            }
            Captured::Checkpoint(position) => self.between.push((before, Between::Checkpoint(position))),
            Captured::More => {}
        }
    }

    /// The changes of rows, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many items count against the [capacity](crate::pipeline::Pipeline::capacity): changes and truncations.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.changes.len() + self.truncations
    }

    /// The checkpoints, in order, each with the number of counted items before it.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<(usize, Position)> {
        let mut truncations = 0;
        let mut checkpoints = Vec::new();
        for (before, between) in &self.between {
            match between {
                Between::Checkpoint(position) => checkpoints.push((before + truncations, *position)),
                Between::Truncation(_) => truncations += 1,
            }
        }
        checkpoints
    }

    /// The truncations, in order, each with the number of counted items before it.
    pub fn truncations(&self) -> impl Iterator<Item = (usize, &Truncation)> {
        let all = self.between.iter().filter_map(|(before, between)| match between {
            Between::Truncation(truncation) => Some((before, truncation)),
            Between::Checkpoint(_) => None,
        });
        all.enumerate().map(|(earlier, (before, truncation))| (before + earlier, truncation))
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.between.is_empty()
    }

    pub(crate) fn into_parts(self) -> (Vec<Change>, Vec<(usize, Between)>) {
        (self.changes, self.between)
    }
}

impl Extend<Captured> for Captures {
    fn extend<I: IntoIterator<Item = Captured>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl FromIterator<Captured> for Captures {
    fn from_iter<I: IntoIterator<Item = Captured>>(items: I) -> Self {
        let mut captures = Self::default();
        captures.extend(items);
        captures
    }
}

impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        let mut between = self.between.iter().peekable();
        for (at, change) in self.changes.iter().enumerate() {
            while let Some((_, item)) = between.next_if(|(before, _)| *before <= at) {
                list.entry(item.shown());
            }
            list.entry(change);
        }
        list.entries(between.map(|(_, item)| item.shown())).finish()
    }
}

/// Some changes of a capture, shared: cheap to clone and to cut.
#[derive(Clone)]
pub struct Changes {
    all: Arc<Vec<Change>>,
    from: usize,
    to: usize,
}

impl Changes {
    /// Cuts off the first `count`, or all where there are fewer.
    pub(crate) fn split_front(&mut self, count: usize) -> Self {
        let cut = self.from + count.min(self.len());
        let front = Self { all: self.all.clone(), from: self.from, to: cut };
        self.from = cut;
        front
    }

    /// Takes these at the end. Nothing must have been cut off.
    pub(crate) fn append(&mut self, changes: Vec<Change>) {
        let all = Arc::make_mut(&mut self.all);
        all.extend(changes);
        self.to = all.len();
    }
}

impl From<Vec<Change>> for Changes {
    fn from(changes: Vec<Change>) -> Self {
        let to = changes.len();
        Self { all: Arc::new(changes), from: 0, to }
    }
}

impl Deref for Changes {
    type Target = [Change];

    fn deref(&self) -> &[Change] {
        &self.all[self.from..self.to]
    }
}

impl PartialEq for Changes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Changes {}

impl Hash for Changes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is moved several times on its way in; beyond 128 bytes each move is a call of `memcpy`.
    #[test]
    fn a_change_is_small() {
        assert!(size_of::<Captured>() <= 128, "{}", size_of::<Captured>());
        assert!(size_of::<Option<Result<Captured, crate::error::Fault>>>() <= 128);
    }
}
