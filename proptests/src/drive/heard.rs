//! What the observer of a run has heard.

use std::collections::BTreeSet;

use syncline::error::Stage;
use syncline::pipeline::Notice;
use syncline::{IndexName, Lane, Verified};

/// The notices of one run, as far as they must agree with each other and with the status.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The indexes are ensured.
    pub ensured: bool,
    /// Indexes that will be seeded, and neither are nor have stopped.
    pub seeding: BTreeSet<IndexName>,
    /// Live changes flow.
    pub live: bool,
    /// Changes that were captured.
    pub captured: u64,
    /// Changes that were committed; rows of a backfill are not counted.
    pub committed: u64,
    /// Calls that were, or will be, made again.
    pub retried: u64,
    /// Documents that were quarantined.
    pub quarantined: u64,
    /// What the comparisons found that came to their end.
    pub verified: Vec<Verified>,
}

impl Heard {
    pub(super) fn on(&mut self, notice: &Notice) {
        match notice {
            Notice::IndexesEnsured(_) => self.ensured = true,
            Notice::BackfillStarted(indexes) => self.seeding.extend(indexes.iter().cloned()),
            Notice::IndexSeeded(index) => drop(self.seeding.remove(index)),
            Notice::Parked(document) => drop(self.seeding.remove(&document.id.index)),
            Notice::LiveStarted => self.live = true,
            Notice::Captured(count) => self.captured += *count as u64,
            Notice::Committed(stats) if stats.lane == Lane::Live => self.committed += stats.changes as u64,
            Notice::Quarantined(..) => self.quarantined += 1,
            Notice::Verified(verified) => self.verified.push(verified.clone()),
            Notice::Retried { stage, .. } => self.retried += u64::from(*stage != Stage::Lag),
            _ => {}
        }
    }
}
