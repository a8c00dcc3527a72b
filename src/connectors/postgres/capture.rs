//! The capture: follows a replication slot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::Object;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};

use super::backlog::{self, Behind};
use super::error::PostgresError;
use super::feed::{self, Batch, Batches, Confirm};
use super::pgoutput::{self, Message, Relation};
use super::relation::Known;
use super::schema::{self, Table, spelled};
use super::server::Server;
use super::slot;
use super::snapshot;
use super::value::Kind;
use super::visible::{self, Streamed};
use super::wire::{Frame, Wire};
use crate::change::{Captured, Change, Position, Truncation, Visibility};
use crate::error::Fault;
use crate::name::{ColumnName, StreamId, TableName};
use crate::ports::{ChangeCapture, KeyStream, Opened, SnapshotTable, TableNeeds};
use crate::row::Key;

/// From how many transactions on, that no build has asked for, a snapshot is read only to forget them.
const STREAMED_MANY: usize = 4096;

/// Types below this were there when the server was made, and are no domains.
const FIRST_OWN_TYPE: u32 = 10_000;

/// Captures the changes of chosen tables of a PostgreSQL database. See the [module](super) for how.
#[derive(Debug)]
pub struct PostgresCapture {
    server: Server,
    consumer: String,
    publication: Option<String>,
    tables: Arc<[TableName]>,
    page_rows: usize,
    check_interval: Duration,
    live: Mutex<Option<Live>>,
    /// The keys that the tables had when they were opened first: documents are named after them.
    keys: Mutex<BTreeMap<TableName, Vec<ColumnName>>>,
}

/// The stream that was opened last.
#[derive(Debug, Clone)]
struct Live {
    stream: StreamId,
    slot: String,
    confirm: Confirm,
    /// How far it was confirmed.
    confirmed: u64,
}

impl PostgresCapture {
    /// A capture of these tables, for the consumer of this name. Nothing is connected yet.
    ///
    /// The server keeps its log for each consumer's name, which is a part of the names of its slot and of its publication.
    /// Give every destination its own name, and let one process at a time use it. Another one that starts while the slot is
    /// followed does not touch the sink, and tries again as after any transient failure; one that starts in a moment when it is not
    /// (the first is still starting, or is connecting again) takes the sink over, and the first one ends. For documents of
    /// [`PostgresDocuments`](super::PostgresDocuments), the tables are
    /// [`PostgresDocuments::tables`](super::PostgresDocuments::tables). A table without a schema is found by the role's
    /// `search_path`.
    pub fn new(
        server: &Server,
        consumer: impl Into<String>,
        tables: impl IntoIterator<Item = TableName>,
    ) -> Self {
        let mut distinct: Vec<TableName> = Vec::new();
        for table in tables {
            if !distinct.contains(&table) {
                distinct.push(table);
            }
        }
        Self {
            server: server.clone(),
            consumer: consumer.into(),
            publication: None,
            tables: distinct.into(),
            page_rows: 1_000,
            check_interval: Duration::from_secs(10),
            live: Mutex::default(),
            keys: Mutex::default(),
        }
    }

    /// Uses a publication of this name instead of one of the consumer's own, `syncline_` and its name. It is checked, and
    /// made or extended where something is missing, all the same.
    #[must_use]
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publication = Some(name.into());
        self
    }

    /// How many keys of a snapshot are read at once. Default: 1,000; at least one.
    #[must_use]
    pub fn page_rows(mut self, rows: usize) -> Self {
        self.page_rows = rows.max(1);
        self
    }

    /// How often to look whether every table is still published, and still the same: the stream says nothing of a table
    /// that was taken out of the publication, or dropped and made anew. Default: every 10 seconds.
    #[must_use]
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Forgets this consumer: drops its slot, so that the log is no longer kept for it, and its own publication. Opened
    /// again, it has a new stream and all of its indexes are seeded anew. Returns whether there was anything.
    ///
    /// Errors: a server that is away, a slot that is in use, a publication of another owner.
    pub async fn forget_consumer(&self) -> Result<bool, Fault> {
        slot::check_consumer(&self.server, &self.consumer)?;
        let own = slot::publication_of(&self.consumer);
        let publication = self.publication.is_none().then_some(&*own);
        let client = self.server.client().await?;
        Ok(slot::forget(&self.server, &client, &self.consumer, publication).await?)
    }

    fn publication_name(&self) -> String {
        self.publication.clone().unwrap_or_else(|| slot::publication_of(&self.consumer))
    }

    /// The tables as they are now, each by the name that the stream tells it by. Everything that must hold of them is
    /// checked.
    async fn read_tables(&self, client: &Object) -> Result<Vec<Table>, PostgresError> {
        slot::check_consumer(&self.server, &self.consumer)?;
        if self.tables.is_empty() {
            return Err(self.server.place.definition("no tables were given to capture"));
        }
        slot::check_server(&self.server, client).await?;
        let mut tables = Vec::with_capacity(self.tables.len());
        for name in self.tables.iter() {
            let table = Table::read(&self.server, client, &spelled(name)).await?;
            if tables.iter().any(|known: &Table| known.oid == table.oid) {
                continue;
            }
            tables.push(table);
        }
        slot::check_grants(&self.server, client, &tables).await?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for table in &tables {
            let known = keys.entry(table.name.clone()).or_insert_with(|| table.key_names());
            if *known != table.key_names() {
                return Err(self.server.place.definition(format!(
                    "the key of {} was changed while this ran, after which its documents are named: start anew, which \
                     seeds the indexes of that table again",
                    spelled(&table.name)
                )));
            }
        }
        Ok(tables)
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A name as the stream tells it, which is with its schema.
    fn not_captured(&self, table: &TableName) -> PostgresError {
        self.server.place.definition(format!(
            "{} is not captured; name it among the tables given to `PostgresCapture::new`",
            spelled(table)
        ))
    }
}

impl ChangeCapture for PostgresCapture {
    async fn prepare(&self, needs: &[TableNeeds]) -> Result<(), Fault> {
        let client = self.server.client().await?;
        let tables = self.read_tables(&client).await?;
        for TableNeeds { table: name, before } in needs {
            let found = tables.iter().find(|table| table.name == *name);
            found.ok_or_else(|| self.not_captured(name))?.supplies(&self.server, &client, before).await?;
        }
        // One that is streamed from here may take a moment to be let go.
        if self.live().is_none() {
            slot::check_free(&self.server, &client, &self.consumer).await?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Opened, Fault> {
        let client = self.server.client().await?;
        let tables = self.read_tables(&client).await?;
        let publication = self.publication_name();
        let changed = slot::publish(&self.server, &client, &publication, &tables).await?;
        drop(client);
        let known = self.live().map(|live| (live.slot, live.confirmed));
        let slot = slot::ensure(&self.server, &self.consumer, changed, known.as_ref()).await?;
        let streamed = Streamed::of(slot.system);
        // Before anything can be built or scanned under it.
        streamed.resumes(&self.consumer, slot.confirmed);
        let wire = Wire::open(&self.server, &slot.name, &publication).await?;
        let (batches, confirm) = feed::follow(wire, slot.confirmed);
        let backlog = slot::mark(&self.server).await?;
        let tables: Arc<[Table]> = tables.into();
        let check = wrong(self.server.clone(), publication, Arc::clone(&tables), self.check_interval);
        let behind = Behind::default();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live {
            stream: slot.stream.clone(),
            slot: slot.name,
            confirm: confirm.clone(),
            confirmed: slot.confirmed,
        });
        // It is moved for every item.
        let reader = Box::new(Reader {
            server: self.server.clone(),
            tables,
            batches,
            batch: None,
            _confirm: confirm,
            relations: BTreeMap::new(),
            streamed,
            transaction: None,
            read: 0,
            backlog,
            behind: behind.clone(),
            check: Box::pin(check),
        });
        reader.note_behind();
        let changes = stream::try_unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            Ok::<_, Fault>(Some((item, reader)))
        });
        Ok(Opened { stream: slot.stream, changes: backlog::told(changes.boxed(), behind).boxed() })
    }

    async fn confirm(&self, stream: &StreamId, position: Position) -> Result<(), Fault> {
        let Some(live) = self.live().filter(|live| live.stream == *stream) else { return Ok(()) };
        {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(live) = live.as_mut().filter(|live| live.stream == *stream) {
                live.confirmed = live.confirmed.max(position.0);
            }
        }
        if !live.confirm.confirm(position.0).await {
            // Nothing streams any more: the slot itself is told.
            let client = self.server.client().await?;
            slot::advance(&self.server, &client, &live.slot, position.0).await?;
        }
        Ok(())
    }

    async fn snapshot(&self, table: &SnapshotTable, after: Option<&Key>) -> Result<KeyStream, Fault> {
        let name = &table.table;
        let client = self.server.client().await?;
        let found = Table::read(&self.server, &client, &spelled(name)).await?;
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&found.name).cloned();
        match keys {
            None => Err(self.not_captured(name).into()),
            Some(key) if key != found.key_names() => {
                let what = format!("the key of {} was changed", spelled(name));
                Err(self.server.place.stale(what).into())
            }
            Some(_) => Ok(snapshot::keys(&self.server, &found, after.cloned(), self.page_rows)?),
        }
    }

    async fn snapshot_seeing(
        &self,
        table: &SnapshotTable,
        after: Option<&Key>,
        visibility: Option<Visibility>,
    ) -> Result<KeyStream, Fault> {
        if let Some(Visibility(commit)) = visibility {
            let client = self.server.client().await?;
            let streamed = visible::streamed(&self.server.place, &client).await?;
            // What one snapshot shows, every later one does.
            if !visible::shown(&self.server.place, &client, &streamed, commit).await? {
                return Err(Fault::not_yet());
            }
        }
        self.snapshot(table, after).await
    }

    async fn lag(&self) -> Result<Option<u64>, Fault> {
        let client = self.server.client().await?;
        Ok(slot::lag(&self.server, &client, &self.consumer).await?)
    }
}

/// A transaction of which a part was read.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    commit: u64,
    xid: u32,
    /// Whether a change of it was passed on.
    told: bool,
}

impl Transaction {
    /// A change of it is passed on: whoever reads for it waits until it is seen.
    fn tell(&mut self, streamed: &Streamed) {
        if !self.told {
            streamed.note(self.commit, self.xid);
            self.told = true;
        }
    }
}

/// One opening: makes changes and checkpoints of what the connection sends.
struct Reader {
    server: Server,
    tables: Arc<[Table]>,
    batches: Batches,
    /// What was received last, and has not been passed on.
    batch: Option<Batch>,
    /// The connection ends when nobody can confirm on it any more.
    _confirm: Confirm,
    /// The shapes told so far; `None` where somebody else's table has it.
    relations: BTreeMap<u32, Option<Known>>,
    streamed: Arc<Streamed>,
    transaction: Option<Transaction>,
    /// The newest checkpoint.
    read: u64,
    /// What was in the log before the opening ends here.
    backlog: u64,
    behind: Behind,
    /// Looks after the publication beside the stream, which it never holds up; ready once something is wrong. It cannot be
    /// shared between threads, so that nothing here that awaits may borrow the whole of `self` but mutably.
    check: BoxFuture<'static, PostgresError>,
}

impl Reader {
    async fn next(&mut self) -> Result<Captured, PostgresError> {
        loop {
            // A stream that never rests is looked after too, however slowly it is taken.
            if let Poll::Ready(error) = futures::poll!(&mut self.check) {
                return Err(error);
            }
            let Some(frame) = self.batch.as_mut().and_then(Batch::next) else {
                self.batch = None;
                self.batch = Some(self.receive().await?);
                continue;
            };
            match frame {
                // Inside a transaction nothing can be resumed from. An older position than the last commit's says nothing.
                Frame::KeepAlive(position) if self.transaction.is_none() && position > self.read => {
                    return Ok(self.checkpoint(position));
                }
                Frame::KeepAlive(_) => {}
                Frame::Data(bytes) => {
                    let message =
                        pgoutput::decode(&bytes).map_err(|error| self.server.place.malformed(error))?;
                    if let Some(item) = self.take(message).await? {
                        return Ok(item);
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<Batch, PostgresError> {
        // What is there is taken without tokio's leave: it would call a stream pending that has more, only because its
        // task has done much at once.
        let received = match self.batches.try_recv() {
            Ok(received) => Some(received),
            Err(_) => tokio::select! {
                biased;
                received = self.batches.recv() => received,
                error = &mut self.check => return Err(error),
            },
        };
        received.unwrap_or_else(|| Err(self.server.place.stale("the replication connection was closed")))
    }

    fn checkpoint(&mut self, position: u64) -> Captured {
        self.read = self.read.max(position);
        self.note_behind();
        Captured::Checkpoint(Position(self.read))
    }

    fn note_behind(&self) {
        self.behind.set(self.read < self.backlog || self.transaction.is_some());
    }

    async fn take(&mut self, message: Message<'_>) -> Result<Option<Captured>, PostgresError> {
        let change = match message {
            Message::Begin { commit, xid } => {
                self.transaction = Some(Transaction { commit, xid, told: false });
                self.note_behind();
                return Ok(None);
            }
            Message::Commit { end } => {
                self.transaction = None;
                if self.streamed.len() > STREAMED_MANY {
                    self.forget_seen().await?;
                }
                return Ok(Some(self.checkpoint(end)));
            }
            Message::Relation(relation) => {
                let known = self.meet(&relation).await?;
                self.relations.insert(relation.id, known);
                return Ok(None);
            }
            Message::Truncate { relations } => {
                return Ok(self.truncate(&relations)?.map(Captured::Truncate));
            }
            Message::Other => return Ok(None),
            Message::Insert { relation, new } => {
                self.change(relation, |known, visibility| known.insert(&new, visibility))?
            }
            Message::Update { relation, old, new } => {
                self.change(relation, |known, visibility| known.update(old.as_ref(), &new, visibility))?
            }
            Message::Delete { relation, old } => {
                self.change(relation, |known, visibility| known.delete(&old, visibility))?
            }
        };
        Ok(change.map(Captured::Change))
    }

    fn change(
        &mut self,
        relation: u32,
        make: impl FnOnce(&Known, Visibility) -> Result<Change, String>,
    ) -> Result<Option<Change>, PostgresError> {
        let place = &self.server.place;
        let Some(transaction) = &mut self.transaction else {
            return Err(place.unexpected("a change was streamed outside of a transaction"));
        };
        let known = match self.relations.get(&relation) {
            None => {
                return Err(place.unexpected(format!(
                    "a change of relation {relation} was streamed, which was not told"
                )));
            }
            Some(None) => return Ok(None),
            Some(Some(known)) => known,
        };
        transaction.tell(&self.streamed);
        let commit = transaction.commit;
        make(known, Visibility(commit)).map(Some).map_err(|what| {
            place.unexpected(format!("a change of {}, committed at {commit}: {what}", known.spelled()))
        })
    }

    /// What the stream tells of a table. That it does so again may mean that its key or its identity is another: what was
    /// checked at the opening is checked again.
    async fn meet(&mut self, relation: &Relation<'_>) -> Result<Option<Known>, PostgresError> {
        let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema };
        let named =
            |table: &&Table| table.name.table() == relation.table && table.name.schema() == Some(schema);
        let Some(table) = self.tables.iter().find(named) else { return Ok(None) };
        let place = &self.server.place;
        let client = self.server.client().await?;
        let now = Table::read(&self.server, &client, &spelled(&table.name)).await?;
        if (now.oid, &now.identity, now.key_names()) != (table.oid, &table.identity, table.key_names()) {
            return Err(place
                .stale(format!("the key or the replica identity of {} was changed", spelled(&table.name))));
        }
        let types: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        let bases = match types.iter().any(|oid| *oid >= FIRST_OWN_TYPE) {
            true => {
                schema::bases(&client, &types).await.map_err(place.failed("reading the types of columns"))?
            }
            false => BTreeMap::new(),
        };
        let kinds = types.iter().map(|oid| Kind::of(bases.get(oid).map_or(*oid, |base| base.oid))).collect();
        let known = Known::new(table, relation, kinds).map_err(|what| {
            place.unexpected(format!("the stream tells {} of old: {what}", spelled(&table.name)))
        })?;
        Ok(Some(known))
    }

    /// Which of the captured tables were emptied; nothing where none was.
    fn truncate(&mut self, relations: &[u32]) -> Result<Option<Truncation>, PostgresError> {
        let Some(transaction) = &mut self.transaction else {
            return Err(self.server.place.unexpected("a truncation was streamed outside of a transaction"));
        };
        let known = relations.iter().filter_map(|relation| self.relations.get(relation)?.as_ref());
        let tables: Vec<TableName> = known.map(|known| known.table().clone()).collect();
        if tables.is_empty() {
            return Ok(None);
        }
        transaction.tell(&self.streamed);
        Ok(Some(Truncation::new(tables).with_visibility(Visibility(transaction.commit))))
    }

    async fn forget_seen(&mut self) -> Result<(), PostgresError> {
        let client = self.server.client().await?;
        visible::shown(&self.server.place, &client, &self.streamed, 0).await.map(drop)
    }
}

/// Looks again and again whether the tables are still published, and the same. Ready once they are not, or it cannot be told.
async fn wrong(server: Server, publication: String, tables: Arc<[Table]>, every: Duration) -> PostgresError {
    let published = async || {
        let client = server.client().await?;
        slot::is_published(&server, &client, &publication, &tables).await
    };
    loop {
        tokio::time::sleep(every).await;
        match published().await {
            Ok(true) => {}
            Ok(false) => {
                return server.place.stale("a table is no longer published as it was, or was made anew");
            }
            Err(error) => return error,
        }
    }
}
