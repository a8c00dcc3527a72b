//! The command line: what the arguments ask for. Each command is a module.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

mod failures;
mod given;
mod kill_points;
mod meta;
mod planted;
mod run;
mod shrink;
mod swarm;
mod timeline;

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::ValueExt as _;

use crate::cli::given::Given;
use crate::kill_points::Pairs;
use crate::planted::hunt;

const USAGE: &str = "\
The simulation of Syncline.

  cargo sim -- run --seed N               one seed, with its options and everything that happens
  cargo sim -- swarm --seeds A..B [--jobs J]
                                          many, with a table of what they met; 1,000 and more must meet every mark.
                                          From A up to B, which is left out; as many at a time as there are cores
  cargo sim -- replay PLAN.json           a plan from a file
  cargo sim -- kill-points [PLAN.json] [--pairs all|none|N] [--jobs J]
                                          the engine killed at every point of a plan, or of all in sim/plans/kill/,
                                          one at a time and in pairs, of which one in N is run (25), or all
  cargo sim -- shrink PLAN.json [--out FILE]
                                          a failing plan, or --seed N, reduced to what it takes to fail in the same check
  cargo sim -- timeline PLAN.json --svg FILE
                                          a plan, or --seed N, as a picture: a lane for each stage, time to the right
  cargo sim -- plan --seed N              the plan of a seed, to be edited
  cargo sim -- meta --seeds A..B          each seed twice: the traces must be the same, byte for byte
  cargo sim -- first --seeds A..B         the first seed that fails, its check, and how, between tabs
  cargo sim -- planted [--list] [--bug NAME] [--seeds A..B]
                                          how many seeds it takes to find each planted bug
  cargo sim -- ... --bug NAME             any of the other commands, while this bug is awake

A failing seed prints the line that replays it, and writes its plan to sim/failures/.
";

/// The arguments of all commands. A command takes those that it knows what to do with.
struct Args {
    command: Option<String>,
    path: Option<PathBuf>,
    seed: Option<u64>,
    seeds: Range<u64>,
    jobs: usize,
    bug: Option<String>,
    list: bool,
    pairs: Pairs,
    out: Option<PathBuf>,
    svg: Option<PathBuf>,
}

/// Does what the arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let args = parse(std::env::args_os().skip(1));
    match args.map_err(|error| format!("{error}; `cargo sim` alone tells what can be said")).and_then(perform)
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held. Errors: what could not be done, and why.
fn perform(args: Args) -> Result<bool, String> {
    let Some(command) = &args.command else {
        print!("{USAGE}");
        return Ok(true);
    };
    if let Some(bug) = args.bug.as_deref().filter(|_| command != "planted") {
        return planted::divert(bug).map(|status| status.success());
    }
    match command.as_str() {
        "run" | "replay" => Ok(run::run(&Given::new(&args)?)),
        "swarm" => Ok(swarm::swarm(args.seeds, args.jobs)),
        "kill-points" => kill_points::run(args.path.as_deref(), args.pairs, args.jobs),
        "shrink" => shrink::run(&Given::new(&args)?, args.out),
        "timeline" => timeline::run(&Given::new(&args)?, args.svg.as_deref()),
        "plan" => {
            print!("{}", Given::new(&args)?.plan.to_text());
            Ok(true)
        }
        "meta" => Ok(meta::meta(args.seeds)),
        "first" => Ok(planted::first(args.seeds, args.jobs)),
        "traces" => {
            print!("{}", hunt::traces(args.seeds));
            Ok(true)
        }
        "planted" => planted::planted(&args),
        other => Err(format!("there is no command `{other}`; `cargo sim` alone lists them")),
    }
}

/// Errors: the argument that says nothing, by the name of its option.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(args);
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut args = Args {
        command: None,
        path: None,
        seed: None,
        seeds: 0..1000,
        jobs,
        bug: None,
        list: false,
        pairs: Pairs::OneIn(25),
        out: None,
        svg: None,
    };
    let told = |error: lexopt::Error| error.to_string();
    while let Some(arg) = parser.next().map_err(told)? {
        match arg {
            Long("list") => args.list = true,
            Long("help") | Short('h') => return Ok(Args { command: None, ..args }),
            Value(value) if args.command.is_none() => args.command = Some(value.string().map_err(told)?),
            Value(value) if args.path.is_none() => args.path = Some(PathBuf::from(value)),
            Long(option) => {
                let option = option.to_owned();
                let value = parser.value().map_err(told)?;
                set(&mut args, &option, value).map_err(|error| format!("--{option}: {error}"))?;
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(args)
}

fn set(args: &mut Args, option: &str, value: OsString) -> Result<(), String> {
    let text = value.to_string_lossy().into_owned();
    match option {
        "seed" => args.seed = Some(number(&text)?),
        "seeds" => args.seeds = range(&text)?,
        "jobs" => {
            let jobs = usize::try_from(number(&text)?).ok().filter(|jobs| *jobs > 0);
            args.jobs = jobs.ok_or("at least one runs at a time")?;
        }
        "bug" => args.bug = Some(text),
        "pairs" => args.pairs = pairs(&text)?,
        "out" => args.out = Some(PathBuf::from(value)),
        "svg" => args.svg = Some(PathBuf::from(value)),
        _ => return Err("there is no such option".to_owned()),
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a number is needed, and `{text}` is none"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) =
        text.split_once("..").ok_or("seeds are given as A..B, from A up to B, which is left out")?;
    let seeds = number(from)?..number(to)?;
    match seeds.is_empty() {
        true => Err(format!("there is no seed in {text}: A..B is from A up to B, which is left out")),
        false => Ok(seeds),
    }
}

fn pairs(text: &str) -> Result<Pairs, String> {
    match text {
        "all" => Ok(Pairs::OneIn(1)),
        "none" => Ok(Pairs::None),
        number => match number.parse() {
            Ok(0) | Err(_) => Err(format!("`{number}` is neither `all`, nor `none`, nor a number from 1")),
            Ok(step) => Ok(Pairs::OneIn(step)),
        },
    }
}
