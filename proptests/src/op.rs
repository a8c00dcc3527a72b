//! The alphabet: everything that can happen to a pipeline, as data.
//!
//! An operation is always legal. One that does not apply to the state (the third open call, where two are open) is read
//! modulo what there is, or does nothing. So any list of operations is a run, and every part of one is too, which is what
//! lets a searcher cut a failing run down. What it prints (`Debug`) is the Rust that makes it.

use proptest::prelude::{Just, Strategy, prop, prop_oneof};

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
    /// The same: those of the first mask failed for the moment, those of the second and not of the first were refused.
    Mixed(u8, u8),
    /// One document, or change, too few or too many: a breach of contract.
    Wrong,
}

impl Answer {
    /// How the document at a place failed for itself.
    pub fn failure(self, at: usize) -> Option<Kind> {
        let is_of = |mask: u8| mask & (1 << (at % 8)) != 0;
        match self {
            Self::Partly(kind, mask) => is_of(mask).then_some(kind),
            Self::Mixed(later, _) if is_of(later) => Some(Kind::Transient),
            Self::Mixed(_, refused) => is_of(refused).then_some(Kind::Content),
            Self::Done | Self::Reversed | Self::Failed(..) | Self::Wrong => None,
        }
    }
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
    /// An index that nobody knows is to be seeded anew, and compared.
    UnknownIndex,
}

/// What a truncation empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Emptied {
    /// The root table of every index.
    Rows,
    /// A table that is a part of the documents of some.
    Related,
    /// Both at once.
    Both,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Op {
    /// A transaction changes the rows of this mask, and deletes those that are in the second one too.
    Commit(u8, u8),
    /// A transaction empties tables, and inserts the rows of this mask again.
    Truncate(Emptied, u8),
    /// The source is idle, and gives a checkpoint.
    Heartbeat,
    /// The capture yields at most so many items, and at least one where there is one.
    Capture(u8),
    /// The capture has nothing ready, and says that more follows.
    Tarry,
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
    /// The snapshot yields at most so many rows; of an even number its end comes after its last row, and not with it.
    Scan(u8),
    /// The snapshot fails.
    FailScan(Kind),
    /// Time passes to the next deadline exactly.
    Deadline,
    /// So many 256ths of the time to the next deadline pass.
    Wait(u8),
    /// Time passes beyond the next deadline, by so many 256ths of the time limit of a call, and nobody has said so yet: what
    /// comes next does.
    Oversleep(u8),
    /// A write that was given up lands.
    Land(u8),
    /// The run dies, and another begins.
    Crash,
    /// Someone asks for an index to be seeded anew.
    Reindex(u8),
    /// The run is to end within so many milliseconds.
    Drain(u8),
    /// The driver does what it must not.
    Misuse(Wrong),
    /// Someone asks for an index to be compared with its source.
    Verify(u8),
}

/// One operation. Most of them let the run go on, so that it comes somewhere.
pub fn any() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u8.., prop::num::u8::ANY, prop::num::u8::ANY).prop_map(|(rows, few, removed)| {
            Op::Commit(if rows & few == 0 { rows } else { rows & few }, removed & few)
        }),
        1 => (emptied(), prop::num::u8::ANY).prop_map(|(tables, rows)| Op::Truncate(tables, rows)),
        1 => Just(Op::Heartbeat),
        1 => Just(Op::Tarry),
        10 => (1_u8..6).prop_map(Op::Capture),
        1 => Just(Op::FailCapture(Kind::Transient)),
        40 => (0_u8..6, answer()).prop_map(|(at, how)| Op::Answer(at, how)),
        5 => (1_u8..4).prop_map(Op::Scan),
        1 => Just(Op::FailScan(Kind::Transient)),
        8 => Just(Op::Deadline),
        3 => prop::num::u8::ANY.prop_map(Op::Wait),
        2 => prop::num::u8::ANY.prop_map(Op::Oversleep),
        3 => prop::num::u8::ANY.prop_map(Op::Land),
        2 => prop::num::u8::ANY.prop_map(Op::Stale),
        1 => Just(Op::Repeat),
        1 => wrong().prop_map(Op::Misuse),
        1 => (0_u8..3).prop_map(Op::Verify),
        1 => rare(),
    ]
}

fn rare() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Crash),
        1 => prop::num::u8::ANY.prop_map(Op::Drain),
        4 => (0_u8..3).prop_map(Op::Reindex),
        1 => Just(Op::LoseStream),
        1 => Just(Op::End),
        1 => kind().prop_map(Op::FailCapture),
        1 => kind().prop_map(Op::FailScan),
        1 => (0_u8..6).prop_map(|at| Op::Answer(at, Answer::Wrong)),
    ]
}

fn emptied() -> impl Strategy<Value = Emptied> {
    prop_oneof![Just(Emptied::Rows), Just(Emptied::Related), Just(Emptied::Both)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![8 => Just(Kind::Transient), 3 => Just(Kind::Content), 1 => Just(Kind::Fatal)]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![Just(Effect::Nothing), Just(Effect::Half), Just(Effect::All), Just(Effect::Late)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        30 => Just(Answer::Done),
        2 => Just(Answer::Reversed),
        4 => (kind(), effect()).prop_map(|(kind, effect)| Answer::Failed(kind, effect)),
        4 => (kind(), mask()).prop_map(|(kind, mask)| Answer::Partly(kind, mask)),
        2 => (mask(), mask()).prop_map(|(later, refused)| Answer::Mixed(later, refused)),
    ]
}

/// Most often of the first places, since most calls have no others.
fn mask() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 1_u8..16, 1 => 1_u8..]
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        Just(Wrong::TimeBack),
        Just(Wrong::NeverMade),
        Just(Wrong::OtherKind),
        Just(Wrong::TooManyChanges),
        Just(Wrong::TooManyRows),
        Just(Wrong::NoCapture),
        Just(Wrong::UnknownIndex),
    ]
}
