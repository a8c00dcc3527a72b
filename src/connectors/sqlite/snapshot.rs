//! Reads the keys of a table, page by page.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use rusqlite::{Connection, params_from_iter};

use super::database::{Bound, Connections, Database, key_value, quoted};
use super::error::SqliteError;
use super::schema::Table;
use crate::error::Fault;
use crate::name::TableName;
use crate::ports::KeyStream;
use crate::row::Key;
use crate::value::Value;

/// A table's rows in the order of their keys. Each page is a short read of its own, so that a scan that takes hours keeps
/// no snapshot open and the write-ahead log can be reused; a row that exists throughout is met once all the same, since
/// keys do not move.
///
/// A row with a NULL in its key has no identity (SQLite lets several have the same one) and is passed over.
#[derive(Debug)]
pub(super) struct Scan {
    name: TableName,
    table: Table,
    /// Whether the values of a key column are ordered by kind first. SQLite orders integers and floats among each other,
    /// a [`Value`] does not; ranking them costs the use of the index, so it is done only where both kinds are there.
    ranked: bool,
    /// Where they are not ordered by kind: the columns that hold numbers of one kind, each with the other kind. Rows of that
    /// came since, and are captured live; a cursor on one of them would hide what comes after it in the one order and
    /// before it in the other.
    passed_over: Vec<(String, &'static str)>,
    page_rows: usize,
}

pub(super) async fn keys(
    connections: &Arc<Connections>,
    name: TableName,
    after: Option<Key>,
    page_rows: usize,
) -> Result<KeyStream, Fault> {
    let connections = Arc::clone(connections);
    let (scan, after) = connections
        .run(move |database, connection| {
            let table = Table::read(database, connection, &name)?;
            let scan = Scan::of(database, connection, name, table, after.as_ref(), page_rows)?;
            Ok((scan, after))
        })
        .await?;
    let scan = Arc::new(scan);
    let pages = stream::try_unfold(Some(after), move |after| {
        let (connections, scan) = (Arc::clone(&connections), Arc::clone(&scan));
        async move {
            let Some(after) = after else { return Ok::<_, Fault>(None) };
            let page_rows = scan.page_rows;
            let page = connections
                .run(move |database, connection| scan.page(database, connection, after.as_ref()))
                .await?;
            let next = if page.len() < page_rows { None } else { page.last().cloned().map(Some) };
            Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
        }
    });
    Ok(pages.try_flatten().boxed())
}

impl Scan {
    /// Each opening looks anew at what the columns hold. The cursor counts as one more row: where it stands among the
    /// integers, every float comes after it, also when no integer is left.
    pub(super) fn of(
        database: &Database,
        connection: &Connection,
        name: TableName,
        table: Table,
        after: Option<&Key>,
        page_rows: usize,
    ) -> Result<Self, SqliteError> {
        let mut ranked = false;
        let mut passed_over = Vec::new();
        for (at, column) in table.key_columns().enumerate().filter(|(_, column)| column.mixes_numbers) {
            let cursor = after.and_then(|key| key.values().get(at));
            let (table, quoted_column) = (quoted(&table.name), quoted(&column.name));
            let holds = |kind: &str| {
                connection
                    .query_row(
                        &format!(
                            "SELECT EXISTS (SELECT 1 FROM {table} WHERE typeof({quoted_column}) = '{kind}')"
                        ),
                        [],
                        |row| row.get::<_, bool>(0),
                    )
                    .map_err(database.failed(format!("looking at the keys of {table}")))
            };
            let reals = matches!(cursor, Some(Value::Float(_))) || holds("real")?;
            if reals && (matches!(cursor, Some(Value::Int(_))) || holds("integer")?) {
                ranked = true;
            } else {
                passed_over.push((column.name.clone(), if reals { "integer" } else { "real" }));
            }
        }
        if ranked {
            passed_over.clear();
        }
        Ok(Self { name, table, ranked, passed_over, page_rows })
    }

    pub(super) fn page(
        &self,
        database: &Database,
        connection: &Connection,
        after: Option<&Key>,
    ) -> Result<Vec<Key>, SqliteError> {
        let failed = || database.failed(format!("reading the keys of `{}`", self.name));
        let width = self.table.key.len();
        if let Some(key) = after.filter(|key| key.values().len() != width) {
            let name = &self.name;
            return Err(
                database.definition(format!("`{name}` has a key of {width} columns; {key:?} is none of it"))
            );
        }
        let mut page = Vec::with_capacity(self.page_rows);
        let mut statement = connection.prepare_cached(&self.sql(after.is_some())).map_err(failed())?;
        let ranks: Vec<Value> =
            after.iter().flat_map(|key| key.values()).map(|value| Value::Int(rank(value))).collect();
        let parameters: Vec<&Value> = match (after, self.ranked) {
            (None, _) => Vec::new(),
            (Some(key), false) => key.values().iter().collect(),
            (Some(key), true) => {
                ranks.iter().zip(key.values()).flat_map(|(rank, value)| [rank, value]).collect()
            }
        };
        let mut rows =
            statement.query(params_from_iter(parameters.into_iter().map(Bound))).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let mut values = Vec::with_capacity(width);
            for at in 0..width {
                let stored = row.get_ref(at).map_err(failed())?;
                values.push(key_value(stored).ok_or_else(|| {
                    database.unexpected(format!(
                        "`{}` has a key that is not valid UTF-8, {stored:?}, so that no document can be named after it; \
                         give its row another key with an UPDATE",
                        self.name
                    ))
                })?);
            }
            page.push(Key::new(values).map_err(|error| database.unexpected(error.to_string()))?);
        }
        Ok(page)
    }

    /// The comparison names BINARY on the side of the parameters: on that of the columns it would hide the index.
    fn sql(&self, resumed: bool) -> String {
        let table = quoted(&self.table.name);
        let names: Vec<String> = self.table.key_columns().map(|column| quoted(&column.name)).collect();
        let mut terms = Vec::new();
        for name in &names {
            if self.ranked {
                terms.push(format!(
                    "CASE typeof({name}) WHEN 'integer' THEN 2 WHEN 'real' THEN 3 WHEN 'text' THEN 4 ELSE 5 END"
                ));
            }
            terms.push(name.clone());
        }
        let known = names.iter().map(|name| format!("{name} IS NOT NULL"));
        let kinds =
            self.passed_over.iter().map(|(name, kind)| format!("typeof({}) <> '{kind}'", quoted(name)));
        let known = known.chain(kinds).collect::<Vec<_>>().join(" AND ");
        let order = terms.iter().map(|term| format!("{term} COLLATE BINARY")).collect::<Vec<_>>().join(", ");
        let after = match resumed {
            true => {
                let bounds: Vec<String> =
                    (1..=terms.len()).map(|at| format!("?{at} COLLATE BINARY")).collect();
                format!(" AND ({}) > ({})", terms.join(", "), bounds.join(", "))
            }
            false => String::new(),
        };
        let (names, rows) = (names.join(", "), self.page_rows);
        format!("SELECT {names} FROM {table} WHERE {known}{after} ORDER BY {order} LIMIT {rows}")
    }
}

/// Where a value stands among the kinds, as [`Scan::sql`] counts them.
fn rank(value: &Value) -> i64 {
    match value {
        Value::Null => 0,
        Value::Bool(_) | Value::Int(_) => 2,
        Value::Float(_) => 3,
        Value::Text(_) => 4,
        Value::Bytes(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(create: &str) -> String {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(create).unwrap();
        let name = TableName::new("t").unwrap();
        let table = Table::read(&Database::new("t.db"), &connection, &name).unwrap();
        let scan = Scan::of(&Database::new("t.db"), &connection, name, table, None, 1000).unwrap();
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", scan.sql(true))).unwrap();
        let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(params_from_iter(nulls), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        plan.join("; ")
    }

    #[test]
    fn a_page_is_found_by_the_index_and_not_sorted() {
        for create in [
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
            "CREATE TABLE t(id TEXT PRIMARY KEY, a)",
            "CREATE TABLE t(a INT, b TEXT, PRIMARY KEY (a, b))",
            "CREATE TABLE t(a INT, b TEXT, c, PRIMARY KEY (b, a)) WITHOUT ROWID",
        ] {
            let plan = plan(create);
            assert!(plan.contains("SEARCH t USING") && !plan.contains("TEMP B-TREE"), "{create}: {plan}");
        }
        assert!(plan("CREATE TABLE t(id TEXT PRIMARY KEY COLLATE NOCASE)").contains("TEMP B-TREE"));
    }
}
