//! The reading side: searching, fetching and listing what is committed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::tantivy::collector::TopDocs;
use ::tantivy::query::{Query, QueryParser, TermQuery};
use ::tantivy::schema::IndexRecordOption;
use ::tantivy::{
    DocAddress, DocSet as _, Index, IndexReader, Opstamp, ReloadPolicy, Searcher, TERMINATED,
    TantivyDocument, TantivyError, Term,
};

use super::fault;
use super::layout::{self, Layout};
use super::meta;
use super::payload::Payload;
use super::root::{Durable, holds_index, place};
use crate::connectors::equal;
use crate::document::{Content, DocumentId, Version, Write, decode_key, encode_key};
use crate::error::Fault;
use crate::name::IndexName;
use crate::row::Key;

/// The longest query text, and how deep its parentheses go: tantivy's parser follows them on the stack.
const MAX_QUERY_BYTES: usize = 8192;
const MAX_QUERY_DEPTH: usize = 64;

/// Reads the indexes of a [`TantivySink`](super::TantivySink), in the same process or in another, also while they are
/// written.
///
/// Every call sees all that was committed when it was made. The calls read files: in asynchronous code they belong on a
/// thread that may block. A clone shares what is open. While files are being opened, a lock file keeps the writer from
/// removing them; so a reader, too, needs the right to create files beside those of the index.
#[derive(Clone)]
pub struct TantivyReader {
    root: Arc<Path>,
    views: Arc<Mutex<BTreeMap<IndexName, View>>>,
}

/// One physical index, open for reading.
#[derive(Clone)]
struct View {
    index: Index,
    layout: Arc<Layout>,
    reader: IndexReader,
    incarnation: Arc<str>,
    /// The commit that the reader has loaded.
    loaded: Opstamp,
}

/// A document that a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its id, as [`encode_key`] writes it.
    pub id: String,
    /// How well it matches; the greater, the better.
    pub score: f32,
    /// Its body, as it was written.
    pub source: String,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its id, as [`encode_key`] writes it.
    pub id: String,
    /// Its body, as it was written.
    pub source: String,
    /// The version of the write.
    pub version: Version,
}

impl StoredDocument {
    /// The key that the id stands for.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        decode_key(&self.id)
    }
}

impl TantivyReader {
    /// Reads the indexes below this directory. Errors: fatal, where it is none.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Fault> {
        let path: PathBuf = directory.as_ref().to_owned();
        if !path.is_dir() {
            return Err(Fault::fatal(format!("{} is no directory", path.display())));
        }
        Ok(Self { root: path.into(), views: Arc::default() })
    }

    /// The documents that match this query best, the best first; at most `limit`.
    ///
    /// The query is in tantivy's query language: words are searched in every text field of the mapping (in the keyword
    /// fields where it has no text field), `tag:new` in the field it names, `more.size:7` inside an object. Errors:
    /// content, where the query cannot be read.
    pub fn search(&self, index: &IndexName, query: &str, limit: usize) -> Result<Vec<Hit>, Fault> {
        let (view, searcher) = self.view(index)?;
        let failed = |error| self.fault("searching", index, error);
        let query = parse_query(&view.index, &view.layout, query)?;
        let limit = limit.min(usize::try_from(searcher.num_docs()).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(Vec::new());
        }
        let best = searcher.search(&query, &TopDocs::with_limit(limit).order_by_score()).map_err(failed)?;
        let hits = best.into_iter().map(|(score, address)| {
            let (id, source) = view.fetch(&searcher, address).map_err(failed)?;
            Ok(Hit { id, score, source })
        });
        hits.collect()
    }

    /// The body of one document; `None` where there is none.
    pub fn get(&self, index: &IndexName, key: &Key) -> Result<Option<String>, Fault> {
        let (view, searcher) = self.view(index)?;
        let failed = |error| self.fault("reading", index, error);
        let found = view.find(&searcher, &encode_key(key)).map_err(failed)?;
        let body = found.map(|address| view.fetch(&searcher, address));
        Ok(body.transpose().map_err(failed)?.map(|(_, source)| source))
    }

    /// Which of these documents of an index it does not hold as they are.
    pub(super) fn compare(
        &self,
        index: &IndexName,
        writes: &[&Write<String>],
    ) -> Result<Vec<DocumentId>, Fault> {
        let (view, searcher) = self.view(index)?;
        let failed = |error| self.fault("comparing the documents of", index, error);
        let mut different = Vec::new();
        for write in writes {
            let id = &write.document.id;
            let found = view.find(&searcher, &id.sink_id()).map_err(failed)?;
            let is_same = match (&write.document.content, found) {
                (Content::Delete, found) => found.is_none(),
                (Content::Upsert(_), None) => false,
                (Content::Upsert(body), Some(address)) => {
                    let (_, source) = view.fetch(&searcher, address).map_err(failed)?;
                    equal::same(&source, body)
                }
            };
            if !is_same {
                different.push(id.clone());
            }
        }
        Ok(different)
    }

    /// The first documents of an index after this one, in the order of their ids, byte by byte; at most `limit`.
    pub(super) fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        let (view, searcher) = self.view(index)?;
        let after = after.map(DocumentId::sink_id);
        let keys = view.keys_after(&searcher, after.as_deref(), limit);
        let keys = keys.map_err(|error| self.fault("listing the documents of", index, error))?;
        Ok(keys.into_iter().map(|key| DocumentId::new(index.clone(), key)).collect())
    }

    /// How many documents an index holds.
    pub fn count(&self, index: &IndexName) -> Result<u64, Fault> {
        Ok(self.view(index)?.1.num_docs())
    }

    /// All documents of an index as they are now, in no particular order. What is committed while they are being read
    /// is not among them.
    pub fn documents(&self, index: &IndexName) -> Result<Documents, Fault> {
        let (view, searcher) = self.view(index)?;
        let path = place(&self.root, index);
        Ok(Documents { view, searcher, path, segment: 0, document: 0 })
    }

    /// The index itself, for everything else that tantivy can do. Its files are the sink's: only read it.
    pub fn index(&self, index: &IndexName) -> Result<Index, Fault> {
        Ok(self.view(index)?.0.index)
    }

    /// Loads the newest commit of every index that has been read.
    pub(super) fn refresh(&self) {
        let names: Vec<IndexName> = self.lock().keys().cloned().collect();
        for name in names {
            // One that cannot be loaded now says so to the next who reads it.
            let _ = self.view(&name);
        }
    }

    /// The index as of its newest commit.
    fn view(&self, name: &IndexName) -> Result<(View, Searcher), Fault> {
        let path = place(&self.root, name);
        let mut views = self.lock();
        if !holds_index(&path)? {
            views.remove(name);
            return Err(Fault::fatal(format!("there is no index `{name}` in {}", self.root.display())));
        }
        let current = match views.remove(name) {
            Some(view) => view.current().ok().flatten(),
            None => None,
        };
        // Opened anew also where the files were replaced while they were being looked at.
        let view = match current {
            Some(view) => view,
            None => View::open(&path).map_err(|error| self.fault("opening", name, error))?,
        };
        views.insert(name.clone(), view.clone());
        let searcher = view.reader.searcher();
        Ok((view, searcher))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IndexName, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, doing: &str, index: &IndexName, error: TantivyError) -> Fault {
        fault::tantivy(format!("{doing} index `{index}`"), &place(&self.root, index), error)
    }
}

impl fmt::Debug for TantivyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TantivyReader").field("root", &self.root).finish_non_exhaustive()
    }
}

impl View {
    fn open(path: &Path) -> ::tantivy::Result<Self> {
        // The commit is read before its files are opened: a newer one in between is loaded once more, none is missed.
        let (index, metas) = meta::open(Durable::open(path)?)?;
        let foreign =
            || TantivyError::SchemaError("the index was not written by this version of the sink".to_owned());
        let (layout, payload) = meta::own(&metas).ok_or_else(foreign)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let (layout, incarnation) = (Arc::new(layout), payload.incarnation.into());
        Ok(Self { index, layout, reader, incarnation, loaded: metas.opstamp })
    }

    /// The same with the newest commit loaded; `None` where another index stands in its place.
    fn current(mut self) -> ::tantivy::Result<Option<Self>> {
        let metas = meta::load(&self.index)?;
        let payload = metas.payload.as_deref().and_then(Payload::parse);
        if payload.is_none_or(|payload| *payload.incarnation != *self.incarnation) {
            return Ok(None);
        }
        if metas.opstamp != self.loaded {
            self.reader.reload()?;
            self.loaded = metas.opstamp;
        }
        Ok(Some(self))
    }

    fn find(&self, searcher: &Searcher, id: &str) -> ::tantivy::Result<Option<DocAddress>> {
        let query = TermQuery::new(Term::from_field_text(self.layout.id, id), IndexRecordOption::Basic);
        let found = searcher.search(&query, &TopDocs::with_limit(1).order_by_score())?;
        Ok(found.first().map(|(_, address)| *address))
    }

    /// The keys of the first documents whose ids come after this one. The dictionary of each segment is in the order of
    /// the bytes, and still holds the ids of what is deleted.
    fn keys_after(
        &self,
        searcher: &Searcher,
        after: Option<&str>,
        limit: usize,
    ) -> ::tantivy::Result<Vec<Key>> {
        let mut first: BTreeMap<Vec<u8>, Key> = BTreeMap::new();
        for segment in searcher.segment_readers() {
            let ids = segment.inverted_index(self.layout.id)?;
            let range = ids.terms().range();
            let mut stream = match after {
                Some(after) => range.gt(after).into_stream()?,
                None => range.into_stream()?,
            };
            while let Some((id, info)) = stream.next() {
                let is_full = first.len() >= limit;
                if is_full && first.last_key_value().is_none_or(|(last, _)| id > last.as_slice()) {
                    break;
                }
                let mut postings = ids.read_postings_from_terminfo(info, IndexRecordOption::Basic)?;
                while postings.doc() != TERMINATED && segment.is_deleted(postings.doc()) {
                    postings.advance();
                }
                if postings.doc() == TERMINATED {
                    continue;
                }
                // What no key is written as was not written by an engine.
                if let Some(key) = std::str::from_utf8(id).ok().and_then(decode_key) {
                    first.insert(id.to_owned(), key);
                    if is_full {
                        first.pop_last();
                    }
                }
            }
        }
        Ok(first.into_values().collect())
    }

    fn fetch(&self, searcher: &Searcher, address: DocAddress) -> ::tantivy::Result<(String, String)> {
        let document: TantivyDocument = searcher.doc(address)?;
        let stored = self.layout.stored(&document);
        stored.ok_or_else(|| TantivyError::InternalError("a document has no id or no source".to_owned()))
    }
}

pub(super) fn parse_query(index: &Index, layout: &Layout, query: &str) -> Result<Box<dyn Query>, Fault> {
    check_query(query)?;
    QueryParser::for_index(index, layout.searched())
        .parse_query(query)
        .map_err(|error| Fault::content(format!("the query {query:?} cannot be read: {error}")))
}

fn check_query(query: &str) -> Result<(), Fault> {
    if query.len() > MAX_QUERY_BYTES {
        let bytes = query.len();
        return Err(Fault::content(format!(
            "the query is {bytes} bytes long; at most {MAX_QUERY_BYTES} are read"
        )));
    }
    // With some of them tantivy ends the names inside a structure, and panics where a query does.
    if let Some(control) = query.chars().find(|c| c.is_control() && !c.is_whitespace()) {
        return Err(Fault::content(format!("the query holds the control character {control:?}")));
    }
    if query.bytes().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() > MAX_QUERY_DEPTH {
        return Err(Fault::content(format!("the query has more than {MAX_QUERY_DEPTH} opening parentheses")));
    }
    Ok(())
}

/// The documents of an index, one after the other. See [`TantivyReader::documents`].
#[derive(Clone)]
pub struct Documents {
    view: View,
    searcher: Searcher,
    path: PathBuf,
    segment: u32,
    document: u32,
}

impl Documents {
    fn read(&self, address: DocAddress) -> ::tantivy::Result<StoredDocument> {
        let (id, source) = self.view.fetch(&self.searcher, address)?;
        let columns = self.searcher.segment_reader(address.segment_ord).fast_fields();
        let first = |name| columns.u64(name).map(|column| column.first(address.doc_id));
        let version = layout::version(first(layout::EPOCH)?, first(layout::BUILD)?);
        Ok(StoredDocument { id, source, version })
    }
}

impl Iterator for Documents {
    type Item = Result<StoredDocument, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let segment = self.searcher.segment_readers().get(self.segment as usize)?;
            if self.document >= segment.max_doc() {
                (self.segment, self.document) = (self.segment + 1, 0);
                continue;
            }
            let address = DocAddress { segment_ord: self.segment, doc_id: self.document };
            self.document += 1;
            if !segment.alive_bitset().is_some_and(|alive| alive.is_deleted(address.doc_id)) {
                let read = self.read(address);
                return Some(read.map_err(|error| fault::tantivy("reading documents", &self.path, error)));
            }
        }
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = (self.segment, self.document);
        f.debug_struct("Documents").field("path", &self.path).field("next", &next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_a_query_that_the_library_would_panic_at_is_refused() {
        assert!(check_query("f.x\0y:1").unwrap_err().message().contains("control character '\\0'"));
        assert!(check_query("a\tb:\n(c)").is_ok());
        assert!(check_query(&"(".repeat(65)).is_err());
    }
}
