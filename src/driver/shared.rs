//! What a run shares with its handle: how it is, and what is asked of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::name::IndexName;
use crate::pipeline::{Phase, Refusal, Status};

/// A hundred years: a deadline past the end of time is as good as this one.
const CENTURY: Duration = Duration::from_secs(3_155_760_000);

/// The run when its task last waited, and when that was.
type Published = (Status, Option<Instant>);

/// What the handle asks of the run.
#[derive(Debug)]
pub(super) enum Request {
    /// To be drained until then.
    Drain(Instant),
    /// Something of an index; told whether it will be done.
    Index(OfIndex, IndexName, Told),
}

/// What is asked of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfIndex {
    /// To be seeded anew.
    Reindex,
    /// To be compared with its source.
    Verify,
}

/// Whoever asked, and waits for the answer.
pub(super) type Told = oneshot::Sender<Result<(), Refusal>>;

/// What is asked of indexes, and whether anyone will take it up.
#[derive(Debug, Default)]
struct OfIndexes {
    asked: VecDeque<(OfIndex, IndexName, Told)>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Requests {
    /// The earliest deadline of the drains that were asked for.
    drain_until: Mutex<Option<Instant>>,
    of_indexes: Mutex<OfIndexes>,
    asked: Notify,
}

/// Both ends, for a run that begins.
pub(super) fn ends() -> (Desk, Watch) {
    let (published, seen) = watch::channel(Published::default());
    let requests = Arc::new(Requests::default());
    (Desk { published, requests: requests.clone() }, Watch { seen, requests })
}

/// The end of the run. Dropping it tells that the run is over.
#[derive(Debug)]
pub(super) struct Desk {
    published: watch::Sender<Published>,
    requests: Arc<Requests>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Whoever waits for an answer learns that none will come.
        let mut of_indexes = self.requests.of_indexes.lock().unwrap_or_else(PoisonError::into_inner);
        *of_indexes = OfIndexes { asked: VecDeque::new(), closed: true };
    }
}

impl Desk {
    pub(super) fn publish(&self, status: Status) {
        self.published.send_replace((status, Some(Instant::now())));
    }

    /// Waits for the next request; for one that is about an index only while the run knows its indexes.
    pub(super) async fn requested(&self, knows_indexes: bool) -> Request {
        let requests = &self.requests;
        loop {
            if let Some(until) = requests.drain_until.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Request::Drain(until);
            }
            let next =
                || requests.of_indexes.lock().unwrap_or_else(PoisonError::into_inner).asked.pop_front();
            if let Some((what, index, told)) = knows_indexes.then(next).flatten() {
                return Request::Index(what, index, told);
            }
            requests.asked.notified().await;
        }
    }
}

/// The end of the handle.
#[derive(Debug)]
pub(super) struct Watch {
    seen: watch::Receiver<Published>,
    requests: Arc<Requests>,
}

impl Watch {
    pub(super) fn status(&self) -> Status {
        let (mut status, published) = self.seen.borrow().clone();
        // What is owed grows older while nothing happens.
        if status.phase != Phase::Ended {
            let since = published.map_or(Duration::ZERO, |at| at.elapsed());
            status.oldest_unacknowledged = status.oldest_unacknowledged.map(|age| age.saturating_add(since));
        }
        status
    }

    /// Waits until the status is so, or will be no more because the run is over.
    pub(super) async fn until(&self, condition: impl Fn(&Status) -> bool) {
        let _ = self.seen.clone().wait_for(|(status, _)| condition(status)).await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.seen.has_changed().is_err()
    }

    /// Asks something of an index: whether it will be done; nothing where the run is over before it could tell.
    pub(super) fn request(&self, what: OfIndex, index: &IndexName) -> oneshot::Receiver<Result<(), Refusal>> {
        let (told, answer) = oneshot::channel();
        let mut of_indexes = self.requests.of_indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if !of_indexes.closed {
            of_indexes.asked.push_back((what, index.clone(), told));
            self.requests.asked.notify_one();
        }
        answer
    }

    pub(super) fn request_drain(&self, within: Duration) {
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now + CENTURY);
        let mut earliest = self.requests.drain_until.lock().unwrap_or_else(PoisonError::into_inner);
        *earliest = Some(earliest.map_or(until, |known| known.min(until)));
        self.requests.asked.notify_one();
    }
}
