//! A value comes out of the log, out of a snapshot and into a query as it stands in its row.

use futures::StreamExt;
use proptest::prelude::*;
use rusqlite::types::Value as Stored;
use syncline::connectors::sqlite::{IndexDefinition, SqliteDocuments};
use syncline::document::{Content, DocumentId};
use syncline::ports::{ChangeCapture, DocumentBuilder, SnapshotTable};
use syncline::row::Key;
use syncline::value::Value;

use super::world::{World, keys, opened, table, to_checkpoint};

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        Just(Stored::Null),
        prop_oneof![any::<i64>(), (-3_i64..3), Just(i64::MIN), Just(i64::MAX), Just((1 << 53) + 1)]
            .prop_map(Stored::Integer),
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-3_i8..3).prop_map(f64::from),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(-0.0),
            Just(5e-324),
            Just(0.1 + 0.2)
        ]
        .prop_map(Stored::Real),
        prop_oneof![".{0,6}", "[0-9. e'\"\u{0}-]{0,5}", Just("a\u{0}b'c".to_owned())].prop_map(Stored::Text),
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(Stored::Blob),
    ]
}

/// What SQLite makes of it: it has one zero, and no NaN.
fn expected(stored: &Stored) -> Value {
    match stored {
        Stored::Null => Value::Null,
        Stored::Integer(value) => Value::Int(*value),
        Stored::Real(value) if value.is_nan() => Value::Null,
        Stored::Real(value) => Value::Float(value + 0.0),
        Stored::Text(text) => Value::from(text.as_str()),
        Stored::Blob(bytes) => Value::from(bytes.as_slice()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn values_round_trip_through_log_snapshot_and_query(rows in proptest::collection::vec((stored(), stored(), stored()), 1..12)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let world = World::new("CREATE TABLE t(k, l, v, r REAL, x TEXT, i INTEGER, PRIMARY KEY (k, l))");
            let capture = world.capture(&["t"]).page_rows(3);
            let (mut stream, ..) = opened(&capture).await;
            let mut writer = world.connection();
            let transaction = writer.transaction().unwrap();
            let mut written = Vec::new();
            for (k, l, v) in &rows {
                let inserted = transaction
                    .execute("INSERT OR IGNORE INTO t VALUES (?1, ?2, ?3, ?3, ?3, ?3)", [k, l, v])
                    .unwrap();
                if inserted == 1 {
                    written.push((k, l, v));
                }
            }
            transaction.commit().unwrap();
            let (changes, _) = to_checkpoint(&mut stream.changes).await;
            // Ignored inserts log the row that stood in their way, as it was.
            let inserts: Vec<_> = changes.into_iter().filter(|change| change.after.is_some()).collect();
            assert_eq!(inserts.len(), written.len());
            let mut all_keys = Vec::new();
            for (change, (k, l, v)) in inserts.iter().zip(written) {
                let image = change.after.as_ref().unwrap();
                assert_eq!(image.value("v"), Some(&expected(v)), "{v:?}");
                assert_eq!(change.key, Key::new([expected(k), expected(l)]).unwrap());
                // In a column with an affinity the image is what stands in the row.
                let (r, x, i) = world
                    .connection()
                    .query_row("SELECT r, x, i FROM t WHERE rowid = ?1", [all_keys.len() as i64 + 1], |row| {
                        Ok((row.get::<_, Stored>(0)?, row.get::<_, Stored>(1)?, row.get::<_, Stored>(2)?))
                    })
                    .unwrap();
                assert_eq!(image.value("r"), Some(&expected(&r)), "{v:?}");
                assert_eq!(image.value("x"), Some(&expected(&x)), "{v:?}");
                assert_eq!(image.value("i"), Some(&expected(&i)), "{v:?}");
                all_keys.push(change.key.clone());
            }
            // A key with a NULL is no identity: such rows are left out.
            let mut whole: Vec<Key> =
                all_keys.iter().filter(|key| !key.values().contains(&Value::Null)).cloned().collect();
            whole.sort();
            assert_eq!(keys(&capture, "t", None).await, whole);
            for (at, key) in whole.iter().enumerate() {
                assert_eq!(keys(&capture, "t", Some(key)).await, whole[at + 1..], "after {key:?}");
            }

            let sql = "SELECT t.k, t.l, json_object('row', t.rowid) FROM syncline_keys JOIN t ON t.k = k1 AND t.l = k2";
            let documents =
                SqliteDocuments::open(world.path(), [IndexDefinition::new("t", "t", sql).unwrap()]).unwrap();
            let ids: Vec<DocumentId> =
                all_keys.iter().map(|key| DocumentId::new("t".parse().unwrap(), key.clone())).collect();
            let built = documents.build_many(&ids, None).await.unwrap();
            assert_eq!(built.len(), ids.len());
            for document in built {
                let document = document.unwrap();
                let row = all_keys.iter().position(|key| *key == document.id.key).unwrap() + 1;
                let whole = !document.id.key.values().contains(&Value::Null);
                let body = if whole { Content::Upsert(format!("{{\"row\":{row}}}")) } else { Content::Delete };
                assert_eq!(document.content, body, "{:?}", document.id);
            }
        });
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_travels_as_bytes_and_makes_no_key() {
    let world = World::new("CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT)");
    let capture = world.capture(&["t"]);
    let (mut stream, ..) = opened(&capture).await;
    world.run("INSERT INTO t VALUES ('a', CAST(x'61ff' AS TEXT))");
    let (changes, _) = to_checkpoint(&mut stream.changes).await;
    assert_eq!(changes[0].after.as_ref().unwrap().value("v"), Some(&Value::from(&[0x61_u8, 0xff][..])));
    world.run("INSERT INTO t VALUES (CAST(x'ff' AS TEXT), '')");
    let fault = super::world::next(&mut stream.changes).await.unwrap_err();
    assert!(
        fault.message().contains("record 2 of its change log, of `t`: its key is not valid UTF-8"),
        "{fault}"
    );
    // The record stays, whatever becomes of the row, and the error says the way past it.
    world.run("DELETE FROM t WHERE v = ''");
    let mut again = capture.open().await.unwrap();
    let fault = loop {
        if let Err(fault) = super::world::next(&mut again.changes).await {
            break fault;
        }
    };
    assert!(fault.message().contains("then call `SqliteCapture::forget_consumer`"), "{fault}");
    capture.forget_consumer().await.unwrap();
    let (again, changes, _) = opened(&capture).await;
    assert_ne!(again.stream, stream.stream);
    assert_eq!((changes.len(), keys(&capture, "t", None).await), (0, vec!["a".into()]));
}

#[tokio::test]
async fn a_row_that_cannot_be_named_stops_a_scan_until_it_has_another_key() {
    let world = World::new("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
    world.run("INSERT INTO t VALUES ('a', 1), (CAST(x'ff' AS TEXT), 2)");
    let capture = world.capture(&["t"]);
    let (mut stream, ..) = opened(&capture).await;
    let mut scan = capture.snapshot(&SnapshotTable::new(table("t")), None).await.unwrap();
    let fault = scan.next().await.unwrap().unwrap_err();
    assert!(fault.message().contains("`t` has a key that is not valid UTF-8"), "{fault}");
    assert!(fault.message().contains("give its row another key with an UPDATE"), "{fault}");
    world.run("UPDATE t SET k = 'b' WHERE v = 2");
    let (changes, _) = to_checkpoint(&mut stream.changes).await;
    assert_eq!(changes[0].key, Key::from("b"));
    assert_eq!(keys(&capture, "t", None).await, ["a", "b"].map(Key::from));
}
