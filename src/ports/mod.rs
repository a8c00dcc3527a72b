//! What an embedder implements: where changes come from, how documents are made of them, where they go.
//!
//! The traits have native `async fn`s whose futures are `Send`; an implementation just writes `async fn`. Everything that
//! can have a default has one, so that a first source, builder and sink are some forty lines together. All of them are
//! called from one task, several calls at once, and a call may be dropped at any await: because its attempt took too
//! long, or because the run was dropped. What it had sent by then may still take effect.

mod capture;
pub(crate) mod documents;
mod erased;
mod fan_out;
mod observer;
mod quarantine;
mod shared;
mod sink;

pub use capture::{ChangeCapture, ChangeStream, KeyStream, Opened, SnapshotTable, TableNeeds};
pub use documents::{
    Built, DocumentBuilder, FailedDocument, Field, FieldKind, IndexMapping, IndexScope, Resolved,
};
pub use erased::BoxSink;
pub use fan_out::FanOut;
pub use observer::{BatchStats, Lane, NoopObserver, Observer};
pub use quarantine::{BoxQuarantine, CuredDocument, NoQuarantine, Quarantine, QuarantinedDocument};
pub use sink::{FlushReport, Guarantees, Seed, SeedState, Sink};
