//! The engine as a process: started, asked, killed, and started again where it has ended.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::Options;
use crate::protocol::{Asked, OfIndex, Outcome, Said, Told};
use crate::random::Random;
use crate::tally::{Group, Result, Tally, locked};

pub(crate) struct Supervisor {
    database: String,
    url: String,
    random: Random,
    tally: Arc<Tally>,
    engine: Option<Process>,
    /// What the engine told last.
    told: Arc<Mutex<Option<Told>>>,
    /// How often something was asked of an index.
    asked: u64,
}

struct Process {
    child: Child,
    input: ChildStdin,
    waiting: Waiting,
}

/// What was asked of the indexes of one engine, and who waits for what becomes of it.
type Waiting = Arc<Mutex<BTreeMap<u64, (OfIndex, String, oneshot::Sender<Outcome>)>>>;

impl Supervisor {
    pub(crate) fn new(database: &str, url: &str, random: Random, tally: Arc<Tally>) -> Self {
        let (database, url) = (database.to_owned(), url.to_owned());
        Self { database, url, random, tally, engine: None, told: Arc::default(), asked: 0 }
    }

    /// What the engine told last, whenever somebody looks.
    pub(crate) fn told(&self) -> Arc<Mutex<Option<Told>>> {
        self.told.clone()
    }

    /// Starts an engine with settings of its own, where there is none.
    pub(crate) fn start(&mut self) -> Result<()> {
        if self.engine.is_some() {
            return Ok(());
        }
        let options = Options::draw(&mut self.random, &self.database, &self.url);
        let mut child = Command::new(std::env::current_exe()?)
            .args([crate::ENGINE, &serde_json::to_string(&options)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(self.tally.engine_log()?)
            .kill_on_drop(true)
            .spawn()?;
        self.tally.add(Group::Trouble, "engines started", 1);
        self.tally.note(format!("started an engine: {options:?}"));
        let (input, output) = match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => (input, output),
            _ => return Err("an engine without pipes".into()),
        };
        let waiting = Waiting::default();
        tokio::spawn(listen(output, self.told.clone(), waiting.clone(), self.tally.clone()));
        self.engine = Some(Process { child, input, waiting });
        Ok(())
    }

    /// Kills the engine where it stands. Returns whether there was one.
    pub(crate) async fn kill(&mut self) -> Result<bool> {
        let Some(mut engine) = self.engine.take() else { return Ok(false) };
        engine.child.start_kill()?;
        engine.child.wait().await?;
        self.tally.add(Group::Trouble, "kills", 1);
        Ok(true)
    }

    /// Waits, and starts the engine again, after a moment, whenever it has ended by itself.
    pub(crate) async fn mind(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let ended = match &mut self.engine {
                Some(engine) => engine.child.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                self.engine = None;
                self.tally.add(Group::Trouble, "runs that failed", 1);
                self.tally.note(format!("the engine has ended by itself: {status}"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.engine.is_none() {
                tokio::time::sleep(left.min(Duration::from_millis(self.random.below(1_500)))).await;
                self.start()?;
            }
            tokio::time::sleep(left.min(Duration::from_millis(20))).await;
        }
    }

    /// Waits until this is told, and no longer than this; nothing where it was not, or will not be.
    pub(crate) async fn mind_until<T>(
        &mut self,
        told: &mut oneshot::Receiver<T>,
        longest: Duration,
    ) -> Result<Option<T>> {
        let until = Instant::now() + longest;
        while Instant::now() < until {
            match told.try_recv() {
                Ok(told) => return Ok(Some(told)),
                Err(oneshot::error::TryRecvError::Empty) => self.mind(Duration::from_millis(5)).await?,
                Err(oneshot::error::TryRecvError::Closed) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Asks the engine for something of an index. What is returned is told what becomes of it, where the engine lives to see it.
    pub(crate) async fn ask(&mut self, what: OfIndex, index: &str) -> Result<oneshot::Receiver<Outcome>> {
        let (outcome, told) = oneshot::channel();
        self.asked += 1;
        let (number, index) = (self.asked, index.to_owned());
        let asked = match what {
            OfIndex::Reindex => "reindexes asked for",
            OfIndex::Verify => "verifications asked for",
        };
        if let Some(engine) = &self.engine {
            self.tally.add(Group::Request, asked, 1);
            self.tally.note(format!("asked for: {what:?} {index}, number {number}"));
            locked(&engine.waiting).insert(number, (what, index.clone(), outcome));
        }
        self.write(&Asked::OfIndex { number, what, index }).await?;
        Ok(told)
    }

    async fn write(&mut self, asked: &Asked) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(asked)?);
        if let Some(engine) = &mut self.engine {
            // One that has ended meanwhile reads nothing.
            let _ = engine.input.write_all(line.as_bytes()).await;
        }
        Ok(())
    }

    /// Has the engine work off what it holds, and end.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        self.write(&Asked::Drain).await?;
        let Some(mut engine) = self.engine.take() else { return Ok(()) };
        match tokio::time::timeout(Duration::from_secs(30), engine.child.wait()).await {
            Ok(status) => {
                let status = status?;
                let what = if status.success() { "drains" } else { "runs that failed" };
                self.tally.add(Group::Trouble, what, 1);
                Ok(())
            }
            Err(_) => Err("an engine that was drained has not ended after 30 s".into()),
        }
    }

    /// What the engine told last, where that was after this moment.
    pub(crate) fn told_since(&self, moment_ms: u64) -> Option<Told> {
        locked(&self.told).clone().filter(|told| self.engine.is_some() && told.at_ms > moment_ms)
    }
}

/// Hears what an engine tells, until its end.
async fn listen(output: ChildStdout, told: Arc<Mutex<Option<Told>>>, waiting: Waiting, tally: Arc<Tally>) {
    let mut lines = BufReader::new(output).lines();
    let mut parked = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Said::Status(status)) => {
                tally.add(
                    Group::Request,
                    "indexes that stopped",
                    status.parked.len().saturating_sub(parked) as u64,
                );
                parked = status.parked.len();
                *locked(&told) = Some(status);
            }
            Ok(Said::Became(number, outcome)) => {
                let asked = locked(&waiting).remove(&number);
                let Some((what, index, waits)) = asked else { continue };
                tally.note(format!("{what:?} {index}, number {number}: {outcome:?}"));
                count(what, &outcome, &tally);
                // Not everyone waits.
                let _ = waits.send(outcome);
            }
            // It was killed while it wrote this.
            Err(_) => {}
        }
    }
    *locked(&told) = None;
    locked(&waiting).clear();
}

fn count(what: OfIndex, outcome: &Outcome, tally: &Tally) {
    let name = match (what, outcome) {
        (OfIndex::Reindex, Outcome::Seeded) => "reindexes completed",
        (OfIndex::Reindex, _) => "reindexes refused or stopped",
        (OfIndex::Verify, Outcome::Verified { .. }) => "verifications ended",
        (OfIndex::Verify, _) => "verifications refused or interrupted",
    };
    tally.add(Group::Request, name, 1);
    if let Outcome::Verified { compared, different, .. } = outcome {
        tally.add(Group::Request, "documents verified", *compared);
        tally.add(Group::Request, "differences found", *different);
    }
}
