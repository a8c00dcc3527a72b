//! What the engine's clients ask the nodes, and what those answer.
//!
//! Syncline has no protocol of its own, so messages travel as they are: the simulated network delays, loses and reorders
//! them whole.

use syncline::{Captured, Fault, Seed, SeedState};

use crate::index::Version;
use crate::plan::{Kind, Point};
use crate::tables::{Body, Doc, Lookup};

/// A request, with what the network and the checks need to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Pairs it with its answer.
    pub(crate) tag: u64,
    /// Its number among all requests, for the trace.
    pub(crate) number: u64,
    /// The run of the engine that sent it.
    pub(crate) run: u64,
    /// When its sender gives it up.
    pub(crate) until_us: u64,
    pub(crate) call: Call,
}

/// A document to be written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) doc: Doc,
    /// The physical index it is meant for.
    pub(crate) generation: u64,
    pub(crate) version: Version,
    pub(crate) body: Option<Body>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Open,
    Stream {
        session: u64,
    },
    Confirm {
        incarnation: u64,
        position: u64,
    },
    Scan {
        table: usize,
        after: Option<Vec<i64>>,
        visible: u64,
        incarnation: u64,
    },
    Resolve {
        lookups: Vec<Lookup>,
        visible: u64,
    },
    Build {
        docs: Vec<Doc>,
        visible: u64,
    },
    Lag,
    Begin {
        least: u64,
    },
    Ensure {
        index: usize,
    },
    Flush {
        writes: Vec<Written>,
    },
    Compare {
        writes: Vec<Written>,
    },
    List {
        index: usize,
        generation: u64,
        after: Option<String>,
        limit: usize,
    },
    CaughtUp,
    SeedState {
        index: usize,
        generation: u64,
        seed: Seed,
    },
    /// `keeps` where it is rebuilt: what it held is found until it is marked.
    Clear {
        index: usize,
        epoch: u64,
        keeps: bool,
    },
    Cursor {
        generation: u64,
        seed: Seed,
        after: Option<Vec<i64>>,
        epoch: u64,
    },
    Mark {
        generation: u64,
        seed: Seed,
        epoch: u64,
    },
    Park {
        generation: u64,
        seed: Seed,
        epoch: u64,
    },
    Load,
    Record {
        docs: Vec<(Doc, Version)>,
    },
    Release {
        docs: Vec<(Doc, Version)>,
    },
}

impl Call {
    pub(crate) fn point(&self) -> Point {
        match self {
            Self::Open => Point::Open,
            Self::Stream { .. } => Point::Stream,
            Self::Confirm { .. } => Point::Confirm,
            Self::Scan { .. } => Point::Scan,
            Self::Resolve { .. } => Point::Resolve,
            Self::Build { .. } => Point::Build,
            Self::Lag => Point::Lag,
            Self::Begin { .. } => Point::Begin,
            Self::Ensure { .. } => Point::Ensure,
            Self::Flush { .. } => Point::Flush,
            Self::Compare { .. } => Point::Compare,
            Self::List { .. } => Point::List,
            Self::CaughtUp => Point::CaughtUp,
            Self::SeedState { .. } => Point::SeedState,
            Self::Clear { .. } => Point::Clear,
            Self::Cursor { .. } => Point::Cursor,
            Self::Mark { .. } | Self::Park { .. } => Point::Mark,
            Self::Load => Point::Load,
            Self::Record { .. } => Point::Record,
            Self::Release { .. } => Point::Release,
        }
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Done,
    Opened {
        incarnation: u64,
        session: u64,
    },
    Items(Vec<Captured>),
    Rows {
        keys: Vec<Vec<i64>>,
        end: bool,
    },
    Found(Vec<Vec<Doc>>),
    Built(Vec<(Doc, Option<Body>)>),
    Lag(u64),
    Epoch(u64),
    Generation(u64),
    Flushed {
        rejected: Vec<Doc>,
        throttled: Vec<Doc>,
        missing: Vec<Doc>,
    },
    /// Documents that differ, or that are held.
    Documents(Vec<Doc>),
    Seeded(SeedState),
    Loaded(Vec<Doc>),
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) kind: Kind,
    pub(crate) text: &'static str,
}

impl Failed {
    pub(crate) fn transient(text: &'static str) -> Self {
        Self { kind: Kind::Transient, text }
    }

    pub(crate) fn content(text: &'static str) -> Self {
        Self { kind: Kind::Content, text }
    }

    pub(crate) fn fatal(text: &'static str) -> Self {
        Self { kind: Kind::Fatal, text }
    }
}

impl From<Failed> for Fault {
    fn from(failed: Failed) -> Self {
        match failed.kind {
            Kind::Transient => Self::transient(failed.text),
            Kind::Content => Self::content(failed.text),
            Kind::Fatal => Self::fatal(failed.text),
        }
    }
}

pub(crate) type Reply = Result<Answer, Failed>;
