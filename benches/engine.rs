//! What the engine itself costs a change: the pipeline alone, and the engine over edges that do nothing, beside a floor in
//! the same run: the same changes through a vector and one hash set a unit, on one thread.
//!
//! `cargo bench --bench engine` prints times and allocations a run, and then the ratios to the floor. The edges do
//! nothing, but they must answer: a change's document id, and a body for it, are theirs.

#![allow(missing_docs, reason = "a benchmark has no readers of its documentation")]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(clippy::disallowed_types, reason = "the floor is what anyone would write; its order never shows")]

use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use futures::stream;
use syncline::pipeline::{Command, Event, Pipeline, Then};
use syncline::ports::{Opened, Resolved};
use syncline::time::Instant;
use syncline::{
    BatchPolicy, Built, Captured, Captures, Change, ChangeCapture, Config, Document, DocumentBuilder,
    DocumentId, Engine, Epoch, Fault, FlushReport, IndexName, Lane, Position, Sink, StreamId, TableName,
    Visibility, Writes,
};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const SIZES: [u64; 3] = [100_000, 1_000_000, 10_000_000];
const UNIT: usize = 1024;

fn main() {
    divan::main();
    ratios();
}

fn table() -> TableName {
    TableName::new("users").expect("a name")
}

fn index() -> IndexName {
    IndexName::new("users").expect("a name")
}

/// Transactions of a hundred rows, each of another document.
fn source(changes: u64) -> impl Iterator<Item = Captured> + Send {
    let table = table();
    (0..changes).flat_map(move |at| {
        let change = Captured::Change(Change::upsert(table.clone(), at as i64));
        let commit = (at % 100 == 99 || at + 1 == changes).then_some(Captured::Checkpoint(Position(at + 1)));
        [Some(change), commit].into_iter().flatten()
    })
}

/// The floor: a vector of changes, and a hash set of documents, for each unit.
fn floor(changes: u64) -> usize {
    let index = index();
    let mut unit: Vec<Change> = Vec::with_capacity(UNIT);
    let mut documents: HashSet<DocumentId> = HashSet::with_capacity(UNIT);
    let mut written = 0;
    for item in source(changes) {
        let Captured::Change(change) = item else { continue };
        unit.push(change);
        if unit.len() == UNIT {
            documents.extend(unit.drain(..).map(|change| DocumentId::new(index.clone(), change.key)));
            written += black_box(documents.drain()).count();
        }
    }
    documents.extend(unit.drain(..).map(|change| DocumentId::new(index.clone(), change.key)));
    written + documents.drain().count()
}

fn config() -> Config {
    let batch = BatchPolicy { max_changes: UNIT, max_delay: Duration::ZERO, ..BatchPolicy::default() };
    Config { batch, ..Config::default() }
}

/// The pipeline, each command answered at once.
fn pipeline(changes: u64) -> u64 {
    let now = Instant::ORIGIN;
    let index = index();
    let mut pipeline: Pipeline<()> = Pipeline::new(config(), now).expect("a configuration");
    let mut source = source(changes);
    let mut ended = false;
    loop {
        let mut events = Vec::new();
        while let Some(command) = pipeline.poll_command() {
            match command {
                Command::Begin { call } => events.push(Event::Begun { call, result: Ok((Epoch(1), 1)) }),
                Command::Describe { call } => {
                    events.push(Event::Described { call, result: Ok((Vec::new(), Vec::new())) });
                }
                Command::Open { call } => {
                    let stream = StreamId::new("bench").expect("a name");
                    events.push(Event::Opened { call, result: Ok(stream) });
                }
                Command::Resolve { call, changes } => {
                    let mut resolved = Resolved::with_capacity(changes.len());
                    for change in changes.iter() {
                        resolved.push([DocumentId::new(index.clone(), change.key.clone())]);
                    }
                    events.push(Event::Resolved { call, result: Ok(resolved) });
                }
                Command::Build { call, ids, .. } => {
                    let built = ids.iter().map(|id| Ok(Document::upsert(id.clone(), ()))).collect();
                    events.push(Event::Built { call, result: Ok(built), bytes: Vec::new() });
                }
                Command::Flush { call, .. } => {
                    events.push(Event::Flushed { call, result: Ok(FlushReport::clean()) });
                }
                Command::ReadLag { call } => events.push(Event::LagRead { call, result: Ok(None) }),
                Command::Finish(outcome) => return outcome.expect("a run without faults").captured,
                command => events.extend(command.call().map(|call| Event::Done { call, result: Ok(()) })),
            }
        }
        let room = pipeline.capacity(Lane::Live);
        if room > 0 && !ended {
            let mut items = Captures::with_capacity(room);
            while items.changes().len() < room && !ended {
                match source.next() {
                    Some(item) => items.push(item),
                    None => ended = true,
                }
            }
            let then = if ended { Then::End } else { Then::More };
            events.push(Event::Captured { items, then });
        }
        for event in events {
            pipeline.handle(now, event).expect("the contract is kept");
        }
    }
}

struct Changes(u64);

impl ChangeCapture for Changes {
    async fn open(&self) -> Result<Opened, Fault> {
        let changes = stream::iter(source(self.0).map(Ok));
        Ok(Opened { stream: StreamId::new("bench")?, changes: Box::pin(changes) })
    }
}

struct Documents(IndexName);

impl DocumentBuilder for Documents {
    type Body = ();

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        Ok(vec![DocumentId::new(self.0.clone(), change.key.clone())])
    }

    async fn resolve_many(&self, changes: &[Change]) -> Result<Resolved, Fault> {
        let mut resolved = Resolved::with_capacity(changes.len());
        for change in changes {
            resolved.push([DocumentId::new(self.0.clone(), change.key.clone())]);
        }
        Ok(resolved)
    }

    async fn build(&self, id: &DocumentId) -> Result<Document<()>, Fault> {
        Ok(Document::upsert(id.clone(), ()))
    }

    async fn build_many(
        &self,
        ids: &[DocumentId],
        _visibility: Option<Visibility>,
    ) -> Result<Vec<Built<()>>, Fault> {
        Ok(ids.iter().map(|id| Ok(Document::upsert(id.clone(), ()))).collect())
    }
}

struct Nothing;

impl Sink for Nothing {
    type Body = ();

    async fn flush(&self, _writes: &Writes<()>, _caught_up: bool) -> Result<FlushReport, Fault> {
        Ok(FlushReport::clean())
    }
}

fn engine(changes: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let engine = Engine::new(Changes(changes), Documents(index()), Nothing).with_batch(config().batch);
    let report = runtime.block_on(engine.run()).expect("a run without faults");
    assert_eq!((report.captured, report.unacknowledged), (changes, 0));
    report.captured
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn a_floor(bencher: Bencher, changes: u64) {
    bencher.counter(ItemsCount::new(changes)).bench(|| floor(black_box(changes)));
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn b_pipeline(bencher: Bencher, changes: u64) {
    bencher.counter(ItemsCount::new(changes)).bench(|| pipeline(black_box(changes)));
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn c_engine(bencher: Bencher, changes: u64) {
    bencher.counter(ItemsCount::new(changes)).bench(|| engine(black_box(changes)));
}

/// Each size in turn through all three, several times; the median of the ratios.
fn ratios() {
    // Where only some are to be run, or none, there is nothing to compare.
    if std::env::args().skip(1).any(|argument| argument != "--bench") {
        return;
    }
    println!("\n{:>12} {:>14} {:>18} {:>18}", "changes", "floor", "pipeline / floor", "engine / floor");
    for changes in SIZES {
        let (mut rates, mut pipelines, mut engines) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let floor = seconds(|| floor(changes) as u64);
            rates.push(changes as f64 / floor);
            pipelines.push(seconds(|| pipeline(changes)) / floor);
            engines.push(seconds(|| engine(changes)) / floor);
        }
        let (floor, pipeline, engine) = (median(rates), median(pipelines), median(engines));
        println!("{changes:>12} {:>10.2} M/s {pipeline:>18.2} {engine:>18.2}", floor / 1e6);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn seconds(work: impl FnOnce() -> u64) -> f64 {
    let start = std::time::Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}
