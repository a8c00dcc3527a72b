//! Answers to calls: as they were asked, or nearly.

use arbitrary::Arbitrary;
use syncline::pipeline::{CallId, Command, Event, Then};
use syncline::ports::Resolved;
use syncline::{
    Document, DocumentId, Epoch, FlushReport, IndexMapping, IndexScope, Key, RejectedDocument, SeedState,
    SnapshotTable, Value,
};

use super::Body;
use super::raw::{Failure, Id, State, index, stream, table};

/// How an answer strays from what was asked.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum How {
    /// Not at all.
    Right,
    /// It is a failure.
    Failed(Failure),
    /// The last of its list is missing.
    Short,
    /// The first of its list comes twice.
    Twice,
    /// Its list is the other way round.
    Reversed,
    /// Something of its list was not asked for.
    Foreign(Id),
    /// Each of these is said of the documents whose place is a bit of the mask: rejected, failed for itself, or
    /// different.
    Refused(u8, Failure),
    /// Each of these is said to be this large.
    Sized(usize),
    /// A change touches, or a list or a page of rows holds, so many documents.
    FansOut(u16),
    /// This is how far the index is.
    Told(State),
}

/// The documents that a change fans out to, at most: more would only take longer.
const MOST_DOCUMENTS: u16 = 500;

/// The documents of a list, or the rows of a page, at most: more than any limit.
const MOST_LISTED: u16 = 20;

/// So many documents a table, and an index, holds.
const HELD: i64 = 6;

pub(super) fn right(command: &Command<Body>) -> Event<Body> {
    to(command, How::Right)
}

pub(super) fn to(command: &Command<Body>, how: How) -> Event<Body> {
    let failed = match how {
        How::Failed(failure) => Some(failure.build()),
        _ => None,
    };
    match command.clone() {
        Command::Begin { call } => Event::Begun { call, result: failed.map_or(Ok((Epoch(1), 8)), Err) },
        Command::Describe { call } => {
            let indexes: Vec<_> = stray((0..3).map(index).collect(), how, |id| id.build().index);
            // Of an index that has a mapping and no scope nobody can tell what a truncation does to it.
            let mappings = indexes.iter().skip(1).map(|index| IndexMapping::new(index.clone(), [])).collect();
            let root = SnapshotTable::new(table("rows"));
            let scopes = indexes.iter().skip(1).map(|index| IndexScope::new(index.clone(), root.clone()));
            Event::Described { call, result: failed.map_or_else(|| Ok((mappings, scopes.collect())), Err) }
        }
        Command::LoadQuarantine { call } => {
            let ids = stray(vec![], how, Id::build);
            Event::QuarantineLoaded { call, result: failed.map_or(Ok(ids), Err) }
        }
        Command::Open { call } => Event::Opened { call, result: failed.map_or_else(|| Ok(stream(0)), Err) },
        Command::Resolve { call, changes } => {
            let mut resolved = Resolved::default();
            let touched = |key: &syncline::Key| match how {
                How::FansOut(many) => {
                    let one = |key: u16| DocumentId::new(index(0), i64::from(key));
                    (0..many % MOST_DOCUMENTS).map(one).collect()
                }
                _ => vec![DocumentId::new(index(0), key.clone()), DocumentId::new(index(1), key.clone())],
            };
            let answers: Vec<_> = changes.iter().map(|change| touched(&change.key)).collect();
            stray(answers, how, |id| vec![id.build()]).into_iter().for_each(|ids| resolved.push(ids));
            Event::Resolved { call, result: failed.map_or(Ok(resolved), Err) }
        }
        Command::Build { call, ids, .. } => {
            let (mut built, mut bytes) = (Vec::new(), Vec::new());
            for (at, id) in stray(ids.to_vec(), how, Id::build).into_iter().enumerate() {
                built.push(match how {
                    How::Refused(mask, failure) if mask & (1 << (at % 8)) != 0 => {
                        Err(syncline::ports::FailedDocument { id, fault: failure.build() })
                    }
                    _ => Ok(Document::upsert(id, 0)),
                });
                bytes.push(if let How::Sized(bytes) = how { bytes } else { 1 });
            }
            Event::Built { call, result: failed.map_or(Ok(built), Err), bytes }
        }
        Command::Flush { call, writes, .. } => {
            let mut report = FlushReport::clean();
            if let How::Refused(mask, _) = how {
                let refused = writes.iter().enumerate().filter(|(at, _)| mask & (1 << (at % 8)) != 0);
                for (at, write) in refused {
                    let id = &write.document.id;
                    match at % 2 {
                        0 => report.rejected.push(RejectedDocument::new(id, "poison")),
                        _ => report.throttled.push(id.clone()),
                    }
                }
            }
            if let How::Foreign(id) = how {
                report.throttled.push(id.build());
            }
            Event::Flushed { call, result: failed.map_or(Ok(report), Err) }
        }
        Command::Compare { call, writes } => {
            let differs = |at: usize| match how {
                How::Right => false,
                How::Refused(mask, _) => mask & (1 << (at % 8)) != 0,
                _ => true,
            };
            let differing = writes.iter().enumerate().filter(|(at, _)| differs(*at));
            let ids = stray(differing.map(|(_, write)| write.document.id.clone()).collect(), how, Id::build);
            Event::Compared { call, result: failed.map_or(Ok(ids), Err) }
        }
        Command::List { call, index, after, limit } => {
            let keys = held(after.as_ref().map(|id| &id.key), limit, how).into_iter();
            let ids = stray(keys.map(|key| DocumentId::new(index.clone(), key)).collect(), how, Id::build);
            Event::Listed { call, result: failed.map_or(Ok(ids), Err) }
        }
        Command::ReadSeed { call, .. } => {
            let state = if let How::Told(state) = how { state.build() } else { SeedState::Unseeded };
            Event::SeedRead { call, result: failed.map_or(Ok(state), Err) }
        }
        Command::ReadLag { call } => Event::LagRead { call, result: failed.map_or(Ok(Some(1)), Err) },
        other => match other.call() {
            Some(call) => Event::Done { call, result: failed.map_or(Ok(()), Err) },
            None => Event::Elapsed,
        },
    }
}

/// The next rows of a snapshot, where so many are taken.
pub(super) fn rows(call: CallId, after: Option<&Key>, capacity: usize, how: How) -> Event<Body> {
    if let How::Failed(failure) = how {
        return Event::ScanFailed { call, fault: failure.build() };
    }
    let keys = held(after, capacity, how);
    let then = if keys.len() < held(after, usize::MAX, how).len() { Then::More } else { Then::End };
    Event::Scanned { call, keys: stray(keys, how, |id| id.build().key), then }
}

/// The keys after this one that a table or an index holds, at most so many; where it fans out, as many as that.
fn held(after: Option<&Key>, most: usize, how: How) -> Vec<Key> {
    let from = match after.map(Key::values) {
        Some([Value::Int(key)]) => key.saturating_add(1),
        _ => 0,
    };
    let many = match how {
        How::FansOut(many) => usize::from(many % MOST_LISTED),
        _ => most.min(usize::try_from(HELD - from).unwrap_or(0)),
    };
    (from..).take(many).map(Key::single).collect()
}

/// A list as it was asked for, or not quite.
fn stray<T: Clone>(mut list: Vec<T>, how: How, foreign: impl Fn(Id) -> T) -> Vec<T> {
    match how {
        How::Short => drop(list.pop()),
        How::Twice => list.extend(list.first().cloned()),
        How::Reversed => list.reverse(),
        How::Foreign(id) => list.push(foreign(id)),
        _ => {}
    }
    list
}
