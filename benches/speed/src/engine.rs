//! Syncline over edges that do nothing, or sleep.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::{self, StreamExt};
use syncline::ports::{KeyStream, Opened, Resolved};
use syncline::row::Key;
use syncline::{
    BatchPolicy, Built, Captured, Change, ChangeCapture, Document, DocumentBuilder, DocumentId, Engine,
    Fault, FlushReport, IndexName, IndexScope, Limits, Position, Seed, Sink, SnapshotTable, StreamId,
    TableName, Value, Visibility, Writes,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::contestant::{Contestant, Outcome};
use crate::live::{Latencies, Writer};
use crate::scenarios::Scenario;
use crate::work::{Pace, Work, take};

/// How many flushes the sink of a backfill takes at once, and with it how many the engine makes: while one unit of rows is
/// flushed, one of live changes need not wait for it.
const FLUSHES: usize = 2;

/// Syncline, allowed so many flushes at once, where the sink serves only some.
#[derive(Debug, Clone, Copy)]
pub struct Flushing {
    /// Its name in the table.
    pub name: &'static str,
    /// [`Limits::flushes`].
    pub flushes: usize,
    /// [`Limits::adaptive`].
    pub adaptive: bool,
}

/// What there is of it: as many flushes as the sink serves, which one has to know; too many; and so many at the most, found by trying.
pub const FLUSHING: [Flushing; 3] = [
    Flushing { name: "Syncline, 4 flushes", flushes: 4, adaptive: false },
    Flushing { name: "Syncline, 16 flushes", flushes: 16, adaptive: false },
    Flushing { name: "Syncline, adaptive", flushes: 16, adaptive: true },
];

impl Contestant for Flushing {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rounds(&self, scenario: &Scenario, wanted: usize) -> usize {
        if scenario.work.serves.is_some() { wanted } else { 0 }
    }

    fn run(&self, Scenario { work, .. }: &Scenario) -> Outcome {
        let (flushes, adaptive) = (self.flushes, self.adaptive);
        let limits = Limits { flushes, builds: 4, units: flushes + 4, adaptive, ..Limits::default() };
        run::<()>(work, limits).into()
    }
}

/// Syncline, on one thread.
#[derive(Debug, Clone, Copy)]
pub struct Syncline;

impl Contestant for Syncline {
    fn name(&self) -> &'static str {
        "Syncline"
    }

    fn run(&self, Scenario { work, .. }: &Scenario) -> Outcome {
        let limits = Limits { flushes: if work.is_paced() { FLUSHES } else { 1 }, ..Limits::default() };
        let latencies = match work.body_bytes {
            0 => run::<()>(work, limits),
            _ => run::<Box<[u8]>>(work, limits),
        };
        latencies.into()
    }

    fn edges(&self, Scenario { work, .. }: &Scenario) -> bool {
        match work.body_bytes {
            0 => edges::<()>(work),
            _ => edges::<Box<[u8]>>(work),
        }
        true
    }
}

/// A runtime on this thread alone.
///
/// # Panics
///
/// Where there can be none.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// The changes of some work, in transactions.
pub fn source(work: &Work) -> impl Iterator<Item = Captured> + Send + use<> {
    let table = table();
    let work = work.clone();
    (0..).zip(work.rows_changed()).flat_map(move |(at, row)| {
        let change = Captured::Change(Change::upsert(table.clone(), row));
        let commit = work.commits_at(at).then_some(Captured::Checkpoint(Position(at + 1)));
        [Some(change), commit].into_iter().flatten()
    })
}

fn table() -> TableName {
    TableName::new("users").expect("a name")
}

/// The index of all documents.
pub(crate) fn index() -> IndexName {
    IndexName::new("users").expect("a name")
}

/// How the work is to be grouped.
#[must_use]
pub fn batch(work: &Work) -> BatchPolicy {
    BatchPolicy {
        max_changes: work.unit,
        max_documents: work.unit_documents,
        max_delay: work.max_delay,
        ..BatchPolicy::default()
    }
}

fn run<B: Body>(work: &Work, limits: Limits) -> Latencies {
    let writer = match work.pace {
        Pace::AtOnce | Pace::Real => None,
        Pace::Every(every) => Some(Arc::new(Writer::start(every, work.changes, work.is_seeded()))),
    };
    let capture = Capture { work: work.clone(), writer: writer.clone() };
    let documents = Documents::<B> { work: work.clone(), index: index(), bodies: PhantomData };
    let sink = Nowhere::<B> {
        work: work.clone(),
        writer: writer.clone(),
        flushes: limits.flushes,
        serving: work.serves.map(Semaphore::new),
        waiting: AtomicUsize::new(0),
        bodies: PhantomData,
    };
    let engine = Engine::new(capture, documents, sink).with_batch(batch(work)).with_limits(limits);
    let report = runtime().block_on(engine.run()).expect("a run without faults");
    assert_eq!(report.unacknowledged, 0);
    match writer {
        None => {
            assert_eq!(report.captured, work.changes);
            Latencies::new()
        }
        Some(writer) => writer.latencies(),
    }
}

fn edges<B: Body>(work: &Work) {
    let documents = Documents::<B> { work: work.clone(), index: index(), bodies: PhantomData };
    let changes = source(work).filter_map(|item| match item {
        Captured::Change(change) => Some(change),
        _ => None,
    });
    let mut changes = changes.peekable();
    runtime().block_on(async {
        while changes.peek().is_some() {
            let unit: Vec<Change> = changes.by_ref().take(work.unit).collect();
            let resolved = documents.resolve_many(&unit).await.expect("no fault");
            assert_eq!(resolved.len(), unit.len());
            let ids = unit.iter().flat_map(|change| documents.touched(change)).collect::<Vec<_>>();
            let built = documents.build_many(&ids, None).await.expect("no fault");
            assert_eq!(built.len(), ids.len());
        }
    });
}

/// What a document is made of.
trait Body: Send + Sync + 'static {
    fn of(bytes: usize) -> Self;
    fn bytes(&self) -> usize;
}

impl Body for () {
    fn of(_: usize) {}

    fn bytes(&self) -> usize {
        0
    }
}

impl Body for Box<[u8]> {
    fn of(bytes: usize) -> Self {
        vec![b'x'; bytes].into()
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

struct Capture {
    work: Work,
    writer: Option<Arc<Writer>>,
}

impl ChangeCapture for Capture {
    async fn open(&self) -> Result<Opened, Fault> {
        let stream = StreamId::new("bench")?;
        let Some(writer) = &self.writer else {
            return Ok(Opened { stream, changes: Box::pin(stream::iter(source(&self.work).map(Ok))) });
        };
        let (table, first) = (table(), self.work.rows);
        let changes = writer.changes().flat_map(move |at| {
            let change = Change::upsert(table.clone(), (first + at) as i64);
            stream::iter([Ok(change.into()), Ok(Position(at + 1).into())])
        });
        Ok(Opened { stream, changes: Box::pin(changes) })
    }

    async fn confirm(&self, _stream: &StreamId, position: Position) -> Result<(), Fault> {
        if let Some(writer) = &self.writer {
            writer.acknowledged(position.0);
        }
        Ok(())
    }

    async fn snapshot(&self, _table: &SnapshotTable, after: Option<&Key>) -> Result<KeyStream, Fault> {
        assert!(after.is_none(), "the sink has no cursor");
        let rows = 0..self.work.rows as i64;
        Ok(Box::pin(stream::iter(rows.map(|row| Ok(Key::single(row))))))
    }
}

struct Documents<B> {
    work: Work,
    index: IndexName,
    bodies: PhantomData<fn() -> B>,
}

impl<B: Body> Documents<B> {
    fn touched(&self, change: &Change) -> impl Iterator<Item = DocumentId> {
        let all = match change.key.values() {
            [Value::Int(row)] => self.work.documents_of(*row),
            _ => 0..0,
        };
        all.map(|id| DocumentId::new(self.index.clone(), id))
    }
}

impl<B: Body> DocumentBuilder for Documents<B> {
    type Body = B;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        take(self.work.calls.resolve).await;
        Ok(self.touched(change).collect())
    }

    async fn resolve_many(&self, changes: &[Change]) -> Result<Resolved, Fault> {
        take(self.work.calls.resolve).await;
        let mut resolved = Resolved::with_capacity(changes.len());
        for change in changes {
            if self.work.documents_per_change == 1 {
                resolved.push([DocumentId::new(self.index.clone(), change.key.clone())]);
            } else {
                resolved.push(self.touched(change));
            }
        }
        Ok(resolved)
    }

    async fn build(&self, id: &DocumentId) -> Result<Document<B>, Fault> {
        Ok(Document::upsert(id.clone(), B::of(self.work.body_bytes)))
    }

    async fn build_many(
        &self,
        ids: &[DocumentId],
        _visibility: Option<Visibility>,
    ) -> Result<Vec<Built<B>>, Fault> {
        take(self.work.calls.build).await;
        let body = || B::of(self.work.body_bytes);
        Ok(ids.iter().map(|id| Ok(Document::upsert(id.clone(), body()))).collect())
    }

    fn body_bytes(&self, body: &B) -> usize {
        body.bytes()
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        match self.work.is_seeded() {
            true => vec![IndexScope::new(self.index.clone(), SnapshotTable::new(table()))],
            false => Vec::new(),
        }
    }
}

struct Nowhere<B> {
    work: Work,
    writer: Option<Arc<Writer>>,
    flushes: usize,
    serving: Option<Semaphore>,
    waiting: AtomicUsize,
    bodies: PhantomData<fn() -> B>,
}

impl<B: Body> Sink for Nowhere<B> {
    type Body = B;

    fn concurrency(&self) -> usize {
        self.flushes
    }

    async fn flush(&self, writes: &Writes<B>, _caught_up: bool) -> Result<FlushReport, Fault> {
        let served = match (&self.serving, self.work.serves) {
            (Some(serving), Some(serves)) => {
                if self.waiting.fetch_add(1, Ordering::Relaxed) >= 3 * serves {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    let throttled = writes.iter().map(|write| write.document.id.clone()).collect();
                    return Ok(FlushReport { throttled, ..FlushReport::clean() });
                }
                Some(serving.acquire().await.map_err(|error| Fault::fatal(error.to_string()))?)
            }
            _ => None,
        };
        take(self.work.calls.flush_of(writes.len())).await;
        if served.is_some() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(FlushReport::clean())
    }

    async fn mark_seeded(&self, _index: &IndexName, _seed: &Seed) -> Result<(), Fault> {
        if let Some(writer) = &self.writer {
            writer.seeded();
        }
        Ok(())
    }
}
