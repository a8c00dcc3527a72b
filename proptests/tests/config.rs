//! A configuration that contradicts itself is refused, and one that does not is taken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

use std::time::Duration;

use proptest::prelude::*;
use proptests::model::State;
use proptests::random::search;
use syncline::Config;
use syncline::config::ConfigError;
use syncline::pipeline::Pipeline;
use syncline::time::Instant;

/// The most of anything that is counted.
const MOST: usize = 1 << 30;

/// A count: at the edges more often than between them.
fn count() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1_usize..6, 1 => Just(0), 1 => Just(MOST), 1 => Just(MOST + 1)]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![4 => (1_u64..60).prop_map(Duration::from_secs), 1 => Just(Duration::ZERO)]
}

fn config() -> impl Strategy<Value = Config> {
    let batch = (count(), count(), prop_oneof![9 => Just(1_usize), 1 => Just(0), 1 => Just(usize::MAX)]);
    let limits = (count(), count(), count(), count(), count(), count(), count(), count(), 0_u32..9);
    let retry = (0_u32..9, duration(), duration(), duration());
    let others = (duration(), duration(), duration());
    (batch, limits, retry, others).prop_map(|(batch, limits, retry, others)| {
        let mut config = Config::default();
        (config.batch.max_changes, config.batch.max_documents, config.batch.max_bytes) = batch;
        let to = &mut config.limits;
        (to.changes, to.documents, to.resolves, to.resolve_changes, ..) = limits;
        (_, _, _, _, to.builds, to.flushes, to.units, to.backfill_rows, to.backfill_share) = limits;
        let to = &mut config.retry;
        (to.attempts, to.delay_min, to.delay_max, to.attempt_timeout) = retry;
        let alarms = &mut config.alarms;
        (config.cursor_interval, alarms.lag_interval, alarms.unacknowledged_age) = others;
        config
    })
}

/// Every value that must not be zero, with its name; whether it is counted.
fn values(config: &Config) -> Vec<(&'static str, u128, bool)> {
    let Config { batch, limits, retry, alarms, .. } = config;
    let count = |name, value: usize| (name, value as u128, true);
    let time = |name, value: Duration| (name, value.as_nanos(), false);
    vec![
        count("batch.max_changes", batch.max_changes),
        count("batch.max_documents", batch.max_documents),
        ("batch.max_bytes", batch.max_bytes as u128, false),
        count("limits.changes", limits.changes),
        count("limits.documents", limits.documents),
        count("limits.resolves", limits.resolves),
        count("limits.resolve_changes", limits.resolve_changes),
        count("limits.builds", limits.builds),
        count("limits.flushes", limits.flushes),
        count("limits.units", limits.units),
        count("limits.backfill_rows", limits.backfill_rows),
        count("limits.backfill_share", limits.backfill_share as usize),
        ("retry.attempts", retry.attempts.into(), false),
        time("retry.attempt_timeout", retry.attempt_timeout),
        time("cursor_interval", config.cursor_interval),
        time("alarms.lag_interval", alarms.lag_interval),
        time("alarms.unacknowledged_age", alarms.unacknowledged_age),
    ]
}

#[test]
fn b15_a_configuration_is_refused_exactly_where_it_contradicts_itself() {
    search("config", 20_000, config(), |config| {
        let values = values(&config);
        let zero = |field: &str| values.iter().any(|(name, value, _)| *name == field && *value == 0);
        let large = |field: &str| {
            values.iter().any(|(name, value, counted)| *name == field && *counted && *value > MOST as u128)
        };
        let (limits, retry) = (config.limits, config.retry);
        let inverted = [
            ("limits.builds", limits.builds > limits.units),
            ("limits.flushes", limits.flushes > limits.units),
            ("retry.delay_min", retry.delay_min > retry.delay_max),
        ];
        match config.check() {
            Ok(()) => {
                assert!(!values.iter().any(|(name, ..)| zero(name) || large(name)), "{config:?}");
                assert!(!inverted.iter().any(|(_, inverted)| *inverted), "{config:?}");
            }
            Err(ConfigError::Zero { field }) => assert!(zero(field), "{field} of {config:?}"),
            Err(ConfigError::TooLarge { field, value, limit }) => {
                assert!(large(field) && value > limit && limit == MOST, "{field} of {config:?}");
            }
            Err(ConfigError::Inverted { less, .. }) => {
                assert!(inverted.contains(&(less, true)), "{less} of {config:?}");
            }
            Err(other) => panic!("{other}"),
        }
    });
}

/// What is refused is refused before anything has happened.
#[test]
fn b15_no_run_begins_with_a_configuration_that_contradicts_itself() {
    search("refusal", 2000, config(), |config| {
        let refused = config.check().err();
        assert_eq!(Pipeline::<State>::new(config, Instant::ORIGIN).err(), refused);
    });
}
