//! What the supervisor and an engine tell each other: a line of JSON each, on the engine's input and output.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// What an engine is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Asked {
    /// To work off what it holds, and to end.
    Drain,
    /// Something of an index. The number comes back with what became of it.
    OfIndex { number: u64, what: OfIndex, index: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OfIndex {
    Reindex,
    Verify,
}

/// What an engine tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Said {
    /// How it is, ten times a second.
    Status(Told),
    /// What became of a request: said by an engine that lives to see it.
    Became(u64, Outcome),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The index was built anew, and is seeded.
    Seeded,
    /// A document of it failed once more, and it has stopped.
    Parked,
    /// The index was compared.
    Verified { compared: u64, different: u64, documents: Vec<String> },
    /// It was not done, or not to its end.
    Refused(String),
}

/// How an engine is, as it says itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// When that was, see [`now_ms`].
    pub(crate) at_ms: u64,
    pub(crate) caught_up: bool,
    pub(crate) seeded: BTreeSet<String>,
    pub(crate) parked: BTreeSet<String>,
    pub(crate) captured: u64,
    pub(crate) retries: u64,
    pub(crate) quarantined: u64,
}

/// A time that two processes of one machine can compare.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "two processes share no other clock")]
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
