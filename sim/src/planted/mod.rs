//! Planted bugs: what the simulation must be able to find.
//!
//! Neither the engine nor the world has a switch for them. Each bug is a patch under `planted/bugs/`; all of them together
//! are applied to a [`copy`] of the sources, which is built beside the original, and one of them is awake in a process of
//! that copy: the one that [`CHOSEN`] names. With none awake the copy does what the original does, byte for byte.
//!
//! So nothing of the simulation needs to know of them. A command that is given `--bug NAME` is run by the copy instead.

pub mod copy;
pub mod hunt;
pub mod patch;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::planted::patch::Patch;

/// The environment variable that wakes a bug in a process of the copy.
pub const CHOSEN: &str = "SYNCLINE_PLANTED_BUG";

/// Whether this is the copy. A patch of the copy's own makes it so.
pub const IS_COPY: bool = false;

/// The bug that is awake in this process, where it is one of the copy.
#[must_use]
pub fn chosen() -> Option<String> {
    env::var(CHOSEN).ok().filter(|bug| IS_COPY && !bug.is_empty())
}

/// What a line that replays something must end with, for the bug to be awake again.
#[must_use]
pub fn suffix() -> String {
    chosen().map_or_else(String::new, |bug| format!(" --bug {bug}"))
}

/// Where the simulation's package stands: that of the original, also in a process that it starts of the copy.
#[must_use]
pub fn package() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// All bugs, by name. Errors: a patch that is none.
pub fn bugs() -> Result<Vec<Patch>, String> {
    let directory = package().join("planted/bugs");
    let mut bugs = Vec::new();
    for path in files(&directory)? {
        let bug = read(&path)?;
        if !bug.asks_for(&format!("planted(\"{}\")", bug.name)) {
            return Err(format!("{}: it never asks whether it is awake", path.display()));
        }
        bugs.push(bug);
    }
    bugs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bugs)
}

/// What makes a copy of the sources one that bugs can be planted in. Errors: a patch that is none.
pub(crate) fn ground() -> Result<Patch, String> {
    read(&package().join("planted/copy.diff"))
}

fn read(path: &Path) -> Result<Patch, String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| Patch::parse(name, &text)).map_err(|error| format!("{}: {error}", path.display()))
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(wrong)?;
    entries.map(|entry| Ok(entry.map_err(wrong)?.path())).collect()
}
