//! An index as its definition was checked against the database: how its documents are named, and which rows lead to them.

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::super::routes::{self, Described, Indexed};
use super::definition::{IndexDefinition, Related};
use super::error::PostgresError;
use super::schema::{Table, spelled};
use super::server::Server;
use super::snapshot::{text_of, type_of};
use super::value::Kind;
use crate::name::TableName;
use crate::ports::IndexMapping;
use crate::value::Value;

/// An index whose definition was checked against the database.
#[derive(Debug)]
pub(super) struct Index {
    described: Described,
    pub(super) root: Table,
    /// The embedder's SQL, yielding texts.
    pub(super) query: Query,
    /// Whether the server has made the body, so that it is JSON.
    pub(super) body_is_json: bool,
}

/// Some SQL of the embedder's, made to yield texts, with the types of its parameters.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Type>,
    /// How what it yields is read: first the columns that it is asked by, where it is that of a route, and then the key.
    kinds: Vec<Kind>,
}

/// How a row of a table leads to the documents of an index; by a query where it is not by the columns.
pub(super) type Route = routes::Route<Query>;

impl Indexed for Index {
    fn described(&self) -> &Described {
        &self.described
    }

    fn held(&self, values: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Value> {
        let kinds = self.root.key_columns().map(|column| column.kind);
        values.into_iter().zip(kinds).map(|(value, kind)| kind.apply(value))
    }
}

impl Index {
    pub(super) async fn check(
        server: &Server,
        client: &Object,
        definition: &IndexDefinition,
    ) -> Result<Self, PostgresError> {
        let name = &definition.index;
        let root = Table::read(server, client, &definition.root).await?;
        let (key, width) = (root.key_names(), root.key.len());
        if let Some(column) = root.key_columns().find(|column| column.array_oid == 0) {
            let root = spelled(&root.name);
            return Err(server.place.definition(format!(
                "index `{name}`: the key of {root} has the column `{}`, whose type has no array type, so that several keys \
                 cannot be asked for",
                column.name
            )));
        }
        let parameters: Vec<Type> = root.key_columns().map(|column| type_of(column.array_oid)).collect();
        let of = format!("index `{name}`");
        let types = compiles(server, client, &of, &definition.sql, &parameters, width + 1).await?;
        let body_is_text =
            types.last().is_some_and(|body| matches!(*body, Type::TEXT | Type::VARCHAR | Type::UNKNOWN));
        let body = match types.last() {
            Some(&(Type::JSON | Type::JSONB)) => "b::text",
            _ if body_is_text => "b::text",
            _ => "pg_catalog.to_json(b)::text",
        };
        let kinds = root.key_columns().map(|column| column.kind).collect();
        let described = Described {
            name: name.clone(),
            root: root.name.clone(),
            fingerprint: definition.fingerprint(&key),
            mapping: IndexMapping::new(name.clone(), definition.fields.iter().cloned()),
            key,
        };
        let query = Query { sql: wrapped(&definition.sql, width, Some(body)), parameters, kinds };
        Ok(Self { described, query, body_is_json: !body_is_text, root })
    }

    /// Whether equal keys have equal texts, so that a row is found by one spelling only.
    pub(super) fn is_exact(&self) -> bool {
        self.root.key_columns().all(|column| column.exact)
    }
}

/// The route from a related table to this index, which will stand at this place, with the table's name.
pub(super) async fn route(
    server: &Server,
    client: &Object,
    index: &Index,
    at: usize,
    related: &Related,
) -> Result<(TableName, Route), PostgresError> {
    let Described { name, key, .. } = &index.described;
    let of = format!("index `{name}`, related table `{}`", related.table);
    let table = Table::read(server, client, &related.table).await?;
    let mut columns = Vec::with_capacity(related.columns.len());
    for wanted in &related.columns {
        columns.push(table.column(wanted.as_str()).ok_or_else(|| {
            let known = table.column_names();
            server.place.definition(format!("{of}: it has no column `{wanted}`; it has `{known}`"))
        })?);
    }
    let query = match &related.sql {
        Some(sql) => {
            let parameters: Vec<Type> = columns.iter().map(|column| type_of(column.array_oid)).collect();
            let width = columns.len() + key.len();
            compiles(server, client, &of, sql, &parameters, width).await?;
            let kinds =
                columns.iter().copied().chain(index.root.key_columns()).map(|column| column.kind).collect();
            Some(Query { sql: wrapped(sql, width, None), parameters, kinds })
        }
        None if columns.len() != key.len() => {
            let (given, wanted) = (columns.len(), key.len());
            return Err(server.place.definition(format!(
                "{of}: {given} column(s) were named, and the key of the root has {wanted}"
            )));
        }
        None => None,
    };
    Ok((table.name, Route { index: at, columns: related.columns.clone(), query }))
}

impl Query {
    /// The values that a row of the answer begins with, as many as there are kinds.
    pub(super) fn read(&self, texts: &[Option<&str>]) -> Vec<Value> {
        let read = |(text, kind): (&Option<&str>, &Kind)| {
            text.map_or(Value::Null, |text| kind.read(text.as_bytes()))
        };
        texts.iter().zip(&self.kinds).map(read).collect()
    }
}

/// Some SQL as a subquery whose columns are texts, and whose last one, where there is a body, is this.
fn wrapped(sql: &str, keys: usize, body: Option<&str>) -> String {
    let sql = sql.trim_end().trim_end_matches(';');
    let names: Vec<String> = (1..=keys).map(|at| format!("k{at}")).collect();
    let texts = names.iter().map(|name| format!("CASE WHEN {name} IS NOT NULL THEN {} END", text_of(name)));
    let texts: Vec<String> = texts.chain(body.map(str::to_owned)).collect();
    let columns: Vec<&str> = names.iter().map(String::as_str).chain(body.map(|_| "b")).collect();
    format!("SELECT {} FROM (\n{sql}\n) AS syncline({})", texts.join(", "), columns.join(", "))
}

/// Whether some SQL is one query that takes and yields as much as it should. Returns the types of its columns.
async fn compiles(
    server: &Server,
    client: &Object,
    of: &str,
    sql: &str,
    parameters: &[Type],
    columns: usize,
) -> Result<Vec<Type>, PostgresError> {
    let doing = format!("compiling the SQL of {of}");
    let statement = client.prepare_typed(sql, parameters).await.map_err(server.place.failed(&*doing))?;
    let wrong = |what: String| Err(server.place.definition(format!("the SQL of {of} {what}")));
    if statement.params().len() > parameters.len() {
        let (given, known) = (statement.params().len(), parameters.len());
        return wrong(format!("has {given} parameter(s); {known} can be given"));
    }
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    if types.len() != columns {
        return wrong(format!("yields {} column(s) instead of {columns}", types.len()));
    }
    // It must do inside of a query what it does alone: no statement but a query can stand there.
    client
        .prepare_typed(&wrapped(sql, columns, None), parameters)
        .await
        .map_err(server.place.failed(doing))?;
    Ok(types)
}

/// Refuses a definition that reads, in its SQL or in the query of a related table, a table that it says nothing of: no
/// change to that table would rebuild a document, and the index would go stale without a word.
pub(super) async fn reads_are_declared(
    server: &Server,
    client: &mut Object,
    definition: &IndexDefinition,
    index: &Index,
    routes: &[(TableName, Route)],
) -> Result<(), PostgresError> {
    let mut declared: Vec<String> = routes.iter().map(|(table, _)| spelled(table)).collect();
    declared.push(spelled(&index.root.name));
    declared.extend(definition.constants.iter().cloned());
    let queries = routes.iter().filter_map(|(table, route)| Some((Some(table), route.query.as_ref()?)));
    for (of, query) in std::iter::once((None, &index.query)).chain(queries) {
        let read = tables(client, query, &declared)
            .await
            .map_err(server.place.failed(format!("finding what index `{}` reads", index.described.name)))?;
        if let Some(table) = read.into_iter().next() {
            return Err(PostgresError::Undeclared {
                server: server.place.0.clone(),
                index: index.described.name.clone(),
                query_of: of.cloned(),
                table,
            });
        }
    }
    Ok(())
}

/// The tables that a statement reads and that are not declared. The server locks each table that it meets while it
/// compiles a statement, those behind views too, until the transaction ends; and it lists its locks.
async fn tables(
    client: &mut Object,
    query: &Query,
    declared: &[String],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    // What the server reads for this query itself is locked before, and no concern.
    transaction.prepare_typed(&query.sql, &query.parameters).await?;
    let rows = transaction
        .query(
            "SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_locks l
             JOIN pg_catalog.pg_class c ON c.oid = l.relation
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                 AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest($1::text[]) AS name
                                 WHERE pg_catalog.to_regclass(name) = c.oid)
             ORDER BY 1",
            &[&declared],
        )
        .await?;
    transaction.rollback().await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
