//! A sink chosen at run time.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use futures::future::BoxFuture;

use crate::document::{DocumentId, Epoch, Writes};
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{FlushReport, Guarantees, IndexMapping, Seed, SeedState, Sink};
use crate::row::Key;

/// A [`Sink`] whose type is erased, at the price of one allocation a call. Cheap to clone.
pub struct BoxSink<B>(Arc<dyn Erased<B>>);

impl<B: Send + Sync + 'static> BoxSink<B> {
    /// Erases the type.
    pub fn new(sink: impl Sink<Body = B>) -> Self {
        Self(Arc::new(sink))
    }
}

impl<B> Clone for BoxSink<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> core::fmt::Debug for BoxSink<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BoxSink")
    }
}

/// The methods of [`Sink`] in a form that a `dyn` can have.
trait Erased<B>: Send + Sync {
    fn guarantees(&self) -> Guarantees;
    fn concurrency(&self) -> usize;
    fn begin(&self, least: Epoch) -> BoxFuture<'_, Result<Epoch, Fault>>;
    fn ensure_index<'a>(&'a self, mapping: &'a IndexMapping) -> BoxFuture<'a, Result<(), Fault>>;
    fn flush<'a>(
        &'a self,
        writes: &'a Writes<B>,
        caught_up: bool,
    ) -> BoxFuture<'a, Result<FlushReport, Fault>>;
    fn caught_up(&self) -> BoxFuture<'_, Result<(), Fault>>;
    fn seed_state<'a>(
        &'a self,
        index: &'a IndexName,
        seed: &'a Seed,
    ) -> BoxFuture<'a, Result<SeedState, Fault>>;
    fn clear<'a>(&'a self, index: &'a IndexName) -> BoxFuture<'a, Result<(), Fault>>;
    fn rebuild<'a>(&'a self, index: &'a IndexName) -> BoxFuture<'a, Result<(), Fault>>;
    fn save_cursor<'a>(
        &'a self,
        index: &'a IndexName,
        seed: &'a Seed,
        after: Option<&'a Key>,
    ) -> BoxFuture<'a, Result<(), Fault>>;
    fn mark_seeded<'a>(&'a self, index: &'a IndexName, seed: &'a Seed) -> BoxFuture<'a, Result<(), Fault>>;
    fn park<'a>(&'a self, index: &'a IndexName, seed: &'a Seed) -> BoxFuture<'a, Result<(), Fault>>;
    fn can_verify(&self) -> bool;
    fn compare<'a>(&'a self, writes: &'a Writes<B>) -> BoxFuture<'a, Result<Vec<DocumentId>, Fault>>;
    fn list<'a>(
        &'a self,
        index: &'a IndexName,
        after: Option<&'a DocumentId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DocumentId>, Fault>>;
}

impl<S: Sink> Erased<S::Body> for S {
    fn guarantees(&self) -> Guarantees {
        Sink::guarantees(self)
    }

    fn concurrency(&self) -> usize {
        Sink::concurrency(self)
    }

    fn begin(&self, least: Epoch) -> BoxFuture<'_, Result<Epoch, Fault>> {
        Box::pin(Sink::begin(self, least))
    }

    fn ensure_index<'a>(&'a self, mapping: &'a IndexMapping) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::ensure_index(self, mapping))
    }

    fn flush<'a>(
        &'a self,
        writes: &'a Writes<S::Body>,
        caught_up: bool,
    ) -> BoxFuture<'a, Result<FlushReport, Fault>> {
        Box::pin(Sink::flush(self, writes, caught_up))
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(Sink::caught_up(self))
    }

    fn seed_state<'a>(
        &'a self,
        index: &'a IndexName,
        seed: &'a Seed,
    ) -> BoxFuture<'a, Result<SeedState, Fault>> {
        Box::pin(Sink::seed_state(self, index, seed))
    }

    fn clear<'a>(&'a self, index: &'a IndexName) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::clear(self, index))
    }

    fn rebuild<'a>(&'a self, index: &'a IndexName) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::rebuild(self, index))
    }

    fn save_cursor<'a>(
        &'a self,
        index: &'a IndexName,
        seed: &'a Seed,
        after: Option<&'a Key>,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::save_cursor(self, index, seed, after))
    }

    fn mark_seeded<'a>(&'a self, index: &'a IndexName, seed: &'a Seed) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::mark_seeded(self, index, seed))
    }

    fn park<'a>(&'a self, index: &'a IndexName, seed: &'a Seed) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Sink::park(self, index, seed))
    }

    fn can_verify(&self) -> bool {
        Sink::can_verify(self)
    }

    fn compare<'a>(&'a self, writes: &'a Writes<S::Body>) -> BoxFuture<'a, Result<Vec<DocumentId>, Fault>> {
        Box::pin(Sink::compare(self, writes))
    }

    fn list<'a>(
        &'a self,
        index: &'a IndexName,
        after: Option<&'a DocumentId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DocumentId>, Fault>> {
        Box::pin(Sink::list(self, index, after, limit))
    }
}

impl<B: Send + Sync + 'static> Sink for BoxSink<B> {
    type Body = B;

    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    fn concurrency(&self) -> usize {
        self.0.concurrency()
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        self.0.begin(least).await
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        self.0.ensure_index(mapping).await
    }

    async fn flush(&self, writes: &Writes<B>, caught_up: bool) -> Result<FlushReport, Fault> {
        self.0.flush(writes, caught_up).await
    }

    async fn caught_up(&self) -> Result<(), Fault> {
        self.0.caught_up().await
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        self.0.seed_state(index, seed).await
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        self.0.clear(index).await
    }

    async fn rebuild(&self, index: &IndexName) -> Result<(), Fault> {
        self.0.rebuild(index).await
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        self.0.save_cursor(index, seed, after).await
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        self.0.mark_seeded(index, seed).await
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        self.0.park(index, seed).await
    }

    fn can_verify(&self) -> bool {
        self.0.can_verify()
    }

    async fn compare(&self, writes: &Writes<B>) -> Result<Vec<DocumentId>, Fault> {
        self.0.compare(writes).await
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        self.0.list(index, after, limit).await
    }
}
