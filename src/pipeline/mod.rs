//! The pipeline: a state machine that decides everything and does nothing.
//!
//! It knows no clock, no thread and no network. What happened goes in as an [`Event`], with the time at which it did;
//! what is to be done comes out as [`Command`]s. The contract of whoever drives it:
//!
//! **After every `handle`, poll commands until `None`, then ask for the timeout.**
//!
//! Anything that can be done without another event is a command by then, never something that a later tick finds. A run
//! is therefore a list of events with their times: it can be logged, replayed, fuzzed and explored. The shape is that of
//! quinn-proto and str0m; the alphabet of calls whose answers come back as events is that of etcd's raft.
//!
//! Read [`protocol`] first, it is the table of contents; then the stages, each a small struct that knows no other, in
//! the order in which work flows:
//!
//! | stage | what it knows |
//! | --- | --- |
//! | `intake` | how a run begins; what the capture yields; which changes are resolved |
//! | `resolve` | the changes that wait to be resolved, and the answers, in capture order |
//! | `dirty`, `slab` | the documents that are owed a build, cut into units |
//! | `work` | a unit's way through `build` and `flush`, and what the verdicts mean |
//! | `flight` | the units that are on this way |
//! | `ledger`, `ack` | what is owed, and so what may be acknowledged |
//! | `seeding`, `backfill` | which indexes are being seeded, and how far |
//! | `anew`, `truncate` | which indexes are to be emptied and seeded again, and which stop alone |
//! | `calls`, `retry` | what is under way, its time limits, and when it is tried again |
//! | `ending` | drains, halts, and when a run is over |
//!
//! Three kinds of wrong are kept apart: an operating failure is data in an event; a driver's misuse is an
//! `Err(`[`Misuse`]`)` that leaves the state unchanged; a bug of the pipeline is an assertion that names its invariant.
//!
//! # Invariants
//!
//! Checked by [`Pipeline::check_invariants`], after every `handle` in debug builds and in every harness:
//!
//! - **I1** An entry of a ledger is held exactly by those who point to it: an unresolved change, a document that waits for
//!   it, a document that flies for it, an index that is to be cleared for it.
//! - **I2** A document is in flight in one unit at most; it flies exactly where one unfinished unit holds it.
//! - **I3** A document that waits stands in exactly one unit that has not started, unless it is set aside: until its flight
//!   is settled, or until builds of its index may start. None waits whose index has stopped alone.
//! - **I4** No limit is exceeded: changes owed, resolves, builds, flushes.
//! - **I5** Every call under way, and every one that waits to be made again, has someone who needs its answer.
//! - **I6** Nothing is being confirmed, or about to be, whose changes are still owed.
//! - **I7** While an index is being cleared no document of it is in flight.
//! - **I8** The pipeline is never stuck: where anything is owed, a call is under way, or a time is known at which something
//!   happens.
//! - **I9** An index is compared with its source only while it is seeded, and a scan either compares or seeds: all of its
//!   members are the one, or all are the other.

// Determinism is a lint: no order from a hash map, no clock, no thread. An event must break the build where it matters.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod ack;
mod adaptive;
mod admit;
mod anew;
mod backfill;
mod build;
mod calls;
mod canonical;
mod dirty;
mod ending;
mod flight;
mod flush;
mod intake;
mod invariants;
mod ledger;
pub mod protocol;
mod resolve;
mod retry;
mod seeding;
mod slab;
pub mod status;
mod truncate;
mod verify;
mod work;

#[cfg(test)]
mod transcript;

use alloc::collections::{BTreeSet, VecDeque};

pub use canonical::Canonical;
pub use protocol::{CallId, Command, Event, Misuse, Notice, Refusal, Then, Timer};
pub use status::{IndexStatus, Phase, Report, Status, Verified};

use crate::change::Visibility;
use crate::config::{Config, ConfigError};
use crate::document::{DocumentId, Epoch};
use crate::error::{Fault, FaultKind, Stage};
use crate::pipeline::ack::Ack;
use crate::pipeline::adaptive::Limit;
use crate::pipeline::calls::{Again, Call, Calls, Purpose};
use crate::pipeline::dirty::Dirty;
use crate::pipeline::ending::Ending;
use crate::pipeline::flight::{Flights, Part};
use crate::pipeline::intake::Capture;
use crate::pipeline::resolve::Resolve;
use crate::pipeline::seeding::Seeding;
use crate::ports::Lane;
use crate::time::Instant;

/// The sync engine without its I/O: see the [module](self).
///
/// **After every `handle`, poll commands until `None`, then ask for the timeout.**
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pipeline<B> {
    config: Config,
    now: Instant,
    commands: VecDeque<Command<B>>,
    calls: Calls,
    epoch: Epoch,
    build_limit: Limit,
    /// As the sink says how many it takes at once.
    flush_limit: Limit,
    capture: Capture,
    resolve: Resolve,
    dirty: Dirty,
    flights: Flights<B>,
    ack: Ack,
    seeding: Seeding,
    ending: Ending,
    /// Documents with a record in the quarantine.
    quarantined: BTreeSet<DocumentId>,
    quarantined_count: u64,
    /// The number of the newest build.
    builds: u64,
    /// The newest token that a build was asked to see. Every later one sees it too: a row of a scan, or a change that is
    /// given again, must not be read from an older snapshot than what was written already.
    visibility: Option<Visibility>,
    /// Live units that were started, and live parts that were flushed, since a backfilled one was.
    live_cuts: u32,
    live_flushes: u32,
    /// What the last flush was told, or the sink since: nothing live waits.
    told_caught_up: bool,
    stalled: bool,
    lag_exceeded: bool,
    lag_at: Option<Instant>,
    cursors_at: Option<Instant>,
}

impl<B> Pipeline<B> {
    /// A run that begins now: its first command is there to be polled. Errors: a configuration that contradicts itself.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut pipeline = Self {
            now,
            commands: VecDeque::new(),
            calls: Calls::new(config.retry),
            epoch: Epoch::default(),
            build_limit: Limit::new(config.limits.builds, config.limits.adaptive),
            flush_limit: Limit::new(1, false),
            capture: Capture::default(),
            resolve: Resolve::new(config.limits.resolve_changes),
            dirty: Dirty::new(config.batch),
            flights: Flights::default(),
            ack: Ack::default(),
            seeding: Seeding::default(),
            ending: Ending::default(),
            quarantined: BTreeSet::new(),
            quarantined_count: 0,
            builds: 0,
            visibility: None,
            live_cuts: 0,
            live_flushes: 0,
            told_caught_up: true,
            stalled: false,
            lag_exceeded: false,
            lag_at: None,
            cursors_at: None,
            config,
        };
        pipeline.make(Purpose::Describe, 1);
        Ok(pipeline)
    }

    /// Takes what happened at `now`. Errors: a [`Misuse`], which leaves the state unchanged.
    pub fn handle(&mut self, now: Instant, event: Event<B>) -> Result<(), Misuse> {
        let call = self.admit(now, &event)?;
        self.now = now;
        self.on_event(event, call);
        self.on_time();
        self.advance();
        #[cfg(debug_assertions)]
        self.check_while_small();
        Ok(())
    }

    /// The next thing to do; `None` until the next event.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<Command<B>> {
        self.commands.pop_front()
    }

    /// When to come back with [`Event::Elapsed`] at the latest, and why; `None` where only another event can matter.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        if self.ending.is_over() {
            return None;
        }
        let attempts =
            self.calls.made().map(|(_, call)| (call.deadline, Timer::Attempt(call.purpose.stage())));
        let retries = self.calls.waiting().map(|(at, purpose, _)| (at, Timer::Retry(purpose.stage())));
        let units = [Lane::Live, Lane::Backfill]
            .into_iter()
            .filter(|lane| !self.ending.is_halting() && self.has_room(*lane))
            .filter_map(|lane| Some((self.dirty.due_at(lane)?, Timer::Unit(lane))));
        let others = [
            self.cursors_at.map(|at| (at, Timer::Cursor)),
            self.stalled_at().map(|at| (at, Timer::Stalled)),
            self.lag_at.map(|at| (at, Timer::Lag)),
            self.ending.drain_deadline().map(|at| (at, Timer::Drain)),
            self.ending.grace_deadline().map(|at| (at, Timer::Grace)),
            self.scan_deadline().map(|at| (at, Timer::Attempt(Stage::Scan))),
            self.verified_at().map(|at| (at, Timer::Verify)),
        ];
        let all = attempts.chain(retries).chain(units).chain(others.into_iter().flatten());
        all.min().map(|(at, why)| (at.max(self.now), why))
    }

    /// How much more of a lane it takes at once: changes of the capture, or rows of the snapshot. Checkpoints need no
    /// room. At zero do not poll.
    #[must_use]
    pub fn capacity(&self, lane: Lane) -> usize {
        if self.ending.is_ending() {
            return 0;
        }
        match lane {
            Lane::Live if self.capture.is_open() => {
                self.config.limits.changes.saturating_sub(self.ack.changes.len())
            }
            Lane::Live => 0,
            Lane::Backfill => self.scan_capacity(),
        }
    }

    fn on_event(&mut self, event: Event<B>, call: Option<Call>) {
        if let (Some(id), Some(call)) = (event.call(), call) {
            self.learn(&event, call);
            self.calls.answered(id);
        }
        match (event, call) {
            (Event::Begun { result, .. }, Some(call)) => self.on_begun(call, result),
            (Event::Described { result, .. }, Some(call)) => self.on_described(call, result),
            (Event::QuarantineLoaded { result, .. }, Some(call)) => self.on_quarantine_loaded(call, result),
            (Event::Opened { result, .. }, Some(call)) => self.on_opened(call, result),
            (Event::Captured { items, then }, _) => self.on_captured(items, then),
            (Event::CaptureFailed { fault }, _) => self.on_capture_failed(fault),
            (Event::Resolved { result, .. }, Some(call)) => self.on_resolved(call, result),
            (Event::Built { result, bytes, .. }, Some(call)) => self.on_built(call, result, bytes),
            (Event::Flushed { result, .. }, Some(call)) => self.on_flushed(call, result),
            (Event::Compared { result, .. }, Some(call)) => self.on_compared(call, result),
            (Event::Listed { result, .. }, Some(call)) => self.on_listed(call, result),
            (Event::SeedRead { result, .. }, Some(call)) => self.on_seed_read(call, result),
            (Event::Scanned { call, keys, then }, _) => self.on_scanned(call, keys, then),
            (Event::ScanFailed { call, fault }, _) => self.on_scan_failed(call, fault),
            (Event::LagRead { result, .. }, Some(_)) => self.on_lag_read(result),
            (Event::Done { call: id, result }, Some(call)) => match result {
                Ok(()) => self.on_done(id, call),
                Err(fault) => self.on_fault(call, fault),
            },
            (Event::Elapsed, _) => {}
            (Event::Drain { deadline }, _) => self.on_drain(deadline),
            (Event::Reindex { index }, _) => self.on_reindex(&index),
            (Event::Verify { index }, _) => self.on_verify(&index),
            (
                Event::Begun { .. }
                | Event::Described { .. }
                | Event::QuarantineLoaded { .. }
                | Event::Opened { .. }
                | Event::Resolved { .. }
                | Event::Built { .. }
                | Event::Flushed { .. }
                | Event::Compared { .. }
                | Event::Listed { .. }
                | Event::SeedRead { .. }
                | Event::LagRead { .. }
                | Event::Done { .. },
                None,
            ) => {}
        }
    }

    fn on_done(&mut self, id: CallId, call: Call) {
        match call.purpose {
            Purpose::Ensure(at) => self.on_ensured(at),
            Purpose::CaughtUp => {}
            Purpose::Quarantine(part) => self.on_part_done(part),
            Purpose::Release(part) => self.on_part_done(part),
            Purpose::Ack => self.ack.on_confirmed(),
            Purpose::Clear(index) => self.on_cleared(index),
            Purpose::SaveCursor(index) => self.on_cursor_saved(index),
            Purpose::Scan => self.on_scan_opened(id, call.attempt),
            Purpose::MarkSeeded(index) => self.on_marked(index),
            Purpose::Park(index) => self.on_parked(index),
            Purpose::Begin
            | Purpose::Describe
            | Purpose::LoadQuarantine
            | Purpose::Open
            | Purpose::Resolve(_)
            | Purpose::Build(_)
            | Purpose::Flush(_)
            | Purpose::Compare(_)
            | Purpose::List(_)
            | Purpose::ReadSeed(_)
            | Purpose::ReadLag => {}
        }
    }

    /// Whatever is due by now.
    fn on_time(&mut self) {
        if self.ending.drain_deadline().is_some_and(|at| at <= self.now) {
            self.halt(None);
        }
        while let Some((id, call)) = self.calls.take_overdue(self.now) {
            self.commands.push_back(Command::Abandon { call: id });
            let limit = self.config.retry.attempt_timeout;
            let fault = Fault::transient(alloc::format!("no answer within {limit:?}"));
            self.learn_overload(call);
            match call.purpose {
                Purpose::ReadLag => self.on_lag_read(Err(fault)),
                Purpose::Begin
                | Purpose::Describe
                | Purpose::Ensure(_)
                | Purpose::LoadQuarantine
                | Purpose::Open
                | Purpose::Resolve(_)
                | Purpose::Build(_)
                | Purpose::Flush(_)
                | Purpose::Compare(_)
                | Purpose::List(_)
                | Purpose::CaughtUp
                | Purpose::Quarantine(_)
                | Purpose::Release(_)
                | Purpose::Ack
                | Purpose::ReadSeed(_)
                | Purpose::Clear(_)
                | Purpose::SaveCursor(_)
                | Purpose::Scan
                | Purpose::MarkSeeded(_)
                | Purpose::Park(_) => self.on_fault(call, fault),
            }
        }
        self.watch_scan();
        while let Some((purpose, attempt)) = self.calls.take_due(self.now) {
            self.make_again(purpose, attempt);
        }
        self.watch();
    }

    /// Everything that can be done without another event, in flow order.
    fn advance(&mut self) {
        if self.ending.is_halting() {
            self.send_ack();
            return self.finish_if_halted();
        }
        self.take_resolved();
        self.start_resolves();
        self.advance_seeding();
        self.advance_verifications();
        self.send_ack();
        self.start_builds();
        self.start_flushes();
        self.tell_caught_up();
        self.finish_if_done();
    }

    fn send_ack(&mut self) {
        self.ack.advance();
        if self.ack.is_ready() {
            self.make(Purpose::Ack, 1);
        }
    }

    /// A call failed: it is made again later, or the run halts. Where it halts already, the last acknowledgement alone is
    /// worth another attempt.
    fn on_fault(&mut self, call: Call, fault: Fault) {
        if self.ending.is_halting() && call.purpose != Purpose::Ack {
            return;
        }
        let again = match fault.kind() {
            FaultKind::Transient => self.calls.failed(call, &fault, self.now),
            FaultKind::Content | FaultKind::Fatal => Again::Never,
        };
        let stage = call.purpose.stage();
        match again {
            Again::After(delay) => {
                self.notify(Notice::Retried { stage, attempt: call.attempt, delay, fault });
            }
            Again::Never => self.halt_failed(stage, call.attempt, fault),
        }
    }

    /// Makes a call whose delay has passed. A build and a flush wait for their turn.
    fn make_again(&mut self, purpose: Purpose, attempt: u32) {
        match purpose {
            Purpose::Flush(part) | Purpose::Compare(part) => {
                self.flights.set_attempt(part, attempt);
                self.flights.ready(part);
            }
            Purpose::Build(unit) => self.flights.build_ready(unit, attempt),
            Purpose::Begin
            | Purpose::Describe
            | Purpose::Ensure(_)
            | Purpose::LoadQuarantine
            | Purpose::Open
            | Purpose::Resolve(_)
            | Purpose::List(_)
            | Purpose::CaughtUp
            | Purpose::Quarantine(_)
            | Purpose::Release(_)
            | Purpose::Ack
            | Purpose::ReadSeed(_)
            | Purpose::Clear(_)
            | Purpose::SaveCursor(_)
            | Purpose::Scan
            | Purpose::MarkSeeded(_)
            | Purpose::Park(_)
            | Purpose::ReadLag => self.make(purpose, attempt),
        }
    }

    /// Makes a call, from what its stage holds for it. Nothing where nobody needs it any more.
    fn make(&mut self, purpose: Purpose, attempt: u32) {
        let next = self.calls.peek();
        let command = match purpose {
            Purpose::Begin => Some(Command::Begin { call: next }),
            Purpose::Describe => Some(Command::Describe { call: next }),
            Purpose::Ensure(at) => {
                self.capture.mapping(at).map(|mapping| Command::Ensure { call: next, mapping })
            }
            Purpose::LoadQuarantine => Some(Command::LoadQuarantine { call: next }),
            Purpose::Open => Some(Command::Open { call: next }),
            Purpose::Resolve(group) => {
                self.resolve.changes(group).map(|changes| Command::Resolve { call: next, changes })
            }
            Purpose::Build(unit) => self.build_command(next, unit),
            Purpose::Flush(part) => self.flush_command(next, part),
            Purpose::Compare(part) => match self.flights.part(part) {
                Some(Part::Compare(writes)) => Some(Command::Compare { call: next, writes: writes.clone() }),
                Some(Part::Flush(..) | Part::Quarantine(..) | Part::Release(..) | Part::Parked(..))
                | None => None,
            },
            Purpose::List(index) => self.list_command(next, index),
            Purpose::CaughtUp => {
                // A retry tells it only where it still holds; else the sink is told once it does again.
                self.told_caught_up &= self.is_caught_up();
                self.told_caught_up.then_some(Command::CaughtUp { call: next })
            }
            Purpose::Quarantine(part) | Purpose::Release(part) => match self.flights.part(part) {
                Some(Part::Quarantine(documents, _)) => {
                    Some(Command::Quarantine { call: next, documents: documents.clone() })
                }
                Some(Part::Release(documents, _)) => {
                    Some(Command::Release { call: next, documents: documents.clone() })
                }
                Some(Part::Compare(..) | Part::Flush(..) | Part::Parked(..)) | None => None,
            },
            Purpose::Ack => match (self.seeding.stream.clone(), self.ack.send()) {
                (Some(stream), Some(position)) => Some(Command::Ack { call: next, stream, position }),
                _ => None,
            },
            Purpose::ReadSeed(index) => self.seeding.seed(index).map(|seed| Command::ReadSeed {
                call: next,
                index: self.seeding.get(index).name.clone(),
                seed,
            }),
            Purpose::Clear(index) => {
                let index = self.seeding.get(index);
                let name = index.name.clone();
                // What is gone is to be found no longer; else what is held is better than nothing.
                Some(match index.truncated {
                    true => Command::Clear { call: next, index: name },
                    false => Command::Rebuild { call: next, index: name },
                })
            }
            // What holds no more is not remembered once more.
            Purpose::SaveCursor(index) | Purpose::MarkSeeded(index)
                if matches!(
                    self.seeding.get(index).stage,
                    seeding::Stage::Shut | seeding::Stage::Parking
                ) =>
            {
                None
            }
            Purpose::SaveCursor(index) => self.seeding.seed(index).map(|seed| {
                let index = self.seeding.get(index);
                let after = index.cursor.clone();
                Command::SaveCursor { call: next, index: index.name.clone(), seed, after }
            }),
            Purpose::Scan => self.seeding.scan.as_ref().map(|scan| Command::Scan {
                call: next,
                table: scan.table.clone(),
                after: scan.after.clone(),
                visibility: self.seeding.sees(scan),
            }),
            Purpose::MarkSeeded(index) => self.seeding.seed(index).map(|seed| Command::MarkSeeded {
                call: next,
                index: self.seeding.get(index).name.clone(),
                seed,
            }),
            Purpose::Park(index) => self.seeding.seed(index).map(|seed| Command::Park {
                call: next,
                index: self.seeding.get(index).name.clone(),
                seed,
            }),
            Purpose::ReadLag => Some(Command::ReadLag { call: next }),
        };
        if let Some(command) = command {
            let made = self.calls.make(purpose, attempt, self.now);
            debug_assert_eq!(made, next, "a command carries the id of its call");
            self.commands.push_back(command);
        }
    }

    fn abandon(&mut self, which: impl Fn(Purpose) -> bool) {
        for call in self.calls.abandon(which) {
            self.commands.push_back(Command::Abandon { call });
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.commands.push_back(Command::Notify(notice));
    }

    fn stalled_at(&self) -> Option<Instant> {
        let since = self.ack.since().filter(|_| !self.stalled)?;
        Some(since.after(self.config.alarms.unacknowledged_age))
    }

    /// The alarms.
    fn watch(&mut self) {
        let age = self.ack.since().map(|since| self.now.since(since));
        let old = age.filter(|age| *age >= self.config.alarms.unacknowledged_age);
        if let Some(age) = old.filter(|_| !self.stalled) {
            self.notify(Notice::Stalled(age));
        }
        self.stalled = old.is_some();
        if self.lag_at.is_some_and(|at| at <= self.now) {
            self.lag_at = None;
            if !self.ending.is_ending() {
                self.make(Purpose::ReadLag, 1);
            }
        }
    }

    /// A lag that cannot be read is no reason to stop; it is tried again the next time.
    fn on_lag_read(&mut self, result: Result<Option<u64>, Fault>) {
        let again = self.now.after(self.config.alarms.lag_interval);
        match result {
            Ok(Some(bytes)) => {
                self.notify(Notice::Lag(bytes));
                let exceeded = self.config.alarms.lag_bytes.is_some_and(|limit| bytes > limit);
                if exceeded && !self.lag_exceeded {
                    self.notify(Notice::LagExceeded(bytes));
                }
                self.lag_exceeded = exceeded;
                self.lag_at = Some(again);
            }
            Ok(None) => self.lag_at = None,
            Err(fault) => {
                let delay = self.config.alarms.lag_interval;
                self.notify(Notice::Retried { stage: Stage::Lag, attempt: 1, delay, fault });
                self.lag_at = Some(again);
            }
        }
    }
}
