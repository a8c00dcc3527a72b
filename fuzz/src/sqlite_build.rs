//! Documents built by SQL from whatever rows there are, for whatever keys are asked for: each is answered once, with the
//! body of the row of exactly that key, or as deleted where there is none.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::sqlite::IndexDefinition;
use syncline::connectors::sqlite::fuzz::build;
use syncline::{Content, DocumentId, IndexName, Key, Value};

use crate::sqlite::{Asked, Table};

#[derive(Debug, Arbitrary)]
struct Case {
    table: Table,
    asked: Vec<Asked>,
    /// Every row's own key is asked for too.
    all: bool,
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let connection = case.table.create();
    let held: BTreeMap<Key, Option<Value>> =
        case.table.rows(&connection).into_iter().filter_map(|(key, body)| Some((key?, body))).collect();
    let mut asked: Vec<Key> = case.asked.iter().filter_map(Asked::key).collect();
    if case.all {
        asked.extend(held.keys().cloned());
    }
    asked.sort();
    asked.dedup();
    let index = IndexName::new("index").unwrap();
    let ids: Vec<DocumentId> = asked.into_iter().map(|key| DocumentId::new(index.clone(), key)).collect();
    let built =
        build(&connection, &definition(case.table.key_columns()), ids.clone()).expect("the SQL is right");
    assert_eq!(built.len(), ids.len());
    for (id, built) in ids.iter().zip(built) {
        let has_null = id.key.values().contains(&Value::Null);
        let row = held.get(&id.key).filter(|_| !has_null);
        let body = row.map(|body| match body {
            Some(Value::Text(text)) => Some(text.as_str()).filter(|text| is_object(text)),
            _ => None,
        });
        match (built, body) {
            (Ok(document), None) => assert_eq!((&document.id, document.content), (id, Content::Delete)),
            (Ok(document), Some(body)) => match document.content {
                Content::Upsert(text) => assert_eq!((&document.id, Some(&*text)), (id, body)),
                Content::Delete => panic!("{id} has a row, and is deleted"),
            },
            (Err(failed), Some(None)) => assert_eq!(failed.id, *id),
            (Err(failed), body) => panic!("{failed:?}, where there is {body:?}"),
        }
    }
}

fn definition(key: &[&str]) -> IndexDefinition {
    let columns: Vec<String> = key.iter().map(|column| format!("t.{column}")).collect();
    let same: Vec<String> =
        columns.iter().enumerate().map(|(at, column)| format!("{column} = k.k{}", at + 1)).collect();
    let (columns, same) = (columns.join(", "), same.join(" AND "));
    let sql = format!("SELECT {columns}, t.body FROM syncline_keys k JOIN t ON {same}");
    IndexDefinition::new("index", "t", sql).unwrap()
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}
