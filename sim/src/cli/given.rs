//! The plan that a command is about: of a seed, or from a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::Args;
use crate::draw::{Options, draw};
use crate::plan::Plan;

/// A plan, and where it comes from.
pub(super) struct Given {
    pub(super) plan: Plan,
    /// What was drawn before the plan of a seed.
    pub(super) options: Option<Options>,
    /// The file it was read from.
    pub(super) path: Option<PathBuf>,
}

impl Given {
    /// Errors: neither a seed nor a file, both, or a file that holds no plan.
    pub(super) fn new(args: &Args) -> Result<Self, String> {
        match (args.seed, &args.path) {
            (Some(seed), None) => {
                let (plan, options) = draw(seed);
                Ok(Self { plan, options: Some(options), path: None })
            }
            (None, Some(path)) => Ok(Self { plan: read(path)?, options: None, path: Some(path.clone()) }),
            _ => Err("say which plan: either --seed N, or a file".to_owned()),
        }
    }

    /// The line that runs it again.
    pub(super) fn line(&self) -> String {
        match &self.path {
            Some(path) => format!("cargo sim -- replay {}", path.display()),
            None => format!("cargo sim -- run --seed {}", self.plan.seed),
        }
    }
}

/// Errors: the file, and why it holds no plan.
pub(super) fn read(path: &Path) -> Result<Plan, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| match name.to_string().parse::<u64>() {
        Ok(seed) => format!("{name}: {error}; seed {seed} is given as --seed {seed}"),
        Err(_) => format!("{name}: {error}"),
    })?;
    Plan::parse(&text).map_err(|error| format!("{name}: {error}"))
}
