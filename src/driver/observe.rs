//! Notices as an observer hears them, and as logs tell them.

use crate::error::EngineError;
use crate::pipeline::{Notice, Report, Verified};
use crate::ports::Observer;

pub(super) fn observe(observer: &dyn Observer, notice: &Notice) {
    match notice {
        Notice::IndexesEnsured(count) => {
            tracing::info!(indexes = count, "indexes ensured");
            observer.on_indexes_ensured(*count);
        }
        Notice::BackfillStarted(indexes) => {
            tracing::info!(?indexes, "backfill started");
            observer.on_backfill_started(indexes);
        }
        Notice::IndexSeeded(index) => {
            tracing::info!(%index, "index seeded");
            observer.on_index_seeded(index);
        }
        Notice::BackfillCompleted => {
            tracing::info!("backfill completed");
            observer.on_backfill_completed();
        }
        Notice::LiveStarted => {
            tracing::info!("live changes flow");
            observer.on_live_started();
        }
        Notice::Captured(count) => {
            tracing::trace!(changes = count, "captured");
            observer.on_changes_captured(*count);
        }
        Notice::Committed(stats) => {
            let flush_ms = stats.flush.as_secs_f64() * 1000.0;
            tracing::debug!(lane = ?stats.lane, changes = stats.changes, documents = stats.documents, flush_ms, "unit durable");
            observer.on_batch_committed(stats);
        }
        Notice::Quarantined(document, attempts) => {
            tracing::warn!(document = %document.id, reason = %document.reason, attempts, "document quarantined");
            observer.on_document_quarantined(document, *attempts);
        }
        Notice::Released(id) => {
            tracing::info!(document = %id, "document released from the quarantine");
            observer.on_document_released(id);
        }
        Notice::Parked(document) => {
            tracing::error!(index = %document.id.index, document = %document.id, reason = %document.reason, "index parked");
            observer.on_index_parked(document);
        }
        Notice::Verified(verified) if verified.different == 0 => {
            tracing::info!(index = %verified.index, compared = verified.compared, "index verified");
            observer.on_index_verified(verified);
        }
        Notice::Verified(verified) => {
            let Verified { index, compared, different, documents } = verified;
            tracing::error!(%index, compared, different, ?documents, "index differed from its source");
            observer.on_index_verified(verified);
        }
        Notice::Retried { stage, attempt, delay, fault } => {
            let delay_ms = delay.as_millis() as u64;
            tracing::warn!(%stage, attempt, delay_ms, %fault, "failed, to be tried again");
            observer.on_retry(*stage, *attempt, *delay, fault);
        }
        Notice::Stalled(age) => {
            tracing::warn!(
                oldest_age_ms = age.as_millis() as u64,
                "stalled: the oldest change is not acknowledged"
            );
            observer.on_stalled(*age);
        }
        Notice::Lag(bytes) => {
            tracing::trace!(lag_bytes = bytes, "lag read");
            observer.on_lag(*bytes);
        }
        Notice::LagExceeded(bytes) => {
            tracing::warn!(lag_bytes = bytes, "the source's lag exceeds its limit");
            observer.on_lag_exceeded(*bytes);
        }
    }
}

pub(super) fn observe_end(observer: &dyn Observer, outcome: &Result<Report, EngineError>) {
    match outcome {
        Ok(report) => tracing::info!(
            captured = report.captured,
            unacknowledged = report.unacknowledged,
            acknowledged = report.acknowledged.map(|position| position.0),
            "run ended"
        ),
        Err(error) => {
            tracing::error!(%error, "run failed");
            observer.on_error(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;
    use crate::name::IndexName;

    /// Keeps how severe each event was.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for Levels {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    struct Deaf;

    impl Observer for Deaf {}

    #[test]
    fn b17_an_index_that_differed_is_an_error_in_the_log_and_one_that_did_not_is_none() {
        let levels = Levels::default();
        tracing::subscriber::with_default(levels.clone(), || {
            for different in [0, 1] {
                let index = IndexName::new("users").unwrap();
                let verified = Verified { index, compared: 7, different, documents: Vec::new() };
                observe(&Deaf, &Notice::Verified(verified));
            }
        });
        assert_eq!(*levels.0.lock().unwrap(), [Level::INFO, Level::ERROR]);
    }
}
