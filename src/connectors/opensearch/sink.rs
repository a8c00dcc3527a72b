//! The sink's side of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;

use super::OpenSearchSink;
use super::http::{Body, Http, segment};
use super::layout::{Defaults, Layout, write_alias};
use super::state::{Entry, Store, superseded};
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
    /// Read by every flush; written while a physical index takes the place of another.
    pub(super) writing: tokio::sync::RwLock<()>,
}

/// What is known during one run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) epoch: Epoch,
    indexes: Mutex<BTreeMap<IndexName, Known>>,
    /// Those that were written since they were last refreshed.
    written: Mutex<BTreeSet<IndexName>>,
    /// Those that someone seeds: how far they are was asked.
    seeded: Mutex<BTreeSet<IndexName>>,
}

/// An index, as this run writes to it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) target: flush::Target,
    /// What searches find, where that is another: it is written as well.
    pub(super) searched: Option<flush::Target>,
    /// Whether that was created with other fields or settings.
    is_other: bool,
    pub(super) layout: Arc<Layout>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that panics happens under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(super) fn known(&self, index: &IndexName) -> Option<Known> {
        locked(&self.indexes).get(index).cloned()
    }

    pub(super) fn remember(&self, index: &IndexName, entry: &Entry, layout: Arc<Layout>) -> Known {
        let target = |physical: &str, role| flush::Target {
            physical: physical.to_owned(),
            alias: write_alias(physical, self.epoch),
            role,
        };
        let searched = entry.searched.as_ref();
        let known = Known {
            target: target(&entry.physical, flush::Role::Written),
            searched: searched.map(|searched| target(&searched.physical, flush::Role::Searched)),
            is_other: searched.is_some_and(|searched| searched.layout != entry.layout),
            layout,
        };
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

    async fn flush(&self, run: &Run, writes: &Writes<String>) -> Result<FlushReport, Fault> {
        if let Some(old) = writes.iter().find(|write| write.version.epoch < run.epoch) {
            return Err(superseded(old.version.epoch, run.epoch));
        }
        let parts = by_index(writes);
        for index in parts.keys() {
            let known = self.index(run, index).await?;
            // Nobody seeds it, so nobody would ever say that the new one is complete; and the old one may not take what comes.
            if known.searched.is_some() && known.is_other && !locked(&run.seeded).contains(*index) {
                self.swap(run, index, |_| {}).await?;
            }
        }
        let reading = self.writing.read().await;
        let mut targets = Vec::new();
        for (index, part) in parts {
            let known = self.index(run, index).await?;
            targets.extend(known.searched.map(|searched| (searched, part.clone())));
            targets.push((known.target, part));
        }
        let indexes: BTreeSet<IndexName> =
            writes.iter().map(|write| write.document.id.index.clone()).collect();
        // Before it is sent, because what is given up may be written all the same; and after, because another flush may
        // have refreshed meanwhile what was not yet written.
        locked(&run.written).extend(indexes.iter().cloned());
        let sent = self.sending.send(&self.http, &targets, run.epoch).await;
        locked(&run.written).extend(indexes);
        drop(reading);
        let sent = sent?;
        for index in &sent.lost {
            self.look_again(run, index).await?;
        }
        Ok(sent.report)
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
            let mut refreshing = Refreshing { run, index: Some(index.clone()) };
            for target in known.searched.iter().chain([&known.target]) {
                self.refresh_one(&index, target).await?;
            }
            refreshing.index = None;
        }
        Ok(())
    }

    async fn refresh_one(&self, index: &IndexName, target: &flush::Target) -> Result<(), Fault> {
        let path = format!("{}/_refresh", segment(&target.physical));
        let answer = self.http.ask(Method::POST, &path, Body::None).await?;
        // What was searched may have been left meanwhile, or removed by hand.
        if target.role == flush::Role::Searched && answer.status == 404 {
            return Ok(());
        }
        answer.done(&format!("refreshing index `{index}`")).map(drop)
    }
}

/// An index that is not refreshed yet: it is to be refreshed the next time where this is given up.
struct Refreshing<'r> {
    run: &'r Run,
    index: Option<IndexName>,
}

impl Drop for Refreshing<'_> {
    fn drop(&mut self) {
        locked(&self.run.written).extend(self.index.take());
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
        for physical in state.indexes.values().flat_map(Entry::names) {
            physical::fence(&shared.http, physical, epoch).await?;
        }
        let run =
            Run { epoch, indexes: Mutex::default(), written: Mutex::default(), seeded: Mutex::default() };
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
        locked(&run.seeded).insert(index.clone());
        let entry = self.shared.standing(&run, index).await?;
        Ok(entry.map_or(SeedState::Unseeded, |entry| entry.state_for(seed)))
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.clear(&run, index).await
    }

    async fn rebuild(&self, index: &IndexName) -> Result<(), Fault> {
        let run = self.shared.run()?;
        locked(&run.seeded).insert(index.clone());
        self.shared.rebuild(&run, index).await
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.mark(&run, index, seed, SeedState::Seeding(after.cloned())).await
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let run = self.shared.run()?;
        self.shared.mark_seeded(&run, index, seed).await
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
