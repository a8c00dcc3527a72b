//! When failures stop: everything is worked off within a bounded number of steps, and the sink is what the rows say.

use std::time::Duration;

use syncline::Lane;
use syncline::pipeline::Timer;

use crate::check;
use crate::drive::Drive;
use crate::op::{Answer, Op};

/// No world that a searcher makes takes more steps than this to come to rest.
const PATIENCE: usize = 20_000;

/// Nor does one that is at rest take more until nothing is waited for.
const REST: usize = 8;

impl Drive {
    /// What happens next where nothing fails, in the least helpful order that is fair; `None` where nothing does.
    pub fn next_healthy(&self) -> Option<Op> {
        if self.finished.is_some() {
            return None;
        }
        if !self.open.is_empty() {
            return Some(Op::Answer(0, Answer::Done));
        }
        if self.is_capturing()
            && (self.ready() > 0 && self.capacity(Lane::Live) > 0 || self.ready() == 0 && !self.told_idle)
        {
            return Some(Op::Capture(u8::MAX));
        }
        let parked = self.status().indexes.iter().position(|index| index.parked);
        if let Some(at) = parked.filter(|_| !self.is_ending()) {
            let name = &self.status().indexes[at].index;
            let at = self.model.indexes.iter().position(|index| index == name);
            return at.map(|at| Op::Reindex(at as u8));
        }
        let tampered = |index: &_| self.model.tampered.contains(index) && self.can_verify(index);
        if let Some(at) = self.model.indexes.iter().position(tampered) {
            return Some(Op::Verify(at as u8));
        }
        if self.snapshot.is_some() && self.capacity(Lane::Backfill) > 0 {
            return Some(Op::Scan(u8::MAX));
        }
        self.timer().map(|_| Op::Deadline)
    }

    /// Nothing is left to do.
    pub fn is_settled(&self) -> bool {
        let status = self.status();
        self.finished.is_none()
            && self.is_capturing()
            && self.ready() == 0
            && self.told_idle
            && self.open.is_empty()
            && status.dirty + status.in_flight == 0
            && status.captured == status.durable
            && status.oldest_unacknowledged.is_none()
            && status.indexes.iter().all(|index| index.seeded && !index.verifying)
            && self.model.tampered.is_empty()
    }

    /// The failures stop. Returns the number of steps until nothing was left to do. Panics where that does not come, or
    /// where the sink is not what the rows say.
    pub fn heal(&mut self) -> usize {
        let steps = self.settle();
        check::converged(&self.model);
        self.rest();
        if self.setup.seeds() {
            check::seeded(&self.model);
        }
        self.drain();
        steps
    }

    /// The failures stop. Returns the number of steps until nothing was left to do.
    pub fn settle(&mut self) -> usize {
        while !self.model.late.is_empty() {
            self.step(Op::Land(0));
        }
        let mut steps = 0;
        while !self.is_settled() {
            let op = match self.next_healthy() {
                Some(op) => op,
                // The run is over, and its successor finds what it left.
                None if self.finished.is_some() => Op::Crash,
                None => {
                    panic!("stuck: nothing is open, and nothing is waited for\n{}", self.pipeline.canonical())
                }
            };
            self.step(op);
            steps += 1;
            assert!(steps < PATIENCE, "not settled: {:?}\n{}", self.open, self.pipeline.canonical());
        }
        steps
    }

    /// A run with nothing left to do is not woken again and again. A call that has failed before is made once more: a
    /// source that was opened again is told what is acknowledged already. The cursors of a backfill that has just ended
    /// are due once more; the lag is read for as long as it can be.
    fn rest(&mut self) {
        for _ in 0..REST {
            match self.next_healthy() {
                None => return,
                Some(Op::Deadline) if self.timer().is_some_and(|(_, why)| why == Timer::Lag) => return,
                Some(op) => self.step(op),
            }
        }
        panic!("nothing is left to do, but {:?} is open, {:?} waited for", self.open, self.timer());
    }

    /// A run with nothing left to do is drained, and has nothing to report.
    fn drain(&mut self) {
        self.drain_until(self.now.after(Duration::from_secs(60)));
        for _ in 0..PATIENCE {
            match self.finished.clone() {
                Some(outcome) => {
                    let report = outcome.expect("a drained run has no error");
                    assert_eq!(report.unacknowledged, 0, "B12: {report:?}");
                    assert!(report.unseeded.is_empty(), "B12: {report:?}");
                    return;
                }
                None => self.step(self.next_healthy().expect("a drain ends")),
            }
        }
        panic!("not drained: {:?}\n{}", self.open, self.pipeline.canonical());
    }
}
