//! What is to be done, the same for every contestant.

use std::time::Duration;

/// How many changes a transaction has.
const TRANSACTION: u64 = 100;

/// How many keys are drawn for a Zipf distribution before they repeat.
const DRAWN: usize = 1 << 16;

/// One piece of work.
#[derive(Debug, Clone)]
pub struct Work {
    /// How many changes are captured.
    pub changes: u64,
    /// Which rows they are of.
    pub keys: Keys,
    /// How many documents each of them touches; no two changes of different rows touch the same one.
    pub documents_per_change: u64,
    /// The changes of a unit, at the most.
    pub unit: usize,
    /// The documents of a unit, at the most, for an engine that has such a limit.
    pub unit_documents: usize,
    /// How long the first change of a unit waits for company.
    pub max_delay: Duration,
    /// What the edges' calls take.
    pub calls: Calls,
    /// The size of a document's body.
    pub body_bytes: usize,
    /// When the changes come.
    pub pace: Pace,
    /// How many rows are there to begin with, and must be read to seed the index.
    pub rows: u64,
    /// Where the sink serves only so many flushes at once: others wait there, and beyond three times as many it throttles.
    pub serves: Option<usize>,
}

impl Work {
    /// Changes of distinct rows, each of one document without a body, over edges that do nothing.
    #[must_use]
    pub fn of(changes: u64, unit: usize) -> Self {
        Self {
            changes,
            keys: Keys::Distinct,
            documents_per_change: 1,
            unit,
            unit_documents: unit,
            max_delay: Duration::from_millis(50),
            calls: Calls::default(),
            body_bytes: 0,
            pace: Pace::AtOnce,
            rows: 0,
            serves: None,
        }
    }

    /// The row of each change.
    pub fn rows_changed(&self) -> impl Iterator<Item = i64> + Send + use<> {
        let first = self.rows as i64;
        let drawn = match self.keys {
            Keys::Distinct => Vec::new(),
            Keys::Zipf { rows } => zipf(rows),
        };
        (0..self.changes).map(move |at| first + drawn.get(at as usize % DRAWN).copied().unwrap_or(at as i64))
    }

    /// The documents that a row has a part in.
    pub fn documents_of(&self, row: i64) -> core::ops::Range<i64> {
        let each = self.documents_per_change as i64;
        row * each..(row + 1) * each
    }

    /// Whether a transaction ends with the change at this place.
    #[must_use]
    pub fn commits_at(&self, at: u64) -> bool {
        at % TRANSACTION == TRANSACTION - 1 || at + 1 == self.changes
    }

    /// Whether it never waits: neither for a call nor for a change. Then it is all done by one thread.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pace == Pace::AtOnce && self.calls.are_free()
    }

    /// Whether its changes come one after the other, whatever becomes of them.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        matches!(self.pace, Pace::Every(_))
    }

    /// Whether an engine is given its rows to seed an index from.
    #[must_use]
    pub fn is_seeded(&self) -> bool {
        self.rows > 0
    }
}

/// Which rows are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Each change is of another row.
    Distinct,
    /// The changes are of so many rows: the `n`th is changed `1/n` times as often as the first.
    Zipf {
        /// How many.
        rows: u64,
    },
}

/// How long calls take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// A call that resolves changes, however many it is given.
    pub resolve: Duration,
    /// A call that builds documents, however many.
    pub build: Duration,
    /// A call that flushes.
    pub flush: Duration,
    /// For each document of a flush, besides.
    pub flush_per_document: Duration,
}

impl Calls {
    /// How long it takes to flush so many documents.
    #[must_use]
    pub fn flush_of(&self, documents: usize) -> Duration {
        self.flush + self.flush_per_document * u32::try_from(documents).unwrap_or(u32::MAX)
    }

    /// Whether no call takes any time.
    #[must_use]
    pub fn are_free(&self) -> bool {
        *self == Self::default()
    }
}

/// When changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All of them are there from the beginning.
    AtOnce,
    /// As fast as a real database gives them, and an index or a file takes the documents.
    Real,
    /// So long one after the other, each a transaction. Where rows are to be seeded they come until that is done; else,
    /// as many as the work says.
    Every(Duration),
}

/// Sleeps as an edge does whose server takes its time.
pub async fn take(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Rows by a Zipf distribution of exponent 1, drawn beforehand, always the same.
fn zipf(rows: u64) -> Vec<i64> {
    let mut total = 0.0;
    let sums: Vec<f64> = (1..=rows)
        .map(|n| {
            total += 1.0 / n as f64;
            total
        })
        .collect();
    // SplitMix64, by Steele, Lea and Flood: what is drawn must be the same everywhere, and no more than that.
    let mut state = 0_u64;
    let draw = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        sums.partition_point(|sum| *sum <= unit * total) as i64
    };
    std::iter::repeat_with(draw).take(DRAWN).collect()
}
