//! Where documents that were skipped are remembered.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;

use futures::future::BoxFuture;

use crate::change::Operation;
use crate::document::{DocumentId, Version};
use crate::error::Fault;

/// A record of a document that was skipped. It holds no body: the document is built anew when it is tried again.
///
/// A store adds the times at which it first and last wrote the record; the engine has no calendar.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuarantinedDocument {
    /// The document.
    pub id: DocumentId,
    /// What was to be done to it.
    pub operation: Operation,
    /// Why it was not.
    pub reason: Arc<str>,
    /// How often the last unit tried it.
    pub attempts: u32,
    /// How new what was refused is.
    pub version: Version,
}

/// A document that stood in quarantine, and was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CuredDocument {
    /// The document.
    pub id: DocumentId,
    /// How new what was written is.
    pub version: Version,
}

/// A durable store of skipped documents.
///
/// Its documents are tried once more at every start, and leave it when a write of them succeeds.
pub trait Quarantine: Send + Sync + 'static {
    /// Every document in the store.
    fn load(&self) -> impl Future<Output = Result<Vec<DocumentId>, Fault>> + Send;

    /// Durably adds these records, replacing those of the same ids. The changes that touched them are acknowledged once
    /// this has returned.
    fn record(&self, documents: &[QuarantinedDocument]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Durably removes the records of these documents, where there is one and it is no newer than what was written: a
    /// call that was given up may still arrive, later than a record of a newer refusal.
    fn release(&self, documents: &[CuredDocument]) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Remembers nothing: the default. What is skipped is told to the observer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NoQuarantine;

impl Quarantine for NoQuarantine {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        Ok(Vec::new())
    }

    async fn record(&self, _documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        Ok(())
    }

    async fn release(&self, _documents: &[CuredDocument]) -> Result<(), Fault> {
        Ok(())
    }
}

/// A quarantine chosen at run time.
#[derive(Clone)]
pub struct BoxQuarantine(Arc<dyn Erased>);

impl BoxQuarantine {
    /// Erases the type.
    pub fn new(quarantine: impl Quarantine) -> Self {
        Self(Arc::new(quarantine))
    }
}

impl core::fmt::Debug for BoxQuarantine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BoxQuarantine")
    }
}

trait Erased: Send + Sync {
    fn load(&self) -> BoxFuture<'_, Result<Vec<DocumentId>, Fault>>;
    fn record<'a>(&'a self, documents: &'a [QuarantinedDocument]) -> BoxFuture<'a, Result<(), Fault>>;
    fn release<'a>(&'a self, documents: &'a [CuredDocument]) -> BoxFuture<'a, Result<(), Fault>>;
}

impl<Q: Quarantine> Erased for Q {
    fn load(&self) -> BoxFuture<'_, Result<Vec<DocumentId>, Fault>> {
        Box::pin(Quarantine::load(self))
    }

    fn record<'a>(&'a self, documents: &'a [QuarantinedDocument]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Quarantine::record(self, documents))
    }

    fn release<'a>(&'a self, documents: &'a [CuredDocument]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Quarantine::release(self, documents))
    }
}

impl Quarantine for BoxQuarantine {
    async fn load(&self) -> Result<Vec<DocumentId>, Fault> {
        self.0.load().await
    }

    async fn record(&self, documents: &[QuarantinedDocument]) -> Result<(), Fault> {
        self.0.record(documents).await
    }

    async fn release(&self, documents: &[CuredDocument]) -> Result<(), Fault> {
        self.0.release(documents).await
    }
}
