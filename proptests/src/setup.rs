//! The limits of a run and the shape of its world, as data.

use std::time::Duration;

use proptest::prelude::{Strategy, prop};
use syncline::{Config, FailurePolicies, FailurePolicy};

/// A world and how a run in it is configured. Any values are legal: those that would contradict each other are raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Setup {
    /// Indexes over the one table.
    pub indexes: u8,
    /// Each change touches the document of the neighbouring row as well.
    pub joined: bool,
    /// The indexes are seeded from their table; else they follow the changes alone.
    pub scopes: bool,
    /// The rows that are there from the start, where indexes are seeded.
    pub rows: u8,
    /// Bodies differ in size; else each is one byte.
    pub sized: bool,
    /// Rejected documents are skipped; else they end the run.
    pub skip: bool,
    /// An index of which a document is rejected stops alone, where it has a scope.
    pub park: bool,
    /// Every second index has another policy than the first: the next one of stopping, skipping, parking.
    pub mixed: bool,
    /// Skipped documents are recorded in a quarantine.
    pub quarantine: bool,
    /// Indexes that could be seeded are not, and follow the changes alone.
    pub skip_backfill: bool,
    /// See [`BatchPolicy`](syncline::BatchPolicy), as the next four.
    pub max_changes: u8,
    /// The most documents of a unit.
    pub max_documents: u8,
    /// The most bytes of a flush.
    pub max_bytes: u8,
    /// The longest wait of a unit.
    pub max_delay_ms: u8,
    /// See [`Limits`](syncline::Limits), as the next eight.
    pub changes: u8,
    /// The dirty limit.
    pub documents: u8,
    /// Resolves at once.
    pub resolves: u8,
    /// Changes of one resolve.
    pub resolve_changes: u8,
    /// Builds at once. With three or more of these or of flushes, how many there are adapts where `units` is even.
    pub builds: u8,
    /// Flushes at once.
    pub flushes: u8,
    /// Units at once.
    pub units: u8,
    /// Rows that are owed.
    pub backfill_rows: u8,
    /// One unit in so many is a backfilled one.
    pub backfill_share: u8,
    /// How often a call is tried.
    pub attempts: u8,
    /// The first delay of a retry; at zero there is no jitter either.
    pub delay_ms: u8,
    /// How long a call may take.
    pub timeout_s: u8,
    /// How often cursors are saved.
    pub cursor_ms: u8,
    /// Where not zero, indexes with a scope are seeded from the start, but someone has changed by hand what the sink holds
    /// under these keys. Searchers that draw at random do so themselves.
    #[cfg_attr(feature = "arbitrary", arbitrary(value = 0))]
    pub tampered: u8,
}

impl Setup {
    /// The smallest world: one of everything, no waits.
    pub const SMALL: Self = Self {
        indexes: 1,
        joined: false,
        scopes: false,
        rows: 0,
        sized: false,
        skip: true,
        park: false,
        mixed: false,
        quarantine: false,
        skip_backfill: false,
        max_changes: 2,
        max_documents: 2,
        max_bytes: 255,
        max_delay_ms: 0,
        changes: 4,
        documents: 4,
        resolves: 1,
        resolve_changes: 2,
        builds: 1,
        flushes: 1,
        units: 1,
        backfill_rows: 2,
        backfill_share: 2,
        attempts: 9,
        delay_ms: 0,
        timeout_s: 60,
        cursor_ms: 200,
        tampered: 0,
    };

    /// Indexes there are.
    pub fn indexes(&self) -> u8 {
        self.indexes.clamp(1, 3)
    }

    /// Whether indexes are seeded from their table.
    pub fn seeds(&self) -> bool {
        self.scopes && !self.skip_backfill
    }

    /// What becomes of rejected documents of the index of this number. One that nobody could seed anew cannot stop alone.
    pub fn policy(&self, at: usize) -> FailurePolicy {
        match self.given_policy(at) {
            FailurePolicy::Park if !self.seeds() => FailurePolicy::Stop,
            policy => policy,
        }
    }

    fn given_policy(&self, at: usize) -> FailurePolicy {
        let first = match (self.park, self.skip) {
            (true, _) => FailurePolicy::Park,
            (false, true) => FailurePolicy::Skip,
            (false, false) => FailurePolicy::Stop,
        };
        match first {
            policy if at.is_multiple_of(2) || !self.mixed => policy,
            FailurePolicy::Stop => FailurePolicy::Skip,
            FailurePolicy::Skip => FailurePolicy::Park,
            _ => FailurePolicy::Stop,
        }
    }

    /// Whether the policies of some indexes are this one.
    pub fn has_policy(&self, policy: FailurePolicy) -> bool {
        (0..self.indexes().into()).any(|at| self.policy(at) == policy)
    }

    /// The configuration of the run. It never contradicts itself.
    pub fn config(&self) -> Config {
        let at_least_one = |value: u8| usize::from(value.max(1));
        let mut config = Config::default();
        config.batch.max_changes = at_least_one(self.max_changes);
        config.batch.max_documents = at_least_one(self.max_documents);
        config.batch.max_bytes = at_least_one(self.max_bytes);
        config.batch.max_delay = Duration::from_millis(self.max_delay_ms.into());
        config.limits.changes = at_least_one(self.changes);
        config.limits.documents = at_least_one(self.documents);
        config.limits.resolves = at_least_one(self.resolves);
        config.limits.resolve_changes = at_least_one(self.resolve_changes);
        config.limits.builds = at_least_one(self.builds);
        config.limits.flushes = at_least_one(self.flushes);
        config.limits.adaptive = self.builds.max(self.flushes) > 2 && self.units.is_multiple_of(2);
        config.limits.units = at_least_one(self.units).max(config.limits.builds).max(config.limits.flushes);
        config.limits.backfill_rows = at_least_one(self.backfill_rows);
        config.limits.backfill_share = self.backfill_share.max(1).into();
        config.retry.attempts = self.attempts.max(1).into();
        config.retry.delay_min = Duration::from_millis(self.delay_ms.into());
        config.retry.delay_max = config.retry.delay_min * 4;
        config.retry.attempt_timeout = Duration::from_secs(self.timeout_s.max(1).into());
        config.cursor_interval = Duration::from_millis(self.cursor_ms.max(1).into());
        config.grace = config.retry.attempt_timeout * 2;
        // An alarm changes nothing, and its timer would go round for ever.
        config.alarms.unacknowledged_age = Duration::MAX;
        config.quarantine = self.quarantine;
        config.skip_backfill = self.skip_backfill;
        config.failure_policies =
            FailurePolicies::new(self.given_policy(0)).with_override("index1", self.given_policy(1));
        config
    }
}

/// A world and its limits.
pub fn any() -> impl Strategy<Value = Setup> {
    let seeded = (prop::bool::ANY, prop::bool::weighted(0.1));
    let world = (1_u8..4, prop::bool::ANY, seeded, prop::num::u8::ANY, prop::bool::ANY);
    let failed = (prop::bool::weighted(0.8), prop::bool::weighted(0.25), prop::bool::weighted(0.25));
    let policy = (failed, prop::bool::ANY, 2_u8..12, 0_u8..3, 5_u8..60);
    let batch = (1_u8..6, 1_u8..7, 1_u8..100, 0_u8..3);
    let limits = (1_u8..12, 1_u8..12, 1_u8..4, 1_u8..5, 1_u8..4, 1_u8..4, 0_u8..6, 1_u8..7, 1_u8..5);
    (world, policy, batch, limits).prop_map(|(world, policy, batch, limits)| {
        let (indexes, joined, (scopes, skip_backfill), rows, sized) = world;
        let ((skip, park, mixed), quarantine, attempts, delay, timeout_s) = policy;
        let (max_changes, max_documents, max_bytes, max_delay) = batch;
        let (changes, documents, resolves, resolve_changes, builds, flushes, units, rows_owed, share) =
            limits;
        Setup {
            indexes,
            joined,
            scopes,
            rows,
            sized,
            skip,
            park,
            mixed,
            quarantine,
            skip_backfill,
            max_changes,
            max_documents,
            max_bytes,
            max_delay_ms: max_delay * 20,
            changes,
            documents,
            resolves,
            resolve_changes,
            builds,
            flushes,
            units,
            backfill_rows: rows_owed,
            backfill_share: share,
            attempts,
            delay_ms: delay * 30,
            timeout_s,
            cursor_ms: 50,
            tampered: 0,
        }
    })
}

/// A world in which every limit is at its least, or just above.
pub fn tight() -> impl Strategy<Value = Setup> {
    let limits = (1_u8..3, 1_u8..3, 1_u8..3, 1_u8..3, 1_u8..3);
    (any(), limits).prop_map(|(setup, limits)| {
        let (changes, documents, backfill_rows, max_documents, resolve_changes) = limits;
        let single = Setup { resolves: 1, builds: 1, flushes: 1, units: 1, max_bytes: 1, ..setup };
        Setup { changes, documents, backfill_rows, max_documents, resolve_changes, ..single }
    })
}
