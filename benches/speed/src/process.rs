//! One scenario by one contestant, once, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::contestant::Contestant;
use crate::rounds::Contest;
use crate::scenarios::Scenario;

/// What a process is told first that is to do one piece of work.
pub const ONE: &str = "--one";

/// What waits for nothing is done over and over for so long: the system tells processor time in steps of some milliseconds.
const LEAST: Duration = Duration::from_millis(500);

/// What one run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// How long it took, in seconds: of processor time where the work waits for nothing, else by the clock.
    pub seconds: f64,
    /// The most memory the process ever had, in KiB, as the system counts it; zero where it does not tell.
    pub peak_kib: u64,
    /// How long each change took from its capture to its acknowledgement, where that was measured.
    pub latencies: Vec<Duration>,
}

/// Heap allocations of a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Allocations {
    /// All there were.
    pub all: u64,
    /// Those the edges make by themselves.
    pub edges: u64,
}

/// Does the work that [`sample`] asks for, if it is that which these arguments say. Prints what it came to.
///
/// # Panics
///
/// Where the work fails, or is of a scenario or contestant that there is not.
#[must_use]
pub fn measured(contests: &[Contest], arguments: &[String]) -> bool {
    let Some((scenario, contestant)) = asked(contests, arguments) else { return false };
    let is_busy = scenario.work.is_busy();
    let (begun, begun_busy) = (Instant::now(), processor_time());
    let spent = || {
        let busy = processor_time().zip(begun_busy).map(|(now, begun)| now - begun);
        busy.filter(|_| is_busy).unwrap_or_else(|| begun.elapsed())
    };
    let mut runs = 1;
    let mut outcome = contestant.run(scenario);
    while is_busy && spent() < LEAST {
        runs += 1;
        outcome = contestant.run(scenario);
    }
    let took = outcome.took.unwrap_or_else(|| spent() / runs);
    let sample = Sample {
        seconds: took.as_secs_f64(),
        peak_kib: outcome.peak_kib.unwrap_or_else(|| peak_kib("self")),
        latencies: outcome.latencies,
    };
    println!("{}", serde_json::to_string(&sample).expect("plain numbers"));
    true
}

/// Does the work that [`allocations`] asks for, with `counted`, which runs what it is given and tells how often that
/// allocated. Prints what it came to.
///
/// # Panics
///
/// Where the work fails, or the arguments ask for something else.
pub fn counted(contests: &[Contest], arguments: &[String], counted: impl Fn(&mut dyn FnMut()) -> u64) {
    let (scenario, contestant) = asked(contests, arguments).expect("it counts for another process");
    let mut is_counted = false;
    let edges = counted(&mut || is_counted = contestant.edges(scenario));
    let all = counted(&mut || drop(contestant.run(scenario)));
    let allocations = Allocations { all, edges: if is_counted { edges } else { 0 } };
    println!("{}", serde_json::to_string(&allocations).expect("plain numbers"));
}

/// Has this program, or another of the same contestants, run a scenario by one of them. Errors: what it said.
pub fn sample(program: &Path, scenario: &Scenario, contestant: &str) -> Result<Sample, String> {
    answer(program, scenario, contestant)
}

/// Has the program that counts run a scenario by one contestant. Errors: what it said.
pub fn allocations(program: &Path, scenario: &Scenario, contestant: &str) -> Result<Allocations, String> {
    answer(program, scenario, contestant)
}

fn answer<T: for<'a> Deserialize<'a>>(program: &Path, scenario: &Scenario, who: &str) -> Result<T, String> {
    let output = Command::new(program).args([ONE, scenario.name, who]).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!("{} by {who}: {}", scenario.name, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{} by {who}: {error}", scenario.name))
}

fn asked<'a>(contests: &'a [Contest], arguments: &[String]) -> Option<(&'a Scenario, &'a dyn Contestant)> {
    let [one, scenario, who] = arguments else { return None };
    if one != ONE {
        return None;
    }
    let all = contests.iter().flat_map(|contest| contest.scenarios.iter().map(move |known| (contest, known)));
    let (contest, scenario) = all.into_iter().find(|(_, known)| known.name == scenario).expect("a scenario");
    let contestant = contest.contestants.iter().find(|known| known.name() == who).expect("a contestant");
    Some((scenario, *contestant))
}

/// How long this thread has run on a processor; `None` where the system does not tell.
fn processor_time() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split_whitespace().next()?.parse().ok()?))
}

/// The most memory that a process ever had, in KiB: `self`, or one by its number. Zero where the system does not tell.
#[must_use]
pub fn peak_kib(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
