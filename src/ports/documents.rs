//! How documents are made of rows.

use alloc::vec::Vec;
use core::future::Future;

use smol_str::SmolStr;

use crate::change::{Change, Visibility};
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::{IndexName, TableName};
use crate::ports::{SnapshotTable, TableNeeds};

/// An index and where its documents come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexScope {
    /// The index.
    pub index: IndexName,
    /// Its root table: each row of it is one document, whose key is the row's.
    pub root: SnapshotTable,
    /// The other tables whose rows its documents are built from; `None` where nobody said, and then it may be any. When
    /// the root is truncated, the index is cleared and seeded again; when another is, it is rebuilt.
    pub related: Option<Vec<TableName>>,
    /// A fingerprint of how its documents are built. Where it differs from the one an index was seeded under, the index
    /// is seeded again.
    pub definition: SmolStr,
}

impl IndexScope {
    /// An index with a document for each row of `root`.
    #[must_use]
    pub fn new(index: IndexName, root: SnapshotTable) -> Self {
        Self { index, root, related: None, definition: SmolStr::default() }
    }

    /// The same, built from the rows of these tables and of no others besides its root.
    #[must_use]
    pub fn with_related(self, tables: impl IntoIterator<Item = TableName>) -> Self {
        Self { related: Some(tables.into_iter().collect()), ..self }
    }

    /// The same, built in the way that this fingerprint stands for.
    #[must_use]
    pub fn with_definition(self, definition: impl AsRef<str>) -> Self {
        Self { definition: definition.as_ref().into(), ..self }
    }
}

/// The fields of an index, for sinks that create it before anything is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexMapping {
    /// The index.
    pub index: IndexName,
    /// Its fields. An index without any is left to the sink's own defaults.
    pub fields: Vec<Field>,
}

impl IndexMapping {
    /// An index with these fields.
    pub fn new(index: IndexName, fields: impl IntoIterator<Item = Field>) -> Self {
        Self { index, fields: fields.into_iter().collect() }
    }
}

/// One field of an index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name in the document.
    pub name: SmolStr,
    /// What it holds.
    pub kind: FieldKind,
}

impl Field {
    /// A field of this name and kind.
    pub fn new(name: impl AsRef<str>, kind: FieldKind) -> Self {
        Self { name: name.as_ref().into(), kind }
    }
}

/// What a field holds, and how it is searched. A field may hold several values of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FieldKind {
    /// Text, split into words.
    Text,
    /// Text, matched as a whole.
    Keyword,
    /// An integer.
    Integer,
    /// A floating-point number.
    Float,
    /// True or false.
    Bool,
    /// A structure, searched by its inner fields as the sink allows.
    Object,
}

/// The documents that each change of a group touches, in the order of the changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Resolved {
    pub(crate) ids: Vec<DocumentId>,
    /// For each change where its ids end.
    pub(crate) ends: Vec<usize>,
}

impl Resolved {
    /// Room for this many changes.
    #[must_use]
    pub fn with_capacity(changes: usize) -> Self {
        Self { ids: Vec::with_capacity(changes), ends: Vec::with_capacity(changes) }
    }

    /// Takes the documents that the next change touches; none where no index cares about it.
    pub fn push(&mut self, touched: impl IntoIterator<Item = DocumentId>) {
        self.ids.extend(touched);
        self.ends.push(self.ids.len());
    }

    /// How many changes have been answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no change has been answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// A document that could not be built, though others of the same call could.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FailedDocument {
    /// The document.
    pub id: DocumentId,
    /// Why. A transient fault is retried for this document alone, a content fault meets the failure policy of the index.
    pub fault: Fault,
}

/// The answer for one document.
pub type Built<B> = Result<Document<B>, FailedDocument>;

/// Turns changed rows into documents.
///
/// A builder implements [`resolve`](Self::resolve) and either [`build`](Self::build) or
/// [`build_many`](Self::build_many).
pub trait DocumentBuilder: Send + Sync + 'static {
    /// What a document is made of: JSON text, a struct, whatever the sink takes.
    type Body: Send + Sync + 'static;

    /// The documents that a change touches, found through its images where they suffice. A failure that is not transient
    /// ends the run, because it belongs to no index.
    fn resolve(&self, change: &Change) -> impl Future<Output = Result<Vec<DocumentId>, Fault>> + Send;

    /// The documents that each change of a group touches, in the order of the changes. Default:
    /// [`resolve`](Self::resolve), one change after the other.
    fn resolve_many(&self, changes: &[Change]) -> impl Future<Output = Result<Resolved, Fault>> + Send {
        async move {
            let mut resolved = Resolved::with_capacity(changes.len());
            for change in changes {
                resolved.push(self.resolve(change).await?);
            }
            Ok(resolved)
        }
    }

    /// Builds one document from the current rows; a tombstone where its root row is gone.
    fn build(&self, id: &DocumentId) -> impl Future<Output = Result<Document<Self::Body>, Fault>> + Send;

    /// Builds these documents from the current rows, in any order: for each id one document, tombstone, or failure of its
    /// own. It must read a snapshot in which `visibility`, where given, can be seen; where it cannot yet, the answer is
    /// [`Fault::not_yet`]. Default: [`build`](Self::build), one id after the other.
    fn build_many(
        &self,
        ids: &[DocumentId],
        visibility: Option<Visibility>,
    ) -> impl Future<Output = Result<Vec<Built<Self::Body>>, Fault>> + Send {
        let _ = visibility;
        async move {
            let mut built = Vec::with_capacity(ids.len());
            for id in ids {
                match self.build(id).await {
                    Ok(document) => built.push(Ok(document)),
                    Err(fault) if fault.kind() == crate::error::FaultKind::Content => {
                        built.push(Err(FailedDocument { id: id.clone(), fault }));
                    }
                    Err(fault) => return Err(fault),
                }
            }
            Ok(built)
        }
    }

    /// How many bytes a body counts against the limits. Default: the size of its type, which is right for bodies that own
    /// no memory.
    fn body_bytes(&self, body: &Self::Body) -> usize {
        size_of_val(body)
    }

    /// The fields of every index. They are ensured at every start, before anything is written. Default: none, which
    /// leaves the creation of indexes to the sink's first write.
    fn index_mappings(&self) -> impl Future<Output = Result<Vec<IndexMapping>, Fault>> + Send {
        async { Ok(Vec::new()) }
    }

    /// The indexes that can be seeded, each with its root table. Default: none.
    fn backfill_scopes(&self) -> Vec<IndexScope> {
        Vec::new()
    }

    /// What the source must supply for [`resolve`](Self::resolve) to be right. Default: nothing in particular.
    fn needs(&self) -> Vec<TableNeeds> {
        Vec::new()
    }
}
