//! The hunt for a planted bug, in a process of the copy where it is awake.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::ops::Range;
use std::process::Stdio;

use crate::draw::draw;
use crate::outcome::Failure;
use crate::planted::copy::Copy;
use crate::run::simulate;

/// A bug that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// By which seed.
    pub seed: u64,
    /// By which check.
    pub check: String,
    /// What the check said.
    pub what: String,
}

/// Runs seeds while a bug is awake, until one fails; `None` where none does. Errors: the copy does not run, or makes no
/// sense.
pub fn hunt(copy: &Copy, bug: &str, seeds: &Range<u64>, jobs: usize) -> Result<Option<Found>, String> {
    let seeds = format!("{}..{}", seeds.start, seeds.end);
    let arguments = ["first", "--seeds", &seeds, "--jobs", &jobs.to_string()].map(OsString::from);
    let output = copy.command(Some(bug), &arguments).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the copy does not run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut parts = text.trim_end().splitn(3, '\t');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(seed), Some(check), Some(what)) => Ok(Some(Found {
            seed: seed.parse().map_err(|_| format!("the copy answers `{text}`"))?,
            check: check.to_owned(),
            what: what.to_owned(),
        })),
        _ if output.status.success() => Ok(None),
        _ => Err(format!("{bug}: the copy failed: {}", output.status)),
    }
}

/// A line for each seed, with the hash of its trace.
#[must_use]
pub fn traces(seeds: Range<u64>) -> String {
    let mut text = String::new();
    for seed in seeds {
        let outcome = match simulate(&draw(seed).0) {
            Ok(outcome) => outcome,
            Err(Failure { outcome, .. }) => *outcome,
        };
        let _ = writeln!(text, "{seed} {}", outcome.trace.hash());
    }
    text
}

/// The same, as the copy has it while no bug is awake. Errors: it does not run.
pub fn traces_of(copy: &Copy, seeds: &Range<u64>) -> Result<String, String> {
    let seeds = format!("{}..{}", seeds.start, seeds.end);
    let output = copy.command(None, &["traces", "--seeds", &seeds].map(OsString::from)).output();
    let output = output.map_err(|error| format!("the copy does not run: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
