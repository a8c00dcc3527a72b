//! What was done, counted; and where it is told.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// What the writers did.
    Work,
    /// What was done to processes and servers.
    Trouble,
    /// What was done to requests.
    Fault,
    /// What was asked of an engine, and what became of it.
    Request,
    /// What was looked at.
    Check,
}

/// Counts, a log of what happened when, and a journal of what was written to the indexes since they were last compared.
pub(crate) struct Tally {
    counts: Mutex<BTreeMap<(Group, &'static str), u64>>,
    started: Instant,
    directory: PathBuf,
    events: Mutex<File>,
    journal: Mutex<File>,
}

impl Tally {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            counts: Mutex::default(),
            started: Instant::now(),
            directory: directory.to_owned(),
            events: Mutex::new(File::create(directory.join("events.log"))?),
            journal: Mutex::new(File::create(directory.join("journal.log"))?),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the engines write their logs.
    pub(crate) fn engine_log(&self) -> Result<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.directory.join("engine.log"))?)
    }

    pub(crate) fn add(&self, group: Group, what: &'static str, count: u64) {
        *locked(&self.counts).entry((group, what)).or_default() += count;
    }

    pub(crate) fn of(&self, group: Group, what: &'static str) -> u64 {
        locked(&self.counts).get(&(group, what)).copied().unwrap_or_default()
    }

    pub(crate) fn sum(&self, group: Group) -> u64 {
        locked(&self.counts).iter().filter(|((of, _), _)| *of == group).map(|(_, count)| count).sum()
    }

    /// The counts of a group, one after the other.
    pub(crate) fn list(&self, group: Group) -> String {
        let counts = locked(&self.counts);
        let of = counts.iter().filter(|((of, _), _)| *of == group);
        of.map(|((_, what), count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// For whoever reads along.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stdout(), "{}", self.stamped(text.as_ref()));
        self.note(text);
    }

    /// For whoever looks into it later.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let _ = writeln!(locked(&self.events), "{}", self.stamped(text.as_ref()));
    }

    pub(crate) fn journal(&self, line: &str) {
        let _ = writeln!(locked(&self.journal), "{}", self.stamped(line));
    }

    /// What was found right needs no journal any more.
    pub(crate) fn journal_anew(&self) -> Result<()> {
        *locked(&self.journal) = File::create(self.directory.join("journal.log"))?;
        Ok(())
    }

    fn stamped(&self, text: &str) -> String {
        format!("{:9.3} {text}", self.started.elapsed().as_secs_f64())
    }
}

/// Nothing that panics happens under these locks.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
