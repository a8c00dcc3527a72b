//! A run that was started, as its program holds it.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::driver::turns::Shared;
use crate::error::EngineError;
use crate::pipeline::{Report, Status};

/// A run of an [`Engine`](crate::Engine). Dropping it ends the run where it stands: nothing is acknowledged that is not
/// durable, and the next run is given the rest again.
#[derive(Debug)]
pub struct Running {
    shared: Shared,
    task: JoinHandle<Result<Report, EngineError>>,
}

impl Running {
    pub(super) fn new(shared: Shared, task: JoinHandle<Result<Report, EngineError>>) -> Self {
        Self { shared, task }
    }

    /// The run as it was when its task last waited; its oldest change is as old as it is now. Cheap.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Asks the run to take nothing new in, to work off what is owed within this time, and to end. Returns at once; the
    /// outcome tells what would be replayed. Of several requests the earliest deadline holds.
    pub fn request_drain(&self, within: Duration) {
        self.shared.request_drain(within);
    }

    /// Drains the run and waits for its end: see [`request_drain`](Self::request_drain) and [`outcome`](Self::outcome).
    pub async fn drain(self, within: Duration) -> Result<Report, EngineError> {
        self.request_drain(within);
        self.outcome().await
    }

    /// Waits for the end of the run. Errors: why it ended; [`EngineError::Stopped`] where a port panicked, or the runtime
    /// was shut down.
    pub async fn outcome(mut self) -> Result<Report, EngineError> {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(EngineError::Stopped(error.to_string())),
        }
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
