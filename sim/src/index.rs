//! What the index holds: documents, markers and cursors in physical indexes, a quarantine, an epoch; and what is staged
//! and would be torn by a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use syncline::{Seed, SeedState};

use crate::judge::{Broken, Judge, Standing};
use crate::outcome::Check;
use crate::random::mix;
use crate::tables::{Body, Doc, to_key};

/// Which run wrote, and which of its builds.
pub(crate) type Version = (u64, u64);

/// The key of a document that no row ever had.
const FOREIGN: i64 = 1_000_000;

/// The number of a tampering.
pub(crate) type Tampering = u64;

/// Documents by what they hold.
pub(crate) type Contents = BTreeMap<Doc, Arc<str>>;

/// Which run made a request, and its number.
pub(crate) type Order = (u64, u64);

/// One thing that becomes durable, or is torn off by a crash.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Begin(u64),
    Create {
        index: usize,
        generation: u64,
    },
    Write {
        generation: u64,
        doc: Doc,
        version: Version,
        body: Option<Body>,
        run: u64,
    },
    /// A new physical index takes the place of the old one.
    Clear {
        index: usize,
        generation: u64,
        order: Order,
        /// What the old one holds is found until the new one is marked.
        keeps: bool,
    },
    Marker {
        generation: u64,
        seed: Seed,
        state: SeedState,
        order: Order,
    },
    Record(Doc, Version),
    Release(Doc, Version),
}

struct Stored {
    version: Version,
    /// Nothing: a tombstone.
    body: Option<Body>,
}

/// A physical index.
pub(crate) struct Generation {
    pub(crate) index: usize,
    documents: BTreeMap<Doc, Stored>,
    pub(crate) marker: Option<(Seed, SeedState)>,
    /// Which request set it.
    marked: Order,
}

/// What came of things that became durable, for marks and traces.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) writes: u64,
    pub(crate) stale: u64,
    pub(crate) dead: u64,
    /// Documents that were written, or deleted, in words.
    pub(crate) landed: String,
    /// Runs whose writes landed.
    pub(crate) runs: BTreeSet<u64>,
    pub(crate) broken: Option<Broken>,
}

pub(crate) struct Index {
    checks_versions: bool,
    checks_epochs: bool,
    pub(crate) generations: BTreeMap<u64, Generation>,
    /// The physical index of each index, where there is one.
    pub(crate) current: Vec<Option<u64>>,
    /// The marker of an index that was deleted by hand, or by a clear that is older than the marker or whose run has died:
    /// until there is another one.
    lost: Vec<Option<(Seed, SeedState)>>,
    next_generation: u64,
    next_epoch: u64,
    pub(crate) epoch: u64,
    /// The quarantine: how new what was refused is.
    pub(crate) recorded: BTreeMap<Doc, Version>,
    /// What is found of each index that is being rebuilt: what it held before.
    found: Vec<Contents>,
    /// The newest run that has asked for anything.
    pub(crate) run: u64,
    /// The newest run under which an index was cleared by one that has died.
    pub(crate) cleared_under: Option<u64>,
    /// The newest clear of each index, by run and request: an older one that lands late is not obeyed.
    cleared: Vec<Order>,
    staged: VecDeque<(u64, Op)>,
    next_op: u64,
    /// What someone has tampered with, by the number of the physical index, and the engine has not written since.
    tampered: BTreeMap<(u64, Doc), Tampering>,
    tamperings: Tampering,
}

impl Index {
    pub(crate) fn new(indexes: usize, checks_versions: bool, checks_epochs: bool) -> Self {
        Self {
            checks_versions,
            checks_epochs,
            generations: BTreeMap::new(),
            current: vec![None; indexes],
            lost: vec![None; indexes],
            next_generation: 1,
            next_epoch: 0,
            epoch: 0,
            recorded: BTreeMap::new(),
            found: vec![Contents::new(); indexes],
            run: 0,
            cleared_under: None,
            cleared: vec![(0, 0); indexes],
            staged: VecDeque::new(),
            next_op: 0,
            tampered: BTreeMap::new(),
            tamperings: 0,
        }
    }

    /// Stages things: the number to sync up to.
    pub(crate) fn stage(&mut self, ops: impl IntoIterator<Item = Op>) -> u64 {
        for op in ops {
            self.staged.push_back((self.next_op, op));
            self.next_op += 1;
        }
        self.next_op
    }

    pub(crate) fn begin(&mut self, least: u64) -> u64 {
        self.next_epoch = (self.next_epoch + 1).max(least);
        self.next_epoch
    }

    pub(crate) fn new_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation - 1
    }

    pub(crate) fn generation(&self, index: usize) -> Option<&Generation> {
        self.generations.get(&self.current[index]?)
    }

    /// Whether a request of this epoch comes from a run that another one has followed.
    pub(crate) fn is_dead(&self, epoch: u64) -> bool {
        self.checks_epochs && epoch < self.epoch
    }

    /// What an index holds.
    pub(crate) fn contents(&self, index: usize) -> impl Iterator<Item = (&Doc, &Body)> {
        let documents = self.generation(index).into_iter().flat_map(|generation| &generation.documents);
        documents.filter_map(|(doc, stored)| Some((doc, stored.body.as_ref()?)))
    }

    pub(crate) fn body(&self, generation: u64, doc: &Doc) -> Option<&Body> {
        self.generations.get(&generation)?.documents.get(doc)?.body.as_ref()
    }

    /// Everything staged before this number becomes durable, in order.
    pub(crate) fn sync(&mut self, before: u64, judge: &mut Judge, since: impl Fn(&Seed) -> u64) -> Settled {
        let mut settled = Settled::default();
        while self.staged.front().is_some_and(|(number, _)| *number < before) {
            let Some((_, op)) = self.staged.pop_front() else { break };
            self.settle(op, judge, &since, &mut settled);
        }
        settled
    }

    /// The node dies: of what is staged, some things became durable, whichever the salt says. Returns them, and how many
    /// did not.
    pub(crate) fn crash(
        &mut self,
        salt: u64,
        judge: &mut Judge,
        since: impl Fn(&Seed) -> u64,
    ) -> (Settled, usize) {
        let mut settled = Settled::default();
        let mut lost = 0;
        for (number, op) in std::mem::take(&mut self.staged) {
            if mix(salt ^ number).is_multiple_of(2) {
                self.settle(op, judge, &since, &mut settled);
            } else {
                lost += 1;
            }
        }
        (settled, lost)
    }

    fn settle(&mut self, op: Op, judge: &mut Judge, since: &impl Fn(&Seed) -> u64, settled: &mut Settled) {
        match op {
            Op::Begin(epoch) => self.epoch = self.epoch.max(epoch),
            Op::Create { index, generation } => {
                if self.current[index].is_none() {
                    self.replace(index, generation);
                }
            }
            Op::Write { generation, doc, version, body, run } => {
                if self.is_dead(version.0) {
                    settled.dead += 1;
                    return;
                }
                let Some(physical) = self.generations.get_mut(&generation) else { return };
                let newer = physical.documents.get(&doc).is_some_and(|stored| stored.version > version);
                if self.checks_versions && newer {
                    settled.stale += 1;
                    return;
                }
                settled.writes += 1;
                let sign = if body.is_some() { '+' } else { '-' };
                let _ = write!(settled.landed, " {sign}{doc:?}");
                settled.runs.insert(run);
                let text = body.as_ref().map(|body| &body.text);
                if let Err(broken) = judge.on_written(generation, &doc, text) {
                    settled.broken.get_or_insert(broken);
                }
                self.tampered.remove(&(generation, doc.clone()));
                physical.documents.insert(doc, Stored { version, body });
            }
            Op::Clear { index, generation, order, keeps } => {
                if order > self.cleared[index] {
                    self.cleared[index] = order;
                    self.find(index, keeps);
                    let is_late = |old: &&Generation| old.marked > order || order.0 < self.run;
                    if order.0 < self.run {
                        self.cleared_under = Some(self.run);
                    }
                    let lost = self.generation(index).filter(is_late);
                    // What one that came late has taken away, the next one does not give back.
                    let lost = lost.and_then(|old| old.marker.clone().or(self.lost[index].clone()));
                    self.replace(index, generation);
                    self.lost[index] = lost;
                    judge.on_cleared(index);
                }
            }
            Op::Marker { generation, seed, state, order } => {
                let is_mark = state == SeedState::Seeded;
                let Some(physical) = self.generations.get_mut(&generation) else { return };
                // A cursor that lands late must not take the marker away, which says more.
                let says_more = (seed.clone(), SeedState::Seeded);
                if state != SeedState::Parked && !is_mark && physical.marker.as_ref() == Some(&says_more) {
                    return;
                }
                // Nor must either of them take away that the index has stopped.
                if physical.marker.as_ref() == Some(&(seed.clone(), SeedState::Parked)) {
                    return;
                }
                physical.marker = Some((seed.clone(), state.clone()));
                physical.marked = order;
                let index = physical.index;
                self.lost[index] = None;
                if state == SeedState::Parked
                    && let Err(broken) = judge.on_parked(index)
                {
                    settled.broken.get_or_insert(broken);
                }
                if is_mark {
                    self.found[index].clear();
                }
                if is_mark && let Err(broken) = self.judge_mark(generation, &seed, judge, since(&seed)) {
                    settled.broken.get_or_insert(broken);
                }
            }
            Op::Record(doc, version) => {
                let held = self.recorded.entry(doc).or_default();
                *held = version.max(*held);
            }
            Op::Release(doc, version) => {
                // One that lands late must not take a newer record with it.
                if self.recorded.get(&doc).is_some_and(|held| *held <= version) {
                    self.recorded.remove(&doc);
                    if let Err(broken) = judge.on_released(&doc) {
                        settled.broken.get_or_insert(broken);
                    }
                }
            }
        }
    }

    fn judge_mark(&self, generation: u64, seed: &Seed, judge: &Judge, since: u64) -> Result<(), Broken> {
        let Some(physical) = self.generations.get(&generation) else { return Ok(()) };
        let text = |doc: &Doc| -> Option<Arc<str>> { Some(self.body(generation, doc)?.text.clone()) };
        let excused = |doc: &Doc| self.recorded.contains_key(doc) || self.is_tampered(generation, doc);
        judge.on_marked(physical.index, since, text, excused)?;
        for (doc, stored) in &physical.documents {
            let other = |body: &Body| body.definition.to_string() != seed.definition.as_str();
            if stored.body.as_ref().is_some_and(other) && !excused(doc) {
                let what = format!("index {} was marked, but {doc:?} is defined otherwise", physical.index);
                return Err((Check::Complete, what));
            }
        }
        Ok(())
    }

    /// How a document stands with whoever goes on with a stream.
    pub(crate) fn standing(&self, doc: &Doc, is_stream: impl Fn(&Seed) -> bool) -> Standing {
        let physical = self.generation(doc.index);
        let marker = physical.and_then(|physical| physical.marker.as_ref());
        // Who takes away an index that has stopped, without knowing of it, does not take back that it has.
        let stopped = marker.or(self.lost[doc.index].as_ref());
        let is_to_be_scanned = match marker.filter(|(seed, _)| is_stream(seed)) {
            Some((_, SeedState::Seeded)) => false,
            Some((_, SeedState::Seeding(Some(after)))) => to_key(&doc.key) > *after,
            Some((_, SeedState::Seeding(None) | SeedState::Unseeded | SeedState::Parked)) | None => true,
        };
        Standing {
            is_held: self.current[doc.index].is_some_and(|current| self.body(current, doc).is_some()),
            is_to_be_scanned,
            is_recorded: self.recorded.contains_key(doc),
            is_parked: stopped.is_some_and(|(seed, state)| is_stream(seed) && *state == SeedState::Parked),
        }
    }

    /// What is found of an index from now on: what it holds, until another one is marked, or what was found before; or
    /// nothing but what the other one holds.
    fn find(&mut self, index: usize, keeps: bool) {
        if !keeps {
            self.found[index].clear();
        } else if self.found[index].is_empty() {
            let held = self.contents(index).map(|(doc, body)| (doc.clone(), body.text.clone()));
            self.found[index] = held.collect();
        }
    }

    /// What is found of a document of an index that is being rebuilt.
    pub(crate) fn found(&self, doc: &Doc) -> Option<&Arc<str>> {
        self.found[doc.index].get(doc)
    }

    fn replace(&mut self, index: usize, generation: u64) {
        self.lost[index] = None;
        if let Some(old) = self.current[index].replace(generation) {
            self.generations.remove(&old);
        }
        let physical = Generation { index, documents: BTreeMap::new(), marker: None, marked: (0, 0) };
        self.generations.insert(generation, physical);
    }

    /// Whether an index was deleted by hand, or by a clear that came late, and nothing is known of it since.
    pub(crate) fn has_lost_marker(&self, index: usize) -> bool {
        self.lost[index].is_some()
    }

    /// Whether someone has tampered with a document, and the engine has not written it since.
    pub(crate) fn is_tampered(&self, generation: u64, doc: &Doc) -> bool {
        self.tampered.contains_key(&(generation, doc.clone()))
    }

    /// The documents of an index that someone has tampered with, and the engine has not written since.
    pub(crate) fn tampered(&self, index: usize) -> BTreeMap<Doc, Tampering> {
        let current = self.current[index];
        let of = self
            .tampered
            .iter()
            .filter(|((physical, doc), _)| doc.index == index && current == Some(*physical));
        of.map(|((_, doc), number)| (doc.clone(), *number)).collect()
    }

    /// Someone changes a document of a seeded index, or removes it, or adds one that should not be there. Versions stay, as
    /// no hand forges them. Returns the document; nothing where the index is not seeded, or is empty.
    pub(crate) fn tamper(&mut self, index: usize, nth: usize) -> Option<Doc> {
        let current = self.current[index]?;
        let physical = self.generations.get_mut(&current)?;
        physical.marker.as_ref().filter(|(_, state)| *state == SeedState::Seeded)?;
        let held = physical.documents.iter().filter(|(doc, stored)| {
            // To remove what should not be there would mend it.
            stored.body.is_some() && doc.key[0] != FOREIGN
        });
        let held: Vec<Doc> = held.map(|(doc, _)| doc.clone()).collect();
        let mut doc = held.get(nth / 3 % held.len().max(1))?.clone();
        let stored = physical.documents.get_mut(&doc)?;
        match nth % 3 {
            0 => {
                let body = stored.body.as_mut()?;
                body.text = format!("{} by hand", body.text).into();
            }
            1 => stored.body = None,
            _ => {
                let body = stored.body.clone();
                doc.key.fill(FOREIGN);
                let foreign = physical.documents.entry(doc.clone());
                foreign.or_insert(Stored { version: (0, 0), body: None }).body = body;
            }
        }
        self.tamperings += 1;
        self.tampered.insert((current, doc.clone()), self.tamperings);
        Some(doc)
    }

    /// Someone deletes an index. Returns whether there was one.
    pub(crate) fn delete(&mut self, index: usize) -> bool {
        let old = self.current.get_mut(index).and_then(Option::take);
        let Some(old) = old.and_then(|old| self.generations.remove(&old)) else { return false };
        self.lost[index] = old.marker;
        self.found[index].clear();
        true
    }
}
