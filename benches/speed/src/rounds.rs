//! All scenarios by all contestants, in turns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::contestant::Contestant;
use crate::process::{self, Allocations, Sample};
use crate::scenarios::Scenario;
use crate::table;

/// What is asked for on the command line.
#[derive(Debug, Default)]
struct Asked {
    only: Vec<String>,
    rounds: Option<usize>,
    json: Option<PathBuf>,
}

const USAGE: &str = "[--only S1,S3,..] [--rounds N] [--json FILE]";

/// What was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// The scenarios that were run.
    pub scenarios: Vec<Scenario>,
    /// Who was asked.
    pub contestants: Vec<&'static str>,
    /// By scenario and contestant, in the order of the rounds.
    pub samples: BTreeMap<(&'static str, &'static str), Vec<Sample>>,
    /// By scenario and contestant.
    pub allocations: BTreeMap<(&'static str, &'static str), Allocations>,
}

/// Scenarios, and who is given them.
pub struct Contest {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// Those who take turns in each of them.
    pub contestants: Vec<&'static dyn Contestant>,
}

impl std::fmt::Debug for Contest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.contestants.iter().map(|contestant| contestant.name()).collect();
        f.debug_struct("Contest").field("scenarios", &self.scenarios).field("contestants", &names).finish()
    }
}

/// Runs all that these contests consist of, or what the command line chooses of it, and prints the table. `counting` is a
/// program of the same contests that counts what is allocated.
///
/// # Panics
///
/// In a process of its own, where the work fails.
pub fn compare(contests: &[Contest], counting: Option<&Path>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if process::measured(contests, &arguments) {
        return ExitCode::SUCCESS;
    }
    let done = asked(arguments).and_then(|asked| {
        let results = measure(&asked, contests, counting)?;
        print!("{}", table::markdown(&results));
        match &asked.json {
            Some(file) => std::fs::write(file, table::json(&results))
                .map_err(|error| format!("{}: {error}", file.display())),
            None => Ok(()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn asked(arguments: Vec<String>) -> Result<Asked, String> {
    use lexopt::prelude::*;
    let wrong = |error: lexopt::Error| format!("{error}\nusage: {USAGE}");
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut asked = Asked::default();
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Long("only") => {
                let names = parser.value().and_then(|value| value.string()).map_err(wrong)?;
                asked.only.extend(names.split(',').map(str::to_owned));
            }
            Long("rounds") => {
                asked.rounds = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?);
            }
            Long("json") => asked.json = Some(parser.value().map_err(wrong)?.into()),
            // Cargo says so to every benchmark.
            Long("bench") => {}
            _ => return Err(wrong(argument.unexpected())),
        }
    }
    Ok(asked)
}

fn measure(asked: &Asked, contests: &[Contest], counting: Option<&Path>) -> Result<Results, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut results = Results::default();
    let all =
        contests.iter().flat_map(|contest| contest.scenarios.iter().map(move |scenario| (contest, scenario)));
    for (Contest { contestants: all, .. }, scenario) in
        all.filter(|(_, scenario)| scenario.is_chosen(&asked.only))
    {
        let wanted = asked.rounds.unwrap_or(scenario.rounds);
        for name in all.iter().map(|contestant| contestant.name()) {
            if !results.contestants.contains(&name) {
                results.contestants.push(name);
            }
        }
        for round in 0..wanted {
            for contestant in all {
                let name = contestant.name();
                if round < contestant.rounds(scenario, wanted) {
                    eprintln!("{}, round {} of {wanted}: {name}", scenario.name, round + 1);
                    let sample = process::sample(&program, scenario, name)?;
                    results.samples.entry((scenario.name, name)).or_default().push(sample);
                }
            }
        }
        for contestant in all.iter().filter(|contestant| contestant.rounds(scenario, 1) > 0) {
            if let Some(counting) = counting.filter(|_| scenario.counts()) {
                let allocations = process::allocations(counting, scenario, contestant.name())?;
                results.allocations.insert((scenario.name, contestant.name()), allocations);
            }
        }
        results.scenarios.push(scenario.clone());
    }
    Ok(results)
}

impl Results {
    /// Who took part in a scenario, in the order in which they were given.
    pub fn contestants(&self, scenario: &'static str) -> impl Iterator<Item = &'static str> {
        let took_part = move |who: &&'static str| self.samples.contains_key(&(scenario, *who));
        self.contestants.iter().copied().filter(took_part)
    }

    /// How long a scenario took, in seconds.
    #[must_use]
    pub fn seconds(&self, scenario: &'static str, who: &'static str) -> Option<f64> {
        median(self.samples.get(&(scenario, who))?.iter().map(|sample| sample.seconds))
    }

    /// How many times as long one took as another, in the same round; `None` where the pace was set, or memory was measured
    /// and time was not.
    #[must_use]
    pub fn ratio(&self, scenario: &'static str, who: &'static str, other: &'static str) -> Option<f64> {
        let is_timed = |known: &&Scenario| known.name == scenario && known.is_timed();
        self.scenarios.iter().find(is_timed)?;
        let (of, to) = (self.samples.get(&(scenario, who))?, self.samples.get(&(scenario, other))?);
        median(of.iter().zip(to).map(|(of, to)| of.seconds / to.seconds))
    }

    /// The most memory it ever had, in MiB.
    #[must_use]
    pub fn peak_mib(&self, scenario: &'static str, who: &'static str) -> Option<f64> {
        median(self.samples.get(&(scenario, who))?.iter().map(|sample| sample.peak_kib as f64 / 1024.0))
    }

    /// The engine's own heap allocations for each change.
    #[must_use]
    pub fn allocations_per_change(&self, scenario: &Scenario, who: &'static str) -> Option<f64> {
        let counted = self.allocations.get(&(scenario.name, who))?;
        Some(counted.all.saturating_sub(counted.edges) as f64 / scenario.work.changes as f64)
    }

    /// What so many of a hundred changes took at the most, in milliseconds, of all rounds together.
    #[must_use]
    pub fn latency_ms(&self, scenario: &'static str, who: &'static str, percent: usize) -> Option<f64> {
        let samples = self.samples.get(&(scenario, who))?;
        let mut all: Vec<_> = samples.iter().flat_map(|sample| &sample.latencies).collect();
        all.sort();
        let at = (all.len() * percent).div_ceil(100).checked_sub(1)?;
        Some(all.get(at)?.as_secs_f64() * 1e3)
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
