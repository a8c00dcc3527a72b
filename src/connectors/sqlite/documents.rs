//! Documents made by the embedder's SQL.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params_from_iter};

use super::super::routes::{Indexed as _, Lookups, Routes};
use super::build;
use super::database::{Bound, Connections, Database, key_value};
use super::definition::IndexDefinition;
use super::error::SqliteError;
use super::index::{self, Index, Route};
use super::reads;
use super::schema::Table;
use crate::change::{Change, Visibility};
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::TableName;
use crate::ports::{Built, DocumentBuilder, IndexMapping, IndexScope, Resolved, TableNeeds};
use crate::value::Value;

/// Builds documents from an SQLite database by [`IndexDefinition`]s. A body is the text of a JSON object.
///
/// All documents of a unit are read in one snapshot, by one query for each index. A change is in the log when its
/// transaction is committed, so that every snapshot that begins after it was captured shows it.
#[derive(Debug)]
pub struct SqliteDocuments {
    connections: Arc<Connections>,
    routes: Arc<Routes<Index, String>>,
}

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
        let mut routes = Routes::default();
        for definition in definitions {
            if routes.holds(&definition.index) {
                return Err(database.definition(format!("the index `{}` is defined twice", definition.index)));
            }
            let root = Table::read(&database, &connection, &definition.root)?;
            let index = Index::check(&database, &connection, &definition, &root)?;
            let at = routes.next_place();
            let related = definition.related.iter();
            let related = related.map(|related| index::route(&database, &connection, &index, at, related));
            let related = related.collect::<Result<Vec<_>, _>>()?;
            reads::are_declared(&database, &mut connection, &definition)?;
            routes.push(index, related);
        }
        if routes.is_empty() {
            return Err(database.definition("no index was defined"));
        }
        Ok(Self { connections: Arc::new(Connections::new(database)), routes: Arc::new(routes) })
    }

    /// Every table whose changes touch a document: what to give to [`SqliteCapture::new`](super::SqliteCapture::new).
    pub fn tables(&self) -> impl Iterator<Item = TableName> {
        self.routes.tables()
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
        let mut touched = self.routes.follow(changes).map_err(|what| self.unexpected(what))?;
        let lookups = std::mem::take(&mut touched.lookups);
        if !lookups.is_empty() {
            for (id, changes) in self.look_up(lookups).await? {
                touched.add(&changes, &id);
            }
        }
        Ok(touched.resolved())
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
        let (routes, ids) = (Arc::clone(&self.routes), ids.to_vec());
        self.connections
            .run(move |database, connection| {
                let wanted = routes.by_index(&ids).map_err(|what| database.definition(what))?;
                build::documents(database, connection, wanted)
            })
            .await
    }

    fn body_bytes(&self, body: &String) -> usize {
        body.len()
    }

    async fn index_mappings(&self) -> Result<Vec<IndexMapping>, Fault> {
        Ok(self.routes.mappings())
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        self.routes.scopes()
    }

    fn needs(&self) -> Vec<TableNeeds> {
        self.routes.needs()
    }
}

impl SqliteDocuments {
    fn unexpected(&self, what: String) -> SqliteError {
        self.connections.database.unexpected(what)
    }

    /// Runs these queries, each distinct one once, and tells which documents they lead to for which changes.
    async fn look_up(&self, lookups: Lookups) -> Result<Vec<(DocumentId, Vec<usize>)>, Fault> {
        let routes = Arc::clone(&self.routes);
        self.connections
            .run(move |database, connection| {
                let mut found = Vec::new();
                for ((table, place), rows) in lookups {
                    let Some((index, route)) = routes.route(&table, place) else { continue };
                    for (values, changes) in rows {
                        let ids = query(database, connection, index, &table, route, &values)?;
                        found.extend(ids.into_iter().map(|id| (id, changes.clone())));
                    }
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
            index.described().name
        ))
    };
    let sql = route.query.as_deref().unwrap_or_default();
    let mut statement = connection.prepare_cached(sql).map_err(failed())?;
    // A query may leave the last parameters unused.
    let given = statement.parameter_count();
    let mut rows =
        statement.query(params_from_iter(values.iter().take(given).map(Bound))).map_err(failed())?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let mut key = Vec::with_capacity(index.described().key.len());
        for at in 0..index.described().key.len() {
            let part = key_value(row.get_ref(at).map_err(failed())?);
            key.push(part.ok_or_else(|| {
                let index = &index.described().name;
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
