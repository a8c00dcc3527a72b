//! The physical indexes of an index: the one that is written, and the one that searches find.
//!
//! Mostly they are the same. While an index is **rebuilt** they are two: the engine sees the new one, and every write goes to
//! both, until the new one is complete and takes the place of the old one. Where an index is **cleared**, or what it held is
//! not there or holds nothing, the new one takes the place at once.
//!
//! Each change is the state first and then the aliases ([`expose`](physical::expose)), so that whatever has come of it when a
//! run dies, the next one has the aliases follow the state: a rebuild that had begun goes on, and a new one that was marked
//! as seeded takes its place.

use std::sync::Arc;

use reqwest::Method;

use super::http::{Body, segment};
use super::layout::Layout;
use super::physical;
use super::sink::{Known, Run, Shared};
use super::state::{Entry, Generation, State};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{IndexMapping, Seed, SeedState};

impl Shared {
    async fn change(
        &self,
        run: &Run,
        change: impl FnMut(&mut State) -> Result<(), Fault>,
    ) -> Result<State, Fault> {
        let _one = self.changing.lock().await;
        self.store.change(&self.http, run.epoch, change).await
    }

    /// Changes the entry of an index, whose physical one must still be this. Returns what it was changed to.
    async fn change_entry(
        &self,
        run: &Run,
        index: &IndexName,
        physical: &str,
        mut change: impl FnMut(&mut Entry),
    ) -> Result<Entry, Fault> {
        let mut changed = None;
        self.change(run, |state| {
            let entry = state.indexes.get_mut(index.as_str()).filter(|entry| entry.physical == physical);
            let gone = || {
                Fault::fatal(format!(
                    "index `{index}` was replaced during the run, by another one or by hand"
                ))
            };
            let entry = entry.ok_or_else(gone)?;
            change(entry);
            changed = Some(entry.clone());
            Ok(())
        })
        .await?;
        changed.ok_or_else(|| Fault::fatal(format!("index `{index}` was changed in no state")))
    }

    async fn entry(&self, run: &Run, index: &IndexName) -> Result<Option<Entry>, Fault> {
        Ok(self.store.read(&self.http, run.epoch).await?.indexes.remove(index.as_str()))
    }

    /// The entry of an index, where its physical index is the one that the entry speaks of.
    pub(super) async fn standing(&self, run: &Run, index: &IndexName) -> Result<Option<Entry>, Fault> {
        let Some(entry) = self.entry(run, index).await? else { return Ok(None) };
        let uuid = physical::uuid(&self.http, &entry.physical).await?;
        Ok((uuid.as_ref() == Some(&entry.uuid)).then_some(entry))
    }

    /// What may stay found while an index is rebuilt: what searches find now, where that is there and holds anything.
    async fn worth_keeping(&self, entry: Option<&Entry>) -> Result<Option<Generation>, Fault> {
        let Some(found) = entry.map(Entry::found) else { return Ok(None) };
        let is_worth = physical::stands(&self.http, &found).await?
            && physical::holds_any(&self.http, &found.physical).await?;
        Ok(is_worth.then_some(found))
    }

    /// Creates an empty physical index that is written from now on. Searches find what was `kept`, or else the new one.
    async fn replace(
        &self,
        run: &Run,
        index: &IndexName,
        layout: Arc<Layout>,
        kept: Option<Generation>,
    ) -> Result<Known, Fault> {
        let made = physical::create(&self.http, &layout, run.epoch).await?;
        let entry = Entry::fresh(made, kept);
        let mut dropped = Vec::new();
        self.change(run, |state| {
            let previous = state.indexes.insert(index.as_str().to_owned(), entry.clone());
            dropped = previous.iter().flat_map(Entry::names).map(str::to_owned).collect();
            Ok(())
        })
        .await?;
        self.expose(run, index, &entry, layout, &dropped).await
    }

    async fn expose(
        &self,
        run: &Run,
        index: &IndexName,
        entry: &Entry,
        layout: Arc<Layout>,
        dropped: &[String],
    ) -> Result<Known, Fault> {
        let owner = &self.defaults.owner;
        physical::expose(&self.http, &self.store, &layout.alias, owner, entry, dropped, run.epoch).await?;
        Ok(run.remember(index, entry, layout))
    }

    /// Makes the aliases what the entry says, after what is searched was looked for: where it is gone, by hand, what has been
    /// built so far is better.
    async fn settle(
        &self,
        run: &Run,
        index: &IndexName,
        mut entry: Entry,
        layout: Arc<Layout>,
    ) -> Result<Known, Fault> {
        if let Some(searched) = &entry.searched
            && !physical::stands(&self.http, searched).await?
        {
            tracing::warn!(%index, searched = %searched.physical, "what was searched is gone: searches find what has been built so far");
            entry = self.change_entry(run, index, &entry.physical, |entry| entry.searched = None).await?;
        }
        self.expose(run, index, &entry, layout, &[]).await
    }

    pub(super) async fn ensure(&self, run: &Run, mapping: &IndexMapping) -> Result<(), Fault> {
        let index = &mapping.index;
        let layout = Arc::new(Layout::of(mapping, &self.defaults)?);
        let standing = self.standing(run, index).await?;
        match standing.filter(|entry| entry.layout == layout.hash) {
            Some(entry) => drop(self.settle(run, index, entry, layout.clone()).await?),
            None => drop(self.begin_anew(run, index, layout.clone()).await?),
        }
        let Some(entry) = self.entry(run, index).await? else { return Ok(()) };
        physical::sweep(&self.http, &layout.alias, &self.defaults.owner, &entry, run.epoch).await
    }

    /// The index; created, without a mapping, where there has been none.
    pub(super) async fn index(&self, run: &Run, index: &IndexName) -> Result<Known, Fault> {
        if let Some(known) = run.known(index) {
            return Ok(known);
        }
        let _one = self.ensuring.lock().await;
        if let Some(known) = run.known(index) {
            return Ok(known);
        }
        let layout = self.layout_of(run, index)?;
        match self.standing(run, index).await? {
            Some(entry) => self.settle(run, index, entry, layout).await,
            None => self.begin_anew(run, index, layout).await,
        }
    }

    /// The layout that an index has during this run.
    fn layout_of(&self, run: &Run, index: &IndexName) -> Result<Arc<Layout>, Fault> {
        match run.known(index) {
            Some(known) => Ok(known.layout),
            None => Ok(Arc::new(Layout::of(&IndexMapping::new(index.clone(), []), &self.defaults)?)),
        }
    }

    /// Starts another physical index, in the place of the old one at once. What arrives late is refused, or reaches the old
    /// one.
    pub(super) async fn clear(&self, run: &Run, index: &IndexName) -> Result<(), Fault> {
        let layout = self.layout_of(run, index)?;
        self.replace(run, index, layout, None).await.map(drop)
    }

    /// Starts another physical index, and keeps what is searched.
    pub(super) async fn rebuild(&self, run: &Run, index: &IndexName) -> Result<(), Fault> {
        let layout = self.layout_of(run, index)?;
        self.begin_anew(run, index, layout).await.map(drop)
    }

    async fn begin_anew(&self, run: &Run, index: &IndexName, layout: Arc<Layout>) -> Result<Known, Fault> {
        let entry = self.entry(run, index).await?;
        let kept = self.worth_keeping(entry.as_ref()).await?;
        self.replace(run, index, layout, kept).await
    }

    /// Remembers how far an index is seeded.
    pub(super) async fn mark(
        &self,
        run: &Run,
        index: &IndexName,
        seed: &Seed,
        seeding: SeedState,
    ) -> Result<(), Fault> {
        let known = self.index(run, index).await?;
        let physical = &known.target.physical;
        self.change_entry(run, index, physical, |entry| entry.mark(seed, &seeding)).await.map(drop)
    }

    /// Remembers that an index is seeded. Where it was rebuilt, it takes the place of what was searched.
    pub(super) async fn mark_seeded(&self, run: &Run, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        let known = self.index(run, index).await?;
        if known.searched.is_none() {
            return self.mark(run, index, seed, SeedState::Seeded).await;
        }
        self.swap(run, index, |entry| entry.mark(seed, &SeedState::Seeded)).await
    }

    /// Has searches find the physical index that is written, in place of the one that they have found so far.
    ///
    /// No flush is under way meanwhile, so that nothing that the old one shows is invisible in the new one.
    pub(super) async fn swap(
        &self,
        run: &Run,
        index: &IndexName,
        mark: impl Fn(&mut Entry),
    ) -> Result<(), Fault> {
        let _nothing_is_written = self.writing.write().await;
        let known = self.index(run, index).await?;
        let physical = &known.target.physical;
        let path = format!("{}/_refresh", segment(physical));
        let refreshed = self.http.ask(Method::POST, &path, Body::None).await?;
        refreshed.done(&format!("refreshing index `{index}`"))?;
        let change = |entry: &mut Entry| {
            entry.searched = None;
            mark(entry);
        };
        let entry = self.change_entry(run, index, physical, change).await?;
        let dropped: Vec<String> = known.searched.into_iter().map(|searched| searched.physical).collect();
        self.expose(run, index, &entry, known.layout, &dropped).await.map(drop)
    }

    /// What is searched of an index could not be written: it is looked for, and where it is gone, the index does without.
    pub(super) async fn look_again(&self, run: &Run, index: &IndexName) -> Result<(), Fault> {
        let layout = self.layout_of(run, index)?;
        match self.standing(run, index).await? {
            Some(entry) => self.settle(run, index, entry, layout).await.map(drop),
            None => Err(Fault::fatal(format!("index `{index}` was removed during the run"))),
        }
    }
}
