//! The planted bugs: how many seeds it takes to find each of them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::ops::Range;
use std::process::ExitStatus;

use crate::cli::Args;
use crate::cli::failures::keep;
use crate::draw::draw;
use crate::planted::copy::Copy;
use crate::planted::{IS_COPY, bugs, hunt};
use crate::swarm;

/// So many seeds must give the traces of the original, where no bug is awake.
const SAME: u64 = 20;

pub(super) fn planted(args: &Args) -> Result<bool, String> {
    let mut bugs = bugs()?;
    if let Some(name) = &args.bug {
        bugs.retain(|bug| bug.name == *name);
        if bugs.is_empty() {
            return Err(format!("there is no planted bug `{name}`; --list tells which there are"));
        }
    }
    if args.list {
        for bug in &bugs {
            println!("{:<52} {:<10} {}", bug.name, bug.breaks, bug.sentence);
        }
        return Ok(true);
    }
    let copy = make()?;
    if !is_the_same(&copy)? {
        return Ok(false);
    }
    let mut table =
        String::from("| bug | breaks | found by | seeds | what it is |\n| - | - | - | -: | - |\n");
    let mut missed = 0;
    for (at, bug) in bugs.iter().enumerate() {
        eprintln!("{} of {}: {}", at + 1, bugs.len(), bug.name);
        let found = hunt::hunt(&copy, &bug.name, &args.seeds, args.jobs)?;
        let row = match &found {
            Some(found) => {
                println!("{}: seed {} {}: {}", bug.name, found.seed, found.check, found.what);
                let mut plan = draw(found.seed).0;
                plan.title = format!("{}, seed {}", bug.name, found.seed);
                let line = format!("cargo sim -- run --seed {} --bug {}", found.seed, bug.name);
                println!("  {}", keep(&plan, Some(line)));
                [found.check.clone(), (found.seed - args.seeds.start + 1).to_string()]
            }
            None => {
                missed += 1;
                let seeds = args.seeds.end.saturating_sub(args.seeds.start);
                println!("{}: NOT FOUND", bug.name);
                ["NOT FOUND".to_owned(), format!("more than {seeds}")]
            }
        };
        let [check, seeds] = row;
        let _ = writeln!(table, "| `{}` | {} | {check} | {seeds} | {} |", bug.name, bug.breaks, bug.sentence);
    }
    println!("\n{table}");
    println!("{} of {} found", bugs.len() - missed, bugs.len());
    Ok(missed == 0)
}

fn make() -> Result<Copy, String> {
    eprintln!("building the copy with the planted bugs, where it is not: that takes a minute");
    Copy::make()
}

/// Whether the copy does what the original does, while no bug is awake.
fn is_the_same(copy: &Copy) -> Result<bool, String> {
    let same = hunt::traces_of(copy, &(0..SAME))? == hunt::traces(0..SAME);
    if !same {
        println!("while no bug is awake, the copy does not do what the original does");
    }
    Ok(same)
}

/// The first of some seeds that breaks a promise, in a line: the seed, the check and the failure, between tabs.
pub(super) fn first(seeds: Range<u64>, jobs: usize) -> bool {
    let show = std::io::stderr().is_terminal();
    let found = swarm::first(seeds, jobs, |line| {
        if show {
            eprint!("{line}");
        }
    });
    if show {
        eprintln!();
    }
    if let Some((seed, failure)) = &found {
        println!("{seed}\t{}\t{}", failure.check, failure.what);
    }
    found.is_none()
}

/// Has the copy do what the arguments say, with this bug awake.
pub(super) fn divert(bug: &str) -> Result<ExitStatus, String> {
    if IS_COPY {
        return Err("a bug is chosen before the copy runs".to_owned());
    }
    if !bugs()?.iter().any(|known| known.name == bug) {
        return Err(format!(
            "there is no planted bug `{bug}`; `cargo sim -- planted --list` tells which there are"
        ));
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--bug") {
        arguments.drain(at..arguments.len().min(at + 2));
    }
    let copy = make()?;
    copy.command(Some(bug), &arguments).status().map_err(|error| format!("the copy does not run: {error}"))
}
