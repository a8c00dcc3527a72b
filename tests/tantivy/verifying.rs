//! What an index holds is compared and listed, as of everything that was written before.

use syncline::connectors::tantivy::TantivySink;
use syncline::document::Epoch;
use syncline::error::FaultKind;
use syncline::ports::{FieldKind, Sink as _};

use crate::held::{differing, listed, lists_in_order};
use crate::support::*;

#[tokio::test]
async fn documents_are_compared_by_value_and_deletions_by_absence() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    assert!(sink.can_verify());
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    sink.ensure_index(&mapping("a", &[("title", FieldKind::Text)])).await.unwrap();
    let body = r#"{"title":"x","n":[1,{"b":2.50,"c":null}]}"#;
    let same = "{ \"n\": [1, {\"c\": null, \"b\": 2.5}],\n \"title\": \"\\u0078\" }";
    flush(&sink, [put(id("a", 1), body, (run, 1)), put(id("b", 1), body, (run, 1))]).await;
    // Versions are not compared.
    let all = |body: &str| {
        [
            put(id("a", 1), body, (run, 9)),
            remove(id("a", 2), (run, 9)),
            put(id("b", 1), body, (run, 9)),
            remove(id("b", "1"), (run, 9)),
        ]
    };
    assert_eq!(differing(&sink, all(body)).await, []);
    assert_eq!(differing(&sink, all(same)).await, []);
    let other = r#"{"title":"x","n":[1,{"b":2.51,"c":null}]}"#;
    assert_eq!(differing(&sink, all(other)).await, [id("a", 1), id("b", 1)]);
    assert_eq!(
        differing(
            &sink,
            [
                put(id("a", 3), "{}", (run, 9)),
                remove(id("a", 1), (run, 9)),
                put(id("a", "x".repeat(70_000).as_str()), "{}", (run, 9)),
                remove(id("a", "x".repeat(70_000).as_str()), (run, 9)),
            ]
        )
        .await,
        [id("a", 3), id("a", 1), id("a", "x".repeat(70_000).as_str())]
    );
    // What was written a moment ago is seen, by this sink and by the next one.
    flush(&sink, [put(id("a", 1), other, (run, 2)), remove(id("b", 1), (run, 2))]).await;
    assert_eq!(differing(&sink, all(other)).await, [id("b", 1)]);
    drop(sink);
    let sink = open(dir.path());
    assert_eq!(differing(&sink, all(other)).await, [id("b", 1)]);
    // Nothing of it was written.
    assert_eq!((all_ids(&sink, "a"), all_ids(&sink, "b")), (vec!["1".to_owned()], vec![]));
}

fn all_ids(sink: &TantivySink, name: &str) -> Vec<String> {
    all(sink, name).into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn documents_are_listed_in_the_order_of_their_names_and_deleted_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    let names = lists_in_order(&sink, &index("a"), Epoch(run)).await;
    // Everything is deleted.
    let ids = sink.list(&index("a"), None, 9).await.unwrap();
    assert_eq!(ids.len(), names.len());
    flush(&sink, ids.into_iter().map(|id| remove(id, (run, 30)))).await;
    assert_eq!(listed(&sink, &index("a"), 2).await, [""; 0]);
}

#[tokio::test]
async fn an_index_that_is_not_there_holds_nothing_and_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let asked = [put(id("a", 1), "{}", (1, 1)), remove(id("a", 2), (1, 1))];
    assert_eq!(differing(&sink, asked.clone()).await, [id("a", 1)]);
    assert_eq!(listed(&sink, &index("a"), 1).await, [""; 0]);
    assert!(sink.count(&index("a")).is_err(), "it was created");
    // One that is empty.
    sink.ensure_index(&mapping("a", &[])).await.unwrap();
    assert_eq!(differing(&sink, asked.clone()).await, [id("a", 1)]);
    assert_eq!(listed(&sink, &index("a"), 1).await, [""; 0]);
    // One that was removed while it was in use: that it is gone is told as a flush tells it.
    flush(&sink, [put(id("a", 1), "{}", (1, 1))]).await;
    for file in files(dir.path()).iter().filter(|path| path.ends_with("meta.json")) {
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }
    let gone = [
        sink.compare(&asked.into_iter().collect()).await.unwrap_err(),
        sink.list(&index("a"), None, 1).await.unwrap_err(),
    ];
    for fault in gone {
        assert_eq!(fault.kind(), FaultKind::Fatal);
        assert!(fault.message().contains("was removed while it was in use"), "{fault}");
    }
}
