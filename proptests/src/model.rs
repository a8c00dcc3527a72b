//! What is true outside the engine: the rows, the log of their changes, the sink, and the durable resume point.
//!
//! A document is the row of its key, and the row beside it where the world joins them; and, of every second index, a table
//! of which nothing is known but when it was emptied last. Every write has a time, so that a document that goes back is
//! seen, whatever its value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncline::pipeline::CallId;
use syncline::ports::CuredDocument;
use syncline::{
    Captured, Change, DocumentId, IndexName, Key, Position, Seed, SeedState, StreamId, TableName, Truncation,
    Value, Version, Visibility,
};

use crate::op::Emptied;
use crate::setup::Setup;

/// What a row, or a document, is since when: there or not. Times only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct State {
    /// When it became so.
    pub time: u64,
    /// Whether it is there.
    pub there: bool,
}

/// What lies under an id in the sink.
pub type Stored = (State, Version);

/// One document of a flush, as it lies on the wire.
pub type OnWire = (DocumentId, State, Version);

/// What lies on the wire, and nobody waits for.
#[derive(Debug, Clone)]
pub enum Late {
    /// The documents of a flush.
    Writes(Vec<OnWire>),
    /// A release from the quarantine.
    Release(Arc<[CuredDocument]>),
}

/// The destination: it remembers versions, of tombstones and cleared documents too, and refuses older ones.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    /// Everything that was ever written.
    pub documents: BTreeMap<DocumentId, Stored>,
    /// Markers and cursors.
    pub seeds: BTreeMap<IndexName, (Seed, SeedState)>,
    /// The epoch of the newest run.
    pub epoch: u64,
    /// Indexes that were ensured.
    pub ensured: BTreeSet<IndexName>,
}

/// The world.
#[derive(Debug, Clone)]
pub struct Model {
    /// The indexes.
    pub indexes: Vec<IndexName>,
    joined: bool,
    /// The table.
    pub rows: Arc<BTreeMap<i64, State>>,
    time: u64,
    /// What the source gives, since the stream began.
    pub log: Vec<Captured>,
    /// For each checkpoint of the log the rows that its transaction touched, for themselves.
    pub transactions: Vec<(Position, Vec<(i64, State)>)>,
    /// For those that emptied tables the documents that changed with them.
    pub truncations: Vec<(Position, Vec<(DocumentId, State)>)>,
    /// When each row was deleted last.
    gone: BTreeMap<i64, u64>,
    /// When the table that is a part of some documents was emptied last.
    emptied: u64,
    /// When each index was cleared last, and which of its documents were to be there then.
    cleared: BTreeMap<IndexName, (u64, BTreeSet<DocumentId>)>,
    /// What searches find of each index that is being rebuilt: what it held before, and what was written since.
    pub found: BTreeMap<IndexName, BTreeMap<DocumentId, State>>,
    /// The durable resume point.
    pub confirmed: Position,
    /// Which stream it belongs to.
    pub stream: u64,
    /// The destination.
    pub sink: Sink,
    /// The records of the quarantine, with how new what was refused is.
    pub quarantined: BTreeMap<DocumentId, Version>,
    /// What was passed over without a quarantine, as it was then.
    pub skipped: BTreeMap<DocumentId, State>,
    /// What each document was when it was built last, while that may still be written: a tombstone does not tell.
    pub built: BTreeMap<DocumentId, State>,
    /// What was given up, and may land.
    pub late: Vec<Late>,
    /// Indexes of which someone has changed by hand what the sink holds, and that have not been compared since.
    pub tampered: BTreeSet<IndexName>,
    /// Those documents of them that have not been written since.
    pub by_hand: BTreeSet<DocumentId>,
}

impl Model {
    /// The world before anything happened.
    pub fn new(setup: &Setup) -> Self {
        let mut model = Self {
            indexes: (0..setup.indexes()).map(|at| IndexName::new(format!("index{at}")).unwrap()).collect(),
            joined: setup.joined,
            rows: Arc::default(),
            time: 0,
            log: Vec::new(),
            transactions: Vec::new(),
            truncations: Vec::new(),
            gone: BTreeMap::new(),
            emptied: 0,
            cleared: BTreeMap::new(),
            found: BTreeMap::new(),
            confirmed: Position(0),
            stream: 0,
            sink: Sink::default(),
            quarantined: BTreeMap::new(),
            skipped: BTreeMap::new(),
            built: BTreeMap::new(),
            late: Vec::new(),
            tampered: BTreeSet::new(),
            by_hand: BTreeSet::new(),
        };
        if setup.seeds() {
            model.write(setup.rows, 0);
        }
        if setup.seeds() && setup.tampered != 0 {
            model.seed();
            model.indexes.clone().iter().for_each(|index| model.tamper(index, setup.tampered));
        }
        model
    }

    /// Every index was seeded by an earlier run.
    fn seed(&mut self) {
        let seed = Seed { stream: self.stream_id(), definition: "".into() };
        let seeds = self.indexes.iter().map(|index| (index.clone(), (seed.clone(), SeedState::Seeded)));
        self.sink.seeds = seeds.collect();
        let documents = self.expected().map(|(id, state)| (id, (state, Version::default())));
        self.sink.documents = documents.collect();
    }

    fn write(&mut self, rows: u8, removed: u8) -> Vec<(i64, State)> {
        let touched: Vec<i64> = (0..8).filter(|key| rows & (1 << key) != 0).collect();
        let write = |key: i64| {
            self.time += 1;
            let state = State { time: self.time, there: removed & (1 << key) == 0 };
            Arc::make_mut(&mut self.rows).insert(key, state);
            if !state.there {
                self.gone.insert(key, state.time);
            }
            (key, state)
        };
        touched.into_iter().map(write).collect()
    }

    /// A transaction, in the log and in the table.
    pub fn commit(&mut self, rows: u8, removed: u8) {
        let touched = self.write(rows, removed);
        for (key, state) in &touched {
            self.log.push(Captured::Change(match state.there {
                true => Change::upsert(table(), *key),
                false => Change::delete(table(), *key),
            }));
        }
        self.checkpoint(touched);
    }

    /// A transaction that empties tables, and inserts rows again. No row is given for itself.
    pub fn truncate(&mut self, tables: Emptied, rows: u8) {
        let before: Vec<_> = self.expected().filter(|(_, state)| state.there).collect();
        self.time += 1;
        let mut truncation = Truncation::new([]);
        if tables != Emptied::Related {
            truncation.tables.push(table());
            let time = self.time;
            for (key, row) in Arc::make_mut(&mut self.rows).iter_mut().filter(|(_, row)| row.there) {
                *row = State { time, there: false };
                self.gone.insert(*key, time);
            }
        }
        if tables != Emptied::Rows {
            truncation.tables.push(related());
            self.emptied = self.time;
        }
        self.log.push(truncation.into());
        let changed = before.into_iter().map(|(id, before)| (self.document(&id), id, before));
        let changed =
            changed.filter(|(now, _, before)| now != before).map(|(now, id, _)| (id, now)).collect();
        self.truncations.push((self.next_position(), changed));
        self.commit(rows, 0);
    }

    /// A checkpoint after what was touched.
    pub fn checkpoint(&mut self, touched: Vec<(i64, State)>) {
        let position = self.next_position();
        self.log.push(Captured::Checkpoint(position));
        self.transactions.push((position, touched));
    }

    fn next_position(&self) -> Position {
        Position(self.transactions.len() as u64 + 1 + self.stream * 1000)
    }

    /// The resume point is lost: what was not captured will never be seen.
    pub fn lose_stream(&mut self) {
        self.stream += 1;
        self.log.clear();
        self.transactions.clear();
        self.truncations.clear();
        self.confirmed = Position(0);
    }

    /// The stream's name.
    pub fn stream_id(&self) -> StreamId {
        StreamId::new(format!("stream{}", self.stream)).unwrap()
    }

    /// Where in the log a capture that is opened now begins.
    pub fn resume(&self) -> usize {
        let at = self.log.iter().position(|item| *item == Captured::Checkpoint(self.confirmed));
        at.map_or(0, |at| at + 1)
    }

    /// An item of the log as the capture gives it. Its visibility token names it for the account of what is owed.
    pub fn item(&self, at: usize, number: u64) -> Captured {
        match &self.log[at] {
            Captured::Change(change) => change.clone().with_visibility(Visibility(number)).into(),
            Captured::Truncate(truncation) => truncation.clone().with_visibility(Visibility(number)).into(),
            item @ (Captured::Checkpoint(_) | Captured::More) => item.clone(),
        }
    }

    /// What a build reads: the rows, and when the table beside them was emptied last.
    pub fn read(&self) -> Read {
        Read { rows: Arc::clone(&self.rows), emptied: self.emptied }
    }

    /// The documents that a change to this row touches.
    pub fn touched(&self, key: &Key) -> Vec<DocumentId> {
        let key = number(key);
        let keys = if self.joined { vec![key, key ^ 1] } else { vec![key] };
        let of_key = |key| self.indexes.iter().map(move |index| DocumentId::new(index.clone(), key));
        keys.into_iter().flat_map(of_key).collect()
    }

    /// What a document is now.
    pub fn document(&self, id: &DocumentId) -> State {
        self.document_of(&self.read(), id)
    }

    /// What a document was when this was read.
    pub fn document_of(&self, read: &Read, id: &DocumentId) -> State {
        let key = number(&id.key);
        let row = |key| read.rows.get(&key).copied().unwrap_or_default();
        let beside = if self.joined { row(key ^ 1).time } else { 0 };
        let emptied = if self.is_built_from_related(&id.index) { read.emptied } else { 0 };
        State { time: row(key).time.max(beside).max(emptied), there: row(key).there }
    }

    /// The indexes that are built from a table, and whether it is their root.
    pub fn built_from(&self, name: &TableName) -> Vec<(IndexName, bool)> {
        let is_root = *name == table();
        let is = |index: &&IndexName| is_root || self.is_built_from_related(index);
        self.indexes.iter().filter(is).map(|index| (index.clone(), is_root)).collect()
    }

    /// Every second index is built from the root table alone.
    pub fn is_built_from_related(&self, index: &IndexName) -> bool {
        self.indexes.iter().position(|other| other == index).is_some_and(|at| at % 2 == 0)
    }

    /// How many bytes a document's body has.
    pub fn bytes(&self, setup: &Setup, id: &DocumentId, state: State) -> usize {
        if setup.sized { (number(&id.key) as usize * 13 + state.time as usize * 7) % 40 } else { 1 }
    }

    /// A run began: the sink takes no write of an earlier one any more.
    pub fn begin(&mut self) -> u64 {
        self.sink.epoch += 1;
        self.late.retain(|late| matches!(late, Late::Release(_)));
        self.sink.epoch
    }

    /// Writes arrive at the sink.
    pub fn apply(&mut self, writes: &[OnWire]) {
        for (id, state, version) in writes {
            let held = self.sink.documents.get(id);
            if version.epoch.0 < self.sink.epoch || held.is_some_and(|(_, held)| held >= version) {
                continue;
            }
            crate::check::b06_nothing_goes_back(id, held, *state);
            self.by_hand.remove(id);
            self.skipped.remove(id);
            self.sink.documents.insert(id.clone(), (*state, *version));
            if let Some(found) = self.found.get_mut(&id.index) {
                match state.there {
                    true => drop(found.insert(id.clone(), *state)),
                    false => drop(found.remove(id)),
                }
            }
        }
    }

    /// Whether the sink holds a document as it was built.
    pub fn holds(&self, id: &DocumentId, built: State) -> bool {
        match self.sink.documents.get(id) {
            Some((held, _)) if held.there || built.there => *held == built,
            Some(_) => true,
            None => !built.there,
        }
    }

    /// What an index holds after a document, in the order of names.
    pub fn list(&self, index: &IndexName, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentId> {
        let held = self.sink.documents.iter().filter(|(id, (state, _))| id.index == *index && state.there);
        let named: BTreeMap<String, &DocumentId> = held.map(|(id, _)| (id.sink_id(), id)).collect();
        let after = after.map(DocumentId::sink_id);
        let rest = named.into_iter().filter(|(name, _)| Some(name) > after.as_ref());
        rest.map(|(_, id)| id.clone()).take(limit).collect()
    }

    /// Someone changes what lies under some ids of an index by hand: what is there is taken away, what is not appears.
    pub fn tamper(&mut self, index: &IndexName, keys: u8) {
        self.tampered.insert(index.clone());
        for key in (0..8).filter(|key| keys & (1 << key) != 0) {
            let id = DocumentId::new(index.clone(), key);
            self.by_hand.insert(id.clone());
            let (state, _) = self.sink.documents.entry(id).or_default();
            *state = State { time: 0, there: !state.there };
        }
    }

    /// The documents that transactions of this stream after a position have touched, those that emptied tables too.
    pub fn changed_after(&self, position: Position) -> BTreeSet<DocumentId> {
        let later = self.transactions.iter().filter(|(at, _)| *at > position);
        let touched = later.flat_map(|(_, touched)| touched);
        let touched = touched.flat_map(|(key, _)| self.touched(&Key::single(*key)));
        let truncated = self.truncations.iter().filter(|(at, _)| *at > position);
        let truncated = truncated.flat_map(|(_, changed)| changed);
        touched.chain(truncated.map(|(id, _)| id.clone())).collect()
    }

    /// A document is passed over, and nothing remembers it. Until its rows change, or its index is emptied, nobody writes it.
    pub fn skip(&mut self, id: &DocumentId) {
        let built = self.built.remove(id).expect("it was built, or could not be");
        self.skipped.insert(id.clone(), built);
    }

    /// Whether a document was passed over as it was at this time, or later.
    pub fn is_passed_over(&self, id: &DocumentId, time: u64) -> bool {
        let skipped = self.skipped.get(id).is_some_and(|skipped| skipped.time >= time);
        skipped || self.quarantined.contains_key(id)
    }

    /// Which documents of an index are otherwise than they should be.
    pub fn differing(&self, index: &IndexName) -> BTreeSet<DocumentId> {
        let ids = (0..8).map(|key| DocumentId::new(index.clone(), key));
        ids.filter(|id| !self.holds(id, self.document(id))).collect()
    }

    /// A record leaves the quarantine for a write that is as new as it.
    pub fn release(&mut self, documents: &[CuredDocument]) {
        for CuredDocument { id, version } in documents {
            if self.quarantined.get(id).is_some_and(|recorded| recorded <= version) {
                self.quarantined.remove(id);
            }
        }
    }

    /// An index is begun anew; what it held is found until it is seeded. Of one that has stopped it is not known which of it
    /// is gone.
    pub fn rebuild(&mut self, index: &IndexName) {
        let held = self.sink.documents.iter().filter(|(id, (state, _))| id.index == *index && state.there);
        // No change explains what someone has put there by hand.
        let held = held.filter(|(id, _)| !self.by_hand.contains(id));
        let held = held.map(|(id, (state, _))| (id.clone(), *state)).collect();
        let found = self.found.remove(index).unwrap_or(held);
        let is_parked = self.is_parked(index);
        self.clear(index);
        if !is_parked && !found.is_empty() {
            self.found.insert(index.clone(), found);
        }
    }

    /// An index is emptied. What was removed keeps its version.
    pub fn clear(&mut self, index: &IndexName) {
        self.found.remove(index);
        for (id, (state, _)) in &mut self.sink.documents {
            if id.index == *index {
                *state = State::default();
            }
        }
        self.sink.seeds.remove(index);
        self.skipped.retain(|id, _| id.index != *index);
        self.by_hand.retain(|id| id.index != *index);
        let there = self.expected().filter(|(id, state)| id.index == *index && state.there);
        let there = there.map(|(id, _)| id).collect();
        self.cleared.insert(index.clone(), (self.time, there));
    }

    /// What was emptied and cleared, and when.
    pub fn emptied(&self) -> impl std::fmt::Debug + '_ {
        (self.emptied, &self.truncations, &self.cleared)
    }

    /// Whether a document that was so since this time is not in the sink because its index was cleared after that: its row
    /// was gone by then, or is by now, or whoever goes on with the seeding will come to it.
    pub fn was_cleared(&self, id: &DocumentId, time: u64) -> bool {
        let cleared = self.cleared.get(&id.index).filter(|(cleared, _)| *cleared >= time);
        cleared.is_some_and(|(_, there)| {
            !there.contains(id) || self.is_absent(id, time) || self.is_yet_to_be_scanned(id)
        })
    }

    /// Whether a document is not in the sink, and its row is not there, or was not at some time since this one.
    pub fn is_absent(&self, id: &DocumentId, since: u64) -> bool {
        let is_held = self.sink.documents.get(id).is_some_and(|(state, _)| state.there);
        let was_gone = self.gone.get(&number(&id.key)).is_some_and(|gone| *gone >= since);
        !is_held && (was_gone || !self.document(id).there)
    }

    /// Whether an index has stopped alone, and so its documents with it.
    pub fn is_parked(&self, index: &IndexName) -> bool {
        let stream = self.stream_id();
        let held = self.sink.seeds.get(index).filter(|(seed, _)| seed.stream == stream);
        held.is_some_and(|(_, state)| *state == SeedState::Parked)
    }

    /// Whether whoever goes on with the seeding will come to a document.
    pub fn is_yet_to_be_scanned(&self, id: &DocumentId) -> bool {
        let stream = self.stream_id();
        match self.sink.seeds.get(&id.index).filter(|(seed, _)| seed.stream == stream) {
            Some((_, SeedState::Seeded)) => false,
            Some((_, SeedState::Seeding(Some(after)))) => id.key > *after,
            Some((_, SeedState::Seeding(None) | SeedState::Unseeded | SeedState::Parked)) | None => true,
        }
    }

    /// How far an index is, for this seed.
    pub fn seed_state(&self, index: &IndexName, seed: &Seed) -> SeedState {
        let held = self.sink.seeds.get(index).filter(|(held, _)| held == seed);
        held.map_or(SeedState::Unseeded, |(_, state)| state.clone())
    }

    /// The keys of the rows after this one.
    pub fn scan(&self, after: Option<&Key>) -> Vec<Key> {
        let there = self.rows.iter().filter(|(_, state)| state.there);
        there.map(|(key, _)| Key::single(*key)).filter(|key| Some(key) > after).collect()
    }

    /// Every document that is, or ever was, or that someone has put into the sink, with what it should be now.
    pub fn expected(&self) -> impl Iterator<Item = (DocumentId, State)> {
        let beside = |key: &i64| if self.joined { vec![*key, key ^ 1] } else { vec![*key] };
        let held = self.sink.documents.keys().map(|id| number(&id.key));
        let keys: BTreeSet<i64> = self.rows.keys().flat_map(beside).chain(held).collect();
        let ids = self.indexes.iter().flat_map(move |index| {
            keys.clone().into_iter().map(move |key| DocumentId::new(index.clone(), key))
        });
        ids.map(|id| (id.clone(), self.document(&id)))
    }
}

/// What was read of the database at one moment.
#[derive(Debug, Clone)]
pub struct Read {
    rows: Arc<BTreeMap<i64, State>>,
    emptied: u64,
}

/// The one table.
pub fn table() -> TableName {
    TableName::new("rows").unwrap()
}

/// A table that is a part of some documents.
pub fn related() -> TableName {
    TableName::new("related").unwrap()
}

/// The number that a key is.
pub fn number(key: &Key) -> i64 {
    match key.values() {
        [Value::Int(value)] => *value,
        other => panic!("no key of this world: {other:?}"),
    }
}

/// The snapshot that is open, with the rows that it has still to give.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The call that opened it.
    pub call: CallId,
    /// The keys that are left, in order.
    pub keys: Vec<Key>,
}
