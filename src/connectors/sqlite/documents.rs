//! Documents made by the embedder's SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params_from_iter};

use super::build;
use super::database::{Bound, Connections, Database, key_value};
use super::definition::IndexDefinition;
use super::error::SqliteError;
use super::index::{Index, Route};
use super::reads;
use super::schema::Table;
use crate::change::{Change, Visibility};
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::{ColumnName, TableName};
use crate::ports::{Built, DocumentBuilder, IndexMapping, IndexScope, Resolved, SnapshotTable, TableNeeds};
use crate::row::Row;
use crate::value::Value;

/// Builds documents from an SQLite database by [`IndexDefinition`]s. A body is the text of a JSON object.
///
/// All documents of a unit are read in one snapshot, by one query for each index. A change is in the log when its
/// transaction is committed, so that every snapshot that begins after it was captured shows it.
#[derive(Debug)]
pub struct SqliteDocuments {
    connections: Arc<Connections>,
    indexes: Arc<[Index]>,
    /// Where the changes of a table lead to.
    routes: Arc<BTreeMap<TableName, Vec<Route>>>,
}

/// One execution of a route's query.
type Lookup = (TableName, usize, Vec<Value>);

impl SqliteDocuments {
    /// Checks these definitions against the database file at `path`: the tables and columns must be there, and the SQL must
    /// compile, yield as many columns as it should, and read no table that the definition says nothing of. It reads the
    /// schema and no rows, and blocks for as long.
    ///
    /// Errors: a file that is no database, or the first thing about a definition that does not fit, with the index.
    pub fn open(
        path: impl AsRef<Path>,
        definitions: impl IntoIterator<Item = IndexDefinition>,
    ) -> Result<Self, SqliteError> {
        let database = Database::new(path);
        let mut connection = database.connect()?;
        let mut indexes: Vec<Index> = Vec::new();
        let mut routes: BTreeMap<TableName, Vec<Route>> = BTreeMap::new();
        for definition in definitions {
            if indexes.iter().any(|index| index.name == definition.index) {
                return Err(database.definition(format!("the index `{}` is defined twice", definition.index)));
            }
            let root = Table::read(&database, &connection, &definition.root)?;
            let index = Index::check(&database, &connection, &definition, &root)?;
            let at = indexes.len();
            let own = Route { index: at, columns: index.key.clone(), sql: None };
            routes.entry(index.root.clone()).or_default().push(own);
            for related in &definition.related {
                let (table, route) = Route::check(&database, &connection, &index, at, related)?;
                routes.entry(table).or_default().push(route);
            }
            reads::are_declared(&database, &mut connection, &definition)?;
            indexes.push(index);
        }
        if indexes.is_empty() {
            return Err(database.definition("no index was defined"));
        }
        Ok(Self {
            connections: Arc::new(Connections::new(database)),
            indexes: indexes.into(),
            routes: Arc::new(routes),
        })
    }

    /// Every table whose changes touch a document: what to give to [`SqliteCapture::new`](super::SqliteCapture::new).
    pub fn tables(&self) -> impl Iterator<Item = TableName> {
        self.routes.keys().cloned().collect::<Vec<_>>().into_iter()
    }
}

impl DocumentBuilder for SqliteDocuments {
    type Body = String;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        Ok(self.resolve_many(core::slice::from_ref(change)).await?.ids)
    }

    /// The images suffice but for the routes that are queries; those of a whole group are run in one step, each distinct
    /// one once.
    async fn resolve_many(&self, changes: &[Change]) -> Result<Resolved, Fault> {
        let mut touched: Vec<BTreeSet<DocumentId>> = Vec::with_capacity(changes.len());
        let mut lookups: BTreeMap<Lookup, Vec<usize>> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            let mut ids = BTreeSet::new();
            for (place, route) in self.routes.get(&change.table).into_iter().flatten().enumerate() {
                let index = &self.indexes[route.index];
                if change.table == index.root && route.sql.is_none() && route.columns == index.key {
                    ids.extend(index.document(change.key.values().iter().cloned()));
                    ids.extend(
                        change.images().filter_map(|image| index.document(values(image, &route.columns)?)),
                    );
                    continue;
                }
                for image in images(&self.connections.database, change)? {
                    let values = values(image, &route.columns).ok_or_else(|| {
                        let what = format!("{change:?} does not tell the columns {:?}", route.columns);
                        self.connections.database.unexpected(what)
                    })?;
                    match route.sql {
                        None => ids.extend(index.document(values)),
                        Some(_) => {
                            lookups.entry((change.table.clone(), place, values)).or_default().push(at);
                        }
                    }
                }
            }
            touched.push(ids);
        }
        if !lookups.is_empty() {
            for (at, ids) in self.look_up(lookups).await? {
                touched[at].extend(ids);
            }
        }
        let mut resolved = Resolved::with_capacity(changes.len());
        touched.into_iter().for_each(|ids| resolved.push(ids));
        Ok(resolved)
    }

    async fn build(&self, id: &DocumentId) -> Result<Document<String>, Fault> {
        match self.build_many(core::slice::from_ref(id), None).await?.pop() {
            Some(built) => built.map_err(|failed| failed.fault),
            None => Err(Fault::fatal("one document was to be built, and none was")),
        }
    }

    async fn build_many(
        &self,
        ids: &[DocumentId],
        _visibility: Option<Visibility>,
    ) -> Result<Vec<Built<String>>, Fault> {
        let mut by_index: BTreeMap<usize, Vec<DocumentId>> = BTreeMap::new();
        for id in ids {
            let Some(at) = self.indexes.iter().position(|index| index.name == id.index) else {
                let what = format!("no index `{}` is defined, but its document {id} was asked for", id.index);
                return Err(self.connections.database.definition(what).into());
            };
            by_index.entry(at).or_default().push(id.clone());
        }
        let indexes = Arc::clone(&self.indexes);
        self.connections
            .run(move |database, connection| {
                let wanted = by_index.into_iter().map(|(at, ids)| (&indexes[at], ids));
                build::documents(database, connection, wanted)
            })
            .await
    }

    fn body_bytes(&self, body: &String) -> usize {
        body.len()
    }

    async fn index_mappings(&self) -> Result<Vec<IndexMapping>, Fault> {
        Ok(self.indexes.iter().map(|index| index.mapping.clone()).collect())
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        let related = |at: usize| {
            let routes =
                self.routes.iter().filter(move |(_, routes)| routes.iter().any(|route| route.index == at));
            routes.map(|(table, _)| table.clone())
        };
        let scope = |(at, index): (usize, &Index)| {
            IndexScope::new(index.name.clone(), SnapshotTable::new(index.root.clone()))
                .with_related(related(at))
                .with_definition(&index.fingerprint)
        };
        self.indexes.iter().enumerate().map(scope).collect()
    }

    fn needs(&self) -> Vec<TableNeeds> {
        self.routes
            .iter()
            .map(|(table, routes)| {
                let before: BTreeSet<&ColumnName> = routes.iter().flat_map(|route| &route.columns).collect();
                TableNeeds { table: table.clone(), before: before.into_iter().cloned().collect() }
            })
            .collect()
    }
}

impl SqliteDocuments {
    /// Runs these queries, and tells for each change which documents they lead to.
    async fn look_up(
        &self,
        lookups: BTreeMap<Lookup, Vec<usize>>,
    ) -> Result<Vec<(usize, Vec<DocumentId>)>, Fault> {
        let (indexes, routes) = (Arc::clone(&self.indexes), Arc::clone(&self.routes));
        self.connections
            .run(move |database, connection| {
                let mut found = Vec::new();
                for ((table, place, values), changes) in lookups {
                    let Some(route) = routes.get(&table).and_then(|routes| routes.get(place)) else {
                        continue;
                    };
                    let index = &indexes[route.index];
                    let ids = query(database, connection, index, &table, route, &values)?;
                    found.extend(changes.into_iter().map(|at| (at, ids.clone())));
                }
                Ok(found)
            })
            .await
    }
}

fn query(
    database: &Database,
    connection: &Connection,
    index: &Index,
    table: &TableName,
    route: &Route,
    values: &[Value],
) -> Result<Vec<DocumentId>, SqliteError> {
    let failed = || {
        database.failed(format!(
            "finding the documents of index `{}` that a row of `{table}` touches",
            index.name
        ))
    };
    let sql = route.sql.as_deref().unwrap_or_default();
    let mut statement = connection.prepare_cached(sql).map_err(failed())?;
    // A query may leave the last parameters unused.
    let given = statement.parameter_count();
    let mut rows =
        statement.query(params_from_iter(values.iter().take(given).map(Bound))).map_err(failed())?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let mut key = Vec::with_capacity(index.key.len());
        for at in 0..index.key.len() {
            let part = key_value(row.get_ref(at).map_err(failed())?);
            key.push(part.ok_or_else(|| {
                let index = &index.name;
                database.unexpected(format!(
                    "the query of index `{index}` for `{table}` yields a key that is not valid UTF-8; give \
                     the row that holds it another one, or keep it out by a condition"
                ))
            })?);
        }
        ids.extend(index.document(key));
    }
    Ok(ids)
}

/// The values of these columns; `None` where one is unknown.
fn values(image: &Row, columns: &[ColumnName]) -> Option<Vec<Value>> {
    columns.iter().map(|column| image.value(column.as_str()).cloned()).collect()
}

/// The images of a change to a related table, of which there must be one: nothing else leads to the root.
fn images<'a>(database: &Database, change: &'a Change) -> Result<impl Iterator<Item = &'a Row>, SqliteError> {
    match change.images().next() {
        Some(_) => Ok(change.images()),
        None => {
            Err(database
                .unexpected(format!("{change:?} carries no row image; capture it with `SqliteCapture`")))
        }
    }
}
