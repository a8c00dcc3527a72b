//! The limits of a run, small, so that they are met.

use std::time::Duration;

use arbitrary::Arbitrary;
use syncline::{Config, FailurePolicies, FailurePolicy};

use super::raw::index;

/// How a run is configured. Any values are legal.
#[derive(Debug, Arbitrary)]
pub(super) struct Case {
    max_changes: u8,
    max_documents: u8,
    max_bytes: u8,
    max_delay_ms: u8,
    changes: u8,
    documents: u8,
    resolves: u8,
    resolve_changes: u8,
    builds: u8,
    flushes: u8,
    units: u8,
    backfill_rows: u8,
    backfill_share: u8,
    attempts: u8,
    delay_ms: u8,
    alarm_ms: u8,
    default: Policy,
    overrides: Vec<(u8, Policy)>,
    quarantine: bool,
    skip_backfill: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Policy {
    Stop,
    Skip,
    Park,
}

impl Policy {
    fn build(self) -> FailurePolicy {
        match self {
            Self::Stop => FailurePolicy::Stop,
            Self::Skip => FailurePolicy::Skip,
            Self::Park => FailurePolicy::Park,
        }
    }
}

impl Case {
    pub(super) fn config(&self) -> Config {
        let at_most = |value: u8, most: u8| usize::from(value % most) + 1;
        let mut config = Config::default();
        config.batch.max_changes = at_most(self.max_changes, 8);
        config.batch.max_documents = at_most(self.max_documents, 8);
        config.batch.max_bytes = at_most(self.max_bytes, 100);
        config.batch.max_delay = Duration::from_millis(self.max_delay_ms.into());
        config.limits.changes = at_most(self.changes, 16);
        config.limits.documents = at_most(self.documents, 16);
        config.limits.resolves = at_most(self.resolves, 4);
        config.limits.resolve_changes = at_most(self.resolve_changes, 8);
        config.limits.builds = at_most(self.builds, 4);
        config.limits.flushes = at_most(self.flushes, 4);
        config.limits.adaptive = self.units >= 128;
        config.limits.units = at_most(self.units, 8).max(config.limits.builds).max(config.limits.flushes);
        config.limits.backfill_rows = at_most(self.backfill_rows, 8);
        config.limits.backfill_share = u32::from(self.backfill_share % 4) + 1;
        config.retry.attempts = u32::from(self.attempts % 8) + 1;
        config.retry.delay_min = Duration::from_millis(self.delay_ms.into());
        config.retry.delay_max = config.retry.delay_min * 4;
        config.alarms.unacknowledged_age = Duration::from_millis(u64::from(self.alarm_ms) + 1);
        config.alarms.lag_bytes = Some(self.alarm_ms.into());
        config.cursor_interval = Duration::from_millis(u64::from(self.delay_ms) + 1);
        config.quarantine = self.quarantine;
        config.skip_backfill = self.skip_backfill;
        let default = FailurePolicies::new(self.default.build());
        config.failure_policies = self.overrides.iter().fold(default, |policies, (number, policy)| {
            policies.with_override(index(*number).as_str(), policy.build())
        });
        config
    }
}
