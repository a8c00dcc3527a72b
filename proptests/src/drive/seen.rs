//! What a check may see of a run.

use syncline::pipeline::{Command, Notice, Phase, Pipeline, Status};
use syncline::time::Instant;
use syncline::{Config, DocumentId, EngineError, FailurePolicy, IndexName, Lane, Position, Report};

use crate::drive::{Cause, Drive, Heard};
use crate::model::{Snapshot, State};
use crate::setup::Setup;

impl Drive {
    /// The limits of the run.
    pub fn config(&self) -> Config {
        self.setup.config()
    }

    /// The world's shape.
    pub fn setup(&self) -> Setup {
        self.setup
    }

    /// The pipeline at this moment.
    pub fn pipeline(&self) -> &Pipeline<State> {
        &self.pipeline
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.pipeline.status()
    }

    /// How much more of a lane it takes.
    pub fn capacity(&self, lane: Lane) -> usize {
        self.pipeline.capacity(lane)
    }

    /// Calls that are not answered, oldest first.
    pub fn open(&self) -> &[Command<State>] {
        &self.open
    }

    /// What becomes of rejected documents of an index.
    pub fn policy(&self, index: &IndexName) -> FailurePolicy {
        let at = self.model.indexes.iter().position(|known| known == index);
        self.setup.policy(at.expect("an index of this world"))
    }

    /// Whether the run takes nothing new.
    pub fn is_ending(&self) -> bool {
        matches!(self.status().phase, Phase::Draining | Phase::Halting | Phase::Ended)
    }

    /// Whether it starts nothing new.
    pub fn is_halting(&self) -> bool {
        matches!(self.status().phase, Phase::Halting | Phase::Ended)
    }

    /// What came when the run began to halt, or was over at once.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether the run was drained, or its stream has ended.
    pub fn may_end(&self) -> bool {
        self.may_end
    }

    /// Whether an index can be compared with its source.
    pub fn can_verify(&self, index: &IndexName) -> bool {
        self.pipeline.can_verify(index).is_ok()
    }

    /// How the run ended.
    pub fn finished(&self) -> Option<&Result<Report, EngineError>> {
        self.finished.as_ref()
    }

    /// What the observer heard in the last step.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// What the observer heard of this run.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Whether the sink has refused a document of which nothing may be skipped.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// How many items the open capture has ready.
    pub fn ready(&self) -> usize {
        self.capture.map_or(0, |at| self.model.log.len() - at)
    }

    /// Whether a capture is open.
    pub fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// The snapshot that is open.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whether this run has opened its capture.
    pub fn has_opened(&self) -> bool {
        self.has_opened
    }

    /// Whether the last poll of the capture found no more.
    pub fn told_idle(&self) -> bool {
        self.told_idle
    }

    /// How many indexes this run has ensured.
    pub fn ensured(&self) -> usize {
        self.ensured.len()
    }

    /// The newest position whose confirm was answered.
    pub fn acknowledged(&self) -> Option<Position> {
        self.acknowledged
    }

    /// Whether a confirm is under way, or waits to be made again.
    pub fn ack_is_pending(&self) -> bool {
        self.ack_pending
    }

    /// Whether what the sink was told last, of a flush or by itself, is that nothing live waits; true before any.
    pub fn heard_caught_up(&self) -> bool {
        self.heard_caught_up
    }

    /// Whether the sink is being told so still: what it is told next waits for the answer.
    pub fn caught_up_is_pending(&self) -> bool {
        let is_told = |open: &Command<State>| matches!(open, Command::CaughtUp { .. });
        self.open.iter().any(is_told) || self.caught_up_again.is_some_and(|at| at > self.now)
    }

    /// How many documents this run found in quarantine.
    pub fn retrials(&self) -> usize {
        self.retrials
    }

    /// The size of a document's body as it was built.
    pub fn bytes(&self, id: &DocumentId) -> usize {
        let state = self.model.built.get(id).copied().unwrap_or_default();
        self.model.bytes(&self.setup, id, state)
    }
}
