//! `flusso-engine` over edges that do nothing, or sleep.

/// An engine of one version: the types of two versions are not the same, though they read alike.
macro_rules! flusso {
    ($engine:ident, $schema:ident, $sinks:ident, $sources:ident, $name:literal) => {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

        use async_trait::async_trait;
        use futures::stream::{self, BoxStream, StreamExt};
        use speed::engine::runtime;
        use speed::live::Writer;
        use speed::work::{Pace, Work, take};
        use speed::{Contestant, Outcome, Scenario};
        use $engine::{BatchPolicy, Engine};
        use $schema::{ColumnName, DatabaseSchema, GenericValue, IndexName, TableName};
        use $sinks::{FlushReport, Sink};
        use $sources::cdc::{Ack, AckSink, Change, ChangeCapture, ChangeEvent};
        use $sources::document::{Document, DocumentBuilder, DocumentId, IndexScope};
        use $sources::{Result, RowKey, SnapshotTable};

        /// This version of it, on one thread.
        #[derive(Debug, Clone, Copy)]
        pub struct Flusso;

        impl Contestant for Flusso {
            fn name(&self) -> &'static str {
                $name
            }

            /// Where every change takes a call of a millisecond, once is enough.
            fn rounds(&self, scenario: &Scenario, wanted: usize) -> usize {
                if !scenario.with_peers {
                    return 0;
                }
                if scenario.work.calls.resolve.is_zero() { wanted } else { wanted.min(1) }
            }

            fn run(&self, Scenario { work, .. }: &Scenario) -> Outcome {
                let writer = match work.pace {
                    Pace::AtOnce | Pace::Real => None,
                    Pace::Every(every) => {
                        Some(Arc::new(Writer::start(every, work.changes, work.is_seeded())))
                    }
                };
                let (acks, names) = (Acks::of(writer.clone()), Names::new());
                let capture = Capture {
                    work: work.clone(),
                    writer: writer.clone(),
                    acks: Arc::clone(&acks),
                    names: names.clone(),
                };
                let documents = Documents { work: work.clone(), names };
                let sink =
                    Nowhere { work: work.clone(), buffered: AtomicUsize::new(0), writer: writer.clone() };
                let engine = Engine::new(Arc::new(capture), Arc::new(documents), Arc::new(sink));
                let batch = BatchPolicy { max_changes: work.unit, max_delay: work.max_delay };
                runtime().block_on(engine.with_batch(batch).run()).expect("a run without faults");
                match writer {
                    None => {
                        assert_eq!(acks.confirmed.load(Ordering::Relaxed), work.changes);
                        Outcome::default()
                    }
                    Some(writer) => writer.latencies().into(),
                }
            }

            fn edges(&self, Scenario { work, .. }: &Scenario) -> bool {
                let names = Names::new();
                let acks = Acks::of(None);
                let documents = Documents { work: work.clone(), names: names.clone() };
                let mut changes = changes(work, acks, names).peekable();
                runtime().block_on(async {
                    while changes.peek().is_some() {
                        let mut ids = Vec::with_capacity(work.unit * work.documents_per_change as usize);
                        for change in changes.by_ref().take(work.unit) {
                            let ChangeEvent::Upsert { table, key } = &change.event else { continue };
                            ids.extend(documents.resolve(table, key).await.expect("no fault"));
                        }
                        documents.build_many(&ids).await.expect("no fault");
                    }
                });
                true
            }
        }

        #[derive(Debug, Clone)]
        struct Names {
            index: IndexName,
            table: TableName,
            column: ColumnName,
            schema: DatabaseSchema,
        }

        impl Names {
            fn new() -> Self {
                Self {
                    index: IndexName::try_new("users").expect("a name"),
                    table: TableName::try_new("users").expect("a name"),
                    column: ColumnName::try_new("id").expect("a name"),
                    schema: DatabaseSchema::try_new("public").expect("a name"),
                }
            }

            fn key(&self, id: i64) -> RowKey {
                RowKey(vec![(self.column.clone(), GenericValue::BigInt(id))])
            }

            fn change(&self, row: i64, at: u64, acks: &Arc<Acks>) -> Change {
                let event = ChangeEvent::Upsert { table: self.table.clone(), key: self.key(row) };
                Change { event, ack: Ack::new(at, Arc::clone(acks) as Arc<dyn AckSink>) }
            }
        }

        fn changes(
            work: &Work,
            acks: Arc<Acks>,
            names: Names,
        ) -> impl Iterator<Item = Change> + Send + use<> {
            (0..).zip(work.rows_changed()).map(move |(at, row)| names.change(row, at, &acks))
        }

        /// Acknowledgements come in the order of the changes.
        #[derive(Debug)]
        struct Acks {
            confirmed: AtomicU64,
            writer: Option<Arc<Writer>>,
        }

        impl Acks {
            fn of(writer: Option<Arc<Writer>>) -> Arc<Self> {
                Arc::new(Self { confirmed: AtomicU64::new(0), writer })
            }
        }

        impl AckSink for Acks {
            fn confirm(&self, at: u64) {
                self.confirmed.fetch_add(1, Ordering::Relaxed);
                if let Some(writer) = &self.writer {
                    writer.acknowledged(at + 1);
                }
            }
        }

        #[derive(Debug)]
        struct Capture {
            work: Work,
            writer: Option<Arc<Writer>>,
            acks: Arc<Acks>,
            names: Names,
        }

        #[async_trait]
        impl ChangeCapture for Capture {
            async fn live(&self) -> Result<BoxStream<'static, Result<Change>>> {
                let (acks, names) = (Arc::clone(&self.acks), self.names.clone());
                let Some(writer) = &self.writer else {
                    return Ok(stream::iter(changes(&self.work, acks, names).map(Ok)).boxed());
                };
                let first = self.work.rows;
                let changes = writer.changes();
                Ok(changes.map(move |at| Ok(names.change((first + at) as i64, at, &acks))).boxed())
            }

            async fn snapshot(&self, _: &[SnapshotTable]) -> Result<BoxStream<'static, Result<Change>>> {
                // Nobody waits for these to be acknowledged.
                let (acks, names) = (Acks::of(None), self.names.clone());
                let rows = 0..self.work.rows;
                Ok(stream::iter(rows.map(move |row| Ok(names.change(row as i64, row, &acks)))).boxed())
            }
        }

        #[derive(Debug)]
        struct Documents {
            work: Work,
            names: Names,
        }

        impl Documents {
            fn body(&self) -> GenericValue {
                match self.work.body_bytes {
                    0 => GenericValue::Null,
                    bytes => GenericValue::Bytes(vec![b'x'; bytes]),
                }
            }
        }

        #[async_trait]
        impl DocumentBuilder for Documents {
            async fn resolve(&self, _table: &TableName, key: &RowKey) -> Result<Vec<DocumentId>> {
                take(self.work.calls.resolve).await;
                let index = &self.names.index;
                if self.work.documents_per_change == 1 {
                    return Ok(vec![DocumentId { index: index.clone(), key: key.clone() }]);
                }
                let Some((_, GenericValue::BigInt(row))) = key.0.first() else { return Ok(Vec::new()) };
                let ids = self.work.documents_of(*row);
                Ok(ids.map(|id| DocumentId { index: index.clone(), key: self.names.key(id) }).collect())
            }

            async fn build(&self, id: &DocumentId) -> Result<Document> {
                Ok(Document::Upsert { id: id.clone(), body: self.body() })
            }

            async fn build_many(&self, ids: &[DocumentId]) -> Result<Vec<Document>> {
                take(self.work.calls.build).await;
                Ok(ids.iter().map(|id| Document::Upsert { id: id.clone(), body: self.body() }).collect())
            }

            fn backfill_scopes(&self) -> Vec<IndexScope> {
                let names = &self.names;
                let root = SnapshotTable { db_schema: names.schema.clone(), table: names.table.clone() };
                match self.work.is_seeded() {
                    true => vec![IndexScope { index: names.index.clone(), root }],
                    false => Vec::new(),
                }
            }
        }

        #[derive(Debug)]
        struct Nowhere {
            work: Work,
            /// How many documents the next flush has.
            buffered: AtomicUsize,
            writer: Option<Arc<Writer>>,
        }

        #[async_trait]
        impl Sink for Nowhere {
            async fn upsert(&self, _: &IndexName, _: &str, _: &GenericValue) -> $sinks::Result<()> {
                self.buffered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }

            async fn delete(&self, _: &IndexName, _: &str) -> $sinks::Result<()> {
                self.buffered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }

            async fn flush(&self, _caught_up: bool) -> $sinks::Result<FlushReport> {
                let documents = self.buffered.swap(0, Ordering::Relaxed);
                take(self.work.calls.flush_of(documents)).await;
                Ok(FlushReport::clean())
            }

            async fn mark_seeded(&self, _: &IndexName) -> $sinks::Result<()> {
                if let Some(writer) = &self.writer {
                    writer.seeded();
                }
                Ok(())
            }
        }
    };
}

/// The newest version.
pub mod newest {
    flusso!(
        flusso_engine_0_15,
        flusso_schema_core_0_15,
        flusso_sinks_core_0_15,
        flusso_sources_core_0_15,
        "flusso-engine 0.15.1"
    );
}

/// The version that was first described.
pub mod first {
    flusso!(
        flusso_engine_0_7,
        flusso_schema_core_0_7,
        flusso_sinks_core_0_7,
        flusso_sources_core_0_7,
        "flusso-engine 0.7.0"
    );
}
