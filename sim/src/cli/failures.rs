//! What failed is kept.

use std::fs;
use std::path::Path;

use crate::plan::Plan;

/// Writes a failing plan to a file. Returns the line that replays it: this one, or one that names the file.
pub(super) fn keep(plan: &Plan, line: Option<String>) -> String {
    let name = plan.title.replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let name = format!("{}.json", name.chars().take(80).collect::<String>());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures");
    let written =
        fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(&name), plan.to_text()));
    match (written, line) {
        (Ok(()), Some(line)) => format!("{line}   # plan: sim/failures/{name}"),
        (Ok(()), None) => format!("cargo sim -- replay sim/failures/{name}"),
        (Err(error), line) => format!("{}   # plan not written: {error}", line.unwrap_or_default()),
    }
}
