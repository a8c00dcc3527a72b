//! Documents made by the embedder's SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::build;
use super::definition::IndexDefinition;
use super::error::PostgresError;
use super::index::{self, Index, Route};
use super::server::Server;
use super::value::Parameter;
use super::visible::{self, Streamed};
use crate::change::{Change, Visibility};
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::{ColumnName, TableName};
use crate::ports::{Built, DocumentBuilder, IndexMapping, IndexScope, Resolved, SnapshotTable, TableNeeds};
use crate::row::Row;
use crate::value::Value;

/// Builds documents from a PostgreSQL database by [`IndexDefinition`]s. A body is the text of a JSON object.
///
/// All documents of a unit are read in one snapshot, by one query for each index, and only from a snapshot in which every
/// change that asks for them is visible; until then the answer is [`Fault::not_yet`]. The server may be another than the
/// one that is captured: a standby of it, whose reads then follow the changes as it replays them.
#[derive(Debug)]
pub struct PostgresDocuments {
    server: Server,
    indexes: Vec<Index>,
    /// Where the changes of a table lead to.
    routes: BTreeMap<TableName, Vec<Route>>,
    streamed: Arc<Streamed>,
}

/// The rows that one route's query is to be asked about, each with the changes it comes from.
type Lookups = BTreeMap<(TableName, usize), BTreeMap<Vec<Value>, Vec<usize>>>;

impl PostgresDocuments {
    /// Checks these definitions against the database: the tables and columns must be there, and the SQL must compile, yield
    /// as many columns as it should, and read no table that the definition says nothing of. It reads the catalog and no
    /// rows.
    ///
    /// Errors: a server that cannot be reached, or the first thing about a definition that does not fit, with the index.
    pub async fn open(
        server: &Server,
        definitions: impl IntoIterator<Item = IndexDefinition, IntoIter: Send> + Send,
    ) -> Result<Self, PostgresError> {
        let mut client = server.client().await?;
        let mut indexes: Vec<Index> = Vec::new();
        let mut routes: BTreeMap<TableName, Vec<Route>> = BTreeMap::new();
        for definition in definitions.into_iter() {
            if indexes.iter().any(|index| index.name == definition.index) {
                let name = &definition.index;
                return Err(server.place.definition(format!("the index `{name}` is defined twice")));
            }
            let index = Index::check(server, &client, &definition).await?;
            let at = indexes.len();
            let mut found = Vec::with_capacity(definition.related.len());
            for related in &definition.related {
                found.push(Route::check(server, &client, &index, at, related).await?);
            }
            index::reads_are_declared(server, &mut client, &definition, &index, &found).await?;
            routes.entry(index.root.name.clone()).or_default().push(Route::own(at, &index));
            for (table, route) in found {
                routes.entry(table).or_default().push(route);
            }
            indexes.push(index);
        }
        if indexes.is_empty() {
            return Err(server.place.definition("no index was defined"));
        }
        let streamed = visible::streamed(&server.place, &**client).await?;
        Ok(Self { server: server.clone(), indexes, routes, streamed })
    }

    /// Every table whose changes touch a document: what to give to
    /// [`PostgresCapture::new`](super::PostgresCapture::new).
    pub fn tables(&self) -> impl Iterator<Item = TableName> {
        self.routes.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    fn unexpected(&self, what: String) -> PostgresError {
        self.server.place.unexpected(what)
    }
}

impl DocumentBuilder for PostgresDocuments {
    type Body = String;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        Ok(self.resolve_many(core::slice::from_ref(change)).await?.ids)
    }

    /// The images suffice but for the routes that are queries, each of which is run once for all the rows of a group.
    async fn resolve_many(&self, changes: &[Change]) -> Result<Resolved, Fault> {
        let mut touched: Vec<BTreeSet<DocumentId>> = Vec::with_capacity(changes.len());
        let mut lookups = Lookups::new();
        for (at, change) in changes.iter().enumerate() {
            let mut ids = BTreeSet::new();
            for (place, route) in self.routes.get(&change.table).into_iter().flatten().enumerate() {
                let index = &self.indexes[route.index];
                if change.table == index.root.name && route.query.is_none() && route.columns == index.key {
                    ids.extend(index.document(change.key.values().iter().cloned()));
                    ids.extend(
                        change.images().filter_map(|image| index.document(values(image, &route.columns)?)),
                    );
                    continue;
                }
                if change.images().next().is_none() {
                    let what = format!("{change:?} carries no row image; capture it with `PostgresCapture`");
                    return Err(self.unexpected(what).into());
                }
                for image in change.images() {
                    let values = values(image, &route.columns).ok_or_else(|| {
                        self.unexpected(format!("{change:?} does not tell the columns {:?}", route.columns))
                    })?;
                    match route.query {
                        None => ids.extend(index.document(values)),
                        Some(_) => {
                            let rows = lookups.entry((change.table.clone(), place)).or_default();
                            rows.entry(values).or_default().push(at);
                        }
                    }
                }
            }
            touched.push(ids);
        }
        if !lookups.is_empty() {
            let token = changes.iter().filter_map(|change| change.visibility).max();
            self.look_up(lookups, token, &mut touched).await?;
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
        visibility: Option<Visibility>,
    ) -> Result<Vec<Built<String>>, Fault> {
        let mut wanted: BTreeMap<usize, Vec<DocumentId>> = BTreeMap::new();
        for id in ids {
            let Some(at) = self.indexes.iter().position(|index| index.name == id.index) else {
                let what = format!("no index `{}` is defined, but its document {id} was asked for", id.index);
                return Err(self.server.place.definition(what).into());
            };
            wanted.entry(at).or_default().push(id.clone());
        }
        let wanted: Vec<_> = wanted.into_iter().map(|(at, ids)| (&self.indexes[at], ids)).collect();
        let mut client = self.server.client().await?;
        let built =
            build::documents(&self.server.place, &mut client, &self.streamed, &wanted, visibility).await;
        if built.as_ref().is_err_and(|error| !error.lies_in_the_row()) {
            // With whatever ails it.
            drop(Object::take(client));
        }
        match built? {
            Some(built) => Ok(built),
            None => Err(Fault::not_yet()),
        }
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
            IndexScope::new(index.name.clone(), SnapshotTable::new(index.root.name.clone()))
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

impl PostgresDocuments {
    /// Runs these queries, and adds to each change the documents they lead to.
    async fn look_up(
        &self,
        lookups: Lookups,
        token: Option<Visibility>,
        touched: &mut [BTreeSet<DocumentId>],
    ) -> Result<(), Fault> {
        let place = &self.server.place;
        let mut client = self.server.client().await?;
        let Some(snapshot) = build::snapshot(place, &mut client, &self.streamed, token).await? else {
            return Err(Fault::not_yet());
        };
        for ((table, at), rows) in lookups {
            let Some(route) = self.routes.get(&table).and_then(|routes| routes.get(at)) else { continue };
            let Some(query) = &route.query else { continue };
            let index = &self.indexes[route.index];
            let of = format!("the query of index `{}` for `{table}`", index.name);
            let failed = || place.failed(format!("finding documents by {of}"));
            let columns = (0..route.columns.len()).map(|at| rows.keys().map(move |row| &row[at]));
            let given: Vec<Parameter> = columns.map(Parameter::array).collect();
            let given: Vec<&(dyn ToSql + Sync)> = given.iter().map(|given| given as _).collect();
            let statement =
                snapshot.prepare_typed_cached(&query.sql, &query.parameters).await.map_err(failed())?;
            let given = &given[..statement.params().len().min(given.len())];
            for row in snapshot.query(&statement, given).await.map_err(failed())? {
                let texts: Result<Vec<Option<&str>>, _> = (0..row.len()).map(|at| row.try_get(at)).collect();
                let (asked, id) = route.answer(index, &texts.map_err(failed())?);
                let Some(changes) = rows.get(&asked) else {
                    let what = format!(
                        "{of} yields {asked:?}, which it was not asked for; its first columns must be those it is asked by"
                    );
                    return Err(self.unexpected(what).into());
                };
                if let Some(id) = id {
                    changes.iter().for_each(|at| {
                        touched[*at].insert(id.clone());
                    });
                }
            }
        }
        snapshot.rollback().await.map_err(place.failed("ending a snapshot"))?;
        Ok(())
    }
}

/// The values of these columns; `None` where one is unknown.
fn values(image: &Row, columns: &[ColumnName]) -> Option<Vec<Value>> {
    columns.iter().map(|column| image.value(column.as_str()).cloned()).collect()
}
