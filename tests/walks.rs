//! Random walks: the pipeline in a small world, with every kind of answer, crashes and lost streams, by seed.
//!
//! The world knows what the engine does not: every row, every document that a sink holds, and which transactions were
//! confirmed. After each step: whatever is confirmed is reflected by the sink, and no document goes back in time. When the
//! faults stop the run must come to its end, and the sink must equal the rows.
//!
//! `WALKS=from..to cargo test --test walks` walks other seeds; `TRACE=1` beside it, with `-- --nocapture`, prints every
//! event and command.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "all of it is a test")]

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use random::Random;
use syncline::document::Writes;
use syncline::pipeline::{Command, Event, Notice, Pipeline, Then};
use syncline::ports::{CuredDocument, FailedDocument, IndexScope, Resolved};
use syncline::time::Instant;
use syncline::{
    Captured, Captures, Change, Config, Content, Document, DocumentId, Epoch, FailurePolicies, FailurePolicy,
    Fault, FlushReport, IndexMapping, IndexName, Key, Lane, Position, RejectedDocument, Seed, SeedState,
    SnapshotTable, StreamId, TableName, Version,
};

type Body = u64;

/// What a document is at one time: its row's value, or nothing. Times only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    time: u64,
    value: Option<Body>,
}

#[derive(Default)]
struct Held {
    documents: BTreeMap<DocumentId, (State, Version)>,
    seeds: BTreeMap<IndexName, (Seed, SeedState)>,
    epoch: u64,
}

struct World {
    random: Random,
    faults: u64,
    indexes: Vec<IndexName>,
    /// The rows of the one table, with the time of their last change.
    rows: BTreeMap<i64, State>,
    time: u64,
    log: Vec<Captured>,
    /// For each checkpoint of the log the rows that its transaction touched, with their states.
    transactions: Vec<(Position, Vec<(i64, State)>)>,
    confirmed: Position,
    stream: u64,
    sink: Held,
    poisoned: Option<i64>,
    quarantined: BTreeMap<DocumentId, Version>,
    /// What each document was when it was built last: a tombstone does not tell.
    built: BTreeMap<DocumentId, State>,
    seen_marks: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let faults = [0, 3, 15][random.below(3) as usize];
        let count = 1 + random.below(3);
        let mut world = Self {
            indexes: (0..count).map(|at| IndexName::new(format!("index{at}")).unwrap()).collect(),
            faults,
            poisoned: random.percent(30).then(|| random.below(8) as i64),
            random,
            rows: BTreeMap::new(),
            time: 0,
            log: Vec::new(),
            transactions: Vec::new(),
            confirmed: Position(0),
            stream: 0,
            sink: Held::default(),
            quarantined: BTreeMap::new(),
            built: BTreeMap::new(),
            seen_marks: BTreeMap::new(),
        };
        for _ in 0..world.random.below(12) {
            world.transact(false);
        }
        world
    }

    fn mark(&mut self, name: &'static str) {
        *self.seen_marks.entry(name).or_default() += 1;
    }

    fn transact(&mut self, logged: bool) {
        let mut touched = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let key = self.random.below(8) as i64;
            self.time += 1;
            let value = self.random.percent(75).then_some(self.time);
            let state = State { time: self.time, value };
            self.rows.insert(key, state);
            touched.push((key, state));
        }
        if logged {
            let table = table();
            for (key, state) in &touched {
                self.log.push(Captured::Change(match state.value {
                    Some(_) => Change::upsert(table.clone(), *key),
                    None => Change::delete(table.clone(), *key),
                }));
            }
            let position = Position(self.transactions.len() as u64 + 1 + self.stream * 1000);
            self.log.push(Captured::Checkpoint(position));
            self.transactions.push((position, touched));
        }
    }

    /// The resume point is lost, and some changes are never seen again.
    fn lose_stream(&mut self) {
        self.mark("stream lost");
        self.stream += 1;
        self.log.clear();
        self.transactions.clear();
        self.confirmed = Position(0);
    }

    /// A record leaves the quarantine for a write that is as new as it.
    fn release(&mut self, documents: &[CuredDocument]) {
        self.mark("released");
        for CuredDocument { id, version } in documents {
            if self.quarantined.get(id).is_some_and(|recorded| recorded <= version) {
                self.quarantined.remove(id);
            }
        }
    }

    fn ids(&self, key: &Key) -> Vec<DocumentId> {
        self.indexes.iter().map(|index| DocumentId::new(index.clone(), key.clone())).collect()
    }

    fn row(&self, id: &DocumentId) -> State {
        self.rows.get(&number(&id.key)).copied().unwrap_or(State { time: 0, value: None })
    }

    fn apply(&mut self, writes: &[(DocumentId, State, Version)]) {
        for (id, state, version) in writes {
            let held = self.sink.documents.get(id);
            if version.epoch.0 < self.sink.epoch || held.is_some_and(|(_, held)| held >= version) {
                continue;
            }
            if let Some((before, _)) = held {
                assert!(before.time <= state.time, "B6: {id} goes back from {before:?} to {state:?}");
            }
            self.sink.documents.insert(id.clone(), (*state, *version));
        }
    }

    /// What is confirmed is reflected, for every transaction up to there.
    fn check_confirmed(&self, position: Position) {
        for (at, touched) in &self.transactions {
            if *at > position {
                break;
            }
            for (key, state) in touched {
                for id in self.ids(&Key::single(*key)) {
                    let held = self.sink.documents.get(&id).map_or(0, |(state, _)| state.time);
                    let excused = self.quarantined.contains_key(&id);
                    assert!(
                        held >= state.time || excused,
                        "B1: {at} is confirmed, {id} is at {held}, not {state:?}"
                    );
                }
            }
        }
    }

    fn check_seeded(&self, index: &IndexName) {
        for (key, state) in &self.rows {
            // A row that this stream has changed since is the live lane's.
            if self.transactions.iter().any(|(_, touched)| touched.iter().any(|(other, _)| other == key)) {
                continue;
            }
            let id = DocumentId::new(index.clone(), *key);
            let held = self.sink.documents.get(&id).map_or(0, |(state, _)| state.time);
            let excused = self.quarantined.contains_key(&id) || state.value.is_none();
            assert!(held >= state.time || excused, "B3: {index} is marked, {id} is at {held}, not {state:?}");
        }
    }

    fn fault(&mut self) -> Option<Fault> {
        let faults = self.faults;
        self.random.percent(faults).then(|| Fault::transient("the network"))
    }
}

fn table() -> TableName {
    TableName::new("rows").unwrap()
}

fn number(key: &Key) -> i64 {
    match key.values() {
        [syncline::Value::Int(value)] => *value,
        other => panic!("{other:?}"),
    }
}

/// A flush as it lies on the wire.
type OnWire = Vec<(DocumentId, State, Version)>;

struct Run {
    pipeline: Pipeline<(State, bool)>,
    quarantine: bool,
    now: Instant,
    open: Vec<Command<(State, bool)>>,
    cursor: usize,
    told_idle: bool,
    capture_open: bool,
    scan: Option<(syncline::pipeline::CallId, Vec<Key>)>,
    late: Vec<OnWire>,
    late_releases: Vec<Arc<[CuredDocument]>>,
    finished: Option<Result<syncline::Report, syncline::EngineError>>,
    trace: bool,
}

fn config(random: &mut Random) -> Config {
    let mut config = Config::default();
    config.batch.max_changes = 1 + random.below(5) as usize;
    config.batch.max_documents = 1 + random.below(6) as usize;
    config.batch.max_bytes = 1 + random.below(100) as usize;
    config.batch.max_delay = Duration::from_millis(random.below(3) * 20);
    config.limits.changes = 1 + random.below(12) as usize;
    config.limits.documents = 1 + random.below(12) as usize;
    config.limits.resolves = 1 + random.below(3) as usize;
    config.limits.resolve_changes = 1 + random.below(4) as usize;
    config.limits.builds = 1 + random.below(3) as usize;
    config.limits.units = config.limits.builds + random.below(3) as usize;
    config.limits.flushes = 1 + random.below(config.limits.units as u64) as usize;
    config.limits.backfill_rows = 1 + random.below(6) as usize;
    config.limits.backfill_share = 1 + random.below(4) as u32;
    config.retry.attempts = 1_000;
    config.retry.delay_max = Duration::from_secs(1);
    config.retry.attempt_timeout = Duration::from_secs(5);
    config.cursor_interval = Duration::from_millis(50);
    config.quarantine = random.percent(50);
    config.failure_policies = FailurePolicies::new(FailurePolicy::Skip);
    config
}

impl Run {
    fn start(world: &mut World) -> Self {
        let now = Instant::from_millis(world.random.below(1000));
        let config = config(&mut world.random);
        let quarantine = config.quarantine;
        let pipeline = Pipeline::new(config, now).unwrap();
        let mut run = Self {
            pipeline,
            quarantine,
            now,
            open: Vec::new(),
            cursor: 0,
            told_idle: false,
            capture_open: false,
            scan: None,
            late: Vec::new(),
            late_releases: Vec::new(),
            finished: None,
            trace: std::env::var_os("TRACE").is_some(),
        };
        run.poll(world);
        run
    }

    fn handle(&mut self, world: &mut World, event: Event<(State, bool)>) {
        if self.trace {
            println!("{:?} > {event:?}", self.now);
        }
        self.pipeline.handle(self.now, event).unwrap();
        self.pipeline.check_invariants();
        self.poll(world);
    }

    fn poll(&mut self, world: &mut World) {
        while let Some(command) = self.pipeline.poll_command() {
            if self.trace {
                println!("      {command:?}");
            }
            match command {
                // Without a quarantine the observer alone hears of it; with one its record must be durable first.
                Command::Notify(Notice::Quarantined(document, _)) if !self.quarantine => {
                    world.quarantined.insert(document.id, Version::default());
                }
                Command::Notify(_) => {}
                Command::Finish(outcome) => self.finished = Some(outcome),
                Command::Abandon { call } => {
                    if let Some(at) = self.open.iter().position(|open| open.call() == Some(call)) {
                        world.mark("abandoned");
                        if let Command::Flush { writes, .. } = self.open.remove(at) {
                            self.late.push(on_wire(world, &writes));
                        }
                    }
                    self.scan.take_if(|(open, _)| *open == call);
                }
                Command::Open { .. } => {
                    self.capture_open = false;
                    self.open.push(command);
                }
                command => self.open.push(command),
            }
        }
    }

    /// One step: something that is open is answered, the capture or the scan yields, time passes, or a late write lands.
    fn step(&mut self, world: &mut World) {
        match world.random.below(10) {
            0..=5 if !self.open.is_empty() => {
                let at = world.random.below(self.open.len() as u64) as usize;
                let command = self.open.remove(at);
                self.answer(world, command);
            }
            6 | 7 => self.capture(world),
            8 => self.scan(world),
            9 if world.random.percent(30) && !self.late.is_empty() => {
                let writes = self.late.remove(0);
                world.mark("late write");
                world.apply(&writes);
            }
            9 if world.random.percent(30) && !self.late_releases.is_empty() => {
                let documents = self.late_releases.remove(0);
                world.mark("late release");
                world.release(&documents);
            }
            _ => self.elapse(world),
        }
    }

    fn elapse(&mut self, world: &mut World) {
        let Some((at, _)) = self.pipeline.poll_timeout() else { return };
        // Everything that is open is answered within its time, unless the world is faulty.
        if self.open.is_empty() || world.random.percent(world.faults.min(20)) {
            self.now = at;
        } else {
            let wait = Duration::from_millis(world.random.below(20));
            self.now = self.now.after(wait).min(at);
        }
        self.handle(world, Event::Elapsed);
    }

    fn capture(&mut self, world: &mut World) {
        let room = self.pipeline.capacity(Lane::Live);
        if !self.capture_open || room == 0 {
            return;
        }
        if world.random.percent(world.faults / 3) {
            self.capture_open = false;
            world.mark("capture failed");
            if world.random.percent(20) {
                world.lose_stream();
            }
            return self.handle(world, Event::CaptureFailed { fault: Fault::transient("reset") });
        }
        let mut items = Captures::default();
        let mut changes = 0;
        while self.cursor < world.log.len() && changes < room && !world.random.percent(10) {
            let item = world.log[self.cursor].clone();
            changes += usize::from(matches!(item, Captured::Change(_)));
            items.push(item);
            self.cursor += 1;
        }
        let then = if self.cursor < world.log.len() { Then::More } else { Then::Idle };
        if items.is_empty() && (then == Then::More || self.told_idle) {
            return;
        }
        self.told_idle = then == Then::Idle;
        self.handle(world, Event::Captured { items, then });
    }

    fn scan(&mut self, world: &mut World) {
        let room = self.pipeline.capacity(Lane::Backfill);
        let Some((call, keys)) = &mut self.scan else { return };
        let call = *call;
        if room == 0 {
            return;
        }
        if world.random.percent(world.faults / 2) {
            self.scan = None;
            world.mark("scan failed");
            return self.handle(world, Event::ScanFailed { call, fault: Fault::transient("reset") });
        }
        let count = (1 + world.random.below(3) as usize).min(room).min(keys.len());
        let keys: Vec<Key> = keys.drain(..count).collect();
        let then =
            if self.scan.as_ref().is_some_and(|(_, keys)| keys.is_empty()) { Then::End } else { Then::Idle };
        if then == Then::End {
            self.scan = None;
        }
        self.handle(world, Event::Scanned { call, keys, then });
    }

    fn answer(&mut self, world: &mut World, command: Command<(State, bool)>) {
        let fault = world.fault();
        let event = match command {
            Command::Begin { call } => {
                world.sink.epoch += 1;
                Event::Begun { call, result: fault.map_or(Ok((Epoch(world.sink.epoch), 3)), Err) }
            }
            Command::Describe { call } => {
                let mappings = world.indexes.iter().map(|index| IndexMapping::new(index.clone(), []));
                let scopes = world
                    .indexes
                    .iter()
                    .map(|index| IndexScope::new(index.clone(), SnapshotTable::new(table())));
                let described = (mappings.collect(), scopes.collect());
                Event::Described { call, result: fault.map_or(Ok(described), Err) }
            }
            Command::LoadQuarantine { call } => {
                Event::QuarantineLoaded { call, result: Ok(world.quarantined.keys().cloned().collect()) }
            }
            Command::Open { call } => {
                if fault.is_none() {
                    self.capture_open = true;
                    self.told_idle = false;
                    let confirmed = world.confirmed;
                    let resume = world.log.iter().position(|item| *item == Captured::Checkpoint(confirmed));
                    self.cursor = resume.map_or(0, |at| at + 1);
                }
                let stream = StreamId::new(format!("stream{}", world.stream)).unwrap();
                Event::Opened { call, result: fault.map_or(Ok(stream), Err) }
            }
            Command::Resolve { call, changes } => {
                let mut resolved = Resolved::default();
                changes.iter().for_each(|change| resolved.push(world.ids(&change.key)));
                Event::Resolved { call, result: fault.map_or(Ok(resolved), Err) }
            }
            Command::Build { call, ids, .. } => self.build(world, call, &ids, fault),
            Command::Flush { call, writes, .. } => self.flush(world, call, &writes, fault),
            Command::ReadSeed { call, index, seed } => {
                let held = world.sink.seeds.get(&index).filter(|(held, _)| *held == seed);
                let state = held.map_or(SeedState::Unseeded, |(_, state)| state.clone());
                Event::SeedRead { call, result: fault.map_or(Ok(state), Err) }
            }
            Command::Clear { call, index } => {
                if fault.is_none() {
                    // Versions are kept, as a sink's that refuses older ones, so that what was sent before lands nowhere.
                    for (id, (state, _)) in &mut world.sink.documents {
                        if id.index == index {
                            *state = State { time: 0, value: None };
                        }
                    }
                    world.sink.seeds.remove(&index);
                }
                done(call, fault)
            }
            Command::SaveCursor { call, index, seed, after } => {
                if fault.is_none() {
                    world.mark(if after.is_some() { "cursor" } else { "start" });
                    world.sink.seeds.insert(index, (seed, SeedState::Seeding(after)));
                }
                done(call, fault)
            }
            Command::Scan { call, after, .. } => {
                if fault.is_none() {
                    world.mark(if after.is_some() { "scan resumed" } else { "scan" });
                    let keys = world.rows.iter().filter(|(_, state)| state.value.is_some());
                    let keys =
                        keys.map(|(key, _)| Key::single(*key)).filter(|key| Some(key) > after.as_ref());
                    self.scan = Some((call, keys.collect()));
                }
                done(call, fault)
            }
            Command::MarkSeeded { call, index, seed } => {
                if fault.is_none() {
                    // A marker for a stream that was lost a moment ago holds for nothing.
                    if seed.stream.as_str() == format!("stream{}", world.stream) {
                        world.check_seeded(&index);
                    }
                    world.sink.seeds.insert(index, (seed, SeedState::Seeded));
                }
                done(call, fault)
            }
            Command::Ack { call, stream, position } => {
                if stream.as_str() != format!("stream{}", world.stream) {
                    // The stream was lost a moment ago: nothing of it is left to confirm.
                    assert!(!self.capture_open, "a position of another stream");
                    return self.handle(world, done(call, fault));
                }
                world.check_confirmed(position);
                if fault.is_none() || world.random.percent(50) {
                    assert!(position >= world.confirmed, "{position} goes back behind {}", world.confirmed);
                    world.confirmed = position;
                    let stream = world.stream;
                    if stream > 0 {
                        world.mark("confirmed after a lost stream");
                    }
                }
                done(call, fault)
            }
            Command::Ensure { call, .. } | Command::CaughtUp { call } => done(call, fault),
            Command::Quarantine { call, documents } => {
                if fault.is_none() || world.random.percent(50) {
                    world.mark("quarantined");
                    for document in documents.iter() {
                        world.quarantined.insert(document.id.clone(), document.version);
                    }
                }
                done(call, fault)
            }
            Command::Release { call, documents } => {
                if world.random.percent(30) {
                    // An attempt before this one was given up, and will arrive all the same.
                    self.late_releases.push(documents.clone());
                }
                if fault.is_none() || world.random.percent(50) {
                    world.release(&documents);
                }
                done(call, fault)
            }
            Command::ReadLag { call } => Event::LagRead { call, result: Ok(Some(1)) },
            other => panic!("{other:?}"),
        };
        self.handle(world, event);
    }

    fn build(
        &mut self,
        world: &mut World,
        call: syncline::pipeline::CallId,
        ids: &Arc<[DocumentId]>,
        fault: Option<Fault>,
    ) -> Event<(State, bool)> {
        if let Some(fault) = fault {
            return Event::Built { call, result: Err(fault), bytes: Vec::new() };
        }
        let poisoned = |id: &DocumentId| Some(number(&id.key)) == world.poisoned;
        if ids.iter().any(poisoned) && ids.len() > 1 && world.random.percent(10) {
            world.mark("build halved");
            return Event::Built { call, result: Err(Fault::content("poison")), bytes: Vec::new() };
        }
        let mut built: Vec<_> = Vec::new();
        for id in ids.iter() {
            let faults = world.faults;
            if world.random.percent(faults) {
                let fault = Fault::transient("a row is locked");
                built.push(Err(FailedDocument { id: id.clone(), fault }));
                continue;
            }
            let state = world.row(id);
            world.built.insert(id.clone(), state);
            built.push(Ok(match state.value {
                Some(_) => Document::upsert(id.clone(), (state, Some(number(&id.key)) == world.poisoned)),
                None => Document::delete(id.clone()),
            }));
        }
        if world.random.percent(20) {
            built.reverse();
        }
        let bytes = built.iter().map(|_| world.random.below(40) as usize).collect();
        Event::Built { call, result: Ok(built), bytes }
    }

    fn flush(
        &mut self,
        world: &mut World,
        call: syncline::pipeline::CallId,
        writes: &Writes<(State, bool)>,
        fault: Option<Fault>,
    ) -> Event<(State, bool)> {
        let mut sent = on_wire(world, writes);
        if let Some(fault) = fault {
            match world.random.below(3) {
                0 => world.apply(&sent),
                1 => self.late.push(sent),
                _ => {}
            }
            return Event::Flushed { call, result: Err(fault) };
        }
        let poison: Vec<_> = writes
            .iter()
            .filter(|write| matches!(write.document.content, Content::Upsert((_, true))))
            .map(|write| write.document.id.clone())
            .collect();
        if !poison.is_empty() && world.random.percent(30) {
            world.mark("flush halved");
            return Event::Flushed { call, result: Err(Fault::content("poison")) };
        }
        let mut report = FlushReport::rejected(poison.iter().map(|id| RejectedDocument::new(id, "poison")));
        for (id, ..) in &sent {
            let faults = world.faults;
            if !poison.contains(id) && world.random.percent(faults) {
                world.mark("throttled");
                report.throttled.push(id.clone());
            }
        }
        sent.retain(|(id, ..)| !poison.contains(id) && !report.throttled.contains(id));
        world.apply(&sent);
        Event::Flushed { call, result: Ok(report) }
    }
}

/// A document is in flight once, so what was built of it last is what is written of it.
fn on_wire(world: &World, writes: &Writes<(State, bool)>) -> OnWire {
    let sent = writes.iter().map(|write| &write.document.id).zip(writes.iter());
    sent.map(|(id, write)| (id.clone(), world.built[id], write.version)).collect()
}

fn done(call: syncline::pipeline::CallId, fault: Option<Fault>) -> Event<(State, bool)> {
    Event::Done { call, result: fault.map_or(Ok(()), Err) }
}

fn walk(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    let mut run = Run::start(&mut world);
    let steps = 200 + world.random.below(400);
    for _ in 0..steps {
        if world.random.percent(8) {
            world.transact(true);
        }
        if world.random.percent(1) && world.faults > 0 {
            world.mark("crash");
            let mut late = std::mem::take(&mut run.late);
            for open in &run.open {
                if let Command::Flush { writes, .. } = open {
                    late.push(on_wire(&world, writes));
                }
            }
            if world.random.percent(20) {
                world.lose_stream();
            }
            run = Run::start(&mut world);
            run.late = late;
        }
        run.step(&mut world);
        assert!(run.finished.is_none(), "nothing ends this run: {:?}", run.finished);
    }
    // The faults stop, the poison is taken out, and the run is drained.
    world.faults = 0;
    world.poisoned = None;
    let mut patience = 20_000;
    while !settled(&run, &world) {
        run.step(&mut world);
        patience -= 1;
        assert!(patience > 0, "not settled:\n{:?}\n{}", run.open, run.pipeline.canonical());
    }
    let deadline = run.now.after(Duration::from_secs(60));
    run.handle(&mut world, Event::Drain { deadline });
    while run.finished.is_none() {
        run.step(&mut world);
        patience -= 1;
        assert!(patience > 0, "not drained:\n{:?}\n{}", run.open, run.pipeline.canonical());
    }
    let report = run.finished.take().unwrap().unwrap();
    assert_eq!(report.unacknowledged, 0, "{report:?}");
    for index in world.indexes.clone() {
        for (key, state) in &world.rows {
            let id = DocumentId::new(index.clone(), *key);
            let held = world.sink.documents.get(&id).and_then(|(state, _)| state.value);
            let quarantined = world.quarantined.contains_key(&id);
            assert!(held == state.value || quarantined, "{id} is {held:?}, the row is {state:?}");
        }
    }
    world.seen_marks
}

fn settled(run: &Run, world: &World) -> bool {
    let status = run.pipeline.status();
    run.capture_open
        && run.cursor == world.log.len()
        && run.told_idle
        && status.dirty + status.in_flight == 0
        && status.captured == status.durable
        && status.oldest_unacknowledged.is_none()
        && status.indexes.iter().all(|index| index.seeded)
}

#[test]
fn random_walks_keep_every_promise() {
    let range = std::env::var("WALKS").unwrap_or_else(|_| "0..1000".into());
    let (from, to) = range.split_once("..").expect("WALKS=from..to");
    let mut marks: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        let result = std::panic::catch_unwind(|| walk(seed));
        match result {
            Ok(seen) => seen.into_iter().for_each(|(mark, count)| *marks.entry(mark).or_default() += count),
            Err(panic) => {
                println!("replay with: WALKS={seed}..{} cargo test --test walks", seed + 1);
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{marks:?}");
    if range == "0..1000" {
        for mark in [
            "abandoned",
            "build halved",
            "capture failed",
            "confirmed after a lost stream",
            "crash",
            "cursor",
            "flush halved",
            "late release",
            "late write",
            "quarantined",
            "released",
            "scan",
            "scan failed",
            "scan resumed",
            "start",
            "stream lost",
            "throttled",
        ] {
            assert!(marks.contains_key(mark), "no walk met: {mark}");
        }
    }
}
