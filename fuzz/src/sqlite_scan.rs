//! A snapshot of a table: every row that has an identity, once, in the order of keys, whatever the page size, and after
//! a cursor exactly those that come after it.

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::sqlite::fuzz::scan;
use syncline::{Key, TableName, Value};

use crate::sqlite::{Asked, Table};

#[derive(Debug, Arbitrary)]
struct Case {
    table: Table,
    page_rows: u8,
    after: After,
}

#[derive(Debug, Arbitrary)]
enum After {
    Nothing,
    /// A row's own key.
    Row(u8),
    /// Any key.
    Key(Asked),
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let connection = case.table.create();
    let rows = case.table.rows(&connection);
    let is_readable = rows.iter().all(|(key, _)| key.is_some());
    let mut keys: Vec<Key> = rows.into_iter().filter_map(|(key, _)| key).collect();
    keys.retain(|key| !key.values().contains(&Value::Null));
    keys.sort();
    let after = match case.after {
        After::Nothing => None,
        After::Row(at) => usize::from(at).checked_rem(keys.len()).map(|at| keys[at].clone()),
        After::Key(asked) => asked.key().filter(can_be_a_cursor),
    };
    let fits = after.as_ref().is_none_or(|key| key.values().len() == case.table.key_columns().len());
    let page_rows = usize::from(case.page_rows % 5) + 1;
    let scanned = scan(&connection, &TableName::new("t").unwrap(), after.clone(), page_rows);
    if is_readable && fits {
        keys.retain(|key| Some(key) > after.as_ref());
        assert_eq!(scanned.expect("a table that can be read"), keys, "after {after:?}");
    }
    // A key that is no text ends the scan when it is reached; a cursor of another width is no cursor of the table.
    else if !fits {
        assert!(scanned.is_err(), "{after:?} is no key of the table");
    }
}

/// A cursor is the key of a row that was scanned: without a NULL, with numbers that SQLite can hold.
fn can_be_a_cursor(key: &Key) -> bool {
    let can = |value: &Value| match value {
        Value::Null | Value::Bool(_) => false,
        Value::Float(value) => !value.is_nan() && !(*value == 0.0 && value.is_sign_negative()),
        Value::Int(_) | Value::Text(_) | Value::Bytes(_) => true,
    };
    key.values().iter().all(can)
}
