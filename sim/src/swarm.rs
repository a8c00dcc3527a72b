//! Many seeds at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::draw::draw;
use crate::marks::Mark;
use crate::outcome::{Failure, Outcome};
use crate::run::simulate;

/// What many seeds came to, together.
#[derive(Debug, Clone, Default)]
pub struct Swarm {
    /// How many there were.
    pub seeds: u64,
    /// How long that took, in real seconds.
    pub seconds: f64,
    /// How long the worlds lived, in their own time.
    pub simulated_us: u64,
    /// How often engines were started.
    pub starts: u64,
    /// How many transactions were committed.
    pub commits: u64,
    /// How many requests were served.
    pub requests: u64,
    /// How many documents were written durably.
    pub writes: u64,
    /// The faults that happened, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many seeds met each mark.
    pub marks: BTreeMap<Mark, u64>,
    /// The seeds that broke a promise, without their traces.
    pub failures: BTreeMap<u64, Failure>,
}

impl Swarm {
    /// The marks that no seed has met.
    #[must_use]
    pub fn unmet(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| !self.marks.contains_key(mark)).collect()
    }

    fn add(&mut self, seed: u64, result: Result<Outcome, Failure>) {
        let outcome = match &result {
            Ok(outcome) => outcome,
            Err(failure) => &failure.outcome,
        };
        self.seeds += 1;
        self.simulated_us += outcome.simulated_us;
        self.starts += outcome.starts;
        self.commits += outcome.commits;
        self.requests += outcome.requests;
        self.writes += outcome.writes;
        for (name, count) in &outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for mark in outcome.marks.keys() {
            *self.marks.entry(*mark).or_default() += 1;
        }
        if let Err(failure) = result {
            let outcome = Box::default();
            self.failures.insert(seed, Failure { outcome, ..failure });
        }
    }
}

/// Runs these seeds, so many at a time. `progress` is given a line to overwrite the last one with.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the rate is one of real time")]
pub fn swarm(seeds: Range<u64>, jobs: usize, progress: impl Fn(String) + Sync) -> Swarm {
    let began = std::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let count = seeds.end.saturating_sub(seeds.start).max(1);
    let swarm = Mutex::new(Swarm::default());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        let result = simulate(&draw(seed).0);
        let mut swarm = swarm.lock().unwrap_or_else(PoisonError::into_inner);
        swarm.add(seed, result);
        if swarm.seeds.is_multiple_of(50) || swarm.seeds == count {
            let rate = swarm.seeds as f64 / began.elapsed().as_secs_f64();
            let filled = (swarm.seeds * 30 / count) as usize;
            let bar = "#".repeat(filled) + &".".repeat(30 - filled);
            let broken = swarm.failures.len();
            progress(format!("\r[{bar}] {}/{count} seeds, {rate:.0}/s, {broken} broken ", swarm.seeds));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once(&seeds, jobs) {
            scope.spawn(work);
        }
    });
    let mut swarm = swarm.into_inner().unwrap_or_else(PoisonError::into_inner);
    swarm.seconds = began.elapsed().as_secs_f64();
    swarm
}

/// No more than there are seeds.
fn at_once(seeds: &Range<u64>, jobs: usize) -> usize {
    let count = seeds.end.saturating_sub(seeds.start);
    jobs.min(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The first of these seeds that breaks a promise, and how. `progress` is given a line to overwrite the last one with.
#[must_use]
pub fn first(seeds: Range<u64>, jobs: usize, progress: impl Fn(String) + Sync) -> Option<(u64, Failure)> {
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let is_over = |seed: u64| {
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        seed >= seeds.end || found.as_ref().is_some_and(|(first, _)| *first < seed)
    };
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if is_over(seed) {
            return;
        }
        if seed.is_multiple_of(20) {
            progress(format!("\rseed {seed} "));
        }
        if let Err(failure) = simulate(&draw(seed).0) {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                *found = Some((seed, failure));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once(&seeds, jobs) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
