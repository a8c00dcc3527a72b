//! Deaths: a second process of this program runs the engine, and is killed without any clean-up.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use syncline::Fault;

use crate::bookshop;
use crate::page::{Page, count};
use crate::proof;
use crate::tour::Place;

/// What the worker prints before what it says when it may be killed.
pub(crate) const READY: &str = "ready: ";

/// When the worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// While it writes a transaction of its own, and the engine works on those before it.
    Transaction,
    /// After a unit of a large transaction has become durable, before any of it is acknowledged.
    Unit,
    /// At no chosen moment, a while after the engine has begun to work off a load.
    Random,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Transaction, Self::Unit, Self::Random];

    fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Unit => "unit",
            Self::Random => "random",
        }
    }

    /// How long the worker lives on after it has said that it may be killed.
    fn delay(self) -> Duration {
        match self {
            Self::Transaction | Self::Unit => Duration::ZERO,
            Self::Random => Duration::from_millis(137),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|moment| moment.name() == name);
        found.ok_or_else(|| format!("no moment is called {name}"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transaction => "killed in the middle of a transaction",
            Self::Unit => "killed right after a unit became durable",
            Self::Random => "killed at no chosen moment",
        })
    }
}

pub(crate) fn show(page: Page, directory: &Path, place: &Place) -> Result<(), Fault> {
    page.chapter("5  Sudden deaths (SIGKILL: nothing is flushed, closed or said goodbye to)");
    for moment in Moment::ALL {
        let last_words = die(directory, moment)?;
        page.done(format!("{moment}: {last_words}"));
        let (unacknowledged, comparison) =
            (unacknowledged(&place.database)?, proof::compare(&place.database, &place.index)?);
        page.note(format!(
            "left behind: {} changes unacknowledged, {} documents of the index out of date",
            count(unacknowledged),
            count(comparison.differences())
        ));
    }
    Ok(())
}

/// Runs a worker until its moment, and kills it. Returns what it said last.
fn die(directory: &Path, moment: Moment) -> Result<String, Fault> {
    let mut worker = Command::new(std::env::current_exe()?)
        .args(["--worker", moment.name(), "--dir"])
        .arg(directory)
        // Held open as long as this process lives: the worker ends when it is closed, so that none is left over.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let last_words = last_words(&mut worker);
    std::thread::sleep(moment.delay());
    worker.kill()?;
    worker.wait()?;
    last_words
}

fn last_words(worker: &mut Child) -> Result<String, Fault> {
    let stdout = worker.stdout.take().ok_or_else(|| Fault::fatal("the worker has no output"))?;
    for line in BufReader::new(stdout).lines() {
        if let Some(words) = line?.strip_prefix(READY) {
            return Ok(words.to_owned());
        }
    }
    Err(Fault::fatal("the worker ended before its time; what it says is above"))
}

/// How many changes the log holds that the engine has not acknowledged.
fn unacknowledged(database: &Path) -> Result<u64, Fault> {
    let sql = "SELECT count(*) FROM syncline_changes WHERE id > (SELECT position FROM syncline_consumers)";
    let count: i64 = bookshop::connect(database)?.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(count)?)
}
