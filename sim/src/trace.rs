//! What happened in a run, in order: one seed, one trace, byte for byte.

use std::fmt::{self, Write as _};

/// Where something happened, as the lanes of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The database: commits, the resume point, snapshots.
    Source,
    /// The engine: its runs, and what its observer hears.
    Engine,
    /// The stream of changes.
    Capture,
    /// Lookups for changes.
    Resolve,
    /// Documents being built.
    Build,
    /// Documents being written, and the quarantine.
    Flush,
    /// What is durable in the indexes.
    Index,
    /// The seeding of indexes.
    Seed,
    /// Confirmed positions.
    Ack,
    /// What goes wrong.
    Fault,
    /// The verdicts of the checks.
    Check,
}

impl Lane {
    /// All lanes, in the order in which they are drawn.
    pub const ALL: [Self; 11] = [
        Self::Source,
        Self::Engine,
        Self::Capture,
        Self::Resolve,
        Self::Build,
        Self::Flush,
        Self::Index,
        Self::Seed,
        Self::Ack,
        Self::Fault,
        Self::Check,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Engine => "engine",
            Self::Capture => "capture",
            Self::Resolve => "resolve",
            Self::Build => "build",
            Self::Flush => "flush",
            Self::Index => "index",
            Self::Seed => "seed",
            Self::Ack => "ack",
            Self::Fault => "fault",
            Self::Check => "check",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, in simulated time.
    pub at_us: u64,
    /// Where.
    pub lane: Lane,
    /// Whether it began here, ended here, or both.
    pub phase: Phase,
    /// Pairs the begin of something with its end; 0 where there is no pair.
    pub request: u64,
    /// What, in words.
    pub text: String,
}

/// Whether an entry is a moment, or one side of something that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It is over at once.
    Moment,
    /// It begins. Its end may never come: its node may die first.
    Begin,
    /// It ends.
    End,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        let sign = match self.phase {
            Phase::Moment => ' ',
            Phase::Begin => '>',
            Phase::End => '<',
        };
        write!(f, "{seconds:>4}.{micros:06} {:<8}{sign} {}", self.lane.name(), self.text)?;
        if self.request > 0 {
            write!(f, " #{}", self.request)?;
        }
        Ok(())
    }
}

/// The entries of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// In the order in which they happened.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// A line for each entry.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.entries.len() * 64);
        for entry in &self.entries {
            writeln!(text, "{entry}").expect("a text takes whatever is written to it");
        }
        text
    }

    /// A short name of the text: FNV-1a over its bytes, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.to_text().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{hash:016x}")
    }
}
