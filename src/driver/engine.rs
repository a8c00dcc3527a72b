//! The engine as an embedder sees it: three ports, and settings.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Alarms, BatchPolicy, Config, FailurePolicies, Limits, RetryPolicy};
use crate::driver::edges::Edges;
use crate::driver::handle::Running;
use crate::driver::shared::{self, Watch};
use crate::driver::turns;
use crate::error::EngineError;
use crate::pipeline::Report;
use crate::ports::{
    BoxQuarantine, ChangeCapture, DocumentBuilder, NoQuarantine, NoopObserver, Observer, Quarantine, Sink,
};

/// A run that nobody polls yet.
#[cfg(all(madsim, feature = "__sim"))]
type BoxRun =
    std::pin::Pin<Box<dyn std::future::Future<Output = Result<Report, EngineError>> + Send + 'static>>;

/// Keeps a sink equal to what a source says: [`run`](Self::run) it, or [`start`](Self::start) it for a handle.
///
/// The three ports are taken by value; an [`Arc`] of a port is a port too, for a program that keeps a hold of it.
pub struct Engine<C, D, S> {
    capture: Arc<C>,
    documents: Arc<D>,
    sink: Arc<S>,
    observer: Arc<dyn Observer>,
    quarantine: BoxQuarantine,
    config: Config,
}

impl<C, D, S> std::fmt::Debug for Engine<C, D, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<C, D, S> Engine<C, D, S>
where
    C: ChangeCapture,
    D: DocumentBuilder,
    S: Sink<Body = D::Body>,
{
    /// An engine over these ports, with the default settings.
    pub fn new(capture: C, documents: D, sink: S) -> Self {
        Self {
            capture: Arc::new(capture),
            documents: Arc::new(documents),
            sink: Arc::new(sink),
            observer: Arc::new(NoopObserver),
            quarantine: BoxQuarantine::new(NoQuarantine),
            config: Config::default(),
        }
    }

    /// With someone who is told what it does. Default: [`NoopObserver`].
    #[must_use]
    pub fn with_observer(self, observer: impl Observer) -> Self {
        Self { observer: Arc::new(observer), ..self }
    }

    /// With a durable store of the documents that are skipped. Default: none; they are told to the observer alone.
    #[must_use]
    pub fn with_quarantine(mut self, quarantine: impl Quarantine) -> Self {
        self.quarantine = BoxQuarantine::new(quarantine);
        self.config.quarantine = true;
        self
    }

    /// How changes are grouped into units. Default: 256 changes, 1,024 documents, 8 MiB, 50 ms.
    #[must_use]
    pub fn with_batch(mut self, batch: BatchPolicy) -> Self {
        self.config.batch = batch;
        self
    }

    /// How many changes are held that are captured and still owed; at this many the source is not polled. Default: 8,192.
    #[must_use]
    pub fn with_queue_capacity(mut self, changes: usize) -> Self {
        self.config.limits.changes = changes;
        self
    }

    /// How much is held, and how much is done at once.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// What happens to documents that the sink rejects, or that cannot be built. Default: the run stops.
    #[must_use]
    pub fn with_failure_policies(mut self, policies: impl Into<FailurePolicies>) -> Self {
        self.config.failure_policies = policies.into();
        self
    }

    /// How transient failures are retried. Default: 10 attempts, from 100 ms to 30 s apart, of at most a minute each.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.config.retry = retry;
        self
    }

    /// When the observer is warned.
    #[must_use]
    pub fn with_alarms(mut self, alarms: Alarms) -> Self {
        self.config.alarms = alarms;
        self
    }

    /// Whether to start no scan and write no marker, whatever the sink reports. Default: no.
    #[must_use]
    pub fn skip_backfill(mut self, skip: bool) -> Self {
        self.config.skip_backfill = skip;
        self
    }

    /// How often the cursor of a backfill is saved. Default: every 5 s.
    #[must_use]
    pub fn with_cursor_interval(mut self, interval: Duration) -> Self {
        self.config.cursor_interval = interval;
        self
    }

    /// How long a run that must end waits for what is under way. Default: 10 s.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// Runs until the source's stream has ended and everything is durable and acknowledged, or until an error. Most
    /// sources never end; drop the future to stop it where it stands, or [`start`](Self::start) the engine to drain it.
    ///
    /// Errors: why the run ended. What was not durable by then was not acknowledged.
    pub async fn run(self) -> Result<Report, EngineError> {
        let (_watch, run) = self.split();
        run.await
    }

    /// Runs as a task of the current tokio runtime, until the handle is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime. Within one that has no timers the run ends with [`EngineError::Stopped`].
    pub fn start(self) -> Running {
        let (watch, run) = self.split();
        Running::new(watch, tokio::spawn(run))
    }

    /// [`start`](Self::start), with its task inside another one: the simulation counts how often it is polled, and ends
    /// it at each of those times.
    #[cfg(all(madsim, feature = "__sim"))]
    #[doc(hidden)]
    pub fn start_within<F>(self, around: impl FnOnce(BoxRun) -> F) -> Running
    where
        F: std::future::Future<Output = Result<Report, EngineError>> + Send + 'static,
    {
        let (watch, run) = self.split();
        Running::new(watch, tokio::spawn(around(Box::pin(run))))
    }

    fn split(
        self,
    ) -> (Watch, impl std::future::Future<Output = Result<Report, EngineError>> + Send + 'static) {
        let Self { capture, documents, sink, observer, quarantine, mut config } = self;
        // Runs that failed together must not come back together.
        config.retry.seed.get_or_insert_with(|| RandomState::new().hash_one(()));
        let edges = Edges { capture, documents, sink, quarantine };
        let (desk, watch) = shared::ends();
        let run = turns::run(edges, observer, config, desk);
        (watch, run)
    }
}
