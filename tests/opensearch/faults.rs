//! What networks, balancers and overloaded nodes do to exchanges with a real server.

use std::time::Duration;

use syncline::document::{Epoch, Writes};
use syncline::error::FaultKind;
use syncline::ports::{FlushReport, SeedState, Sink as _};

use crate::proxy::{Fault, Proxy};
use crate::servers::Server;
use crate::support::*;
use crate::wire::Response;

crate::on_both! {
    documents_that_are_throttled_are_told_alone
    a_request_that_is_throttled_is_retried_alone_or_after_the_delay_that_was_asked_for
    an_answer_that_is_lost_leaves_the_documents_and_the_repetition_is_no_failure
    silence_ends_with_the_time_limit
    a_request_that_is_too_large_is_halved_until_the_document_stands_alone
    faults_of_every_other_call_are_transient_and_the_call_can_be_repeated
    a_refresh_that_fails_is_made_up_for
    a_refresh_that_was_given_up_is_made_up_for
}

fn three(run: Epoch, build: u64) -> [syncline::document::Write<String>; 3] {
    [1, 2, 3].map(|key| put(id("books", key), &v(build as i64), (run, build)))
}

async fn documents_that_are_throttled_are_told_alone(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).gzip(false)).await;
    for (build, status, kind) in [
        (1, 429, "rejected_execution_exception"),
        (2, 503, "unavailable_shards_exception"),
        (3, 403, "cluster_block_exception"),
    ] {
        proxy.on("POST", "_bulk", 1, Fault::Items(vec!["2"], status, kind));
        let report = try_flush(&sink, three(run, build)).await.unwrap();
        assert_eq!(report, FlushReport { rejected: vec![], throttled: vec![id("books", 2)] });
        let written = values(server.address, "books").await;
        assert_eq!((&written[0].0, written[0].1), (&"1".to_owned(), build as i64));
        flush(&sink, [put(id("books", 2), &v(build as i64), (run, build))]).await;
        assert_eq!(values(server.address, "books").await[1], ("2".into(), build as i64));
    }
    proxy.all_used();
}

async fn a_request_that_is_throttled_is_retried_alone_or_after_the_delay_that_was_asked_for(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).request_documents(1)).await;
    let busy = |status| Response::new(status, r#"{"error":{"type":"x","reason":"busy"},"status":0}"#);
    for (build, status) in [(1, 429), (2, 503)] {
        proxy.on("POST", "_bulk", 1, Fault::Answer(busy(status)));
        let report = try_flush(&sink, three(run, build)).await.unwrap();
        assert_eq!((report.rejected.len(), report.throttled.len()), (0, 1));
        proxy.on("POST", "_bulk", 1, Fault::Answer(busy(status).with("retry-after", "7")));
        proxy.on("POST", "_bulk", 1, Fault::Answer(busy(status).with("retry-after", "9")));
        let fault = try_flush(&sink, three(run, build)).await.unwrap_err();
        assert_eq!((fault.kind(), fault.retry_after()), (FaultKind::Transient, Some(Duration::from_secs(9))));
        flush(&sink, three(run, build)).await;
    }
    for status in [500, 502, 504] {
        proxy.on("POST", "_bulk", 1, Fault::Answer(Response::new(status, "<html>the balancer</html>")));
        let fault = try_flush(&sink, three(run, 3)).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Transient);
        assert!(fault.message().contains("<html>the balancer</html>"), "{fault}");
    }
    proxy.all_used();
    flush(&sink, three(run, 3)).await;
    assert_eq!(values(server.address, "books").await[2], ("3".into(), 3));
}

async fn an_answer_that_is_lost_leaves_the_documents_and_the_repetition_is_no_failure(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    for (build, fault) in [
        (1, Fault::LoseAnswer),
        (2, Fault::CutAnswer(0)),
        (3, Fault::CutAnswer(40)),
        // Nothing is wrong with its length, only with what it holds.
        (4, Fault::Answer(Response::new(200, r#"{"took":1,"errors":false,"items":[]}"#))),
        (5, Fault::Answer(Response::new(200, "<html>signed out</html>"))),
    ] {
        let reached = build <= 3;
        proxy.on("POST", "_bulk", 1, fault);
        let fault = try_flush(&sink, three(run, build)).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Transient, "{build}: {fault}");
        ask(server.address, "POST", "/books/_refresh").await;
        let written = values(server.address, "books").await;
        assert_eq!(written.iter().all(|(_, value)| *value == build as i64), reached, "{build}: {written:?}");
        flush(&sink, three(run, build)).await;
        assert!(
            values(server.address, "books").await.iter().all(|(_, value)| *value == build as i64),
            "{build}"
        );
    }
    // One of several requests.
    let (sink, run) = begun(builder(&proxy.url()).request_documents(1)).await;
    proxy.on("POST", "_bulk", 1, Fault::Reset);
    let fault = try_flush(&sink, three(run, 1)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
    flush(&sink, three(run, 1)).await;
    proxy.all_used();
}

async fn silence_ends_with_the_time_limit(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).timeout(Duration::from_millis(500))).await;
    for (build, fault) in [(1, Fault::Hang), (2, Fault::HangAnswer)] {
        proxy.on("POST", "_bulk", 1, fault);
        let fault = try_flush(&sink, three(run, build)).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
        assert!(fault.message().contains("timed out"), "{fault}");
        // A slow machine may run into the short limit again.
        while try_flush(&sink, three(run, build)).await.is_err() {}
        assert_eq!(values(server.address, "books").await[0], ("1".into(), build as i64));
    }
    proxy.all_used();
}

async fn a_request_that_is_too_large_is_halved_until_the_document_stands_alone(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url()).gzip(false)).await;
    let long = serde_json::json!({ "v": 5, "title": "x".repeat(5_000) }).to_string();
    let writes = (0..10).map(|key| match key {
        5 => put(id("books", 5), &long, (run, 1)),
        _ => put(id("books", key), &v(key), (run, 1)),
    });
    // A balancer in front that takes at most this much. What it passes on, it has the server answer.
    let limit = 1_000;
    let (address, passed) = (server.address, std::sync::Arc::new(std::sync::Mutex::new(0)));
    let counted = passed.clone();
    let handle = tokio::runtime::Handle::current();
    let balancer = move |request: &crate::wire::Request| {
        if request.body.len() > limit {
            return Response::new(413, "<html>413 Request Entity Too Large</html>");
        }
        *counted.lock().unwrap() += 1;
        tokio::task::block_in_place(|| handle.block_on(crate::wire::forward(address, request))).unwrap()
    };
    proxy.on("POST", "_bulk", 9, Fault::With(Box::new(balancer)));
    let report = try_flush(&sink, writes).await.unwrap();
    assert_eq!((report.rejected.len(), report.throttled.len()), (1, 0), "{report:?}");
    assert_eq!(report.rejected[0].id, id("books", 5));
    assert!(report.rejected[0].reason.contains("the server takes no request of"), "{report:?}");
    assert!(report.rejected[0].reason.contains("413 Request Entity Too Large"), "{report:?}");
    let written = values(server.address, "books").await;
    assert_eq!(written.len(), 9);
    assert!(*passed.lock().unwrap() >= 2);
}

async fn faults_of_every_other_call_are_transient_and_the_call_can_be_repeated(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (books_, own) = (index("books"), seed("s", "d"));
    let sink = builder(&proxy.url()).build().unwrap();
    let faults: [fn() -> Fault; 4] = [
        || Fault::Answer(Response::new(503, "busy").with("retry-after", "3")),
        || Fault::Reset,
        || Fault::LoseAnswer,
        || Fault::CutAnswer(5),
    ];
    let requests = [
        // Creating the state happens once.
        ("PUT", "/_create/state"),
        ("PUT", "/syncline-state"),
        ("GET", "_doc/state"),
        ("PUT", "_doc/state"),
        ("PUT", "/books-"),
        ("GET", "/_settings"),
        ("GET", "/_alias/books"),
        ("GET", "/_alias"),
        ("GET", "/_mapping"),
        ("POST", "/_aliases"),
        ("POST", "/_refresh"),
        ("POST", "/_search"),
    ];
    // The first request of each kind fails in each way; the calls are made again until they succeed.
    for (round, fault) in faults.into_iter().enumerate() {
        let requests = if round == 0 { &requests[..] } else { &requests[2..] };
        for (method, path) in requests {
            proxy.on(method, *path, 1, fault());
        }
        let calls = async || {
            let run = sink.begin(Epoch(0)).await?;
            sink.ensure_index(&books()).await?;
            sink.clear(&books_).await?;
            sink.save_cursor(&books_, &own, Some(&1.into())).await?;
            sink.mark_seeded(&books_, &own).await?;
            let one: Writes<String> = [put(id("books", 1), &v(1), (run, 1))].into_iter().collect();
            assert_eq!(sink.flush(&one, false).await?, FlushReport::clean());
            sink.park(&books_, &own).await?;
            sink.rebuild(&books_).await?;
            sink.save_cursor(&books_, &own, None).await?;
            sink.mark_seeded(&books_, &own).await?;
            sink.seed_state(&books_, &own).await
        };
        let mut failed = 0;
        let state = loop {
            match calls().await {
                Ok(state) => break state,
                Err(fault) => {
                    failed += 1;
                    assert_eq!(fault.kind(), FaultKind::Transient, "{fault}");
                    assert!(failed <= requests.len(), "{fault}");
                }
            }
        };
        assert_eq!(state, SeedState::Seeded);
        proxy.all_used();
        assert_eq!(failed, requests.len());
    }
    let run = sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&books()).await.unwrap();
    assert_eq!(sink.seed_state(&books_, &own).await.unwrap(), SeedState::Seeded);
    flush(&sink, three(run, 1)).await;
    assert_eq!(values(server.address, "books").await.len(), 3);
    assert_eq!(indexes(server.address, "books").await.len(), 1);
}

async fn a_refresh_that_fails_is_made_up_for(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    proxy.on("POST", "_refresh", 2, Fault::Answer(Response::new(503, "busy")));
    let fault = try_flush(&sink, three(run, 1)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert_eq!(sink.caught_up().await.unwrap_err().kind(), FaultKind::Transient);
    sink.caught_up().await.unwrap();
    assert_eq!(values(server.address, "books").await.len(), 3);
    proxy.all_used();
}

async fn a_refresh_that_was_given_up_is_made_up_for(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    let late = proxy.late("POST", "_refresh");
    let written = three(run, 1);
    tokio::select! {
        biased;
        () = late.caught() => {}
        _ = try_flush(&sink, written) => panic!("it was answered"),
    }
    proxy.on("POST", "_refresh", 1, Fault::Answer(Response::new(503, "busy")));
    assert_eq!(sink.caught_up().await.unwrap_err().kind(), FaultKind::Transient);
    sink.caught_up().await.unwrap();
    proxy.all_used();
}
