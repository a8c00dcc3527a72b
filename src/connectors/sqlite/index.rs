//! An index as its definition was checked against the database: how its documents are named, and which rows lead to them.

use rusqlite::Connection;

use super::super::routes::{self, Described, Indexed};
use super::database::Database;
use super::definition::{IndexDefinition, Related};
use super::error::SqliteError;
use super::schema::{Affinity, Table};
use crate::name::{ColumnName, TableName};
use crate::ports::IndexMapping;
use crate::row::Key;
use crate::value::Value;

/// How many columns the table of keys has.
pub(super) const MAX_KEY_COLUMNS: usize = 16;

/// An index whose definition was checked against the database.
#[derive(Debug)]
pub(super) struct Index {
    described: Described,
    pub(super) sql: String,
    affinities: Vec<Affinity>,
}

/// How a row of a table leads to the documents of an index; by a query where it is not by the columns.
pub(super) type Route = routes::Route<String>;

impl Indexed for Index {
    fn described(&self) -> &Described {
        &self.described
    }

    fn held(&self, values: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Value> {
        values.into_iter().zip(&self.affinities).map(|(value, affinity)| affinity.apply(value))
    }
}

impl Index {
    pub(super) fn check(
        database: &Database,
        connection: &Connection,
        definition: &IndexDefinition,
        root: &Table,
    ) -> Result<Self, SqliteError> {
        let name = &definition.index;
        let columns: Result<Vec<_>, _> =
            root.key_columns().map(|column| ColumnName::new(&column.name)).collect();
        let key = columns.map_err(|error| database.definition(format!("index `{name}`: {error}")))?;
        keys_table(database, connection)?;
        if key.len() > MAX_KEY_COLUMNS {
            let (most, root) = (MAX_KEY_COLUMNS, &definition.root);
            return Err(database
                .definition(format!("index `{name}`: the key of `{root}` has more than {most} columns")));
        }
        compiles(database, connection, &format!("index `{name}`"), &definition.sql, 0, key.len() + 1)?;
        let described = Described {
            name: name.clone(),
            root: TableName::new(&root.name).map_err(|error| database.definition(error.to_string()))?,
            fingerprint: definition.fingerprint(&key),
            key,
            mapping: IndexMapping::new(name.clone(), definition.fields.iter().cloned()),
        };
        let affinities = root.key_columns().map(|column| column.affinity).collect();
        Ok(Self { described, sql: definition.sql.clone(), affinities })
    }

    /// Whether a row of the root table can have this key: as many values as the key has columns, each as its column
    /// would hold it. Of another key SQLite's comparison may find a row, by converting it, that goes by another name.
    pub(super) fn can_name_a_row(&self, key: &Key) -> bool {
        let values = key.values();
        values.len() == self.affinities.len()
            && values.iter().zip(&self.affinities).all(|(value, affinity)| affinity.holds(value))
    }
}

/// The route from a related table to this index, which will stand at this place, with the table's name.
pub(super) fn route(
    database: &Database,
    connection: &Connection,
    index: &Index,
    at: usize,
    related: &Related,
) -> Result<(TableName, Route), SqliteError> {
    let Described { name, key, .. } = &index.described;
    let of = format!("index `{}`, related table `{}`", name, related.table);
    let table = Table::read(database, connection, &related.table)?;
    let mut columns = Vec::with_capacity(related.columns.len());
    for wanted in &related.columns {
        let found = table.column_names().into_iter().find(|name| name.eq_ignore_ascii_case(wanted.as_str()));
        let Some(Ok(found)) = found.map(ColumnName::new) else {
            let known = table.column_names().join("`, `");
            return Err(database.definition(format!("{of}: it has no column `{wanted}`; it has `{known}`")));
        };
        columns.push(found);
    }
    match &related.sql {
        Some(sql) => compiles(database, connection, &of, sql, columns.len(), key.len())?,
        None if columns.len() != key.len() => {
            let (given, wanted) = (columns.len(), key.len());
            return Err(database.definition(format!(
                "{of}: {given} column(s) were named, and the key of the root has {wanted}"
            )));
        }
        None => {}
    }
    let table = TableName::new(&table.name).map_err(|error| database.definition(error.to_string()))?;
    Ok((table, Route { index: at, columns, query: related.sql.clone() }))
}

/// Whether some SQL is one query that takes and yields as much as it should.
fn compiles(
    database: &Database,
    connection: &Connection,
    of: &str,
    sql: &str,
    parameters: usize,
    columns: usize,
) -> Result<(), SqliteError> {
    let statement = connection.prepare(sql).map_err(database.failed(format!("compiling the SQL of {of}")))?;
    let wrong = |what: String| Err(database.definition(format!("the SQL of {of} {what}")));
    if !statement.readonly() {
        return wrong("must not write".into());
    }
    if statement.parameter_count() > parameters {
        let given = statement.parameter_count();
        return wrong(format!("has {given} parameter(s); {parameters} can be given"));
    }
    match statement.column_count() {
        given if given == columns => Ok(()),
        given => wrong(format!("yields {given} column(s) instead of {columns}")),
    }
}

/// The temporary table that the embedder's SQL finds its keys in. Its columns have no type, so that a key stands there
/// as it is, and the comparison with the root's own column gives it that column's affinity.
pub(super) fn keys_table(database: &Database, connection: &Connection) -> Result<(), SqliteError> {
    let columns: Vec<String> = (1..=MAX_KEY_COLUMNS).map(|at| format!("k{at}")).collect();
    connection
        .execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; CREATE TEMP TABLE IF NOT EXISTS syncline_keys({})",
            columns.join(", ")
        ))
        .map_err(database.failed("creating the table of keys"))
}
