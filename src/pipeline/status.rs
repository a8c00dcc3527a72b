//! What a run looks like from outside, while it runs and once it is over.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::change::Position;
use crate::document::DocumentId;
use crate::name::IndexName;
use crate::pipeline::{Pipeline, seeding};

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Phase {
    /// The source is asked what it can supply, the sink is told of the run, indexes are ensured and the capture is opened.
    #[default]
    Starting,
    /// Changes flow.
    Running,
    /// What is owed is worked off; nothing new is taken in.
    Draining,
    /// What is under way is waited for; nothing new is started.
    Halting,
    /// It is over.
    Ended,
}

/// How far an index has been seeded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexStatus {
    /// The index.
    pub index: IndexName,
    /// Whether every row of its root table is durable and it is marked so; also where it is not to be seeded.
    pub seeded: bool,
    /// Whether it has stopped alone, for a document that failed: see [`FailurePolicy::Park`](crate::FailurePolicy::Park).
    pub parked: bool,
    /// How many rows of its root table were read in this run.
    pub rows_read: u64,
    /// How many of those are durable.
    pub rows_durable: u64,
    /// Whether it is being compared with its source.
    pub verifying: bool,
    /// What the last comparison found that came to its end.
    pub verified: Option<Arc<Verified>>,
}

/// What the comparison of an index with its source found: see [`Running::verify`](crate::Running::verify).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verified {
    /// The index.
    pub index: IndexName,
    /// How many documents were compared. A document that has a row and is held counts twice.
    pub compared: u64,
    /// How many differed, were missing, or were held without a row. All of them have been written as they should be.
    pub different: u64,
    /// The first hundred of those.
    pub documents: Vec<DocumentId>,
}

/// A run at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Changes captured by this run.
    pub captured: u64,
    /// Changes captured by this run for which nothing is owed any more.
    pub durable: u64,
    /// Documents that are owed a build.
    pub dirty: usize,
    /// Documents between the start of their build and the end of their flush.
    pub in_flight: usize,
    /// How many builds there may be at once: [`Limits::builds`](crate::config::Limits::builds), or fewer where that adapts.
    pub builds_at_once: usize,
    /// The same of flushes. Before the sink has begun its run, one.
    pub flushes_at_once: usize,
    /// The age of the oldest change that is not acknowledged; `None` where there is none.
    pub oldest_unacknowledged: Option<Duration>,
    /// Whether every index is seeded or parked, the source has given all that it had ready, and all of it is durable in the sink. A
    /// source that is still reading what was committed while no run was under way says so with
    /// [`Captured::More`](crate::Captured::More); a change that was committed a moment ago may not have been given yet.
    pub caught_up: bool,
    /// The last position that the source has confirmed.
    pub acknowledged: Option<Position>,
    /// How often a call was made again.
    pub retries: u64,
    /// Documents that this run has quarantined.
    pub quarantined: u64,
    /// The indexes that can be seeded.
    pub indexes: Vec<IndexStatus>,
}

impl<B> Pipeline<B> {
    /// The run at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let captured = self.ack.changes.pushed();
        let indexes = self.seeding.indexes.iter().filter(|index| index.root.is_some());
        Status {
            phase: self.phase(),
            captured,
            durable: captured - self.ack.changes.len() as u64,
            dirty: self.dirty.documents() - self.dirty.flying(),
            in_flight: self.dirty.flying(),
            builds_at_once: self.build_limit.at_once(),
            flushes_at_once: self.flush_limit.at_once(),
            oldest_unacknowledged: self.ack.since().map(|since| self.now.since(since)),
            caught_up: self.seeding.completed && self.is_caught_up(),
            acknowledged: self.ack.acknowledged(),
            retries: self.calls.retries(),
            quarantined: self.quarantined_count,
            indexes: indexes
                .map(|index| IndexStatus {
                    index: index.name.clone(),
                    seeded: index.is_seeded(),
                    parked: index.stage == seeding::Stage::Parked,
                    rows_read: index.rows.pushed(),
                    rows_durable: index.rows.pushed() - index.rows.len() as u64,
                    verifying: index.verification.is_some(),
                    verified: index.verified.clone(),
                })
                .collect(),
        }
    }

    /// What the run is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.ending.phase().unwrap_or(match self.capture.is_started() {
            true => Phase::Running,
            false => Phase::Starting,
        })
    }
}

/// What a run that ended without an error leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Report {
    /// Whether the source was opened. Where not, the run was drained before it could learn what there is to do, and the
    /// other fields tell nothing.
    pub started: bool,
    /// Changes captured by this run.
    pub captured: u64,
    /// The last position that the source has confirmed.
    pub acknowledged: Option<Position>,
    /// Captured changes that are not acknowledged: a later run is given them again.
    pub unacknowledged: u64,
    /// Indexes that are not seeded yet: a later run resumes from their cursors.
    pub unseeded: Vec<IndexName>,
    /// Indexes that have stopped alone, in this run or an earlier one, and were not seeded anew since.
    pub parked: Vec<IndexName>,
    /// Documents that this run has quarantined.
    pub quarantined: u64,
}
