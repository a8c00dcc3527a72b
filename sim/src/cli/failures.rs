//! What failed is kept.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plan::Plan;
use crate::planted;

/// Writes a failing plan to a file. Returns the line that replays it: this one, or one that names the file.
pub(super) fn keep(plan: &Plan, line: Option<String>) -> String {
    let name = plan.title.replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let path = place(&format!("{}.json", name.chars().take(80).collect::<String>()));
    let bug = planted::suffix();
    match (write(&path, plan), line) {
        (Ok(()), Some(line)) => format!("{line}{bug}   # plan: {}", path.display()),
        (Ok(()), None) => format!("cargo sim -- replay {}{bug}", path.display()),
        (Err(error), line) => format!("{}   # plan not written: {error}", line.unwrap_or_default()),
    }
}

/// A file among the failures, as seen from where the program was started. What fails with a planted bug awake is named for
/// that too.
pub(super) fn place(name: &str) -> PathBuf {
    let bug = planted::chosen().map_or_else(String::new, |bug| format!("{bug}--"));
    let path = planted::package().join("failures").join(bug + name);
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    relative.unwrap_or(path)
}

/// Errors: the file, and why it cannot be written.
pub(super) fn write(path: &Path, plan: &Plan) -> Result<(), String> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| fs::write(path, plan.to_text()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}
