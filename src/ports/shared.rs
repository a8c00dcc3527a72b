//! A port behind an [`Arc`] is a port: a program keeps a hold of what it hands to the engine.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;

use crate::change::{Change, Position, Visibility};
use crate::document::{Document, DocumentId, Epoch, Writes};
use crate::error::Fault;
use crate::name::{IndexName, StreamId};
use crate::ports::{
    Built, ChangeCapture, CuredDocument, DocumentBuilder, FlushReport, Guarantees, IndexMapping, IndexScope,
    KeyStream, Opened, Quarantine, QuarantinedDocument, Resolved, Seed, SeedState, Sink, SnapshotTable,
    TableNeeds,
};
use crate::row::Key;

/// Methods that pass a call on to what is behind the pointer.
macro_rules! pass_on {
    ($($(async $asyncness:tt)? fn $method:ident(&self $(, $argument:ident: $type:ty)*) $(-> $answer:ty)?;)*) => {$(
        pass_on!(@one $($asyncness)? fn $method(&self $(, $argument: $type)*) $(-> $answer)?);
    )*};
    (@one call fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty) => {
        fn $method(&self $(, $argument: $type)*) -> impl Future<Output = Result<$answer, Fault>> + Send {
            (**self).$method($($argument),*)
        }
    };
    (@one fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty) => {
        fn $method(&self $(, $argument: $type)*) -> $answer {
            (**self).$method($($argument),*)
        }
    };
}

impl<C: ChangeCapture> ChangeCapture for Arc<C> {
    pass_on! {
        async call fn prepare(&self, needs: &[TableNeeds]) -> ();
        async call fn open(&self) -> Opened;
        async call fn confirm(&self, stream: &StreamId, position: Position) -> ();
        async call fn snapshot(&self, table: &SnapshotTable, after: Option<&Key>) -> KeyStream;
        async call fn snapshot_seeing(&self, table: &SnapshotTable, after: Option<&Key>, visibility: Option<Visibility>) -> KeyStream;
        async call fn lag(&self) -> Option<u64>;
    }
}

impl<D: DocumentBuilder> DocumentBuilder for Arc<D> {
    type Body = D::Body;

    pass_on! {
        async call fn resolve(&self, change: &Change) -> Vec<DocumentId>;
        async call fn resolve_many(&self, changes: &[Change]) -> Resolved;
        async call fn build(&self, id: &DocumentId) -> Document<D::Body>;
        async call fn build_many(&self, ids: &[DocumentId], visibility: Option<Visibility>) -> Vec<Built<D::Body>>;
        fn body_bytes(&self, body: &D::Body) -> usize;
        async call fn index_mappings(&self) -> Vec<IndexMapping>;
        fn backfill_scopes(&self) -> Vec<IndexScope>;
        fn needs(&self) -> Vec<TableNeeds>;
    }
}

impl<S: Sink> Sink for Arc<S> {
    type Body = S::Body;

    pass_on! {
        fn guarantees(&self) -> Guarantees;
        fn concurrency(&self) -> usize;
        async call fn begin(&self, least: Epoch) -> Epoch;
        async call fn ensure_index(&self, mapping: &IndexMapping) -> ();
        async call fn flush(&self, writes: &Writes<S::Body>, caught_up: bool) -> FlushReport;
        async call fn caught_up(&self) -> ();
        async call fn seed_state(&self, index: &IndexName, seed: &Seed) -> SeedState;
        async call fn clear(&self, index: &IndexName) -> ();
        async call fn rebuild(&self, index: &IndexName) -> ();
        async call fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> ();
        async call fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> ();
        async call fn park(&self, index: &IndexName, seed: &Seed) -> ();
        fn can_verify(&self) -> bool;
        async call fn compare(&self, writes: &Writes<S::Body>) -> Vec<DocumentId>;
        async call fn list(&self, index: &IndexName, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentId>;
    }
}

impl<Q: Quarantine> Quarantine for Arc<Q> {
    pass_on! {
        async call fn load(&self) -> Vec<DocumentId>;
        async call fn record(&self, documents: &[QuarantinedDocument]) -> ();
        async call fn release(&self, documents: &[CuredDocument]) -> ();
    }
}
