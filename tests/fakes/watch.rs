//! An observer and a quarantine that remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncline::error::Stage;
use syncline::ports::{CuredDocument, QuarantinedDocument};
use syncline::{
    BatchStats, DocumentId, EngineError, Fault, IndexName, Lane, Observer, Quarantine, RejectedDocument,
};

use super::script::end;
use super::{Log, Port, Script, lock, named};

#[derive(Clone)]
pub struct Watcher {
    log: Log,
    stats: Arc<Mutex<Vec<BatchStats>>>,
    retries: Arc<Mutex<Vec<(Stage, u32, Duration)>>>,
}

impl Watcher {
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone(), stats: Arc::default(), retries: Arc::default() }
    }

    pub fn stats(&self) -> Vec<BatchStats> {
        lock(&self.stats).clone()
    }

    pub fn retries(&self) -> Vec<(Stage, u32, Duration)> {
        lock(&self.retries).clone()
    }

    pub fn heard(&self) -> Vec<String> {
        self.log.of(Port::Observer)
    }

    fn say(&self, line: impl Into<String>) {
        self.log.say(Port::Observer, line);
    }
}

impl Observer for Watcher {
    fn on_indexes_ensured(&self, count: usize) {
        self.say(format!("indexes ensured: {count}"));
    }

    fn on_backfill_started(&self, indexes: &[IndexName]) {
        let names: Vec<&str> = indexes.iter().map(IndexName::as_str).collect();
        self.say(format!("backfill started: {}", names.join(", ")));
    }

    fn on_index_seeded(&self, index: &IndexName) {
        self.say(format!("index seeded: {index}"));
    }

    fn on_backfill_completed(&self) {
        self.say("backfill completed");
    }

    fn on_live_started(&self) {
        self.say("live started");
    }

    fn on_changes_captured(&self, count: usize) {
        self.say(format!("captured: {count}"));
    }

    fn on_batch_committed(&self, stats: &BatchStats) {
        let lane = match stats.lane {
            Lane::Live => "live",
            Lane::Backfill => "backfill",
        };
        let by_index: Vec<String> =
            stats.documents_by_index.iter().map(|(index, count)| format!("{index} {count}")).collect();
        self.say(format!(
            "committed: {lane}, {} changes, {} documents ({})",
            stats.changes,
            stats.documents,
            by_index.join(", ")
        ));
        lock(&self.stats).push(stats.clone());
    }

    fn on_document_quarantined(&self, document: &RejectedDocument, attempts: u32) {
        self.say(format!("quarantined: {document} ({attempts})"));
    }

    fn on_index_parked(&self, document: &RejectedDocument) {
        self.say(format!("parked: {document}"));
    }

    fn on_document_released(&self, id: &DocumentId) {
        self.say(format!("released: {id}"));
    }

    fn on_retry(&self, stage: Stage, attempt: u32, delay: Duration, fault: &Fault) {
        self.say(format!("retry: {stage} after attempt {attempt}: {fault}"));
        lock(&self.retries).push((stage, attempt, delay));
    }

    fn on_stalled(&self, oldest_age: Duration) {
        self.say(format!("stalled: {oldest_age:?}"));
    }

    fn on_lag(&self, bytes: u64) {
        self.say(format!("lag: {bytes}"));
    }

    fn on_lag_exceeded(&self, bytes: u64) {
        self.say(format!("lag exceeded: {bytes}"));
    }

    fn on_error(&self, error: &EngineError) {
        self.say(format!("error: {error}"));
    }
}

#[derive(Clone)]
pub struct Store {
    log: Log,
    pub script: Script,
    records: Arc<Mutex<BTreeMap<DocumentId, QuarantinedDocument>>>,
}

impl Store {
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone(), script: Script::default(), records: Arc::default() }
    }

    pub fn records(&self) -> Vec<QuarantinedDocument> {
        lock(&self.records).values().cloned().collect()
    }
}

impl Quarantine for Store {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        let fault = self.script.play("load").await?;
        end(lock(&self.records).keys().cloned().collect(), fault)
    }

    async fn record(&self, documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        for document in documents {
            self.log.say(Port::Quarantine, format!("record {}", named(&document.id)));
        }
        let fault = self.script.play("record").await?;
        let records = documents.iter().map(|document| (document.id.clone(), document.clone()));
        lock(&self.records).extend(records);
        end((), fault)
    }

    async fn release(&self, documents: &[CuredDocument]) -> Result<(), Fault> {
        for document in documents {
            self.log.say(Port::Quarantine, format!("release {}", named(&document.id)));
        }
        let fault = self.script.play("release").await?;
        let mut records = lock(&self.records);
        for CuredDocument { id, version } in documents {
            if records.get(id).is_some_and(|record| record.version <= *version) {
                records.remove(id);
            }
        }
        drop(records);
        end((), fault)
    }
}
