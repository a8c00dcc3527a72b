//! Who is told what the engine does.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{EngineError, Fault, RejectedDocument, Stage};
use crate::name::IndexName;
use crate::pipeline::Verified;

/// Which of the two flows of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Changes as they are captured.
    Live,
    /// Rows that a snapshot reads to seed an index.
    Backfill,
}

/// What one unit of work did, once all of it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchStats {
    /// Which flow it belonged to.
    pub lane: Lane,
    /// The changes counted in it: those that brought a new document, or touched one while the unit was still open.
    pub changes: usize,
    /// The documents it wrote or deleted; those that were quarantined are not counted.
    pub documents: usize,
    /// The same by index, in the order of their names.
    pub documents_by_index: Vec<(IndexName, usize)>,
    /// From the first flush call of the unit to the answer of the last.
    pub flush: Duration,
}

/// Hears what the engine does. The calls are made from the engine's own task, between two steps: they should be quick
/// and must not block. Every method has a default that does nothing.
pub trait Observer: Send + Sync + 'static {
    /// This many indexes have been ensured.
    fn on_indexes_ensured(&self, count: usize) {
        let _ = count;
    }

    /// These indexes will be seeded.
    fn on_backfill_started(&self, indexes: &[IndexName]) {
        let _ = indexes;
    }

    /// An index has been seeded and marked.
    fn on_index_seeded(&self, index: &IndexName) {
        let _ = index;
    }

    /// No index is left to seed, or the backfill is skipped.
    fn on_backfill_completed(&self) {}

    /// Live changes flow: the first one was captured, or the backfill is over.
    fn on_live_started(&self) {}

    /// This many changes were captured at once.
    fn on_changes_captured(&self, count: usize) {
        let _ = count;
    }

    /// A unit of work is durable.
    fn on_batch_committed(&self, stats: &BatchStats) {
        let _ = stats;
    }

    /// A document was quarantined after so many attempts.
    fn on_document_quarantined(&self, document: &RejectedDocument, attempts: u32) {
        let _ = (document, attempts);
    }

    /// A document that stood in quarantine was written, and its record is gone.
    fn on_document_released(&self, id: &crate::document::DocumentId) {
        let _ = id;
    }

    /// The index of this document has stopped alone, because of it: see [`FailurePolicy::Park`](crate::FailurePolicy::Park).
    fn on_index_parked(&self, document: &RejectedDocument) {
        let _ = document;
    }

    /// An index has been compared with its source: see [`Running::verify`](crate::Running::verify).
    fn on_index_verified(&self, verified: &Verified) {
        let _ = verified;
    }

    /// The `attempt`th attempt of a call failed, and it will be made again after `delay`.
    fn on_retry(&self, stage: Stage, attempt: u32, delay: Duration, fault: &Fault) {
        let _ = (stage, attempt, delay, fault);
    }

    /// The oldest change that is not acknowledged is this old: older than the alarm's limit. Told once until it is young
    /// again.
    fn on_stalled(&self, oldest_age: Duration) {
        let _ = oldest_age;
    }

    /// The source's lag, each time it is read.
    fn on_lag(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The source's lag is larger than the alarm's limit. Told once until it is smaller again.
    fn on_lag_exceeded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The run ends with this error.
    fn on_error(&self, error: &EngineError) {
        let _ = error;
    }
}

/// Hears nothing: the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NoopObserver;

impl Observer for NoopObserver {}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*)),* $(,)?) => {$(
        fn $method(&self, $($argument: $type),*) {
            (**self).$method($($argument),*);
        }
    )*};
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    forward! {
        on_indexes_ensured(count: usize),
        on_backfill_started(indexes: &[IndexName]),
        on_index_seeded(index: &IndexName),
        on_backfill_completed(),
        on_live_started(),
        on_changes_captured(count: usize),
        on_batch_committed(stats: &BatchStats),
        on_document_quarantined(document: &RejectedDocument, attempts: u32),
        on_document_released(id: &crate::document::DocumentId),
        on_index_parked(document: &RejectedDocument),
        on_index_verified(verified: &Verified),
        on_retry(stage: Stage, attempt: u32, delay: Duration, fault: &Fault),
        on_stalled(oldest_age: Duration),
        on_lag(bytes: u64),
        on_lag_exceeded(bytes: u64),
        on_error(error: &EngineError),
    }
}
