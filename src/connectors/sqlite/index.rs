//! An index as its definition was checked against the database: how its documents are named, and which rows lead to them.

use rusqlite::Connection;

use super::database::Database;
use super::definition::{IndexDefinition, Related};
use super::error::SqliteError;
use super::schema::{Affinity, Table};
use crate::document::DocumentId;
use crate::name::{ColumnName, IndexName, TableName};
use crate::ports::IndexMapping;
use crate::row::Key;
use crate::value::Value;

/// How many columns the table of keys has.
pub(super) const MAX_KEY_COLUMNS: usize = 16;

/// An index whose definition was checked against the database.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) name: IndexName,
    pub(super) sql: String,
    pub(super) root: TableName,
    pub(super) key: Vec<ColumnName>,
    affinities: Vec<Affinity>,
    pub(super) fingerprint: String,
    pub(super) mapping: IndexMapping,
}

/// How a row of a table leads to the documents of an index.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The index, by its place.
    pub(super) index: usize,
    /// The columns that hold the root's key, or the parameters of the query.
    pub(super) columns: Vec<ColumnName>,
    pub(super) sql: Option<String>,
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
        Ok(Self {
            name: name.clone(),
            sql: definition.sql.clone(),
            root: TableName::new(&root.name).map_err(|error| database.definition(error.to_string()))?,
            fingerprint: definition.fingerprint(&key),
            key,
            affinities: root.key_columns().map(|column| column.affinity).collect(),
            mapping: IndexMapping::new(name.clone(), definition.fields.iter().cloned()),
        })
    }

    /// The document of these values, as the key's columns hold them; none where one of them is NULL.
    pub(super) fn document(&self, values: impl IntoIterator<Item = Value>) -> Option<DocumentId> {
        let values: Vec<Value> =
            values.into_iter().zip(&self.affinities).map(|(value, affinity)| affinity.apply(value)).collect();
        let complete = values.len() == self.key.len() && !values.contains(&Value::Null);
        Some(DocumentId::new(self.name.clone(), Key::new(values).ok().filter(|_| complete)?))
    }

    /// Whether a row of the root table can have this key: as many values as the key has columns, each as its column
    /// would hold it. Of another key SQLite's comparison may find a row, by converting it, that goes by another name.
    pub(super) fn can_name_a_row(&self, key: &Key) -> bool {
        let values = key.values();
        values.len() == self.key.len()
            && values.iter().zip(&self.affinities).all(|(value, affinity)| affinity.holds(value))
    }
}

impl Route {
    /// The route from a related table to this index, with the table's name.
    pub(super) fn check(
        database: &Database,
        connection: &Connection,
        index: &Index,
        at: usize,
        related: &Related,
    ) -> Result<(TableName, Self), SqliteError> {
        let of = format!("index `{}`, related table `{}`", index.name, related.table);
        let table = Table::read(database, connection, &related.table)?;
        let mut columns = Vec::with_capacity(related.columns.len());
        for wanted in &related.columns {
            let found =
                table.column_names().into_iter().find(|name| name.eq_ignore_ascii_case(wanted.as_str()));
            let Some(Ok(found)) = found.map(ColumnName::new) else {
                let known = table.column_names().join("`, `");
                return Err(
                    database.definition(format!("{of}: it has no column `{wanted}`; it has `{known}`"))
                );
            };
            columns.push(found);
        }
        match &related.sql {
            Some(sql) => compiles(database, connection, &of, sql, columns.len(), index.key.len())?,
            None if columns.len() != index.key.len() => {
                let (given, wanted) = (columns.len(), index.key.len());
                return Err(database.definition(format!(
                    "{of}: {given} column(s) were named, and the key of the root has {wanted}"
                )));
            }
            None => {}
        }
        let name = TableName::new(&table.name).map_err(|error| database.definition(error.to_string()))?;
        Ok((name, Self { index: at, columns, sql: related.sql.clone() }))
    }
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
