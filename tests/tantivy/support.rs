//! Short names for what every test writes.

use std::path::Path;

use syncline::connectors::tantivy::TantivySink;
use syncline::document::{Document, DocumentId, Epoch, Version, Write, Writes};
use syncline::name::{IndexName, StreamId};
use syncline::ports::{Field, FieldKind, FlushReport, IndexMapping, Seed, Sink as _};
use syncline::row::Key;

pub(crate) fn index(name: &str) -> IndexName {
    IndexName::new(name).unwrap()
}

pub(crate) fn id(name: &str, key: impl Into<Key>) -> DocumentId {
    DocumentId::new(index(name), key)
}

pub(crate) fn put(id: DocumentId, body: &str, version: (u64, u64)) -> Write<String> {
    let (epoch, build) = version;
    Write { document: Document::upsert(id, body.to_owned()), version: Version { epoch: Epoch(epoch), build } }
}

pub(crate) fn remove(id: DocumentId, version: (u64, u64)) -> Write<String> {
    let (epoch, build) = version;
    Write { document: Document::delete(id), version: Version { epoch: Epoch(epoch), build } }
}

/// Writes documents that must be taken.
pub(crate) async fn flush(sink: &TantivySink, writes: impl IntoIterator<Item = Write<String>>) {
    assert_eq!(try_flush(sink, writes).await, FlushReport::clean());
}

/// Writes documents of which some may be rejected.
pub(crate) async fn try_flush(
    sink: &TantivySink,
    writes: impl IntoIterator<Item = Write<String>>,
) -> FlushReport {
    sink.flush(&writes.into_iter().collect::<Writes<String>>(), false).await.unwrap()
}

pub(crate) fn mapping(name: &str, fields: &[(&str, FieldKind)]) -> IndexMapping {
    IndexMapping::new(index(name), fields.iter().map(|(name, kind)| Field::new(name, *kind)))
}

pub(crate) fn seed(stream: &str, definition: &str) -> Seed {
    Seed { stream: StreamId::new(stream).unwrap(), definition: definition.into() }
}

/// A sink with the least memory, so that many of them fit.
pub(crate) fn open(path: &Path) -> TantivySink {
    TantivySink::builder().writer_memory_bytes(15_000_000).open(path).unwrap()
}

/// The ids and bodies of an index, in the order of the ids.
pub(crate) fn all(sink: &TantivySink, name: &str) -> Vec<(String, String)> {
    let documents = sink.documents(&index(name)).unwrap();
    let mut all: Vec<_> =
        documents.map(|document| document.unwrap()).map(|found| (found.id, found.source)).collect();
    all.sort();
    all
}

/// The files below a directory, by their paths.
pub(crate) fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files
}
