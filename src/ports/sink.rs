//! Where documents go.

use alloc::vec::Vec;
use core::future::Future;

use smol_str::SmolStr;

use crate::document::{DocumentId, Epoch, Writes};
use crate::error::{Fault, RejectedDocument};
use crate::name::{IndexName, StreamId};
use crate::ports::IndexMapping;
use crate::row::Key;

/// What a flush did with each document. Those that are named nowhere were applied, and are durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct FlushReport {
    /// Documents that the sink will not take as they are. Deleting what is not there is no rejection.
    pub rejected: Vec<RejectedDocument>,
    /// Documents that the sink could not take at the moment (a 429 or 503 of their own): retried, these alone.
    pub throttled: Vec<DocumentId>,
}

impl FlushReport {
    /// Every document was applied.
    pub fn clean() -> Self {
        Self::default()
    }

    /// All but these were applied.
    pub fn rejected(rejected: impl IntoIterator<Item = RejectedDocument>) -> Self {
        Self { rejected: rejected.into_iter().collect(), throttled: Vec::new() }
    }
}

/// What a seeded marker or a cursor holds for: under another stream or another definition it says nothing. The physical
/// index is the sink's to add: the marker of an index that was deleted by hand must be gone with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seed {
    /// The stream whose changes have kept the index current since.
    pub stream: StreamId,
    /// How its documents are built.
    pub definition: SmolStr,
}

/// How far an index has been seeded, for one [`Seed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum SeedState {
    /// Not at all, or for another seed. It will be rebuilt, or cleared, first.
    #[default]
    Unseeded,
    /// It was emptied, and every row up to this key is durable (`None`: from the start of the table).
    Seeding(Option<Key>),
    /// Wholly.
    Seeded,
    /// It has stopped alone: see [`Sink::park`].
    Parked,
}

/// What a sink promises about writes that arrive after their sender gave them up.
///
/// Without these, a request that was given up by its time limit, or whose run has died, may land after a newer write of
/// the same document and undo it, until the document changes again. See the engine's guarantees in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guarantees {
    /// A write whose version is older than the stored one is not applied, tombstones included, and that is no failure.
    pub refuses_older_versions: bool,
    /// Once a run has begun, no write of an earlier run is applied.
    pub refuses_older_epochs: bool,
}

/// A destination of documents.
///
/// A first sink implements [`flush`](Self::flush) alone. To be seeded once instead of at every start it remembers
/// markers and cursors; to survive late writes it checks versions.
pub trait Sink: Send + Sync + 'static {
    /// What the documents it takes are made of.
    type Body: Send + Sync + 'static;

    /// What it promises about late writes. Default: nothing.
    fn guarantees(&self) -> Guarantees {
        Guarantees::default()
    }

    /// How many flushes it takes at once. Default: one.
    fn concurrency(&self) -> usize {
        1
    }

    /// Begins a run: durably raises the epoch by one, and to `least` at the least, and returns it. Default: `least`, for a
    /// sink that checks no versions.
    fn begin(&self, least: Epoch) -> impl Future<Output = Result<Epoch, Fault>> + Send {
        async move { Ok(least) }
    }

    /// Creates an index where there is none, or checks that it fits. Called for every mapping at every start, before
    /// anything is written. Default: nothing.
    fn ensure_index(&self, mapping: &IndexMapping) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = mapping;
        async { Ok(()) }
    }

    /// Writes these documents, and returns once they are durable. `caught_up` tells that nothing live waits behind them:
    /// a good moment to make them visible. Errors speak of the whole call; what a transient one had written by then is
    /// written again.
    fn flush(
        &self,
        writes: &Writes<Self::Body>,
        caught_up: bool,
    ) -> impl Future<Output = Result<FlushReport, Fault>> + Send;

    /// Tells that nothing live is waiting, where that became true only after a flush that was told otherwise. Default:
    /// nothing.
    fn caught_up(&self) -> impl Future<Output = Result<(), Fault>> + Send {
        async { Ok(()) }
    }

    /// How far an index has been seeded for this seed. Default: not at all.
    fn seed_state(
        &self,
        index: &IndexName,
        seed: &Seed,
    ) -> impl Future<Output = Result<SeedState, Fault>> + Send {
        let _ = (index, seed);
        async { Ok(SeedState::Unseeded) }
    }

    /// Durably removes every document of an index, and its marker and cursor, before it is seeded: its root table was
    /// truncated, and what it held is found no longer once this has returned. Default: nothing, for a sink that starts empty.
    ///
    /// No document of the index is in flight while this runs, but what was given up by its time limit may still land: a
    /// write that was sent before, or this very call, once a repetition of it was answered and new documents are written.
    /// Where calls can outlive their sender, clear by starting a new physical index that later calls name, so that what
    /// lands late reaches the old one; against late writes alone, it is enough to keep the versions of what is removed.
    fn clear(&self, index: &IndexName) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = index;
        async { Ok(()) }
    }

    /// Begins an index anew, empty, because it is to be seeded again though its rows are still there: someone asked for it,
    /// its definition has changed, the position was lost, a related table was truncated. Once this has returned, all that
    /// the engine can see of the index is durably that of a new one: [`seed_state`](Self::seed_state),
    /// [`save_cursor`](Self::save_cursor), [`park`](Self::park), [`compare`](Self::compare), [`list`](Self::list), and what
    /// [`flush`](Self::flush) answers. What searches find may stay the old one, kept current by every flush as well as it can
    /// be, until [`mark_seeded`](Self::mark_seeded) has put the new one in its place; across runs, too. Default:
    /// [`clear`](Self::clear), for a sink that keeps one of each index.
    ///
    /// What holds of a clear that is repeated or lands late holds here. It is asked for again while an index is being rebuilt:
    /// then the new one is begun once more, and the old one stays; and `clear` is asked for meanwhile, which ends both.
    fn rebuild(&self, index: &IndexName) -> impl Future<Output = Result<(), Fault>> + Send {
        self.clear(index)
    }

    /// Durably remembers that every row up to `after` has been written (`None`: that the index was emptied). Default:
    /// nothing, so that a seeding that was interrupted starts again.
    ///
    /// Where calls can outlive their sender, one may land after a later one of the same seed and physical index. An older
    /// cursor costs a scan of what was scanned already; a marker is better kept, because a cursor in its place has the
    /// next run scan the index once more.
    fn save_cursor(
        &self,
        index: &IndexName,
        seed: &Seed,
        after: Option<&Key>,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = (index, seed, after);
        async { Ok(()) }
    }

    /// Durably remembers that an index has stopped alone, in place of its marker or cursor, and keeps what it holds.
    /// [`seed_state`](Self::seed_state) tells so until it is emptied. Asked for where the failure policy of an index is
    /// [`Park`](crate::FailurePolicy::Park). Default: a fault, because an index that is still marked as seeded would be
    /// taken for current by the next run; a sink that remembers no markers has nothing to do here.
    ///
    /// A cursor or marker that lands late, of a call that was given up, must not take its place. Where the sink does not
    /// refuse the writes of older epochs, this may land late itself, after its run has died and the next one has begun to
    /// seed the index: nothing is lost, and the run after that finds the index stopped.
    fn park(&self, index: &IndexName, seed: &Seed) -> impl Future<Output = Result<(), Fault>> + Send {
        let fault = Fault::fatal(alloc::format!("the sink cannot remember that index {index} is parked"));
        let _ = seed;
        async { Err(fault) }
    }

    /// Whether it can tell what it holds: [`compare`](Self::compare) and [`list`](Self::list). Default: no, so that no index
    /// can be [verified](crate::Running::verify).
    fn can_verify(&self) -> bool {
        false
    }

    /// Which of these documents it does not hold as they are; a deletion where it holds the document at all. Versions are
    /// not compared, and nothing is written. No document of them is in flight while this runs. Default: a fault.
    fn compare(
        &self,
        writes: &Writes<Self::Body>,
    ) -> impl Future<Output = Result<Vec<DocumentId>, Fault>> + Send {
        let _ = writes;
        async { Err(Fault::fatal("the sink cannot compare documents")) }
    }

    /// At most `limit` of the documents that an index holds: the first after this one, in the order of their
    /// [names](DocumentId::sink_id), byte by byte; none where there are no more. A document that is written or deleted meanwhile may be told or not. Default: a fault.
    fn list(
        &self,
        index: &IndexName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DocumentId>, Fault>> + Send {
        let _ = (index, after, limit);
        async { Err(Fault::fatal("the sink cannot list documents")) }
    }

    /// Durably remembers that an index is seeded; one that was being rebuilt is what searches find from now on. Default:
    /// nothing, so that it is seeded again at the next start.
    fn mark_seeded(&self, index: &IndexName, seed: &Seed) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = (index, seed);
        async { Ok(()) }
    }
}
