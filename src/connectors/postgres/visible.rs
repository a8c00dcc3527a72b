//! Whether a query can see what was streamed.
//!
//! A change is streamed as soon as its commit is in the log, which is before other sessions see it: by an instant, or by
//! as long as the commit waits for a synchronous standby. A standby sees it later still. A build must not read an older
//! snapshot than its change, or the document would stay stale.
//!
//! The token of a change is the position of its commit, which orders commits as the stream does. That a standby has
//! replayed so far is a comparison. A primary has no such position: a snapshot of it is told by transaction ids, in
//! another order. So the ids of streamed transactions are remembered, with their positions, until a snapshot has shown
//! them; in one place of the process for each server, because a capture and its documents know nothing of each other.
//!
//! What was committed before a stream's resume point is in no stream, and so has no token: a standby that has not come to
//! it yet would show rows as they were before, and nothing would ever build their documents again. So the position from which
//! an opening resumes is told in the same place, and everything that is built or resolved waits until it is replayed. A
//! primary shows what lies before it: a slot is found only once that is so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use deadpool_postgres::GenericClient;

use super::error::{Place, PostgresError};

/// What was streamed from one server.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    /// Transactions that are not yet known to be seen by every snapshot from now on: each by the position of its commit.
    unseen: Mutex<BTreeMap<u64, u32>>,
    /// From where each consumer's stream resumed last.
    resumed: Mutex<BTreeMap<String, u64>>,
}

/// By the server's own identifier.
static STREAMED: LazyLock<Mutex<BTreeMap<u64, Arc<Streamed>>>> = LazyLock::new(Mutex::default);

impl Streamed {
    /// What was streamed from this server.
    pub(super) fn of(system: u64) -> Arc<Self> {
        let mut all = STREAMED.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(system).or_default())
    }

    /// A stream of this consumer resumes from this position.
    pub(super) fn resumes(&self, consumer: &str, position: u64) {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).insert(consumer.to_owned(), position);
    }

    /// Whether a stream of this server was opened in this process: without one, a token is none of its positions.
    pub(super) fn is_known(&self) -> bool {
        self.resumed_from().is_some()
    }

    /// The newest position from which a stream resumed.
    fn resumed_from(&self) -> Option<u64> {
        self.resumed.lock().unwrap_or_else(PoisonError::into_inner).values().max().copied()
    }

    pub(super) fn note(&self, commit: u64, xid: u32) {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).insert(commit, xid);
    }

    pub(super) fn len(&self) -> usize {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a snapshot of the primary shows every transaction whose commit is at `token` or before. What it shows is
    /// forgotten: later snapshots show it too.
    fn shown(&self, snapshot: &Snapshot, token: u64) -> bool {
        let mut all = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = true;
        all.retain(|commit, xid| {
            let seen = snapshot.shows(*xid);
            shown &= seen || *commit > token;
            !seen
        });
        shown
    }
}

/// A snapshot as `pg_current_snapshot` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    /// Every transaction from here on is not seen.
    end: u64,
    /// Nor are these before it.
    open: Vec<u64>,
}

impl Snapshot {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (_first, end, open) = (parts.next()?, parts.next()?, parts.next()?);
        let open: Result<Vec<u64>, _> =
            open.split(',').filter(|xid| !xid.is_empty()).map(str::parse).collect();
        Some(Self { end: end.parse().ok()?, open: open.ok()? })
    }

    /// The stream tells the lower half of an id alone; it is less than half the numbers away from the newest.
    fn shows(&self, xid: u32) -> bool {
        let newest = self.end as u32;
        let distance = xid.wrapping_sub(newest).cast_signed();
        let xid = self.end.wrapping_add_signed(i64::from(distance));
        xid < self.end && !self.open.contains(&xid)
    }
}

/// What was streamed from the server of this connection, or from the one of which it is a standby.
pub(super) async fn streamed(
    place: &Place,
    client: &impl GenericClient,
) -> Result<Arc<Streamed>, PostgresError> {
    Ok(which(place, client).await?.0)
}

/// The same, and whether this is a standby.
async fn which(place: &Place, client: &impl GenericClient) -> Result<(Arc<Streamed>, bool), PostgresError> {
    let asked =
        "SELECT system_identifier, pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_control_system()";
    let row = client.query_one(asked, &[]).await.map_err(place.failed("asking which server it is"))?;
    Ok((Streamed::of(row.get::<_, i64>(0).cast_unsigned()), row.get(1)))
}

/// Where documents are read.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) streamed: Arc<Streamed>,
    /// It was a standby when it was asked last.
    standby: AtomicBool,
}

impl Reads {
    /// From the server of this connection.
    pub(super) async fn from(place: &Place, client: &impl GenericClient) -> Result<Self, PostgresError> {
        let (streamed, is_standby) = which(place, client).await?;
        Ok(Self { streamed, standby: AtomicBool::new(is_standby) })
    }

    /// Whether a snapshot is to be preceded by the question how far the server is.
    pub(super) fn is_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Whether the snapshot that this transaction reads shows all before the point from which a stream resumed, and every
    /// streamed transaction up to `token`, where there is one. Of a standby that can be told only where it has `replayed` as
    /// much before.
    pub(super) async fn shows(
        &self,
        place: &Place,
        client: &impl GenericClient,
        token: Option<u64>,
        replayed: bool,
    ) -> Result<bool, PostgresError> {
        match snapshot(place, client).await? {
            // What it has replayed decided before: its snapshot does not tell which transactions are open.
            None => {
                self.standby.store(true, Ordering::Relaxed);
                Ok(replayed)
            }
            Some(snapshot) => {
                self.standby.store(false, Ordering::Relaxed);
                Ok(self.streamed.shown(&snapshot, token.unwrap_or_default()))
            }
        }
    }
}

/// Whether a standby has replayed all before the point from which a stream resumed, and the commit at `token`, where there is
/// one; a primary has, always. To be asked before the snapshot is taken.
pub(super) async fn replayed(
    place: &Place,
    client: &impl GenericClient,
    streamed: &Streamed,
    token: Option<u64>,
) -> Result<bool, PostgresError> {
    // A commit's position is that of its record's beginning, of which the end lies behind; a resume point is an end itself.
    let Some(needed) = token.map(|commit| commit + 1).max(streamed.resumed_from()) else { return Ok(true) };
    let failed = || place.failed("asking how far the standby is");
    let asked = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
        THEN (pg_catalog.pg_last_wal_replay_lsn() - '0/0')::int8 END";
    let statement = client.prepare_cached(asked).await.map_err(failed())?;
    let row = client.query_one(&statement, &[]).await.map_err(failed())?;
    Ok(row.get::<_, Option<i64>>(0).is_none_or(|replayed| replayed.cast_unsigned() >= needed))
}

/// Whether the snapshot that this connection reads shows every streamed transaction up to `token`; of a standby, true.
pub(super) async fn shown(
    place: &Place,
    client: &impl GenericClient,
    streamed: &Streamed,
    token: u64,
) -> Result<bool, PostgresError> {
    Ok(snapshot(place, client).await?.is_none_or(|snapshot| streamed.shown(&snapshot, token)))
}

/// The snapshot that this connection reads; none of a standby.
async fn snapshot(place: &Place, client: &impl GenericClient) -> Result<Option<Snapshot>, PostgresError> {
    let failed = || place.failed("reading a snapshot");
    let asked = "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery()";
    let statement = client.prepare_cached(asked).await.map_err(failed())?;
    let row = client.query_one(&statement, &[]).await.map_err(failed())?;
    if row.get(1) {
        return Ok(None);
    }
    let text: &str = row.get(0);
    match Snapshot::read(text) {
        Some(snapshot) => Ok(Some(snapshot)),
        None => Err(place.unexpected(format!("`{text}` is no snapshot that can be read"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b6_a_snapshot_shows_what_had_ended_when_it_was_taken() {
        let snapshot = Snapshot::read("700:710:700,705").unwrap();
        assert!(snapshot.shows(699) && snapshot.shows(701) && snapshot.shows(709));
        assert!(
            !snapshot.shows(700) && !snapshot.shows(705) && !snapshot.shows(710) && !snapshot.shows(4_000)
        );
        assert_eq!(Snapshot::read("5:5:").unwrap(), Snapshot { end: 5, open: vec![] });
        for text in ["", "5", "5:5", "a:b:c", "1:2:3,x"] {
            assert_eq!(Snapshot::read(text), None, "{text}");
        }
    }

    #[test]
    fn b6_ids_are_told_apart_also_where_they_wrap_around() {
        // The newest is 5 after the ids have wrapped around once.
        let snapshot = Snapshot { end: (1 << 32) + 5, open: vec![(1 << 32) - 1] };
        assert!(snapshot.shows(u32::MAX - 1) && snapshot.shows(4));
        assert!(!snapshot.shows(u32::MAX) && !snapshot.shows(5) && !snapshot.shows(9));
    }

    #[test]
    fn b6_a_streamed_transaction_is_awaited_until_a_snapshot_shows_it() {
        let streamed = Streamed::default();
        streamed.note(100, 7);
        streamed.note(200, 6);
        let before = Snapshot { end: 8, open: vec![6] };
        assert!(!streamed.shown(&before, 200), "6 is still open");
        assert_eq!(streamed.len(), 1, "7 was shown, and is forgotten");
        assert!(streamed.shown(&before, 150), "what committed later does not matter");
        assert!(streamed.shown(&Snapshot { end: 8, open: vec![] }, 200));
        assert_eq!(streamed.len(), 0);
    }
}
