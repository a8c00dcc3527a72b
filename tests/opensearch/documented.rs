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
            ("DELETE", "/syncline-quarantine") => Response::new(
                404,
                r#"{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}"#,
            ),
            ("PUT", "/syncline-state") => said(json!({ "acknowledged": true })),
            ("PUT", created) => {
                self.physical = created[1..].to_owned();
                said(json!({ "acknowledged": true, "shards_acknowledged": true, "index": self.physical }))
            }
            ("GET", path) if path.ends_with("/_settings") => {
                said(json!({ &self.physical: { "settings": { "index": { "uuid": "a-uuid" } } } }))
            }
            // https://github.com/opensearch-project/opensearch-java/issues/301: the error is a text here, as it is of few others.
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
    for method in ["GET", "PUT", "DELETE"] {
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

/// Reported in <https://github.com/elasticsearch-dump/elasticsearch-dump/issues/580>, and as a whole answer in
/// <https://github.com/fluent/fluent-bit/issues/1029>. No report of it by OpenSearch was found, whose names of errors have no
/// `es_` before them: that it calls it `rejected_execution_exception` is taken from that.
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

/// A disk that is nearly full blocks writes, with 403 (the words are those of
/// <https://github.com/elastic/elasticsearch/pull/58410>) or, in newer servers, with 429 (an item in
/// <https://github.com/rwynn/monstache/issues/610>, OpenSearch's words in
/// <https://github.com/opensearch-project/OpenSearch/issues/14791>).
/// <https://discuss.elastic.co/t/why-am-i-seeing-a-forbidden-12-index-read-only-allow-delete-response-against-my-index/244344>
/// says when. That a whole bulk request is answered so was not found; other writes are.
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
        match status {
            429 => assert_eq!(answered, throttled()),
            _ => assert_eq!(answered.unwrap_err().kind(), FaultKind::Transient),
        }
    }
}

/// Reported in <https://github.com/Graylog2/graylog2-server/issues/10498>, and with its status, of an item, in
/// <https://github.com/logstash-plugins/logstash-output-elasticsearch/issues/569>.
#[tokio::test]
async fn a_shard_without_a_primary_throttles() {
    let world = world().await;
    let reason = "[books][0] primary shard is not active Timeout: [1m], request: [BulkShardRequest [[books][0]] containing [index]]";
    let error = json!({ "type": "unavailable_shards_exception", "reason": reason });
    assert_eq!(world.item(json!({ "status": 503, "error": error })).await, throttled());
}

/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.17/circuit-breaker-errors.html>.
#[tokio::test]
async fn a_circuit_breaker_throttles_the_whole_request() {
    let world = world().await;
    let body = r#"{"error":{"type":"circuit_breaking_exception","reason":"[parent] Data too large, data for [<http_request>] would be [123848638/118.1mb], which is larger than the limit of [123273216/117.5mb], real usage: [120182112/114.6mb], new bytes reserved: [3666526/3.4mb]","bytes_wanted":123848638,"bytes_limit":123273216,"durability":"TRANSIENT"},"status":429}"#;
    assert_eq!(world.one(429, body).await, throttled());
}

/// OpenSearch's security plugin answers an unknown caller with a text or nothing
/// (<https://github.com/opensearch-project/security/issues/5544>, <https://github.com/opensearch-project/security/issues/4214>),
/// and one that lacks a permission as in <https://github.com/jaegertracing/jaeger/issues/3727>, or, of a document, in
/// <https://github.com/deviantony/docker-elk/issues/568>. Elasticsearch answers an unknown one as in
/// <https://github.com/elastic/elasticsearch/issues/21399>.
#[tokio::test]
async fn a_refused_credential_ends_the_run() {
    let world = world().await;
    for (status, body) in [
        (401, ""),
        (401, "Authentication finally failed"),
        (
            401,
            r#"{"error":{"root_cause":[{"type":"security_exception","reason":"missing authentication credentials for REST request [/_bulk]","header":{"WWW-Authenticate":"Basic realm=\"security\" charset=\"UTF-8\""}}],"type":"security_exception","reason":"missing authentication credentials for REST request [/_bulk]","header":{"WWW-Authenticate":"Basic realm=\"security\" charset=\"UTF-8\""}},"status":401}"#,
        ),
        (
            403,
            r#"{"error":{"root_cause":[{"type":"security_exception","reason":"no permissions for [indices:data/write/bulk] and User [name=sync, backend_roles=[], requestedTenant=null]"}],"type":"security_exception","reason":"no permissions for [indices:data/write/bulk] and User [name=sync, backend_roles=[], requestedTenant=null]"},"status":403}"#,
        ),
    ] {
        let fault = world.one(status, body).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    }
    // A role that may write to other indexes, but not to this one.
    let reason = "no permissions for [indices:data/write/index, indices:data/write/bulk[s]] and User [name=sync, backend_roles=[sync], requestedTenant=null]";
    let item = json!({ "status": 403, "error": { "type": "security_exception", "reason": reason } });
    let fault = world.item(item).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains(reason), "{fault}");
}

/// `require_alias` came with Elasticsearch 7.10 (<https://github.com/elastic/elasticsearch/pull/58917>); what a server does not
/// know it refuses in the words of <https://github.com/elastic/elasticsearch/issues/21804>.
#[tokio::test]
async fn a_server_that_is_too_old_is_no_documents_fault() {
    let world = world().await;
    let reason = "request [/_bulk] contains unrecognized parameter: [require_alias]";
    let body = json!({
        "error": {
            "root_cause": [{ "type": "illegal_argument_exception", "reason": reason }],
            "type": "illegal_argument_exception", "reason": reason,
        },
        "status": 400,
    });
    let fault = world.one(400, &body.to_string()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains(reason), "{fault}");
}

/// A request that the server cannot read, in the words of <https://github.com/elastic/go-elasticsearch/issues/460>: the engine
/// halves it.
#[tokio::test]
async fn a_request_that_cannot_be_read_is_for_its_documents_to_answer_for() {
    let world = world().await;
    let reason =
        "Malformed action/metadata line [3], expected START_OBJECT or END_OBJECT but found [VALUE_STRING]";
    let body = json!({ "error": { "type": "illegal_argument_exception", "reason": reason }, "status": 400 });
    assert_eq!(world.one(400, &body.to_string()).await.unwrap_err().kind(), FaultKind::Content);
}

/// <https://github.com/elastic/elasticsearch/issues/76705>: what is larger than `http.max_content_length`, 100 MB by default, is
/// answered with 413 and no body.
#[tokio::test]
async fn a_document_larger_than_the_server_takes_is_rejected_alone() {
    let world = world().await;
    let report = world.one(413, "").await.unwrap();
    assert_eq!(report.rejected.len(), 1);
    assert!(report.rejected[0].reason.contains("the server takes no request of"), "{report:?}");
}

/// What stands there already is from a run that has begun since. The words are those of `VersionType.EXTERNAL` in
/// <https://github.com/opensearch-project/OpenSearch/blob/main/server/src/main/java/org/opensearch/index/VersionType.java>; an
/// item with them is in <https://github.com/elastic/elasticsearch/pull/112537>, of another kind of conflict.
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

/// <https://docs.opensearch.org/latest/api-reference/document-apis/bulk>: items have fields that are not looked at, and an
/// answer speaks of every document. (`get` is a field that its client in
/// <https://docs.rs/crate/opensearch-client/latest/source/src/core/bulk/response_item.rs> knows.)
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

/// <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-create>: a change that was not taken up
/// within the time limit is answered with success, and `acknowledged: false`. It says so of the creation of an index; that
/// aliases are answered in the same way was not found said.
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

/// An index of which a snapshot is being taken cannot be deleted: <https://github.com/elastic/elasticsearch/issues/146887>, and of
/// OpenSearch <https://github.com/opensearch-project/OpenSearch/issues/17708>. That `_aliases`, which deletes too, answers in the
/// same way was not found said.
#[tokio::test]
async fn an_index_of_which_a_snapshot_is_being_taken_is_removed_later() {
    let proxy = Proxy::start(None).await;
    let reason = "Cannot delete indices that are being snapshotted: [[books-1/a-uuid]]. Try again after snapshot finishes or cancel \
                  the currently running snapshot.";
    let error = json!({ "type": "snapshot_in_progress_exception", "reason": reason });
    let body =
        json!({ "error": { "root_cause": [error], "type": error["type"], "reason": reason }, "status": 400 });
    proxy.on("POST", "/_aliases", 1, Does::Answer(Response::new(400, body.to_string())));
    stand_in(&proxy);
    let sink = builder(&proxy.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    let fault = sink.ensure_index(&books()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    assert_eq!(fault.retry_after(), Some(std::time::Duration::from_secs(30)));
    sink.ensure_index(&books()).await.unwrap();
}

/// As a text (<https://github.com/opensearch-project/opensearch-java/issues/301>), and, since that was called a bug
/// (<https://github.com/opensearch-project/OpenSearch/issues/6904>), as an error like any other; the words of that one were not
/// found, its type is what OpenSearch answers to the removal of an alias that is missing.
#[tokio::test]
async fn an_alias_that_is_missing_is_told_in_two_forms() {
    let text = json!({ "error": "alias [books] missing", "status": 404 });
    let error = json!({ "type": "aliases_not_found_exception", "reason": "aliases [books] are not there" });
    let object = json!({ "error": { "root_cause": [error], "type": error["type"], "reason": error["reason"] }, "status": 404 });
    for body in [text, object] {
        let proxy = Proxy::start(None).await;
        proxy.on("GET", "/_alias/books", 1, Does::Answer(Response::new(404, body.to_string())));
        stand_in(&proxy);
        let sink = builder(&proxy.url()).build().unwrap();
        sink.begin(Epoch(0)).await.unwrap();
        sink.ensure_index(&books()).await.unwrap();
        assert!(!proxy.seen("/_alias/books").is_empty(), "it was not asked for");
    }
}

/// A move of the alias that was given up is done between two questions: what stood behind it a moment ago is gone.
#[tokio::test]
async fn an_index_that_is_gone_when_it_is_asked_about_is_not_taken_for_anothers() {
    let proxy = Proxy::start(None).await;
    let before = r#"{"books-old":{"aliases":{"books":{}}}}"#;
    proxy.on("GET", "/_alias/books", 1, Does::Answer(Response::new(200, before)));
    stand_in(&proxy);
    let sink = builder(&proxy.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&books()).await.unwrap();
}

/// What a server cannot tell of a document stands at its place, in the form of
/// <https://github.com/opensearch-project/OpenSearch/issues/4903>, and carries no status. That a shard without a copy that is
/// at work is told so there was not found: `no_shard_available_action_exception` is what
/// <https://github.com/elastic/elasticsearch/issues/59033> reports of the request for one document.
#[tokio::test]
async fn a_document_that_the_server_cannot_tell_of_is_no_difference() {
    let world = world().await;
    for (kind, expected) in [
        ("no_shard_available_action_exception", FaultKind::Transient),
        ("circuit_breaking_exception", FaultKind::Transient),
        ("index_not_found_exception", FaultKind::Fatal),
        ("security_exception", FaultKind::Fatal),
    ] {
        let error = json!({
            "root_cause": [{ "type": kind, "reason": "because", "index_uuid": "_na_" }],
            "type": kind, "reason": "because", "resource.type": "index_expression",
        });
        let doc = json!({ "_index": world.physical, "_type": null, "_id": "1", "error": error });
        let answer = Response::new(200, json!({ "docs": [doc] }).to_string());
        world.proxy.on("POST", "_mget", 1, Does::Answer(answer));
        let fault = world.sink.compare(&[world.write()].into_iter().collect()).await.unwrap_err();
        assert_eq!(fault.kind(), expected, "{fault}");
        assert!(fault.message().contains(&format!("document `books/1`: {kind}: because")), "{fault}");
    }
}

/// <https://docs.opensearch.org/latest/api-reference/document-apis/multi-get/> and
/// <https://docs.opensearch.org/latest/search-plugins/searching-data/paginate/>: what is asked, and answers as they are
/// documented, with fields that are not looked at. That a document without the field stands last is said in
/// <https://www.elastic.co/guide/en/elasticsearch/reference/current/sort-search-results.html#_missing_values>; that it has null
/// for a sort value was not found said.
#[tokio::test]
async fn stored_documents_are_read_as_they_are_documented() {
    let world = world().await;
    let source = json!({ "syncline_id": "1", "v": 1 });
    let doc = json!({
        "_index": world.physical, "_id": "1", "_version": 7, "_seq_no": 3, "_primary_term": 1, "found": true, "_source": source,
    });
    let answer = Response::new(200, json!({ "docs": [doc] }).to_string());
    world.proxy.on("POST", "_mget", 1, Does::Answer(answer));
    assert_eq!(world.sink.compare(&[world.write()].into_iter().collect()).await.unwrap(), []);
    let asked = world.proxy.seen("_mget").pop().unwrap().text();
    let asked: Json = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked, json!({ "docs": [{ "_index": world.physical, "_id": "1", "_source": true }] }));
    let hit = |name: Json| json!({ "_index": world.physical, "_id": "x", "_score": null, "sort": [name] });
    let hits = json!([hit("2".into()), hit("~q".into()), hit(Json::Null)]);
    let page = |hits: Json| {
        let hits = json!({ "max_score": null, "hits": hits });
        Does::Answer(Response::new(200, json!({ "took": 2, "timed_out": false, "hits": hits }).to_string()))
    };
    world.proxy.on("POST", "_search", 1, page(hits));
    let listed = world.sink.list(&index("books"), Some(&id("books", 1)), 3).await;
    assert_eq!(listed.unwrap(), [id("books", 2)]);
    let asked: Json = serde_json::from_str(&world.proxy.seen("_search").pop().unwrap().text()).unwrap();
    assert_eq!(
        asked,
        json!({
            "size": 3, "query": { "match_all": {} }, "sort": [{ "syncline_id": "asc" }], "_source": false,
            "track_total_hits": false, "search_after": ["1"],
        })
    );
    // A page of nothing but names that no engine gives is not the end.
    world.proxy.on("POST", "_search", 1, page(json!([hit("~q".into())])));
    world.proxy.on("POST", "_search", 1, page(json!([hit("~~".into())])));
    world.proxy.on("POST", "_search", 1, page(json!([hit("😀".into())])));
    assert_eq!(world.sink.list(&index("books"), None, 1).await.unwrap(), [id("books", "😀")]);
    world.proxy.on("POST", "_search", 1, page(json!([hit("1".into())])));
    let fault = world.sink.list(&index("books"), Some(&id("books", 1)), 3).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert!(fault.message().contains("the answer to a search is malformed"), "{fault}");
}
