//! The alphabet: everything that can happen to a pipeline, as data.
//!
//! An operation is always legal. One that does not apply to the state (the third open call, where two are open) is read
//! modulo what there is, or does nothing. So any list of operations is a run, and every part of one is too, which is what
//! lets a searcher cut a failing run down. What it prints (`Debug`) is the Rust that makes it.

/// Whether a failure passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Kind {
    /// It passes.
    Transient,
    /// The document is at fault.
    Content,
    /// The run must end.
    Fatal,
}

/// What a call that failed did all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The first half of what was asked.
    Half,
    /// All that was asked: only the answer was lost.
    All,
    /// Nothing yet: a write of it lies on the wire, and may land at any later time.
    Late,
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Answer {
    /// As it was asked.
    Done,
    /// As it was asked, the documents in the opposite order.
    Reversed,
    /// The whole call failed.
    Failed(Kind, Effect),
    /// Of a build or a flush: each document whose place modulo 8 is a bit of the mask failed for itself.
    Partly(Kind, u8),
    /// One document, or change, too few or too many: a breach of contract.
    Wrong,
}

/// What a driver must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Wrong {
    /// An event from before the last one.
    TimeBack,
    /// An answer to a call that was never made.
    NeverMade,
    /// An answer of another kind than the call's.
    OtherKind,
    /// More changes than there is room for.
    TooManyChanges,
    /// More rows than there is room for.
    TooManyRows,
    /// A change from a capture that is closed.
    NoCapture,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Op {
    /// A transaction changes the rows of this mask, and deletes those that are in the second one too.
    Commit(u8, u8),
    /// The source is idle, and gives a checkpoint.
    Heartbeat,
    /// The capture yields at most so many items, and at least one where there is one.
    Capture(u8),
    /// The capture yields everything that is left, and ends.
    End,
    /// The capture fails.
    FailCapture(Kind),
    /// The resume point is lost, and with it what was not captured; the capture fails.
    LoseStream,
    /// The open call of this number, oldest first, is answered.
    Answer(u8, Answer),
    /// An answer to a call that was given up comes after all.
    Stale(u8),
    /// The last answer comes a second time.
    Repeat,
    /// The snapshot yields at most so many rows.
    Scan(u8),
    /// The snapshot fails.
    FailScan(Kind),
    /// Time passes to the next deadline exactly.
    Deadline,
    /// So many 256ths of the time to the next deadline pass.
    Wait(u8),
    /// A write that was given up lands.
    Land(u8),
    /// The run dies, and another begins.
    Crash,
    /// The run is to end within so many milliseconds.
    Drain(u8),
    /// The driver does what it must not.
    Misuse(Wrong),
}
