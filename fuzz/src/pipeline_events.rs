//! Any events at all, from a driver and edges that keep no contract: calls that were never made, answers that do not fit,
//! lists that are too long, ids that were not asked for, time that goes back or ends.
//!
//! Nothing panics; every invariant holds after every event; what is refused as misuse changes nothing; what is held, and
//! what comes out at once, stays within the stated limits; only what was captured is acknowledged; what a comparison
//! tells was asked for, and told by the sink. And whatever came before, a run that is drained ends.

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use syncline::change::Changes;
use syncline::pipeline::{CallId, Command, Event, Misuse, Notice, Phase, Pipeline, Then, Verified};
use syncline::time::Instant;
use syncline::{Config, DocumentId, Fault, IndexName, Key, Lane, Position, StreamId};

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
                Some(command) => world.answer(&command, how),
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
    /// Calls that are not answered, oldest first, and the snapshot that is being read, after its last row.
    open: Vec<Command<Body>>,
    /// The snapshot that was opened last.
    snapshot: Option<CallId>,
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
    /// The indexes that were asked to be compared.
    to_verify: BTreeSet<IndexName>,
    /// Documents of which a sink has told that they differ.
    different: BTreeSet<DocumentId>,
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
            snapshot: None,
            unresolved: Vec::new(),
            made: 0,
            stream: None,
            checkpoints: BTreeSet::new(),
            newest: Position(0),
            acknowledged: None,
            retrials: 0,
            to_verify: BTreeSet::new(),
            different: BTreeSet::new(),
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

    fn answer(&self, command: &Command<Body>, how: answer::How) -> Event<Body> {
        match command {
            Command::Scan { call, after, .. } if self.snapshot == Some(*call) => {
                answer::rows(*call, after.as_ref(), self.pipeline.capacity(Lane::Backfill), how)
            }
            _ => answer::to(command, how),
        }
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
            Event::Opened { call, result: Ok(stream) }
                if self.awaits(*call, |open| matches!(open, Command::Open { .. })) =>
            {
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
            Event::QuarantineLoaded { call, result: Ok(ids) }
                if self.awaits(*call, |open| matches!(open, Command::LoadQuarantine { .. })) =>
            {
                self.retrials = ids.len();
            }
            Event::Compared { call, result }
                if self.awaits(*call, |open| matches!(open, Command::Compare { .. })) =>
            {
                self.note_compared(*call, result);
            }
            Event::Scanned { call, keys, .. } => self.read_on(*call, keys),
            Event::Done { call, result: Ok(()) } if self.is_scan(*call) => self.snapshot = Some(*call),
            Event::Verify { index } => drop(self.to_verify.insert(index.clone())),
            _ => {}
        }
        let ends_scan = matches!(event, Event::Scanned { then: Then::End, .. } | Event::ScanFailed { .. });
        match raw::call(event) {
            Some(call) if matches!(event, Event::Resolved { result: Err(_), .. }) => self.give_up(call),
            Some(call) if self.snapshot != Some(call) || ends_scan => {
                self.open.retain(|open| open.call() != Some(call));
            }
            _ => {}
        }
    }

    fn is_scan(&self, call: CallId) -> bool {
        self.open.iter().any(|open| matches!(open, Command::Scan { .. }) && open.call() == Some(call))
    }

    /// A snapshot has given its rows up to the last of these.
    fn read_on(&mut self, snapshot: CallId, keys: &[Key]) {
        let scan = self.open.iter_mut().find(|open| open.call() == Some(snapshot));
        if let (Some(Command::Scan { after, .. }), Some(last)) = (scan, keys.last()) {
            *after = Some(last.clone());
        }
    }

    /// A sink told which of these documents differ; that it cannot compare them stands for all.
    fn note_compared(&mut self, call: CallId, result: &Result<Vec<DocumentId>, Fault>) {
        match result {
            Ok(ids) => self.different.extend(ids.iter().cloned()),
            Err(_) => {
                let open = self.open.iter().find(|open| open.call() == Some(call));
                if let Some(Command::Compare { writes, .. }) = open {
                    self.different.extend(writes.iter().map(|write| write.document.id.clone()));
                }
            }
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

    /// Whether a call of such a kind is open. Any answer is given to any call.
    fn awaits(&self, call: CallId, of_kind: impl Fn(&Command<Body>) -> bool) -> bool {
        self.open.iter().any(|open| open.call() == Some(call) && of_kind(open))
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
                Command::Build { ids, .. } => self.check_documents(ids.iter(), &command),
                Command::Flush { writes, .. } | Command::Compare { writes, .. } => {
                    self.check_documents(writes.iter().map(|write| &write.document.id), &command);
                }
                Command::List { limit, .. } => {
                    let room = self.config.limits.backfill_rows.saturating_sub(self.rows_owed());
                    assert!(
                        (1..=room.max(1)).contains(limit),
                        "B11: {command:?}, and there is room for {room}"
                    );
                }
                Command::Resolve { changes, .. } => {
                    match self.unresolved.iter().position(|again| again == changes) {
                        Some(at) => drop(self.unresolved.remove(at)),
                        None => resolves += 1,
                    }
                    let most = self.config.limits.resolve_changes;
                    assert!(!changes.is_empty() && changes.len() <= most, "B11: {command:?}");
                }
                Command::Abandon { call } => self.give_up(*call),
                Command::Notify(Notice::Verified(verified)) => self.check_verified(verified),
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

    /// The documents of a call: some, each once, and not too many.
    fn check_documents<'a>(&self, ids: impl Iterator<Item = &'a DocumentId>, command: &Command<Body>) {
        let ids: Vec<_> = ids.collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert!(!ids.is_empty() && distinct.len() == ids.len(), "{command:?}");
        assert!(ids.len() <= self.config.batch.max_documents, "B11: {command:?}");
    }

    /// What a comparison found was asked for, was told by a sink, and is not more than was compared.
    fn check_verified(&mut self, verified: &Verified) {
        assert!(self.to_verify.remove(&verified.index), "nobody asked for {verified:?}");
        assert!(verified.different <= verified.compared, "{verified:?}");
        assert!(verified.documents.iter().all(|id| self.different.contains(id)), "{verified:?}");
        assert_eq!(verified.documents.len() as u64, verified.different.min(100), "{verified:?}");
    }

    fn acknowledge(&mut self, stream: &StreamId, position: Position) {
        assert_eq!(self.stream.as_ref(), Some(stream), "B2: another stream is acknowledged");
        assert!(self.checkpoints.contains(&position), "B1: {position} was never captured");
        assert!(self.acknowledged <= Some(position), "B1: {position} goes back");
        self.acknowledged = Some(position);
    }

    /// The rows, and the documents that a sink holds, that are owed.
    fn rows_owed(&self) -> usize {
        let indexes = self.pipeline.status().indexes;
        indexes.iter().map(|index| (index.rows_read - index.rows_durable) as usize).sum()
    }

    /// So many rows may be owed, whatever a sink has listed.
    fn most_rows(&self) -> usize {
        self.config.limits.backfill_rows.max(self.pipeline.status().indexes.len())
    }

    /// Nothing was resolved at the dirty limit or above it. Rows and what stood in quarantine have limits of their own.
    fn check_gate(&self) {
        let status = self.pipeline.status();
        let most = self.config.limits.documents + self.most_rows() + self.retrials;
        let dirty = status.dirty + status.in_flight;
        assert!(dirty < most, "B11: {dirty} documents are dirty, and more are resolved");
    }

    fn check_limits(&self) {
        let limits = self.config.limits;
        let open = |which: fn(&Command<Body>) -> bool| self.open.iter().filter(|open| which(open)).count();
        assert!(self.pipeline.capacity(Lane::Live) <= limits.changes, "A13: room for too many changes");
        let status = self.pipeline.status();
        assert!(status.captured - status.durable <= limits.changes as u64, "B11: too many changes are owed");
        let most = limits.backfill_rows.max(status.indexes.len());
        assert!(self.pipeline.capacity(Lane::Backfill) <= most, "B11: room for too many rows");
        assert!(self.rows_owed() <= self.most_rows(), "B11: too many rows are owed");
        assert!(open(|open| matches!(open, Command::Resolve { .. })) <= limits.resolves, "B11: resolves");
        assert!(open(|open| matches!(open, Command::Build { .. })) <= limits.builds, "B11: builds");
        let of_the_sink =
            |open: &Command<Body>| matches!(open, Command::Flush { .. } | Command::Compare { .. });
        assert!(open(of_the_sink) <= limits.flushes, "B11: flushes and comparisons");
        let reads = |open: &Command<Body>| matches!(open, Command::List { .. } | Command::Scan { .. });
        let most = usize::from(matches!(status.phase, Phase::Starting | Phase::Running));
        assert!(open(reads) <= most, "B11: a scan or a list beside another, or at the end: {:?}", self.open);
        for open in &self.open {
            let Command::List { index, .. } = open else { continue };
            let mut verifying = status.indexes.iter().filter(|index| index.verifying);
            assert!(verifying.any(|verifying| verifying.index == *index), "{open:?} is made for nobody");
        }
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
