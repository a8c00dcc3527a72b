//! Documents go in, are found, and go out again; what does not fit is refused alone.

use serde_json::json;
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::Epoch;
use syncline::error::FaultKind;
use syncline::ports::{FieldKind, FlushReport, Sink as _};
use syncline::row::Key;

use crate::proxy::Proxy;
use crate::servers::{Kind, Server};
use crate::support::*;
use crate::wire::exchange;

crate::on_both! {
    documents_are_replaced_and_deleted_by_id
    every_kind_of_field_is_typed_strictly
    what_the_server_refuses_is_rejected_alone_with_its_reason
    an_index_without_a_mapping_takes_what_comes
    a_unit_is_cut_into_requests_that_go_side_by_side
    requests_are_compressed
    a_search_sees_what_was_written_once_the_run_has_caught_up
    a_refresh_of_one_flush_does_not_pass_over_what_another_is_still_writing
}

async fn documents_are_replaced_and_deleted_by_id(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let odd = Key::new(["eu:1\n\"%".into(), 7.into()]).unwrap();
    flush(
        &sink,
        [
            put(id("books", 1), "{\"v\":1,\n\"title\":\"a\"}", (run, 1)),
            put(id("books", "1"), &v(2), (run, 1)),
            put(id("books", odd.clone()), &v(3), (run, 1)),
            remove(id("books", 404), (run, 1)),
        ],
    )
    .await;
    flush(&sink, [put(id("books", 1), &v(4), (run, 2)), remove(id("books", "1"), (run, 2))]).await;
    let odd = id("books", odd).sink_id();
    let expected = [("1".to_owned(), json!({"v": 4})), (odd, json!({"v": 3}))];
    assert_eq!(found(server.address, "books").await, expected);
}

async fn every_kind_of_field_is_typed_strictly(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    let kinds = [
        ("title", FieldKind::Text),
        ("tag", FieldKind::Keyword),
        ("size", FieldKind::Integer),
        ("price", FieldKind::Float),
        ("open", FieldKind::Bool),
        ("more", FieldKind::Object),
    ];
    sink.ensure_index(&mapping("things", &kinds)).await.unwrap();
    let body = r#"{"title":["Ada Lovelace","first"],"tag":["New York","b"],"size":[7,-3],"price":2,
                   "open":true,"more":{"inner":{"word":"deep","n":42}}}"#;
    flush(&sink, [put(id("things", 1), body, (run, 1)), put(id("things", 2), r#"{"size":null}"#, (run, 1))])
        .await;
    let refused =
        [(3, r#"{"size":"7"}"#), (4, r#"{"size":"x"}"#), (5, r#"{"open":7}"#), (6, r#"{"unknown":1}"#)];
    let writes = refused.map(|(key, body)| put(id("things", key), body, (run, 2)));
    let report = try_flush(&sink, writes).await.unwrap();
    let rejected: Vec<String> = report.rejected.iter().map(|rejected| rejected.id.sink_id()).collect();
    assert_eq!(rejected, ["3", "4", "5", "6"], "{report:?}");
    for (query, ids) in [
        (json!({"match": {"title": "lovelace"}}), vec!["1"]),
        (json!({"term": {"tag": "New York"}}), vec!["1"]),
        (json!({"term": {"tag": "York"}}), vec![]),
        (json!({"range": {"size": {"lt": 0}}}), vec!["1"]),
        (json!({"range": {"price": {"gt": 1.5}}}), vec!["1"]),
        (json!({"term": {"open": true}}), vec!["1"]),
        (json!({"term": {"more.inner.n": 42}}), vec!["1"]),
    ] {
        let body = json!({ "query": query }).to_string();
        let hits = exchange(server.address, "POST", "/things/_search", &body).await.unwrap().json();
        let hits = hits["hits"]["hits"].as_array().unwrap().clone();
        let found: Vec<&str> = hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
    }
}

async fn what_the_server_refuses_is_rejected_alone_with_its_reason(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let report = try_flush(
        &sink,
        [
            put(id("books", 1), &v(1), (run, 1)),
            put(id("books", 2), r#"{"unknown":1}"#, (run, 1)),
            put(id("books", 3), r#"{"v":"x"}"#, (run, 1)),
            put(id("books", 4), "{\"v\":", (run, 1)),
            put(id("books", "x".repeat(513).as_str()), &v(5), (run, 1)),
            remove(id("books", 6), (run, 1)),
            put(id("books", 7), &v(7), (run, 1)),
        ],
    )
    .await
    .unwrap();
    assert_eq!(report.throttled, []);
    let reason = |key: &str| {
        let found = report.rejected.iter().find(|rejected| rejected.id.sink_id() == key);
        found.unwrap_or_else(|| panic!("{key}: {report:?}")).reason.to_string()
    };
    assert!(reason("2").contains("strict_dynamic_mapping_exception"), "{}", reason("2"));
    assert!(reason("3").contains("failed to parse field [v]"), "{}", reason("3"));
    assert!(reason("4").starts_with("the body is not a JSON object"), "{}", reason("4"));
    assert_eq!(reason(&"x".repeat(513)), "the id is 513 bytes long; at most 512 are taken");
    assert_eq!(report.rejected.len(), 4, "{report:?}");
    assert_eq!(values(server.address, "books").await, [("1".into(), 1), ("7".into(), 7)]);
}

async fn an_index_without_a_mapping_takes_what_comes(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    let write = |key: i64| put(id("free", key), r#"{"v":1,"any":{"thing":[1]}}"#, (run, 1));
    // Two at once, neither of which finds an index.
    let (one, other) = tokio::join!(try_flush(&sink, [write(1)]), try_flush(&sink, [write(2)]));
    assert_eq!((one.unwrap(), other.unwrap()), (FlushReport::clean(), FlushReport::clean()));
    assert_eq!(found(server.address, "free").await.len(), 2);
    assert_eq!(indexes(server.address, "free").await.len(), 1);
    // Another run finds it, and writes there.
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    flush(&sink, [put(id("free", 3), "{}", (run, 1))]).await;
    assert_eq!(found(server.address, "free").await.len(), 3);
}

async fn a_unit_is_cut_into_requests_that_go_side_by_side(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).request_documents(10).requests(3).gzip(false)).await;
    let all = |build: u64| (0..95).map(move |key| put(id("books", key), &v(key), (run, build)));
    let before = proxy.seen("_bulk").len();
    proxy.most_at_once();
    let held = [(); 3].map(|()| proxy.held("POST", "_bulk"));
    let flushing = tokio::spawn(flush(&sink, all(1)));
    // The first is not answered before the third has come.
    for request in &held {
        request.caught().await;
    }
    held.iter().for_each(|request| request.release());
    flushing.await.unwrap();
    let requests = proxy.seen("_bulk").split_off(before);
    let sizes: Vec<usize> = requests.iter().map(|request| request.text().lines().count() / 2).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 95);
    assert_eq!((sizes.len(), sizes.iter().max()), (10, Some(&10)));
    assert_eq!(proxy.most_at_once(), 3);
    assert_eq!(values(server.address, "books").await.len(), 95);
    // By bytes.
    let line = requests[0].body.len() / 10;
    let sink = OpenSearchSink::builder(proxy.url()).request_bytes(5 * line + 5).gzip(false).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&books()).await.unwrap();
    let before = proxy.seen("_bulk").len();
    flush(&sink, (0..95).map(|key| put(id("books", key), &v(-key), (run, 1)))).await;
    let requests = proxy.seen("_bulk").split_off(before);
    assert!(requests.len() >= 95 / 5, "{}", requests.len());
    assert!(requests.iter().all(|request| request.body.len() <= 5 * line + 5));
    assert_eq!(values(server.address, "books").await[1], ("1".into(), -1));
}

async fn requests_are_compressed(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    let text = "word ".repeat(2_000);
    let body = json!({ "title": text }).to_string();
    flush(&sink, [put(id("books", 1), &body, (run, 1)), put(id("books", 2), &body, (run, 1))]).await;
    let sent = proxy.seen("_bulk").pop().unwrap();
    assert_eq!(sent.header("content-encoding"), Some("gzip"));
    assert!(sent.body.len() < body.len() / 10, "{}", sent.body.len());
    assert_eq!(found(server.address, "books").await[1].1["title"], text);
}

async fn a_search_sees_what_was_written_once_the_run_has_caught_up(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    let write = |key: i64| [put(id("books", key), &v(key), (run, 1))].into_iter().collect();
    assert_eq!(sink.flush(&write(1), false).await.unwrap(), FlushReport::clean());
    assert_eq!(proxy.seen("_refresh").len(), 0);
    if server.kind == Kind::Noida {
        assert_eq!(values(server.address, "books").await, []);
    }
    sink.caught_up().await.unwrap();
    assert_eq!(values(server.address, "books").await, [("1".into(), 1)]);
    // Nothing was written since, so that nothing is asked.
    sink.caught_up().await.unwrap();
    assert_eq!(proxy.seen("_refresh").len(), 1);
    assert_eq!(sink.flush(&write(2), true).await.unwrap(), FlushReport::clean());
    assert_eq!(values(server.address, "books").await.len(), 2);
}

async fn a_refresh_of_one_flush_does_not_pass_over_what_another_is_still_writing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).flushes(2)).await;
    let held = proxy.held("POST", "_bulk");
    let slow = tokio::spawn(flush(&sink, [put(id("books", 1), &v(1), (run, 1))]));
    held.caught().await;
    flush(&sink, [put(id("books", 2), &v(2), (run, 2))]).await;
    held.release();
    slow.await.unwrap();
    assert_eq!(values(server.address, "books").await, [("1".into(), 1), ("2".into(), 2)]);
}

#[tokio::test]
async fn writing_before_a_run_has_begun_is_refused() {
    let sink = builder("http://127.0.0.1:1").build().unwrap();
    let fault = try_flush(&sink, []).await.unwrap_err();
    assert_eq!(
        (fault.kind(), fault.message()),
        (FaultKind::Fatal, "the sink was asked to write before a run has begun")
    );
}
