//! The plain settings: a world in which everything works at once, with limits that are not met.

use crate::plan::{Engine, Network, Sink, Source, Span};

/// No time.
const NONE: Span = Span { min: 0, max: 0 };

impl Default for Source {
    fn default() -> Self {
        Self {
            before_images: true,
            stream_items: 20,
            keepalive_ms: 500,
            visible_us: NONE,
            replica_lag_us: NONE,
            durable_confirms: 1,
            page_rows: 10,
            query_us: NONE,
            refuses_builds: false,
            restarts_positions: false,
            says_more: false,
            scan_lag_us: 0,
        }
    }
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            checks_versions: true,
            checks_epochs: true,
            concurrency: 1,
            stage_us: NONE,
            sync_us: NONE,
            request_documents: 0,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { latency_us: Span { min: 200, max: 400 }, lost_ppm: 0 }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            max_changes: 100,
            max_documents: 100,
            max_bytes: 100_000,
            max_delay_ms: 0,
            changes: 1000,
            documents: 1000,
            resolves: 1,
            resolve_changes: 100,
            builds: 1,
            flushes: 1,
            units: 2,
            backfill_rows: 100,
            backfill_share: 2,
            adaptive: false,
            retry_min_ms: 5,
            retry_max_ms: 20,
            attempts: 6,
            attempt_ms: 300,
            cursor_interval_ms: 200,
            grace_ms: 50,
            restart_ms: 1,
            alarm_ms: 2000,
        }
    }
}
