//! Several sinks as one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use futures::future::join_all;

use crate::document::{DocumentId, Epoch, Writes};
use crate::error::{Fault, RejectedDocument};
use crate::name::IndexName;
use crate::ports::{BoxSink, FlushReport, Guarantees, IndexMapping, Seed, SeedState, Sink};
use crate::row::Key;

/// Writes every document to several sinks at once, and is as far as the one that is least far.
///
/// A document is applied once all have applied it, throttled where one throttled it, rejected where one rejected it (then
/// the others may hold it). An index is seeded where it is seeded in all, parked where it is parked in one, and is cleared,
/// or rebuilt, in all before it is seeded again: of what each has searched meanwhile, and until when, it decides alone.
/// An index can be verified where all can tell what they hold: a document differs where it differs in one, and is then
/// written to all; what one holds is listed. All are raised to the greatest epoch among them, so that one that joins later, or was emptied, counts on from
/// there.
#[derive(Debug, Clone)]
pub struct FanOut<B> {
    sinks: Vec<BoxSink<B>>,
}

impl<B: Send + Sync + 'static> FanOut<B> {
    /// Over these sinks. Without any, everything is applied to nothing.
    pub fn new(sinks: impl IntoIterator<Item = BoxSink<B>>) -> Self {
        Self { sinks: sinks.into_iter().collect() }
    }
}

/// The answers of all calls, which were waited for also where one has failed: a call that is dropped may still take
/// effect, later than its repetition and what follows it. Errors: the first, in the order of the sinks.
fn all<T>(answers: Vec<Result<T, Fault>>) -> Result<Vec<T>, Fault> {
    answers.into_iter().collect()
}

impl<B: Send + Sync + 'static> Sink for FanOut<B> {
    type Body = B;

    fn guarantees(&self) -> Guarantees {
        let each = |promise: fn(Guarantees) -> bool| self.sinks.iter().all(|sink| promise(sink.guarantees()));
        Guarantees {
            refuses_older_versions: each(|sink| sink.refuses_older_versions),
            refuses_older_epochs: each(|sink| sink.refuses_older_epochs),
        }
    }

    fn concurrency(&self) -> usize {
        self.sinks.iter().map(Sink::concurrency).min().unwrap_or(1)
    }

    async fn begin(&self, least: Epoch) -> Result<Epoch, Fault> {
        let epochs = all(join_all(self.sinks.iter().map(|sink| sink.begin(least))).await)?;
        let epoch = epochs.iter().copied().max().unwrap_or(least);
        let behind = self.sinks.iter().zip(epochs).filter(|(_, begun)| *begun < epoch);
        let raised = all(join_all(behind.map(|(sink, _)| sink.begin(epoch))).await)?;
        Ok(raised.into_iter().max().unwrap_or(epoch))
    }

    async fn ensure_index(&self, mapping: &IndexMapping) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.ensure_index(mapping))).await).map(drop)
    }

    async fn flush(&self, writes: &Writes<B>, caught_up: bool) -> Result<FlushReport, Fault> {
        let reports = all(join_all(self.sinks.iter().map(|sink| sink.flush(writes, caught_up))).await)?;
        let mut rejected: BTreeMap<DocumentId, RejectedDocument> = BTreeMap::new();
        let mut throttled: Vec<DocumentId> = Vec::new();
        for report in reports {
            throttled.extend(report.throttled);
            rejected.extend(report.rejected.into_iter().map(|document| (document.id.clone(), document)));
        }
        throttled.retain(|id| !rejected.contains_key(id));
        throttled.sort_unstable();
        throttled.dedup();
        Ok(FlushReport { rejected: rejected.into_values().collect(), throttled })
    }

    async fn caught_up(&self) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(Sink::caught_up)).await).map(drop)
    }

    async fn seed_state(&self, index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let states = all(join_all(self.sinks.iter().map(|sink| sink.seed_state(index, seed))).await)?;
        // A sink that is seeded holds what the others still lack, so the least cursor serves all.
        Ok(states.into_iter().fold(SeedState::Seeded, |least, state| match (least, state) {
            (SeedState::Unseeded, _) | (_, SeedState::Unseeded) => SeedState::Unseeded,
            (SeedState::Parked, _) | (_, SeedState::Parked) => SeedState::Parked,
            (SeedState::Seeded, state) | (state, SeedState::Seeded) => state,
            (SeedState::Seeding(a), SeedState::Seeding(b)) => SeedState::Seeding(a.min(b)),
        }))
    }

    async fn clear(&self, index: &IndexName) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.clear(index))).await).map(drop)
    }

    async fn rebuild(&self, index: &IndexName) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.rebuild(index))).await).map(drop)
    }

    async fn save_cursor(&self, index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.save_cursor(index, seed, after))).await).map(drop)
    }

    async fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.mark_seeded(index, seed))).await).map(drop)
    }

    async fn park(&self, index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        all(join_all(self.sinks.iter().map(|sink| sink.park(index, seed))).await).map(drop)
    }

    fn can_verify(&self) -> bool {
        self.sinks.iter().all(Sink::can_verify)
    }

    async fn compare(&self, writes: &Writes<B>) -> Result<Vec<DocumentId>, Fault> {
        let different = all(join_all(self.sinks.iter().map(|sink| sink.compare(writes))).await)?;
        let different: BTreeSet<DocumentId> = different.into_iter().flatten().collect();
        Ok(different.into_iter().collect())
    }

    async fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, Fault> {
        let held = all(join_all(self.sinks.iter().map(|sink| sink.list(index, after, limit))).await)?;
        // The first of each: among them are the first of all.
        let held: BTreeMap<_, DocumentId> = held.into_iter().flatten().map(|id| (id.sink_id(), id)).collect();
        Ok(held.into_values().take(limit).collect())
    }
}
