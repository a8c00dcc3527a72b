//! A failing plan, reduced.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::cli::failures;
use crate::cli::given::Given;
use crate::plan::Plan;
use crate::planted;
use crate::run::simulate;
use crate::shrink::{Size, shrink};

/// Reduces a plan for as long as the same check fails, and writes it to `out`. Returns true where that is done. Errors: a
/// plan that holds, or a file that cannot be written.
pub(super) fn run(given: &Given, out: Option<PathBuf>) -> Result<bool, String> {
    let Err(failure) = simulate(&given.plan) else {
        return Err(format!("it holds, so that there is nothing to reduce: {}", given.line()));
    };
    let check = failure.check;
    println!("{failure}\n  from {}", Size::of(&given.plan));
    let show = std::io::stderr().is_terminal();
    let mut tried = 0;
    let fails = |plan: &Plan| simulate(plan).is_err_and(|failure| failure.check == check);
    let small = shrink(&given.plan, fails, |progress| {
        tried = progress.tried;
        if show {
            eprint!("\r{tried} tried: {}    ", progress.size);
        }
    });
    if show {
        eprintln!();
    }
    println!("    to {}, after {tried} runs", Size::of(&small));
    let what = simulate(&small).err().map(|failure| failure.to_string()).unwrap_or_default();
    println!("{what}");
    let title = format!("{}, reduced: {what}", given.plan.title);
    let out = out.unwrap_or_else(|| beside(given));
    failures::write(&out, &Plan { title, ..small })?;
    println!("cargo sim -- replay {}{}", out.display(), planted::suffix());
    Ok(true)
}

/// Beside the file that was given; a seed's where failing plans are kept.
fn beside(given: &Given) -> PathBuf {
    match &given.path {
        Some(path) => path.with_extension("shrunk.json"),
        None => failures::place(&format!("seed-{}.shrunk.json", given.plan.seed)),
    }
}
