//! PostgreSQL into OpenSearch under torture: `cargo run --release --features postgres,opensearch --example torture -- --minutes 5 --seed 1`
//!
//! It starts a PostgreSQL server of its own, has several sessions change six related tables without a pause, and keeps three
//! indexes equal to them with an engine in a process of its own, which is killed (SIGKILL) every few seconds: at any moment, or
//! just before or after the search server has done what a request asks. The database server is stopped, cleanly or not, connections
//! are cut, the replication slot is dropped, tables are truncated, indexes are removed by hand; between the engine and the search server
//! requests are refused, throttled, rejected, torn, delayed, delivered after they were given up; answers are lost. At any moment
//! an index is asked to be built anew, or to be compared with its source. All the time somebody searches, and has to find what is
//! always there, also while an index is built anew.
//!
//! Every minute or so all of that ceases, the engine has to catch up, and **every document of every index is compared** with what
//! SQL says. Nothing may be lost, stale or double; no document may ever have been overwritten by an older row; the quarantine must
//! be empty. The engine's own comparison must find no difference then; and where somebody has changed a document by hand, exactly that one, and mend
//! it. It ends with 0 if that was so each time, and with 1 and the differences if not.
//!
//! The pair is the one that is tortured because it is the one that most run; both connectors are the real ones, with nothing
//! replaced. The search server is `osmem-server` of PyPI: it keeps versions and those of deletions as OpenSearch does, which is what
//! late writes are about, and it lives through all of it, so that whatever the index holds in the end was written by some
//! engine. Where PostgreSQL's server or that package cannot be had, it says so and ends with 2.
//!
//! The seed decides what is drawn: the rounds, the troubles, the settings of each engine, the statements. When things
//! happen is real, so that one seed is not one run. `target/torture/<seed>` keeps the events, the engines' log, and the journal of
//! what was written since the last comparison.
//!
//! Where to read: [`chaos`] is what is done to whom, [`weather`] what may happen to a request, [`workload`] what the
//! application does, [`peace`] and [`truth`] how the documents are compared, [`watcher`] what is searched meanwhile and [`excuses`] what it may
//! miss, [`engine`] the process that is killed.

mod anchors;
mod bulk;
mod chaos;
// The servers, and as much HTTP as is needed, are those of the tests.
#[path = "../../tests/postgres/cluster.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests need more of it, and may panic")]
mod cluster;
mod engine;
mod excuses;
mod hand;
mod peace;
mod protocol;
mod proxy;
#[path = "../../tests/random/mod.rs"]
mod random;
mod schema;
#[path = "../../tests/opensearch/servers.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests need more of it, and may panic")]
mod servers;
mod supervisor;
mod tally;
mod truth;
mod watcher;
mod weather;
#[path = "../../tests/opensearch/wire.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests need more of it, and may panic")]
mod wire;
mod workload;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::chaos::World;
use crate::cluster::Cluster;
use crate::excuses::Excuses;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::servers::{Kind, Server};
use crate::supervisor::Supervisor;
use crate::tally::{Group, Result, Tally};
use crate::watcher::Watcher;
use crate::workload::{Gate, Plan};

/// The first argument of the process that is killed.
const ENGINE: &str = "engine";

const USAGE: &str = "usage: torture [--minutes N] [--seed S]";

/// A round that has begun is no shorter, however little time is left.
const SHORTEST: Duration = Duration::from_secs(20);

/// How often it says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(10);

struct Arguments {
    minutes: f64,
    seed: u64,
}

#[tokio::main(worker_threads = 4)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [engine, options] if engine == ENGINE => engine::run(options).await.map(|()| ExitCode::SUCCESS),
        _ => match parse() {
            Ok(arguments) => torture(&arguments).await,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{error}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    let code = outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::FAILURE
    });
    // Something may still be reading the input, which nobody waits for.
    std::process::exit(if code == ExitCode::SUCCESS {
        0
    } else if code == ExitCode::FAILURE {
        1
    } else {
        2
    })
}

fn parse() -> std::result::Result<Arguments, lexopt::Error> {
    use lexopt::prelude::*;
    let mut arguments = Arguments { minutes: 5.0, seed: std::process::id().into() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("minutes") => arguments.minutes = parser.value()?.parse()?,
            Long("seed") => arguments.seed = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(arguments)
}

async fn torture(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { minutes, seed } = *arguments;
    // Both say what is missing.
    let (Some(cluster), Some(search)) = (Cluster::start(SETTINGS), Server::start(Kind::Osmem).await) else {
        return Ok(ExitCode::from(2));
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/torture").join(seed.to_string());
    let tally = Arc::new(Tally::new(&directory)?);
    tally.say(format!("torture for {minutes} minutes, seed {seed}; see {}", directory.display()));

    let cluster = Arc::new(cluster);
    cluster.psql("postgres", schema::ROLE)?;
    cluster.psql("shop", schema::TABLES)?;
    truth::prepare(&cluster)?;
    let host = cluster.directory().display();
    let database = |user: &str| format!("host={host} port={} dbname=shop user={user}", cluster.port);
    workload::fill(&database("postgres")).await?;

    let mut random = Random(seed);
    let mut random = || Random(random.next());
    let proxy = Proxy::start(search.address, random(), tally.clone()).await?;
    let supervisor = Supervisor::new(&database("search"), &proxy.url, random(), tally.clone());
    let gate: Gate = Arc::new(RwLock::new(Plan::default()));
    let excuses = Arc::new(Excuses::new(cluster.clone(), tally.clone()));
    workload::start(&database("postgres"), seed, &gate, &excuses, &tally);
    let watcher = Watcher::start(search.address, &excuses, supervisor.told(), &tally);
    let mut world = World {
        cluster: cluster.clone(),
        database: database("postgres"),
        search: search.address,
        proxy,
        supervisor,
        excuses,
        watcher,
        gate,
        random: random(),
        tally: tally.clone(),
    };
    let saying = tokio::spawn(say_how_far(tally.clone()));
    let wrong = rounds(&mut world, Duration::from_secs_f64(minutes * 60.0)).await;
    saying.abort();
    // The engine goes before the servers do.
    world.supervisor.kill().await?;
    let wrong = wrong.unwrap_or_else(|error| vec![error.to_string()]);
    summary(&tally, minutes, seed, &wrong, &cluster)?;
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Commits are decoded in small pieces, and checkpoints come often.
const SETTINGS: &str =
    "logical_decoding_work_mem = '256kB'\ncheckpoint_timeout = 30s\ndeadlock_timeout = 200ms";

/// Rounds until the time is over, or something is wrong.
async fn rounds(world: &mut World, time: Duration) -> Result<Vec<String>> {
    let end = Instant::now() + time;
    world.supervisor.start()?;
    let mut number = 0;
    loop {
        number += 1;
        let left = end.saturating_duration_since(Instant::now());
        let wrong = world.round(number, left.max(SHORTEST)).await?;
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        if Instant::now() >= end {
            return Ok(unmet(&world.tally));
        }
    }
}

/// A run that has not met these has shown nothing of them.
const MET: [&str; 4] =
    ["reindexes completed", "verifications ended", "documents changed by hand", "swaps seen by searches"];

fn unmet(tally: &Tally) -> Vec<String> {
    let is_unmet = |what: &&'static str| tally.of(Group::Request, what) + tally.of(Group::Check, what) == 0;
    MET.into_iter().filter(is_unmet).map(|what| format!("there were no {what} in this run")).collect()
}

async fn say_how_far(tally: Arc<Tally>) {
    loop {
        tokio::time::sleep(SAY_EVERY).await;
        let work = tally.sum(Group::Work) - tally.of(Group::Work, "rows");
        tally.say(format!(
            "{work} transactions, {} rows; {} kills, {} runs failed; {} faults; {} reindexes, {} verifications; \
             {} searches, {} comparisons of {} documents",
            tally.of(Group::Work, "rows"),
            tally.of(Group::Trouble, "kills"),
            tally.of(Group::Trouble, "runs that failed"),
            tally.sum(Group::Fault),
            tally.of(Group::Request, "reindexes completed"),
            tally.of(Group::Request, "verifications ended"),
            tally.of(Group::Check, "searches"),
            tally.of(Group::Check, "comparisons"),
            tally.of(Group::Check, "documents compared"),
        ));
    }
}

fn summary(tally: &Tally, minutes: f64, seed: u64, wrong: &[String], cluster: &Cluster) -> Result<()> {
    tally.say(format!("seed {seed}, {minutes} minutes"));
    tally.say(format!("  work: {}", tally.list(Group::Work)));
    tally.say(format!("  trouble: {}", tally.list(Group::Trouble)));
    tally.say(format!("  faults: {}: {}", tally.sum(Group::Fault), tally.list(Group::Fault)));
    tally.say(format!("  asked of engines: {}", tally.list(Group::Request)));
    tally.say(format!("  looked at: {}", tally.list(Group::Check)));
    if wrong.is_empty() {
        tally.say("every document is what the tables say: mismatches: 0");
        return Ok(());
    }
    for line in wrong {
        tally.say(line);
    }
    std::fs::write(tally.directory().join("postgres.log"), cluster.log())?;
    let dump = cluster.psql(
        "shop",
        "\\copy books TO STDOUT\n\\copy authors TO STDOUT\n\\copy reviews TO STDOUT\n\\copy books_tags TO STDOUT",
    )?;
    std::fs::write(tally.directory().join("tables.txt"), dump)?;
    tally.say(format!("MISMATCHES; what there is to look into is in {}", tally.directory().display()));
    Ok(())
}
