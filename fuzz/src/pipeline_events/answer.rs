//! Answers to calls: as they were asked, or nearly.

use arbitrary::Arbitrary;
use syncline::pipeline::{Command, Event};
use syncline::ports::Resolved;
use syncline::{
    Document, DocumentId, Epoch, FlushReport, IndexMapping, IndexScope, RejectedDocument, SeedState,
    SnapshotTable,
};

use super::Body;
use super::raw::{Failure, Id, index, stream, table};

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
    /// Something of its list was not asked for.
    Foreign(Id),
    /// Each of these is said of the documents whose place is a bit of the mask: rejected, or failed for itself.
    Refused(u8, Failure),
    /// Each of these is said to be this large.
    Sized(usize),
    /// A change touches so many documents.
    FansOut(u16),
}

/// The documents that a change fans out to, at most: more would only take longer.
const MOST_DOCUMENTS: u16 = 500;

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
        Command::ReadSeed { call, .. } => {
            Event::SeedRead { call, result: failed.map_or(Ok(SeedState::Unseeded), Err) }
        }
        Command::ReadLag { call } => Event::LagRead { call, result: failed.map_or(Ok(Some(1)), Err) },
        other => match other.call() {
            Some(call) => Event::Done { call, result: failed.map_or(Ok(()), Err) },
            None => Event::Elapsed,
        },
    }
}

/// A list as it was asked for, or not quite.
fn stray<T: Clone>(mut list: Vec<T>, how: How, foreign: impl Fn(Id) -> T) -> Vec<T> {
    match how {
        How::Short => drop(list.pop()),
        How::Twice => list.extend(list.first().cloned()),
        How::Foreign(id) => list.push(foreign(id)),
        _ => {}
    }
    list
}
