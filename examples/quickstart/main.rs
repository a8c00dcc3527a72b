//! Syncline in half a minute: `cargo run --release --example quickstart`.
//!
//! It makes a bookshop's database, keeps a search index equal to it while it changes, kills itself at bad moments, and
//! proves by comparison that nothing was lost. `-- --help` tells how to run it on a database of your own.
//!
//! Where to read: [`sync`] is how an engine is put together, and all that a program needs; [`bookshop`] is a definition
//! of documents; the rest is the show.

mod bookshop;
mod cli;
mod crash;
mod file;
mod live;
mod news;
mod own;
mod page;
mod proof;
mod random;
mod sync;
mod tour;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use syncline::Fault;

use crate::cli::Command;
use crate::page::Page;

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be done as it was asked: exit code 2.
    Input(String),
    /// Something went wrong on the way, or the index differs from the database: exit code 1.
    Fault(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn main() -> ExitCode {
    let (code, message) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Input(message)) => (2, message),
        Err(Failure::Fault(fault)) => (1, fault.message().to_owned()),
    };
    // Where nobody reads the message, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(code)
}

fn run() -> Result<(), Failure> {
    let command = cli::parse(std::env::args_os())?;
    let page = Page::of_stdout();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Fault::fatal)?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Help => page.line(cli::HELP),
            Command::Tour(options) => tour::run(page, options).await?,
            Command::Own(options) => own::run(page, options).await?,
            Command::Remove(options) => own::remove(page, &options).await?,
            Command::Worker(options) => worker::run(options).await?,
        }
        Ok(())
    });
    // What still runs is not waited for: it may be one that waits for ever.
    runtime.shutdown_background();
    outcome
}
