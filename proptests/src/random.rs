//! Operations at random: how they are drawn, how many, and what is printed where one list of them fails.
//!
//! `PROPTESTS_CASES` sets the number of cases, `PROPTESTS_SECONDS` searches on, with other seeds, until so much time has
//! passed, and `PROPTESTS_SEED` begins with another seed. Without them a suite does the same on every machine.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a search has a budget of real time")]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::drive::Drive;
use crate::op::{Answer, Effect, Kind, Op, Wrong};
use crate::setup::Setup;

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![8 => Just(Kind::Transient), 3 => Just(Kind::Content), 1 => Just(Kind::Fatal)]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![Just(Effect::Nothing), Just(Effect::Half), Just(Effect::All), Just(Effect::Late)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        30 => Just(Answer::Done),
        2 => Just(Answer::Reversed),
        4 => (kind(), effect()).prop_map(|(kind, effect)| Answer::Failed(kind, effect)),
        4 => (kind(), 1_u8..16).prop_map(|(kind, mask)| Answer::Partly(kind, mask)),
    ]
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        Just(Wrong::TimeBack),
        Just(Wrong::NeverMade),
        Just(Wrong::OtherKind),
        Just(Wrong::TooManyChanges),
        Just(Wrong::TooManyRows),
        Just(Wrong::NoCapture),
    ]
}

/// One operation. Most of them let the run go on, so that it comes somewhere.
pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u8.., any::<u8>(), any::<u8>()).prop_map(|(rows, few, removed)| {
            Op::Commit(if rows & few == 0 { rows } else { rows & few }, removed & few)
        }),
        1 => Just(Op::Heartbeat),
        10 => (1_u8..6).prop_map(Op::Capture),
        1 => Just(Op::FailCapture(Kind::Transient)),
        40 => (0_u8..6, answer()).prop_map(|(at, how)| Op::Answer(at, how)),
        5 => (1_u8..4).prop_map(Op::Scan),
        1 => Just(Op::FailScan(Kind::Transient)),
        8 => Just(Op::Deadline),
        3 => any::<u8>().prop_map(Op::Wait),
        3 => any::<u8>().prop_map(Op::Land),
        2 => any::<u8>().prop_map(Op::Stale),
        1 => Just(Op::Repeat),
        1 => wrong().prop_map(Op::Misuse),
        1 => rare(),
    ]
}

fn rare() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Crash),
        1 => any::<u8>().prop_map(Op::Drain),
        1 => Just(Op::LoseStream),
        1 => Just(Op::End),
        1 => kind().prop_map(Op::FailCapture),
        1 => kind().prop_map(Op::FailScan),
        1 => (0_u8..6).prop_map(|at| Op::Answer(at, Answer::Wrong)),
    ]
}

/// A world and its limits.
pub fn setup() -> impl Strategy<Value = Setup> {
    let world = (1_u8..4, any::<bool>(), any::<bool>(), any::<u8>(), any::<bool>());
    let policy = (prop::bool::weighted(0.8), any::<bool>(), 2_u8..12, 0_u8..3, 5_u8..60);
    let batch = (1_u8..6, 1_u8..7, 1_u8..100, 0_u8..3);
    let limits = (1_u8..12, 1_u8..12, 1_u8..4, 1_u8..5, 1_u8..4, 1_u8..4, 0_u8..6, 1_u8..7, 1_u8..5);
    (world, policy, batch, limits).prop_map(|(world, policy, batch, limits)| {
        let (indexes, joined, scopes, rows, sized) = world;
        let (skip, quarantine, attempts, delay, timeout_s) = policy;
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
            quarantine,
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
        }
    })
}

/// A world, and what happens in it.
pub fn case() -> impl Strategy<Value = (Setup, Vec<Op>)> {
    (setup(), vec(op(), 1..250))
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
    for seed in first.. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config =
            Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
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
        assert!(met.contains(mark), "no run met: {mark}; met: {met:?}");
    }
}

/// What random runs must have met.
pub const HARD: [&str; 28] = [
    "a call failed",
    "a call failed for good",
    "a call was refused",
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
    "finished",
    "flush halved",
    "halted",
    "late release",
    "late write",
    "misuse",
    "quarantined",
    "released",
    "scan failed",
    "scan resumed",
    "seeded",
    "some were not built",
    "stale answer",
    "stream lost",
    "throttled",
];
