//! A run as plain data: everything that a simulation does follows from its [`Plan`].
//!
//! A seed is only a way to draw one ([`draw`](crate::draw)). A plan is kept, edited, reduced and replayed; it stays valid
//! where the drawing, or the number of random decisions of a build, changes.

mod check;
mod plain;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole run: the world, what happens in it, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// What the run shows, or what it once broke, in a sentence.
    pub title: String,
    /// Decides the order of tasks, the latencies within their spans, and nothing of the plan itself.
    pub seed: u64,
    /// The tables, and the indexes over them.
    pub schema: Schema,
    /// The rows that are there before anything is captured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Statement>,
    /// What is committed while the engine runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workload: Vec<Transaction>,
    /// How the database behaves.
    pub source: Source,
    /// How the index behaves.
    pub sink: Sink,
    /// How the network behaves.
    pub network: Network,
    /// How the engine is configured.
    pub engine: Engine,
    /// What goes wrong, in any order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// The tables, and the indexes over them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The tables.
    pub tables: Vec<Table>,
    /// The indexes.
    pub indexes: Vec<Index>,
}

/// A table. Its rows have a key of integers and refer to rows of other tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many columns its key has.
    pub key_columns: usize,
    /// What its rows refer to, each by the first column of the other table's key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<Ref>,
}

/// A column that refers to the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ref {
    /// The table referred to.
    pub table: String,
    /// Where the column is a part of the key: which. Else it is a column of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_column: Option<usize>,
}

/// An index: a document for each row of its root table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its root table.
    pub root: String,
    /// Tables that refer to the root: their rows are parts of its documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Tables that the root refers to: their rows are parts of its documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// A table whose rows are parts of every document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everywhere: Option<String>,
    /// Whether documents that fail are quarantined, instead of ending the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skips: bool,
    /// Whether it stops alone where a document fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parks: bool,
}

/// What is done to one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Statement {
    /// Inserts or updates a row. Each commit gives it another value.
    Put {
        /// The table.
        table: String,
        /// The key.
        key: Vec<i64>,
        /// The refs that are columns of their own, in the order of the table's.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refs: Vec<i64>,
        /// How many bytes the row brings to its documents, besides.
        #[serde(default, skip_serializing_if = "is_default")]
        bytes: usize,
        /// Who will not have it.
        #[serde(default, skip_serializing_if = "is_default")]
        poison: Poison,
    },
    /// Deletes a row, if it is there.
    Remove {
        /// The table.
        table: String,
        /// The key.
        key: Vec<i64>,
    },
    /// Gives a row another key, if it is there and the other is free.
    Rekey {
        /// The table.
        table: String,
        /// The key before.
        from: Vec<i64>,
        /// The key after.
        to: Vec<i64>,
    },
    /// Empties tables at once. The stream tells of it in one item.
    Truncate {
        /// The tables.
        tables: Vec<String>,
    },
}

/// Who will not have the documents of which a row is the root, until the world is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// Nobody.
    #[default]
    None,
    /// The index rejects the document, among others of its request.
    Rejected,
    /// The index refuses the whole request.
    Refused,
    /// The builder cannot build it.
    Unbuildable,
}

/// Some statements, committed at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// So long after the one before.
    pub after_ms: u64,
    /// What it does. Nothing: something that no table of the schema shows.
    pub statements: Vec<Statement>,
}

/// The least and the most of something that is drawn anew each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// How the database behaves. What a file leaves out is as plain as can be; so it is with all settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Whether changes carry the row as it was before.
    pub before_images: bool,
    /// The most items of one answer of the stream.
    pub stream_items: usize,
    /// How long an idle stream waits before it gives a checkpoint.
    pub keepalive_ms: u64,
    /// How long after its commit a transaction is seen by readers; it is streamed at once.
    pub visible_us: Span,
    /// How much later still the replica that all reads go to has it.
    pub replica_lag_us: Span,
    /// How much later still the replica has it that tables are scanned at; 0: it is the same one.
    #[serde(skip_serializing_if = "is_default")]
    pub scan_lag_us: u64,
    /// Of so many confirms one is made durable; the rest is lost when the node crashes. 0 and 1: every one.
    pub durable_confirms: u64,
    /// The most rows of one page of a snapshot.
    pub page_rows: usize,
    /// How long a query takes.
    pub query_us: Span,
    /// Whether a build in which a document cannot be built is refused as a whole.
    pub refuses_builds: bool,
    /// Whether the positions of a stream that takes the place of a lost one begin again, so that those of the old one mean
    /// something else to it.
    pub restarts_positions: bool,
    /// Whether the stream says so where more of its log follows than it has given.
    #[serde(skip_serializing_if = "is_default")]
    pub says_more: bool,
}

/// How the index behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sink {
    /// Whether it refuses a write that is older than what it holds. Where it does not, it takes a request only while its
    /// sender waits for the answer.
    pub checks_versions: bool,
    /// Whether it refuses requests of earlier runs.
    pub checks_epochs: bool,
    /// How many flushes it says it takes at once.
    pub concurrency: usize,
    /// How long until a request is staged.
    pub stage_us: Span,
    /// How long until what is staged is durable.
    pub sync_us: Span,
    /// A request with more documents than this is refused as too large; 0: no limit.
    pub request_documents: usize,
}

/// How the network behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How long a message travels.
    pub latency_us: Span,
    /// So many of a million messages are lost.
    pub lost_ppm: u32,
}

/// How the engine is configured, as in `syncline::config`, and how soon it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// `BatchPolicy::max_changes`.
    pub max_changes: usize,
    /// `BatchPolicy::max_documents`.
    pub max_documents: usize,
    /// `BatchPolicy::max_bytes`.
    pub max_bytes: usize,
    /// `BatchPolicy::max_delay`.
    pub max_delay_ms: u64,
    /// `Limits::changes`.
    pub changes: usize,
    /// `Limits::documents`.
    pub documents: usize,
    /// `Limits::resolves`.
    pub resolves: usize,
    /// `Limits::resolve_changes`.
    pub resolve_changes: usize,
    /// `Limits::builds`.
    pub builds: usize,
    /// `Limits::flushes`.
    pub flushes: usize,
    /// `Limits::units`.
    pub units: usize,
    /// `Limits::backfill_rows`.
    pub backfill_rows: usize,
    /// `Limits::backfill_share`.
    pub backfill_share: u32,
    /// `Limits::adaptive`.
    pub adaptive: bool,
    /// `RetryPolicy::delay_min`.
    pub retry_min_ms: u64,
    /// `RetryPolicy::delay_max`.
    pub retry_max_ms: u64,
    /// `RetryPolicy::attempts`.
    pub attempts: u32,
    /// `RetryPolicy::attempt_timeout`.
    pub attempt_ms: u64,
    /// `Config::cursor_interval`.
    pub cursor_interval_ms: u64,
    /// `Config::grace`.
    pub grace_ms: u64,
    /// How long after the end of a run the next one starts.
    pub restart_ms: u64,
    /// `Alarms::unacknowledged_age`.
    pub alarm_ms: u64,
}

/// One thing that goes wrong, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub at: At,
    /// What.
    pub act: Act,
}

/// The `nth` time that the run comes to a place, from 0. Places are counted over all restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// The place.
    pub point: Point,
    /// On which side of it.
    pub moment: Moment,
    /// Which time.
    pub nth: u32,
}

/// A place that a run comes to: a request at the node that serves it, or a step of a node's own. In flow order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// A transaction of the workload is committed.
    Commit,
    /// The engine starts.
    Start,
    /// The task of the engine is polled. [`Moment::Before`] only.
    Poll,
    /// A run begins at the index.
    Begin,
    /// An index is ensured.
    Ensure,
    /// The quarantine is loaded.
    Load,
    /// The capture is opened.
    Open,
    /// The stream is asked for more.
    Stream,
    /// Parents are looked up for changes.
    Resolve,
    /// Documents are built.
    Build,
    /// Documents are written.
    Flush,
    /// What a request changes at the index is staged, and not durable yet. [`Moment::Before`] only.
    Sync,
    /// Documents are compared with what the index holds.
    Compare,
    /// The index is asked what it holds.
    List,
    /// A document is about to be rejected by the index, or cannot be built. A request that is refused as a whole does not come
    /// here. [`Moment::Before`] only.
    Refuse,
    /// The index is told that it is caught up.
    CaughtUp,
    /// Documents are quarantined.
    Record,
    /// Documents leave the quarantine.
    Release,
    /// A position is confirmed.
    Confirm,
    /// The index is asked how far it is seeded.
    SeedState,
    /// An index is cleared.
    Clear,
    /// A cursor is saved.
    Cursor,
    /// A snapshot is asked for a page of rows.
    Scan,
    /// An index is marked as seeded, or as one that has stopped.
    Mark,
    /// The lag is read.
    Lag,
    /// The workload is over, and what it left is done, or has been waited for long enough. [`Moment::Before`] only: the last
    /// thing that goes wrong.
    End,
    /// A call has failed and is going to be made again. [`Moment::After`] only, and nothing waits for what happens here.
    Retry,
}

/// A side of a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The request has arrived, nothing is done yet.
    Before,
    /// It is done and durable, not answered yet.
    After,
}

/// What goes wrong. What concerns a request concerns the one that came to the point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Act {
    /// It is answered with a failure: before, and not done; or after it was done all the same.
    Fail {
        /// What the failure says.
        kind: Kind,
    },
    /// It is lost before it is done, or its answer after.
    Lose,
    /// It is held before it is done, and done all the same though its sender may have given up or died; or its answer is
    /// held.
    Hold {
        /// For so long.
        ms: u64,
    },
    /// One in so many of a flush's documents are throttled.
    Throttle {
        /// One in so many; not 0.
        one_in: u32,
    },
    /// A build is answered without its last document.
    LeaveOut,
    /// The stream goes back so many items, as far as the transaction they belong to goes.
    Redeliver {
        /// How many.
        items: usize,
    },
    /// The connection of the stream is lost.
    BreakStream,
    /// A node dies, losing what is not durable, and comes back.
    Kill {
        /// Which.
        node: Node,
        /// After so long.
        restart_ms: u64,
    },
    /// A node does nothing for a while.
    Pause {
        /// Which.
        node: Node,
        /// For so long.
        ms: u64,
    },
    /// A node neither hears nor is heard.
    Cut {
        /// Which.
        node: Node,
        /// For so long.
        ms: u64,
    },
    /// The replica gets nothing.
    StallReplica {
        /// For so long.
        ms: u64,
    },
    /// The database refuses the engine's credentials, or the index does.
    RefuseCredentials {
        /// Which of them.
        node: Node,
        /// For so long.
        ms: u64,
    },
    /// The resume point is dropped. The next opening makes another one.
    LosePosition,
    /// An index is deleted by hand, with its marker and cursor.
    DeleteIndex {
        /// Which: its place in the schema.
        index: usize,
    },
    /// The documents of an index are defined otherwise from the next start on.
    Redefine {
        /// Which: its place in the schema.
        index: usize,
    },
    /// The engine is asked to seed an index anew.
    Reindex {
        /// Which: its place in the schema.
        index: usize,
    },
    /// Someone changes a document of a seeded index, removes one, or adds one that should not be there.
    Tamper {
        /// Which index: its place in the schema.
        index: usize,
        /// Which document, and which of the three.
        nth: usize,
    },
    /// The engine is asked to compare an index with its source.
    Verify {
        /// Which: its place in the schema.
        index: usize,
    },
    /// The engine is asked to drain, and starts again once it has ended.
    Drain {
        /// Its deadline.
        within_ms: u64,
    },
}

/// What a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Try again.
    Transient,
    /// Never like this.
    Content,
    /// Never.
    Fatal,
}

/// A node of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// The database.
    Database,
    /// The index.
    Index,
    /// The engine.
    Engine,
}

impl Point {
    /// The only side of it that a run comes to, where there is but one.
    #[must_use]
    pub fn only_side(self) -> Option<Moment> {
        match self {
            Self::Poll | Self::Sync | Self::Refuse | Self::End => Some(Moment::Before),
            Self::Retry => Some(Moment::After),
            _ => None,
        }
    }

    /// Whether a request comes to a node there, which can be failed, lost or held.
    #[must_use]
    pub fn is_request(self) -> bool {
        match self {
            Self::Commit | Self::Start | Self::Poll | Self::Sync | Self::Refuse | Self::End | Self::Retry => {
                false
            }
            Self::Begin
            | Self::Ensure
            | Self::Load
            | Self::Open
            | Self::Stream
            | Self::Resolve
            | Self::Build
            | Self::Flush
            | Self::Compare
            | Self::List
            | Self::CaughtUp
            | Self::Record
            | Self::Release
            | Self::Confirm
            | Self::SeedState
            | Self::Clear
            | Self::Cursor
            | Self::Scan
            | Self::Mark
            | Self::Lag => true,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {}", self.point, self.moment, self.nth)
    }
}

impl Act {
    /// Its name in tables and traces, where it happens on this side of its point.
    #[must_use]
    pub fn name(&self, moment: Moment) -> &'static str {
        match (self, moment) {
            (Self::Fail { kind: Kind::Transient }, Moment::Before) => "fail",
            (Self::Fail { kind: Kind::Transient }, Moment::After) => "fail though done",
            (Self::Fail { kind: Kind::Content }, Moment::Before) => "refuse content",
            (Self::Fail { kind: Kind::Content }, Moment::After) => "refuse content though done",
            (Self::Fail { kind: Kind::Fatal }, Moment::Before) => "fail for good",
            (Self::Fail { kind: Kind::Fatal }, Moment::After) => "fail for good though done",
            (Self::Lose, Moment::Before) => "lose request",
            (Self::Lose, Moment::After) => "lose answer",
            (Self::Hold { .. }, Moment::Before) => "hold request",
            (Self::Hold { .. }, Moment::After) => "hold answer",
            (Self::Throttle { .. }, _) => "throttle documents",
            (Self::LeaveOut, _) => "leave out document",
            (Self::Redeliver { .. }, _) => "redeliver",
            (Self::BreakStream, _) => "break stream",
            (Self::Kill { node: Node::Database, .. }, _) => "kill database",
            (Self::Kill { node: Node::Index, .. }, _) => "kill index",
            (Self::Kill { node: Node::Engine, .. }, _) => "kill engine",
            (Self::Pause { node: Node::Database, .. }, _) => "pause database",
            (Self::Pause { node: Node::Index, .. }, _) => "pause index",
            (Self::Pause { node: Node::Engine, .. }, _) => "pause engine",
            (Self::Cut { node: Node::Database, .. }, _) => "cut off database",
            (Self::Cut { node: Node::Index, .. }, _) => "cut off index",
            (Self::Cut { node: Node::Engine, .. }, _) => "cut off engine",
            (Self::StallReplica { .. }, _) => "stall replica",
            (Self::RefuseCredentials { node: Node::Database, .. }, _) => "refuse credentials at database",
            (Self::RefuseCredentials { .. }, _) => "refuse credentials at index",
            (Self::LosePosition, _) => "lose position",
            (Self::DeleteIndex { .. }, _) => "delete index",
            (Self::Redefine { .. }, _) => "redefine index",
            (Self::Reindex { .. }, _) => "reindex",
            (Self::Tamper { .. }, _) => "tamper",
            (Self::Verify { .. }, _) => "verify",
            (Self::Drain { .. }, _) => "drain",
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
