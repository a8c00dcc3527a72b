//! What goes into the pipeline and what comes out, in the order in which it flows.
//!
//! A call is a command that is answered: it carries a [`CallId`], and its answer echoes it. A retry is a new call with a
//! new id. The answer to a call that was abandoned meanwhile is dropped; progress does not depend on it, because the
//! retry that took its place is on its way.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::change::{Captures, Changes, Position, Visibility};
use crate::document::{DocumentId, Epoch, Writes};
use crate::error::{EngineError, Fault, RejectedDocument, Stage};
use crate::name::{IndexName, StreamId};
use crate::pipeline::status::{Report, Verified};
use crate::ports::{
    BatchStats, Built, CuredDocument, FlushReport, IndexMapping, IndexScope, Lane, QuarantinedDocument,
    Resolved, Seed, SeedState, SnapshotTable,
};
use crate::row::Key;
use crate::time::Instant;

/// Pairs a command with its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What follows in a stream, as the last poll of it told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Then {
    /// Unknown: it was not polled further, because the pipeline took no more.
    More,
    /// Nothing for now.
    Idle,
    /// Nothing ever: it has ended.
    End,
}

/// What happened, in flow order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event<B> {
    /// Answers [`Command::Describe`]: the mappings of all indexes, and those that can be seeded.
    Described {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<(Vec<IndexMapping>, Vec<IndexScope>), Fault>,
    },
    /// Answers [`Command::Begin`]: the run's epoch, and how many flushes the sink takes at once.
    Begun {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<(Epoch, usize), Fault>,
    },
    /// Answers [`Command::LoadQuarantine`].
    QuarantineLoaded {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<Vec<DocumentId>, Fault>,
    },
    /// Answers [`Command::Open`]: the stream that is open now.
    Opened {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<StreamId, Fault>,
    },
    /// The open capture yielded: as much as was ready, at most [`capacity`](super::Pipeline::capacity) changes.
    Captured {
        /// Changes and checkpoints, in order.
        items: Captures,
        /// What follows.
        then: Then,
    },
    /// The open capture failed, and is closed.
    CaptureFailed {
        /// How.
        fault: Fault,
    },
    /// Answers [`Command::Resolve`].
    Resolved {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<Resolved, Fault>,
    },
    /// Answers [`Command::Build`].
    Built {
        /// The command's id.
        call: CallId,
        /// The answer: one for each id, in any order.
        result: Result<Vec<Built<B>>, Fault>,
        /// The sizes of the bodies, in the order of the answers.
        bytes: Vec<usize>,
    },
    /// Answers [`Command::Flush`].
    Flushed {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<FlushReport, Fault>,
    },
    /// Answers [`Command::Compare`]: the documents that the sink does not hold like this.
    Compared {
        /// The command's id.
        call: CallId,
        /// The answer, in any order.
        result: Result<Vec<DocumentId>, Fault>,
    },
    /// Answers [`Command::List`].
    Listed {
        /// The command's id.
        call: CallId,
        /// The answer: nothing where the sink holds no more.
        result: Result<Vec<DocumentId>, Fault>,
    },
    /// Answers [`Command::ReadSeed`].
    SeedRead {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<SeedState, Fault>,
    },
    /// The snapshot opened by this call yielded: as much as was ready, at most
    /// [`capacity`](super::Pipeline::capacity) rows.
    Scanned {
        /// The id of the [`Command::Scan`].
        call: CallId,
        /// The keys of the rows, in order.
        keys: Vec<Key>,
        /// What follows.
        then: Then,
    },
    /// The snapshot opened by this call failed, and is closed.
    ScanFailed {
        /// The id of the [`Command::Scan`].
        call: CallId,
        /// How.
        fault: Fault,
    },
    /// Answers [`Command::ReadLag`].
    LagRead {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<Option<u64>, Fault>,
    },
    /// Answers every other call: it is done, or it failed.
    Done {
        /// The command's id.
        call: CallId,
        /// The answer.
        result: Result<(), Fault>,
    },
    /// Time has passed; nothing else happened.
    Elapsed,
    /// Someone asked for an index to be rebuilt and seeded anew, beside everything else. See
    /// [`can_reindex`](super::Pipeline::can_reindex).
    Reindex {
        /// Which.
        index: IndexName,
    },
    /// Someone asked for an index to be compared with its source, beside everything else. See
    /// [`can_verify`](super::Pipeline::can_verify).
    Verify {
        /// Which.
        index: IndexName,
    },
    /// Someone asked the run to end: no more intake, work off what is owed until the deadline.
    Drain {
        /// When to give up.
        deadline: Instant,
    },
}

impl<B> Event<B> {
    /// The call that it answers.
    pub(crate) fn call(&self) -> Option<CallId> {
        match self {
            Self::Begun { call, .. }
            | Self::Described { call, .. }
            | Self::QuarantineLoaded { call, .. }
            | Self::Opened { call, .. }
            | Self::Resolved { call, .. }
            | Self::Built { call, .. }
            | Self::Flushed { call, .. }
            | Self::Compared { call, .. }
            | Self::Listed { call, .. }
            | Self::SeedRead { call, .. }
            | Self::LagRead { call, .. }
            | Self::Done { call, .. } => Some(*call),
            Self::Captured { .. }
            | Self::CaptureFailed { .. }
            | Self::Scanned { .. }
            | Self::ScanFailed { .. }
            | Self::Elapsed
            | Self::Reindex { .. }
            | Self::Verify { .. }
            | Self::Drain { .. } => None,
        }
    }
}

/// What is to be done, in flow order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command<B> {
    /// Ask the builder for its mappings and scopes, and the source whether it can supply what they take.
    Describe {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Begin a run at the sink.
    Begin {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Ensure an index at the sink.
    Ensure {
        /// Echoed by the answer.
        call: CallId,
        /// The index and its fields.
        mapping: Arc<IndexMapping>,
    },
    /// Load the ids in the quarantine.
    LoadQuarantine {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Open the capture, after dropping the one that is open.
    Open {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Find the documents that these changes touch.
    Resolve {
        /// Echoed by the answer.
        call: CallId,
        /// The changes, in capture order.
        changes: Changes,
    },
    /// Build these documents.
    Build {
        /// Echoed by the answer.
        call: CallId,
        /// Which; no id stands twice.
        ids: Arc<[DocumentId]>,
        /// What the read snapshot must show.
        visibility: Option<Visibility>,
    },
    /// Write these documents.
    Flush {
        /// Echoed by the answer.
        call: CallId,
        /// What to write.
        writes: Writes<B>,
        /// Nothing live waits behind them.
        caught_up: bool,
    },
    /// Compare these documents with what the sink holds; write nothing.
    Compare {
        /// Echoed by the answer.
        call: CallId,
        /// What it should hold.
        writes: Writes<B>,
    },
    /// Ask the sink for some of the documents that an index holds.
    List {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
        /// Those after this one, in the sink's own order.
        after: Option<DocumentId>,
        /// At most so many.
        limit: usize,
    },
    /// Tell the sink that it is caught up.
    CaughtUp {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Record these documents in the quarantine.
    Quarantine {
        /// Echoed by the answer.
        call: CallId,
        /// The records.
        documents: Arc<[QuarantinedDocument]>,
    },
    /// Remove these documents from the quarantine.
    Release {
        /// Echoed by the answer.
        call: CallId,
        /// Which.
        documents: Arc<[CuredDocument]>,
    },
    /// Confirm a position to the source: everything before it is durable.
    Ack {
        /// Echoed by the answer.
        call: CallId,
        /// The stream it belongs to.
        stream: StreamId,
        /// The position.
        position: Position,
    },
    /// Ask the sink how far an index has been seeded.
    ReadSeed {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
        /// For which stream and definition.
        seed: Seed,
    },
    /// Remove everything from an index: its documents are gone.
    Clear {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
    },
    /// Begin an index anew, empty. What it held may be found until it is marked as seeded.
    Rebuild {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
    },
    /// Save how far an index has been seeded.
    SaveCursor {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
        /// For which stream and definition.
        seed: Seed,
        /// Every row up to here is durable; `None`: the index was cleared, or begun anew.
        after: Option<Key>,
    },
    /// Open a snapshot; its rows come as [`Event::Scanned`] under the same id.
    Scan {
        /// Echoed by the answer, and by the rows.
        call: CallId,
        /// The table.
        table: SnapshotTable,
        /// Only rows after this key.
        after: Option<Key>,
        /// What it must show.
        visibility: Option<Visibility>,
    },
    /// Mark an index as seeded.
    MarkSeeded {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
        /// For which stream and definition.
        seed: Seed,
    },
    /// Remember that an index stopped alone, in place of its marker or cursor.
    Park {
        /// Echoed by the answer.
        call: CallId,
        /// The index.
        index: IndexName,
        /// For which stream and definition.
        seed: Seed,
    },
    /// Ask the source for its lag.
    ReadLag {
        /// Echoed by the answer.
        call: CallId,
    },
    /// Nobody waits for this call, or for the rows of this snapshot, any more: drop it.
    Abandon {
        /// Which.
        call: CallId,
    },
    /// Tell whoever observes.
    Notify(Notice),
    /// The run is over. Nothing follows.
    Finish(Result<Report, EngineError>),
}

impl<B> Command<B> {
    /// The call that it makes.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Begin { call }
            | Self::Describe { call }
            | Self::Ensure { call, .. }
            | Self::LoadQuarantine { call }
            | Self::Open { call }
            | Self::Resolve { call, .. }
            | Self::Build { call, .. }
            | Self::Flush { call, .. }
            | Self::Compare { call, .. }
            | Self::List { call, .. }
            | Self::CaughtUp { call }
            | Self::Quarantine { call, .. }
            | Self::Release { call, .. }
            | Self::Ack { call, .. }
            | Self::ReadSeed { call, .. }
            | Self::Clear { call, .. }
            | Self::Rebuild { call, .. }
            | Self::SaveCursor { call, .. }
            | Self::Scan { call, .. }
            | Self::MarkSeeded { call, .. }
            | Self::Park { call, .. }
            | Self::ReadLag { call } => Some(*call),
            Self::Abandon { .. } | Self::Notify(_) | Self::Finish(_) => None,
        }
    }
}

/// What an observer is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// So many indexes are ensured.
    IndexesEnsured(usize),
    /// These will be seeded.
    BackfillStarted(Vec<IndexName>),
    /// This one is.
    IndexSeeded(IndexName),
    /// All are.
    BackfillCompleted,
    /// Live changes flow.
    LiveStarted,
    /// So many changes were captured.
    Captured(usize),
    /// A unit is durable.
    Committed(BatchStats),
    /// A document is quarantined.
    Quarantined(RejectedDocument, u32),
    /// A document has left the quarantine.
    Released(DocumentId),
    /// The index of this document has stopped alone, because of it.
    Parked(RejectedDocument),
    /// An index was compared with its source.
    Verified(Verified),
    /// A call failed, and will be made again.
    Retried {
        /// Which call.
        stage: Stage,
        /// How often it has been tried.
        attempt: u32,
        /// When it will be again.
        delay: Duration,
        /// How it failed.
        fault: Fault,
    },
    /// The oldest change that is not acknowledged is this old.
    Stalled(Duration),
    /// The source's lag.
    Lag(u64),
    /// The source's lag is too large.
    LagExceeded(u64),
}

/// Why the pipeline wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The oldest change of the open unit has waited long enough.
    Unit(Lane),
    /// A call is to be made again.
    Retry(Stage),
    /// A call has taken too long.
    Attempt(Stage),
    /// The cursors of the backfill are to be saved.
    Cursor,
    /// The oldest change that is not acknowledged is too old.
    Stalled,
    /// The source is to be asked for its lag.
    Lag,
    /// The drain is over.
    Drain,
    /// The grace period is over.
    Grace,
    /// A difference that no change has explained by now is one.
    Verify,
}

/// Why an index cannot be seeded anew, or compared with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No index with a scope has this name.
    #[error("no index with a scope has this name")]
    UnknownIndex,
    /// The backfill is skipped, so nothing is scanned.
    #[error("the backfill is skipped")]
    BackfillSkipped,
    /// The run is ending.
    #[error("the run is ending")]
    Ending,
    /// It is being seeded, or has stopped alone.
    #[error("the index is not seeded")]
    NotSeeded,
    /// It is being compared already.
    #[error("the index is being verified already")]
    Verifying,
    /// It was cleared, or has stopped alone, before all of it was compared.
    #[error("the verification was interrupted")]
    Interrupted,
    /// The sink cannot be asked what it holds.
    #[error("the sink cannot be compared")]
    NotComparable,
}

/// What a driver did that it must not. The pipeline's state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Time went backwards.
    #[error("the event is from {event:?}, before the last one at {last:?}")]
    TimeWentBack {
        /// The event's time.
        event: Instant,
        /// The time of the event before.
        last: Instant,
    },
    /// An answer to a call that was never made.
    #[error("call {0:?} was never made")]
    UnknownCall(CallId),
    /// An answer that does not fit its call.
    #[error("call {call:?} ({stage}) is not answered by this event")]
    WrongAnswer {
        /// The call.
        call: CallId,
        /// What it asked for.
        stage: Stage,
    },
    /// More than [`capacity`](super::Pipeline::capacity).
    #[error("{given} items of the {lane:?} lane are more than the {capacity} it takes")]
    OverCapacity {
        /// The lane.
        lane: Lane,
        /// How many came.
        given: usize,
        /// How many could have.
        capacity: usize,
    },
    /// The capture yielded, but none is open.
    #[error("no capture is open")]
    NoCapture,
    /// An index that cannot be seeded anew.
    #[error("index {index} cannot be seeded anew: {refusal}")]
    Reindex {
        /// The index.
        index: IndexName,
        /// Why not.
        refusal: Refusal,
    },
    /// An index that cannot be compared with its source.
    #[error("index {index} cannot be verified: {refusal}")]
    Verify {
        /// The index.
        index: IndexName,
        /// Why not.
        refusal: Refusal,
    },
    /// The run is over.
    #[error("the run is over")]
    Finished,
}
