//! The engine killed at every point of small plans.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use crate::cli::failures::keep;
use crate::cli::given;
use crate::kill_points::{Pairs, kill_points, with_kills};
use crate::plan::{At, Plan};

/// All plans in `sim/plans/kill/`, or this one. Returns whether all held. Errors: a plan that cannot be read.
pub(super) fn run(path: Option<&Path>, pairs: Pairs, jobs: usize) -> Result<bool, String> {
    let paths = path.map_or_else(all, |path| Ok(vec![path.to_owned()]))?;
    row(["plan", "points", "pairs", "run", "broken", "seconds"]);
    row(["-", "-:", "-:", "-:", "-:", "-:"]);
    let (mut holds, mut singles, mut doubles) = (true, 0, 0);
    for path in paths {
        let plan = given::read(&path)?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        holds &= one(&plan, &name, pairs, jobs, (&mut singles, &mut doubles));
    }
    let verdict = if holds { "HOLDS" } else { "BROKEN" };
    let left = match pairs {
        Pairs::OneIn(1) => String::new(),
        Pairs::OneIn(step) => format!(", one pair in {step}"),
        Pairs::None => ", no pairs".to_owned(),
    };
    println!("killed once in {singles} runs, twice in {doubles}{left}: {verdict}");
    Ok(holds)
}

#[expect(clippy::disallowed_methods, reason = "the rate is one of real time")]
fn one(plan: &Plan, name: &str, pairs: Pairs, jobs: usize, total: (&mut usize, &mut usize)) -> bool {
    let began = std::time::Instant::now();
    let show = std::io::stderr().is_terminal();
    let progress = |done: usize, of: usize| {
        if show {
            eprint!("\r{name}: {done} of {of} first kills ");
        } else if done.is_multiple_of((of / 10).max(1)) {
            eprintln!("{name}: {done} of {of} first kills");
        }
    };
    let kills = match kill_points(plan, pairs, jobs.max(1), progress) {
        Ok(kills) => kills,
        Err(failure) => {
            println!("{name} BROKEN without any kill: {failure}");
            return false;
        }
    };
    if show {
        eprint!("\r{:80}\r", "");
    }
    row([
        name,
        &kills.singles.to_string(),
        &kills.pairs_all.to_string(),
        &kills.pairs.to_string(),
        &kills.failures.len().to_string(),
        &format!("{:.1}", began.elapsed().as_secs_f64()),
    ]);
    *total.0 += kills.singles;
    *total.1 += kills.pairs;
    for (at, failure) in kills.failures.iter().take(3) {
        let title =
            format!("{name} killed at {}", at.iter().map(At::to_string).collect::<Vec<_>>().join(" and "));
        println!("{title}\n  BROKEN {failure}");
        println!("  {}", keep(&Plan { title, ..with_kills(plan, at) }, None));
    }
    kills.failures.is_empty()
}

fn all() -> Result<Vec<PathBuf>, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/kill");
    let paths = fs::read_dir(&directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut paths = paths.map_err(|error| format!("{}: {error}", directory.display()))?;
    paths.sort();
    Ok(paths)
}

fn row(cells: [&str; 6]) {
    let [name, numbers @ ..] = cells;
    let fill = |text: &str, width: usize| match text {
        "-" => "-".repeat(width),
        "-:" => "-".repeat(width - 1) + ":",
        text => format!("{text:>width$}"),
    };
    let numbers: Vec<String> = numbers.iter().map(|cell| fill(cell, 8)).collect();
    let name = if name == "-" { "-".repeat(36) } else { format!("{name:<36}") };
    println!("| {name} | {} |", numbers.join(" | "));
}
