//! Any events at all, from a driver and edges that keep no contract: calls that were never made, answers that do not fit,
//! lists that are too long, ids that were not asked for, time that goes back or ends.
//!
//! Nothing panics; every invariant holds after every event; what is refused as misuse changes nothing; what is held, and
//! what comes out at once, stays within the stated limits; only what was captured is acknowledged. And whatever came
//! before, a run that is drained ends.

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use syncline::change::Changes;
use syncline::pipeline::{CallId, Command, Event, Misuse, Phase, Pipeline};
use syncline::time::Instant;
use syncline::{Config, Lane, Position, StreamId};

mod answer;
mod config;
mod raw;

use raw::{Case, Step, When};

/// What documents are made of here.
type Body = u8;

/// More steps meet nothing that fewer do not.
const MOST_STEPS: usize = 300;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let Ok(case) = Case::arbitrary(&mut bytes) else { return };
    let Ok(steps) = bytes.arbitrary_iter::<Step>() else { return };
    let mut world = World::new(case.config());
    for step in steps.take(MOST_STEPS).flatten() {
        if world.has_finished {
            break;
        }
        let event = match step.what {
            raw::What::Answer(at, how) => match world.pick(at) {
                Some(command) => answer::to(&command, how),
                None => continue,
            },
            raw::What::Event(event) => event.build(&world.calls(), world.newest),
        };
        world.pass(step.when);
        world.handle(event);
    }
    world.end();
}

/// The pipeline, and what it has asked for.
struct World {
    pipeline: Pipeline<Body>,
    config: Config,
    now: Instant,
    /// Calls that are not answered, oldest first.
    open: Vec<Command<Body>>,
    /// What was to be resolved by calls that failed or were given up: they may be made again at any time.
    unresolved: Vec<Changes>,
    /// The newest call.
    made: u64,
    stream: Option<StreamId>,
    /// The checkpoints that were captured of this stream.
    checkpoints: BTreeSet<Position>,
    newest: Position,
    acknowledged: Option<Position>,
    /// The documents that the quarantine held.
    retrials: usize,
    has_finished: bool,
}

impl World {
    fn new(config: Config) -> Self {
        let now = Instant::from_millis(1000);
        let pipeline = Pipeline::new(config.clone(), now).expect("its limits do not contradict each other");
        let mut world = Self {
            pipeline,
            config,
            now,
            open: Vec::new(),
            unresolved: Vec::new(),
            made: 0,
            stream: None,
            checkpoints: BTreeSet::new(),
            newest: Position(0),
            acknowledged: None,
            retrials: 0,
            has_finished: false,
        };
        world.poll(0);
        world
    }

    /// An open call, which stays open: the answer may not fit it.
    fn pick(&self, at: u8) -> Option<Command<Body>> {
        let at = usize::from(at).checked_rem(self.open.len())?;
        Some(self.open[at].clone())
    }

    /// The calls that are open, oldest first.
    fn calls(&self) -> Vec<CallId> {
        self.open.iter().filter_map(Command::call).collect()
    }

    /// Time passes before the next event, forward or back.
    fn pass(&mut self, when: When) {
        self.now = match when {
            When::Now => self.now,
            When::Later(micros) => self.now.after(Duration::from_micros(micros.into())),
            When::Deadline => self.pipeline.poll_timeout().map_or(self.now, |(at, _)| at.max(self.now)),
            When::Back(nanos) => Instant::from_nanos(self.now.as_nanos().saturating_sub(nanos.into())),
            When::End => Instant::from_nanos(u64::MAX),
        };
    }

    fn handle(&mut self, event: Event<Body>) {
        let before = self.pipeline.clone();
        let weight = raw::weight(&event);
        match self.pipeline.handle(self.now, event.clone()) {
            Err(misuse) => {
                assert_eq!(before, self.pipeline, "{misuse}: the state changed with {event:?}");
                if let Misuse::TimeWentBack { last, .. } = misuse {
                    self.now = last;
                }
            }
            Ok(()) => {
                self.note(&event);
                let held = before.status().dirty + before.status().in_flight;
                self.poll(weight + held);
            }
        }
        self.pipeline.check_invariants();
        self.check_limits();
    }

    /// What an event that was taken tells of the outside.
    fn note(&mut self, event: &Event<Body>) {
        match event {
            Event::Opened { call, result: Ok(stream) } if self.is_open(*call) => {
                if self.stream.replace(stream.clone()).as_ref() != Some(stream) {
                    self.checkpoints.clear();
                    self.acknowledged = None;
                }
                self.newest = Position(0);
            }
            Event::Captured { items, .. } => {
                let checkpoints = items.checkpoints();
                self.newest = checkpoints.last().map_or(self.newest, |(_, position)| *position);
                self.checkpoints.extend(checkpoints.into_iter().map(|(_, position)| position));
            }
            Event::QuarantineLoaded { call, result: Ok(ids) } if self.is_open(*call) => {
                self.retrials = ids.len();
            }
            _ => {}
        }
        match raw::call(event) {
            Some(call) if matches!(event, Event::Resolved { result: Err(_), .. }) => self.give_up(call),
            Some(call) if !matches!(event, Event::Scanned { .. }) => {
                self.open.retain(|open| open.call() != Some(call));
            }
            _ => {}
        }
    }

    /// A call has failed, or nobody waits for it any more.
    fn give_up(&mut self, call: CallId) {
        for given_up in self.open.extract_if(.., |open| open.call() == Some(call)) {
            if let Command::Resolve { changes, .. } = given_up {
                self.unresolved.push(changes);
            }
        }
    }

    fn is_open(&self, call: CallId) -> bool {
        self.open.iter().any(|open| open.call() == Some(call))
    }

    /// Takes every command. `weight` is what the event carried and the pipeline held.
    fn poll(&mut self, weight: usize) {
        let most = 64 + 4 * (weight + self.open.len() + self.config.limits.changes);
        let mut resolves = 0;
        let mut count = 0;
        while let Some(command) = self.pipeline.poll_command() {
            assert!(!self.has_finished, "{command:?} follows the end of the run");
            count += 1;
            assert!(count <= most, "one event has more than {most} commands");
            if let Some(CallId(call)) = command.call() {
                assert!(call > self.made, "call {call} was made before");
                self.made = call;
            }
            match &command {
                Command::Ack { stream, position, .. } => self.acknowledge(stream, *position),
                Command::Build { ids, .. } => {
                    let distinct: BTreeSet<_> = ids.iter().collect();
                    assert!(!ids.is_empty() && distinct.len() == ids.len(), "{command:?}");
                    assert!(ids.len() <= self.config.batch.max_documents, "B11: {command:?}");
                }
                Command::Flush { writes, .. } => assert!(!writes.is_empty(), "{command:?}"),
                Command::Resolve { changes, .. } => {
                    match self.unresolved.iter().position(|again| again == changes) {
                        Some(at) => drop(self.unresolved.remove(at)),
                        None => resolves += 1,
                    }
                    let most = self.config.limits.resolve_changes;
                    assert!(!changes.is_empty() && changes.len() <= most, "B11: {command:?}");
                }
                Command::Abandon { call } => self.give_up(*call),
                Command::Finish(_) => self.has_finished = true,
                _ => {}
            }
            if command.call().is_some() {
                self.open.push(command);
            }
        }
        if resolves > 0 {
            self.check_gate();
        }
        assert!(self.pipeline.poll_timeout().is_none_or(|(at, _)| at >= self.now), "a deadline has passed");
    }

    fn acknowledge(&mut self, stream: &StreamId, position: Position) {
        assert_eq!(self.stream.as_ref(), Some(stream), "B2: another stream is acknowledged");
        assert!(self.checkpoints.contains(&position), "B1: {position} was never captured");
        assert!(self.acknowledged <= Some(position), "B1: {position} goes back");
        self.acknowledged = Some(position);
    }

    /// Nothing was resolved at the dirty limit or above it. Rows and what stood in quarantine have limits of their own.
    fn check_gate(&self) {
        let (status, limits) = (self.pipeline.status(), self.config.limits);
        let beside = limits.backfill_rows.max(status.indexes.len()) + self.retrials;
        let dirty = status.dirty + status.in_flight;
        assert!(dirty < limits.documents + beside, "B11: {dirty} documents are dirty, and more are resolved");
    }

    fn check_limits(&self) {
        let limits = self.config.limits;
        let open = |which: fn(&Command<Body>) -> bool| self.open.iter().filter(|open| which(open)).count();
        assert!(self.pipeline.capacity(Lane::Live) <= limits.changes, "A13: room for too many changes");
        let status = self.pipeline.status();
        assert!(status.captured - status.durable <= limits.changes as u64, "B11: too many changes are owed");
        let most = limits.backfill_rows.max(status.indexes.len());
        assert!(self.pipeline.capacity(Lane::Backfill) <= most, "B11: room for too many rows");
        assert!(open(|open| matches!(open, Command::Resolve { .. })) <= limits.resolves, "B11: resolves");
        assert!(open(|open| matches!(open, Command::Build { .. })) <= limits.builds, "B11: builds");
        assert!(open(|open| matches!(open, Command::Flush { .. })) <= limits.flushes, "B11: flushes");
    }

    /// The run is drained, and from now on every call is answered as it was asked.
    fn end(mut self) {
        self.handle(Event::Drain { deadline: self.now.after(Duration::from_secs(3600)) });
        let held = self.pipeline.status();
        let mut patience = 1000 + 50 * (held.dirty + held.in_flight + self.config.limits.changes);
        while !self.has_finished {
            assert!(patience > 0, "a run that is drained does not end: {:?}", self.open);
            patience -= 1;
            match self.open.iter().find(|open| !matches!(open, Command::Scan { .. })).cloned() {
                Some(command) => self.handle(answer::right(&command)),
                None => {
                    let (at, _) =
                        self.pipeline.poll_timeout().expect("a run that has not ended waits for something");
                    self.now = at.max(self.now);
                    self.handle(Event::Elapsed);
                }
            }
        }
        assert_eq!(self.pipeline.status().phase, Phase::Ended);
        self.handle(Event::Elapsed);
    }
}
