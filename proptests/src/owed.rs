//! A naive account of what the pipeline owes, kept from its commands and answers alone.
//!
//! The pipeline keeps one holder for each document and lane, in a ledger that forgets; this keeps every change with every
//! document that it touched, in sets. The watermark must come out the same.

use std::collections::{BTreeMap, BTreeSet};

use syncline::pipeline::CallId;
use syncline::{Captures, Change, DocumentId, IndexName, Position, TableName};

/// The changes that a document is owed for; `None` where it flies for a row of a snapshot alone.
type Debt = Option<BTreeSet<u64>>;

/// What a run owes.
#[derive(Debug, Clone, Default)]
pub struct Owed {
    captured: u64,
    /// How many of those are of earlier streams.
    foreign: u64,
    unresolved: BTreeSet<u64>,
    resolves: BTreeMap<CallId, Vec<u64>>,
    /// Answers wait here until those of all earlier changes are there.
    answered: BTreeMap<u64, Vec<DocumentId>>,
    waiting: BTreeMap<DocumentId, BTreeSet<u64>>,
    flying: BTreeMap<DocumentId, Debt>,
    /// For each truncation, and each change of a document that failed while its index was to be emptied, the indexes that are
    /// not emptied yet, and whether a clear alone will do, because its root table is the one that was truncated.
    truncations: BTreeMap<u64, BTreeMap<IndexName, bool>>,
    /// Indexes that were emptied, and of which nothing has been built since.
    empty: BTreeSet<IndexName>,
    /// Those of them that were not cleared, but rebuilt.
    rebuilt: BTreeSet<IndexName>,
    /// Indexes that are to stop alone, and those that have.
    parking: BTreeSet<IndexName>,
    parked: BTreeSet<IndexName>,
    /// The documents for which they stop.
    stopped: BTreeSet<DocumentId>,
    /// Indexes that someone asked to be seeded anew, and that are not cleared yet.
    anew: BTreeSet<IndexName>,
    /// Each with the number of changes before it.
    checkpoints: Vec<(u64, Position)>,
    safe: Option<Position>,
    quarantined: BTreeSet<DocumentId>,
    /// What a stream touched that is lost, while the run does not know that it is.
    lost: BTreeSet<DocumentId>,
    compared: BTreeMap<IndexName, Compared>,
    /// Indexes that someone asked to be compared in this run.
    verified: BTreeSet<IndexName>,
}

/// What is known of an index that is being compared with its source.
#[derive(Debug, Clone)]
pub struct Compared {
    /// What was otherwise than it should be when it began.
    pub differed: BTreeSet<DocumentId>,
    /// Up to where the source was told then that all is durable.
    pub confirmed: Position,
    /// What was found to differ, and no change has touched since.
    pub found: BTreeSet<DocumentId>,
    /// Whether a change has touched any of it since it began.
    pub touched: bool,
}

impl Owed {
    /// How many changes were captured: the number of the next one.
    pub fn captured(&self) -> u64 {
        self.captured
    }

    /// The capture yields these. `built_from` tells which indexes are built from a table, and whether it is their root.
    pub fn on_captured(
        &mut self,
        items: &Captures,
        built_from: impl Fn(&TableName) -> Vec<(IndexName, bool)>,
    ) {
        let before = self.captured;
        self.captured += items.counted() as u64;
        self.unresolved.extend(before..self.captured);
        for (at, truncation) in items.truncations() {
            let number = before + at as u64;
            self.unresolved.remove(&number);
            let mut owed: BTreeMap<IndexName, bool> = BTreeMap::new();
            for (index, is_root) in truncation.tables.iter().flat_map(&built_from) {
                *owed.entry(index).or_default() |= is_root;
            }
            owed.retain(|index, is_root| {
                let is_empty = self.empty.contains(index) && !(*is_root && self.rebuilt.contains(index));
                !is_empty && !self.parked.contains(index)
            });
            for index in owed.keys() {
                // One that was rebuilt is to be cleared now, whatever is truncated until then.
                self.empty.remove(index);
                self.rebuilt.remove(index);
            }
            if !owed.is_empty() {
                self.truncations.insert(number, owed);
            }
        }
        let checkpoints = items.checkpoints().into_iter();
        self.checkpoints.extend(checkpoints.map(|(at, position)| (before + at as u64, position)));
    }

    /// Another stream was opened: its positions are others, and every index will be emptied.
    pub fn on_new_stream(&mut self) {
        self.foreign = self.captured;
        self.checkpoints.clear();
        self.safe = None;
        self.empty.clear();
        self.rebuilt.clear();
        self.parking.clear();
        self.parked.clear();
        self.lost.clear();
        for id in core::mem::take(&mut self.stopped) {
            self.flying.remove(&id);
        }
    }

    /// The stream is lost, which the run does not know yet. It goes on with what it has of it: changes of these documents.
    pub fn on_lost(&mut self, touched: BTreeSet<DocumentId>) {
        self.lost.extend(touched);
    }

    /// Whether a stream that is lost has touched a document, and may be what the run goes by.
    pub fn is_lost(&self, id: &DocumentId) -> bool {
        self.lost.contains(id)
    }

    /// Someone asks for an index to be seeded anew.
    pub fn on_reindex(&mut self, index: &IndexName) {
        if !self.empty.contains(index) {
            self.anew.insert(index.clone());
            self.parked.remove(index);
        }
    }

    /// Documents failed for which their indexes stop: they are kept until that is durable, but where the index is to be
    /// cleared, or has stopped.
    pub fn on_stopped<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>) {
        for id in ids {
            let is_cleared = self.anew.contains(&id.index)
                || self.truncations.values().any(|indexes| indexes.contains_key(&id.index));
            if self.parking.contains(&id.index) || !(is_cleared || self.parked.contains(&id.index)) {
                self.parking.insert(id.index.clone());
                self.stopped.insert(id.clone());
            } else if let Some(debt) = self.flying.remove(id).flatten().filter(|_| is_cleared)
                && let Some(oldest) = debt.first()
            {
                self.truncations.entry(*oldest).or_default().entry(id.index.clone()).or_default();
            }
        }
    }

    /// That an index stopped is durable: its documents are forgotten.
    pub fn on_parked(&mut self, index: &IndexName) {
        self.parking.remove(index);
        let of_index: Vec<DocumentId> =
            self.stopped.iter().filter(|id| id.index == *index).cloned().collect();
        for id in of_index {
            self.stopped.remove(&id);
            self.flying.remove(&id);
        }
        self.truncations.retain(|_, indexes| {
            indexes.remove(index);
            !indexes.is_empty()
        });
        if !self.anew.contains(index) {
            self.parked.insert(index.clone());
        }
        self.waiting.retain(|id, _| id.index != *index);
    }

    /// The sink tells that an index has stopped in an earlier run. One that is to be seeded anew is cleared.
    pub fn on_found_parked(&mut self, index: &IndexName) {
        if !self.anew.contains(index) {
            self.parked.insert(index.clone());
            self.truncations.retain(|_, indexes| {
                indexes.remove(index);
                !indexes.is_empty()
            });
            self.waiting.retain(|id, _| id.index != *index);
        }
    }

    /// An index is being compared with its source from now on. These are otherwise than they should be.
    pub fn on_verify(&mut self, index: &IndexName, differed: BTreeSet<DocumentId>, confirmed: Position) {
        let compared = Compared { differed, confirmed, found: BTreeSet::new(), touched: false };
        self.compared.insert(index.clone(), compared);
        self.verified.insert(index.clone());
    }

    /// Whether someone asked for an index to be compared in this run. What was begun may go on when nobody waits for it.
    pub fn was_verified(&self, index: &IndexName) -> bool {
        self.verified.contains(index)
    }

    /// The sink holds these otherwise than they were built. What waits for a change is not told of: it may be that.
    pub fn on_differing<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>) {
        for id in ids.into_iter().filter(|id| !self.waiting.contains_key(*id)) {
            if let Some(compared) = self.compared.get_mut(&id.index) {
                compared.found.insert(id.clone());
            }
        }
    }

    /// What is known of an index that is being compared.
    pub fn compared(&self, index: &IndexName) -> Option<&Compared> {
        self.compared.get(index)
    }

    /// Only these are being compared any more. Returns whether others were.
    pub fn retain_compared(&mut self, which: impl Fn(&IndexName) -> bool) -> bool {
        let before = self.compared.len();
        self.compared.retain(|index, _| which(index));
        self.compared.len() < before
    }

    /// An index was cleared.
    pub fn on_cleared(&mut self, index: &IndexName) {
        self.on_emptied(index, |_| false);
        self.rebuilt.remove(index);
    }

    /// An index was begun anew, and what it held may be found: where that is gone, a clear is owed all the same.
    pub fn on_rebuilt(&mut self, index: &IndexName) {
        self.on_emptied(index, |is_gone| is_gone);
        self.rebuilt.insert(index.clone());
    }

    fn on_emptied(&mut self, index: &IndexName, stays: impl Fn(bool) -> bool) {
        self.empty.insert(index.clone());
        self.anew.remove(index);
        self.truncations.retain(|_, indexes| {
            indexes.retain(|other, is_gone| other != index || stays(*is_gone));
            !indexes.is_empty()
        });
    }

    /// That an index was emptied is remembered: from now on it is built.
    pub fn on_started(&mut self, index: &IndexName) {
        self.empty.remove(index);
        self.rebuilt.remove(index);
    }

    /// Whether a truncation is owed.
    pub fn has_truncations(&self) -> bool {
        !self.truncations.is_empty()
    }

    /// These are to be resolved. The visibility token of a change is its number.
    pub fn on_resolve(&mut self, call: CallId, changes: &[Change]) {
        let number = |change: &Change| change.visibility.expect("every change of this world has a token").0;
        let numbers: Vec<u64> = changes.iter().map(number).collect();
        let follows = |two: &[u64]| self.unresolved.range(two[0] + 1..).next() == Some(&two[1]);
        assert!(numbers.windows(2).all(follows), "changes out of order: {numbers:?}");
        self.resolves.insert(call, numbers);
    }

    /// The answer to a resolve. Answers are taken in capture order.
    pub fn on_resolved(&mut self, call: CallId, touched: Vec<Vec<DocumentId>>) {
        let numbers = self.resolves.remove(&call).unwrap_or_default();
        self.answered.extend(numbers.into_iter().zip(touched));
        while let Some(number) = self.unresolved.first().copied() {
            let Some(ids) = self.answered.remove(&number) else { return };
            self.unresolved.remove(&number);
            for id in ids.into_iter().filter(|id| !self.parked.contains(&id.index)) {
                if let Some(compared) = self.compared.get_mut(&id.index) {
                    compared.found.remove(&id);
                    compared.touched = true;
                }
                self.waiting.entry(id).or_default().insert(number);
            }
        }
    }

    /// The quarantine held these: each is tried once more.
    pub fn on_quarantine_loaded(&mut self, ids: &[DocumentId]) {
        for id in ids {
            self.waiting.entry(id.clone()).or_default();
            self.quarantined.insert(id.clone());
        }
    }

    /// These are to be built: all that each was owed for until now. A retry takes nothing new.
    pub fn on_build(&mut self, ids: &[DocumentId]) {
        for id in ids {
            if !self.flying.contains_key(id) {
                let debt = self.waiting.remove(id);
                self.flying.insert(id.clone(), debt);
            }
        }
    }

    /// A whole build was refused: its documents wait again, but for those whose index has stopped meanwhile.
    pub fn on_put_back(&mut self, ids: &[DocumentId]) {
        for id in ids {
            if let Some(debt) = self.flying.remove(id).flatten()
                && !self.parked.contains(&id.index)
            {
                self.waiting.entry(id.clone()).or_default().extend(debt);
            }
        }
    }

    /// These were written. Those that stand in quarantine leave it first.
    pub fn on_written<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>) {
        for id in ids {
            if !self.quarantined.contains(id) {
                self.flying.remove(id);
            }
        }
    }

    /// These were skipped; where there is a quarantine, they stay until it has recorded them.
    pub fn on_skipped<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>, recorded: bool) {
        for id in ids {
            match recorded {
                true => drop(self.quarantined.insert(id.clone())),
                false => drop(self.flying.remove(id)),
            }
        }
    }

    /// The quarantine has recorded these.
    pub fn on_recorded<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>) {
        ids.into_iter().for_each(|id| drop(self.flying.remove(id)));
    }

    /// The quarantine has let these go.
    pub fn on_released<'a>(&mut self, ids: impl IntoIterator<Item = &'a DocumentId>) {
        for id in ids {
            self.quarantined.remove(id);
            self.flying.remove(id);
        }
    }

    /// The number of the oldest change that is owed; that of the next where none is.
    pub fn watermark(&self) -> u64 {
        let flying = self.flying.values().flatten();
        let documents = self.waiting.values().chain(flying).filter_map(BTreeSet::first);
        let others = self.unresolved.first().into_iter().chain(self.truncations.keys().next());
        documents.chain(others).min().copied().unwrap_or(self.captured)
    }

    /// How many changes are owed: each that is unresolved, each truncation, and the oldest that each document waits for, and that it flies for.
    /// A newer one that meets an older one at every document it touches settles with those.
    pub fn held(&self) -> u64 {
        let flying = self.flying.values().flatten();
        let oldest = self.waiting.values().chain(flying).filter_map(BTreeSet::first);
        self.unresolved.iter().chain(self.truncations.keys()).chain(oldest).collect::<BTreeSet<_>>().len()
            as u64
    }

    /// How many documents of live changes, or from the quarantine, wait for a build, and are not in flight.
    pub fn waiting(&self) -> usize {
        self.waiting.keys().filter(|id| !self.flying.contains_key(*id)).count()
    }

    /// Notes what is safe now, once all that an event tells is known. After a reopening earlier positions come again, and
    /// the last one that came stands for all before it: a newer one that was seen earlier comes again too.
    pub fn note_safe(&mut self) {
        let watermark = self.watermark();
        let safe = self.checkpoints.partition_point(|(before, _)| *before <= watermark);
        if let Some((_, position)) = self.checkpoints.drain(..safe).next_back() {
            self.safe = self.safe.max(Some(position));
        }
    }

    /// The newest checkpoint that nothing owed stood before.
    pub fn safe(&self) -> Option<Position> {
        self.safe
    }

    /// Documents that are dirty or in flight for live changes, or from the quarantine.
    pub fn live_documents(&self) -> impl Iterator<Item = &DocumentId> {
        let flying =
            self.flying.iter().filter(|(id, debt)| debt.is_some() && !self.waiting.contains_key(*id));
        self.waiting.keys().chain(flying.map(|(id, _)| id))
    }

    /// The newest change of this stream that a document is being built for, or will be.
    pub fn newest(&self, id: &DocumentId) -> Option<u64> {
        let debt = match self.flying.get(id) {
            Some(debt) => debt.as_ref(),
            None => self.waiting.get(id),
        };
        debt.and_then(BTreeSet::last).copied().filter(|number| *number >= self.foreign)
    }

    /// Whether a document of live changes waits for its next build.
    pub fn waits(&self, id: &DocumentId) -> bool {
        self.waiting.contains_key(id)
    }

    /// Whether every change is resolved.
    pub fn is_resolved(&self) -> bool {
        self.unresolved.is_empty()
    }

    /// Documents of an index that are in flight.
    pub fn flying(&self) -> impl Iterator<Item = &DocumentId> {
        self.flying.keys()
    }

    /// The account with its changes numbered from the oldest that is owed.
    pub fn canonical(&self) -> String {
        let first = self.watermark();
        let relative = |set: &BTreeSet<u64>| set.iter().map(|number| number - first).collect::<Vec<_>>();
        let waiting = self.waiting.iter().map(|(id, set)| (id, relative(set))).collect::<Vec<_>>();
        let flying =
            self.flying.iter().map(|(id, debt)| (id, debt.as_ref().map(relative))).collect::<Vec<_>>();
        let later = self.checkpoints.iter();
        let later = later.map(|(before, position)| (before - first, position)).collect::<Vec<_>>();
        let answered = self.answered.iter().map(|(number, ids)| (number - first, ids)).collect::<Vec<_>>();
        let unresolved = relative(&self.unresolved);
        let truncations =
            self.truncations.iter().map(|(number, set)| (number - first, set)).collect::<Vec<_>>();
        let (safe, empty) =
            (self.safe, (&self.empty, &self.rebuilt, &self.anew, &self.parking, &self.parked, &self.stopped));
        format!(
            "{unresolved:?} {answered:?} {waiting:?} {flying:?} {truncations:?} {empty:?} {later:?} {safe:?} {:?} {:?} {:?}",
            self.quarantined, self.lost, self.compared
        )
    }
}
