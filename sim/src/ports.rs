//! The engine's ports: a capture, a builder, a sink and a quarantine that ask the nodes over the network.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream;
use syncline::ports::{
    ChangeStream, CuredDocument, FailedDocument, Guarantees, KeyStream, QuarantinedDocument, Resolved,
    TableNeeds,
};
use syncline::{
    Built, Captured, Change, ChangeCapture, Document, DocumentBuilder, DocumentId, Epoch, Fault, FaultKind,
    FlushReport, IndexMapping, IndexName, IndexScope, Key, Opened, Position, Quarantine, RejectedDocument,
    Seed, SeedState, Sink, SnapshotTable, StreamId, TableName, Value, Version, Visibility, Writes,
};
use tokio::time::timeout;

use crate::client::Client;
use crate::database::{key_column, ref_column};
use crate::gauges::bound;
use crate::message::{Answer, Call, Written};
use crate::outcome::Check;
use crate::plan::{Node, Poison};
use crate::tables::{Body, Doc, Image, doc_of, from_key, to_key};
use crate::world::{World, incarnation_of};

/// How long a connection may be silent beyond what is agreed, before it counts as lost.
const SILENCE: Duration = Duration::from_millis(500);

fn unexpected() -> Fault {
    Fault::fatal("the answer is to another question")
}

pub(crate) struct Capture(pub(crate) Arc<Client>);

impl ChangeCapture for Capture {
    async fn prepare(&self, needs: &[TableNeeds]) -> Result<(), Fault> {
        match needs.is_empty() || self.0.world.plan.source.before_images {
            true => Ok(()),
            false => Err(Fault::fatal("the source supplies no images of rows as they were before")),
        }
    }

    async fn open(&self) -> Result<Opened, Fault> {
        let Answer::Opened { incarnation, session } = self.0.ask(Node::Database, Call::Open).await? else {
            return Err(unexpected());
        };
        self.0.incarnation.store(incarnation, Ordering::Relaxed);
        self.0.world.with(|state| state.conduct.on_opened(incarnation));
        let stream = StreamId::new(format!("slot/{incarnation}"))?;
        let client = self.0.clone();
        let changes = stream::unfold(Some(VecDeque::new()), move |items: Option<VecDeque<Captured>>| {
            let client = client.clone();
            async move {
                let mut items = items?;
                while items.is_empty() {
                    match more(&client, session).await {
                        Ok(more) => items.extend(more),
                        Err(fault) => return Some((Err(fault), None)),
                    }
                }
                let item = items.pop_front()?;
                hear(&client.world, &item);
                Some((Ok(item), Some(items)))
            }
        });
        let changes: ChangeStream = Box::pin(changes);
        Ok(Opened { stream, changes })
    }

    async fn confirm(&self, stream: &StreamId, position: Position) -> Result<(), Fault> {
        let incarnation = incarnation_of(stream.as_str()).ok_or_else(unexpected)?;
        let call = Call::Confirm { incarnation, position: position.0 };
        self.0.ask(Node::Database, call).await?;
        let world = &self.0.world;
        let now_us = world.now_us();
        let engine = &world.plan.engine;
        world.judge(world.with(|state| state.conduct.on_confirmed(position.0, now_us, engine)));
        Ok(())
    }

    async fn snapshot_seeing(
        &self,
        table: &SnapshotTable,
        after: Option<&Key>,
        visibility: Option<Visibility>,
    ) -> Result<KeyStream, Fault> {
        let number = self.0.world.shape.table(table.table.table()).ok_or_else(unexpected)?;
        let visible = visibility.map_or(0, |token| token.0);
        let world = &self.0.world;
        let roots = (0..world.names.len()).filter(|index| world.shape.root(*index) == number);
        let roots: Vec<usize> = roots.collect();
        let from = after.map(from_key);
        world.judge(world.with(|state| state.conduct.on_scan(&roots, from.as_ref())));
        let first = page(&self.0, number, from, visible).await?;
        self.0.world.with(|state| state.gauges.scans_open = true);
        let client = self.0.clone();
        let rows = stream::unfold((Some(first), after.map(from_key)), move |(page_now, last)| {
            let client = client.clone();
            async move {
                let (mut keys, mut end) = page_now?;
                while keys.is_empty() {
                    if end {
                        client.world.with(|state| state.gauges.scans_open = false);
                        return None;
                    }
                    match timeout(SILENCE, page(&client, number, last.clone(), visible)).await {
                        Ok(Ok(next)) => (keys, end) = next,
                        Ok(Err(fault)) => return Some((Err(fault), (None, None))),
                        Err(_) => {
                            let fault = Fault::transient("the connection of the snapshot is lost");
                            return Some((Err(fault), (None, None)));
                        }
                    }
                }
                let key = keys.pop_front()?;
                Some((Ok(to_key(&key)), (Some((keys, end)), Some(key))))
            }
        });
        Ok(Box::pin(rows))
    }

    async fn lag(&self) -> Result<Option<u64>, Fault> {
        match self.0.ask(Node::Database, Call::Lag).await? {
            Answer::Lag(lag) => Ok(Some(lag)),
            _ => Err(unexpected()),
        }
    }
}

/// The engine takes an item from the stream.
fn hear(world: &World, item: &Captured) {
    let now_us = world.now_us();
    match item {
        Captured::Change(_) => {
            world.judge(world.with(|state| {
                state.conduct.on_given(now_us);
                state.gauges.on_captured(&world.plan.engine)
            }));
        }
        Captured::Truncate(truncation) => {
            let tables = truncation.tables.iter().filter_map(|table| world.shape.table(table.table()));
            let tables: Vec<usize> = tables.collect();
            let of = |index: usize| {
                tables.contains(&world.shape.root(index))
                    || world.shape.related(index).any(|table| tables.contains(&table))
            };
            world.with(|state| {
                state.conduct.on_given(now_us);
                state.conduct.on_truncated((0..world.names.len()).filter(|index| of(*index)));
            });
        }
        Captured::Checkpoint(position) => world.with(|state| state.conduct.on_checkpoint(position.0)),
        Captured::More => {}
    }
}

/// The next items of a stream: at least one, or the connection is lost.
async fn more(client: &Client, session: u64) -> Result<Vec<Captured>, Fault> {
    let keepalive = Duration::from_millis(client.world.plan.source.keepalive_ms);
    let asked = client.ask(Node::Database, Call::Stream { session });
    match timeout(keepalive + SILENCE, asked).await {
        Ok(Ok(Answer::Items(items))) => Ok(items),
        Ok(Ok(_)) => Err(unexpected()),
        Ok(Err(fault)) => Err(fault),
        Err(_) => Err(Fault::transient("the connection of the stream is lost")),
    }
}

type Page = (VecDeque<Vec<i64>>, bool);

async fn page(client: &Client, table: usize, after: Option<Vec<i64>>, visible: u64) -> Result<Page, Fault> {
    let incarnation = client.incarnation.load(Ordering::Relaxed);
    match client.ask(Node::Database, Call::Scan { table, after, visible, incarnation }).await? {
        Answer::Rows { keys, end } => Ok((keys.into(), end)),
        _ => Err(unexpected()),
    }
}

pub(crate) struct Documents(pub(crate) Arc<Client>);

impl Documents {
    /// The images of a change, as far as the source gave them; a ref that is a part of the key is always known.
    fn images(&self, table: usize, change: &Change) -> Vec<Image> {
        let shape = &self.0.world.shape;
        let image = |key: Vec<i64>, row: Option<&syncline::Row>| {
            let refs = shape.refs(table).iter().enumerate().map(|(by, (_, part))| match part {
                Some(part) => key.get(*part).copied(),
                None => match row?.value(ref_column(by).as_str())? {
                    Value::Int(value) => Some(*value),
                    _ => None,
                },
            });
            Image { refs: refs.collect(), key: key.clone() }
        };
        let key = from_key(&change.key);
        let columns: Vec<_> = (0..key.len()).map(key_column).collect();
        let mut images = vec![image(key, change.after.as_ref())];
        if let Some(before) = &change.before {
            images.extend(before.key(&columns).map(|key| image(from_key(&key), Some(before))));
        }
        images
    }
}

impl DocumentBuilder for Documents {
    type Body = Body;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        Ok(self.find(std::slice::from_ref(change)).await?.pop().unwrap_or_default())
    }

    async fn resolve_many(&self, changes: &[Change]) -> Result<Resolved, Fault> {
        let world = &self.0.world;
        let most = world.plan.engine.resolve_changes;
        world.judge(bound("changes of a resolve", changes.len(), most));
        let mut resolved = Resolved::with_capacity(changes.len());
        let mut docs = BTreeSet::new();
        for ids in self.find(changes).await? {
            docs.extend(ids.iter().map(|id| doc_of(id, &world.names)));
            resolved.push(ids);
        }
        world.judge(world.with(|state| state.gauges.on_resolved(changes.len(), docs, &world.plan.engine)));
        Ok(resolved)
    }

    async fn build(&self, _id: &DocumentId) -> Result<Document<Body>, Fault> {
        Err(Fault::fatal("documents are built many at once"))
    }

    async fn build_many(
        &self,
        ids: &[DocumentId],
        visibility: Option<Visibility>,
    ) -> Result<Vec<Built<Body>>, Fault> {
        let world = &self.0.world;
        let docs: Vec<Doc> = ids.iter().map(|id| doc_of(id, &world.names)).collect();
        world.judge(world.with(|state| state.gauges.on_build(&docs, &world.plan.engine)));
        let visible = visibility.map_or(0, |token| token.0);
        let answer = self.0.ask(Node::Database, Call::Build { docs: docs.clone(), visible }).await;
        if answer.as_ref().is_err_and(|fault| fault.kind() == FaultKind::Content) {
            // They wait again, in halves.
            world.with(|state| state.gauges.on_settled(&docs));
        }
        let Answer::Built(built) = answer? else { return Err(unexpected()) };
        let healed = world.with(|state| state.healed);
        let built = built.into_iter().zip(ids).map(|((doc, body), id)| match body {
            Some(body) if body.poison == Poison::Unbuildable && !healed => {
                world.with(|state| {
                    state.judge.on_refused(&doc);
                    // It waits for what becomes of its index, which may already be on its way.
                    if world.plan.schema.indexes[doc.index].parks {
                        state.gauges.on_settled([&doc]);
                    }
                });
                Err(FailedDocument { id: id.clone(), fault: Fault::content("it cannot be built") })
            }
            Some(body) => {
                let definition = self.0.definitions[doc.index];
                Ok(Document::upsert(id.clone(), Body { definition, ..body }))
            }
            None => Ok(Document::delete(id.clone())),
        });
        Ok(built.collect())
    }

    fn body_bytes(&self, body: &Body) -> usize {
        body.bytes
    }

    async fn index_mappings(&self) -> Result<Vec<IndexMapping>, Fault> {
        Ok(self.0.world.names.iter().map(|name| IndexMapping::new(name.clone(), [])).collect())
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        let world = &self.0.world;
        let scope = |(index, name): (usize, &IndexName)| {
            let table = world.shape.table_name(world.shape.root(index));
            let root = SnapshotTable::new(TableName::new(table).expect("a table of the schema has a name"));
            let related = world.shape.related(index).map(|table| {
                TableName::new(world.shape.table_name(table)).expect("a table of the schema has a name")
            });
            IndexScope::new(name.clone(), root)
                .with_related(related)
                .with_definition(self.0.definitions[index].to_string())
        };
        world.names.iter().enumerate().map(scope).collect()
    }

    fn needs(&self) -> Vec<TableNeeds> {
        let shape = &self.0.world.shape;
        let tables = (0..shape.tables()).filter(|table| shape.needs_before(*table));
        let needs = tables.map(|table| TableNeeds {
            table: TableName::new(shape.table_name(table)).expect("a table of the schema has a name"),
            before: (0..shape.refs(table).len()).map(ref_column).collect(),
        });
        needs.collect()
    }
}

impl Documents {
    /// The documents that each change touches. What the images do not tell is looked up, in one query.
    async fn find(&self, changes: &[Change]) -> Result<Vec<Vec<DocumentId>>, Fault> {
        let world = &self.0.world;
        let mut touched: Vec<BTreeSet<Doc>> = Vec::new();
        let (mut lookups, mut ends) = (Vec::new(), Vec::new());
        for change in changes {
            let table = world.shape.table(change.table.table()).ok_or_else(unexpected)?;
            let (docs, wanted) = world.shape.touched(table, &self.images(table, change));
            touched.push(docs);
            lookups.extend(wanted);
            ends.push(lookups.len());
        }
        if !lookups.is_empty() {
            let visible = changes.iter().filter_map(|change| change.visibility).max();
            let call = Call::Resolve { lookups, visible: visible.map_or(0, |token| token.0) };
            let Answer::Found(found) = self.0.ask(Node::Database, call).await? else {
                return Err(unexpected());
            };
            let mut from = 0;
            for (docs, end) in touched.iter_mut().zip(ends) {
                docs.extend(found[from..end].iter().flatten().cloned());
                from = end;
            }
        }
        let id = |doc: Doc| DocumentId::new(world.names[doc.index].clone(), to_key(&doc.key));
        Ok(touched.into_iter().map(|docs| docs.into_iter().map(id).collect()).collect())
    }
}

pub(crate) struct Index(pub(crate) Arc<Client>);

impl Index {
    fn number(&self, name: &IndexName) -> Result<usize, Fault> {
        self.0.world.names.iter().position(|known| known == name).ok_or_else(unexpected)
    }

    async fn empty(&self, index: &IndexName, keeps: bool) -> Result<(), Fault> {
        let index = self.number(index)?;
        let world = &self.0.world;
        let (began, verdict) = world.with(|state| state.conduct.on_clear(index));
        world.judge(verdict);
        match self.0.ask(Node::Index, Call::Clear { index, epoch: self.0.epoch(), keeps }).await? {
            Answer::Generation(generation) => {
                self.0.set_generation(index, generation);
                world.with(|state| state.conduct.on_cleared(index, began));
                Ok(())
            }
            _ => Err(unexpected()),
        }
    }
}

fn version(version: Version) -> (u64, u64) {
    (version.epoch.0, version.build)
}

fn check_flush(world: &World, writes: &Writes<Body>) {
    let limits = &world.plan.engine;
    world.judge(bound("documents of a flush", writes.len(), limits.max_documents));
    let bytes = writes.iter().map(|write| match &write.document.content {
        syncline::Content::Upsert(body) => body.bytes,
        syncline::Content::Delete => 0,
    });
    let bytes: usize = bytes.sum();
    if bytes > limits.max_bytes && writes.len() > 1 {
        let what = format!("{bytes} bytes in a flush of {}; the limit is {}", writes.len(), limits.max_bytes);
        world.fail(Check::Bounded, what);
    }
}

impl Index {
    /// What is to be written, as it is sent.
    fn written(&self, writes: &Writes<Body>) -> Vec<Written> {
        let written = writes.iter().map(|write| {
            let doc = doc_of(&write.document.id, &self.0.world.names);
            let body = match &write.document.content {
                syncline::Content::Upsert(body) => Some(body.clone()),
                syncline::Content::Delete => None,
            };
            Written { generation: self.0.generation(doc.index), doc, version: version(write.version), body }
        });
        written.collect()
    }
}

impl Sink for Index {
    type Body = Body;

    fn guarantees(&self) -> Guarantees {
        let sink = &self.0.world.plan.sink;
        Guarantees { refuses_older_versions: sink.checks_versions, refuses_older_epochs: sink.checks_epochs }
    }

    fn concurrency(&self) -> usize {
        self.0.world.plan.sink.concurrency
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        match self.0.ask(Node::Index, Call::Begin { least: least.0 }).await? {
            Answer::Epoch(epoch) => {
                self.0.epoch.store(epoch, Ordering::Relaxed);
                Ok(Epoch(epoch))
            }
            _ => Err(unexpected()),
        }
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        let index = self.number(&mapping.index)?;
        match self.0.ask(Node::Index, Call::Ensure { index }).await? {
            Answer::Generation(generation) => {
                self.0.set_generation(index, generation);
                Ok(())
            }
            _ => Err(unexpected()),
        }
    }

    async fn flush(&self, writes: &Writes<Body>, caught_up: bool) -> Result<FlushReport, Fault> {
        let world = &self.0.world;
        check_flush(world, writes);
        let written = self.written(writes);
        let versions: Vec<_> = written.iter().map(|written| (written.doc.clone(), written.version)).collect();
        let now_us = world.now_us();
        world.judge(world.with(|state| {
            let sent = versions.iter().cloned();
            state.conduct.on_flush(sent, caught_up, now_us, &world.plan.engine)?;
            match caught_up {
                true => state.judge_caught_up(|doc| versions.iter().any(|(sent, _)| sent == doc)),
                false => Ok(()),
            }
        }));
        let docs: Vec<Doc> = written.iter().map(|written| written.doc.clone()).collect();
        let answer = self.0.ask(Node::Index, Call::Flush { writes: written }).await;
        if let [doc] = docs.as_slice()
            && answer.as_ref().is_err_and(|fault| fault.kind() == FaultKind::Content)
            && world.plan.schema.indexes[doc.index].parks
        {
            // It waits for what becomes of its index, which may already be on its way.
            world.with(|state| state.gauges.on_settled([doc]));
        }
        let Answer::Flushed { rejected, throttled, missing } = answer? else { return Err(unexpected()) };
        // Deleting what is missing has succeeded; writing it never says so.
        let wrote =
            writes.iter().filter(|write| matches!(write.document.content, syncline::Content::Upsert(_)));
        if wrote.into_iter().any(|write| missing.contains(&doc_of(&write.document.id, &world.names))) {
            return Err(unexpected());
        }
        let now_us = world.now_us();
        world.with(|state| {
            state.gauges.on_settled(docs.iter().filter(|doc| !throttled.contains(doc)));
            let of = |docs: &[Doc]| -> Vec<_> {
                versions.iter().filter(|(doc, _)| docs.contains(doc)).cloned().collect()
            };
            let (again, refused) = (of(&throttled), of(&rejected));
            let indexes = &world.plan.schema.indexes;
            if rejected.iter().any(|doc| !indexes[doc.index].skips && !indexes[doc.index].parks) {
                state.conduct.on_stopped(rejected.iter().cloned());
            }
            let done = versions.iter().filter(|write| !again.contains(write) && !refused.contains(write));
            state.conduct.on_flushed(done.cloned(), again.iter().cloned(), caught_up, now_us);
        });
        let id = |doc: &Doc| {
            writes.iter().map(|write| &write.document.id).find(|id| doc_of(id, &world.names) == *doc)
        };
        Ok(FlushReport {
            rejected: rejected.iter().filter_map(id).map(|id| RejectedDocument::new(id, "poison")).collect(),
            throttled: throttled.iter().filter_map(id).cloned().collect(),
        })
    }

    fn can_verify(&self) -> bool {
        true
    }

    async fn compare(&self, writes: &Writes<Body>) -> Result<Vec<DocumentId>, Fault> {
        let world = &self.0.world;
        check_flush(world, writes);
        let written = self.written(writes);
        let answer = self.0.ask(Node::Index, Call::Compare { writes: written.clone() }).await?;
        let Answer::Documents(differing) = answer else { return Err(unexpected()) };
        let equal = written.iter().map(|written| &written.doc).filter(|doc| !differing.contains(doc));
        world.with(|state| {
            state.gauges.on_settled(equal);
            state.conduct.on_compared(differing.iter().cloned());
        });
        let ids = writes.iter().map(|write| &write.document.id);
        Ok(ids.filter(|id| differing.contains(&doc_of(id, &world.names))).cloned().collect())
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        let number = self.number(index)?;
        let generation = self.0.generation(number);
        let call = Call::List { index: number, generation, after: after.map(DocumentId::sink_id), limit };
        let Answer::Documents(held) = self.0.ask(Node::Index, call).await? else { return Err(unexpected()) };
        Ok(held.iter().map(|doc| DocumentId::new(index.clone(), to_key(&doc.key))).collect())
    }

    async fn caught_up(&self) -> Result<(), Fault> {
        let world = &self.0.world;
        world.judge(world.with(|state| state.judge_caught_up(|_| false)));
        self.0.ask(Node::Index, Call::CaughtUp).await?;
        world.with(|state| state.conduct.on_told());
        Ok(())
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let index = self.number(index)?;
        let call = Call::SeedState { index, generation: self.0.generation(index), seed: seed.clone() };
        match self.0.ask(Node::Index, call).await? {
            Answer::Seeded(state) => {
                let now_us = self.0.world.now_us();
                self.0.world.with(|world| {
                    if state == SeedState::Parked {
                        world.gauges.on_parked(index);
                    }
                    world.conduct.on_known(index, state.clone(), now_us);
                });
                Ok(state)
            }
            _ => Err(unexpected()),
        }
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        self.empty(index, false).await
    }

    async fn rebuild(&self, index: &IndexName) -> Result<(), Fault> {
        self.empty(index, true).await
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        let generation = self.0.generation(self.number(index)?);
        let (seed, after, epoch) = (seed.clone(), after.map(from_key), self.0.epoch());
        self.0.ask(Node::Index, Call::Cursor { generation, seed, after, epoch }).await.map(drop)
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let number = self.number(index)?;
        let generation = self.0.generation(number);
        let call = Call::Mark { generation, seed: seed.clone(), epoch: self.0.epoch() };
        self.0.ask(Node::Index, call).await?;
        let now_us = self.0.world.now_us();
        self.0.world.with(|state| state.conduct.on_known(number, SeedState::Seeded, now_us));
        Ok(())
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let number = self.number(index)?;
        let generation = self.0.generation(number);
        let call = Call::Park { generation, seed: seed.clone(), epoch: self.0.epoch() };
        self.0.ask(Node::Index, call).await?;
        let now_us = self.0.world.now_us();
        self.0.world.with(|state| state.conduct.on_known(number, SeedState::Parked, now_us));
        Ok(())
    }
}

pub(crate) struct Store(pub(crate) Arc<Client>);

impl Quarantine for Store {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        let Answer::Loaded(docs) = self.0.ask(Node::Index, Call::Load).await? else {
            return Err(unexpected());
        };
        let names = &self.0.world.names;
        let id = |doc: &Doc| DocumentId::new(names[doc.index].clone(), to_key(&doc.key));
        Ok(docs.iter().map(id).collect())
    }

    async fn record(&self, documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        let world = &self.0.world;
        let names = &world.names;
        let docs = documents.iter().map(|document| (doc_of(&document.id, names), version(document.version)));
        let docs: Vec<_> = docs.collect();
        if let Some((doc, _)) = docs.iter().find(|(doc, _)| !world.plan.schema.indexes[doc.index].skips) {
            world.fail(
                Check::Recorded,
                format!("{doc:?} is to be quarantined, of an index that does not skip"),
            );
        }
        if documents.iter().any(|document| document.attempts == 0) {
            world.fail(Check::Recorded, format!("{docs:?} are to be quarantined, and were never tried"));
        }
        self.0.world.with(|state| state.gauges.on_settled(docs.iter().map(|(doc, _)| doc)));
        self.0.ask(Node::Index, Call::Record { docs }).await.map(drop)
    }

    async fn release(&self, documents: &[CuredDocument]) -> Result<(), Fault> {
        let names = &self.0.world.names;
        let docs = documents.iter().map(|document| (doc_of(&document.id, names), version(document.version)));
        self.0.ask(Node::Index, Call::Release { docs: docs.collect() }).await.map(drop)
    }
}
