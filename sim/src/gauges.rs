//! What a run of the engine has under way, counted at its ports: for the checks of its limits, and for the marks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::judge::Broken;
use crate::outcome::Check;
use crate::plan::{Engine, Point};
use crate::tables::Doc;

#[derive(Default)]
pub(crate) struct Gauges {
    /// Calls under way: what for, and when they are given up.
    calls: BTreeMap<u64, (Point, u64)>,
    next: u64,
    /// Documents between the start of their build and the end of their flush.
    on_their_way: BTreeMap<Doc, usize>,
    /// Changes that the stream has given, and that were resolved.
    captured: u64,
    resolved: u64,
    /// Documents of resolved changes that no build was asked for since.
    dirty: BTreeSet<Doc>,
    /// Indexes that have stopped alone: nothing of them waits.
    parked: BTreeSet<usize>,
    /// How many documents the newest resolves have brought.
    fan_outs: VecDeque<usize>,
    /// A flush has become durable since the last confirm.
    pub(crate) flushed_since_confirm: bool,
    /// A table is being scanned.
    pub(crate) scans_open: bool,
    /// When the newest retry is due.
    pub(crate) retry_until_us: u64,
}

impl Gauges {
    /// A run starts: nothing of the one before is under way any more.
    pub(crate) fn restart(&mut self) {
        let next = self.next;
        *self = Self { next, ..Self::default() };
    }

    /// A call begins: its number, and how many of its kind are under way with it. Those that were given up do not count.
    pub(crate) fn begin(&mut self, point: Point, now_us: u64, until_us: u64) -> (u64, usize) {
        self.next += 1;
        self.calls.insert(self.next, (point, until_us));
        (self.next, self.under_way(point, now_us))
    }

    pub(crate) fn end(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    pub(crate) fn under_way(&self, point: Point, now_us: u64) -> usize {
        let alive = |call: &&(Point, u64)| call.0 == point && call.1 > now_us;
        self.calls.values().filter(alive).count()
    }

    pub(crate) fn on_captured(&mut self, limits: &Engine) -> Result<(), Broken> {
        self.captured += 1;
        let held = self.captured - self.resolved;
        bound("captured changes that are not resolved", held as usize, limits.changes)
    }

    /// Changes are resolved to these documents. Nothing is resolved at or above the dirty limit, so beyond it there is only
    /// what was under way then: of the others that may have been answered since, each was issued while this one was, or
    /// was under way when this one was issued.
    pub(crate) fn on_resolved(
        &mut self,
        changes: usize,
        docs: BTreeSet<Doc>,
        limits: &Engine,
    ) -> Result<(), Broken> {
        self.resolved += changes as u64;
        self.fan_outs.push_front(docs.len());
        self.fan_outs.truncate(limits.resolves.saturating_mul(2));
        self.dirty.extend(docs.into_iter().filter(|doc| !self.parked.contains(&doc.index)));
        let most = limits.documents + self.fan_outs.iter().sum::<usize>();
        bound("documents that wait to be built", self.dirty.len(), most)
    }

    pub(crate) fn on_build(&mut self, docs: &[Doc], limits: &Engine) -> Result<(), Broken> {
        for doc in docs {
            *self.on_their_way.entry(doc.clone()).or_default() = 1;
            self.dirty.remove(doc);
        }
        bound("documents of a build", docs.len(), limits.max_documents)?;
        let most = limits.units.saturating_mul(limits.max_documents);
        bound("documents in flight", self.on_their_way.len(), most)
    }

    /// An index has stopped alone: its documents are forgotten.
    pub(crate) fn on_parked(&mut self, index: usize) {
        self.parked.insert(index);
        self.dirty.retain(|doc| doc.index != index);
        self.on_their_way.retain(|doc, _| doc.index != index);
    }

    /// An index is being seeded.
    pub(crate) fn on_seeding(&mut self, index: usize) {
        self.parked.remove(&index);
    }

    pub(crate) fn on_settled<'a>(&mut self, docs: impl IntoIterator<Item = &'a Doc>) {
        for doc in docs {
            self.on_their_way.remove(doc);
        }
    }

    pub(crate) fn is_on_its_way(&self, doc: &Doc) -> bool {
        self.on_their_way.contains_key(doc)
    }

    pub(crate) fn is_anything_on_its_way(&self) -> bool {
        !self.on_their_way.is_empty()
    }
}

pub(crate) fn bound(what: &str, is: usize, most: usize) -> Result<(), Broken> {
    if is <= most {
        return Ok(());
    }
    Err((Check::Bounded, format!("{is} {what}; the limit is {most}")))
}
