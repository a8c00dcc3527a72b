//! How a run behaves at its ports, beside what becomes durable: judged by what it was told there, and by what it was asked
//! for. Everything here concerns one run, and is forgotten with it. What it says of itself is judged in `claims`.

mod claims;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncline::SeedState;

use crate::index::{Tampering, Version};
use crate::judge::Broken;
use crate::outcome::Check;
use crate::plan::Engine;
use crate::tables::{Doc, from_key};

/// By how much a timer of the engine may be late: a poll is held for a millisecond by each fault that happens at it.
const LATE_US: u64 = 100_000;

/// How the name of a call begins that reads a table; and of those that are made for one stream.
const SCAN: &str = "Scan";
const OF_STREAM: [&str; 4] = [SCAN, "SeedState", "Clear", "List"];

/// A number that grows with everything that a run does or hears.
type Moment = u64;

/// A drain that was asked for.
#[derive(Debug, Clone, Copy)]
struct Drain {
    asked_us: u64,
    within_ms: u64,
}

#[derive(Default)]
pub(crate) struct Conduct {
    now: Moment,
    /// How far each index is, as the run was told last or has told last, where that was answered.
    known: BTreeMap<usize, SeedState>,
    /// When that was.
    known_us: BTreeMap<usize, u64>,
    /// Since when each index has a reason to be cleared though it is seeded or has stopped.
    reasons: BTreeMap<usize, Moment>,
    /// The reason that the index had before someone asked last.
    reason_before: Option<Moment>,
    /// The indexes that are to be seeded anew because someone asked for it.
    promised: BTreeSet<usize>,
    /// The indexes whose tables were read.
    scanned: BTreeSet<usize>,
    /// The indexes that someone asked to have compared, for which tables may be scanned at any time; each with the
    /// documents that were tampered with by then.
    verifying: BTreeMap<usize, BTreeMap<Doc, Tampering>>,
    /// Calls whose last attempt failed for the moment: how often in a row, and when.
    failed: BTreeMap<String, (u32, u64)>,
    /// Changes that the stream has given, truncations among them, and when those that are not acknowledged were.
    given: u64,
    waiting: VecDeque<(u64, u64)>,
    /// The checkpoints of the open stream: how many changes had been given before each.
    checkpoints: BTreeMap<u64, u64>,
    acknowledged: u64,
    /// The incarnation of the stream that was opened last, and whether it was opened again, or went back, so that changes
    /// may have been given more than once.
    stream: Option<u64>,
    has_repeats: bool,
    /// The newest position that was confirmed since the stream was opened, and at all.
    confirmed: u64,
    confirmed_of_stream: Option<u64>,
    drain: Option<Drain>,
    /// The run stood still at some time, for no fault of its own.
    pub(crate) was_paused: bool,
    /// It has said that its oldest change is too old, and has not seen to it since.
    has_warned: bool,
    /// The index does not know yet that the run is caught up.
    is_untold: bool,
    /// What the index has written, and what it has throttled, and when.
    written: BTreeSet<(Doc, Version)>,
    throttled: BTreeMap<(Doc, Version), u64>,
    /// What was rejected together with a document for which the run ends.
    beside_a_stop: BTreeSet<Doc>,
    /// How many documents the run says that it has written.
    batched: usize,
    /// The documents that a comparison found to differ, each with how many changes had been given by then, where all of those
    /// were acknowledged.
    differing: BTreeMap<Doc, u64>,
}

fn reason(what: String) -> Result<(), Broken> {
    Err((Check::Reason, what))
}

impl Conduct {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// The stream was opened: what it gives begins at the resume point.
    pub(crate) fn on_opened(&mut self, incarnation: u64) {
        self.has_repeats |= self.stream == Some(incarnation);
        self.confirmed = 0;
        if self.stream.replace(incarnation).is_some_and(|before| before != incarnation) {
            // What the one before gave can never be given again, and is owed to nobody.
            self.acknowledged = self.given;
            self.confirmed_of_stream = None;
            self.waiting.clear();
            self.checkpoints.clear();
            // What is known of an index was known for the stream; and what is asked for another one is another call.
            self.known.clear();
            let is_of_stream = |call: &str| OF_STREAM.iter().any(|name| call.starts_with(name));
            self.failed.retain(|call, _| !is_of_stream(call));
        }
    }

    /// The stream goes back.
    pub(crate) fn on_repeat(&mut self) {
        self.has_repeats = true;
    }

    /// The stream has given a change, or a truncation.
    pub(crate) fn on_given(&mut self, now_us: u64) {
        self.given += 1;
        self.waiting.push_back((self.given, now_us));
    }

    /// The stream says that tables were emptied of which these indexes are made.
    pub(crate) fn on_truncated(&mut self, indexes: impl IntoIterator<Item = usize>) {
        let now = self.tick();
        // One that has stopped stays as it is until someone asks.
        let has_stopped = |index: &usize| self.known.get(index) == Some(&SeedState::Parked);
        let emptied: Vec<usize> = indexes.into_iter().filter(|index| !has_stopped(index)).collect();
        self.reasons.extend(emptied.into_iter().map(|index| (index, now)));
    }

    pub(crate) fn on_checkpoint(&mut self, position: u64) {
        self.checkpoints.insert(position, self.given);
    }

    /// The newest checkpoint that the open stream has given.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.checkpoints.last_key_value().map(|(position, _)| *position)
    }

    /// The incarnation of the stream that was opened last.
    pub(crate) fn stream(&self) -> Option<u64> {
        self.stream
    }

    /// A position was confirmed, and the source has said so.
    pub(crate) fn on_confirmed(&mut self, position: u64, now_us: u64, of: &Engine) -> Result<(), Broken> {
        let warned = self.has_warned_in_time(now_us, of);
        if let Some(given) = self.checkpoints.get(&position) {
            self.acknowledged = self.acknowledged.max(*given);
        }
        while self.waiting.front().is_some_and(|(number, _)| *number <= self.acknowledged) {
            self.waiting.pop_front();
        }
        if !self.is_stalled(now_us, of.alarm_ms * 1000) {
            self.has_warned = false;
        }
        if position < self.confirmed {
            let what = format!("@{position} was confirmed after @{}", self.confirmed);
            return Err((Check::Whole, what));
        }
        self.confirmed = position;
        self.confirmed_of_stream = self.confirmed_of_stream.max(Some(position));
        warned
    }

    /// The index says how far an index is, or has taken what the run said of it.
    pub(crate) fn on_known(&mut self, index: usize, state: SeedState, now_us: u64) {
        self.known_us.insert(index, now_us);
        if state == SeedState::Parked {
            // Whoever reads the table next does so for another index.
            self.failed.retain(|call, _| !call.starts_with(SCAN));
        }
        self.known.insert(index, state);
    }

    /// Someone asks for an index to be seeded anew. The run may clear it from now on, and, where it is not being seeded
    /// anyway, has to, unless it refuses.
    pub(crate) fn on_promised(&mut self, index: usize) {
        let now = self.tick();
        self.reason_before = self.reasons.insert(index, now);
        if matches!(self.known.get(&index), Some(SeedState::Seeded | SeedState::Parked)) {
            self.promised.insert(index);
        }
    }

    /// The run refuses to.
    pub(crate) fn on_refused(&mut self, index: usize) {
        match self.reason_before.take() {
            Some(before) => drop(self.reasons.insert(index, before)),
            None => drop(self.reasons.remove(&index)),
        }
        self.promised.remove(&index);
    }

    /// An index that the run was asked to seed anew, and has not cleared since.
    pub(crate) fn promised(&self) -> Option<usize> {
        self.promised.first().copied()
    }

    /// Someone asks for an index to be compared, of which these documents were tampered with.
    pub(crate) fn on_verifying(&mut self, index: usize, tampered: BTreeMap<Doc, Tampering>) {
        self.verifying.entry(index).or_insert(tampered);
    }

    /// The run refuses to, and does not because it does already.
    pub(crate) fn on_not_verifying(&mut self, index: usize) {
        self.verifying.remove(&index);
    }

    /// An index is going to be cleared: whether there is a reason. Returns when that was.
    pub(crate) fn on_clear(&mut self, index: usize) -> (Moment, Result<(), Broken>) {
        let verdict = match self.known.get(&index) {
            Some(SeedState::Seeded | SeedState::Parked) if !self.reasons.contains_key(&index) => {
                reason(format!("index {index} is cleared, which is {:?}, for no reason", self.known[&index]))
            }
            _ => Ok(()),
        };
        (self.tick(), verdict)
    }

    /// An index was cleared, which began at that moment.
    pub(crate) fn on_cleared(&mut self, index: usize, began: Moment) {
        self.known.insert(index, SeedState::Unseeded);
        self.reasons.retain(|of, since| *of != index || *since > began);
        // One that someone asks for while an index is being cleared is the same.
        self.promised.remove(&index);
        self.failed.retain(|call, _| !call.starts_with(SCAN));
    }

    /// A table is read from a row on, of which these indexes are made: whether one of them has to be scanned; and, where it is
    /// read for the first time, whether none has come further.
    pub(crate) fn on_scan(&mut self, roots: &[usize], after: Option<&Vec<i64>>) -> Result<(), Broken> {
        if roots.iter().any(|index| self.verifying.contains_key(index)) {
            return Ok(());
        }
        let known = &self.known;
        let state = |index: &usize| known.get(index);
        let is_done = |index: &&usize| matches!(state(index), Some(SeedState::Seeded | SeedState::Parked));
        let mut open = roots.iter().filter(|index| !is_done(index)).peekable();
        if open.peek().is_none() {
            return reason(format!("the table of the indexes {roots:?} is scanned, of which none needs it"));
        }
        let cursor = |index: &usize| match state(index) {
            Some(SeedState::Seeding(cursor)) => cursor.as_ref().map(from_key),
            _ => None,
        };
        let is_first = roots.iter().filter(|&&index| self.scanned.insert(index)).count() == roots.len();
        match open.map(cursor).min().flatten().filter(|_| is_first) {
            Some(cursor) if after < Some(&cursor) => {
                reason(format!("a table is scanned after {after:?}, though all before {cursor:?} is done"))
            }
            _ => Ok(()),
        }
    }

    /// A call is made: whether it was waited long enough for since it failed.
    pub(crate) fn on_call(&self, call: &str, now_us: u64, of: &Engine) -> Result<(), Broken> {
        // Two calls of a kind at once may ask the same; the last confirm of a run that ends is made at once; a table may be read for
        // the next comparison at once; and a run may catch up again.
        let is_compared = call.starts_with(SCAN) && !self.verifying.is_empty();
        if is_compared || ["Resolve", "Confirm", "CaughtUp"].iter().any(|name| call.starts_with(name)) {
            return Ok(());
        }
        let Some((attempts, failed_us)) = self.failed.get(call) else { return Ok(()) };
        if *attempts >= of.attempts {
            let what = format!(
                "`{call}` was made again after {attempts} failures; the most attempts are {}",
                of.attempts
            );
            return Err((Check::Patient, what));
        }
        let doublings = attempts.saturating_sub(1).min(31);
        let whole_ms = of.retry_min_ms.saturating_mul(1 << doublings).min(of.retry_max_ms);
        let (waited_us, least_us) = (now_us - failed_us, whole_ms * 500);
        if waited_us >= least_us {
            return Ok(());
        }
        let what = format!(
            "`{call}` was made again {waited_us} us after failure {attempts}; the least is {least_us} us"
        );
        Err((Check::Patient, what))
    }

    /// A call was answered: it failed for the moment, or otherwise.
    pub(crate) fn on_answer(&mut self, call: String, failed_at_us: Option<u64>) {
        match failed_at_us {
            Some(at_us) => {
                let held = self.failed.entry(call).or_default();
                *held = (held.0 + 1, at_us);
            }
            None => drop(self.failed.remove(&call)),
        }
    }

    pub(crate) fn on_drain(&mut self, asked_us: u64, within_ms: u64) {
        // The earliest deadline holds.
        let ends = |drain: &Drain| drain.asked_us + drain.within_ms * 1000;
        let drain = Drain { asked_us, within_ms };
        if self.drain.as_ref().is_none_or(|known| ends(&drain) < ends(known)) {
            self.drain = Some(drain);
        }
    }

    /// Documents are sent: whether none of them has been written like this already, or was throttled a moment ago.
    pub(crate) fn on_flush(
        &mut self,
        writes: impl IntoIterator<Item = (Doc, Version)>,
        caught_up: bool,
        now_us: u64,
        of: &Engine,
    ) -> Result<(), Broken> {
        self.is_untold |= !caught_up;
        let mut verdict = Ok(());
        for write in writes {
            if self.written.contains(&write) {
                verdict =
                    Err((Check::Patient, format!("{:?} is written again, though it has been", write.0)));
            }
            let waited_us = self.throttled.get(&write).map(|at_us| now_us - at_us);
            if waited_us.is_some_and(|waited_us| waited_us < of.retry_min_ms.min(of.retry_max_ms) * 500) {
                verdict =
                    Err((Check::Patient, format!("{:?} was throttled, and is tried again at once", write.0)));
            }
        }
        verdict
    }

    /// The index has answered: what it has written, and what it has throttled.
    pub(crate) fn on_flushed(
        &mut self,
        written: impl IntoIterator<Item = (Doc, Version)>,
        throttled: impl IntoIterator<Item = (Doc, Version)>,
        caught_up: bool,
        now_us: u64,
    ) {
        self.is_untold &= !caught_up;
        self.written.extend(written);
        self.throttled.extend(throttled.into_iter().map(|write| (write, now_us)));
    }

    /// The index has rejected these in one call, one of them for which the run ends.
    pub(crate) fn on_stopped(&mut self, rejected: impl IntoIterator<Item = Doc>) {
        self.beside_a_stop.extend(rejected);
    }

    /// The index has taken it that the run is caught up.
    pub(crate) fn on_told(&mut self) {
        self.is_untold = false;
    }

    /// Whether the index knows of everything that was written that the run is caught up since.
    pub(crate) fn is_told(&self) -> bool {
        !self.is_untold
    }

    /// A comparison found documents to differ.
    pub(crate) fn on_compared(&mut self, differing: impl IntoIterator<Item = Doc>) {
        if self.acknowledged == self.given {
            self.differing.extend(differing.into_iter().map(|doc| (doc, self.given)));
        }
    }
}
