//! Which of the planted bugs is awake in this process.

use std::sync::OnceLock;

static CHOSEN: OnceLock<std::string::String> = OnceLock::new();

/// Whether this bug is awake.
#[must_use]
pub fn planted(bug: &str) -> bool {
    CHOSEN.get_or_init(|| std::env::var("SYNCLINE_PLANTED_BUG").unwrap_or_default()) == bug
}
