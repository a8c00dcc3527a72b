//! One physical index, as its writer sees it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ::tantivy::collector::DocSetCollector;
use ::tantivy::indexer::{IndexWriter, IndexWriterOptions};
use ::tantivy::query::{AllQuery, TermQuery};
use ::tantivy::schema::IndexRecordOption;
use ::tantivy::{Index, IndexSettings, ReloadPolicy, Searcher, TantivyError, Term};

use super::call::Call;
use super::fault;
use super::layout::{self, Layout};
use super::meta;
use super::payload::Payload;
use super::root::{Durable, LEFTOVER, META, Root, holds_index, place};
use super::versions::Versions;
use crate::document::{Content, Epoch, Version, Write};
use crate::error::{Fault, FaultKind, RejectedDocument};
use crate::name::IndexName;
use crate::ports::{IndexMapping, Seed, SeedState};

/// A physical index, open for writing.
///
/// Its writer either holds nothing that is not committed, or is not `clean` and is rolled back before it is used again.
/// So whatever interrupts a flush (an error, an abandoned call, a panic), no later commit carries a part of it.
pub(super) struct Physical {
    pub(super) layout: Layout,
    name: IndexName,
    path: PathBuf,
    index: Index,
    options: IndexWriterOptions,
    /// Started by the first write: an index that is only watched over costs no threads.
    writer: Option<IndexWriter>,
    clean: bool,
    /// That of the last commit.
    payload: Payload,
    versions: Versions,
}

impl Physical {
    /// Opens the index of this name; `None` where there is none. Errors: fatal, where it cannot be read or was written
    /// by another program.
    pub(super) fn open(
        root: &Root,
        name: &IndexName,
        options: &IndexWriterOptions,
        versions: Versions,
    ) -> Result<Option<Self>, Fault> {
        let path = place(root.path(), name);
        if !holds_index(&path)? {
            return Ok(None);
        }
        let failed = |error| fault::tantivy(format!("opening index `{name}`"), &path, error);
        let (index, metas) = Durable::open(&path).and_then(meta::open).map_err(failed)?;
        let Some((layout, payload)) = meta::own(&metas) else {
            return Err(Fault::fatal(format!(
                "the index in {} was not written by this version of the sink; once its directory is removed, it is \
                 created and seeded again",
                path.display()
            )));
        };
        remove_leftovers(&path)
            .map_err(|error| fault::io(format!("opening index `{name}`"), &path, error))?;
        let (name, options) = (name.clone(), options.clone());
        Ok(Some(Self { layout, name, path, index, options, writer: None, clean: true, payload, versions }))
    }

    /// Creates the index of this name, in the place of the one that may stand there. After a crash in between the old
    /// one stands there, or none. Errors: fatal, where something stands there that is not the sink's.
    pub(super) fn create(
        root: &Root,
        name: &IndexName,
        options: &IndexWriterOptions,
        layout: &Layout,
        epoch: Epoch,
    ) -> Result<Self, Fault> {
        let doing = format!("creating index `{name}`");
        let path = place(root.path(), name);
        root.check_place(name)?;
        let built = root.temporary("new").map_err(|error| fault::io(&doing, root.path(), error))?;
        let write = || {
            let directory = Durable::open(&built)?;
            let index = Index::create(directory, layout.schema.clone(), IndexSettings::default())?;
            let mut writer: IndexWriter = index.writer_with_options(options.clone())?;
            let mut commit = writer.prepare_commit()?;
            commit.set_payload(&Payload::fresh(name, epoch).to_text());
            commit.commit()?;
            writer.wait_merging_threads()
        };
        write().map_err(|error| fault::tantivy(&doing, &built, error))?;
        root.install(&built, name).map_err(|error| fault::io(&doing, &path, error))?;
        Self::open(root, name, options, Versions::before(epoch))?
            .ok_or_else(|| Fault::fatal(format!("{doing}: it is not in {}", path.display())))
    }

    /// The layout for this mapping, where the index has another one; `None` where it fits.
    pub(super) fn misfit(&self, mapping: &IndexMapping) -> Result<Option<Layout>, Fault> {
        let layout = Layout::of_mapping(mapping)?;
        Ok((layout.schema != self.layout.schema).then_some(layout))
    }

    /// Whether it still stands where it was opened.
    pub(super) fn stands(&self) -> Result<bool, Fault> {
        holds_index(&self.path)
    }

    /// Ends its writer, and waits for what that does in the background: afterwards nothing touches its files.
    pub(super) fn close(mut self) {
        if let Some(writer) = self.writer.take() {
            // A merge that failed has changed nothing.
            let _ = writer.wait_merging_threads();
        }
    }

    /// A run has begun: no document here has a version of it, or of a later one.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.versions = Versions::before(epoch);
    }

    /// How far it is seeded for this seed.
    pub(super) fn state_for(&self, seed: &Seed) -> SeedState {
        self.payload.state_for(seed)
    }

    /// Writes these documents in one commit, and returns those that were refused.
    pub(super) fn write(
        &mut self,
        writes: &[&Write<String>],
        call: &Call,
    ) -> Result<Vec<RejectedDocument>, Fault> {
        let outcome = self.try_write(writes, call);
        self.settle(outcome)
    }

    fn try_write(&mut self, writes: &[&Write<String>], call: &Call) -> Result<Vec<RejectedDocument>, Fault> {
        self.ready()?;
        let searcher = match writes.iter().any(|write| self.versions.may_be_old(write.version)) {
            true => Some(self.searcher()?),
            false => None,
        };
        let mut rejected = Vec::new();
        let mut written: Vec<(String, &Write<String>)> = Vec::new();
        for write in writes {
            let id = write.document.id.sink_id();
            let document = match &write.document.content {
                Content::Upsert(body) => self.layout.document(&id, write.version, body).map(Some),
                // What no id of an index names is gone, as it was asked for.
                Content::Delete if self.layout.check_id(&id).is_err() => continue,
                Content::Delete => Ok(None),
            };
            let document = match document {
                Ok(document) => document,
                Err(reason) => {
                    rejected.push(RejectedDocument::new(&write.document.id, reason));
                    continue;
                }
            };
            if let Some(searcher) = &searcher
                && self.versions.may_be_old(write.version)
                && self.held(searcher, &id)?.is_some_and(|held| held > write.version)
            {
                continue;
            }
            let term = Term::from_field_text(self.layout.id, &id);
            let writer = self.writer()?;
            writer.delete_term(term);
            if let Some(document) = document
                && let Err(error) = writer.add_document(document)
            {
                return Err(self.cause(error));
            }
            written.push((id, write));
        }
        let Some(newest) = written.iter().map(|(_, write)| write.version).max() else {
            return Ok(rejected);
        };
        self.versions.attempted(newest);
        let epoch = self.payload.epoch.max(newest.epoch);
        self.commit(Payload { epoch, ..self.payload.clone() }, call)?;
        for (id, write) in written {
            match write.document.content {
                Content::Upsert(_) => self.versions.upserted(&id),
                Content::Delete => self.versions.deleted(&id, write.version),
            }
        }
        Ok(rejected)
    }

    /// Removes the marker and the cursor, and every document.
    pub(super) fn clear(&mut self, call: &Call) -> Result<(), Fault> {
        let outcome = self.try_clear(call);
        self.settle(outcome)
    }

    fn try_clear(&mut self, call: &Call) -> Result<(), Fault> {
        self.ready()?;
        // The marker goes first: a commit that failed half-way may be completed by a merge, under the payload of the one
        // before, and must not leave an empty index that is marked as seeded.
        let payload = Payload { seed: None, state: SeedState::Unseeded, ..self.payload.clone() };
        if self.payload.seed.is_some() {
            self.commit(payload.clone(), call)?;
        }
        // Not `delete_all_documents`: it turns the writer's operation stamps back to those of its start, under what has
        // been committed since.
        let deleted = self.writer()?.delete_query(Box::new(AllQuery));
        deleted.map_err(|error| self.fault("clearing", error))?;
        self.commit(payload, call)
    }

    /// Remembers how far the index is seeded, and for which seed.
    pub(super) fn mark(&mut self, seed: &Seed, state: SeedState, call: &Call) -> Result<(), Fault> {
        // A cursor or marker that comes late says less than that the index has stopped.
        if self.payload.state_for(seed) == SeedState::Parked {
            return Ok(());
        }
        let outcome = self.ready().and_then(|()| {
            let payload = Payload { seed: Some(seed.clone()), state, ..self.payload.clone() };
            self.commit(payload, call)
        });
        self.settle(outcome)
    }

    /// The version of what is held of a document: of the stored one, or of its deletion.
    fn held(&self, searcher: &Searcher, id: &str) -> Result<Option<Version>, Fault> {
        if let Some(version) = self.versions.deletion(id) {
            return Ok(Some(version));
        }
        let failed = |error| self.fault("reading a version in", error);
        let query = TermQuery::new(Term::from_field_text(self.layout.id, id), IndexRecordOption::Basic);
        let mut newest = None;
        for address in searcher.search(&query, &DocSetCollector).map_err(failed)? {
            let columns = searcher.segment_reader(address.segment_ord).fast_fields();
            let first = |name| columns.u64(name).map(|column| column.first(address.doc_id));
            let (epoch, build) =
                (first(layout::EPOCH).map_err(failed)?, first(layout::BUILD).map_err(failed)?);
            newest = newest.max(Some(layout::version(epoch, build)));
        }
        Ok(newest)
    }

    /// What is committed.
    fn searcher(&self) -> Result<Searcher, Fault> {
        let reader = self.index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        Ok(reader.map_err(|error| self.fault("reading", error))?.searcher())
    }

    /// Errors: fatal, where it does not stand where it was opened any more.
    pub(super) fn check_standing(&self) -> Result<(), Fault> {
        if self.stands()? { Ok(()) } else { Err(self.gone()) }
    }

    /// Makes sure that the index is there and that its writer holds nothing.
    fn ready(&mut self) -> Result<(), Fault> {
        self.check_standing()?;
        if !self.clean {
            self.roll_back()?;
        }
        Ok(())
    }

    /// The writer, which from here on holds something.
    fn writer(&mut self) -> Result<&mut IndexWriter, Fault> {
        self.clean = false;
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let started = self.index.writer_with_options(self.options.clone());
                let started = started.and_then(settled);
                started.map_err(|error| self.fault("starting the writer of", error))?
            }
        };
        Ok(self.writer.insert(writer))
    }

    /// Commits what the writer holds, together with this payload. Afterwards both are durable.
    fn commit(&mut self, payload: Payload, call: &Call) -> Result<(), Fault> {
        let prepared = match self.writer()?.prepare_commit() {
            Ok(prepared) => prepared,
            Err(error) => return Err(self.died(error)),
        };
        call.still_wanted()?;
        let mut prepared = prepared;
        prepared.set_payload(&payload.to_text());
        prepared.commit().map_err(|error| self.fault("committing to", error))?;
        self.payload = payload;
        self.clean = true;
        Ok(())
    }

    /// Takes back at once what a failed call has left, so that it costs no memory until the next one.
    fn settle<T>(&mut self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        if outcome.is_err() && !self.clean {
            // A failure here is met again, and reported, by the next call.
            let _ = self.roll_back();
        }
        outcome
    }

    fn roll_back(&mut self) -> Result<(), Fault> {
        // A writer that could not be rolled back is not asked again: it has lost its lock.
        if let Some(mut writer) = self.writer.take() {
            let rolled_back = writer.rollback().and_then(|_| settled(writer));
            self.writer = Some(rolled_back.map_err(|error| self.fault("rolling back", error))?);
        }
        // A commit that failed may have taken effect: what is on disk decides.
        let metas = meta::load(&self.index).map_err(|error| self.fault("rolling back", error))?;
        if let Some(payload) = metas.payload.as_deref().and_then(Payload::parse) {
            self.payload = payload;
        }
        self.clean = true;
        Ok(())
    }

    /// Why a worker no longer takes documents: it says so to the one who joins it.
    fn cause(&mut self, refused: TantivyError) -> Fault {
        let prepared = self.writer.as_mut().map(|writer| writer.prepare_commit().err());
        match prepared.flatten() {
            Some(cause) => self.died(cause),
            None => self.fault("writing to", refused),
        }
    }

    /// A worker ended with this error. Where it is that of a panic, a document was at its fault.
    fn died(&self, error: TantivyError) -> Fault {
        let panicked = matches!(error, TantivyError::ErrorInThread(_));
        let fault = self.fault("writing to", error);
        if panicked && fault.kind() == FaultKind::Transient {
            fault.with_kind(FaultKind::Content)
        } else {
            fault
        }
    }

    fn fault(&self, doing: &str, error: TantivyError) -> Fault {
        match self.stands() {
            Ok(false) => self.gone(),
            _ => fault::tantivy(format!("{doing} index `{}`", self.name), &self.path, error),
        }
    }

    fn gone(&self) -> Fault {
        Fault::fatal(format!(
            "index `{}` was removed while it was in use: {} is not there; the next run creates it and seeds it again",
            self.name,
            self.path.join(META).display()
        ))
    }
}

/// A new writer, made safe to go on from the last commit.
///
/// Files that no commit speaks of are removed, because the next one may need their names: the list of what is deleted
/// from a segment is named after the operation stamp of its commit, and stamps are counted on from the last commit that
/// succeeded.
///
/// One stamp is used up. The first of a new writer is that of the last commit itself, and a merge that begins meanwhile
/// takes a deletion with it for one that the segments have seen already: the document would stand there twice.
fn settled(writer: IndexWriter) -> ::tantivy::Result<IndexWriter> {
    writer.garbage_collect_files().wait()?;
    writer.run([])?;
    Ok(writer)
}

/// Removes the files that were not yet renamed into place when a process died. Tantivy keeps no account of them.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(LEFTOVER)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The epoch of the newest run that wrote to the index in this directory.
pub(super) fn epoch_of(path: &Path) -> Result<Epoch, Fault> {
    let failed = |error| fault::tantivy("reading the epoch of an index", path, error);
    let (_, metas) = Durable::open(path).and_then(meta::open).map_err(failed)?;
    let payload = metas.payload.as_deref().and_then(Payload::parse);
    Ok(payload.map_or(Epoch(0), |payload| payload.epoch))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::document::{Document, DocumentId};

    fn put(key: i64, build: u64) -> Write<String> {
        let id = DocumentId::new(IndexName::new("a").unwrap(), key);
        let version = Version { epoch: Epoch(1), build };
        Write { document: Document::upsert(id, format!(r#"{{"v":{build}}}"#)), version }
    }

    #[test]
    fn what_was_given_up_before_its_commit_is_in_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let name = IndexName::new("a").unwrap();
        let options = IndexWriterOptions::builder().build();
        let layout = Layout::of_mapping(&IndexMapping::new(name.clone(), [])).unwrap();
        let mut index = Physical::create(&root, &name, &options, &layout, Epoch(1)).unwrap();
        let seed = Seed { stream: crate::name::StreamId::new("s").unwrap(), definition: "d".into() };
        let epoch = AtomicU64::new(1);
        let (call, _wanted) = Call::issue(&epoch);
        index.write(&[&put(1, 1)], &call).unwrap();
        index.mark(&seed, SeedState::Seeded, &call).unwrap();

        let (late, given_up) = Call::issue(&epoch);
        drop(given_up);
        let ids = |index: &Physical| {
            let searcher = index.searcher().unwrap();
            (1..=5)
                .filter(|key| index.held(&searcher, &key.to_string()).unwrap().is_some())
                .collect::<Vec<_>>()
        };
        for key in 2..5 {
            assert!(index.write(&[&put(1, 9), &put(key, 2)], &late).is_err());
            assert!(index.clear(&late).is_err());
            assert!(index.mark(&seed, SeedState::Seeding(None), &late).is_err());
        }
        assert_eq!(index.state_for(&seed), SeedState::Seeded);
        assert_eq!(ids(&index), [1]);
        index.write(&[&put(5, 3)], &call).unwrap();
        assert_eq!(ids(&index), [1, 5]);
        assert_eq!(index.state_for(&seed), SeedState::Seeded);
        let searcher = index.searcher().unwrap();
        let version = |build| Some(Version { epoch: Epoch(1), build });
        assert_eq!(index.held(&searcher, "1").unwrap(), version(1));
    }
}
