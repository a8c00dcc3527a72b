//! The process that is killed: one engine, set up as its one argument says, that does as its standard input says and tells on
//! its standard output how it is.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncline::config::{BatchPolicy, FailurePolicy, Limits, RetryPolicy};
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::connectors::postgres::{PostgresCapture, PostgresDocuments, Server};
use syncline::pipeline::{IndexStatus, Phase};
use syncline::{Engine, IndexName, Running, Status};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

use crate::protocol::{Asked, OfIndex, Outcome, Said, Told, now_ms};
use crate::random::Random;
use crate::schema;
use crate::tally::Result;

const CONSUMER: &str = "search";

/// How often it tells how it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    Stop,
    Skip,
    Park,
}

/// All that differs between one engine and the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Options {
    database: String,
    url: String,
    pub(crate) policy: Policy,
    gzip: bool,
    flushes: usize,
    requests: usize,
    request_documents: usize,
    builds: usize,
    units: usize,
    max_changes: usize,
    max_documents: usize,
    max_bytes: usize,
    delay_ms: u64,
    changes: usize,
    documents: usize,
    resolve_changes: usize,
    backfill_rows: usize,
    attempts: u32,
    cursor_ms: u64,
}

impl Options {
    /// Small limits and large ones, so that all that depends on them is met.
    pub(crate) fn draw(random: &mut Random, database: &str, url: &str) -> Self {
        let mut of = |values: &[usize]| values[random.below(values.len() as u64) as usize];
        let (flushes, builds) = (of(&[1, 1, 2, 4]), of(&[1, 2, 4]));
        Self {
            database: database.to_owned(),
            url: url.to_owned(),
            policy: [Policy::Stop, Policy::Skip, Policy::Skip, Policy::Park][of(&[0, 1, 2, 3])],
            gzip: of(&[0, 1]) == 1,
            flushes,
            requests: of(&[1, 4]),
            request_documents: of(&[20, 200, 1_000]),
            builds,
            units: flushes.max(builds) + of(&[0, 2, 4]),
            max_changes: of(&[1, 32, 256, 256, 256, 2_000]),
            max_documents: of(&[16, 256, 1_024]),
            max_bytes: of(&[40_000, 8 << 20]),
            delay_ms: of(&[0, 5, 50]) as u64,
            changes: of(&[64, 1_024, 8_192]),
            documents: of(&[128, 2_048, 16_384]),
            resolve_changes: of(&[8, 1_024]),
            backfill_rows: of(&[100, 4_096]),
            attempts: of(&[4, 10]) as u32,
            cursor_ms: of(&[20, 300, 5_000]) as u64,
        }
    }

    fn batch(&self) -> BatchPolicy {
        BatchPolicy {
            max_changes: self.max_changes,
            max_documents: self.max_documents,
            max_bytes: self.max_bytes,
            max_delay: Duration::from_millis(self.delay_ms),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            changes: self.changes,
            documents: self.documents,
            resolve_changes: self.resolve_changes,
            builds: self.builds,
            flushes: self.flushes,
            units: self.units,
            backfill_rows: self.backfill_rows,
            ..Limits::default()
        }
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_millis(800),
            attempts: self.attempts,
            attempt_timeout: Duration::from_secs(5),
            seed: None,
        }
    }

    async fn start(&self) -> Result<Running> {
        let server = Server::new(&self.database)?;
        let documents = PostgresDocuments::open(&server, schema::definitions()?).await?;
        let capture = PostgresCapture::new(&server, CONSUMER, documents.tables());
        let sink = OpenSearchSink::builder(&self.url)
            .timeout(Duration::from_secs(2))
            .gzip(self.gzip)
            .flushes(self.flushes)
            .requests(self.requests)
            .request_documents(self.request_documents)
            .build()?;
        let policy = match self.policy {
            Policy::Stop => FailurePolicy::Stop,
            Policy::Skip => FailurePolicy::Skip,
            Policy::Park => FailurePolicy::Park,
        };
        // What an earlier engine has put into the quarantine, this one takes out, whatever its own policy is.
        let quarantine = sink.quarantine();
        let engine = Engine::new(capture, documents, sink)
            .with_batch(self.batch())
            .with_limits(self.limits())
            .with_retry(self.retry())
            .with_failure_policies(policy)
            .with_quarantine(quarantine)
            .with_cursor_interval(Duration::from_millis(self.cursor_ms))
            .with_grace(Duration::from_secs(2));
        Ok(engine.start())
    }
}

/// Runs until it is drained, fails, or is killed; or its input ends, because whoever started it has died.
pub(crate) async fn run(options: &str) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(LevelFilter::WARN)
        .init();
    let options: Options = serde_json::from_str(options)?;
    tracing::warn!(pid = std::process::id(), ?options, "an engine starts");
    let (send, mut said) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let (mut start, mut early) = (std::pin::pin!(options.start()), Vec::new());
    let running = loop {
        tokio::select! {
            running = &mut start => break Arc::new(running?),
            line = said.recv() => match line {
                None => return Ok(()),
                Some(line) => early.push(line),
            },
        }
    };
    for line in early {
        obey(&running, &line)?;
    }
    let mut tick = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            line = said.recv() => match line.as_deref() {
                None => return Ok(()),
                Some(line) => obey(&running, line)?,
            },
            outcome = running.outcome() => {
                tracing::warn!(?outcome, "the engine has ended");
                outcome?;
                return Ok(());
            }
            _ = tick.tick() => tell(&running).await?,
        }
    }
}

fn obey(running: &Arc<Running>, line: &str) -> Result<()> {
    match serde_json::from_str(line)? {
        Asked::Drain => running.request_drain(Duration::from_secs(3)),
        Asked::OfIndex { number, what, index } => {
            let (running, index) = (running.clone(), IndexName::new(&index)?);
            tokio::spawn(async move {
                let outcome = match what {
                    OfIndex::Reindex => reindex(&running, &index).await,
                    OfIndex::Verify => verify(&running, &index).await,
                };
                tracing::warn!(%index, ?what, ?outcome, "something was asked of an index");
                // Whoever asked has died, and so does this process.
                let _ = say(&Said::Became(number, outcome));
            });
        }
    }
    Ok(())
}

async fn reindex(running: &Running, index: &IndexName) -> Outcome {
    if let Err(refusal) = running.reindex(index).await {
        return Outcome::Refused(refusal.to_string());
    }
    let is = |status: &Status, so: fn(&IndexStatus) -> bool| {
        status.indexes.iter().any(|of| of.index == *index && so(of))
    };
    let status = running.until(|status| is(status, |of| of.seeded || of.parked)).await;
    match () {
        () if status.phase == Phase::Ended => Outcome::Refused("the run has ended".to_owned()),
        () if is(&status, |of| of.parked) => Outcome::Parked,
        () => Outcome::Seeded,
    }
}

async fn verify(running: &Running, index: &IndexName) -> Outcome {
    match running.verify(index).await {
        Err(refusal) => Outcome::Refused(refusal.to_string()),
        Ok(verified) => Outcome::Verified {
            compared: verified.compared,
            different: verified.different,
            documents: verified.documents.iter().map(|id| id.sink_id()).collect(),
        },
    }
}

/// Tells how it is; and does what an operator would about an index that has stopped alone.
async fn tell(running: &Running) -> Result<()> {
    let at_ms = now_ms();
    let status = running.status();
    let those = |are: fn(&IndexStatus) -> bool| {
        status.indexes.iter().filter(|index| are(index)).map(|index| index.index.to_string()).collect()
    };
    say(&Said::Status(Told {
        at_ms,
        caught_up: status.caught_up,
        seeded: those(|index| index.seeded),
        parked: those(|index| index.parked),
        captured: status.captured,
        retries: status.retries,
        quarantined: status.quarantined,
    }))?;
    for index in status.indexes.iter().filter(|index| index.parked) {
        let asked = running.reindex(&index.index).await;
        tracing::warn!(index = %index.index, ?asked, "an index that had stopped is built anew");
    }
    Ok(())
}

fn say(said: &Said) -> Result<()> {
    writeln!(std::io::stdout(), "{}", serde_json::to_string(said)?)?;
    Ok(())
}
