//! What a run shares with its handle: how it is, and until when it is to be drained.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::pipeline::{Phase, Status};

/// A hundred years: a deadline past the end of time is as good as this one.
const CENTURY: Duration = Duration::from_secs(3_155_760_000);

/// The run when its task last waited, and when that was.
type Published = (Status, Option<Instant>);

#[derive(Debug, Default)]
struct Requests {
    /// The earliest deadline of the drains that were asked for.
    drain_until: Mutex<Option<Instant>>,
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

impl Desk {
    pub(super) fn publish(&self, status: Status) {
        self.published.send_replace((status, Some(Instant::now())));
    }

    /// Waits until a drain is asked for: its deadline.
    pub(super) async fn drain_requested(&self) -> Instant {
        loop {
            let until = self.requests.drain_until.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(until) = until {
                return until;
            }
            self.requests.asked.notified().await;
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

    pub(super) fn request_drain(&self, within: Duration) {
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now + CENTURY);
        let mut earliest = self.requests.drain_until.lock().unwrap_or_else(PoisonError::into_inner);
        *earliest = Some(earliest.map_or(until, |known| known.min(until)));
        self.requests.asked.notify_one();
    }
}
