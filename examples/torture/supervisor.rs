//! The engine as a process: started, asked, killed, and started again where it has ended.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::{Options, Told};
use crate::random::Random;
use crate::tally::{Group, Result, Tally, locked};

pub(crate) struct Supervisor {
    database: String,
    url: String,
    random: Random,
    tally: Arc<Tally>,
    engine: Option<Process>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    /// What it told last, and when.
    told: Arc<Mutex<Option<(Instant, Told)>>>,
}

impl Supervisor {
    pub(crate) fn new(database: &str, url: &str, random: Random, tally: Arc<Tally>) -> Self {
        Self { database: database.to_owned(), url: url.to_owned(), random, tally, engine: None }
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
        let told = Arc::new(Mutex::new(None));
        let telling = told.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(status) = serde_json::from_str(&line) {
                    *locked(&telling) = Some((Instant::now(), status));
                }
            }
        });
        self.engine = Some(Process { child, input, told });
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

    /// Waits until this is told, and no longer than this. Returns whether it was told.
    pub(crate) async fn mind_until(
        &mut self,
        told: &mut oneshot::Receiver<()>,
        longest: Duration,
    ) -> Result<bool> {
        let until = Instant::now() + longest;
        while Instant::now() < until {
            match told.try_recv() {
                Ok(()) => return Ok(true),
                Err(oneshot::error::TryRecvError::Empty) => self.mind(Duration::from_millis(5)).await?,
                Err(oneshot::error::TryRecvError::Closed) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Asks the engine for something: `drain`, or the name of an index that is to be built anew.
    pub(crate) async fn ask(&mut self, what: &str) {
        if let Some(engine) = &mut self.engine {
            // One that has ended meanwhile reads nothing.
            let _ = engine.input.write_all(format!("{what}\n").as_bytes()).await;
        }
    }

    /// Has the engine work off what it holds, and end.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        self.ask("drain").await;
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
    pub(crate) fn told_since(&self, moment: Instant) -> Option<Told> {
        let engine = self.engine.as_ref()?;
        let told = locked(&engine.told);
        told.as_ref().filter(|(at, _)| *at > moment).map(|(_, told)| told.clone())
    }
}
