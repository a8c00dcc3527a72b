//! What a run came to: an [`Outcome`], or the [`Failure`] of a check.

use std::collections::BTreeMap;
use std::fmt;

use crate::marks::Mark;
use crate::plan::At;
use crate::trace::Trace;

/// What a run did, whether it went well or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// How long the world lived, in its own time.
    pub simulated_us: u64,
    /// How often the engine was started.
    pub starts: u64,
    /// How many transactions were committed.
    pub commits: u64,
    /// How many requests the nodes served.
    pub requests: u64,
    /// How many documents were written durably.
    pub writes: u64,
    /// The faults that happened, by [name](crate::plan::Act::name). Those whose point was never come to are not counted.
    pub faults: BTreeMap<&'static str, u64>,
    /// The hard situations that the run met, and how often.
    pub marks: BTreeMap<Mark, u64>,
    /// The points that the run came to until it was healed, in order.
    pub route: Vec<At>,
    /// Everything that happened, in order.
    pub trace: Trace,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub check: Check,
    /// How, in a sentence.
    pub what: String,
    /// When, in simulated time.
    pub at_us: u64,
    /// What the run did until then.
    pub outcome: Box<Outcome>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// What is checked. The numbers are those of the behaviours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// A confirmed transaction is durable, every document of it.
    Durable,
    /// A transaction is confirmed as a whole.
    Whole,
    /// A document never goes back in time, and is never what no snapshot ever showed.
    Forward,
    /// A marker is set only once its index is complete.
    Complete,
    /// No table is read before there is a resume point.
    ResumePoint,
    /// What is passed by an acknowledgement without being durable stands in the quarantine.
    Recorded,
    /// No limit is exceeded.
    Bounded,
    /// A run ends for a reason.
    Ended,
    /// Nothing is cleared, scanned or stopped for no reason.
    Reason,
    /// A call that failed is made again after a while, and not at once.
    Patient,
    /// A drain ends in time, and says what it left.
    Drained,
    /// What a run says of itself is so.
    Told,
    /// Once the faults are over, everything is acknowledged in time.
    Live,
    /// And the indexes equal what the tables say.
    Converged,
    /// And replaying the whole log changes nothing.
    Replay,
    /// Nothing panics.
    Panic,
    /// One seed, one trace.
    Repeatable,
}

impl Check {
    /// Its name, with the behaviours that it judges.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable (A4, B1)",
            Self::Whole => "whole transactions (B1)",
            Self::Forward => "forward (B6)",
            Self::Complete => "complete (B3)",
            Self::ResumePoint => "resume point (B2)",
            Self::Recorded => "recorded (B10)",
            Self::Bounded => "bounded (A13, B11)",
            Self::Ended => "ended for a reason (B8)",
            Self::Reason => "for a reason (A6, B3, B16)",
            Self::Patient => "patient (B8)",
            Self::Drained => "drained (B12)",
            Self::Told => "true to itself (A10, B14, B18)",
            Self::Live => "live (A1, B7, B13)",
            Self::Converged => "converged (A1, B2, B4, B17)",
            Self::Replay => "replay (A9)",
            Self::Panic => "no panic (B15)",
            Self::Repeatable => "repeatable",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
