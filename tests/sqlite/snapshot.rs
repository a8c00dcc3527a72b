use futures::StreamExt;
use syncline::ports::{ChangeCapture, SnapshotTable};
use syncline::row::Key;
use syncline::value::Value;

use super::world::{World, keys, opened, table};

/// The keys in pages of two, whole and resumed after each.
async fn read(schema: &str) -> Vec<Key> {
    let world = World::new(schema);
    let capture = world.capture(&["t"]).page_rows(2);
    opened(&capture).await;
    let all = keys(&capture, "t", None).await;
    for (at, key) in all.iter().enumerate() {
        assert_eq!(keys(&capture, "t", Some(key)).await, all[at + 1..], "{schema}: after {key:?}");
    }
    assert!(all.is_sorted(), "{schema}: {all:?}");
    all
}

#[tokio::test]
async fn keys_of_every_kind_are_read_in_their_order() {
    let int = "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (5), (-3), (9), (7), (1)";
    assert_eq!(read(int).await, [-3, 1, 5, 7, 9].map(Key::from));
    let text =
        "CREATE TABLE t(id TEXT PRIMARY KEY); INSERT INTO t VALUES ('b'), ('B'), ('ä'), ('10'), ('9'), (2)";
    assert_eq!(read(text).await, ["10", "2", "9", "B", "b", "ä"].map(Key::from));
    let nocase = "CREATE TABLE t(id TEXT PRIMARY KEY COLLATE NOCASE); INSERT INTO t VALUES ('b'), ('A'), ('c'), ('B ')";
    assert_eq!(read(nocase).await, ["A", "B ", "b", "c"].map(Key::from));
    let real =
        "CREATE TABLE t(id REAL PRIMARY KEY); INSERT INTO t VALUES (2), (1.5), (-9e999), (9e999), (10)";
    assert_eq!(read(real).await, [f64::NEG_INFINITY, 1.5, 2.0, 10.0, f64::INFINITY].map(Key::from));
    let blob = "CREATE TABLE t(id BLOB PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (x'02'), (x''), (x'0100'), (x'01')";
    assert_eq!(read(blob).await, [&[][..], &[1], &[1, 0], &[2]].map(Key::from));
    let descending = "CREATE TABLE t(id INT, PRIMARY KEY (id DESC)); INSERT INTO t VALUES (1), (3), (2)";
    assert_eq!(read(descending).await, [1, 2, 3].map(Key::from));
}

#[tokio::test]
async fn kinds_that_sqlite_mixes_are_kept_apart() {
    let numbers = "CREATE TABLE t(id NUMERIC PRIMARY KEY); INSERT INTO t VALUES (3), (1.5), ('x'), (2), (x'00'), (2.5), (NULL)";
    let expected: Vec<Key> =
        vec![2.into(), 3.into(), 1.5.into(), 2.5.into(), "x".into(), Key::single(Value::from(&[0_u8][..]))];
    assert_eq!(read(numbers).await, expected);
}

/// The cursor stands among the integers, and what is left are floats that come after all of them.
#[tokio::test]
async fn a_scan_goes_on_with_the_floats_where_the_integers_are_gone() {
    let world = World::new(
        "CREATE TABLE t(k NUMERIC PRIMARY KEY, v); INSERT INTO t(k) VALUES (1), (10), (0.5), (1.5)",
    );
    let capture = world.capture(&["t"]);
    opened(&capture).await;
    assert_eq!(keys(&capture, "t", None).await, [1.into(), 10.into(), 0.5.into(), Key::from(1.5)]);
    world.run("DELETE FROM t WHERE typeof(k) = 'integer'");
    assert_eq!(keys(&capture, "t", Some(&10.into())).await, [0.5, 1.5].map(Key::from));
    // And no key before the cursor is given where the floats are gone that it stands among.
    world.run("DELETE FROM t; INSERT INTO t(k) VALUES (3)");
    assert_eq!(keys(&capture, "t", Some(&1.5.into())).await, []);
}

/// A key of the other kind that came while the scan went on is no place to resume from: every integer is before it.
#[tokio::test]
async fn a_float_that_comes_among_the_integers_hides_none_of_them() {
    for (old, new) in
        [(&[1, 2, 3].map(Key::from), 1.5.into()), (&[1.5, 2.5, 3.5].map(Key::from), Key::from(2))]
    {
        let world = World::new("CREATE TABLE t(k NUMERIC, l, PRIMARY KEY (k, l))");
        let add = |key: &Key| {
            let value = &format!("{:?}", key.values()[0]);
            world.run(&format!("INSERT INTO t VALUES ({value}, 0)"));
        };
        old.iter().for_each(add);
        let old: Vec<Key> =
            old.iter().map(|key| Key::new([key.values()[0].clone(), 0.into()]).unwrap()).collect();
        let capture = world.capture(&["t"]).page_rows(1);
        opened(&capture).await;
        let mut scan = capture.snapshot(&SnapshotTable::new(table("t")), None).await.unwrap();
        let mut met = vec![scan.next().await.unwrap().unwrap()];
        add(&new);
        while let Some(key) = scan.next().await {
            let key = key.unwrap();
            met.push(key.clone());
            let rest = keys(&capture, "t", Some(&key)).await;
            let missed: Vec<&Key> =
                old.iter().filter(|key| !met.contains(key) && !rest.contains(key)).collect();
            assert!(missed.is_empty(), "after {key:?}: {missed:?}");
        }
        assert_eq!(met, old);
    }
}

#[tokio::test]
async fn composite_keys_are_read_column_by_column() {
    let pairs = "CREATE TABLE t(a TEXT, b INT, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
         INSERT INTO t(a, b) VALUES ('x', 2), ('y', 1), ('x', 1), ('a', 3), ('z', 1)";
    let expected = [(1, "x"), (1, "y"), (1, "z"), (2, "x"), (3, "a")];
    assert_eq!(read(pairs).await, expected.map(|(b, a)| Key::new([b.into(), a.into()]).unwrap()));
}

#[tokio::test]
async fn b3_a_row_that_is_there_throughout_is_met_once_whatever_is_written_meanwhile() {
    let world = World::new("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    world.run("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 10 FROM n WHERE i < 990) INSERT INTO t SELECT i FROM n");
    let capture = world.capture(&["t"]).page_rows(7);
    opened(&capture).await;
    let mut scan = capture.snapshot(&SnapshotTable::new(table("t")), None).await.unwrap();
    let writer = world.connection();
    let mut met = Vec::new();
    while let Some(key) = scan.next().await {
        let Value::Int(id) = key.unwrap().values()[0] else { panic!("no integer") };
        met.push(id);
        // Around the place where the scan is: a new row behind it and one before it, and an old one gone for good.
        writer.execute("INSERT OR IGNORE INTO t VALUES (?1), (?2)", [id - 5, id + 15]).unwrap();
        if id % 10 == 0 {
            writer.execute("DELETE FROM t WHERE id = ?1", [id]).unwrap();
        }
    }
    let old: Vec<i64> = met.iter().copied().filter(|id| id % 10 == 0).collect();
    assert_eq!(old, (0..100).map(|n| n * 10).collect::<Vec<_>>());
    assert!(met.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn b15_what_cannot_be_scanned_is_named() {
    let world = World::new("CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE u(id INTEGER PRIMARY KEY)");
    let capture = world.capture(&["t"]);
    opened(&capture).await;
    let fault = capture.snapshot(&SnapshotTable::new(table("u")), None).await.err().unwrap();
    assert!(fault.message().contains("`u` is not captured"), "{fault}");
    let wide = Key::new([1.into(), 2.into()]).unwrap();
    let mut scan = capture.snapshot(&SnapshotTable::new(table("t")), Some(&wide)).await.unwrap();
    let fault = scan.next().await.unwrap().unwrap_err();
    assert!(fault.message().contains("`t` has a key of 1 columns; [1, 2] is none of it"), "{fault}");
}
