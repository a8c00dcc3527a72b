//! From SQLite into a search index, by Syncline's own connectors.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use speed::engine::batch;
use speed::work::{Pace, Work};
use speed::{Contestant, Outcome, Scenario};
use syncline::connectors::{sqlite, tantivy};
use syncline::ports::{Field, FieldKind};
use syncline::{Engine, IndexName};
use tokio::runtime::Builder;

const BACKFILL: &str = "E1 backfill";
const LIVE: &str = "E1 live";

/// How many rows there are when changes are followed live.
const ROWS_BESIDE: u64 = 100_000;

/// The scenarios.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let of = |name, about, changes| {
        // A commit of the index costs the same, however much it holds.
        let work = Work { pace: Pace::Real, ..Work::of(changes, 4096) };
        Scenario { name, about, work, rounds: 1, with_peers: false }
    };
    vec![
        of(BACKFILL, "SQLite to tantivy: 1 M rows, in units of 4,096", 1_000_000),
        of(LIVE, "100,000 updates of single rows, in transactions of 100, live, in units of 4,096", 100_000),
    ]
}

/// Syncline, with its own connectors, on two threads.
#[derive(Debug, Clone, Copy)]
pub struct Syncline;

impl Contestant for Syncline {
    fn name(&self) -> &'static str {
        "Syncline"
    }

    fn run(&self, scenario: &Scenario) -> Outcome {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let took = runtime.block_on(run(scenario)).expect("a run without faults");
        Outcome { took: Some(took), ..Outcome::default() }
    }
}

async fn run(scenario: &Scenario) -> Result<Duration, Box<dyn std::error::Error>> {
    let changes = scenario.work.changes;
    let rows = if scenario.name == LIVE { ROWS_BESIDE } else { changes };
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("shop.db");
    let database = Connection::open(&file)?;
    database.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT, year INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO books SELECT i, 'The history of book ' || i || ', told anew', 1900 + i % 125 FROM n;"
    ))?;
    let books = sqlite::IndexDefinition::new(
        "books",
        "books",
        "SELECT b.id, json_object('title', b.title, 'year', b.year) FROM syncline_keys k JOIN books b ON b.id = k.k1",
    )?
    .field(Field::new("title", FieldKind::Text))
    .field(Field::new("year", FieldKind::Integer));
    let mut begun = Instant::now();
    let documents = sqlite::SqliteDocuments::open(&file, [books])?;
    let capture = sqlite::SqliteCapture::new(&file, "bench", documents.tables());
    let sink = tantivy::TantivySink::open(directory.path().join("index"))?;
    let engine = Engine::new(capture, documents, sink.clone()).with_batch(batch(&scenario.work));
    let running = engine.start();
    assert!(running.caught_up().await, "it is seeded: {:?}", running.outcome().await);
    if scenario.name == LIVE {
        begun = Instant::now();
        let writer = tokio::task::spawn_blocking(move || -> rusqlite::Result<()> {
            database.busy_timeout(Duration::from_secs(60))?;
            for first in (1..=changes).step_by(100) {
                let last = first + 99;
                let each = (first..=last).map(|id| format!("UPDATE books SET year = 2026 WHERE id = {id};"));
                database.execute_batch(&format!("BEGIN IMMEDIATE; {} COMMIT;", each.collect::<String>()))?;
            }
            Ok(())
        });
        writer.await??;
        running.until(|status| status.durable >= changes).await;
    }
    let took = begun.elapsed();
    running.drain(Duration::from_secs(60)).await?;
    assert_eq!(sink.count(&IndexName::new("books")?)?, rows);
    Ok(took)
}
