//! A plan with the engine killed at every point of its run: at every poll of its task, and at both sides of every request,
//! one at a time and in pairs.
//!
//! A run is what it was up to the first kill, so the points of the plan's own run are all there are for a first one. What
//! comes after it is another run, whose points are taken from itself: those of a second kill follow the first one's
//! restart, however far apart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::marks::Mark;
use crate::outcome::{Failure, Outcome};
use crate::plan::{Act, At, Fault, Node, Plan};
use crate::run::simulate;

/// How long a killed engine is down.
const RESTART_MS: u64 = 1;

/// Which pairs are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// None.
    None,
    /// For each first kill one in so many of the second ones, beginning with another one for each, so that all places are
    /// met. 1: all.
    OneIn(usize),
}

/// What the kills of a plan came to, together.
#[derive(Debug, Clone, Default)]
pub struct Kills {
    /// Points at which it was killed, one at a time.
    pub singles: usize,
    /// Pairs of points at which it was killed.
    pub pairs: usize,
    /// Pairs that there are.
    pub pairs_all: usize,
    /// How many runs met each mark.
    pub marks: BTreeMap<Mark, usize>,
    /// Where it was killed, and what broke.
    pub failures: Vec<(Vec<At>, Failure)>,
}

/// The plan with the engine killed at these points too.
#[must_use]
pub fn with_kills(plan: &Plan, at: &[At]) -> Plan {
    let kills =
        at.iter().map(|at| Fault { at: *at, act: Act::Kill { node: Node::Engine, restart_ms: RESTART_MS } });
    let mut faults = plan.faults.clone();
    faults.extend(kills);
    Plan { faults, ..plan.clone() }
}

/// Kills the engine at every point of a plan, so many runs at a time. `progress` is told how many of the first kills are
/// done. Errors: the plan fails without any kill.
pub fn kill_points(
    plan: &Plan,
    pairs: Pairs,
    jobs: usize,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Kills, Failure> {
    let route = simulate(plan)?.route;
    let next = AtomicUsize::new(0);
    let kills = Mutex::new(Kills::default());
    let work = || loop {
        let first = next.fetch_add(1, Ordering::Relaxed);
        let Some(at) = route.get(first) else { return };
        let killed = kill_at(plan, *at, first, pairs);
        let mut kills = kills.lock().unwrap_or_else(PoisonError::into_inner);
        kills.add(killed);
        progress(kills.singles, route.len());
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let mut kills = kills.into_inner().unwrap_or_else(PoisonError::into_inner);
    kills.failures.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(kills)
}

/// One first kill, with its second ones.
fn kill_at(plan: &Plan, at: At, first: usize, pairs: Pairs) -> Kills {
    let mut kills = Kills { singles: 1, ..Kills::default() };
    let Some(outcome) = kills.take(vec![at], simulate(&with_kills(plan, &[at]))) else { return kills };
    let after = outcome.route.iter().position(|passed| *passed == at).map_or(0, |place| place + 1);
    let seconds = outcome.route.get(after..).unwrap_or_default();
    kills.pairs_all = seconds.len();
    if let Pairs::OneIn(step) = pairs {
        for second in seconds.iter().skip(first % step.max(1)).step_by(step.max(1)) {
            kills.pairs += 1;
            kills.take(vec![at, *second], simulate(&with_kills(plan, &[at, *second])));
        }
    }
    kills
}

impl Kills {
    /// Books a run; its outcome where it held.
    fn take(&mut self, at: Vec<At>, result: Result<Outcome, Failure>) -> Option<Outcome> {
        let (outcome, failure) = match result {
            Ok(outcome) => (outcome, None),
            Err(failure) => (Outcome::default(), Some(failure)),
        };
        for mark in outcome.marks.keys() {
            *self.marks.entry(*mark).or_default() += 1;
        }
        if let Some(failure) = failure {
            self.failures.push((at, Failure { outcome: Box::default(), ..failure }));
            return None;
        }
        Some(outcome)
    }

    fn add(&mut self, other: Self) {
        self.singles += other.singles;
        self.pairs += other.pairs;
        self.pairs_all += other.pairs_all;
        for (mark, count) in other.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}
