//! All scenarios by all contestants, as a table.

use std::process::ExitCode;

use peers::contests;

fn main() -> ExitCode {
    // It stands beside this one, where it was built.
    let counting = std::env::current_exe().map(|program| program.with_file_name("allocations"));
    speed::compare(&contests(), counting.as_deref().ok().filter(|program| program.exists()))
}
