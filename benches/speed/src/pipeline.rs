//! The pipeline alone: no driver, and each command is answered at once.

use syncline::pipeline::{Command, Event, Pipeline, Then};
use syncline::ports::Resolved;
use syncline::time::Instant;
use syncline::{Captures, Config, Document, DocumentId, Epoch, FlushReport, Lane, StreamId};

use crate::contestant::{Contestant, Outcome};
use crate::engine::{batch, index, source};
use crate::scenarios::Scenario;
use crate::work::Work;

/// Syncline's pipeline without its driver.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Contestant for Alone {
    fn name(&self) -> &'static str {
        "its pipeline alone"
    }

    fn rounds(&self, Scenario { work, .. }: &Scenario, wanted: usize) -> usize {
        if work.is_busy() && work.documents_per_change == 1 { wanted } else { 0 }
    }

    fn run(&self, Scenario { work, .. }: &Scenario) -> Outcome {
        assert_eq!(run(work), work.changes);
        Outcome::default()
    }
}

fn run(work: &Work) -> u64 {
    let now = Instant::ORIGIN;
    let index = index();
    let config = Config { batch: batch(work), ..Config::default() };
    let mut pipeline: Pipeline<()> = Pipeline::new(config, now).expect("a configuration");
    let mut source = source(work);
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
