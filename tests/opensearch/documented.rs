//! Exchanges that neither of the two servers has: answers as the real ones are documented to give them, or as their users
//! have reported them, each with its source. What answers is a stand-in that knows nothing but these.

use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::{Epoch, Write};
use syncline::error::{Fault, FaultKind};
use syncline::ports::{FlushReport, Sink as _};

use crate::proxy::{Fault as Does, Proxy};
use crate::support::*;
use crate::wire::{Request, Response};

/// A server of one index, and of the sink's state.
#[derive(Default)]
struct StandIn {
    state: Option<Json>,
    replaced: u64,
    physical: String,
}

impl StandIn {
    fn answer(&mut self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        let body = || serde_json::from_slice(&request.body).unwrap();
        let said = |body: Json| Response::new(200, body.to_string());
        match (request.method.as_str(), path) {
            // https://docs.opensearch.org/latest/api-reference/document-apis/get-documents/
            ("GET", "/syncline-state/_doc/state") => match &self.state {
                Some(state) => said(json!({
                    "_index": "syncline-state", "_id": "state", "_version": 1, "_seq_no": self.replaced,
                    "_primary_term": 1, "found": true, "_source": state,
                })),
                None => Response::new(
                    404,
                    json!({ "_index": "syncline-state", "_id": "state", "found": false }).to_string(),
                ),
            },
            ("PUT", "/syncline-state/_doc/state" | "/syncline-state/_create/state") => {
                (self.state, self.replaced) = (Some(body()), self.replaced + 1);
                said(
                    json!({ "_id": "state", "result": "updated", "_seq_no": self.replaced, "_primary_term": 1 }),
                )
            }
            ("PUT", "/syncline-state") => said(json!({ "acknowledged": true })),
            ("PUT", created) => {
                self.physical = created[1..].to_owned();
                said(json!({ "acknowledged": true, "shards_acknowledged": true, "index": self.physical }))
            }
            ("GET", path) if path.ends_with("/_settings") => {
                said(json!({ &self.physical: { "settings": { "index": { "uuid": "a-uuid" } } } }))
            }
            // https://docs.opensearch.org/latest/api-reference/alias/get-alias/
            ("GET", "/_alias/books") => {
                Response::new(404, r#"{"error":"alias [books] missing","status":404}"#)
            }
            ("GET", path) if path.ends_with("/_alias") => said(json!({ &self.physical: { "aliases": {} } })),
            ("GET", path) if path.ends_with("/_mapping") => said(json!({})),
            ("POST", "/_aliases") => said(json!({ "acknowledged": true })),
            ("POST", path) if path.ends_with("/_refresh") => said(json!({ "_shards": { "failed": 0 } })),
            _ => {
                Response::new(400, format!("the stand-in does not know {} {}", request.method, request.path))
            }
        }
    }
}

struct World {
    sink: OpenSearchSink,
    run: Epoch,
    proxy: Proxy,
    physical: String,
}

/// Has the stand-in answer everything but bulk requests, which are each test's own.
fn stand_in(proxy: &Proxy) -> Arc<Mutex<StandIn>> {
    let server = Arc::new(Mutex::new(StandIn::default()));
    let answering = server.clone();
    let answers = move |request: &Request| answering.lock().unwrap().answer(request);
    for method in ["GET", "PUT"] {
        let answers = answers.clone();
        proxy.on(method, "/", usize::MAX, Does::With(Box::new(answers)));
    }
    for path in ["/_aliases", "_refresh"] {
        let answers = answers.clone();
        proxy.on("POST", path, usize::MAX, Does::With(Box::new(answers)));
    }
    server
}

async fn world() -> World {
    let proxy = Proxy::start(None).await;
    let server = stand_in(&proxy);
    let (sink, run) = begun(builder(&proxy.url()).gzip(false)).await;
    let physical = server.lock().unwrap().physical.clone();
    World { sink, run, proxy, physical }
}

impl World {
    /// What comes of writing one document, when the bulk request is answered so.
    async fn one(&self, status: u16, body: &str) -> Result<FlushReport, Fault> {
        self.proxy.on("POST", "_bulk", 1, Does::Answer(Response::new(status, body)));
        try_flush(&self.sink, [self.write()]).await
    }

    /// What comes of it when this is said of the document.
    async fn item(&self, mut item: Json) -> Result<FlushReport, Fault> {
        item["_id"] = "1".into();
        item["_index"] = self.physical.clone().into();
        self.one(200, &json!({ "took": 30, "errors": true, "items": [{ "index": item }] }).to_string()).await
    }

    fn write(&self) -> Write<String> {
        put(id("books", 1), &v(1), (self.run, 1))
    }
}

fn throttled() -> Result<FlushReport, Fault> {
    Ok(FlushReport { rejected: vec![], throttled: vec![id("books", 1)] })
}

/// Reported in <https://github.com/elasticsearch-dump/elasticsearch-dump/issues/580>; OpenSearch names it
/// `rejected_execution_exception`.
#[tokio::test]
async fn a_full_queue_of_a_node_throttles_the_documents_of_its_shards() {
    let world = world().await;
    for kind in ["es_rejected_execution_exception", "rejected_execution_exception"] {
        let reason = "rejected execution of processing of [119310915][indices:data/write/bulk[s][p]]: request: BulkShardRequest \
                      [[books][0]] containing [129] requests";
        let item = json!({ "status": 429, "error": { "type": kind, "reason": reason } });
        assert_eq!(world.item(item).await, throttled());
    }
}

/// <https://discuss.elastic.co/t/why-am-i-seeing-a-forbidden-12-index-read-only-allow-delete-response-against-my-index/244344>,
/// and <https://opensearch.org/?p=7838>: a disk that is nearly full blocks writes, with 403 or with 429, of a document or of
/// a whole request.
#[tokio::test]
async fn a_disk_that_is_nearly_full_is_no_documents_fault() {
    let world = world().await;
    for (status, reason) in [
        (403, "index [books] blocked by: [FORBIDDEN/12/index read-only / allow delete (api)];"),
        (
            429,
            "index [books] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];",
        ),
    ] {
        let error = json!({ "type": "cluster_block_exception", "reason": reason });
        assert_eq!(world.item(json!({ "status": status, "error": error })).await, throttled());
        let whole = json!({ "error": { "root_cause": [error], "type": "cluster_block_exception", "reason": reason }, "status": status });
        let answered = world.one(status, &whole.to_string()).await;
        match answered {
            Ok(report) => assert_eq!(Ok(report), throttled()),
            Err(fault) => assert_eq!(fault.kind(), FaultKind::Transient, "{fault}"),
        }
    }
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.15/docs-index_.html#index-wait-for-active-shards>: no active
/// copy of a shard within the time limit is 503.
#[tokio::test]
async fn a_shard_without_a_primary_throttles() {
    let world = world().await;
    let reason = "[books][0] primary shard is not active Timeout: [1m], request: [BulkShardRequest [[books][0]] containing [index]]";
    let error = json!({ "type": "unavailable_shards_exception", "reason": reason });
    assert_eq!(world.item(json!({ "status": 503, "error": error })).await, throttled());
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.15/circuit-breaker-errors.html>.
#[tokio::test]
async fn a_circuit_breaker_throttles_the_whole_request() {
    let world = world().await;
    let body = r#"{"error":{"type":"circuit_breaking_exception","reason":"[parent] Data too large, data for [<http_request>] would be [123848638/118.1mb], which is larger than the limit of [123273216/117.5mb]","bytes_wanted":123848638,"bytes_limit":123273216,"durability":"TRANSIENT"},"status":429}"#;
    assert_eq!(world.one(429, body).await, throttled());
}

/// <https://docs.opensearch.org/latest/security/access-control/permissions/> names the permissions; the answers are those of
/// OpenSearch's security plugin and of Elasticsearch's
/// (<https://www.elastic.co/guide/en/elasticsearch/reference/8.15/security-troubleshooting.html>).
#[tokio::test]
async fn a_refused_credential_ends_the_run() {
    let world = world().await;
    for (status, body) in [
        (401, "Unauthorized"),
        (
            401,
            r#"{"error":{"root_cause":[],"type":"security_exception","reason":"missing authentication credentials for REST request [/_bulk]"},"status":401}"#,
        ),
        (
            403,
            r#"{"error":{"root_cause":[],"type":"security_exception","reason":"no permissions for [indices:data/write/bulk] and User [name=sync]"},"status":403}"#,
        ),
    ] {
        let fault = world.one(status, body).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    }
    // A role that may write to other indexes, but not to this one.
    let reason = "no permissions for [indices:data/write/bulk[s]] and User [name=sync, backend_roles=[], requestedTenant=null]";
    let item = json!({ "status": 403, "error": { "type": "security_exception", "reason": reason } });
    let fault = world.item(item).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains(reason), "{fault}");
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/7.9/docs-bulk.html> does not know `require_alias`, which came
/// with 7.10; unknown parameters are refused in these words.
#[tokio::test]
async fn a_server_that_is_too_old_is_no_documents_fault() {
    let world = world().await;
    let reason = "request [/_bulk] contains unrecognized parameter: [require_alias]";
    let body = json!({ "error": { "root_cause": [], "type": "illegal_argument_exception", "reason": reason }, "status": 400 });
    let fault = world.one(400, &body.to_string()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains(reason), "{fault}");
}

/// A request that the server cannot read, in the words of
/// <https://discuss.elastic.co/t/malformed-action-metadata-line-1-expected-start-object/>: the engine halves it.
#[tokio::test]
async fn a_request_that_cannot_be_read_is_for_its_documents_to_answer_for() {
    let world = world().await;
    let reason =
        "Malformed action/metadata line [3], expected START_OBJECT or END_OBJECT but found [VALUE_STRING]";
    let body = json!({ "error": { "type": "illegal_argument_exception", "reason": reason }, "status": 400 });
    assert_eq!(world.one(400, &body.to_string()).await.unwrap_err().kind(), FaultKind::Content);
}

/// <https://docs.opensearch.org/latest/install-and-configure/configuring-opensearch/network-settings/>: what is larger than
/// `http.max_content_length` is answered with 413 and no body.
#[tokio::test]
async fn a_document_larger_than_the_server_takes_is_rejected_alone() {
    let world = world().await;
    let report = world.one(413, "").await.unwrap();
    assert_eq!(report.rejected.len(), 1);
    assert!(report.rejected[0].reason.contains("the server takes no request of"), "{report:?}");
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.15/docs-index_.html#index-version-types>: what stands there
/// already is from a run that has begun since.
#[tokio::test]
async fn a_newer_run_is_known_by_what_it_has_written() {
    let world = world().await;
    let conflict = |current: u64| {
        let reason = format!(
            "[1]: version conflict, current version [{current}] is higher or equal to the one provided [1]"
        );
        let error = json!({ "type": "version_conflict_engine_exception", "reason": reason, "index_uuid": "a-uuid", "shard": "0" });
        json!({ "status": 409, "error": error })
    };
    assert_eq!(world.item(conflict((1 << 40) + 99)).await, Ok(FlushReport::clean()));
    let fault = world.item(conflict(9 << 40)).await.unwrap_err();
    assert_eq!(
        (fault.kind(), fault.message()),
        (FaultKind::Fatal, "run 1 may write no more: run 9 has begun")
    );
}

/// <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>: items have fields that are not looked at, and an
/// answer speaks of every document.
#[tokio::test]
async fn an_answer_as_it_is_documented_is_read() {
    let world = world().await;
    let item = json!({
        "_version": 1, "result": "created", "_shards": { "total": 2, "successful": 1, "failed": 0 }, "_seq_no": 1,
        "_primary_term": 1, "status": 201, "forced_refresh": true, "get": {},
    });
    assert_eq!(world.item(item).await, Ok(FlushReport::clean()));
    let fault = world.one(200, r#"{"took":1,"errors":false,"items":[{"index":{"#).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert!(fault.message().contains("the answer to a bulk request is malformed"), "{fault}");
}

/// <https://www.rfc-editor.org/rfc/rfc9110#name-retry-after>: a date, read by the clock of the server that names it.
#[tokio::test]
async fn a_delay_until_a_date_is_kept() {
    let world = world().await;
    let busy = Response::new(503, "")
        .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .with("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
    world.proxy.on("POST", "_bulk", 1, Does::Answer(busy));
    let fault = try_flush(&world.sink, [world.write()]).await.unwrap_err();
    assert_eq!(fault.retry_after(), Some(std::time::Duration::from_secs(60)));
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.15/indices-aliases.html>: a change that not every node has taken
/// up within the time limit is answered with success, and `acknowledged: false`.
#[tokio::test]
async fn a_change_that_not_every_node_knows_of_is_asked_for_again() {
    let proxy = Proxy::start(None).await;
    let unknown = || {
        Does::Answer(Response::new(200, r#"{"acknowledged":false,"shards_acknowledged":false,"index":"x"}"#))
    };
    proxy.on("PUT", "/books-", 1, unknown());
    proxy.on("POST", "/_aliases", 1, unknown());
    stand_in(&proxy);
    let sink = builder(&proxy.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    for _ in 0..2 {
        let fault = sink.ensure_index(&books()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
        assert!(fault.message().contains("not every node of the cluster"), "{fault}");
    }
    sink.ensure_index(&books()).await.unwrap();
}
