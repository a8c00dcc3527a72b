//! Changes that come at a pace, and how long each took.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc::{self, UnboundedReceiver};

/// How long changes took, in the order in which they came.
pub type Latencies = Vec<Duration>;

/// A writer to a source: it changes one row after the other, whatever becomes of it.
#[derive(Debug)]
pub struct Writer {
    changes: Mutex<Option<UnboundedReceiver<u64>>>,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// When each change was made that is not acknowledged yet.
    owed: Mutex<VecDeque<Instant>>,
    took: Mutex<(u64, Latencies)>,
    seeded: AtomicBool,
}

impl Writer {
    /// Makes a change every so often, by the clock, from a thread of its own: `changes` of them, or, if there are rows to
    /// seed, until [`seeded`](Self::seeded).
    #[must_use]
    pub fn start(every: Duration, changes: u64, seeds: bool) -> Self {
        let (sender, receiver) = mpsc::unbounded();
        let log = Arc::new(Log::default());
        let writer = Self { changes: Mutex::new(Some(receiver)), log: Arc::clone(&log) };
        std::thread::spawn(move || {
            let begun = Instant::now();
            let mut at = 0;
            while if seeds { !log.seeded.load(Ordering::Relaxed) } else { at < changes } {
                let due = begun + every * u32::try_from(at).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                lock(&log.owed).push_back(Instant::now());
                if sender.unbounded_send(at).is_err() {
                    return;
                }
                at += 1;
            }
        });
        writer
    }

    /// The number of each change as it is made. It ends after the last. There is one reader.
    ///
    /// # Panics
    ///
    /// Where there is a second.
    #[must_use]
    pub fn changes(&self) -> UnboundedReceiver<u64> {
        lock(&self.changes).take().expect("the changes are read once")
    }

    /// All changes before this number are acknowledged.
    pub fn acknowledged(&self, end: u64) {
        let now = Instant::now();
        let mut owed = lock(&self.log.owed);
        let mut took = lock(&self.log.took);
        while took.0 < end
            && let Some(made) = owed.pop_front()
        {
            took.0 += 1;
            took.1.push(now - made);
        }
    }

    /// The rows that there were at the beginning are all in the index.
    pub fn seeded(&self) {
        self.log.seeded.store(true, Ordering::Relaxed);
    }

    /// How long each change took.
    ///
    /// # Panics
    ///
    /// Where one was not acknowledged.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        assert!(lock(&self.log.owed).is_empty(), "every change is acknowledged");
        lock(&self.log.took).1.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
