//! Events out of bytes.

use std::time::Duration;

use arbitrary::Arbitrary;
use syncline::pipeline::{CallId, Event, Then};
use syncline::ports::{FailedDocument, IndexScope, Resolved};
use syncline::time::Instant;
use syncline::{
    Captured, Change, Document, DocumentId, Epoch, Fault, FaultKind, FlushReport, IndexMapping, IndexName,
    Key, Position, RejectedDocument, SeedState, SnapshotTable, StreamId, TableName, Truncation, Visibility,
};

use super::Body;
use super::answer::How;
pub(super) use super::config::Case;

/// What happens next, and when.
#[derive(Debug, Arbitrary)]
pub(super) struct Step {
    pub(super) when: When,
    pub(super) what: What,
}

/// How the time of an event relates to that of the one before.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum When {
    /// The same.
    Now,
    /// So many microseconds later.
    Later(u32),
    /// The next deadline.
    Deadline,
    /// So many nanoseconds earlier.
    Back(u16),
    /// The last instant that there is.
    End,
}

#[derive(Debug, Arbitrary)]
pub(super) enum What {
    /// An open call is answered, more or less as it was asked.
    Answer(u8, How),
    /// Any event.
    Event(Raw),
}

/// The call that an answer names.
#[derive(Debug, Arbitrary)]
pub(super) enum Which {
    /// One that is open.
    Open(u8),
    /// One by its number, which may have been made, answered or given up.
    Number(u8),
    /// Any number at all.
    Any(u64),
}

/// A document, by a number.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) struct Id(u8);

impl Id {
    pub(super) fn build(self) -> DocumentId {
        DocumentId::new(index(self.0), i64::from(self.0 / 4))
    }
}

/// The index of this number: there are few.
pub(super) fn index(number: u8) -> IndexName {
    IndexName::new(format!("index{}", number % 4)).unwrap()
}

/// A failure.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) struct Failure {
    kind: Kind,
    retry_after: Option<u64>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    Transient,
    Content,
    Fatal,
}

impl Failure {
    pub(super) fn build(self) -> Fault {
        let kind = match self.kind {
            Kind::Transient => FaultKind::Transient,
            Kind::Content => FaultKind::Content,
            Kind::Fatal => FaultKind::Fatal,
        };
        let fault = Fault::new(kind, "trouble");
        match self.retry_after {
            Some(nanos) => fault.with_retry_after(Duration::from_nanos(nanos)),
            None => fault,
        }
    }
}

type Outcome<T> = Result<T, Failure>;

/// The indexes that have a mapping, and those that have a root table, which is another one or not.
type Description = (Vec<u8>, Vec<(u8, bool)>);

#[derive(Debug, Arbitrary)]
pub(super) enum Item {
    Change {
        key: u8,
        visibility: Option<u8>,
    },
    /// So far after the newest one.
    Checkpoint(u8),
    /// Anywhere.
    CheckpointAt(u64),
    /// One of the tables is emptied, or both.
    Truncate {
        rows: bool,
        visibility: Option<u8>,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Next {
    More,
    Idle,
    End,
}

impl Next {
    fn build(self) -> Then {
        match self {
            Self::More => Then::More,
            Self::Idle => Then::Idle,
            Self::End => Then::End,
        }
    }
}

/// How far an index is.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum State {
    Unseeded,
    Seeding(Option<u8>),
    Seeded,
    Parked,
}

impl State {
    pub(super) fn build(self) -> SeedState {
        match self {
            Self::Unseeded => SeedState::Unseeded,
            Self::Seeding(after) => SeedState::Seeding(after.map(|key| Key::single(i64::from(key)))),
            Self::Seeded => SeedState::Seeded,
            Self::Parked => SeedState::Parked,
        }
    }
}

/// Any event.
#[derive(Debug, Arbitrary)]
pub(super) enum Raw {
    Begun(Which, Outcome<(u64, usize)>),
    Described(Which, Outcome<Description>),
    QuarantineLoaded(Which, Outcome<Vec<Id>>),
    Opened(Which, Outcome<u8>),
    Captured(Vec<Item>, Next),
    CaptureFailed(Failure),
    Resolved(Which, Outcome<Vec<Vec<Id>>>),
    Built(Which, Outcome<Vec<(Id, Outcome<Option<Body>>)>>, Vec<usize>),
    Flushed(Which, Outcome<(Vec<Id>, Vec<Id>)>),
    Compared(Which, Outcome<Vec<Id>>),
    Listed(Which, Outcome<Vec<Id>>),
    SeedRead(Which, Outcome<State>),
    Scanned(Which, Vec<u8>, Next),
    ScanFailed(Which, Failure),
    LagRead(Which, Outcome<Option<u64>>),
    Done(Which, Outcome<()>),
    Elapsed,
    Reindex(u8),
    Verify(u8),
    Drain(u64),
}

impl Raw {
    /// The event, where these calls are open and this is the newest checkpoint.
    pub(super) fn build(self, open: &[CallId], newest: Position) -> Event<Body> {
        let call = |which: Which| match which {
            Which::Open(at) => {
                usize::from(at).checked_rem(open.len()).map_or(CallId(u64::MAX), |at| open[at])
            }
            Which::Number(number) => CallId(number.into()),
            Which::Any(number) => CallId(number),
        };
        let fault = |failure: Failure| failure.build();
        match self {
            Self::Begun(which, result) => {
                let result = result.map(|(epoch, flushes)| (Epoch(epoch), flushes)).map_err(fault);
                Event::Begun { call: call(which), result }
            }
            Self::Described(which, result) => Event::Described {
                call: call(which),
                result: result.map(|(mapped, scoped)| (mappings(mapped), scopes(scoped))).map_err(fault),
            },
            Self::QuarantineLoaded(which, result) => {
                Event::QuarantineLoaded { call: call(which), result: result.map(ids).map_err(fault) }
            }
            Self::Opened(which, result) => {
                Event::Opened { call: call(which), result: result.map(stream).map_err(fault) }
            }
            Self::Captured(given, then) => {
                Event::Captured { items: items(given, newest), then: then.build() }
            }
            Self::CaptureFailed(failure) => Event::CaptureFailed { fault: failure.build() },
            Self::Resolved(which, result) => {
                Event::Resolved { call: call(which), result: result.map(resolved).map_err(fault) }
            }
            Self::Built(which, result, bytes) => {
                let built = |(id, outcome): (Id, Outcome<Option<Body>>)| match outcome {
                    Ok(Some(body)) => Ok(Document::upsert(id.build(), body)),
                    Ok(None) => Ok(Document::delete(id.build())),
                    Err(failure) => Err(FailedDocument { id: id.build(), fault: failure.build() }),
                };
                let result = result.map(|answers| answers.into_iter().map(built).collect()).map_err(fault);
                Event::Built { call: call(which), result, bytes }
            }
            Self::Flushed(which, result) => {
                let report = |(rejected, throttled): (Vec<Id>, Vec<Id>)| FlushReport {
                    rejected: rejected
                        .iter()
                        .map(|id| RejectedDocument::new(&id.build(), "poison"))
                        .collect(),
                    throttled: ids(throttled),
                };
                Event::Flushed { call: call(which), result: result.map(report).map_err(fault) }
            }
            Self::Compared(which, result) => {
                Event::Compared { call: call(which), result: result.map(ids).map_err(fault) }
            }
            Self::Listed(which, result) => {
                Event::Listed { call: call(which), result: result.map(ids).map_err(fault) }
            }
            Self::SeedRead(which, result) => {
                Event::SeedRead { call: call(which), result: result.map(State::build).map_err(fault) }
            }
            Self::Scanned(which, keys, then) => Event::Scanned {
                call: call(which),
                keys: keys.into_iter().map(|key| Key::single(i64::from(key))).collect(),
                then: then.build(),
            },
            Self::ScanFailed(which, failure) => {
                Event::ScanFailed { call: call(which), fault: failure.build() }
            }
            Self::LagRead(which, result) => {
                Event::LagRead { call: call(which), result: result.map_err(fault) }
            }
            Self::Done(which, result) => Event::Done { call: call(which), result: result.map_err(fault) },
            Self::Elapsed => Event::Elapsed,
            Self::Reindex(number) => Event::Reindex { index: index(number) },
            Self::Verify(number) => Event::Verify { index: index(number) },
            Self::Drain(nanos) => Event::Drain { deadline: Instant::from_nanos(nanos) },
        }
    }
}

fn ids(ids: Vec<Id>) -> Vec<DocumentId> {
    ids.into_iter().map(Id::build).collect()
}

fn mappings(indexes: Vec<u8>) -> Vec<IndexMapping> {
    indexes.into_iter().map(|number| IndexMapping::new(index(number), [])).collect()
}

fn scopes(scopes: Vec<(u8, bool)>) -> Vec<IndexScope> {
    let scope = |(number, other)| {
        let table = SnapshotTable::new(table(if other { "others" } else { "rows" }));
        let scope = IndexScope::new(index(number), table);
        if number % 2 == 0 { scope.with_related([]) } else { scope }
    };
    scopes.into_iter().map(scope).collect()
}

pub(super) fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

pub(super) fn stream(number: u8) -> StreamId {
    StreamId::new(format!("stream{}", number % 4)).unwrap()
}

fn items(items: Vec<Item>, newest: Position) -> syncline::Captures {
    let mut at = newest;
    let item = |item| match item {
        Item::Change { key, visibility } => {
            let mut change = Change::upsert(table("rows"), i64::from(key));
            change.visibility = visibility.map(|token| Visibility(token.into()));
            Captured::Change(change)
        }
        Item::Checkpoint(further) => {
            at = Position(at.0.saturating_add(further.into()));
            Captured::Checkpoint(at)
        }
        Item::CheckpointAt(position) => Captured::Checkpoint(Position(position)),
        Item::Truncate { rows, visibility } => {
            let tables = [table("others")].into_iter().chain(rows.then(|| table("rows")));
            let visibility = visibility.map(|token| Visibility(token.into()));
            Truncation { tables: tables.collect(), visibility }.into()
        }
    };
    items.into_iter().map(item).collect()
}

fn resolved(answers: Vec<Vec<Id>>) -> Resolved {
    let mut resolved = Resolved::default();
    answers.into_iter().for_each(|touched| resolved.push(ids(touched)));
    resolved
}

/// How much an event carries.
pub(super) fn weight(event: &Event<Body>) -> usize {
    match event {
        Event::Described { result: Ok((mappings, scopes)), .. } => mappings.len() + scopes.len(),
        Event::QuarantineLoaded { result: Ok(ids), .. }
        | Event::Compared { result: Ok(ids), .. }
        | Event::Listed { result: Ok(ids), .. } => ids.len(),
        Event::Captured { items, .. } => items.counted() + items.checkpoints().len(),
        Event::Resolved { result: Ok(resolved), .. } => answer_weight(resolved),
        Event::Built { result: Ok(built), .. } => built.len(),
        Event::Flushed { result: Ok(report), .. } => report.rejected.len() + report.throttled.len(),
        Event::Scanned { keys, .. } => keys.len() * 4,
        _ => 1,
    }
}

/// A resolve's answer does not tell its ids; each is a document at the most.
fn answer_weight(resolved: &Resolved) -> usize {
    format!("{resolved:?}").matches('/').count() + resolved.len()
}

/// The call that an event names.
pub(super) fn call(event: &Event<Body>) -> Option<CallId> {
    match event {
        Event::Begun { call, .. }
        | Event::Described { call, .. }
        | Event::QuarantineLoaded { call, .. }
        | Event::Opened { call, .. }
        | Event::Resolved { call, .. }
        | Event::Built { call, .. }
        | Event::Flushed { call, .. }
        | Event::Compared { call, .. }
        | Event::Listed { call, .. }
        | Event::SeedRead { call, .. }
        | Event::Scanned { call, .. }
        | Event::ScanFailed { call, .. }
        | Event::LagRead { call, .. }
        | Event::Done { call, .. } => Some(*call),
        _ => None,
    }
}
