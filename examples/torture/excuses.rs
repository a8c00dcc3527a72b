//! Why an index may be found incomplete, and until when.
//!
//! There are three reasons, and no others: it has never been seeded; somebody has removed it by hand; its root table was truncated, so that it is
//! [cleared](syncline::ports::Sink::clear), and not [rebuilt](syncline::ports::Sink::rebuild) beside what is searched. An excuse begins
//! before that is done, and is over once the position of the engine is behind it and an engine has said *after that* that
//! the index is seeded. Whatever else has an index seeded again, which are requests, lost positions, indexes that have stopped
//! and truncations of other tables, excuses nothing.
//!
//! A server that comes back knows no newer position of the slot than it has written down, and gives a truncation again: to
//! stop it excuses an index once more whose truncation may be behind that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::protocol::{Told, now_ms};
use crate::schema::INDEXES;
use crate::tally::{Result, Tally, locked};

/// Where the log ends, how far the engine has confirmed it, and from where on a server that comes back may give it again.
const POSITIONS: &str = "
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, coalesce(min(confirmed_flush_lsn) - '0/0', 0)::bigint,
    coalesce(min(restart_lsn) - '0/0', 0)::bigint
FROM pg_replication_slots WHERE slot_name LIKE 'syncline%' AND NOT temporary";

#[derive(Debug, Clone, Default)]
struct Excuse {
    /// How many are doing something to it at this moment.
    doing: usize,
    is_open: bool,
    /// What was done is before this position.
    end: Option<u64>,
    /// When the engine was seen to have confirmed that.
    confirmed_ms: Option<u64>,
    closed: Option<Instant>,
    /// Its root table was truncated, and a server that comes back may say so again.
    truncated: bool,
    /// How often anything was begun.
    begun: u64,
}

pub(crate) struct Excuses {
    of: Mutex<BTreeMap<&'static str, Excuse>>,
    cluster: Arc<Cluster>,
    tally: Arc<Tally>,
}

impl Excuses {
    /// No index has been seeded.
    pub(crate) fn new(cluster: Arc<Cluster>, tally: Arc<Tally>) -> Self {
        let unseeded = Excuse { is_open: true, ..Excuse::default() };
        Self { of: Mutex::new(INDEXES.map(|index| (index, unseeded.clone())).into()), cluster, tally }
    }

    /// Something is about to be done.
    pub(crate) fn begin(&self, index: &'static str, truncates: bool) {
        let mut of = locked(&self.of);
        let excuse = of.entry(index).or_default();
        *excuse = Excuse {
            doing: excuse.doing + 1,
            is_open: true,
            truncated: excuse.truncated || truncates,
            begun: excuse.begun + 1,
            ..Excuse::default()
        };
        self.tally.note(format!("{index} may be found incomplete"));
    }

    /// It is done, or was given up.
    pub(crate) fn end(&self, index: &'static str) {
        if let Some(excuse) = locked(&self.of).get_mut(index) {
            excuse.doing = excuse.doing.saturating_sub(1);
        }
    }

    /// The database server is about to be stopped. Returns what ends once it is back.
    pub(crate) fn begin_stop(&self) -> Vec<&'static str> {
        let of = locked(&self.of);
        let truncated: Vec<_> =
            of.iter().filter(|(_, excuse)| excuse.truncated).map(|(index, _)| *index).collect();
        drop(of);
        truncated.iter().for_each(|index| self.begin(index, true));
        truncated
    }

    /// Whether an index may have been found incomplete at any time since then.
    pub(crate) fn covers(&self, index: &str, since: Instant) -> bool {
        let of = locked(&self.of);
        of.get(index)
            .is_some_and(|excuse| excuse.is_open || excuse.closed.is_some_and(|closed| closed >= since))
    }

    /// Looks whether any is over.
    pub(crate) async fn look(&self, told: Option<Told>) -> Result<()> {
        let before = locked(&self.of).clone();
        if !before.values().any(|excuse| excuse.is_open || excuse.truncated) {
            return Ok(());
        }
        let cluster = self.cluster.clone();
        let answer = tokio::task::spawn_blocking(move || cluster.psql("postgres", POSITIONS)).await?;
        // The server may be away.
        let Ok(answer) = answer else { return Ok(()) };
        let positions = answer.split('|').map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
        let [last, confirmed, again_from] = positions[..] else { return Err("no positions".into()) };
        let now = now_ms();
        for (index, excuse) in locked(&self.of).iter_mut() {
            // What was begun meanwhile is behind these positions.
            if excuse.doing > 0
                || before.get(index).is_none_or(|before| before.doing > 0 || before.begun != excuse.begun)
            {
                continue;
            }
            let end = *excuse.end.get_or_insert(last);
            excuse.truncated &= again_from < end;
            let is_whole =
                |since| told.as_ref().is_some_and(|told| told.at_ms > since && told.seeded.contains(*index));
            if excuse.is_open && excuse.confirmed_ms.is_some_and(is_whole) {
                excuse.is_open = false;
                excuse.closed = Some(Instant::now());
                self.tally.note(format!("{index} has to be found whole from now on"));
            }
            if confirmed >= end {
                excuse.confirmed_ms.get_or_insert(now);
            }
        }
        Ok(())
    }
}
