//! The command line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::ValueExt as _;

use crate::draw::draw;
use crate::marks::Mark;
use crate::outcome::{Check, Failure, Outcome};
use crate::plan::Plan;
use crate::run::simulate;
use crate::swarm::{Swarm, swarm};

const USAGE: &str = "\
The simulation of Syncline.

  cargo sim -- run --seed N               one seed, with its options and everything that happens
  cargo sim -- swarm --seeds A..B [--jobs J]
                                          many, with a table of what they met; more than 1,000 must meet every mark
  cargo sim -- replay PLAN.json           a plan from a file
  cargo sim -- plan --seed N              the plan of a seed, to be edited
  cargo sim -- meta --seeds A..B          each seed twice: the traces must be the same, byte for byte

A failing seed prints the line that replays it, and writes its plan to sim/failures/.
";

enum Command {
    Run(u64),
    Swarm(Range<u64>, usize),
    Replay(PathBuf),
    Print(u64),
    Meta(Range<u64>),
    Help,
}

/// Does what the arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let passed = match parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{USAGE}");
            true
        }
        Ok(Command::Run(seed)) => run(seed),
        Ok(Command::Swarm(seeds, jobs)) => run_swarm(seeds, jobs),
        Ok(Command::Replay(path)) => replay(&path),
        Ok(Command::Print(seed)) => {
            print!("{}", draw(seed).0.to_text());
            true
        }
        Ok(Command::Meta(seeds)) => meta(seeds),
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            false
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(args);
    let (mut command, mut path) = (None, None);
    let (mut seed, mut seeds) = (0, 0..1000);
    let mut jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seed") => seed = parser.value()?.parse()?,
            Long("seeds") => seeds = parser.value()?.parse_with(range)?,
            Long("jobs") => jobs = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(value) if command.is_none() => command = Some(value.string()?),
            Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
            other => return Err(other.unexpected()),
        }
    }
    match (command.as_deref(), path) {
        (Some("run"), None) => Ok(Command::Run(seed)),
        (Some("swarm"), None) => Ok(Command::Swarm(seeds, jobs)),
        (Some("replay"), Some(path)) => Ok(Command::Replay(path)),
        (Some("plan"), None) => Ok(Command::Print(seed)),
        (Some("meta"), None) => Ok(Command::Meta(seeds)),
        (None, None) => Ok(Command::Help),
        _ => Err("no such command, or it lacks something".into()),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("seeds are given as A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    Ok(number(from)?..number(to)?)
}

fn run(seed: u64) -> bool {
    let (plan, options) = draw(seed);
    println!("seed {seed}\n{options}");
    println!(
        "source {:?}\nsink {:?}\nnetwork {:?}\nengine {:?}",
        plan.source, plan.sink, plan.network, plan.engine
    );
    println!(
        "{} rows, {} transactions, {} faults\n",
        plan.rows.len(),
        plan.workload.len(),
        plan.faults.len()
    );
    tell(&plan, &simulate(&plan), &format!("cargo sim -- run --seed {seed}"))
}

fn replay(path: &Path) -> bool {
    let plan =
        fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| Plan::parse(&text));
    match plan {
        Ok(plan) => {
            println!("{}\n", plan.title);
            tell(&plan, &simulate(&plan), &format!("cargo sim -- replay {}", path.display()))
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            false
        }
    }
}

/// Prints what happened, and the verdict.
fn tell(plan: &Plan, result: &Result<Outcome, Failure>, line: &str) -> bool {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(failure) => &failure.outcome,
    };
    print!("{}", outcome.trace.to_text());
    let mut faults = String::new();
    for (name, count) in &outcome.faults {
        let _ = write!(faults, " {name} {count},");
    }
    let marks: Vec<&str> = outcome.marks.keys().map(|mark| mark.name()).collect();
    println!("\nfaults:{}", faults.trim_end_matches(','));
    println!("met: {}", marks.join(", "));
    println!("trace {}", outcome.trace.hash());
    match result {
        Ok(outcome) => {
            let seconds = outcome.simulated_us as f64 / 1e6;
            println!("HOLDS after {seconds:.3} s, {} starts, {} commits", outcome.starts, outcome.commits);
        }
        Err(failure) => println!("BROKEN {failure}\n{}", keep(plan, line)),
    }
    result.is_ok()
}

/// Writes a failing plan to a file: the lines that replay it.
pub(crate) fn keep(plan: &Plan, line: &str) -> String {
    let name = plan.title.replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures");
    let path = directory.join(format!("{}.json", name.chars().take(60).collect::<String>()));
    let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, plan.to_text()));
    let path = Path::new("sim/failures").join(path.file_name().unwrap_or_default());
    match written {
        Ok(()) => format!("{line}   # plan: {}", path.display()),
        Err(error) => format!("{line}   # plan not written: {error}"),
    }
}

fn run_swarm(seeds: Range<u64>, jobs: usize) -> bool {
    let swarm = swarm(seeds, jobs.max(1), |line| eprint!("{line}"));
    eprintln!();
    for (seed, failure) in &swarm.failures {
        println!("seed {seed} BROKEN {failure}");
        println!("  {}", keep(&draw(*seed).0, &format!("cargo sim -- run --seed {seed}")));
    }
    print!("{}", table(&swarm));
    let unmet = swarm.unmet();
    if !unmet.is_empty() && swarm.seeds >= 1000 {
        println!("\nnever met: {}", unmet.iter().map(|mark| mark.name()).collect::<Vec<_>>().join(", "));
        return false;
    }
    swarm.failures.is_empty()
}

fn table(swarm: &Swarm) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name:<48} | {value:>14} |");
    };
    row("", String::new());
    row(&"-".repeat(48), "-".repeat(13) + ":");
    row("seeds", swarm.seeds.to_string());
    row("broken", swarm.failures.len().to_string());
    row("seconds", format!("{:.1}", swarm.seconds));
    row("seeds a second", format!("{:.0}", swarm.seeds as f64 / swarm.seconds));
    row("simulated hours", format!("{:.1}", swarm.simulated_us as f64 / 3.6e9));
    row("simulated seconds a second", format!("{:.0}", swarm.simulated_us as f64 / 1e6 / swarm.seconds));
    row("engine starts", swarm.starts.to_string());
    row("transactions", swarm.commits.to_string());
    row("requests", swarm.requests.to_string());
    row("documents written", swarm.writes.to_string());
    for (name, count) in &swarm.faults {
        row(&format!("fault: {name}"), count.to_string());
    }
    for mark in Mark::ALL {
        row(&format!("met: {}", mark.name()), swarm.marks.get(mark).copied().unwrap_or_default().to_string());
    }
    text
}

fn meta(seeds: Range<u64>) -> bool {
    let mut passed = true;
    let count = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        let (plan, _) = draw(seed);
        let traces = [simulate(&plan), simulate(&plan)].map(|result| match result {
            Ok(outcome) => outcome.trace.to_text(),
            Err(failure) => failure.outcome.trace.to_text(),
        });
        if traces[0] != traces[1] {
            let line = traces[0].lines().zip(traces[1].lines()).position(|(first, second)| first != second);
            println!("seed {seed} BROKEN {}: the traces differ in line {line:?}", Check::Repeatable);
            passed = false;
        }
    }
    println!(
        "{count} seeds, each twice: {}",
        if passed { "the same, byte for byte" } else { "NOT the same" }
    );
    passed
}
