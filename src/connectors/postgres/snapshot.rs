//! Reads the keys of a table, page by page.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_postgres::types::{ToSql, Type};

use super::error::PostgresError;
use super::schema::{Column, Table, spelled};
use super::server::{Server, quoted};
use super::value::{Kind, Parameter};
use crate::error::Fault;
use crate::ports::KeyStream;
use crate::row::Key;

/// How many pages of a table whose order no index has are read at once: each of them sorts the whole table.
const SORTED_PAGES: usize = 64;

/// A table's rows in the order of their keys. Each page is a query of its own, so that a scan that takes hours holds back
/// no vacuum; a row that exists throughout is met once all the same, since keys do not move.
#[derive(Debug)]
struct Scan {
    server: Server,
    table: Table,
    first: String,
    next: String,
    parameters: Vec<Type>,
    page_rows: usize,
}

pub(super) fn keys(
    server: &Server,
    table: &Table,
    after: Option<Key>,
    page_rows: usize,
) -> Result<KeyStream, PostgresError> {
    if let Some(key) = after.as_ref().filter(|key| !table.names(key)) {
        let name = spelled(&table.name);
        return Err(server.place.definition(format!("the key of {name} is another; {key:?} is none of it")));
    }
    let scan = Arc::new(Scan::new(server, table, page_rows));
    let pages = stream::try_unfold(Some(after), move |after| {
        let scan = Arc::clone(&scan);
        async move {
            let Some(after) = after else { return Ok::<_, Fault>(None) };
            let page = scan.page(after.as_ref()).await?;
            let next = if page.len() < scan.page_rows { None } else { page.last().cloned().map(Some) };
            Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
        }
    });
    Ok(pages.try_flatten().boxed())
}

impl Table {
    /// Whether a row of it can have this key.
    pub(super) fn names(&self, key: &Key) -> bool {
        key.values().len() == self.key.len()
            && key.values().iter().zip(self.key_columns()).all(|(value, column)| column.kind.holds(value))
    }
}

/// A key's column as its values are ordered, and the type in which it is compared.
fn ordered(column: &Column) -> (String, Type) {
    let name = quoted(column.name.as_str());
    match (column.in_byte_order, column.kind) {
        (true, _) => (name, type_of(column.type_oid)),
        // An index of the column in this collation would serve.
        (false, Kind::Text) if matches!(type_of(column.type_oid), Type::TEXT | Type::VARCHAR) => {
            (format!("{name} COLLATE \"C\""), Type::TEXT)
        }
        (false, Kind::Numeric) => (format!("pg_catalog.trim_scale({name})::text COLLATE \"C\""), Type::TEXT),
        // The cast leaves trailing spaces out.
        (false, Kind::Padded) => (format!("{name}::text COLLATE \"C\""), Type::TEXT),
        (false, _) => (format!("{} COLLATE \"C\"", text_of(&name)), Type::TEXT),
    }
}

/// The text of an expression, as its type itself writes it. A cast to text is another for some types.
pub(super) fn text_of(expression: &str) -> String {
    format!("pg_catalog.format('%s', {expression})")
}

/// A type by its object id: nothing but that is sent.
pub(super) fn type_of(oid: u32) -> Type {
    Type::from_oid(oid)
        .unwrap_or_else(|| Type::new("?".into(), oid, tokio_postgres::types::Kind::Simple, "?".into()))
}

impl Scan {
    fn new(server: &Server, table: &Table, page_rows: usize) -> Self {
        let (terms, parameters): (Vec<String>, Vec<Type>) = table.key_columns().map(ordered).unzip();
        let is_indexed = table.key_columns().all(|column| column.in_byte_order);
        let page_rows = if is_indexed { page_rows } else { page_rows.saturating_mul(SORTED_PAGES) };
        let values: Vec<String> =
            table.key_columns().map(|column| text_of(&quoted(column.name.as_str()))).collect();
        let places: Vec<String> = (1..=terms.len()).map(|at| format!("${at}")).collect();
        let (values, order, places) = (values.join(", "), terms.join(", "), places.join(", "));
        let from = format!("SELECT {values} FROM {}", spelled(&table.name));
        let rest = format!("ORDER BY {order} LIMIT {page_rows}");
        Self {
            server: server.clone(),
            table: table.clone(),
            first: format!("{from} {rest}"),
            next: format!("{from} WHERE ({order}) > ({places}) {rest}"),
            parameters,
            page_rows,
        }
    }

    async fn page(&self, after: Option<&Key>) -> Result<Vec<Key>, PostgresError> {
        let name = spelled(&self.table.name);
        let failed = || self.server.place.failed(format!("reading the keys of {name}"));
        let client = self.server.client().await?;
        let given: Vec<Parameter> = after.iter().flat_map(|key| key.values()).map(Parameter::one).collect();
        let given: Vec<&(dyn ToSql + Sync)> = given.iter().map(|given| given as _).collect();
        let (sql, types) = match after {
            None => (&self.first, &[][..]),
            Some(_) => (&self.next, &self.parameters[..]),
        };
        let statement = client.prepare_typed_cached(sql, types).await.map_err(failed())?;
        let rows = client.query(&statement, &given).await.map_err(failed())?;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let mut values = Vec::with_capacity(self.table.key.len());
            for (at, column) in self.table.key_columns().enumerate() {
                let text: &str = row.try_get(at).map_err(failed())?;
                values.push(column.kind.read(text.as_bytes()));
            }
            page.push(Key::new(values).map_err(|error| self.server.place.unexpected(error.to_string()))?);
        }
        Ok(page)
    }
}
