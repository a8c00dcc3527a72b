//! Runs the SQL of the indexes for the documents of a unit.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior, params_from_iter};

use super::super::routes::{Bodies, Indexed as _, is_object};
use super::database::{Bound, Database, key_value};
use super::error::SqliteError;
use super::index::{Index, keys_table};
use crate::document::DocumentId;
use crate::error::Fault;
use crate::ports::Built;
use crate::row::Key;
use crate::value::Value;

/// Builds these documents of these indexes, all in one snapshot.
pub(super) fn documents<'a>(
    database: &Database,
    connection: &Connection,
    wanted: impl IntoIterator<Item = (&'a Index, Vec<DocumentId>)>,
) -> Result<Vec<Built<String>>, SqliteError> {
    keys_table(database, connection)?;
    // Rolled back at the end: nothing was written but the temporary keys.
    let snapshot = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)
        .map_err(database.failed("reading a snapshot"))?;
    let mut built = Vec::new();
    for (index, ids) in wanted {
        let asked: BTreeSet<&Key> = ids.iter().map(|id| &id.key).collect();
        let bodies = match bodies(database, &snapshot, index, &asked) {
            Err(error) if error.lies_in_the_row() => one_by_one(database, &snapshot, index, &asked)?,
            result => result?,
        };
        built.extend(bodies.answers(ids));
    }
    Ok(built)
}

/// Some row cannot be made a document of, and SQLite does not say which. Each is asked for alone, so that the others pass.
fn one_by_one(
    database: &Database,
    connection: &Connection,
    index: &Index,
    asked: &BTreeSet<&Key>,
) -> Result<Bodies, SqliteError> {
    // Not a row but the SQL is at fault where it no longer compiles: a column was dropped, say.
    connection.prepare(&index.sql).map_err(database.failed(building(index)))?;
    let mut all = Bodies::default();
    for key in asked {
        match bodies(database, connection, index, &BTreeSet::from([*key])) {
            Ok(bodies) => all.extend(bodies),
            Err(error) if error.lies_in_the_row() => {
                all.failed((*key).clone(), Fault::from(error).message().into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn building(index: &Index) -> String {
    format!("building documents of index `{}`", index.described().name)
}

/// The bodies of these keys by one query. A key that is not among them has no row.
fn bodies(
    database: &Database,
    connection: &Connection,
    index: &Index,
    asked: &BTreeSet<&Key>,
) -> Result<Bodies, SqliteError> {
    let failed = || database.failed(building(index));
    let width = index.described().key.len();
    let mut insert = connection.prepare_cached(&insert_sql(width)).map_err(failed())?;
    connection.execute_batch("DELETE FROM temp.syncline_keys").map_err(failed())?;
    for key in asked.iter().filter(|key| index.can_name_a_row(key)) {
        insert.execute(params_from_iter(key.values().iter().map(Bound))).map_err(failed())?;
    }
    let mut found = Bodies::default();
    let mut statement = connection.prepare_cached(&index.sql).map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            values.push(key_value(row.get_ref(at).map_err(failed())?).unwrap_or_default());
        }
        let key = Key::new(values).map_err(|error| database.unexpected(error.to_string()))?;
        if !asked.contains(&key) {
            if asked.iter().any(|asked| collate(asked, &key)) {
                // The row goes by another spelling now, whose own change asks for it; by this one it is gone.
                continue;
            }
            let name = &index.described().name;
            return Err(database.unexpected(format!(
                "the SQL of index `{name}` yields the key {key:?}, which it was not asked for"
            )));
        }
        let body = body(row.get_ref(width).map_err(failed())?);
        found.yielded(key, body);
    }
    Ok(found)
}

fn insert_sql(width: usize) -> String {
    let columns: Vec<String> = (1..=width).map(|at| format!("k{at}")).collect();
    let places: Vec<String> = (1..=width).map(|at| format!("?{at}")).collect();
    format!("INSERT INTO temp.syncline_keys({}) VALUES ({})", columns.join(", "), places.join(", "))
}

/// Whether SQLite may take these keys for one: its numbers are equal across kinds, and its collations ignore case or
/// trailing spaces.
fn collate(one: &Key, other: &Key) -> bool {
    let same = |one: &Value, other: &Value| match (one, other) {
        (Value::Text(one), Value::Text(other)) => {
            one.trim_end_matches(' ').eq_ignore_ascii_case(other.trim_end_matches(' '))
        }
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => {
            *int as f64 == *float
        }
        (one, other) => one == other,
    };
    one.values().len() == other.values().len()
        && one.values().iter().zip(other.values()).all(|(one, other)| same(one, other))
}

/// The text of a JSON object, or what it is instead.
fn body(stored: ValueRef<'_>) -> Result<String, String> {
    let no_object =
        |what: &str| Err(format!("its body is {what}; the SQL must yield the text of a JSON object"));
    let ValueRef::Text(bytes) = stored else {
        return no_object(match stored {
            ValueRef::Null => "NULL",
            ValueRef::Blob(_) => "a BLOB",
            _ => "a number",
        });
    };
    let Ok(text) = core::str::from_utf8(bytes) else { return no_object("not valid UTF-8") };
    match is_object(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(what) => no_object(&what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_a_body_is_the_text_of_an_object_or_it_says_what_it_is() {
        assert_eq!(body(ValueRef::Text(b"{\"a\":1}")), Ok("{\"a\":1}".into()));
        for (stored, reason) in [
            (ValueRef::Null, "its body is NULL"),
            (ValueRef::Integer(1), "its body is a number"),
            (ValueRef::Blob(b"{}"), "its body is a BLOB"),
            (ValueRef::Text(b"[1]"), "its body is no JSON object"),
            (ValueRef::Text(b"{\"a\":"), "its body is no JSON object (EOF"),
            (ValueRef::Text(b"\xff"), "its body is not valid UTF-8"),
        ] {
            let error = body(stored).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn keys_that_sqlite_takes_for_one() {
        assert!(collate(&"Ada ".into(), &"ada".into()));
        assert!(collate(&1.into(), &1.0.into()));
        assert!(!collate(&1.into(), &"1".into()));
        assert!(!collate(&"a".into(), &Key::new(["a".into(), "b".into()]).unwrap()));
    }
}
