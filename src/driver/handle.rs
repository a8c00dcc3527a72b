//! A run that was started, as its program holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::driver::shared::{OfIndex, Watch};
use crate::error::EngineError;
use crate::name::IndexName;
use crate::pipeline::{Phase, Refusal, Report, Status, Verified};

/// A run of an [`Engine`](crate::Engine). Dropping it ends the run where it stands: nothing is acknowledged that is not
/// durable, and the next run is given the rest again.
///
/// All of its methods take it by reference, and none of their futures holds the run: dropping one leaves the run as it is.
#[derive(Debug)]
pub struct Running {
    watch: Watch,
    task: Mutex<Task>,
}

#[derive(Debug)]
enum Task {
    UnderWay(JoinHandle<Result<Report, EngineError>>),
    Over(Result<Report, EngineError>),
}

impl Running {
    pub(super) fn new(watch: Watch, task: JoinHandle<Result<Report, EngineError>>) -> Self {
        Self { watch, task: Mutex::new(Task::UnderWay(task)) }
    }

    /// The run as it was when its task last waited; its oldest change is as old as it is now. Cheap.
    #[must_use]
    pub fn status(&self) -> Status {
        self.watch.status()
    }

    /// Waits until the run looks like this, or is over. Returns the status as it is then.
    pub async fn until(&self, condition: impl Fn(&Status) -> bool + Send) -> Status {
        self.watch.until(|status| condition(status) || status.phase == Phase::Ended).await;
        self.status()
    }

    /// Waits until the run has [caught up](Status::caught_up) with its source. Returns whether it has: where not, it is
    /// over, and [`outcome`](Self::outcome) tells why.
    pub async fn caught_up(&self) -> bool {
        self.until(|status| status.caught_up).await.caught_up
    }

    /// Has an index [rebuilt](crate::ports::Sink::rebuild) and seeded anew, beside live changes and without stopping the run;
    /// so is one that had stopped alone ([`FailurePolicy::Park`](crate::FailurePolicy::Park)). Returns once the run has taken
    /// it up: wait [`until`](Self::until) its status is seeded again, or parked where a document of it fails once more. A run
    /// that dies before it has begun the index anew forgets the request; from then on the index is not seeded, and a later
    /// run goes on.
    ///
    /// Errors: why it cannot be, and [`Refusal::Ending`] where the run is over.
    pub async fn reindex(&self, index: &IndexName) -> Result<(), Refusal> {
        self.watch.request(OfIndex::Reindex, index).await.unwrap_or(Err(Refusal::Ending))
    }

    /// Has an index compared with its source, beside live changes: every document that has a row is built and compared with
    /// what the sink holds, and so is every document that the sink holds. What differs is written as it should be. Returns
    /// what was found, once all of it is written; where something was, after the time limit of an attempt, because a
    /// change that comes within it may be what was seen already. It takes the way of a scan, and its share of the builds;
    /// no other table is scanned meanwhile. Dropping the future leaves the verification as it is.
    ///
    /// Errors: why it cannot be, or [`Refusal::Interrupted`] where the index was cleared or has stopped before its end,
    /// and [`Refusal::Ending`] where the run ended.
    pub async fn verify(&self, index: &IndexName) -> Result<Arc<Verified>, Refusal> {
        self.watch.request(OfIndex::Verify, index).await.unwrap_or(Err(Refusal::Ending))?;
        let of_index = |status: &Status| status.indexes.iter().find(|of| of.index == *index).cloned();
        let status = self.until(|status| of_index(status).is_none_or(|of| !of.verifying)).await;
        let ended = if status.phase == Phase::Running { Refusal::Interrupted } else { Refusal::Ending };
        of_index(&status).and_then(|of| of.verified).ok_or(ended)
    }

    /// Asks the run to take nothing new in, to work off what is owed within this time, and to end. Returns at once; the
    /// outcome tells what would be replayed. Of several requests the earliest deadline holds.
    pub fn request_drain(&self, within: Duration) {
        self.watch.request_drain(within);
    }

    /// Drains the run and waits for its end: see [`request_drain`](Self::request_drain) and [`outcome`](Self::outcome).
    /// What has not been captured by now is not waited for; to work off all that the source has, wait until the run has
    /// [caught up](Self::caught_up) first.
    pub async fn drain(&self, within: Duration) -> Result<Report, EngineError> {
        self.request_drain(within);
        self.outcome().await
    }

    /// Waits for the end of the run. Errors: why it ended; [`EngineError::Stopped`] where a port panicked, or the runtime
    /// was shut down.
    pub async fn outcome(&self) -> Result<Report, EngineError> {
        let mut task = self.task.lock().await;
        let outcome = match &mut *task {
            Task::Over(outcome) => return outcome.clone(),
            Task::UnderWay(handle) => match handle.await {
                Ok(outcome) => outcome,
                Err(error) => Err(EngineError::Stopped(error.to_string())),
            },
        };
        *task = Task::Over(outcome.clone());
        outcome
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.watch.is_over()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Task::UnderWay(task) = self.task.get_mut() {
            task.abort();
        }
    }
}
