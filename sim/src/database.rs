//! What the database holds: rows with their history, the log, and the resume point.

use std::collections::BTreeSet;

use syncline::{Captured, Change, ColumnName, Position, Row, TableName, Truncation, Value, Visibility};

use crate::judge::{Changed, Judge};
use crate::plan::{Plan, Poison, Statement};
use crate::tables::{Columns, Doc, Image, Shape, Tables, to_key};

/// A transaction in the log.
pub(crate) struct Logged {
    /// Where it ends.
    pub(crate) position: u64,
    items: Vec<Captured>,
}

/// What statements did.
#[derive(Default)]
struct Applied {
    /// As the log has it.
    items: Vec<Captured>,
    /// For the checks the whole images of each change, by the tables, in the order of the statements.
    images: Vec<(usize, Vec<Image>)>,
    /// The same of the rows that were there when their table was emptied.
    emptied: Vec<(usize, Vec<Image>)>,
}

/// What makes the position of a consumer survive.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) incarnation: u64,
    pub(crate) created_at: u64,
    pub(crate) confirmed: u64,
    durable: u64,
    confirms: u64,
}

/// A stream that is open. It dies with the node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    pub(crate) number: u64,
    transaction: usize,
    change: usize,
    /// The newest checkpoint that it gave. What it gives again must not lie before it.
    checkpoint: u64,
}

/// What a stream gives next.
pub(crate) struct Portion {
    pub(crate) items: Vec<Captured>,
    /// How many changes of it were given before, in another opening, and confirmed.
    pub(crate) again: u64,
}

pub(crate) struct Database {
    pub(crate) tables: Tables,
    log: Vec<Logged>,
    pub(crate) newest: u64,
    pub(crate) slot: Option<Slot>,
    pub(crate) slots: u64,
    /// The positions at which the slots were created, by incarnation from 1.
    pub(crate) created: Vec<u64>,
    session: Option<Session>,
    sessions: u64,
    /// When readers see a position: times and positions, both ascending.
    visible: Vec<(u64, u64)>,
    frozen: Option<(u64, u64)>,
    /// The greatest position that was ever confirmed.
    pub(crate) best_confirmed: u64,
    /// Whether the positions of each slot begin again.
    restarts_positions: bool,
}

impl Database {
    pub(crate) fn new(plan: &Plan, shape: &Shape, judge: &mut Judge) -> Self {
        let mut database = Self {
            tables: Tables::new(shape),
            log: Vec::new(),
            newest: 1,
            slot: None,
            slots: 0,
            created: Vec::new(),
            session: None,
            sessions: 0,
            visible: vec![(0, 1)],
            frozen: None,
            best_confirmed: 0,
            restarts_positions: plan.source.restarts_positions,
        };
        let _ = database.apply(shape, &plan.rows, 1, true);
        for (doc, body) in database.tables.documents(shape, 1) {
            judge.on_truth(&doc, 1, Changed::Itself, Some(body.text));
        }
        judge.on_checkpoint(1);
        database
    }

    /// Commits: the position of the transaction, and the documents that it may touch.
    pub(crate) fn commit(
        &mut self,
        shape: &Shape,
        statements: &[Statement],
        before_images: bool,
        visible_at_us: u64,
        judge: &mut Judge,
    ) -> (u64, BTreeSet<Doc>) {
        let position = self.newest + 1 + statements.len() as u64 * 2;
        let Applied { mut items, images, emptied } = self.apply(shape, statements, position, before_images);
        let token = Some(Visibility(position));
        for item in &mut items {
            match item {
                Captured::Change(change) => change.visibility = token,
                Captured::Truncate(truncation) => truncation.visibility = token,
                Captured::Checkpoint(_) | Captured::More => {}
            }
        }
        let (mut touched, itself) = self.touched(shape, &images, position);
        let (by_emptying, emptied_itself) = self.touched(shape, &emptied, position);
        for doc in touched.union(&by_emptying) {
            let body = self.tables.document(shape, doc, position);
            let how = match (touched.contains(doc), itself.contains(doc)) {
                (false, _) if emptied_itself.contains(doc) => Changed::ItselfByTruncation,
                (false, _) => Changed::ByTruncation,
                (true, false) => Changed::ByAnother,
                (true, true) => Changed::Itself,
            };
            judge.on_truth(doc, position, how, body.map(|body| body.text));
        }
        touched.extend(by_emptying);
        judge.on_checkpoint(position);
        self.newest = position;
        self.log.push(Logged { position, items });
        let visible_at_us = self.visible.last().map_or(0, |(at, _)| *at).max(visible_at_us);
        self.visible.push((visible_at_us, position));
        (position, touched)
    }

    /// The documents that these rows are a part of; and those of them whose own rows, or children, they are.
    fn touched(
        &self,
        shape: &Shape,
        images: &[(usize, Vec<Image>)],
        at: u64,
    ) -> (BTreeSet<Doc>, BTreeSet<Doc>) {
        let (mut touched, mut itself) = (BTreeSet::new(), BTreeSet::new());
        for (table, images) in images {
            let (docs, lookups) = shape.touched(*table, images);
            itself.extend(docs.iter().cloned());
            touched.extend(docs);
            for lookup in lookups {
                touched.extend(self.tables.look_up(shape, &lookup, at));
            }
        }
        (touched, itself)
    }

    /// Removes every row of a table: the images of those that were there.
    fn empty(&mut self, table: usize, at: u64) -> Vec<Image> {
        let images = self.tables.scan(table, None, at).map(|(key, columns)| image(key, columns));
        let images: Vec<Image> = images.collect();
        for image in &images {
            self.tables.set(table, image.key.clone(), at, None);
        }
        images
    }

    fn apply(&mut self, shape: &Shape, statements: &[Statement], at: u64, before_images: bool) -> Applied {
        let mut applied = Applied::default();
        for (number, statement) in statements.iter().enumerate() {
            let table = match statement {
                Statement::Put { table, .. }
                | Statement::Remove { table, .. }
                | Statement::Rekey { table, .. } => table,
                Statement::Truncate { tables } => {
                    let numbers = tables.iter().filter_map(|table| shape.table(table));
                    applied.emptied.extend(numbers.map(|table| (table, self.empty(table, at))));
                    let names = tables.iter().filter(|table| shape.table(table).is_some());
                    applied.items.push(Truncation::new(names.map(|name| table_name(name))).into());
                    continue;
                }
            };
            let Some(table) = shape.table(table) else { continue };
            let value = at * 1000 + number as u64;
            let (from, to, new) = match statement {
                Statement::Put { key, refs, bytes, poison, .. } => {
                    let refs = shape.all_refs(table, key, refs);
                    (key, key, Some(Columns { refs, value, bytes: *bytes, poison: *poison }))
                }
                Statement::Remove { key, .. } => (key, key, None),
                Statement::Truncate { .. } => continue,
                Statement::Rekey { from, to, .. } => {
                    let Some(old) = self.tables.get(table, from, at) else { continue };
                    if from == to || self.tables.get(table, to, at).is_some() {
                        continue;
                    }
                    let own = shape.refs(table).iter().zip(&old.refs).filter(|((_, part), _)| part.is_none());
                    let own: Vec<i64> = own.map(|(_, value)| *value).collect();
                    let refs = shape.all_refs(table, to, &own);
                    (from, to, Some(Columns { refs, value, bytes: old.bytes, poison: Poison::None }))
                }
            };
            let old = self.tables.get(table, from, at).cloned();
            if old.is_none() && new.is_none() {
                continue;
            }
            let both = [old.as_ref().map(|old| image(from, old)), new.as_ref().map(|new| image(to, new))];
            applied.images.push((table, both.into_iter().flatten().collect()));
            self.tables.set(table, from.clone(), at, None);
            self.tables.set(table, to.clone(), at, new.clone());
            let name = table_name(shape.table_name(table));
            let row = |key: &[i64], columns: &Columns| row(shape, table, key, columns);
            let before = old.as_ref().filter(|_| before_images).map(|old| row(from, old));
            if from != to && !before_images {
                applied.items.push(Change::delete(name.clone(), to_key(from)).into());
            }
            let mut change = match &new {
                Some(_) => Change::upsert(name, to_key(to)),
                None => Change::delete(name, to_key(to)),
            };
            change.before = before;
            change.after = new.as_ref().map(|new| row(to, new));
            applied.items.push(change.into());
        }
        applied
    }

    /// The newest position that readers see who trail the others by so much.
    pub(crate) fn seen(&self, now_us: u64, lag_us: u64, healed: bool) -> u64 {
        if healed {
            return self.newest;
        }
        let shown = |now_us: u64| {
            let seen = self.visible.partition_point(|(at, _)| *at + lag_us <= now_us);
            self.visible[..seen].last().map_or(0, |(_, position)| *position)
        };
        match self.frozen.filter(|(until, _)| now_us < *until) {
            Some((_, position)) => position.min(shown(now_us)),
            None => shown(now_us),
        }
    }

    /// Readers see nothing new for a while.
    pub(crate) fn freeze(&mut self, now_us: u64, until_us: u64) {
        self.frozen = Some((until_us, self.seen(now_us, 0, false)));
    }

    /// Opens the stream: the incarnation of the slot, and the session. Whoever had it open loses it.
    pub(crate) fn open(&mut self) -> (u64, u64) {
        let newest = self.newest;
        let slot = self.slot.get_or_insert_with(|| {
            self.slots += 1;
            self.created.push(newest);
            Slot {
                incarnation: self.slots,
                created_at: newest,
                confirmed: newest,
                durable: newest,
                confirms: 0,
            }
        });
        let transaction = self.log.partition_point(|logged| logged.position <= slot.confirmed);
        self.sessions += 1;
        self.session = Some(Session { number: self.sessions, transaction, change: 0, checkpoint: 0 });
        (slot.incarnation, self.sessions)
    }

    /// The next items of a session, at most so many; `None` where it is not open any more.
    pub(crate) fn next(&mut self, number: u64, most: usize) -> Option<Portion> {
        let base = self.slot.as_ref().map_or(0, |slot| self.base(slot.incarnation));
        let session = self.session.as_mut().filter(|session| session.number == number)?;
        let mut portion = Portion { items: Vec::new(), again: 0 };
        while portion.items.len() < most {
            let Some(logged) = self.log.get(session.transaction) else { break };
            match logged.items.get(session.change) {
                Some(item) => {
                    portion.items.push(item.clone());
                    portion.again += u64::from(logged.position <= self.best_confirmed);
                    session.change += 1;
                }
                None => {
                    // What no table of the schema shows is told by the next keepalive alone.
                    if !logged.items.is_empty() {
                        portion.items.push(Position(logged.position - base).into());
                        session.checkpoint = logged.position;
                    }
                    session.transaction += 1;
                    session.change = 0;
                }
            }
        }
        Some(portion)
    }

    /// Whether the open session has more to give.
    pub(crate) fn has_more(&self) -> bool {
        self.session.is_some_and(|session| session.transaction < self.log.len())
    }

    /// The checkpoint of an idle session: everything there is has been given.
    pub(crate) fn idle(&mut self) -> u64 {
        if let Some(session) = &mut self.session {
            session.checkpoint = self.newest;
        }
        self.newest - self.slot.as_ref().map_or(0, |slot| self.base(slot.incarnation))
    }

    /// What the positions of a slot, as its streams name them, are counted from.
    pub(crate) fn base(&self, incarnation: u64) -> u64 {
        let place = incarnation.checked_sub(1).filter(|_| self.restarts_positions);
        place.and_then(|place| self.created.get(place as usize)).copied().unwrap_or_default()
    }

    /// Goes back in the stream that is open, inside the transaction that it stands in, or else to the one before. Returns
    /// whether anything will be given twice.
    pub(crate) fn go_back(&mut self, items: usize) -> bool {
        let Some(session) = &mut self.session else { return false };
        if session.change == 0 && session.transaction > 0 {
            let before = &self.log[session.transaction - 1];
            let foreign = self.slot.as_ref().is_none_or(|slot| before.position <= slot.created_at);
            if foreign || before.position < session.checkpoint {
                return false;
            }
            session.transaction -= 1;
            session.change = before.items.len();
        }
        let before = session.change;
        session.change = session.change.saturating_sub(items);
        session.change < before
    }

    pub(crate) fn break_stream(&mut self) {
        self.session = None;
    }

    /// Confirms a position of an incarnation. `None` where that is not the slot's.
    pub(crate) fn confirm(&mut self, incarnation: u64, position: u64, durable_each: u64) -> Option<()> {
        let slot = self.slot.as_mut().filter(|slot| slot.incarnation == incarnation)?;
        slot.confirmed = slot.confirmed.max(position);
        slot.confirms += 1;
        if slot.confirms.is_multiple_of(durable_each.max(1)) {
            slot.durable = slot.confirmed;
        }
        self.best_confirmed = self.best_confirmed.max(position);
        Some(())
    }

    /// The resume point goes back to where it was created: everything since is given again.
    pub(crate) fn rewind(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.created_at;
            slot.durable = slot.created_at;
        }
        self.session = None;
    }

    /// The node dies. Returns whether a confirm was forgotten.
    pub(crate) fn crash(&mut self) -> bool {
        self.session = None;
        let Some(slot) = &mut self.slot else { return false };
        let forgot = slot.confirmed > slot.durable;
        slot.confirmed = slot.durable;
        forgot
    }

    pub(crate) fn lose_position(&mut self) {
        self.slot = None;
        self.session = None;
    }

    /// The changes of the transaction that ends at a position.
    pub(crate) fn changes_at(&self, position: u64) -> usize {
        let at = self.log.binary_search_by_key(&position, |logged| logged.position);
        at.map_or(0, |at| self.log[at].items.len())
    }
}

fn image(key: &[i64], columns: &Columns) -> Image {
    Image { key: key.to_vec(), refs: columns.refs.iter().copied().map(Some).collect() }
}

fn table_name(name: &str) -> TableName {
    TableName::new(name).expect("a table of the schema has a name")
}

/// The columns of a table's rows, as changes name them: those of the key, then the refs of its own.
pub(crate) fn ref_column(by: usize) -> ColumnName {
    ColumnName::new(format!("r{by}")).expect("the name is short and has characters")
}

fn row(shape: &Shape, table: usize, key: &[i64], columns: &Columns) -> Row {
    let keys = key.iter().enumerate().map(|(at, part)| (key_column(at), Value::Int(*part)));
    let own = shape.refs(table).iter().zip(&columns.refs).enumerate();
    let own = own.filter(|(_, ((_, part), _))| part.is_none());
    let refs = own.map(|(by, (_, value))| (ref_column(by), Value::Int(*value)));
    keys.chain(refs).collect()
}

pub(crate) fn key_column(at: usize) -> ColumnName {
    ColumnName::new(format!("k{at}")).expect("the name is short and has characters")
}
