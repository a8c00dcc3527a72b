//! How an engine is put together, and how its progress is followed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use syncline::connectors::sqlite::{IndexDefinition, SqliteCapture, SqliteDocuments, SqliteQuarantine};
use syncline::connectors::tantivy::TantivySink;
use syncline::pipeline::Phase;
use syncline::{BatchPolicy, ChangeCapture, Engine, FailurePolicy, Fault, Observer, Report, Running, Status};

use crate::page::Page;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What is kept equal to what.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The SQLite file.
    pub(crate) database: PathBuf,
    /// Where the search index is.
    pub(crate) index: PathBuf,
    /// How documents are made of rows.
    pub(crate) definitions: Vec<IndexDefinition>,
    /// By which name the database knows how far this index has got. Two indexes must not share one.
    pub(crate) consumer: String,
    /// Whether the file is somebody's own: then its journal mode is left alone, and a row that cannot be indexed is put
    /// aside, where the tour would stop.
    pub(crate) own: bool,
}

/// An engine that runs, with the two ports that the example looks into.
#[derive(Debug)]
pub(crate) struct Sync {
    running: Running,
    capture: Arc<SqliteCapture>,
    pub(crate) sink: TantivySink,
}

impl Setup {
    /// Checks the definitions against the database. Errors speak of the file, its tables or the SQL.
    pub(crate) fn documents(&self) -> Result<SqliteDocuments, Fault> {
        Ok(SqliteDocuments::open(&self.database, self.definitions.iter().cloned())?)
    }

    /// Starts the engine: changes come from the database, documents are built in it, and go to the index.
    pub(crate) fn start(&self, observer: impl Observer) -> Result<Sync, Fault> {
        let documents = self.documents()?;
        let capture = SqliteCapture::new(&self.database, &self.consumer, documents.tables());
        let capture = Arc::new(capture.write_ahead_log(!self.own));
        let sink = TantivySink::open(&self.index)?;
        let mut engine = Engine::new(Arc::clone(&capture), documents, sink.clone())
            .with_observer(observer)
            // A unit is a commit of the index, some ten file syncs: many documents make it cheap, and a short wait for
            // company makes it quick.
            .with_batch(BatchPolicy {
                max_changes: 2048,
                max_documents: 2048,
                max_delay: Duration::from_millis(5),
                ..BatchPolicy::default()
            });
        if self.own {
            let quarantine = SqliteQuarantine::open(self.index.join("quarantine.db"))?;
            engine = engine.with_failure_policies(FailurePolicy::Skip).with_quarantine(quarantine);
        }
        Ok(Sync { running: engine.start(), capture, sink })
    }
}

impl Sync {
    pub(crate) fn status(&self) -> Status {
        self.running.status()
    }

    /// Waits until changes flow.
    pub(crate) async fn opened(mut self) -> Result<Self, Fault> {
        while self.status().phase == Phase::Starting {
            self = self.going().await?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(self)
    }

    /// Waits until every index is seeded, of so many root rows in all.
    pub(crate) async fn seeded(mut self, page: Page, total: u64) -> Result<Self, Fault> {
        loop {
            self = self.going().await?;
            let status = self.status();
            if !status.indexes.is_empty() && status.indexes.iter().all(|index| index.seeded) {
                page.progress_over();
                return Ok(self);
            }
            let done = status.indexes.iter().map(|index| index.rows_durable).sum();
            page.progress("documents", done, total);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every change that is in the database's log has been acknowledged.
    pub(crate) async fn caught_up(mut self) -> Result<Self, Fault> {
        while self.capture.lag().await? != Some(0) {
            self = self.going().await?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(self)
    }

    /// The same run, or the error that ended it.
    pub(crate) async fn going(self) -> Result<Self, Fault> {
        if !self.running.is_finished() {
            return Ok(self);
        }
        self.running.outcome().await?;
        Err(Fault::fatal("the engine ended, though its source has no end"))
    }

    /// Ends the run in order.
    pub(crate) async fn drain(self) -> Result<Report, Fault> {
        Ok(self.running.drain(Duration::from_secs(10)).await?)
    }
}
