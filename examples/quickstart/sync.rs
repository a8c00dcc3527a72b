//! How an engine is put together, and how its progress is followed.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use syncline::connectors::sqlite::{
    IndexDefinition, SqliteCapture, SqliteDocuments, SqliteError, SqliteQuarantine,
};
use syncline::connectors::tantivy::TantivySink;
use syncline::pipeline::Phase;
use syncline::{BatchPolicy, ChangeCapture, Engine, FailurePolicy, Fault, Observer, Report, Running, Status};

use crate::page::Page;

/// How often the progress bar is drawn.
const DRAW: Duration = Duration::from_millis(50);

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
    /// Whether the file is somebody's own: then its journal mode is left alone, and a row that cannot be indexed is
    /// quarantined, where the tour would stop.
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
    pub(crate) fn documents(&self) -> Result<SqliteDocuments, SqliteError> {
        SqliteDocuments::open(&self.database, self.definitions.iter().cloned())
    }

    /// Where the documents are recorded that cannot be made or indexed.
    pub(crate) fn quarantine(&self) -> Result<SqliteQuarantine, SqliteError> {
        SqliteQuarantine::open(self.index.join("quarantine.db"))
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
            engine = engine.with_failure_policies(FailurePolicy::Skip).with_quarantine(self.quarantine()?);
        }
        Ok(Sync { running: engine.start(), capture, sink })
    }
}

impl Sync {
    pub(crate) fn status(&self) -> Status {
        self.running.status()
    }

    /// Waits until the run looks like this. Errors: the run is over.
    pub(crate) async fn until(&self, condition: impl Fn(&Status) -> bool + Send) -> Result<Status, Fault> {
        let status = self.running.until(condition).await;
        match status.phase {
            Phase::Ended => Err(self.ended().await),
            _ => Ok(status),
        }
    }

    /// Waits until changes flow.
    pub(crate) async fn opened(&self) -> Result<Status, Fault> {
        self.until(|status| status.phase != Phase::Starting).await
    }

    /// Waits until every index is seeded, of so many root rows in all.
    pub(crate) async fn seeded(&self, page: Page, rows: u64) -> Result<Status, Fault> {
        let mut seeded = pin!(self.until(|status| {
            !status.indexes.is_empty() && status.indexes.iter().all(|index| index.seeded)
        }));
        loop {
            tokio::select! {
                status = &mut seeded => {
                    page.progress_over();
                    return status;
                }
                () = tokio::time::sleep(DRAW) => {
                    let done = self.status().indexes.iter().map(|index| index.rows_durable).sum();
                    page.progress("rows", done, rows);
                }
            }
        }
    }

    /// Waits until everything that the database's log held by now is acknowledged, and nothing else is owed.
    ///
    /// The run alone cannot tell of a commit of a moment ago: the capture may not have looked for it yet.
    pub(crate) async fn caught_up(&self) -> Result<Status, Fault> {
        self.opened().await?;
        loop {
            let seen = self.status().acknowledged;
            if self.capture.lag().await? == Some(0) {
                break;
            }
            self.until(|status| status.acknowledged != seen).await?;
        }
        match self.running.caught_up().await {
            true => Ok(self.status()),
            false => Err(self.ended().await),
        }
    }

    /// Looks whether the run still goes on. Errors: what ended it.
    pub(crate) async fn going(&self) -> Result<(), Fault> {
        match self.running.is_finished() {
            true => Err(self.ended().await),
            false => Ok(()),
        }
    }

    /// Waits for the end of the run, which comes only with an error: its source has no end.
    pub(crate) async fn ended(&self) -> Fault {
        match self.running.outcome().await {
            Ok(_) => Fault::fatal("the engine ended, though its source has no end"),
            Err(error) => error.into(),
        }
    }

    /// Ends the run in order, and lets go of the index, which one run alone can write.
    pub(crate) async fn drain(self) -> Result<Report, Fault> {
        Ok(self.running.drain(Duration::from_secs(10)).await?)
    }
}
