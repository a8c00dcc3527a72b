//! A sink that remembers what it holds, and what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use syncline::ports::Guarantees;
use syncline::{
    Content, DocumentId, Epoch, Fault, FlushReport, IndexMapping, IndexName, Key, RejectedDocument, Seed,
    SeedState, Sink, StreamId, Version, Writes,
};

use super::script::end;
use super::{Act, Log, Port, Script, lock, named};

#[derive(Default)]
pub struct State {
    pub epoch: u64,
    /// Bodies and tombstones, with their versions.
    documents: BTreeMap<DocumentId, (Version, Option<String>)>,
    markers: BTreeMap<IndexName, (Seed, SeedState)>,
    /// Every write that was applied, in order.
    pub applied: Vec<(DocumentId, Version)>,
    /// Documents that are rejected, and why.
    pub rejects: BTreeMap<DocumentId, &'static str>,
    /// Documents that are throttled so often.
    pub throttles: BTreeMap<DocumentId, u32>,
    /// A call with one of these is refused as a whole.
    pub chokes_on: BTreeSet<DocumentId>,
    pub guarantees: Guarantees,
    pub concurrency: usize,
    pub can_verify: bool,
    /// The flushes that are under way, and the most that ever were.
    under_way: usize,
    pub most_under_way: usize,
    /// The documents of each call, and the bytes of their bodies.
    pub sizes: Vec<(usize, usize)>,
}

#[derive(Clone)]
pub struct Recorder {
    log: Log,
    pub script: Script,
    pub state: Arc<Mutex<State>>,
}

impl Recorder {
    pub fn new(log: &Log) -> Self {
        let state = State { concurrency: 1, can_verify: true, ..State::default() };
        Self { log: log.clone(), script: Script::default(), state: Arc::new(Mutex::new(state)) }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.state))
    }

    pub fn reject(&self, id: DocumentId, reason: &'static str) {
        self.with(|state| state.rejects.insert(id, reason));
    }

    /// What it holds: `users 1` → its body.
    pub fn contents(&self) -> BTreeMap<String, String> {
        self.with(|state| {
            let bodies =
                state.documents.iter().filter_map(|(id, (_, body))| Some((named(id), body.clone()?)));
            bodies.collect()
        })
    }

    /// The writes and flushes that it was asked for, without its other calls.
    pub fn writes(&self) -> Vec<String> {
        let mut lines = self.log.of(Port::Sink);
        lines.retain(|line| ["upsert ", "delete ", "flush "].iter().any(|verb| line.starts_with(verb)));
        lines
    }

    /// What each flush was told: caught up or not.
    pub fn flushes(&self) -> Vec<bool> {
        let lines = self.log.of(Port::Sink);
        lines.iter().filter_map(|line| line.strip_prefix("flush ")?.parse().ok()).collect()
    }

    /// An index, with its marker, is deleted by hand.
    pub fn wipe(&self, index: &IndexName) {
        self.with(|state| {
            state.documents.retain(|id, _| id.index != *index);
            state.markers.remove(index);
        });
    }

    /// A document that stands there though its row does not.
    pub fn plant(&self, id: DocumentId, body: &str) {
        self.with(|state| state.documents.insert(id, (Version::default(), Some(body.to_owned()))));
    }

    /// A document is deleted by hand.
    pub fn wipe_document(&self, id: DocumentId) {
        self.with(|state| state.documents.remove(&id));
    }

    /// The index counts as seeded for this stream.
    pub fn set_seeded(&self, index: &IndexName, stream: &str) {
        let stream = StreamId::new(stream).expect("a test's stream has a name");
        let seed = Seed { stream, definition: "".into() };
        self.with(|state| state.markers.insert(index.clone(), (seed, SeedState::Seeded)));
    }

    pub fn seed_state_of(&self, index: &IndexName) -> Option<(Seed, SeedState)> {
        self.with(|state| state.markers.get(index).cloned())
    }

    /// Tombstones outlive it: what was sent before it, and lands after it, is refused.
    fn empty(&self, index: &IndexName) {
        self.with(|state| {
            let documents = state.documents.iter_mut().filter(|(id, _)| id.index == *index);
            documents.for_each(|(_, (_, body))| *body = None);
            state.markers.remove(index);
        });
    }

    fn apply(&self, writes: &Writes<String>, unless: &BTreeSet<DocumentId>) {
        self.with(|state| {
            for write in writes.iter().filter(|write| !unless.contains(&write.document.id)) {
                let id = &write.document.id;
                let stored = state.documents.get(id).map(|(version, _)| *version);
                let old = state.guarantees.refuses_older_versions
                    && stored.is_some_and(|stored| stored > write.version);
                let dead = state.guarantees.refuses_older_epochs && write.version.epoch.0 < state.epoch;
                if old || dead {
                    self.log.say(Port::Sink, format!("refused {}", named(id)));
                    continue;
                }
                let body = match &write.document.content {
                    Content::Upsert(body) => Some(body.clone()),
                    Content::Delete => None,
                };
                state.documents.insert(id.clone(), (write.version, body));
                state.applied.push((id.clone(), write.version));
            }
        });
    }

    fn report(&self, writes: &Writes<String>) -> FlushReport {
        self.with(|state| {
            let ids = || writes.iter().map(|write| &write.document.id);
            let reject = |id| Some(RejectedDocument::new(id, state.rejects.get(id)?));
            let mut report = FlushReport::rejected(ids().filter_map(reject));
            for id in ids().filter(|id| !state.rejects.contains_key(id)) {
                if let Some(left) = state.throttles.get_mut(id).filter(|left| **left > 0) {
                    *left -= 1;
                    report.throttled.push(id.clone());
                }
            }
            report
        })
    }
}

impl Sink for Recorder {
    type Body = String;

    fn guarantees(&self) -> Guarantees {
        self.with(|state| state.guarantees)
    }

    fn concurrency(&self) -> usize {
        self.with(|state| state.concurrency)
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        let fault = self.script.play("begin").await?;
        let epoch = self.with(|state| {
            state.epoch = (state.epoch + 1).max(least.0);
            Epoch(state.epoch)
        });
        self.log.say(Port::Sink, format!("begin {}", epoch.0));
        end(epoch, fault)
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        self.log.say(Port::Sink, format!("ensure {}", mapping.index));
        end((), self.script.play("ensure").await?)
    }

    async fn flush(&self, writes: &Writes<String>, caught_up: bool) -> Result<FlushReport, Fault> {
        let mut bytes = 0;
        for write in writes.iter() {
            let verb = match &write.document.content {
                Content::Upsert(body) => {
                    bytes += body.len();
                    "upsert"
                }
                Content::Delete => "delete",
            };
            self.log.say(Port::Sink, format!("{verb} {}", named(&write.document.id)));
        }
        self.log.say(Port::Sink, format!("flush {caught_up}"));
        self.log.flush_asked();
        let _here = UnderWay::new(self, writes.len(), bytes);
        let act = self.script.take("flush");
        if let Act::Land(delay) = act {
            let (sink, writes) = (self.clone(), writes.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                sink.log.say(Port::Sink, "landed");
                sink.apply(&writes, &BTreeSet::new());
            });
        }
        let fault = self.script.play_act(act).await?;
        let chokes =
            self.with(|state| writes.iter().any(|write| state.chokes_on.contains(&write.document.id)));
        if chokes {
            return Err(Fault::content("malformed"));
        }
        let report = self.report(writes);
        let rejected = report.rejected.iter().map(|document| document.id.clone());
        self.apply(writes, &rejected.chain(report.throttled.iter().cloned()).collect());
        self.log.flush_done();
        end(report, fault)
    }

    async fn caught_up(&self) -> Result<(), Fault> {
        self.log.say(Port::Sink, "caught up");
        end((), self.script.play("caught_up").await?)
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let fault = self.script.play("seed_state").await?;
        let state = self.with(|state| match state.markers.get(index) {
            Some((held, state)) if held == seed => state.clone(),
            _ => SeedState::Unseeded,
        });
        end(state, fault)
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        self.log.say(Port::Sink, format!("clear {index}"));
        let fault = self.script.play("clear").await?;
        self.empty(index);
        end((), fault)
    }

    async fn rebuild(&self, index: &IndexName) -> Result<(), Fault> {
        self.log.say(Port::Sink, format!("rebuild {index}"));
        let fault = self.script.play("rebuild").await?;
        self.empty(index);
        end((), fault)
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        let at = after.map_or_else(|| "the start".to_owned(), |key| format!("{key:?}"));
        self.log.say(Port::Sink, format!("cursor {index} {at}"));
        let fault = self.script.play("save_cursor").await?;
        let state = SeedState::Seeding(after.cloned());
        self.with(|all| all.markers.insert(index.clone(), (seed.clone(), state)));
        end((), fault)
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        self.log.say(Port::Sink, format!("seeded {index}"));
        let fault = self.script.play("mark_seeded").await?;
        self.with(|all| all.markers.insert(index.clone(), (seed.clone(), SeedState::Seeded)));
        end((), fault)
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        self.log.say(Port::Sink, format!("park {index}"));
        let fault = self.script.play("park").await?;
        self.with(|all| all.markers.insert(index.clone(), (seed.clone(), SeedState::Parked)));
        end((), fault)
    }

    fn can_verify(&self) -> bool {
        self.with(|state| state.can_verify)
    }

    async fn compare(&self, writes: &Writes<String>) -> Result<Vec<DocumentId>, Fault> {
        self.log.say(Port::Sink, format!("compare {}", writes.len()));
        let fault = self.script.play("compare").await?;
        let differing = self.with(|state| {
            let held = |id: &DocumentId| state.documents.get(id).and_then(|(_, body)| body.as_ref());
            let differs = |write: &&syncline::Write<String>| match &write.document.content {
                Content::Upsert(body) => held(&write.document.id) != Some(body),
                Content::Delete => held(&write.document.id).is_some(),
            };
            writes.iter().filter(differs).map(|write| write.document.id.clone()).collect()
        });
        end(differing, fault)
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        self.log.say(Port::Sink, format!("list {index}"));
        let fault = self.script.play("list").await?;
        let held = self.with(|state| {
            let held = state.documents.iter().filter(|(id, (_, body))| id.index == *index && body.is_some());
            held.map(|(id, _)| (id.sink_id(), id.clone())).collect::<BTreeMap<_, _>>()
        });
        let after = after.map(DocumentId::sink_id);
        let rest = held.into_iter().filter(|(name, _)| Some(name) > after.as_ref());
        end(rest.map(|(_, id)| id).take(limit).collect(), fault)
    }
}

/// A flush that is under way.
struct UnderWay<'a>(&'a Recorder);

impl<'a> UnderWay<'a> {
    fn new(sink: &'a Recorder, documents: usize, bytes: usize) -> Self {
        sink.with(|state| {
            state.under_way += 1;
            state.most_under_way = state.most_under_way.max(state.under_way);
            state.sizes.push((documents, bytes));
        });
        Self(sink)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.under_way -= 1);
    }
}
