//! Markers, cursors and clearing.

use syncline::ports::{FieldKind, SeedState, Sink as _};
use syncline::row::Key;
use syncline::value::Value;

use crate::support::*;

#[tokio::test]
async fn markers_and_cursors_hold_for_their_seed_alone_and_outlive_the_sink() {
    let dir = tempfile::tempdir().unwrap();
    let (users, own) = (index("users"), seed("s1", "d1"));
    let odd = Key::new([Value::from("a:\"%"), "+491234".into(), Value::Null, Value::from(vec![0_u8, 255])])
        .unwrap();
    let mut sink = open(dir.path());
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Unseeded);
    let states = [
        SeedState::Seeding(None),
        SeedState::Seeding(Some(odd.clone())),
        SeedState::Seeded,
        SeedState::Parked,
    ];
    for (step, expected) in states.into_iter().enumerate() {
        match &expected {
            SeedState::Unseeded => {}
            SeedState::Seeding(after) => sink.save_cursor(&users, &own, after.as_ref()).await.unwrap(),
            SeedState::Seeded => sink.mark_seeded(&users, &own).await.unwrap(),
            SeedState::Parked => sink.park(&users, &own).await.unwrap(),
        }
        // A later commit carries the marker along.
        flush(&sink, [put(id("users", step as i64), "{}", (0, 1 + step as u64))]).await;
        assert_eq!(sink.seed_state(&users, &own).await.unwrap(), expected);
        drop(sink);
        sink = open(dir.path());
        assert_eq!(sink.seed_state(&users, &own).await.unwrap(), expected);
        assert_eq!(sink.count(&users).unwrap(), 1 + step as u64);
        for other in [seed("s2", "d1"), seed("s1", "d2")] {
            assert_eq!(sink.seed_state(&users, &other).await.unwrap(), SeedState::Unseeded);
        }
        assert_eq!(sink.seed_state(&index("other"), &own).await.unwrap(), SeedState::Unseeded);
    }
    // A cursor or marker that comes late does not take its place; a clear does.
    sink.mark_seeded(&users, &own).await.unwrap();
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Parked);
    sink.clear(&users).await.unwrap();
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Unseeded);
}

#[tokio::test]
async fn clearing_removes_documents_and_marker_and_what_follows_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (users, own) = (index("users"), seed("s1", "d1"));
    let sink = open(dir.path());
    for build in 1..=20 {
        flush(&sink, [put(id("users", build as i64), "{}", (0, build))]).await;
    }
    sink.mark_seeded(&users, &own).await.unwrap();
    sink.clear(&users).await.unwrap();
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Unseeded);
    assert_eq!(sink.count(&users).unwrap(), 0);
    sink.save_cursor(&users, &own, None).await.unwrap();
    flush(&sink, [put(id("users", 3), r#"{"again":1}"#, (0, 21)), put(id("users", 30), "{}", (0, 21))]).await;
    flush(&sink, [remove(id("users", 30), (0, 22))]).await;
    drop(sink);
    let sink = open(dir.path());
    assert_eq!(all(&sink, "users"), [("3".into(), r#"{"again":1}"#.into())]);
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Seeding(None));
    // Clearing what is not there is no failure.
    sink.clear(&index("new")).await.unwrap();
    assert_eq!(sink.count(&index("new")).unwrap(), 0);
}

#[tokio::test]
async fn another_mapping_is_another_index_and_the_same_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (users, own) = (index("users"), seed("s1", "d1"));
    let sink = open(dir.path());
    let text = [("name", FieldKind::Text), ("age", FieldKind::Integer)];
    sink.ensure_index(&mapping("users", &text)).await.unwrap();
    flush(&sink, [put(id("users", 1), r#"{"name":"Ada Lovelace","age":36}"#, (0, 1))]).await;
    sink.mark_seeded(&users, &own).await.unwrap();
    let reversed = [("age", FieldKind::Integer), ("name", FieldKind::Text)];
    sink.ensure_index(&mapping("users", &reversed)).await.unwrap();
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Seeded);
    assert_eq!(sink.count(&users).unwrap(), 1);
    let keyword = [("name", FieldKind::Keyword), ("age", FieldKind::Integer)];
    sink.ensure_index(&mapping("users", &keyword)).await.unwrap();
    assert_eq!(sink.seed_state(&users, &own).await.unwrap(), SeedState::Unseeded);
    assert_eq!(sink.count(&users).unwrap(), 0);
    flush(&sink, [put(id("users", 1), r#"{"name":"Ada Lovelace"}"#, (0, 2))]).await;
    assert_eq!(sink.search(&users, "name:\"Ada Lovelace\"", 9).unwrap().len(), 1);
    assert_eq!(sink.search(&users, "name:Ada", 9).unwrap().len(), 0);
    drop(sink);
    // It is found again at a start, and replaced once more by the first mapping.
    let sink = open(dir.path());
    sink.ensure_index(&mapping("users", &keyword)).await.unwrap();
    assert_eq!(sink.count(&users).unwrap(), 1);
    sink.ensure_index(&mapping("users", &text)).await.unwrap();
    assert_eq!(sink.count(&users).unwrap(), 0);
    let twice = [("name", FieldKind::Text), ("name", FieldKind::Keyword)];
    let fault = sink.ensure_index(&mapping("users", &twice)).await.unwrap_err();
    assert!(fault.message().contains("field \"name\" stands there twice"), "{fault}");
}
