//! A quarantine in an index.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::OpenSearchSink;
use super::http::{Body, segment};
use super::layout::{QUARANTINE, hexadecimal, own};
use super::state::{create_own, is_missing};
use super::wire::{Expected, Line, Outcome, external_version, read_bulk};
use crate::change::Operation;
use crate::document::{DocumentId, Epoch, Version, decode_key};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{CuredDocument, Quarantine, QuarantinedDocument};

/// How many records are asked for, or written, at once.
const PAGE: usize = 1_000;

/// A durable [`Quarantine`] in the index `<prefix>-quarantine` of the cluster that a sink writes to. See
/// [`OpenSearchSink::quarantine`].
///
/// The index is there to be looked at by people and other programs. Its fields:
///
/// | field | holds |
/// | --- | --- |
/// | `index_name`, `id` | the document, its id as the sink spells it ([`encode_key`](crate::document::encode_key)) |
/// | `operation` | `upsert` or `delete` |
/// | `reason`, `attempts` | why it was not applied, and how often the last unit tried |
/// | `first_at`, `last_at` | when it came in, and when it last failed: milliseconds since 1970, by this machine's clock |
/// | `epoch`, `build` | how new what was refused is |
#[derive(Debug, Clone)]
pub struct OpenSearchQuarantine {
    sink: OpenSearchSink,
    index: String,
}

/// A record of the quarantine, with its times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuarantineRecord {
    /// What the engine recorded.
    pub document: QuarantinedDocument,
    /// When the document came in: milliseconds since 1970.
    pub first_at: u64,
    /// When it last failed.
    pub last_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The id of the record again, by which records are read in pages.
    key: String,
    index_name: String,
    id: String,
    operation: Spelled,
    reason: String,
    attempts: u32,
    first_at: u64,
    last_at: u64,
    epoch: u64,
    build: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spelled {
    Upsert,
    Delete,
}

#[derive(Deserialize)]
struct Page {
    hits: Hits,
    #[serde(default)]
    timed_out: bool,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", default)]
    source: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Several {
    docs: Vec<Hit>,
}

impl OpenSearchSink {
    /// A quarantine in the same cluster, asked as the sink asks: for
    /// [`Engine::with_quarantine`](crate::Engine::with_quarantine).
    #[must_use]
    pub fn quarantine(&self) -> OpenSearchQuarantine {
        let index = own(&self.shared.defaults.owner, QUARANTINE);
        OpenSearchQuarantine { sink: self.clone(), index }
    }
}

impl OpenSearchQuarantine {
    /// Every record, in no particular order. Errors: those of the server; fatal for a record that was not written by this
    /// crate.
    pub async fn records(&self) -> Result<Vec<QuarantineRecord>, Fault> {
        const DOING: &str = "reading the quarantine";
        let http = &self.sink.shared.http;
        let refreshed =
            http.ask(Method::POST, &format!("{}/_refresh", segment(&self.index)), Body::None).await?;
        if is_missing(&refreshed) {
            return Ok(Vec::new());
        }
        refreshed.done(DOING)?;
        let mut records = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = json!({ "size": PAGE, "query": { "match_all": {} }, "sort": [{ "key": "asc" }] });
            if let Some(after) = &after {
                query["search_after"] = json!([after]);
            }
            let path = format!("{}/_search?allow_partial_search_results=false", segment(&self.index));
            let page: Page =
                http.ask(Method::POST, &path, Body::Json(query)).await?.done(DOING)?.json(DOING)?;
            if page.timed_out {
                return Err(Fault::transient(format!("{DOING}: the search timed out")));
            }
            let read = page.hits.hits.len();
            for hit in page.hits.hits {
                let wrong =
                    || Fault::fatal(format!("record `{}` in index `{}` is malformed", hit.id, self.index));
                let record: Record =
                    hit.source.and_then(|source| serde_json::from_value(source).ok()).ok_or_else(wrong)?;
                after = Some(record.key.clone());
                records.push(record.read().ok_or_else(wrong)?);
            }
            if read < PAGE {
                return Ok(records);
            }
        }
    }

    /// When the documents that have a record came in.
    async fn first_times(&self, keys: &[String]) -> Result<BTreeMap<String, u64>, Fault> {
        const DOING: &str = "reading the quarantine";
        let body = Body::Json(json!({ "ids": keys }));
        let path = format!("{}/_mget", segment(&self.index));
        let answer = self.sink.shared.http.ask(Method::POST, &path, body).await?;
        let found: Several = answer.done(DOING)?.json(DOING)?;
        let times =
            found.docs.into_iter().filter_map(|hit| Some((hit.id, hit.source?.get("first_at")?.as_u64()?)));
        Ok(times.collect())
    }

    async fn create(&self) -> Result<(), Fault> {
        let keyword = json!({ "type": "keyword", "ignore_above": 8_191 });
        let date = json!({ "type": "date", "format": "epoch_millis" });
        let body = json!({
            "settings": { "index": {
                "number_of_shards": 1, "auto_expand_replicas": "0-1", "translog.durability": "request",
                "gc_deletes": format!("{}s", self.sink.shared.defaults.gc_deletes_seconds),
            } },
            "mappings": { "dynamic": "false", "properties": {
                "key": { "type": "keyword" }, "index_name": keyword, "id": keyword,
                "operation": { "type": "keyword" }, "reason": { "type": "text" }, "attempts": { "type": "long" },
                "first_at": date, "last_at": date, "epoch": { "type": "long" }, "build": { "type": "long" },
            } },
        });
        create_own(&self.sink.shared.http, &self.index, body).await
    }

    /// Writes and removes records. One that is older than what is stored changes nothing, and is no failure.
    async fn write(&self, lines: &[Line], doing: &str) -> Result<(), Fault> {
        for lines in lines.chunks(PAGE) {
            let text: String = lines.iter().map(|line| line.text.as_str()).collect();
            let answer =
                self.sink.shared.http.ask(Method::POST, "_bulk", Body::Lines(text)).await?.done(doing)?;
            let expected: Vec<_> = lines
                .iter()
                .map(|line| Expected {
                    action: line.action,
                    id: &line.id,
                    index: &self.index,
                    version: line.version,
                })
                .collect();
            for outcome in read_bulk(&answer.body, &expected).map_err(Fault::transient)? {
                match outcome {
                    Outcome::Applied | Outcome::Newer(_) => {}
                    Outcome::Throttled(refusal) => {
                        return Err(Fault::transient(format!("{doing}: {refusal}")));
                    }
                    Outcome::Rejected(refusal) | Outcome::Closed(refusal) => {
                        return Err(Fault::fatal(format!("{doing}: {refusal}")));
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&self, key: String, version: Version, body: Option<&str>) -> Result<Line, Fault> {
        let external = external_version(version)
            .ok_or_else(|| Fault::fatal(format!("{version:?} is more than a version has room for")))?;
        Line::new(&self.index, key, external, "external_gte", body).map_err(Fault::fatal)
    }
}

impl Record {
    fn read(self) -> Option<QuarantineRecord> {
        let document = QuarantinedDocument {
            id: DocumentId::new(IndexName::new(&self.index_name).ok()?, decode_key(&self.id)?),
            operation: match self.operation {
                Spelled::Upsert => Operation::Upsert,
                Spelled::Delete => Operation::Delete,
            },
            reason: Arc::from(self.reason),
            attempts: self.attempts,
            version: Version { epoch: Epoch(self.epoch), build: self.build },
        };
        Some(QuarantineRecord { document, first_at: self.first_at, last_at: self.last_at })
    }
}

/// The id of a record: documents whose own id is too long for the server have one too.
fn key(id: &DocumentId) -> String {
    hexadecimal(&format!("{}\n{}", id.index, id.sink_id()))
}

/// Milliseconds since 1970. The pipeline has no calendar; this is for people who read the records.
#[allow(clippy::disallowed_types, clippy::disallowed_methods)]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Quarantine for OpenSearchQuarantine {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        Ok(self.records().await?.into_iter().map(|record| record.document.id).collect())
    }

    async fn record(&self, documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        if documents.is_empty() {
            return Ok(());
        }
        self.create().await?;
        let keys: Vec<String> = documents.iter().map(|document| key(&document.id)).collect();
        let first = self.first_times(&keys).await?;
        let now = now();
        let lines = documents.iter().zip(keys).map(|(document, key)| {
            let record = Record {
                first_at: first.get(&key).copied().unwrap_or(now),
                last_at: now,
                key: key.clone(),
                index_name: document.id.index.as_str().to_owned(),
                id: document.id.sink_id(),
                operation: match document.operation {
                    Operation::Upsert => Spelled::Upsert,
                    Operation::Delete => Spelled::Delete,
                },
                reason: document.reason.to_string(),
                attempts: document.attempts,
                epoch: document.version.epoch.0,
                build: document.version.build,
            };
            self.line(key, document.version, Some(&serde_json::to_string(&record)?))
        });
        let lines = lines.collect::<Result<Vec<Line>, Fault>>()?;
        self.write(&lines, "recording in the quarantine").await
    }

    async fn release(&self, documents: &[CuredDocument]) -> Result<(), Fault> {
        if documents.is_empty() {
            return Ok(());
        }
        // A deletion would create it without its mapping, had it been removed by hand.
        self.create().await?;
        let lines = documents.iter().map(|cured| self.line(key(&cured.id), cured.version, None));
        let lines = lines.collect::<Result<Vec<Line>, Fault>>()?;
        self.write(&lines, "releasing from the quarantine").await
    }
}
