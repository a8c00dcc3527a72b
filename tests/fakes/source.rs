//! A source: a list of transactions with a durable position.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::stream;
use syncline::ports::{ChangeStream, KeyStream, TableNeeds};
use syncline::{
    Captured, Change, ChangeCapture, Fault, Key, Opened, Position, SnapshotTable, StreamId, Truncation,
    Visibility,
};

use super::script::end;
use super::{Act, Log, Port, Script, Tables, lock};

/// A confirm, and how many flushes had been asked for and had returned by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    pub position: u64,
    pub flushes_asked: usize,
    pub flushes_done: usize,
}

pub struct State {
    pub stream: StreamId,
    items: Vec<Captured>,
    newest: u64,
    pub confirmed: u64,
    /// After its last item the stream is pending, not over.
    pub endless: bool,
    /// Changes carry the position of their transaction as a visibility token.
    pub tokens: bool,
    pub polls: usize,
    pub confirms: Vec<Confirm>,
    /// The stream fails once where this item would come.
    pub faults: BTreeMap<usize, Fault>,
    /// The stream that is open fails now.
    broken: Option<Fault>,
    pub lag: Option<u64>,
    wakers: Vec<Waker>,
}

#[derive(Clone)]
pub struct Source {
    log: Log,
    tables: Tables,
    pub script: Script,
    pub state: Arc<Mutex<State>>,
}

impl Source {
    pub fn new(log: &Log, tables: &Tables) -> Self {
        let state = State {
            stream: StreamId::new("stream").expect("it has a name"),
            items: Vec::new(),
            newest: 0,
            confirmed: 0,
            endless: false,
            tokens: false,
            polls: 0,
            confirms: Vec::new(),
            faults: BTreeMap::new(),
            broken: None,
            lag: None,
            wakers: Vec::new(),
        };
        Self {
            log: log.clone(),
            tables: tables.clone(),
            script: Script::default(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// Streams are pending after their last item, from now on.
    pub fn never_end(&self) {
        self.with(|state| state.endless = true);
    }

    /// Streams are over after their last item, from now on.
    pub fn end(&self) {
        self.with(|state| {
            state.endless = false;
            state.wakers.drain(..).for_each(Waker::wake);
        });
    }

    /// A transaction, which readers that wait are given: its position.
    pub fn push(&self, changes: Vec<Change>) -> u64 {
        self.with(|state| {
            let position = state.newest + 1;
            let token = state.tokens.then_some(Visibility(position));
            state.items.extend(
                changes.into_iter().map(|change| Captured::Change(Change { visibility: token, ..change })),
            );
            state.newest = position;
            state.items.push(Captured::Checkpoint(Position(position)));
            state.wakers.drain(..).for_each(Waker::wake);
            position
        })
    }

    /// A transaction that empties these tables, and changes rows behind that: its position.
    pub fn truncate(&self, tables: &[&str], changes: Vec<Change>) -> u64 {
        let truncation = Truncation::new(tables.iter().map(|table| super::table(table)));
        self.with(|state| {
            let token = state.tokens.then_some(Visibility(state.newest + 1));
            state.items.push(Captured::Truncate(Truncation { visibility: token, ..truncation }));
        });
        self.push(changes)
    }

    /// More is said to follow, and does not come yet.
    pub fn say_more(&self) {
        self.with(|state| {
            state.items.push(Captured::More);
            state.wakers.drain(..).for_each(Waker::wake);
        });
    }

    /// The position was lost, and with it everything that was captured: a new one was made, under another id.
    pub fn recreate(&self, stream: &str) {
        self.with(|state| {
            state.stream = StreamId::new(stream).expect("a test's stream has a name");
            state.items.clear();
            state.confirmed = state.newest;
        });
    }

    /// The stream that is open fails now.
    pub fn break_off(&self, fault: Fault) {
        self.with(|state| {
            state.broken = Some(fault);
            state.wakers.drain(..).for_each(Waker::wake);
        });
    }

    pub fn confirmed(&self) -> u64 {
        self.with(|state| state.confirmed)
    }

    pub fn newest(&self) -> u64 {
        self.with(|state| state.newest)
    }

    pub fn confirms(&self) -> Vec<Confirm> {
        self.with(|state| state.confirms.clone())
    }

    pub fn polls(&self) -> usize {
        self.with(|state| state.polls)
    }

    /// The changes before the position that is confirmed, and those after it.
    pub fn acknowledged_and_not(&self) -> (Vec<Change>, Vec<Change>) {
        self.with(|state| {
            let (acknowledged, others) = state.items.split_at(resume_at(&state.items, state.confirmed));
            let changes = |items: &[Captured]| {
                let changes = items.iter().filter_map(|item| match item {
                    Captured::Change(change) => Some(change.clone()),
                    Captured::Truncate(_) | Captured::Checkpoint(_) | Captured::More => None,
                });
                changes.collect()
            };
            (changes(acknowledged), changes(others))
        })
    }

    fn poll(&self, at: &mut usize, cx: &Context<'_>) -> Poll<Option<Result<Captured, Fault>>> {
        self.with(|state| {
            state.polls += 1;
            if let Some(fault) = state.broken.take().or_else(|| state.faults.remove(at)) {
                return Poll::Ready(Some(Err(fault)));
            }
            match state.items.get(*at) {
                Some(item) => {
                    *at += 1;
                    Poll::Ready(Some(Ok(item.clone())))
                }
                None if state.endless => {
                    state.wakers.push(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        })
    }
}

fn resume_at(items: &[Captured], confirmed: u64) -> usize {
    let resumes = |item: &Captured| matches!(item, Captured::Checkpoint(at) if at.0 <= confirmed);
    items.iter().rposition(resumes).map_or(0, |at| at + 1)
}

impl ChangeCapture for Source {
    async fn prepare(&self, _needs: &[TableNeeds]) -> Result<(), Fault> {
        end((), self.script.play("prepare").await?)
    }

    async fn open(&self) -> Result<Opened, Fault> {
        self.log.say(Port::Source, "open");
        let fault = self.script.play("open").await?;
        let (stream, mut at) =
            self.with(|state| (state.stream.clone(), resume_at(&state.items, state.confirmed)));
        let source = self.clone();
        let changes: ChangeStream = Box::pin(stream::poll_fn(move |cx| source.poll(&mut at, cx)));
        end(Opened { stream, changes }, fault)
    }

    async fn confirm(&self, stream: &StreamId, position: Position) -> Result<(), Fault> {
        self.log.say(Port::Source, format!("confirm {}", position.0));
        let confirm = Confirm {
            position: position.0,
            flushes_asked: self.log.flushes_asked(),
            flushes_done: self.log.flushes_done(),
        };
        self.with(|state| state.confirms.push(confirm));
        let fault = self.script.play("confirm").await?;
        self.with(|state| {
            if state.stream != *stream {
                return Err(Fault::transient("no such position"));
            }
            state.confirmed = state.confirmed.max(position.0);
            end((), fault)
        })
    }

    async fn snapshot(&self, table: &SnapshotTable, after: Option<&Key>) -> Result<KeyStream, Fault> {
        let from = after.map_or_else(|| "the start".to_owned(), |key| format!("{key:?}"));
        self.log.say(Port::Source, format!("snapshot {} after {from}", table.table));
        let fault = self.script.play("snapshot").await?;
        let (source, name) = (self.clone(), table.table.clone());
        // Each row is looked up when its turn comes: the table changes while it is read.
        let rows = stream::try_unfold(after.cloned(), move |last| {
            let (source, name) = (source.clone(), name.clone());
            async move {
                if let Act::Fail(fault) = source.script.take("row") {
                    return Err(fault);
                }
                let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let tables = lock(&source.tables);
                let next = tables.get(&name).and_then(|rows| rows.range((from, Bound::Unbounded)).next());
                Ok(next.map(|(key, _)| (key.clone(), Some(key.clone()))))
            }
        });
        end(Box::pin(rows), fault)
    }

    async fn lag(&self) -> Result<Option<u64>, Fault> {
        let fault = self.script.play("lag").await?;
        end(self.with(|state| state.lag), fault)
    }
}
