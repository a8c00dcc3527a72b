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
    /// The key of a row that is gone by now.
    Gone(u8),
    /// The key of another table.
    Wider(Asked),
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
    let at = |at: u8| usize::from(at).checked_rem(keys.len());
    let after = match &case.after {
        After::Nothing => None,
        After::Row(row) => at(*row).map(|at| keys[at].clone()),
        After::Gone(row) => at(*row).map(|at| {
            case.table.delete(&connection, &keys[at]);
            keys.remove(at)
        }),
        After::Wider(key) => key.key(),
    };
    let scan = |page_rows: u8| {
        scan(&connection, &TableName::new("t").unwrap(), after.clone(), usize::from(page_rows % 5) + 1)
    };
    let width = case.table.key_columns().len();
    match &after {
        Some(after) if after.values().len() != width => {
            assert!(scan(case.page_rows).is_err(), "{after:?} is no key of the table");
        }
        _ if matches!(case.after, After::Wider(_)) => {}
        // A key that is no text ends the scan when it is reached.
        _ if !is_readable => drop(scan(case.page_rows)),
        _ => {
            keys.retain(|key| Some(key) > after.as_ref());
            let scanned = scan(case.page_rows).expect("a table that can be read");
            assert_eq!(scanned, keys, "after {after:?}");
        }
    }
}
