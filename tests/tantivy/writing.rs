//! Documents go in, are found, and go out again; what does not fit is refused alone.

use syncline::connectors::tantivy::{TantivyReader, TantivySink};
use syncline::error::FaultKind;
use syncline::ports::{FieldKind, FlushReport, Sink as _};
use syncline::row::Key;

use crate::support::*;

const KINDS: [(&str, FieldKind); 6] = [
    ("title", FieldKind::Text),
    ("tag", FieldKind::Keyword),
    ("size", FieldKind::Integer),
    ("price", FieldKind::Float),
    ("open", FieldKind::Bool),
    ("more", FieldKind::Object),
];

fn found(sink: &TantivySink, name: &str, query: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        sink.search(&index(name), query, 100).unwrap().into_iter().map(|hit| hit.id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn documents_are_replaced_and_deleted_by_id_and_survive_the_sink() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("users", &KINDS)).await.unwrap();
    let composite = Key::new(["eu:1".into(), 7.into()]).unwrap();
    let report = try_flush(
        &sink,
        [
            put(id("users", 1), r#"{"title":"old words"}"#, (0, 1)),
            put(id("users", "1"), r#"{"title":"text key"}"#, (0, 1)),
            put(id("users", composite.clone()), r#"{"title":"composite"}"#, (0, 1)),
            remove(id("users", 404), (0, 1)),
        ],
    )
    .await;
    assert_eq!(report, FlushReport::clean());
    let report = try_flush(
        &sink,
        [put(id("users", 1), r#"{"title":"new words"}"#, (0, 2)), remove(id("users", "1"), (0, 2))],
    )
    .await;
    assert_eq!(report, FlushReport::clean());
    let check = |sink: &TantivySink| {
        assert_eq!(found(sink, "users", "old"), [""; 0]);
        assert_eq!(found(sink, "users", "new"), ["1"]);
        assert_eq!(sink.count(&index("users")).unwrap(), 2);
        assert_eq!(
            sink.get(&index("users"), &1.into()).unwrap().as_deref(),
            Some(r#"{"title":"new words"}"#)
        );
        assert_eq!(sink.get(&index("users"), &"1".into()).unwrap(), None);
        assert_eq!(
            sink.get(&index("users"), &composite).unwrap().as_deref(),
            Some(r#"{"title":"composite"}"#)
        );
        let stored: Vec<_> = sink.documents(&index("users")).unwrap().map(Result::unwrap).collect();
        assert!(stored.iter().any(|document| document.key() == Some(composite.clone())), "{stored:?}");
        assert!(
            stored.iter().any(|document| document.id == "1" && document.version.build == 2),
            "{stored:?}"
        );
    };
    check(&sink);
    drop(sink);
    check(&open(dir.path()));
}

#[tokio::test]
async fn every_kind_of_field_is_searched_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("things", &KINDS)).await.unwrap();
    let body = r#"{"title":["Ada Lovelace","first"],"tag":["New York","b"],"size":[7,-3],"price":2,
                   "open":true,"more":{"inner":{"word":"Deep Thought","n":42}},"secret":"hidden"}"#;
    flush(
        &sink,
        [put(id("things", 1), body, (0, 1)), put(id("things", 2), r#"{"title":"ada","size":null}"#, (0, 1))],
    )
    .await;
    for (query, ids) in [
        ("lovelace", &["1"][..]),
        ("ADA", &["1", "2"]),
        ("title:\"ada lovelace\"", &["1"]),
        ("tag:\"New York\"", &["1"]),
        ("tag:york", &[]),
        ("size:7", &["1"]),
        ("size:[-5 TO 0]", &["1"]),
        ("price:2.0", &["1"]),
        ("open:true", &["1"]),
        ("open:false", &[]),
        ("more.inner.word:thought", &["1"]),
        ("more.inner.n:42", &["1"]),
        ("hidden", &[]),
        ("*", &["1", "2"]),
    ] {
        assert_eq!(found(&sink, "things", query), ids, "{query}");
    }
    // A field outside the mapping is kept, not searched.
    assert_eq!(sink.get(&index("things"), &1.into()).unwrap().as_deref(), Some(body));
    let best = sink.search(&index("things"), "ada", 1).unwrap();
    assert_eq!(
        best.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(),
        ["2"],
        "the shorter text scores higher"
    );
}

#[tokio::test]
async fn an_index_without_a_mapping_is_searched_by_all_its_texts() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let body = r#"{"name":"Ada","address":{"city":"London","floors":[3,{"x":"attic"}]}}"#;
    flush(&sink, [put(id("loose", 1), body, (0, 1)), put(id("loose", 2), r#"{"name":1}"#, (0, 1))]).await;
    assert_eq!(found(&sink, "loose", "london"), ["1"]);
    assert_eq!(found(&sink, "loose", "attic"), ["1"]);
    assert_eq!(found(&sink, "loose", "_dynamic.address.city:london"), ["1"]);
    assert_eq!(found(&sink, "loose", "_dynamic.name:1"), ["2"]);
    // A mapping without fields leaves it as it is.
    sink.ensure_index(&mapping("loose", &[])).await.unwrap();
    assert_eq!(sink.count(&index("loose")).unwrap(), 2);
}

#[tokio::test]
async fn a_document_that_does_not_fit_is_rejected_alone_and_its_predecessor_stays() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("things", &KINDS)).await.unwrap();
    flush(&sink, [put(id("things", 1), r#"{"size":1}"#, (0, 1))]).await;
    let long = "x".repeat(70_000);
    let report = try_flush(
        &sink,
        [
            put(id("things", 1), r#"{"size":"large"}"#, (0, 2)),
            put(id("things", 2), "not json", (0, 2)),
            put(id("things", 3), r#"{"size":3}"#, (0, 2)),
            put(id("things", long.as_str()), "{}", (0, 2)),
            put(id("other", 1), "[]", (0, 2)),
        ],
    )
    .await;
    let mut reasons: Vec<_> = report.rejected.iter().map(|document| document.reason.to_string()).collect();
    reasons.sort();
    assert_eq!(report.throttled, []);
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert_eq!(reasons[0], "field `size` takes an integer of 64 bits, not \"large\"");
    assert!(reasons[1].starts_with("the body is not a JSON object"), "{reasons:?}");
    assert!(reasons[2].starts_with("the body is not a JSON object"), "{reasons:?}");
    assert_eq!(reasons[3], "the id is 70000 bytes long; at most 65530 are taken");
    assert!(report.rejected.iter().any(|document| document.id == id("things", 1)));
    assert_eq!(
        all(&sink, "things"),
        [("1".into(), r#"{"size":1}"#.into()), ("3".into(), r#"{"size":3}"#.into())]
    );
    // A rejection leaves nothing behind: the same document, mended, is taken.
    flush(&sink, [put(id("things", 1), r#"{"size":2}"#, (0, 3))]).await;
    assert_eq!(found(&sink, "things", "size:2"), ["1"]);
}

#[tokio::test]
async fn a_document_that_could_not_be_stored_is_deleted_already() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let long = "x".repeat(70_000);
    // Alone, and among others.
    flush(&sink, [remove(id("a", long.as_str()), (0, 1))]).await;
    flush(&sink, [put(id("a", 1), "{}", (0, 2)), remove(id("a", long.as_str()), (0, 2))]).await;
    assert_eq!(all(&sink, "a"), [("1".into(), "{}".into())]);
}

#[tokio::test]
async fn extreme_documents_are_taken_or_rejected_but_fail_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("things", &KINDS)).await.unwrap();
    let long = "k".repeat(70_000);
    let many = (0..3_000).map(|at| format!(r#""f{at}":{at}"#)).collect::<Vec<_>>().join(",");
    let bodies = [
        format!(r#"{{"more":{{"{long}":"{long}"}},"title":"{long}"}}"#),
        format!(r#"{{"more":{{{many}}}}}"#),
        r#"{"more":{"":1,".":2,"a.b":{"c\u0000d":"\u0001"}},"title":"\u0000\ud83e\udd80"}"#.to_owned(),
        r#"{"more":{"a":1e308,"b":-0.0,"c":18446744073709551615,"d":"2026-01-01T00:00:00Z","e":[[1,"x"],null]}}"#
            .to_owned(),
        r#"{"price":1e400}"#.to_owned(),
        format!(r#"{{"title":"{}"}}"#, "word ".repeat(200_000)),
        "{}".to_owned(),
    ];
    for (at, body) in (0_u32..).zip(&bodies) {
        let report =
            try_flush(&sink, [put(id("things", at), body, (0, 1)), put(id("loose", at), body, (0, 1))]).await;
        let rejected = if at == 4 { 2 } else { 0 };
        assert_eq!(report.rejected.len(), rejected, "{at}: {:?}", report.rejected);
        if rejected == 0 {
            assert_eq!(sink.get(&index("things"), &at.into()).unwrap().as_ref(), Some(body));
            assert_eq!(sink.get(&index("loose"), &at.into()).unwrap().as_ref(), Some(body));
        }
    }
    assert_eq!(sink.count(&index("things")).unwrap(), 6);
}

#[tokio::test]
async fn index_names_of_every_kind_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let names = ["users", "Users", "../users", "a/b", "a", "con", &"x".repeat(255), &"É".repeat(127)];
    for (at, name) in (0_u64..).zip(&names) {
        flush(&sink, [put(id(name, 1), &format!(r#"{{"n":{at}}}"#), (0, 1))]).await;
    }
    drop(sink);
    let sink = open(dir.path());
    for (at, name) in names.iter().enumerate() {
        assert_eq!(all(&sink, name), [("1".to_owned(), format!(r#"{{"n":{at}}}"#))], "{name}");
    }
    assert!(
        std::fs::read_dir(dir.path().parent().unwrap())
            .unwrap()
            .all(|entry| { entry.unwrap().file_name() != "users" })
    );
}

#[tokio::test]
async fn searches_see_every_flush_and_bad_queries_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("things", &KINDS)).await.unwrap();
    let name = index("things");
    assert_eq!(sink.search(&name, "x", 10).unwrap(), []);
    for at in 1..=5_u32 {
        flush(&sink, [put(id("things", at), r#"{"title":"x"}"#, (0, u64::from(at)))]).await;
        assert_eq!(sink.search(&name, "x", usize::MAX).unwrap().len(), at as usize);
    }
    sink.caught_up().await.unwrap();
    assert_eq!(sink.search(&name, "x", 0).unwrap(), []);
    assert_eq!(sink.search(&name, "x", 2).unwrap().len(), 2);
    let deep = "(".repeat(100_000);
    let nested = "(".repeat(5_000);
    for query in ["title:", "nowhere:x", "size:x", "\"", &deep, &nested] {
        let fault = sink.search(&name, query, 10).map(|hits| hits.len());
        match fault {
            Ok(found) => assert_eq!(found, 0, "{query}"),
            Err(fault) => assert_eq!(fault.kind(), FaultKind::Content, "{fault}"),
        }
    }
    assert!(sink.search(&name, "nowhere:x", 10).unwrap_err().message().contains("nowhere"));
    let missing = sink.search(&index("other"), "x", 10).unwrap_err();
    assert!(missing.message().contains("there is no index `other`"), "{missing}");
    assert!(sink.index(&name).unwrap().schema().get_field("title").is_ok());
}

#[tokio::test]
async fn one_sink_writes_and_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, [put(id("a", 1), r#"{"n":1}"#, (0, 1))]).await;
    let busy = TantivySink::open(dir.path()).unwrap_err();
    assert_eq!(busy.kind(), FaultKind::Fatal);
    assert!(busy.message().contains("already open for writing"), "{busy}");
    let reader = TantivyReader::open(dir.path()).unwrap();
    assert_eq!(reader.count(&index("a")).unwrap(), 1);
    flush(&sink, [put(id("a", 2), r#"{"n":2}"#, (0, 2))]).await;
    assert_eq!(reader.count(&index("a")).unwrap(), 2);
    // Another index in the same place is not taken for the old one.
    sink.ensure_index(&mapping("a", &KINDS)).await.unwrap();
    assert_eq!(reader.count(&index("a")).unwrap(), 0);
    flush(&sink, [put(id("a", 3), r#"{"tag":"B c"}"#, (0, 3))]).await;
    assert_eq!(reader.search(&index("a"), "tag:\"B c\"", 9).unwrap().len(), 1);
    drop(sink);
    assert_eq!(reader.count(&index("a")).unwrap(), 1);
    open(dir.path());
    assert!(TantivyReader::open(dir.path().join("nowhere")).unwrap_err().message().contains("no directory"));
}

#[test]
fn settings_that_tantivy_does_not_take_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |bytes, threads| {
        let builder = TantivySink::builder().writer_memory_bytes(bytes).writer_threads(threads);
        builder.open(dir.path()).unwrap_err().to_string()
    };
    assert!(refused(50_000_000, 0).contains("1 to 8 threads, not 0"));
    assert!(refused(50_000_000, 9).contains("1 to 8 threads, not 9"));
    assert!(refused(50_000_000, 4).contains("50000000 for 4 thread(s)"));
    assert!(refused(usize::MAX, 1).contains("for 1 thread(s)"));
}

#[tokio::test]
async fn several_threads_write_the_same_documents() {
    let dir = tempfile::tempdir().unwrap();
    let sink =
        TantivySink::builder().writer_memory_bytes(45_000_000).writer_threads(3).open(dir.path()).unwrap();
    for round in 1..=3 {
        let body = format!(r#"{{"n":{round}}}"#);
        flush(&sink, (0..500).map(|at| put(id("a", at), &body, (0, round)))).await;
    }
    let all = all(&sink, "a");
    assert_eq!(all.len(), 500);
    assert!(all.iter().all(|(_, body)| body == r#"{"n":3}"#));
}
