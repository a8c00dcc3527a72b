//! The laziest legal driver: it does nothing by itself, polls after every event, and lets time pass only when it is told to,
//! to a deadline, short of it, or beyond.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use syncline::document::Writes;
use syncline::error::Stage;
use syncline::pipeline::{CallId, Command, Event, Notice, Phase, Pipeline, Then, Timer};
use syncline::time::Instant;
use syncline::{Captured, Captures, EngineError, Fault, Lane, Position, Report, Verified};

use crate::check;
use crate::model::{Late, Model, OnWire, Read, Snapshot, State};
use crate::op::{Emptied, Kind, Op};
use crate::owed::Owed;
use crate::setup::Setup;

mod answer;
mod cause;
mod heal;
mod heard;
mod misuse;
mod seen;
mod view;

pub use cause::Cause;
pub use heard::Heard;

/// No timer beyond this is waited for: it is one that never goes off.
const HORIZON: Duration = Duration::from_secs(24 * 60 * 60);

/// A pipeline, its world, and what is under way between them.
#[derive(Debug, Clone)]
pub struct Drive {
    /// The world.
    pub model: Model,
    /// What the run owes.
    pub owed: Owed,
    setup: Setup,
    pipeline: Pipeline<State>,
    now: Instant,
    /// The time that the pipeline was told last.
    told: Instant,
    /// Calls that are not answered, oldest first.
    open: Vec<Command<State>>,
    /// What could be read when the builds that are open were asked for.
    reads: BTreeMap<CallId, Read>,
    /// Calls that were given up, and may be answered all the same.
    stale: Vec<Command<State>>,
    last: Option<Event<State>>,
    /// The newest call that was made.
    newest: CallId,
    /// Where in the log the open capture stands.
    capture: Option<usize>,
    has_opened: bool,
    opened_stream: Option<u64>,
    told_idle: bool,
    snapshot: Option<Snapshot>,
    ensured: BTreeSet<usize>,
    /// The newest position whose confirm was answered, and whether one is still to be.
    acknowledged: Option<Position>,
    ack_pending: bool,
    heard_caught_up: bool,
    /// Until when the sink waits to be told so once more, after that failed.
    caught_up_again: Option<Instant>,
    retrials: usize,
    /// The answer that comes now is a breach of contract.
    wrong: bool,
    /// What came when the run began to end.
    cause: Option<Cause>,
    /// It was drained, or its stream ended.
    may_end: bool,
    finished: Option<Result<Report, EngineError>>,
    /// Whether it ended in the last step.
    finished_now: bool,
    /// What the observer heard in the last step.
    notices: Vec<Notice>,
    /// What it heard of this run.
    heard: Heard,
    /// The sink has refused a document of which nothing may be skipped.
    refused: bool,
    marks: BTreeSet<&'static str>,
    journal: Option<Vec<String>>,
}

impl Drive {
    /// A world in which the first run begins.
    pub fn new(setup: Setup) -> Self {
        Self::with_journal(setup, None)
    }

    /// The same, and every event and command is written down.
    pub fn journalled(setup: Setup) -> Self {
        Self::with_journal(setup, Some(Vec::new()))
    }

    fn with_journal(setup: Setup, journal: Option<Vec<String>>) -> Self {
        let now = Instant::from_millis(1000);
        let mut drive = Self {
            model: Model::new(&setup),
            owed: Owed::default(),
            pipeline: Pipeline::new(setup.config(), now).expect("a setup never contradicts itself"),
            setup,
            now,
            told: now,
            open: Vec::new(),
            reads: BTreeMap::new(),
            stale: Vec::new(),
            last: None,
            newest: CallId(0),
            capture: None,
            has_opened: false,
            opened_stream: None,
            told_idle: false,
            snapshot: None,
            ensured: BTreeSet::new(),
            acknowledged: None,
            ack_pending: false,
            heard_caught_up: true,
            caught_up_again: None,
            retrials: 0,
            wrong: false,
            cause: None,
            may_end: false,
            finished: None,
            finished_now: false,
            notices: Vec::new(),
            heard: Heard::default(),
            refused: false,
            marks: BTreeSet::new(),
            journal,
        };
        drive.poll();
        drive
    }

    /// One thing happens. Panics where a promise is broken.
    pub fn step(&mut self, op: Op) {
        self.notices.clear();
        self.finished_now = false;
        match op {
            Op::Commit(rows, removed) => self.model.commit(rows, removed),
            // Nobody can rebuild an index without a scope: the run would end for good.
            Op::Truncate(..) if !self.setup.scopes => {}
            Op::Truncate(tables, _) if !self.setup.seeds() && tables != Emptied::Rows => {}
            Op::Truncate(tables, rows) => self.model.truncate(tables, rows),
            Op::Heartbeat => self.model.checkpoint(Vec::new()),
            Op::Land(at) => self.land(at),
            Op::LoseStream if !self.setup.seeds() => {}
            _ if self.finished.is_some() => self.restart(),
            Op::Capture(most) => self.capture(most, false),
            Op::Tarry => self.tarry(),
            Op::End => self.capture(u8::MAX, true),
            Op::FailCapture(kind) => self.fail_capture(kind),
            Op::LoseStream => {
                self.mark("stream lost");
                self.owed.on_lost(self.model.changed_after(Position(0)));
                self.model.lose_stream();
                self.fail_capture(Kind::Transient);
            }
            Op::Answer(at, how) => self.answer_open(at, how),
            Op::Stale(at) => self.answer_stale(at),
            Op::Repeat => self.repeat(),
            Op::Scan(most) => self.scan(most),
            Op::FailScan(kind) => self.fail_scan(kind),
            Op::Deadline => self.elapse(256),
            Op::Wait(part) => self.elapse(part.into()),
            Op::Oversleep(part) => self.oversleep(part),
            Op::Crash => self.crash(),
            Op::Reindex(at) => self.reindex(at),
            Op::Verify(at) => self.verify(at),
            Op::Drain(millis) => {
                let deadline = self.now.after(Duration::from_millis(millis.into()));
                self.mark(if self.has_opened { "drained" } else { "drained at the start" });
                self.drain_until(deadline);
            }
            Op::Misuse(wrong) => self.misuse(wrong),
        }
    }

    fn drain_until(&mut self, deadline: Instant) {
        self.may_end = true;
        self.handle(Event::Drain { deadline });
    }

    fn land(&mut self, at: u8) {
        if !self.model.late.is_empty() {
            match self.model.late.remove(usize::from(at) % self.model.late.len()) {
                Late::Writes(writes) => {
                    self.mark("late write");
                    self.model.apply(&writes);
                }
                Late::Release(documents) => {
                    self.mark("late release");
                    self.model.release(&documents);
                }
            }
        }
    }

    fn capture(&mut self, most: u8, ends: bool) {
        let Some(from) = self.capture else { return };
        let (room, left) = (self.pipeline.capacity(Lane::Live), self.model.log.len() - from);
        if self.pipeline.status().phase != Phase::Running {
            return;
        }
        let mut items = Captures::default();
        let mut to = from;
        for _ in 0..left.min(usize::from(most.max(1))) {
            let number = self.owed.captured() + items.counted() as u64;
            let item = self.model.item(to, number);
            if matches!(item, Captured::Change(_) | Captured::Truncate(_)) && items.counted() == room {
                break;
            }
            if matches!(item, Captured::Truncate(_)) {
                self.mark(if self.is_seeded() { "truncated" } else { "truncated while seeding" });
            }
            items.push(item);
            to += 1;
        }
        let all = to == self.model.log.len();
        let then = match (all, ends) {
            (true, true) => Then::End,
            (true, false) => Then::Idle,
            (false, _) => Then::More,
        };
        let nothing_new = items.is_empty() && (then == Then::More || then == Then::Idle && self.told_idle);
        if nothing_new {
            return;
        }
        self.capture = (then != Then::End).then_some(to);
        self.told_idle = then != Then::More;
        let model = &self.model;
        self.owed.on_captured(&items, |table| model.built_from(table));
        if then == Then::End {
            self.mark("the stream ended");
            self.may_end = true;
        }
        self.handle(Event::Captured { items, then });
    }

    /// Nothing is ready, but the source knows of more.
    fn tarry(&mut self) {
        if self.capture.is_some() && self.status().phase == Phase::Running {
            self.told_idle = false;
            self.handle(Event::Captured { items: Captures::default(), then: Then::More });
        }
    }

    fn reindex(&mut self, at: u8) {
        let index = self.model.indexes[usize::from(at) % self.model.indexes.len()].clone();
        if self.pipeline.can_reindex(&index).is_err() {
            return;
        }
        let is_parked = self.status().indexes.iter().any(|status| status.index == index && status.parked);
        self.mark(if is_parked { "a parked index reindexed" } else { "reindexed" });
        self.owed.on_reindex(&index);
        self.handle(Event::Reindex { index });
    }

    fn verify(&mut self, at: u8) {
        let index = self.model.indexes[usize::from(at) % self.model.indexes.len()].clone();
        if self.can_verify(&index) {
            // What stands in quarantine is written anyway, and leaves it then.
            let mut differing = self.model.differing(&index);
            differing.retain(|id| !self.model.quarantined.contains_key(id));
            self.owed.on_verify(&index, differing, self.model.confirmed);
            self.handle(Event::Verify { index });
        }
    }

    fn on_verified(&mut self, verified: &Verified) {
        self.mark(if verified.different > 0 { "a difference was told" } else { "no difference was told" });
        self.model.tampered.remove(&verified.index);
        self.owed.retain_compared(|index| *index != verified.index);
    }

    fn is_seeded(&self) -> bool {
        self.status().indexes.iter().all(|index| index.seeded)
    }

    fn fail_capture(&mut self, kind: Kind) {
        if self.capture.take().is_some() {
            self.mark("capture failed");
            self.told_idle &= self.is_ending();
            self.handle(Event::CaptureFailed { fault: fault(kind) });
        }
    }

    fn scan(&mut self, most: u8) {
        let room = self.pipeline.capacity(Lane::Backfill);
        let Some(mut snapshot) = self.snapshot.take() else { return };
        let count = usize::from(most.max(1)).min(room).min(snapshot.keys.len());
        let keys = snapshot.keys.drain(..count).collect();
        let call = snapshot.call;
        // An end that does not come with the last row comes alone.
        let ends = snapshot.keys.is_empty() && (count == 0 || !most.is_multiple_of(2));
        if room == 0 && !snapshot.keys.is_empty() {
            self.snapshot = Some(snapshot);
            return;
        }
        if !ends {
            self.snapshot = Some(snapshot);
        }
        let then = match ends {
            true => Then::End,
            false if most.is_multiple_of(2) => Then::More,
            false => Then::Idle,
        };
        self.handle(Event::Scanned { call, keys, then });
    }

    fn fail_scan(&mut self, kind: Kind) {
        if let Some(Snapshot { call, .. }) = self.snapshot.take() {
            self.mark("scan failed");
            self.handle(Event::ScanFailed { call, fault: fault(kind) });
        }
    }

    /// So many 256ths of the time to the next deadline pass.
    fn elapse(&mut self, part: u64) {
        let Some((at, _)) = self.timer() else { return };
        let wait = at.since(self.now).as_nanos() as u64;
        self.now = self.now.after(Duration::from_nanos((u128::from(wait) * u128::from(part) / 256) as u64));
        self.handle(Event::Elapsed);
    }

    /// Time passes beyond the next deadline, and what comes next says so.
    fn oversleep(&mut self, part: u8) {
        if let Some((at, _)) = self.timer() {
            self.mark("overslept");
            let beyond = self.config().retry.attempt_timeout * u32::from(part) / 256;
            self.now = self.now.max(at).after(beyond);
        }
    }

    /// The next deadline that will ever come.
    pub fn timer(&self) -> Option<(Instant, Timer)> {
        self.pipeline.poll_timeout().filter(|(at, _)| at.since(self.now) < HORIZON)
    }

    fn crash(&mut self) {
        if self.owed.flying().next().is_some() {
            self.mark("crashed with documents in flight");
        }
        if self.ack_pending {
            self.mark("crashed between flush and ack");
        }
        if self.open.iter().any(|open| {
            matches!(open, Command::Clear { .. } | Command::Rebuild { .. } | Command::SaveCursor { .. })
        }) {
            self.mark("crashed while seeding");
        }
        if self.owed.retain_compared(|_| false) {
            self.mark("crashed while verifying");
        }
        self.restart();
    }

    fn restart(&mut self) {
        for open in core::mem::take(&mut self.open) {
            self.give_up(open);
        }
        let model = core::mem::replace(&mut self.model, Model::new(&self.setup));
        let journal = self.journal.take();
        let marks = core::mem::take(&mut self.marks);
        *self = Self::with_journal(self.setup, journal);
        self.model = model;
        self.model.built.clear();
        self.marks = marks;
        self.mark("run again");
    }

    /// Nobody waits for this call any more. A flush, or a release, may still land.
    fn give_up(&mut self, call: Command<State>) {
        match call {
            Command::Flush { writes, .. } => {
                let writes = self.on_wire(&writes);
                self.model.late.push(Late::Writes(writes));
            }
            Command::Release { documents, .. } => self.model.late.push(Late::Release(documents)),
            _ => {}
        }
    }

    fn on_wire(&self, writes: &Writes<State>) -> Vec<OnWire> {
        let one = |write: &syncline::Write<State>| {
            let id = &write.document.id;
            let built = self.model.built[id];
            check::b06_what_is_written_is_what_was_built(&write.document, built);
            (id.clone(), built, write.version)
        };
        writes.iter().map(one).collect()
    }

    fn handle(&mut self, event: Event<State>) {
        self.take_event(event, true);
    }

    /// An event of which the run need not take notice, because it waits for no such answer any more.
    fn handle_stale(&mut self, event: Event<State>) {
        self.take_event(event, false);
    }

    fn take_event(&mut self, event: Event<State>, answers: bool) {
        if let Some(journal) = &mut self.journal {
            journal.push(format!("{:?} > {event:?}", self.now));
        }
        self.last = Some(event.clone());
        self.owed.note_safe();
        let (was_ending, was_halting) = (self.is_ending(), self.is_halting());
        let cause = Cause {
            wrong: core::mem::take(&mut self.wrong),
            overdue: self.timer().is_some_and(|(at, _)| at <= self.now),
            ..Cause::of(&event)
        };
        let of_a_call = !matches!(event, Event::CaptureFailed { .. } | Event::ScanFailed { .. });
        self.told = self.now;
        let newest = self.newest;
        self.pipeline.handle(self.now, event).expect("a legal driver");
        if self.is_halting() && !was_halting {
            self.cause = Some(cause);
        }
        if answers && cause.fatal && !was_halting && (of_a_call || !was_ending) {
            check::b08_what_fails_for_good_ends_the_run(self);
        }
        self.poll();
        if was_halting {
            check::b12_a_halt_starts_nothing(self, newest);
        }
        let status = self.status();
        let verifies = |name: &_| status.indexes.iter().any(|index| index.index == *name && index.verifying);
        if self.owed.retain_compared(verifies) {
            self.mark("a verification was interrupted");
        }
        // A debug build has checked them in `handle`.
        if !cfg!(debug_assertions) {
            self.pipeline.check_invariants();
        }
        check::after(self);
        self.mark_limits();
    }

    fn mark_limits(&mut self) {
        let (status, limits) = (self.status(), self.config().limits);
        if self.is_capturing() && status.phase == Phase::Running && self.capacity(Lane::Live) == 0 {
            self.mark("the window was full");
        }
        if status.dirty + status.in_flight >= limits.documents {
            self.mark("the dirty limit was reached");
        }
        if self.snapshot.is_some() && self.capacity(Lane::Backfill) == 0 {
            self.mark("the scan had no room");
        }
    }

    fn poll(&mut self) {
        while let Some(command) = self.pipeline.poll_command() {
            if let Some(journal) = &mut self.journal {
                journal.push(format!("{command:?}"));
            }
            check::command(self, &command);
            self.take(command);
        }
    }

    fn take(&mut self, command: Command<State>) {
        self.newest = self.newest.max(command.call().unwrap_or(self.newest));
        match &command {
            Command::Notify(notice) => {
                if let Notice::Quarantined(document, _) = notice
                    && !self.setup.quarantine
                {
                    self.model.skip(&document.id);
                }
                if let Notice::Retried { stage, delay, .. } = notice {
                    self.mark("retried");
                    if *stage == Stage::CaughtUp {
                        self.caught_up_again = Some(self.now.after(*delay));
                    }
                }
                if let Notice::Verified(verified) = notice {
                    self.on_verified(verified);
                }
                self.heard.on(notice);
                return self.notices.push(notice.clone());
            }
            Command::Finish(outcome) => {
                self.mark(if outcome.is_ok() { "finished" } else { "halted" });
                self.finished = Some(outcome.clone());
                self.finished_now = true;
                return self.refuse_everything();
            }
            Command::Abandon { call } => {
                self.snapshot.take_if(|snapshot| snapshot.call == *call);
                if let Some(at) = self.open.iter().position(|open| open.call() == Some(*call)) {
                    self.mark("abandoned");
                    let open = self.open.remove(at);
                    self.reads.remove(call);
                    self.stale.push(open.clone());
                    self.give_up(open);
                }
                return;
            }
            Command::Open { .. } => {
                self.capture = None;
                self.told_idle = false;
            }
            Command::Resolve { call, changes } => self.owed.on_resolve(*call, changes),
            Command::Build { call, ids, .. } => {
                self.owed.on_build(ids);
                self.reads.insert(*call, self.model.read());
            }
            Command::Flush { caught_up, .. } => self.heard_caught_up = *caught_up,
            Command::CaughtUp { .. } => {
                self.heard_caught_up = true;
                self.caught_up_again = None;
            }
            Command::Ack { .. } => self.ack_pending = true,
            _ => {}
        }
        self.open.push(command);
    }

    /// This run did something worth meeting.
    pub fn mark(&mut self, name: &'static str) {
        self.marks.insert(name);
    }

    /// What this world has met.
    pub fn marks(&self) -> &BTreeSet<&'static str> {
        &self.marks
    }

    /// What this world has met since the last call. Answers that could come late or twice are forgotten too.
    pub fn take_marks(&mut self) -> BTreeSet<&'static str> {
        self.stale.clear();
        self.last = None;
        core::mem::take(&mut self.marks)
    }

    /// What was written down.
    pub fn journal(&self) -> &[String] {
        self.journal.as_deref().unwrap_or_default()
    }
}

/// A failure of this kind.
pub fn fault(kind: Kind) -> Fault {
    match kind {
        Kind::Transient => Fault::transient("the network"),
        Kind::Content => Fault::content("poison"),
        Kind::Fatal => Fault::fatal("refused"),
    }
}
