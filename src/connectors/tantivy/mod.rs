//! A search index in a directory: a [`Sink`](crate::ports::Sink) that writes with the tantivy library, and the means to
//! search what it wrote.
//!
//! ```no_run
//! use syncline::connectors::tantivy::TantivySink;
//! use syncline::name::IndexName;
//!
//! # fn main() -> Result<(), syncline::error::Fault> {
//! let sink = TantivySink::open("/var/lib/app/search")?;
//! // One clone goes to the engine: `Engine::new(capture, documents, sink.clone())`. This one searches.
//! for hit in sink.search(&IndexName::new("users")?, "ada lovelace", 10)? {
//!     println!("{} {} {}", hit.score, hit.id, hit.source);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is written
//!
//! A body is the text of a JSON object. It is stored as it is, and indexed by the mapping of its index, each field by its
//! kind; a field that is not in the mapping is stored only, and null is no value. A document whose field holds a value of
//! another kind, whose body is no object, or whose id or keyword is longer than 65,530 bytes is rejected, with a reason
//! that names the field, and the others of its flush are written. An index that is written without a mapping, or whose
//! mapping has no fields, is searched by all its texts at once (`lovelace`), and by any field under `_dynamic`
//! (`_dynamic.address.city:london`).
//!
//! Each index is a tantivy index of its own, in a directory of its own, whose name is an injective encoding of the
//! index's. One whose mapping has changed is replaced by an empty one, which the engine seeds again; so is one whose
//! directory was removed. What others have put in such a directory is never removed: the sink refuses to replace it.
//!
//! # What is durable
//!
//! A flush is one commit for each index it touches, and returns after the last of them. The seeded marker and the cursor
//! of an index are part of its commits: a process that is killed at any moment leaves the documents and the marker of one
//! and the same commit. Files and directories are synced, so that this also holds for a machine that loses its power, as
//! far as its disk is honest.
//!
//! # Late writes
//!
//! A directory is written by one sink at a time (an operating system lock, gone with the process), and by one call at a
//! time. A call whose future was dropped either was done before everything that was asked for afterwards, or is not done
//! at all. Calls that were made before a run began, and flushes that hold writes of an earlier epoch, are refused with a
//! fatal fault. Of the writes of a run, one that is older than the stored document is passed over; so is one that is
//! older than a deletion, for the last 65,536 deletions of an index.
//!
//! # What is verified
//!
//! The sink can tell what it holds, for [`Running::verify`](crate::Running::verify): as of the last commit, bodies compared as
//! JSON values, the numbers by their exact decimal value, and documents listed from the dictionary of their ids. Meanwhile
//! no other call is done.
//!
//! # What ends a run
//!
//! A full disk, exhausted file handles and interrupted calls are transient: the flush is rolled back, and retried. An index
//! that cannot be read, that another program wrote, or that was removed while it was in use is fatal, and the message
//! names its directory; nothing of it is touched. Without its directory it is created and seeded again.
//!
//! # What it costs
//!
//! Each index that is written has one writer: its threads, and up to the memory of
//! [`writer_memory_bytes`](TantivySinkBuilder::writer_memory_bytes) while a flush is under way. Small commits make small
//! segments, which are merged in the background. A commit syncs about a dozen files: many documents in a flush make it
//! cheap.

mod call;
mod fault;
#[cfg(feature = "__fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod layout;
mod meta;
mod payload;
mod physical;
mod reader;
mod root;
mod sink;
mod versions;

use std::path::Path;
use std::sync::Arc;

use ::tantivy::indexer::IndexWriterOptions;

pub use self::reader::{Documents, Hit, StoredDocument, TantivyReader};
use crate::error::Fault;
use crate::name::IndexName;
use crate::row::Key;

/// The library itself, in the version that [`TantivySink::index`] answers with.
pub use ::tantivy as library;

/// What tantivy takes for one thread.
const THREAD_MEMORY_BYTES: std::ops::Range<usize> = 15_000_000..u32::MAX as usize - 1_000_000;
const MAX_THREADS: usize = 8;

/// Writes documents to the indexes in a directory, and searches them. Clones are the same sink.
#[derive(Debug, Clone)]
pub struct TantivySink {
    shared: Arc<sink::Shared>,
}

/// How a sink writes. See [`TantivySink::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct TantivySinkBuilder {
    writer_memory_bytes: usize,
    writer_threads: usize,
}

impl TantivySinkBuilder {
    /// How much memory the writer of an index may fill before it writes a segment, for all its threads together. Default:
    /// 50,000,000; at least 15,000,000 for each thread.
    pub fn writer_memory_bytes(self, bytes: usize) -> Self {
        Self { writer_memory_bytes: bytes, ..self }
    }

    /// How many threads index the documents of a flush. Each makes a segment of its own. Default: 1; at most 8.
    pub fn writer_threads(self, threads: usize) -> Self {
        Self { writer_threads: threads, ..self }
    }

    /// Opens the directory, and creates it where there is none. It reads and writes files, on the calling thread.
    /// Errors: fatal, where the settings contradict each other, or the directory cannot be used or is open for writing
    /// already.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<TantivySink, Fault> {
        Ok(TantivySink { shared: Arc::new(sink::Shared::open(directory.as_ref(), self)?) })
    }

    fn writer_options(&self) -> Result<IndexWriterOptions, Fault> {
        let Self { writer_memory_bytes: bytes, writer_threads: threads } = *self;
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Fault::fatal(format!("a writer has 1 to {MAX_THREADS} threads, not {threads}")));
        }
        if !THREAD_MEMORY_BYTES.contains(&(bytes / threads)) {
            let std::ops::Range { start, end } = THREAD_MEMORY_BYTES;
            return Err(Fault::fatal(format!(
                "each thread of a writer takes {start} to {end} bytes; {bytes} for {threads} thread(s) are not that"
            )));
        }
        let options = IndexWriterOptions::builder().num_worker_threads(threads).num_merge_threads(1);
        Ok(options.memory_budget_per_thread(bytes / threads).build())
    }
}

impl TantivySink {
    /// Opens the directory with the default settings: see [`TantivySinkBuilder::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Fault> {
        Self::builder().open(directory)
    }

    /// The default settings, to be changed.
    pub fn builder() -> TantivySinkBuilder {
        TantivySinkBuilder { writer_memory_bytes: 50_000_000, writer_threads: 1 }
    }

    /// The reading side alone, which may outlive the sink.
    #[must_use]
    pub fn reader(&self) -> TantivyReader {
        self.shared.reader.clone()
    }

    /// The documents that match this query best: see [`TantivyReader::search`].
    pub fn search(&self, index: &IndexName, query: &str, limit: usize) -> Result<Vec<Hit>, Fault> {
        self.shared.reader.search(index, query, limit)
    }

    /// The body of one document: see [`TantivyReader::get`].
    pub fn get(&self, index: &IndexName, key: &Key) -> Result<Option<String>, Fault> {
        self.shared.reader.get(index, key)
    }

    /// How many documents an index holds: see [`TantivyReader::count`].
    pub fn count(&self, index: &IndexName) -> Result<u64, Fault> {
        self.shared.reader.count(index)
    }

    /// All documents of an index: see [`TantivyReader::documents`].
    pub fn documents(&self, index: &IndexName) -> Result<Documents, Fault> {
        self.shared.reader.documents(index)
    }

    /// The index itself, to be read: see [`TantivyReader::index`].
    pub fn index(&self, index: &IndexName) -> Result<library::Index, Fault> {
        self.shared.reader.index(index)
    }
}
