//! `REPLACE` removes rows without firing a delete trigger.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use syncline::row::Key;
use syncline::value::Value;

use super::world::{World, opened, silent, to_checkpoint, told};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, code TEXT UNIQUE, a INT, b TEXT, parent INT);
    CREATE UNIQUE INDEX ab ON t(a, b COLLATE NOCASE) WHERE a IS NOT NULL";

/// What is captured of a statement on a table that holds these rows.
async fn captured(schema: &str, rows: &str, statement: &str) -> Vec<String> {
    let world = World::new(schema);
    world.run(rows);
    let (mut stream, ..) = opened(&world.capture(&["t"])).await;
    world.run(statement);
    told(&mut stream.changes).await
}

const TWO: &str = "INSERT INTO t VALUES (1, 'one', 1, 'x', 10), (2, 'two', 2, 'y', 20)";
const ONE_STOOD: &str = r#"+t/1 before {"id": 1, "code": "one", "a": 1, "b": "x", "parent": 10}"#;

#[tokio::test]
async fn b4_a_row_replaced_by_its_key_tells_where_it_was() {
    for recursive in ["", "PRAGMA recursive_triggers = ON;"] {
        let told =
            captured(SCHEMA, TWO, &format!("{recursive} REPLACE INTO t VALUES (1, 'eins', 5, 'z', 30)"))
                .await;
        assert_eq!(told[0], ONE_STOOD);
        assert_eq!(
            told.last().unwrap(),
            r#"+t/1 after {"id": 1, "code": "eins", "a": 5, "b": "z", "parent": 30}"#
        );
        assert_eq!(told.len(), if recursive.is_empty() { 2 } else { 3 });
    }
}

#[tokio::test]
async fn b4_a_row_replaced_through_another_unique_constraint_is_not_lost() {
    for statement in [
        "INSERT OR REPLACE INTO t VALUES (3, 'one', 3, 'z', 30)",
        "INSERT OR REPLACE INTO t(code, parent) VALUES ('one', 30)",
        "INSERT OR REPLACE INTO t VALUES (3, 'three', 1, 'X', 30)",
        "UPDATE OR REPLACE t SET code = 'one' WHERE id = 2",
        "UPDATE OR REPLACE t SET id = 1 WHERE id = 2",
        "UPDATE OR REPLACE t SET a = 1, b = 'X' WHERE id = 2",
    ] {
        let told = captured(SCHEMA, TWO, statement).await;
        assert_eq!(told.len(), 2, "{statement}: {told:?}");
        assert_eq!(told[0], ONE_STOOD, "{statement}");
    }
    let both = captured(SCHEMA, TWO, "REPLACE INTO t VALUES (3, 'one', 2, 'Y', 30)").await;
    assert_eq!(both.len(), 3, "{both:?}");
    let declared = captured(
        "CREATE TABLE t(id TEXT PRIMARY KEY ON CONFLICT REPLACE, code TEXT AS (lower(id)) UNIQUE ON CONFLICT REPLACE)
         WITHOUT ROWID",
        "INSERT INTO t VALUES ('A')",
        "INSERT INTO t VALUES ('a')",
    )
    .await;
    assert_eq!(
        declared,
        [r#"+t/"A" before {"id": "A", "code": "a"}"#, r#"+t/"a" after {"id": "a", "code": "a"}"#]
    );
}

#[tokio::test]
async fn an_ordinary_write_logs_itself_alone() {
    for statement in [
        "INSERT INTO t VALUES (3, 'three', 1, 'y', 30)",
        "INSERT INTO t(code, parent) VALUES ('three', 30)",
        "UPDATE t SET parent = 11 WHERE id = 1",
        "UPDATE t SET id = 5, code = 'ONE' WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
    ] {
        let told = captured(SCHEMA, TWO, statement).await;
        assert_eq!(told.len(), 1, "{statement}: {told:?}");
    }
}

#[tokio::test]
async fn an_upsert_and_an_ignored_insert_say_no_more_than_that_the_row_stood_there() {
    let upsert =
        "INSERT INTO t VALUES (1, 'one', 1, 'x', 99) ON CONFLICT DO UPDATE SET parent = excluded.parent";
    let told = captured(SCHEMA, TWO, upsert).await;
    assert_eq!(told[0], ONE_STOOD);
    assert!(told[1].contains("before") && told[1].contains(r#""parent": 99"#), "{told:?}");
    assert_eq!(told.len(), 2);
    let ignored = captured(SCHEMA, TWO, "INSERT OR IGNORE INTO t VALUES (1, 'one', 1, 'x', 99)").await;
    assert_eq!(ignored, [ONE_STOOD]);
}

#[tokio::test]
async fn a_failed_insert_logs_nothing() {
    let world = World::new(SCHEMA);
    world.run(TWO);
    let (mut stream, ..) = opened(&world.capture(&["t"])).await;
    let failed = world.connection().execute("INSERT INTO t VALUES (1, 'one', 1, 'x', 99)", []);
    assert!(failed.is_err());
    assert!(silent(&mut stream.changes).await);
}

#[tokio::test]
async fn rows_that_a_foreign_key_removes_are_captured() {
    let told = captured(
        "CREATE TABLE p(id INTEGER PRIMARY KEY);
         CREATE TABLE t(id INTEGER PRIMARY KEY, p INT REFERENCES p ON DELETE CASCADE)",
        "INSERT INTO p VALUES (1); INSERT INTO t VALUES (5, 1)",
        "PRAGMA foreign_keys = ON; DELETE FROM p",
    )
    .await;
    assert_eq!(told, [r#"-t/5 before {"id": 5, "p": 1}"#]);
}

/// Inside a trigger these are also the names of the rows that it fires for.
#[tokio::test]
async fn a_table_may_be_called_old_or_new() {
    for name in ["old", "new", "OLD"] {
        let world = World::new(&format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, u UNIQUE)"));
        world.run(&format!("INSERT INTO {name} VALUES (1, 'a'), (2, 'b'), (3, 'c')"));
        let (mut stream, ..) = opened(&world.capture(&[name])).await;
        world.run(&format!("INSERT INTO {name} VALUES (4, 'd')"));
        assert_eq!(told(&mut stream.changes).await, [format!(r#"+{name}/4 after {{"id": 4, "u": "d"}}"#)]);
        world.run(&format!("UPDATE OR REPLACE {name} SET u = 'b' WHERE id = 4"));
        assert_eq!(
            told(&mut stream.changes).await,
            [
                format!(r#"+{name}/2 before {{"id": 2, "u": "b"}}"#),
                format!(r#"+{name}/4 before {{"id": 4, "u": "d"}} after {{"id": 4, "u": "b"}}"#)
            ]
        );
        world.run(&format!("REPLACE INTO {name} VALUES (5, 'a')"));
        assert_eq!(
            told(&mut stream.changes).await,
            [
                format!(r#"+{name}/1 before {{"id": 1, "u": "a"}}"#),
                format!(r#"+{name}/5 after {{"id": 5, "u": "a"}}"#)
            ]
        );
    }
}

/// A statement that may remove rows by the way, on few enough values that it often does.
fn statement() -> impl Strategy<Value = String> {
    let value = || prop_oneof![(1..5_i8).prop_map(|value| value.to_string()), Just("NULL".to_owned())];
    let text = || prop_oneof![Just("'x'"), Just("'X'"), Just("'y'"), Just("NULL")];
    let or =
        || prop_oneof![Just(""), Just("OR REPLACE"), Just("OR REPLACE"), Just("OR IGNORE"), Just("OR FAIL")];
    let row = move || {
        (value(), value(), value(), text(), value())
            .prop_map(|(id, code, a, b, parent)| format!("({id}, {code}, {a}, {b}, {parent})"))
    };
    let column = || {
        prop_oneof![
            (1..5_i8).prop_map(|id| format!("id = {id}")),
            (1..5_i8).prop_map(|id| format!("id = id + {id}")),
            value().prop_map(|code| format!("code = {code}")),
            value().prop_map(|a| format!("a = {a}")),
            text().prop_map(|b| format!("b = {b}")),
            value().prop_map(|parent| format!("parent = {parent}")),
        ]
    };
    prop_oneof![
        (or(), row(), row()).prop_map(|(or, one, two)| format!("INSERT {or} INTO t VALUES {one}, {two}")),
        (or(), column(), value())
            .prop_map(|(or, set, id)| format!("UPDATE {or} t SET {set} WHERE id <= {id}")),
        (row(), column())
            .prop_map(|(row, set)| format!("INSERT INTO t VALUES {row} ON CONFLICT DO UPDATE SET {set}")),
        value().prop_map(|id| format!("DELETE FROM t WHERE id = {id}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The promise itself: what is rebuilt for the changes captured, and nothing else, is what the table says.
    #[test]
    fn b4_whatever_is_written_and_replaced_every_row_and_parent_concerned_is_told(
        statements in proptest::collection::vec(statement(), 1..25),
        recursive in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let world = World::new(SCHEMA);
            let (mut stream, ..) = opened(&world.capture(&["t"])).await;
            let writer = world.connection();
            writer.pragma_update(None, "recursive_triggers", recursive).unwrap();
            writer.execute_batch("BEGIN").unwrap();
            for statement in &statements {
                // Some fail, and may have done a part of their work.
                let _ = writer.execute(statement, []);
            }
            // So that there is a change in any case.
            writer.execute_batch("REPLACE INTO t VALUES (99, 99, 99, 'z', 99); COMMIT").unwrap();
            let (changes, _) = to_checkpoint(&mut stream.changes).await;

            let (mut rows, mut parents) = (BTreeSet::new(), BTreeSet::new());
            for change in &changes {
                rows.insert(change.key.clone());
                for image in change.images() {
                    rows.insert(image.key(&["id".parse().unwrap()]).unwrap());
                    parents.insert(image.value("parent").unwrap().clone());
                }
            }
            let mut truth: BTreeMap<Value, Vec<i64>> = BTreeMap::new();
            let mut statement = writer.prepare("SELECT id, parent FROM t ORDER BY id").unwrap();
            let mut found = statement.query([]).unwrap();
            while let Some(row) = found.next().unwrap() {
                let (id, parent): (i64, Option<i64>) = (row.get(0).unwrap(), row.get(1).unwrap());
                truth.entry(Value::from(parent)).or_default().push(id);
            }
            // A model that began empty and was told of every parent that ever had a child here is right about them; one
            // whose last child left must have been told of after it had come.
            for (parent, children) in &truth {
                assert!(parents.contains(parent), "{parent:?}");
                assert!(children.iter().all(|id| rows.contains(&Key::from(*id))), "{children:?}");
            }
            // The last that is told of a row is what it is now: gone, or these values.
            let mut last: BTreeMap<Key, Option<Value>> = BTreeMap::new();
            for change in &changes {
                if let Some(image) = &change.before {
                    let key = image.key(&["id".parse().unwrap()]).unwrap();
                    let known = last.insert(key, None);
                    if let Some(Some(parent)) = known {
                        assert_eq!(image.value("parent"), Some(&parent), "an image between was missed: {change:?}");
                    }
                }
                if let Some(image) = &change.after {
                    last.insert(change.key.clone(), image.value("parent").cloned());
                }
            }
            for (parent, children) in &truth {
                for id in children {
                    let told = last.get(&Key::from(*id)).unwrap();
                    assert!(told.is_none() || told.as_ref() == Some(parent), "{id}: {told:?}, not {parent:?}");
                }
            }
            for (key, parent) in last {
                let Value::Int(id) = key.values()[0] else { panic!("{key:?}") };
                if let Some(parent) = parent {
                    assert!(truth.get(&parent).is_some_and(|children| children.contains(&id)), "{key:?} went untold");
                }
            }
        });
    }
}
