//! Documents made by the embedder's SQL.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::super::routes::{Indexed, Lookups, Routes, Touched};
use super::build;
use super::definition::IndexDefinition;
use super::error::PostgresError;
use super::index::{self, Index, Query};
use super::server::Server;
use super::value::Parameter;
use super::visible::Reads;
use crate::change::{Change, Visibility};
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::TableName;
use crate::ports::{Built, DocumentBuilder, IndexMapping, IndexScope, Resolved, TableNeeds};

/// Builds documents from a PostgreSQL database by [`IndexDefinition`]s. A body is the text of a JSON object.
///
/// All documents of a unit are read in one snapshot, by one query for each index, and only from a snapshot in which every
/// change that asks for them is visible; until then the answer is [`Fault::not_yet`]. The server may be another than the
/// one that is captured: a standby of it, whose reads then follow the changes as it replays them.
#[derive(Debug)]
pub struct PostgresDocuments {
    server: Server,
    routes: Routes<Index, Query>,
    reads: Reads,
}

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
        let mut routes = Routes::default();
        for definition in definitions.into_iter() {
            if routes.holds(&definition.index) {
                let name = &definition.index;
                return Err(server.place.definition(format!("the index `{name}` is defined twice")));
            }
            let index = Index::check(server, &client, &definition).await?;
            let at = routes.next_place();
            let mut found = Vec::with_capacity(definition.related.len());
            for related in &definition.related {
                found.push(index::route(server, &client, &index, at, related).await?);
            }
            index::reads_are_declared(server, &mut client, &definition, &index, &found).await?;
            routes.push(index, found);
        }
        if routes.is_empty() {
            return Err(server.place.definition("no index was defined"));
        }
        let reads = Reads::from(&server.place, &client).await?;
        Ok(Self { server: server.clone(), routes, reads })
    }

    /// Every table whose changes touch a document: what to give to
    /// [`PostgresCapture::new`](super::PostgresCapture::new).
    pub fn tables(&self) -> impl Iterator<Item = TableName> {
        self.routes.tables()
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
        let mut touched = self.routes.follow(changes).map_err(|what| self.unexpected(what))?;
        let lookups = std::mem::take(&mut touched.lookups);
        if !lookups.is_empty() {
            let token = changes.iter().filter_map(|change| change.visibility).max();
            self.look_up(lookups, token, &mut touched).await?;
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
        visibility: Option<Visibility>,
    ) -> Result<Vec<Built<String>>, Fault> {
        let wanted = self.routes.by_index(ids).map_err(|what| self.server.place.definition(what))?;
        let mut client = self.server.client().await?;
        let built = build::documents(&self.server.place, &mut client, &self.reads, &wanted, visibility).await;
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
        Ok(self.routes.mappings())
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        self.routes.scopes()
    }

    fn needs(&self) -> Vec<TableNeeds> {
        self.routes.needs()
    }
}

impl PostgresDocuments {
    /// Runs these queries, and adds to each change the documents they lead to.
    async fn look_up(
        &self,
        lookups: Lookups,
        token: Option<Visibility>,
        touched: &mut Touched,
    ) -> Result<(), Fault> {
        let place = &self.server.place;
        let mut client = self.server.client().await?;
        let Some(snapshot) = build::snapshot(place, &mut client, &self.reads, token).await? else {
            return Err(Fault::not_yet());
        };
        for ((table, at), rows) in lookups {
            let Some((index, route)) = self.routes.route(&table, at) else { continue };
            let Some(query) = &route.query else { continue };
            let of = format!("the query of index `{}` for `{table}`", index.described().name);
            let failed = || place.failed(format!("finding documents by {of}"));
            let columns = (0..route.columns.len()).map(|at| rows.keys().map(move |row| &row[at]));
            let given: Vec<Parameter> = columns.map(Parameter::array).collect();
            let given: Vec<&(dyn ToSql + Sync)> = given.iter().map(|given| given as _).collect();
            let statement =
                snapshot.prepare_typed_cached(&query.sql, &query.parameters).await.map_err(failed())?;
            let given = &given[..statement.params().len().min(given.len())];
            for row in snapshot.query(&statement, given).await.map_err(failed())? {
                let texts: Result<Vec<Option<&str>>, _> = (0..row.len()).map(|at| row.try_get(at)).collect();
                let mut asked = query.read(&texts.map_err(failed())?);
                let key = asked.split_off(route.columns.len().min(asked.len()));
                let Some(changes) = rows.get(&asked) else {
                    let what = format!(
                        "{of} yields {asked:?}, which it was not asked for; its first columns must be those it is asked by"
                    );
                    return Err(self.unexpected(what).into());
                };
                if let Some(id) = index.document(key) {
                    touched.add(changes, &id);
                }
            }
        }
        snapshot.rollback().await.map_err(place.failed("ending a snapshot"))?;
        Ok(())
    }
}
