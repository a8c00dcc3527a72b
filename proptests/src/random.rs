//! Operations at random: how they are drawn, how many, and what is printed where one list of them fails.
//!
//! `PROPTESTS_CASES` sets the number of cases, `PROPTESTS_SECONDS` searches on, with other seeds, until so much time has
//! passed, `PROPTESTS_SEED` begins with another seed, and `PROPTESTS_SHRINKS` says how often a failing case is cut down
//! at the most. Without them a suite does the same on every machine.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a search has a budget of real time")]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::drive::Drive;
use crate::op::{self, Op};
use crate::setup::{self, Setup};

/// A world, and what happens in it.
pub fn case() -> impl Strategy<Value = (Setup, Vec<Op>)> {
    (setup::any(), vec(op::any(), 1..250))
}

/// A world with no room to spare, and what happens in it.
pub fn tight_case() -> impl Strategy<Value = (Setup, Vec<Op>)> {
    (setup::tight(), vec(op::any(), 1..250))
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Searches for a value that the property refuses, and panics with the smallest one found, as Rust.
pub fn search<S>(name: &str, cases: u32, strategy: S, property: impl Fn(S::Value))
where
    S: Strategy,
    S::Value: Debug + Clone,
{
    let cases = setting("PROPTESTS_CASES").map_or(cases, |cases| cases.try_into().unwrap_or(u32::MAX));
    let until = setting("PROPTESTS_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = setting("PROPTESTS_SEED").unwrap_or_default();
    let shrinks = setting("PROPTESTS_SHRINKS").map_or(20_000, |most| most.try_into().unwrap_or(u32::MAX));
    for seed in first.. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config =
            Config { cases, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
        let outcome = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
            property(value);
            Ok::<(), TestCaseError>(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, value)) => {
                panic!("{name}, seed {seed}: {why}\nits smallest case, as Rust:\n{value:?}")
            }
            Err(TestError::Abort(why)) => panic!("{name}, seed {seed}: {why}"),
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            return;
        }
    }
}

/// What happens in a world, from its beginning.
pub fn run(setup: Setup, ops: &[Op]) -> Drive {
    let mut drive = Drive::new(setup);
    ops.iter().for_each(|op| drive.step(*op));
    drive
}

/// A searcher that never met a hard case proves nothing about it.
pub fn demand(met: &BTreeSet<&'static str>, demanded: &[&'static str]) {
    for mark in demanded {
        assert!(
            met.contains(mark),
            "no run met: {mark} (which says something where there are as many cases as without PROPTESTS_CASES); met: {met:?}"
        );
    }
}

/// What random runs must have met.
pub const HARD: [&str; 40] = [
    "a difference was found",
    "a call failed",
    "a call failed for good",
    "a call was refused",
    "a parked index reindexed",
    "abandoned",
    "build halved",
    "capture failed",
    "cleared",
    "confirmed",
    "crashed between flush and ack",
    "crashed while seeding",
    "crashed with documents in flight",
    "cursor saved",
    "drained",
    "drained at the start",
    "finished",
    "flush halved",
    "halted",
    "held as it should be",
    "late release",
    "late write",
    "misuse",
    "overslept",
    "parked",
    "quarantined",
    "rebuilt",
    "reindexed",
    "released",
    "retried",
    "scan failed",
    "scan resumed",
    "seeded",
    "some were not built",
    "stale answer",
    "stream lost",
    "the stream ended",
    "throttled",
    "truncated",
    "truncated while seeding",
];
