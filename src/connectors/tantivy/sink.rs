//! The sink's side: every call is done by a thread that may block, one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ::tantivy::indexer::IndexWriterOptions;

use super::call::{Call, superseded};
use super::layout::Layout;
use super::physical::{Physical, epoch_of};
use super::root::{Root, holds_index, places, readable};
use super::versions::Versions;
use super::{TantivyReader, TantivySink, TantivySinkBuilder};
use crate::connectors::by_index;
use crate::document::{Content, DocumentId, Epoch, Writes};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{FlushReport, Guarantees, IndexMapping, Seed, SeedState, Sink};
use crate::row::Key;

/// What the clones of a sink share.
pub(super) struct Shared {
    /// The current run, for calls that are being made. Changed by [`begin`](Sink::begin) alone.
    epoch: AtomicU64,
    writing: Mutex<Writing>,
    pub(super) reader: TantivyReader,
}

/// What one call at a time works on.
struct Writing {
    // Before the root: its lock is released when every writer has ended.
    indexes: BTreeMap<IndexName, Physical>,
    options: IndexWriterOptions,
    /// The current run. A call that was made during another is refused.
    epoch: Epoch,
    /// The run that this process has begun itself; before it, nothing is known of the versions that are stored.
    begun: Option<Epoch>,
    root: Root,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.epoch)
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn open(path: &Path, builder: TantivySinkBuilder) -> Result<Self, Fault> {
        let options = builder.writer_options()?;
        let root = Root::open(path)?;
        let epoch = root.epoch()?;
        let reader = TantivyReader::open(path)?;
        let writing = Writing { indexes: BTreeMap::new(), options, epoch, begun: None, root };
        Ok(Self { epoch: AtomicU64::new(epoch.0), writing: Mutex::new(writing), reader })
    }
}

impl Writing {
    fn begin(&mut self, least: Epoch) -> Result<Epoch, Fault> {
        // The epoch file may have been deleted by hand; the documents still know.
        let mut newest = self.epoch;
        for path in places(self.root.path())? {
            let epoch = holds_index(&path).and_then(|there| there.then(|| epoch_of(&path)).transpose());
            newest = newest.max(readable(epoch)?.flatten().unwrap_or_default());
        }
        let next = newest.0.checked_add(1).map(Epoch);
        let next = next.ok_or_else(|| Fault::fatal("there is no epoch after the last one"))?.max(least);
        self.root.save_epoch(next)?;
        self.epoch = next;
        self.begun = Some(next);
        self.indexes.values_mut().for_each(|index| index.begin(next));
        Ok(next)
    }

    /// The index, where there is one.
    fn existing(&mut self, name: &IndexName) -> Result<Option<&mut Physical>, Fault> {
        if !self.indexes.contains_key(name) {
            let versions = self.begun.map_or_else(Versions::unknown, Versions::before);
            if let Some(found) = Physical::open(&self.root, name, &self.options, versions)? {
                self.indexes.insert(name.clone(), found);
            }
        }
        Ok(self.indexes.get_mut(name))
    }

    /// The index; created, without a mapping, where there has been none.
    fn index(&mut self, name: &IndexName) -> Result<&mut Physical, Fault> {
        if self.existing(name)?.is_none() {
            let layout = Layout::of_mapping(&IndexMapping::new(name.clone(), []))?;
            self.create(name, &layout)?;
        }
        self.indexes.get_mut(name).ok_or_else(|| Fault::fatal(format!("index `{name}` was not created")))
    }

    fn create(&mut self, name: &IndexName, layout: &Layout) -> Result<(), Fault> {
        // Its writer ends before its files are moved away.
        if let Some(old) = self.indexes.remove(name) {
            old.close();
        }
        let created = Physical::create(&self.root, name, &self.options, layout, self.epoch)?;
        self.indexes.insert(name.clone(), created);
        Ok(())
    }

    fn ensure(&mut self, mapping: &IndexMapping) -> Result<(), Fault> {
        let name = &mapping.index;
        if let Some(index) = self.indexes.get(name)
            && !index.stands()?
        {
            self.indexes.remove(name);
        }
        let layout = match self.existing(name)? {
            Some(index) => index.misfit(mapping)?,
            None => Some(Layout::of_mapping(mapping)?),
        };
        layout.map_or(Ok(()), |layout| self.create(name, &layout))
    }

    fn flush(&mut self, writes: &Writes<String>, call: &Call) -> Result<FlushReport, Fault> {
        let old = writes.iter().find(|write| write.version.epoch < self.epoch);
        if let Some(old) = old {
            return Err(superseded(old.version.epoch, self.epoch));
        }
        let mut report = FlushReport::clean();
        for (name, part) in by_index(writes) {
            report.rejected.extend(self.index(name)?.write(&part, call)?);
        }
        Ok(report)
    }

    fn compare(&mut self, writes: &Writes<String>, reader: &TantivyReader) -> Result<Vec<DocumentId>, Fault> {
        let mut different = Vec::new();
        for (name, part) in by_index(writes) {
            match self.holds(name)? {
                true => different.extend(reader.compare(name, &part)?),
                false => different.extend(
                    part.into_iter()
                        .filter(|write| matches!(write.document.content, Content::Upsert(_)))
                        .map(|write| write.document.id.clone()),
                ),
            }
        }
        Ok(different)
    }

    fn list(
        &mut self,
        name: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
        reader: &TantivyReader,
    ) -> Result<Vec<DocumentId>, Fault> {
        if self.holds(name)? { reader.list(name, after, limit) } else { Ok(Vec::new()) }
    }

    /// Whether there is an index of this name. Errors: fatal, where it was removed while it was in use.
    fn holds(&mut self, name: &IndexName) -> Result<bool, Fault> {
        self.existing(name)?.map_or(Ok(false), |index| index.check_standing().map(|()| true))
    }

    fn seed_state(&mut self, name: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        match self.existing(name)? {
            Some(index) if index.stands()? => Ok(index.state_for(seed)),
            _ => Ok(SeedState::Unseeded),
        }
    }

    fn clear(&mut self, name: &IndexName, call: &Call) -> Result<(), Fault> {
        let index = self.index(name)?;
        if index.stands()? {
            return index.clear(call);
        }
        let layout = index.layout.clone();
        self.create(name, &layout)
    }
}

impl TantivySink {
    /// Has a thread that may block do this, after everything that was asked for before and is under way.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writing, &Call) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (call, _wanted) = Call::issue(&self.shared.epoch);
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            // After a panic in there every index is rolled back before it is used again.
            let mut writing = shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
            call.still_wanted()?;
            let outcome = work(&mut writing, &call);
            shared.epoch.store(writing.epoch.0, Ordering::SeqCst);
            outcome
        });
        done.await.unwrap_or_else(|error| Err(Fault::fatal(error)))
    }
}

impl Sink for TantivySink {
    type Body = String;

    fn guarantees(&self) -> Guarantees {
        Guarantees { refuses_older_versions: true, refuses_older_epochs: true }
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        self.run(move |writing, _| writing.begin(least)).await
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        let mapping = mapping.clone();
        self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.ensure(&mapping)
        })
        .await
    }

    async fn flush(&self, writes: &Writes<String>, caught_up: bool) -> Result<FlushReport, Fault> {
        let writes = writes.clone();
        let report = self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.flush(&writes, call)
        });
        let report = report.await?;
        if caught_up {
            self.caught_up().await?;
        }
        Ok(report)
    }

    /// Opens what was committed, so that the next search need not.
    async fn caught_up(&self) -> Result<(), Fault> {
        let reader = self.shared.reader.clone();
        let warmed = tokio::task::spawn_blocking(move || reader.refresh()).await;
        warmed.map_err(Fault::fatal)
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let (index, seed) = (index.clone(), seed.clone());
        self.run(move |writing, _| writing.seed_state(&index, &seed)).await
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        let index = index.clone();
        self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.clear(&index, call)
        })
        .await
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        let (index, seed, state) = (index.clone(), seed.clone(), SeedState::Seeding(after.cloned()));
        self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.index(&index)?.mark(&seed, state, call)
        })
        .await
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let (index, seed) = (index.clone(), seed.clone());
        self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.index(&index)?.mark(&seed, SeedState::Seeded, call)
        })
        .await
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let (index, seed) = (index.clone(), seed.clone());
        self.run(move |writing, call| {
            call.admit(writing.epoch)?;
            writing.index(&index)?.mark(&seed, SeedState::Parked, call)
        })
        .await
    }

    fn can_verify(&self) -> bool {
        true
    }

    async fn compare(&self, writes: &Writes<String>) -> Result<Vec<DocumentId>, Fault> {
        let (writes, reader) = (writes.clone(), self.shared.reader.clone());
        self.run(move |writing, _| writing.compare(&writes, &reader)).await
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        let (index, after, reader) = (index.clone(), after.cloned(), self.shared.reader.clone());
        self.run(move |writing, _| writing.list(&index, after.as_ref(), limit, &reader)).await
    }
}
