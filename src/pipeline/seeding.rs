//! Which indexes are being seeded, and how far.
//!
//! The destination decides: an index is seeded, or resumes from its cursor, where the sink says so for this stream and
//! this definition; else it is cleared, and a cursor at the start is durable before anything is written to it. Until then
//! no build of it starts: its gate is shut.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::change::Visibility;
use crate::error::RejectedDocument;
use crate::name::{IndexName, StreamId, TableName};
use crate::pipeline::ledger::{Handle, Ledger};
use crate::pipeline::protocol::CallId;
use crate::pipeline::status::Verified;
use crate::pipeline::verify::Verification;
use crate::ports::{IndexScope, Seed, SeedState, SnapshotTable};
use crate::row::Key;
use crate::time::Instant;

/// Where an index stands on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// It is not to be seeded: no scope, or the backfill is skipped.
    Open,
    /// A stream was opened that it may not be seeded for: its flights must be over first.
    Settling,
    /// It is to be emptied, and seeded anew: its flights must be over first, and so must what is being remembered of its
    /// seeding, because it holds no more.
    Shut,
    /// It is to stop alone: that is being remembered.
    Parking,
    /// It stopped alone. Nothing of it is built until it is seeded anew.
    Parked,
    /// The sink is asked how far it is.
    Reading,
    /// Not at all.
    Unseeded,
    /// It is being cleared.
    Clearing,
    /// The cursor at the start is being saved.
    Starting,
    /// It waits for a scan from here on.
    Ready(Option<Key>),
    /// Its table is being scanned.
    Scanning,
    /// All rows have been read.
    Scanned,
    /// It is being marked.
    Marking,
    /// It is seeded.
    Seeded,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Index {
    pub(super) name: IndexName,
    pub(super) root: Option<SnapshotTable>,
    /// The other tables that it is built from; `None` where it may be any.
    related: Option<Vec<TableName>>,
    definition: SmolStr,
    pub(super) stage: Stage,
    /// What is owed until it is cleared: truncations, and the changes of documents that failed while it was to be.
    pub(super) until_cleared: Vec<Handle>,
    /// Someone asked for it to be seeded anew.
    pub(super) anew: bool,
    /// Its root table was truncated since it was cleared last: its documents are gone, and are to be found no longer.
    pub(super) truncated: bool,
    /// It was rebuilt, not cleared, before its start is durable: what it held may be found until it is seeded.
    pub(super) rebuilt: bool,
    /// The document that it stops for.
    pub(super) parked_for: Option<RejectedDocument>,
    /// What its scan must see: what was written before it was cleared comes in no change any more.
    pub(super) sees: Option<Visibility>,
    /// The rows that are owed, with the cursors between them.
    pub(super) rows: Ledger<Key>,
    /// Its documents in flight.
    pub(super) flying: usize,
    /// Rows up to here were written in an earlier scan: they are passed over.
    pub(super) skip_to: Option<Key>,
    /// It is being compared with its source.
    pub(super) verification: Option<Verification>,
    /// What the last comparison found that came to its end.
    pub(super) verified: Option<Arc<Verified>>,
    /// The newest cursor that is safe: being saved, or to be saved.
    pub(super) cursor: Option<Key>,
    pub(super) saving: bool,
}

impl Index {
    /// Whether builds of it may start.
    pub(super) fn gate(&self) -> bool {
        match self.stage {
            Stage::Settling
            | Stage::Shut
            | Stage::Parking
            | Stage::Parked
            | Stage::Reading
            | Stage::Unseeded
            | Stage::Clearing
            | Stage::Starting => false,
            Stage::Open
            | Stage::Ready(_)
            | Stage::Scanning
            | Stage::Scanned
            | Stage::Marking
            | Stage::Seeded => true,
        }
    }

    /// What it is seeded from, and how its documents are built.
    pub(super) fn seed(&self) -> (Option<&SnapshotTable>, &str) {
        (self.root.as_ref(), &self.definition)
    }

    /// Whether its documents have a root table of this name, or may be built from one.
    pub(super) fn is_built_from(&self, table: &TableName) -> bool {
        let is_related = || self.related.as_ref().is_none_or(|related| related.contains(table));
        self.root.as_ref().is_some_and(|root| root.table == *table || is_related())
    }

    /// Whether its documents have a row each in one of these tables.
    pub(super) fn is_rooted_in(&self, tables: &[TableName]) -> bool {
        self.root.as_ref().is_some_and(|root| tables.contains(&root.table))
    }

    pub(super) fn is_seeded(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Seeded)
    }

    /// Whether nothing is left to do for its seeding: it is seeded, or stopped alone.
    pub(super) fn is_done(&self) -> bool {
        self.is_seeded() || self.stage == Stage::Parked
    }
}

/// A snapshot that is being read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scan {
    /// The call that opened it, once it is open.
    pub(super) open: Option<CallId>,
    pub(super) table: SnapshotTable,
    /// The last row that was read.
    pub(super) after: Option<Key>,
    pub(super) members: Vec<u32>,
    /// Which attempt this is since the last row. The first is 1.
    pub(super) attempt: u32,
    /// Since when a row has been waited for; `None` while none can be taken.
    pub(super) since: Option<Instant>,
    /// Its rows are compared with what is held, and are in no cursor.
    pub(super) verifies: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Seeding {
    pub(super) indexes: Vec<Index>,
    pub(super) scan: Option<Scan>,
    pub(super) stream: Option<StreamId>,
    /// Whether it was told which indexes will be seeded for this stream.
    pub(super) announced: bool,
    /// Whether it was told that all are.
    pub(super) completed: bool,
}

impl Seeding {
    /// Learns an index by its scope.
    pub(super) fn add_scope(&mut self, scope: IndexScope, skip: bool) {
        let number = self.index(&scope.index);
        let index = self.get_mut(number);
        index.root = Some(scope.root);
        index.related = scope.related;
        index.definition = scope.definition;
        index.stage = if skip { Stage::Open } else { Stage::Settling };
    }

    /// The number of an index; a new one where the name is new.
    pub(super) fn index(&mut self, name: &IndexName) -> u32 {
        let at = self.indexes.iter().position(|index| index.name == *name).unwrap_or_else(|| {
            self.indexes.push(Index {
                name: name.clone(),
                root: None,
                related: None,
                definition: SmolStr::default(),
                stage: Stage::Open,
                until_cleared: Vec::new(),
                anew: false,
                truncated: false,
                rebuilt: false,
                parked_for: None,
                sees: None,
                rows: Ledger::default(),
                flying: 0,
                skip_to: None,
                verification: None,
                verified: None,
                cursor: None,
                saving: false,
            });
            self.indexes.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, index: u32) -> &Index {
        &self.indexes[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Index {
        &mut self.indexes[index as usize]
    }

    pub(super) fn gate(&self, index: u32) -> bool {
        self.get(index).gate()
    }

    /// What markers and cursors of an index hold for.
    pub(super) fn seed(&self, index: u32) -> Option<Seed> {
        Some(Seed { stream: self.stream.clone()?, definition: self.get(index).definition.clone() })
    }

    /// Another stream was opened: no index with a scope counts as seeded any more.
    pub(super) fn restart(&mut self, stream: StreamId, skip: bool) {
        self.stream = Some(stream);
        self.scan = None;
        self.announced = false;
        self.completed = false;
        for index in &mut self.indexes {
            if index.root.is_some() && !skip {
                index.stage = Stage::Settling;
            } else if index.stage == Stage::Clearing {
                // Its clear was given up.
                index.stage = Stage::Shut;
            }
            index.rows.clear_marks();
            index.sees = None;
            index.cursor = None;
            index.saving = false;
            index.rebuilt = false;
            index.skip_to = None;
            index.verification = None;
        }
    }

    /// The sink told how far an index is. What it was seeded from may have been truncated meanwhile.
    pub(super) fn on_read(&mut self, index: u32, state: SeedState) {
        let index = self.get_mut(index);
        index.stage = match state {
            _ if index.anew => Stage::Unseeded,
            SeedState::Parked => Stage::Parked,
            _ if !index.until_cleared.is_empty() => Stage::Unseeded,
            SeedState::Unseeded => Stage::Unseeded,
            SeedState::Seeding(after) => Stage::Ready(after),
            SeedState::Seeded => Stage::Seeded,
        };
    }

    /// Whether the sink has told of every index how far it is.
    pub(super) fn is_read(&self) -> bool {
        !self.indexes.iter().any(|index| matches!(index.stage, Stage::Settling | Stage::Reading))
    }

    /// Begins the next scan, where one can begin: over all indexes of a table, once all of them are ready. It starts at
    /// the least cursor, and each index passes over the rows up to its own.
    pub(super) fn next_scan(&mut self) -> bool {
        if self.scan.is_some() || !self.is_read() {
            return false;
        }
        let busy = |stage: &Stage| {
            matches!(stage, Stage::Shut | Stage::Unseeded | Stage::Clearing | Stage::Starting)
        };
        let table = self.indexes.iter().find_map(|index| {
            let root = index.root.as_ref().filter(|_| matches!(index.stage, Stage::Ready(_)))?;
            let waits =
                self.indexes.iter().any(|other| other.root.as_ref() == Some(root) && busy(&other.stage));
            (!waits).then(|| root.clone())
        });
        let Some(table) = table else { return self.next_verification() };
        let mut members = Vec::new();
        let mut least: Option<Option<Key>> = None;
        for (at, index) in self.indexes.iter_mut().enumerate() {
            if index.root.as_ref() != Some(&table) {
                continue;
            }
            if let Stage::Ready(after) = &mut index.stage {
                let after = after.take();
                least = Some(match least {
                    None => after.clone(),
                    Some(least) => least.min(after.clone()),
                });
                index.skip_to = after;
                index.stage = Stage::Scanning;
                members.push(at as u32);
            }
        }
        let after = least.flatten();
        for member in &members {
            let skip_to = &mut self.indexes[*member as usize].skip_to;
            if *skip_to == after {
                *skip_to = None;
            }
        }
        self.scan =
            Some(Scan { open: None, table, after, members, attempt: 1, since: None, verifies: false });
        true
    }

    /// What the snapshot of a scan must see.
    pub(super) fn sees(&self, scan: &Scan) -> Option<Visibility> {
        scan.members.iter().filter_map(|member| self.get(*member).sees).max()
    }

    /// The rows that are owed, over all indexes.
    pub(super) fn rows_owed(&self) -> usize {
        self.indexes.iter().map(|index| index.rows.len()).sum()
    }

    /// Whether anything is owed until an index is cleared.
    pub(super) fn owes_a_clear(&self) -> bool {
        self.indexes.iter().any(|index| !index.until_cleared.is_empty())
    }

    /// Whether there is nothing left to seed.
    pub(super) fn is_done(&self) -> bool {
        self.indexes.iter().all(Index::is_done)
    }
}
