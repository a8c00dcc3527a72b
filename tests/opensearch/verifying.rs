//! What an index holds is compared and listed, as of everything that was written before, refreshed or not.

use std::time::Duration;

use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::{Epoch, Write, Writes};
use syncline::error::FaultKind;
use syncline::ports::{FlushReport, Sink as _};

use crate::held::{differing, listed, lists_in_order};
use crate::proxy::{Fault, Proxy};
use crate::servers::Server;
use crate::support::*;
use crate::wire::{Response, exchange};

crate::on_both! {
    documents_are_compared_by_value_and_deletions_by_absence
    what_no_index_can_hold_differs_and_is_gone
    comparisons_are_cut_into_requests_as_flushes_are
    documents_are_listed_in_the_order_of_their_names_and_deleted_ones_are_not
    an_index_that_is_not_there_holds_nothing_and_is_not_created
    what_others_have_written_differs_and_is_listed_by_its_field_alone
    faults_are_told_apart_and_the_call_can_be_repeated
    an_index_that_was_removed_ends_the_run
}

/// Writes documents, and refreshes nothing.
async fn write(sink: &OpenSearchSink, writes: impl IntoIterator<Item = Write<String>>) {
    let writes: Writes<String> = writes.into_iter().collect();
    assert_eq!(sink.flush(&writes, false).await.unwrap(), FlushReport::clean());
}

async fn documents_are_compared_by_value_and_deletions_by_absence(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    assert!(sink.can_verify());
    let body = r#"{"v":1,"title":"x"}"#;
    let free = r#"{"n":[1,2],"o":{"b":2.5,"c":null},"title":"x"}"#;
    write(&sink, [put(id("books", 1), body, (run, 1)), put(id("free", 1), free, (run, 1))]).await;
    let all = |body: &str, free: &str| {
        [
            put(id("books", 1), body, (run, 9)),
            remove(id("books", 2), (run, 9)),
            put(id("free", 1), free, (run, 9)),
            remove(id("free", "1"), (run, 9)),
        ]
    };
    assert_eq!(differing(&sink, all(body, free)).await, []);
    let (same, free_same) =
        ("{ \"title\": \"\\u0078\",\n \"v\": 1 }", r#"{"title":"x","o":{"c":null,"b":2.50},"n":[1, 2]}"#);
    assert_eq!(differing(&sink, all(same, free_same)).await, []);
    let (other, free_other) = (r#"{"v":2,"title":"x"}"#, r#"{"n":[1,2],"o":{"b":2.5},"title":"x"}"#);
    assert_eq!(differing(&sink, all(other, free_other)).await, [id("books", 1), id("free", 1)]);
    let missing = [put(id("books", 3), body, (run, 9)), remove(id("books", 1), (run, 9))];
    assert_eq!(differing(&sink, missing).await, [id("books", 3), id("books", 1)]);
    // What was written a moment ago is seen, by this run and by the next one.
    write(&sink, [put(id("books", 1), other, (run, 2)), remove(id("free", 1), (run, 2))]).await;
    assert_eq!(differing(&sink, all(other, free)).await, [id("free", 1)]);
    let sink = builder(&server.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    assert_eq!(differing(&sink, all(other, free)).await, [id("free", 1)]);
    // Nothing of it was written.
    ask(server.address, "POST", "/books/_refresh").await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 2)]);
}

async fn what_no_index_can_hold_differs_and_is_gone(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let long = "x".repeat(513);
    let asked = || {
        [
            put(id("books", long.as_str()), "{}", (run, 1)),
            remove(id("books", format!("{long}y").as_str()), (run, 1)),
            put(id("books", 1), "[]", (run, 1)),
            put(id("books", 2), r#"{"syncline_id":"3"}"#, (run, 1)),
        ]
    };
    let different = [id("books", long.as_str()), id("books", 1), id("books", 2)];
    assert_eq!(differing(&sink, asked()).await, different);
    let report = try_flush(&sink, asked()).await.unwrap();
    let reasons: Vec<&str> = report.rejected.iter().map(|rejected| &*rejected.reason).collect();
    assert!(reasons.contains(&"the field `syncline_id` is the sink's own"), "{reasons:?}");
    assert_eq!(differing(&sink, asked()).await, different);
}

async fn comparisons_are_cut_into_requests_as_flushes_are(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).request_documents(10).requests(3).gzip(false)).await;
    let all =
        move |v_of: fn(i64) -> i64| (0..95).map(move |key| put(id("books", key), &v(v_of(key)), (run, 1)));
    write(&sink, all(|key| key)).await;
    let held = [(); 3].map(|()| proxy.held("POST", "_mget"));
    let comparing = sink.clone();
    let comparing =
        tokio::spawn(
            async move { differing(&comparing, all(|key| if key % 31 == 30 { -1 } else { key })).await },
        );
    for request in &held {
        request.caught().await;
    }
    held.iter().for_each(|request| request.release());
    assert_eq!(comparing.await.unwrap(), [30, 61, 92].map(|key| id("books", key)));
    let counts: Vec<usize> =
        proxy.seen("_mget").iter().map(|request| request.text().matches("\"_id\"").count()).collect();
    assert_eq!((counts.len(), counts.iter().sum::<usize>(), counts.iter().max()), (10, 95, Some(&10)));
    // By the bytes that are compared.
    let sink = OpenSearchSink::builder(proxy.url()).request_bytes(3_000).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    let before = proxy.seen("_mget").len();
    let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(1_000));
    assert_eq!(differing(&sink, (0..9).map(|key| put(id("books", key), &long, (run, 1)))).await.len(), 9);
    assert_eq!(proxy.seen("_mget").len() - before, 5);
}

async fn documents_are_listed_in_the_order_of_their_names_and_deleted_ones_are_not(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let names = lists_in_order(&sink, &index("books"), run).await;
    // By the next run, which knows the index by its state alone.
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    assert_eq!(listed(&sink, &index("books"), 4).await, names);
    // An index without a mapping, in the order of their names too.
    write(&sink, [3, 20, 1].map(|key| put(id("free", key), &v(key), (run, 1)))).await;
    assert_eq!(listed(&sink, &index("free"), 2).await, ["1", "20", "3"]);
}

async fn an_index_that_is_not_there_holds_nothing_and_is_not_created(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    let asked = [put(id("books", 1), "{}", (run, 1)), remove(id("books", 2), (run, 1))];
    assert_eq!(differing(&sink, asked).await, [id("books", 1)]);
    assert_eq!(listed(&sink, &index("books"), 2).await, [""; 0]);
    assert_eq!(indexes(server.address, "books").await, [""; 0]);
}

async fn what_others_have_written_differs_and_is_listed_by_its_field_alone(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    write(&sink, [1, 2].map(|key| put(id("books", key), &v(key), (run, 1)))).await;
    let physical = indexes(server.address, "books").await.remove(0);
    for (name, body) in [
        // The body as it was, but without the sink's field.
        ("2", r#"{"v":2}"#),
        ("3", r#"{"v":3,"syncline_id":"3"}"#),
        // No engine gives a document this name.
        ("4", r#"{"v":4,"syncline_id":"~q"}"#),
        ("5", r#"{"v":5}"#),
    ] {
        let path = format!("/{physical}/_doc/{name}");
        let answer = exchange(server.address, "PUT", &path, body).await.unwrap();
        assert!(answer.status < 300, "{answer:?}");
    }
    let asked = [1, 2, 3].map(|key| put(id("books", key), &v(key), (run, 9)));
    let gone = [4, 5].map(|key| remove(id("books", key), (run, 9)));
    assert_eq!(differing(&sink, asked.into_iter().chain(gone)).await, [2, 4, 5].map(|key| id("books", key)));
    for limit in [1, 2, 100] {
        assert_eq!(listed(&sink, &index("books"), limit).await, ["1", "3"], "{limit}");
    }
}

async fn faults_are_told_apart_and_the_call_can_be_repeated(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    write(&sink, [1, 2].map(|key| put(id("books", key), &v(key), (run, 1)))).await;
    let (name, asked) = (index("books"), [put(id("books", 1), &v(7), (run, 1))].into_iter().collect());
    let ask = async || {
        let different = sink.compare(&asked).await?;
        Ok::<_, syncline::error::Fault>((different, sink.list(&name, None, 9).await?))
    };
    let passing: [fn() -> Fault; 6] = [
        || Fault::Answer(Response::new(503, "busy").with("retry-after", "3")),
        || Fault::Answer(Response::new(429, r#"{"error":{"type":"circuit_breaking_exception"}}"#)),
        || Fault::Answer(Response::new(200, "<html>signed out</html>")),
        || Fault::Reset,
        || Fault::LoseAnswer,
        || Fault::CutAnswer(5),
    ];
    for (at, fault) in passing.iter().enumerate() {
        for path in ["_mget", "_refresh", "_search"] {
            // What a refresh answers is not looked at.
            if at == 2 && path == "_refresh" {
                continue;
            }
            proxy.on("POST", path, 1, fault());
            let failed = ask().await.unwrap_err();
            assert_eq!(failed.kind(), FaultKind::Transient, "{path}: {failed}");
            let delay = (at == 0).then_some(Duration::from_secs(3));
            assert_eq!(failed.retry_after(), delay, "{path}: {failed}");
        }
    }
    for path in ["_mget", "_refresh", "_search"] {
        for status in [400, 401, 403] {
            proxy.on("POST", path, 1, Fault::Answer(Response::new(status, "no")));
            assert_eq!(ask().await.unwrap_err().kind(), FaultKind::Fatal, "{path} {status}");
        }
    }
    proxy.all_used();
    assert_eq!(ask().await.unwrap(), (vec![id("books", 1)], vec![id("books", 1), id("books", 2)]));
}

async fn an_index_that_was_removed_ends_the_run(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    write(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    let physical = indexes(server.address, "books").await.remove(0);
    assert_eq!(ask(server.address, "DELETE", &format!("/{physical}")).await.status, 200);
    let fault = sink.list(&index("books"), None, 9).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(fault.message().contains("index_not_found_exception"), "{fault}");
    let asked = [put(id("books", 1), &v(1), (run, 1))].into_iter().collect();
    let fault = sink.compare(&asked).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(fault.message().contains("index_not_found_exception"), "{fault}");
}
