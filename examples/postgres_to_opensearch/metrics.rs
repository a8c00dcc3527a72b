//! What is measured: what the run tells of itself at any moment, and what an observer hears on the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncline::error::{EngineError, Fault, Stage};
use syncline::pipeline::{Phase, Status};
use syncline::ports::{BatchStats, Observer};

/// What was heard so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    units: u64,
    flush: Duration,
    /// By index.
    documents: BTreeMap<String, u64>,
    /// By the call that failed.
    retries: BTreeMap<String, u64>,
    lag_bytes: Option<u64>,
    /// A build or a flush has failed since a unit was durable.
    failing: bool,
    failure: Option<String>,
}

impl Metrics {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has failed, where the program cannot go on.
    pub(crate) fn failure(&self) -> Option<String> {
        self.heard().failure.clone()
    }

    /// This has failed, and the program cannot go on.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        self.heard().failure = Some(what.into());
    }

    /// All of it, as Prometheus reads it.
    pub(crate) fn text(&self, status: &Status) -> String {
        let heard = self.heard();
        let mut page = Page::default();
        let phases = [Phase::Starting, Phase::Running, Phase::Draining, Phase::Halting, Phase::Ended];
        let phases = phases.map(|phase| (format!("{phase:?}").to_lowercase(), phase == status.phase));
        page.labelled(
            "phase",
            "gauge",
            "What the run is doing.",
            "phase",
            phases.map(|(name, is)| (name, u8::from(is))),
        );
        page.one(
            "caught_up",
            "gauge",
            "Whether all that the source had is durable.",
            u8::from(status.caught_up),
        );
        page.one("changes_captured_total", "counter", "Changes captured by this run.", status.captured);
        page.one(
            "changes_durable_total",
            "counter",
            "Changes for which nothing is owed any more.",
            status.durable,
        );
        page.one("documents_dirty", "gauge", "Documents that are owed a build.", status.dirty);
        page.one("documents_in_flight", "gauge", "Documents being built or written.", status.in_flight);
        let oldest = status.oldest_unacknowledged.unwrap_or_default().as_secs_f64();
        page.one(
            "oldest_unacknowledged_seconds",
            "gauge",
            "The age of the oldest change not acknowledged.",
            oldest,
        );
        if let Some(position) = status.acknowledged {
            page.one(
                "acknowledged_position",
                "gauge",
                "The last position confirmed to the source.",
                position.0,
            );
        }
        if let Some(bytes) = heard.lag_bytes {
            page.one("lag_bytes", "gauge", "How much of its log the source keeps for this run.", bytes);
        }
        page.labelled(
            "retries_total",
            "counter",
            "Calls made again, by what they do.",
            "call",
            &heard.retries,
        );
        page.one(
            "documents_quarantined_total",
            "counter",
            "Documents that were skipped.",
            status.quarantined,
        );
        page.labelled(
            "documents_total",
            "counter",
            "Documents written or deleted.",
            "index",
            &heard.documents,
        );
        page.one("units_total", "counter", "Units of work that are durable.", heard.units);
        let flush = heard.flush.as_secs_f64();
        page.one("flush_seconds_total", "counter", "The time that their flushes took.", flush);
        let indexes = || status.indexes.iter().map(|index| (index.index.to_string(), index));
        let seeded = indexes().map(|(name, index)| (name, u8::from(index.seeded)));
        page.labelled("index_seeded", "gauge", "Whether every row of its table was read.", "index", seeded);
        let read = indexes().map(|(name, index)| (name, index.rows_read));
        page.labelled("index_rows_read_total", "counter", "Rows of its table that were read.", "index", read);
        let durable = indexes().map(|(name, index)| (name, index.rows_durable));
        page.labelled("index_rows_durable_total", "counter", "Those that are durable.", "index", durable);
        page.0
    }
}

impl Observer for Metrics {
    fn on_batch_committed(&self, stats: &BatchStats) {
        let mut heard = self.heard();
        heard.units += 1;
        heard.flush += stats.flush;
        if std::mem::take(&mut heard.failing) {
            tracing::info!("units become durable again");
        }
        for (index, documents) in &stats.documents_by_index {
            *heard.documents.entry(index.to_string()).or_default() += *documents as u64;
        }
    }

    fn on_retry(&self, stage: Stage, _attempt: u32, _delay: Duration, _fault: &Fault) {
        let mut heard = self.heard();
        *heard.retries.entry(stage.to_string()).or_default() += 1;
        heard.failing |= matches!(stage, Stage::Build | Stage::Flush);
    }

    fn on_lag(&self, bytes: u64) {
        self.heard().lag_bytes = Some(bytes);
    }

    fn on_error(&self, error: &EngineError) {
        self.fail(match error {
            EngineError::Failed { stage, .. } => format!("{stage} failed"),
            EngineError::DocumentsRejected(count, _) => format!("{count} document(s) rejected"),
            EngineError::Contract { stage, .. } => format!("{stage} broke its contract"),
            _ => "it was stopped".to_owned(),
        });
    }
}

/// The text format of Prometheus.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP syncline_{name} {help}\n# TYPE syncline_{name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "syncline_{name} {value}");
    }

    /// One value for each label.
    fn labelled<L: std::fmt::Display, V: std::fmt::Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.head(name, kind, help);
        for (of, value) in values {
            let of = of.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(self.0, "syncline_{name}{{{label}=\"{of}\"}} {value}");
        }
    }
}
