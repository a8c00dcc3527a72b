//! Where changes come from.

use alloc::vec::Vec;
use core::future::Future;

use futures::stream::{self, BoxStream};

use crate::change::{Captured, Position, Visibility};
use crate::error::Fault;
use crate::name::{ColumnName, StreamId, TableName};
use crate::row::Key;

/// The changes of one opening of a capture, in order. It ends where the source is finite.
pub type ChangeStream = BoxStream<'static, Result<Captured, Fault>>;

/// The keys of a table's rows, in order.
pub type KeyStream = BoxStream<'static, Result<Key, Fault>>;

/// A table whose rows are read to seed an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotTable {
    /// The table.
    pub table: TableName,
}

impl SnapshotTable {
    /// This table.
    #[must_use]
    pub fn new(table: TableName) -> Self {
        Self { table }
    }
}

/// What a builder must know of the changes to a table, to tell which documents they touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableNeeds {
    /// The table.
    pub table: TableName,
    /// The columns that every `before` image of it must hold.
    pub before: Vec<ColumnName>,
}

/// A capture that was opened.
pub struct Opened {
    /// What it resumes from. Under an id that the engine has not seen, every index is seeded again.
    pub stream: StreamId,
    /// The changes since the resume point.
    pub changes: ChangeStream,
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opened").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// An ordered stream of row changes that can be resumed.
///
/// What the engine relies on:
///
/// - once [`open`](Self::open) has returned, every later change is in the stream, of this opening or of a later one under
///   the same [`StreamId`]; a position that is lost or recreated has another id;
/// - and every change before its resume point can be seen by whoever builds documents or scans tables, because it is in no
///   stream: where those read from a replica, it waits until that has come to it;
/// - what was not confirmed is given again by the next opening;
/// - a [`Checkpoint`](Captured::Checkpoint) stands only where the source can resume, and never inside a transaction.
///
/// A stream that is pending has nothing more for the moment, unless its last item was [`More`](Captured::More): one that
/// waits while it reads what was there before should say so, or the sink is told too early that it is caught up.
pub trait ChangeCapture: Send + Sync + 'static {
    /// Checks that the source can supply what the builder needs, and that no other run has it where only one can: before the
    /// sink is told of the run, and once more before each opening. Errors should say what to run to make it so. Default: it
    /// can.
    fn prepare(&self, needs: &[TableNeeds]) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = needs;
        async { Ok(()) }
    }

    /// Makes sure that there is a durable resume point, and streams the changes after it. Called again after a failure;
    /// the earlier stream is dropped first. A stream keeps its connection alive while it is not polled.
    fn open(&self) -> impl Future<Output = Result<Opened, Fault>> + Send;

    /// Makes `position` of this stream the resume point: everything before it is durable in the sink. It may be lost,
    /// repeated or dropped; a later one follows. Default: nothing, for a source that cannot resume.
    fn confirm(
        &self,
        stream: &StreamId,
        position: Position,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = (stream, position);
        async { Ok(()) }
    }

    /// The keys of the current rows of a table after `after`, in the order of [`Key`]s (text by its bytes: the `C`
    /// collation, `BINARY` in SQLite); each row that exists throughout is given once. Asked for only after `open` has
    /// returned. Default: no rows, for a source that cannot read its tables.
    fn snapshot(
        &self,
        table: &SnapshotTable,
        after: Option<&Key>,
    ) -> impl Future<Output = Result<KeyStream, Fault>> + Send {
        let _ = (table, after);
        async { Ok::<KeyStream, Fault>(alloc::boxed::Box::pin(stream::empty())) }
    }

    /// The same, from rows in which `visibility`, where given, can be seen; where it cannot yet, the answer is
    /// [`Fault::not_yet`]. Asked for in place of [`snapshot`](Self::snapshot). Default: that, for a source whose tables show
    /// whatever it has streamed.
    fn snapshot_seeing(
        &self,
        table: &SnapshotTable,
        after: Option<&Key>,
        visibility: Option<Visibility>,
    ) -> impl Future<Output = Result<KeyStream, Fault>> + Send {
        let _ = visibility;
        self.snapshot(table, after)
    }

    /// How many bytes the resume point trails the source's newest position; `None` where that is unknown. Asked for now
    /// and then. Default: unknown.
    fn lag(&self) -> impl Future<Output = Result<Option<u64>, Fault>> + Send {
        async { Ok(None) }
    }
}
