//! The sink's side of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;

use super::OpenSearchSink;
use super::http::{Body, Http, segment};
use super::layout::{Defaults, Layout, write_alias};
use super::state::{Entry, State, Store, superseded};
use super::{flush, physical, verify};
use crate::connectors::by_index;
use crate::document::{DocumentId, Epoch, Writes};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{FlushReport, Guarantees, IndexMapping, Seed, SeedState, Sink};
use crate::row::Key;

/// What the clones of a sink share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) http: Http,
    pub(super) defaults: Defaults,
    pub(super) sending: flush::Sending,
    pub(super) flushes: usize,
    pub(super) store: Store,
    /// The current run. A call that was made during another goes on within that one, and is refused by the server.
    pub(super) run: Mutex<Option<Arc<Run>>>,
    /// Changes of the state are made one after the other, so that they need not be repeated.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// An index without a mapping is created once, however many flushes come upon it.
    pub(super) ensuring: tokio::sync::Mutex<()>,
}

/// What is known during one run.
#[derive(Debug)]
pub(super) struct Run {
    epoch: Epoch,
    indexes: Mutex<BTreeMap<IndexName, Known>>,
    /// Those that were written since they were last refreshed.
    written: Mutex<BTreeSet<IndexName>>,
}

/// An index, as this run writes to it.
#[derive(Debug, Clone)]
struct Known {
    target: flush::Target,
    layout: Arc<Layout>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that panics happens under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    fn known(&self, index: &IndexName) -> Option<Known> {
        locked(&self.indexes).get(index).cloned()
    }

    fn remember(&self, index: &IndexName, entry: &Entry, layout: Arc<Layout>) -> Known {
        let target = flush::Target {
            physical: entry.physical.clone(),
            alias: write_alias(&entry.physical, self.epoch),
        };
        let known = Known { target, layout };
        locked(&self.indexes).insert(index.clone(), known.clone());
        known
    }
}

impl Shared {
    fn run(&self) -> Result<Arc<Run>, Fault> {
        locked(&self.run)
            .clone()
            .ok_or_else(|| Fault::fatal("the sink was asked to write before a run has begun"))
    }

    async fn change(
        &self,
        run: &Run,
        change: impl FnMut(&mut State) -> Result<(), Fault>,
    ) -> Result<State, Fault> {
        let _one = self.changing.lock().await;
        self.store.change(&self.http, run.epoch, change).await
    }

    /// The entry of an index, where its physical index is the one that the entry speaks of.
    async fn standing(&self, run: &Run, index: &IndexName) -> Result<Option<Entry>, Fault> {
        let mut state = self.store.read(&self.http, run.epoch).await?;
        let Some(entry) = state.indexes.remove(index.as_str()) else { return Ok(None) };
        let uuid = physical::uuid(&self.http, &entry.physical).await?;
        Ok((uuid.as_ref() == Some(&entry.uuid)).then_some(entry))
    }

    /// Creates an empty physical index, and puts it in the place of what there was.
    async fn replace(&self, run: &Run, index: &IndexName, layout: Arc<Layout>) -> Result<Known, Fault> {
        let (physical, uuid) = physical::create(&self.http, &layout, run.epoch).await?;
        let entry = Entry::fresh(physical, uuid, layout.hash.clone());
        let mut previous = None;
        self.change(run, |state| {
            previous = state.indexes.insert(index.as_str().to_owned(), entry.clone());
            Ok(())
        })
        .await?;
        let previous = previous.map(|previous| previous.physical);
        self.expose(run, index, &entry, layout, previous.as_deref()).await
    }

    async fn expose(
        &self,
        run: &Run,
        index: &IndexName,
        entry: &Entry,
        layout: Arc<Layout>,
        previous: Option<&str>,
    ) -> Result<Known, Fault> {
        let owner = &self.defaults.owner;
        let (alias, physical) = (&layout.alias, &entry.physical);
        physical::expose(&self.http, &self.store, alias, owner, physical, previous, run.epoch).await?;
        Ok(run.remember(index, entry, layout))
    }

    async fn ensure(&self, run: &Run, mapping: &IndexMapping) -> Result<(), Fault> {
        let index = &mapping.index;
        let layout = Arc::new(Layout::of(mapping, &self.defaults)?);
        let known = match self.standing(run, index).await? {
            Some(entry) if entry.layout == layout.hash => {
                self.expose(run, index, &entry, layout.clone(), None).await?
            }
            _ => self.replace(run, index, layout.clone()).await?,
        };
        let current = &known.target.physical;
        physical::sweep(&self.http, &layout.alias, &self.defaults.owner, current, run.epoch).await
    }

    /// The index; created, without a mapping, where there has been none.
    async fn index(&self, run: &Run, index: &IndexName) -> Result<Known, Fault> {
        if let Some(known) = run.known(index) {
            return Ok(known);
        }
        let _one = self.ensuring.lock().await;
        if let Some(known) = run.known(index) {
            return Ok(known);
        }
        let layout = Arc::new(Layout::of(&IndexMapping::new(index.clone(), []), &self.defaults)?);
        match self.standing(run, index).await? {
            Some(entry) => self.expose(run, index, &entry, layout, None).await,
            None => self.replace(run, index, layout).await,
        }
    }

    async fn flush(&self, run: &Run, writes: &Writes<String>) -> Result<FlushReport, Fault> {
        if let Some(old) = writes.iter().find(|write| write.version.epoch < run.epoch) {
            return Err(superseded(old.version.epoch, run.epoch));
        }
        let mut targets = Vec::new();
        for (index, part) in by_index(writes) {
            targets.push((self.index(run, index).await?.target, part));
        }
        let indexes: BTreeSet<IndexName> =
            writes.iter().map(|write| write.document.id.index.clone()).collect();
        // Before it is sent, because what is given up may be written all the same; and after, because another flush may
        // have refreshed meanwhile what was not yet written.
        locked(&run.written).extend(indexes.iter().cloned());
        let report = self.sending.send(&self.http, &targets, run.epoch).await;
        locked(&run.written).extend(indexes);
        report
    }

    /// The physical index that holds the documents of an index, where there is one.
    async fn holding(&self, run: &Run, index: &IndexName) -> Result<Option<String>, Fault> {
        match run.known(index) {
            Some(known) => Ok(Some(known.target.physical)),
            None => Ok(self.standing(run, index).await?.map(|entry| entry.physical)),
        }
    }

    async fn compare(&self, run: &Run, writes: &Writes<String>) -> Result<Vec<DocumentId>, Fault> {
        let mut parts = Vec::new();
        for (index, part) in by_index(writes) {
            parts.push((self.holding(run, index).await?, part));
        }
        self.sending.compare(&self.http, &parts).await
    }

    /// Makes everything that was written visible to searches.
    async fn refresh(&self, run: &Run) -> Result<(), Fault> {
        let written: Vec<IndexName> = locked(&run.written).iter().cloned().collect();
        for index in written {
            let Some(known) = run.known(&index) else { continue };
            // What is written from here on is refreshed the next time.
            locked(&run.written).remove(&index);
            let path = format!("{}/_refresh", segment(&known.target.physical));
            let asked = self.http.ask(Method::POST, &path, Body::None).await;
            let refreshed = asked.and_then(|answer| answer.done(&format!("refreshing index `{index}`")));
            if let Err(fault) = refreshed {
                locked(&run.written).insert(index);
                return Err(fault);
            }
        }
        Ok(())
    }

    async fn mark(&self, run: &Run, index: &IndexName, seed: &Seed, seeding: SeedState) -> Result<(), Fault> {
        let known = self.index(run, index).await?;
        self.change(run, |state| {
            let entry = state.indexes.get_mut(index.as_str());
            let entry = entry.filter(|entry| entry.physical == known.target.physical);
            let gone = || {
                Fault::fatal(format!(
                    "index `{index}` was replaced during the run, by another one or by hand"
                ))
            };
            entry.ok_or_else(gone)?.mark(seed, &seeding);
            Ok(())
        })
        .await
        .map(|_| ())
    }
}

impl Sink for OpenSearchSink {
    type Body = String;

    /// Older versions are refused for as long as the server keeps those of deletions. A request of an earlier run that the
    /// server had already taken up when the next one began may still be applied, so that no more is promised.
    fn guarantees(&self) -> Guarantees {
        Guarantees { refuses_older_versions: true, refuses_older_epochs: false }
    }

    fn concurrency(&self) -> usize {
        self.shared.flushes
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        let shared = &self.shared;
        let state = {
            let _one = shared.changing.lock().await;
            shared.store.begin(&shared.http, least).await?
        };
        let epoch = Epoch(state.epoch);
        for entry in state.indexes.values() {
            physical::fence(&shared.http, &entry.physical, epoch).await?;
        }
        let run = Run { epoch, indexes: Mutex::default(), written: Mutex::default() };
        *locked(&shared.run) = Some(Arc::new(run));
        Ok(epoch)
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        self.shared.ensure(&*self.shared.run()?, mapping).await
    }

    async fn flush(&self, writes: &Writes<String>, caught_up: bool) -> Result<FlushReport, Fault> {
        let run = self.shared.run()?;
        let report = self.shared.flush(&run, writes).await?;
        if caught_up {
            self.shared.refresh(&run).await?;
        }
        Ok(report)
    }

    async fn caught_up(&self) -> Result<(), Fault> {
        self.shared.refresh(&*self.shared.run()?).await
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let run = self.shared.run()?;
        let entry = self.shared.standing(&run, index).await?;
        Ok(entry.map_or(SeedState::Unseeded, |entry| entry.state_for(seed)))
    }

    /// Starts another physical index, to which later calls write. What arrives late is refused, or reaches the old one.
    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        let run = self.shared.run()?;
        let layout = match run.known(index) {
            Some(known) => known.layout,
            None => Arc::new(Layout::of(&IndexMapping::new(index.clone(), []), &self.shared.defaults)?),
        };
        self.shared.replace(&run, index, layout).await.map(|_| ())
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.mark(&run, index, seed, SeedState::Seeding(after.cloned())).await
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.mark(&run, index, seed, SeedState::Seeded).await
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.mark(&run, index, seed, SeedState::Parked).await
    }

    fn can_verify(&self) -> bool {
        true
    }

    async fn compare(&self, writes: &Writes<String>) -> Result<Vec<DocumentId>, Fault> {
        self.shared.compare(&*self.shared.run()?, writes).await
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        let run = self.shared.run()?;
        match self.shared.holding(&run, index).await? {
            Some(physical) if limit > 0 => {
                verify::list(&self.shared.http, index, &physical, after, limit).await
            }
            _ => Ok(Vec::new()),
        }
    }
}
