//! Who asks, and that nobody who reads a log or an error learns it.

use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::Epoch;
use syncline::error::FaultKind;
use syncline::ports::Sink as _;

use crate::proxy::{Fault, Proxy};
use crate::wire::Response;

const SECRET: &str = "hunter2";

/// Answers everything with this, and remembers what it was asked.
async fn answering(status: u16, body: &str) -> Proxy {
    let proxy = Proxy::start(None).await;
    for method in ["GET", "PUT", "POST"] {
        proxy.on(method, "/", usize::MAX, Fault::Answer(Response::new(status, body)));
    }
    proxy
}

#[tokio::test]
async fn credentials_are_sent_and_shown_nowhere() {
    let proxy = answering(401, "Unauthorized").await;
    let inline = format!("http://sync:{SECRET}@{}", proxy.address);
    let plain = || OpenSearchSink::builder(proxy.url());
    for (builder, expected) in [
        (plain().basic_auth("sync", SECRET), "Basic c3luYzpodW50ZXIy"),
        (OpenSearchSink::builder(inline), "Basic c3luYzpodW50ZXIy"),
        (plain().api_key(SECRET), "ApiKey hunter2"),
    ] {
        let shown = format!("{builder:?}");
        let sink = builder.build().unwrap();
        let fault = sink.begin(Epoch(0)).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal);
        assert_eq!(proxy.seen("/").pop().unwrap().header("authorization"), Some(expected));
        for shown in [
            shown,
            format!("{sink:?}"),
            format!("{:?}", sink.quarantine()),
            format!("{fault} {fault:?} {:?}", fault.source()),
        ] {
            assert!(!shown.contains(SECRET) && !shown.contains("c3luYzpo"), "{shown}");
        }
    }
    drop(proxy);
    // Nobody listens any more.
    let sink = OpenSearchSink::builder(format!("http://sync:{SECRET}@127.0.0.1:1")).build().unwrap();
    let fault = sink.begin(Epoch(0)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Transient);
    assert!(!format!("{fault} {:?}", fault.source()).contains(SECRET), "{fault}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = answering(200, "{}").await;
    let proxy = Proxy::start(None).await;
    let moved = Response::new(307, "").with("location", &elsewhere.url());
    proxy.on("GET", "/", 1, Fault::Answer(moved));
    let sink = OpenSearchSink::builder(proxy.url()).basic_auth("sync", SECRET).build().unwrap();
    let fault = sink.begin(Epoch(0)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert_eq!(elsewhere.seen("/").len(), 0);
}
