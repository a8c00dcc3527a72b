//! How a run ends: its stream has ended and nothing is owed; or it is drained; or it halts.
//!
//! A halt starts nothing new, lets the flushes that are under way settle, and sends the last acknowledgement that is
//! safe, all within a grace period. A drain stops the intake, works off what is owed until its deadline, saves the
//! cursors of the backfill, and then does the same.

use alloc::string::String;

use crate::error::{EngineError, Fault, Stage};
use crate::pipeline::calls::Purpose;
use crate::pipeline::{Command, Phase, Pipeline, Report, seeding};
use crate::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Ending {
    drain: Option<Instant>,
    halt: Option<Halt>,
    over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Halt {
    error: Option<EngineError>,
    until: Instant,
}

impl Ending {
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_halting(&self) -> bool {
        self.halt.is_some() || self.over
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some() && !self.is_halting()
    }

    /// Whether nothing new is taken in.
    pub(super) fn is_ending(&self) -> bool {
        self.drain.is_some() || self.is_halting()
    }

    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        self.drain.filter(|_| !self.is_halting())
    }

    pub(super) fn grace_deadline(&self) -> Option<Instant> {
        self.halt.as_ref().filter(|_| !self.over).map(|halt| halt.until)
    }

    /// The error that a halt will report.
    pub(super) fn error(&self) -> Option<&EngineError> {
        self.halt.as_ref()?.error.as_ref()
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match (self.over, &self.halt, &self.drain) {
            (true, _, _) => Some(Phase::Ended),
            (false, Some(_), _) => Some(Phase::Halting),
            (false, None, Some(_)) => Some(Phase::Draining),
            (false, None, None) => None,
        }
    }
}

impl<B> Pipeline<B> {
    pub(super) fn on_drain(&mut self, deadline: Instant) {
        if self.ending.is_halting() {
            return;
        }
        let earliest = self.ending.drain.map_or(deadline, |known| known.min(deadline));
        self.ending.drain = Some(earliest);
        self.close_scan();
        self.seeding.stop_verifying();
        self.lag_at = None;
        let ends = |purpose| matches!(purpose, Purpose::Open | Purpose::List(_) | Purpose::ReadLag);
        self.abandon(ends);
        if !self.capture.is_started() {
            self.halt(None);
        }
    }

    /// Starts nothing new. The first error is the one that is reported.
    pub(super) fn halt(&mut self, error: Option<EngineError>) {
        if self.ending.is_halting() {
            return;
        }
        self.ending.halt = Some(Halt { error, until: self.now.after(self.config.grace) });
        self.close_scan();
        self.seeding.stop_verifying();
        self.lag_at = None;
        self.flights.clear_ready();
        self.abandon(|purpose| !purpose.outlives_halt());
        let ack_waits = self.calls.forget_retries().contains(&Purpose::Ack);
        if ack_waits {
            // The last chance for what is durable not to be given again.
            self.make(Purpose::Ack, 1);
        }
    }

    pub(super) fn halt_contract(&mut self, stage: Stage, what: String) {
        self.halt(Some(EngineError::Contract { stage, what }));
    }

    pub(super) fn halt_failed(&mut self, stage: Stage, attempts: u32, fault: Fault) {
        self.halt(Some(EngineError::Failed { stage, attempts, fault }));
    }

    /// Ends a halt once nothing is under way that could still be acknowledged, or its grace is over.
    pub(super) fn finish_if_halted(&mut self) {
        let is_over = self.ending.grace_deadline().is_none_or(|at| at <= self.now);
        if is_over || (self.calls.under_way(|_| true) == 0 && !self.calls.is_pending(Purpose::Ack)) {
            self.finish();
        }
    }

    /// Ends the run once nothing is owed and nothing will come.
    pub(super) fn finish_if_done(&mut self) {
        let draining = self.ending.is_draining();
        if !(draining || self.capture.has_ended()) {
            return;
        }
        // A document in flight is among those of the dirty set.
        let worked_off =
            self.resolve.is_empty() && self.dirty.documents() == 0 && !self.seeding.owes_a_clear();
        let seeded = self.seeding.is_done();
        let saved =
            self.seeding.indexes.iter().all(|index| !index.saving && index.stage != seeding::Stage::Marking);
        let told = !self.calls.is_pending(Purpose::CaughtUp) && !self.seeding.is_verifying();
        if worked_off && self.ack.is_settled() && told && (seeded || (draining && saved)) {
            self.finish();
        }
    }

    /// The run is over: everything that is still under way is dropped.
    pub(super) fn finish(&mut self) {
        self.abandon(|_| true);
        self.close_scan();
        self.ending.over = true;
        let error = self.ending.halt.take().and_then(|halt| halt.error);
        let unseeded = self.seeding.indexes.iter().filter(|index| !index.is_done());
        let parked = self.seeding.indexes.iter().filter(|index| index.stage == seeding::Stage::Parked);
        let outcome = match error {
            Some(error) => Err(error),
            None => Ok(Report {
                started: self.capture.is_started(),
                captured: self.ack.changes.pushed(),
                acknowledged: self.ack.acknowledged(),
                unacknowledged: self.ack.unacknowledged(),
                unseeded: unseeded.map(|index| index.name.clone()).collect(),
                parked: parked.map(|index| index.name.clone()).collect(),
                quarantined: self.quarantined_count,
            }),
        };
        self.commands.push_back(Command::Finish(outcome));
    }
}
