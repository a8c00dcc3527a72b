use std::time::Duration;

use syncline::change::Operation;
use syncline::connectors::sqlite::SqliteQuarantine;
use syncline::document::{DocumentId, Epoch, Version};
use syncline::ports::{CuredDocument, Quarantine, QuarantinedDocument};
use syncline::row::Key;

use super::world::World;

fn document(key: impl Into<Key>, reason: &str, attempts: u32) -> QuarantinedDocument {
    QuarantinedDocument {
        id: DocumentId::new("books".parse().unwrap(), key),
        operation: Operation::Upsert,
        reason: reason.into(),
        attempts,
        version: version(u64::from(attempts)),
    }
}

fn version(build: u64) -> Version {
    Version { epoch: Epoch(7), build }
}

#[tokio::test]
async fn b10_records_last_and_know_when_they_came() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quarantine.db");
    let quarantine = SqliteQuarantine::open(&path).unwrap();
    let composite = Key::new(["a:b".into(), 7.into()]).unwrap();
    let delete = QuarantinedDocument { operation: Operation::Delete, ..document(composite, "no", 2) };
    quarantine.record(&[document(1, "too large", 1), delete.clone()]).await.unwrap();
    let first = quarantine.records().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    quarantine.record(&[document(1, "still too large", 3)]).await.unwrap();
    drop(quarantine);

    let quarantine = SqliteQuarantine::open(&path).unwrap();
    let records = quarantine.records().await.unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].document, document(1, "still too large", 3));
    assert_eq!(records[0].first_at, first[0].first_at);
    assert!(records[0].last_at > first[0].last_at, "{records:?}");
    assert_eq!(records[1].document, delete);
    assert_eq!(records[1].last_at.len(), "2031-01-31T23:59:59.123Z".len());
    let ids = [records[0].document.id.clone(), delete.id.clone()];
    assert_eq!(quarantine.load().await.unwrap(), ids);
    let cured = |build| [CuredDocument { id: ids[0].clone(), version: version(build) }];
    quarantine.release(&cured(2)).await.unwrap();
    assert_eq!(quarantine.load().await.unwrap(), ids, "the record is newer than what was written");
    quarantine.release(&cured(3)).await.unwrap();
    quarantine.release(&cured(3)).await.unwrap();
    assert_eq!(quarantine.load().await.unwrap(), ids[1..]);
}

/// A record whose id could not be read would keep every run from starting.
#[tokio::test]
async fn texts_that_look_like_numbers_are_loaded_again() {
    let world = World::new("");
    let quarantine = SqliteQuarantine::open(world.path()).unwrap();
    let all = ["+491234", "-0", "007", "42"].map(|key| document(key, "no", 1));
    quarantine.record(&all).await.unwrap();
    let mut loaded = quarantine.load().await.unwrap();
    loaded.sort();
    assert_eq!(loaded, all.map(|document| document.id));
}

#[tokio::test]
async fn b15_a_record_that_is_none_is_named() {
    let world = World::new("");
    let quarantine = SqliteQuarantine::open(world.path()).unwrap();
    world.run("INSERT INTO syncline_quarantine VALUES ('books', '%zz', 'upsert', 'x', 1, '', '', 1, 1)");
    let fault = quarantine.load().await.unwrap_err();
    assert!(fault.message().contains("the quarantine's record of books/%zz is malformed"), "{fault}");
}
