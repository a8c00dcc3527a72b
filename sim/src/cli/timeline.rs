//! A run as a picture.

use std::fs;
use std::path::Path;

use crate::cli::given::Given;
use crate::run::simulate;
use crate::timeline::timeline;

/// Draws a run into a file. Returns whether it holds. Errors: a file that cannot be written.
pub(super) fn run(given: &Given, svg: Option<&Path>) -> Result<bool, String> {
    let svg = svg.ok_or("say where the picture goes: --svg FILE")?;
    let result = simulate(&given.plan);
    fs::write(svg, timeline(&given.plan, &result)).map_err(|error| format!("{}: {error}", svg.display()))?;
    match &result {
        Ok(_) => println!("HOLDS, drawn in {}", svg.display()),
        Err(failure) => println!("BROKEN {failure}, drawn in {}", svg.display()),
    }
    Ok(result.is_ok())
}
