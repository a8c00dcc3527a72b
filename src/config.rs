//! Every limit and delay of a run, checked once.

use alloc::collections::BTreeMap;
use core::time::Duration;

use smol_str::SmolStr;

use crate::name::IndexName;

/// How changes are grouped into units of work. A unit is closed by whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchPolicy {
    /// The most changes that are counted in a unit.
    pub max_changes: usize,
    /// The most documents of a unit: those that one change fans out to are spread over several.
    pub max_documents: usize,
    /// The most bytes of bodies that one flush carries; also closes a unit whose documents, judged by those built
    /// before, would be larger. A single larger body is flushed alone.
    pub max_bytes: usize,
    /// How long the first change of a unit waits for company. With zero a unit is closed as soon as there is room for a
    /// build: what arrives during one round trip is the next unit.
    pub max_delay: Duration,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self {
            max_changes: 256,
            max_documents: 1024,
            max_bytes: 8 << 20,
            max_delay: Duration::from_millis(50),
        }
    }
}

/// What happens where a document of an index is rejected by the sink, or cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The run ends, and nothing of that call is acknowledged.
    #[default]
    Stop,
    /// The document is quarantined and the run goes on.
    Skip,
    /// The index stops alone. That it did is durable in the sink before anything of it is acknowledged; then its documents
    /// are passed over, in later runs too, and it keeps what it holds, until it is
    /// [reindexed](crate::Running::reindex), or seeded for another stream or definition. The others go on. What nobody
    /// could seed again, an index without a scope, or any where the backfill is skipped, stops the run. A run that skips the
    /// backfill does not ask whether an index has stopped, and goes on with it as it is.
    Park,
}

/// The failure policy of each index: one for all, and those that differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FailurePolicies {
    default: FailurePolicy,
    overrides: BTreeMap<SmolStr, FailurePolicy>,
}

impl FailurePolicies {
    /// This policy for every index.
    #[must_use]
    pub fn new(default: FailurePolicy) -> Self {
        Self { default, overrides: BTreeMap::new() }
    }

    /// The same policies, but this one for the index of this name.
    #[must_use]
    pub fn with_override(mut self, index: impl AsRef<str>, policy: FailurePolicy) -> Self {
        self.overrides.insert(index.as_ref().into(), policy);
        self
    }

    /// The policy of an index.
    #[must_use]
    pub fn of(&self, index: &IndexName) -> FailurePolicy {
        self.overrides.get(index.as_str()).copied().unwrap_or(self.default)
    }
}

impl From<FailurePolicy> for FailurePolicies {
    fn from(policy: FailurePolicy) -> Self {
        Self::new(policy)
    }
}

/// How much the engine holds, and how much of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The most changes that are captured and still owed. At this many the source is not polled.
    pub changes: usize,
    /// No change is resolved while this many documents of live changes are dirty. What the outstanding resolves then
    /// fan out to comes on top.
    pub documents: usize,
    /// The most resolve calls at once.
    pub resolves: usize,
    /// The most changes of one resolve call.
    pub resolve_changes: usize,
    /// The most build calls at once.
    pub builds: usize,
    /// The most flush calls at once; a sink that takes fewer gets fewer (see
    /// [`Sink::concurrency`](crate::ports::Sink::concurrency)). Where there are several, a backfill leaves one to the live
    /// changes, once those flow.
    pub flushes: usize,
    /// The most units between the start of their build and the end of their flush, those included that wait for a retry.
    pub units: usize,
    /// The most snapshot rows that are read and still owed.
    pub backfill_rows: usize,
    /// Where live and backfilled units wait, one in so many is a backfilled one.
    pub backfill_share: u32,
    /// Whether `builds` and `flushes` are found by trying, between one and what is said here: raised while calls are
    /// answered as fast as before, and cut when they take longer, fail for the moment or are throttled. Off by default. With it,
    /// say more than you would otherwise, and as many `units`.
    pub adaptive: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            changes: 8192,
            documents: 16_384,
            resolves: 4,
            resolve_changes: 256,
            builds: 4,
            flushes: 1,
            units: 5,
            backfill_rows: 4096,
            backfill_share: 4,
            adaptive: false,
        }
    }
}

/// How transient failures are retried. The delay before the `n`th retry is drawn from the upper half of
/// `delay_min × 2ⁿ⁻¹`, at most `delay_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// The delay before the first retry.
    pub delay_min: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// How often one call, or one throttled document, is tried before the run halts.
    pub attempts: u32,
    /// How long an attempt may take. One that takes longer is given up and counts as failed; what it sent may still
    /// arrive.
    pub attempt_timeout: Duration,
    /// The seed of the jitter, for delays that can be told before. `None`: the driver draws one for each run.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            attempts: 10,
            attempt_timeout: Duration::from_secs(60),
            seed: None,
        }
    }
}

/// When the observer is warned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Alarms {
    /// When the oldest change that is not acknowledged is older than this.
    pub unacknowledged_age: Duration,
    /// When the source's lag is larger than this many bytes; `None` for never.
    pub lag_bytes: Option<u64>,
    /// How often the source is asked for its lag.
    pub lag_interval: Duration,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            unacknowledged_age: Duration::from_secs(60),
            lag_bytes: Some(1 << 30),
            lag_interval: Duration::from_secs(15),
        }
    }
}

/// Everything that is configured about a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// How changes are grouped.
    pub batch: BatchPolicy,
    /// What happens to documents that fail.
    pub failure_policies: FailurePolicies,
    /// How much is held.
    pub limits: Limits,
    /// How calls are retried.
    pub retry: RetryPolicy,
    /// When the observer is warned.
    pub alarms: Alarms,
    /// Whether a quarantine remembers the documents that are skipped. Without one they are told to the observer alone.
    pub quarantine: bool,
    /// Start no scan and write no marker, whatever the sink reports.
    pub skip_backfill: bool,
    /// How often the cursor of a backfill is saved. Not zero.
    pub cursor_interval: Duration,
    /// How long a run that must end waits for the flushes and acknowledgements that are under way.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch: BatchPolicy::default(),
            failure_policies: FailurePolicies::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            alarms: Alarms::default(),
            quarantine: false,
            skip_backfill: false,
            cursor_interval: Duration::from_secs(5),
            grace: Duration::from_secs(10),
        }
    }
}

/// A configuration that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// With this at zero nothing could ever happen, or nothing else.
    #[error("`{field}` is 0; it must be greater")]
    Zero {
        /// The field, with the struct it stands in.
        field: &'static str,
    },
    /// One value must not be greater than another.
    #[error("`{less}` ({less_value}) is greater than `{more}` ({more_value})")]
    Inverted {
        /// The field that must not be greater.
        less: &'static str,
        /// Its value.
        less_value: alloc::string::String,
        /// The field it must not exceed.
        more: &'static str,
        /// Its value.
        more_value: alloc::string::String,
    },
    /// A limit is larger than the engine counts to.
    #[error("`{field}` is {value}; at most {limit} is possible")]
    TooLarge {
        /// The field, with the struct it stands in.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The greatest value.
        limit: usize,
    },
}

/// The most of anything that is counted.
const COUNT_MAX: usize = 1 << 30;

impl Config {
    /// Checks every limit against the others. Errors: the first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { batch, limits, retry, alarms, cursor_interval, .. } = self;
        for (field, value) in [
            ("batch.max_changes", batch.max_changes),
            ("batch.max_documents", batch.max_documents),
            ("batch.max_bytes", batch.max_bytes),
            ("limits.changes", limits.changes),
            ("limits.documents", limits.documents),
            ("limits.resolves", limits.resolves),
            ("limits.resolve_changes", limits.resolve_changes),
            ("limits.builds", limits.builds),
            ("limits.flushes", limits.flushes),
            ("limits.units", limits.units),
            ("limits.backfill_rows", limits.backfill_rows),
            ("limits.backfill_share", limits.backfill_share as usize),
            ("retry.attempts", retry.attempts as usize),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
            if value > COUNT_MAX && field != "batch.max_bytes" && !field.starts_with("retry") {
                return Err(ConfigError::TooLarge { field, value, limit: COUNT_MAX });
            }
        }
        for (field, value) in [
            ("retry.attempt_timeout", retry.attempt_timeout),
            ("cursor_interval", *cursor_interval),
            ("alarms.lag_interval", alarms.lag_interval),
            ("alarms.unacknowledged_age", alarms.unacknowledged_age),
        ] {
            if value.is_zero() {
                return Err(ConfigError::Zero { field });
            }
        }
        for (less, less_value, more, more_value) in [
            ("limits.builds", limits.builds, "limits.units", limits.units),
            ("limits.flushes", limits.flushes, "limits.units", limits.units),
        ] {
            if less_value > more_value {
                let (less_value, more_value) =
                    (alloc::format!("{less_value}"), alloc::format!("{more_value}"));
                return Err(ConfigError::Inverted { less, less_value, more, more_value });
            }
        }
        if retry.delay_min > retry.delay_max {
            return Err(ConfigError::Inverted {
                less: "retry.delay_min",
                less_value: alloc::format!("{:?}", retry.delay_min),
                more: "retry.delay_max",
                more_value: alloc::format!("{:?}", retry.delay_max),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_a_configuration_that_contradicts_itself_names_both_sides() {
        assert_eq!(Config::default().check(), Ok(()));
        let mut config = Config::default();
        config.limits.units = 1;
        let message = config.check().unwrap_err().to_string();
        assert_eq!(message, "`limits.builds` (4) is greater than `limits.units` (1)");
        config = Config::default();
        config.batch.max_changes = 0;
        assert_eq!(config.check().unwrap_err().to_string(), "`batch.max_changes` is 0; it must be greater");
        config = Config { cursor_interval: Duration::ZERO, ..Config::default() };
        assert_eq!(config.check().unwrap_err().to_string(), "`cursor_interval` is 0; it must be greater");
        config = Config::default();
        config.retry.delay_min = Duration::from_secs(60);
        let message = config.check().unwrap_err().to_string();
        assert_eq!(message, "`retry.delay_min` (60s) is greater than `retry.delay_max` (30s)");
    }

    #[test]
    fn a_policy_set_per_index_overrides_the_global_one_in_both_directions() {
        let users = IndexName::new("users").unwrap();
        let books = IndexName::new("books").unwrap();
        let policies = FailurePolicies::new(FailurePolicy::Skip).with_override("users", FailurePolicy::Stop);
        assert_eq!((policies.of(&users), policies.of(&books)), (FailurePolicy::Stop, FailurePolicy::Skip));
        let policies = FailurePolicies::default().with_override("users", FailurePolicy::Skip);
        assert_eq!((policies.of(&users), policies.of(&books)), (FailurePolicy::Skip, FailurePolicy::Stop));
    }
}
