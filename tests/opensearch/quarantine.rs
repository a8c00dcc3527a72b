//! Documents that were skipped are remembered in an index, and forgotten once they are cured.

use syncline::change::Operation;
use syncline::document::{DocumentId, Epoch, Version};
use syncline::ports::{CuredDocument, Quarantine as _, QuarantinedDocument};

use crate::proxy::{Fault, Proxy};
use crate::servers::{Kind, Server};
use crate::support::*;

crate::on_both! {
    records_are_kept_replaced_and_released
    a_release_that_is_late_leaves_a_newer_record
    more_records_than_a_page_are_all_loaded
    a_record_that_could_not_be_written_is_told
}

fn refused(id: DocumentId, reason: &str, build: u64) -> QuarantinedDocument {
    let version = Version { epoch: Epoch(1), build };
    QuarantinedDocument { id, operation: Operation::Upsert, reason: reason.into(), attempts: 3, version }
}

fn cured(id: DocumentId, build: u64) -> CuredDocument {
    CuredDocument { id, version: Version { epoch: Epoch(1), build } }
}

async fn records_are_kept_replaced_and_released(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    let quarantine = sink.quarantine();
    assert_eq!(quarantine.load().await.unwrap(), []);
    // An id that the server would not take is the very reason for a record.
    let long = id("books", "x".repeat(600).as_str());
    let odd = id("Büch er", "a:\n\"");
    let gone = QuarantinedDocument { operation: Operation::Delete, ..refused(odd.clone(), "odd", 1) };
    quarantine.record(&[refused(long.clone(), "too long", 1), gone.clone()]).await.unwrap();
    let mut loaded = quarantine.load().await.unwrap();
    loaded.sort();
    assert_eq!(loaded, [odd.clone(), long.clone()]);
    let first = quarantine.records().await.unwrap();
    let of = |records: &[_], id: &DocumentId| -> syncline::connectors::opensearch::QuarantineRecord {
        records
            .iter()
            .find(|record: &&syncline::connectors::opensearch::QuarantineRecord| record.document.id == *id)
            .unwrap()
            .clone()
    };
    assert_eq!(of(&first, &odd).document, gone);
    assert!(of(&first, &long).first_at > 1_600_000_000_000);
    // Again: it keeps the time at which it came in.
    quarantine.record(&[refused(long.clone(), "still", 2)]).await.unwrap();
    let again = of(&quarantine.records().await.unwrap(), &long);
    assert_eq!((&*again.document.reason, again.document.version.build), ("still", 2));
    assert_eq!(again.first_at, of(&first, &long).first_at);
    assert!(again.last_at >= again.first_at);
    // A repetition of an older record changes nothing.
    quarantine.record(&[refused(long.clone(), "too long", 1)]).await.unwrap();
    assert_eq!(&*of(&quarantine.records().await.unwrap(), &long).document.reason, "still");
    quarantine.release(&[cured(long.clone(), 3), cured(id("books", 404), 3)]).await.unwrap();
    assert_eq!(builder(&server.url()).build().unwrap().quarantine().load().await.unwrap(), [odd]);
    quarantine.record(&[]).await.unwrap();
    quarantine.release(&[]).await.unwrap();
}

async fn a_release_that_is_late_leaves_a_newer_record(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let quarantine = builder(&proxy.url()).build().unwrap().quarantine();
    let one = id("books", 1);
    quarantine.record(&[refused(one.clone(), "first", 1)]).await.unwrap();
    let late = proxy.late("POST", "_bulk");
    let release = [cured(one.clone(), 2)];
    tokio::select! {
        biased;
        () = late.caught() => {}
        _ = quarantine.release(&release) => panic!("it was answered"),
    }
    quarantine.record(&[refused(one.clone(), "second", 3)]).await.unwrap();
    assert_eq!(late.deliver().await.json()["items"][0]["delete"]["status"], 409);
    assert_eq!(quarantine.load().await.unwrap(), std::slice::from_ref(&one));
    // And a record that is older than the cure.
    quarantine.release(&[cured(one.clone(), 4)]).await.unwrap();
    if server.kind == Kind::Osmem {
        quarantine.record(&[refused(one, "first", 1)]).await.unwrap();
        assert_eq!(quarantine.load().await.unwrap(), []);
    }
}

async fn more_records_than_a_page_are_all_loaded(server: Server) {
    let quarantine = builder(&server.url()).build().unwrap().quarantine();
    let all: Vec<_> = (0..2_500).map(|key| refused(id("books", key), "no", 1)).collect();
    quarantine.record(&all).await.unwrap();
    let mut loaded = quarantine.load().await.unwrap();
    loaded.sort();
    assert_eq!(loaded, (0..2_500).map(|key| id("books", key)).collect::<Vec<_>>());
    quarantine.release(&(0..2_499).map(|key| cured(id("books", key), 1)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(quarantine.load().await.unwrap(), [id("books", 2_499)]);
}

async fn a_record_that_could_not_be_written_is_told(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let quarantine = builder(&proxy.url()).gzip(false).build().unwrap().quarantine();
    quarantine.record(&[refused(id("books", 1), "no", 1)]).await.unwrap();
    ask(server.address, "POST", "/syncline-quarantine/_refresh").await;
    let key = ask(server.address, "POST", "/syncline-quarantine/_search").await.json();
    let key: &'static str = key["hits"]["hits"][0]["_id"].as_str().unwrap().to_owned().leak();
    proxy.on("POST", "_bulk", 1, Fault::Items(vec![key], 429, "rejected_execution_exception"));
    let fault = quarantine.record(&[refused(id("books", 1), "no", 2)]).await.unwrap_err();
    assert_eq!(fault.kind(), syncline::error::FaultKind::Transient, "{fault}");
    proxy.on("POST", "_bulk", 1, Fault::LoseAnswer);
    let fault = quarantine.release(&[cured(id("books", 1), 3)]).await.unwrap_err();
    assert_eq!(fault.kind(), syncline::error::FaultKind::Transient, "{fault}");
    quarantine.release(&[cured(id("books", 1), 3)]).await.unwrap();
    assert_eq!(quarantine.load().await.unwrap(), []);
    proxy.all_used();
}
