//! Which events a driver may give: everything else is a [`Misuse`].

use crate::pipeline::calls::{Call, Purpose};
use crate::pipeline::{CallId, Event, Misuse, Pipeline};
use crate::ports::Lane;
use crate::time::Instant;

impl<B> Pipeline<B> {
    /// Refuses what a driver must not do. Returns the call that the event answers, where it is still waited for.
    pub(super) fn admit(&self, now: Instant, event: &Event<B>) -> Result<Option<Call>, Misuse> {
        if now < self.now {
            return Err(Misuse::TimeWentBack { event: now, last: self.now });
        }
        if self.ending.is_over() {
            return Err(Misuse::Finished);
        }
        match event {
            Event::Begun { call, .. } => self.expect(*call, |purpose| purpose == Purpose::Begin),
            Event::Described { call, .. } => self.expect(*call, |purpose| purpose == Purpose::Describe),
            Event::QuarantineLoaded { call, .. } => {
                self.expect(*call, |purpose| purpose == Purpose::LoadQuarantine)
            }
            Event::Opened { call, .. } => self.expect(*call, |purpose| purpose == Purpose::Open),
            Event::Captured { items, .. } => self.admit_items(Lane::Live, items.counted()),
            Event::CaptureFailed { .. } => self.admit_items(Lane::Live, 0),
            Event::Resolved { call, .. } => {
                self.expect(*call, |purpose| matches!(purpose, Purpose::Resolve(_)))
            }
            Event::Built { call, .. } => self.expect(*call, |purpose| matches!(purpose, Purpose::Build(_))),
            Event::Flushed { call, .. } => self.expect(*call, |purpose| matches!(purpose, Purpose::Flush(_))),
            Event::Compared { call, .. } => {
                self.expect(*call, |purpose| matches!(purpose, Purpose::Compare(_)))
            }
            Event::Listed { call, .. } => self.expect(*call, |purpose| matches!(purpose, Purpose::List(_))),
            Event::SeedRead { call, .. } => {
                self.expect(*call, |purpose| matches!(purpose, Purpose::ReadSeed(_)))
            }
            Event::Scanned { call, keys, .. } => {
                self.expect_scan(*call)?;
                match self.is_scanning(*call) {
                    true => self.admit_items(Lane::Backfill, keys.len()),
                    false => Ok(None),
                }
            }
            Event::ScanFailed { call, .. } => self.expect_scan(*call),
            Event::LagRead { call, .. } => self.expect(*call, |purpose| purpose == Purpose::ReadLag),
            Event::Done { call, .. } => self.expect(*call, |purpose| match purpose {
                Purpose::Ensure(_)
                | Purpose::CaughtUp
                | Purpose::Quarantine(_)
                | Purpose::Release(_)
                | Purpose::Ack
                | Purpose::Clear(_)
                | Purpose::SaveCursor(_)
                | Purpose::Scan
                | Purpose::MarkSeeded(_)
                | Purpose::Park(_) => true,
                Purpose::Begin
                | Purpose::Describe
                | Purpose::LoadQuarantine
                | Purpose::Open
                | Purpose::Resolve(_)
                | Purpose::Build(_)
                | Purpose::Flush(_)
                | Purpose::Compare(_)
                | Purpose::List(_)
                | Purpose::ReadSeed(_)
                | Purpose::ReadLag => false,
            }),
            Event::Reindex { index } => match self.can_reindex(index) {
                Ok(()) => Ok(None),
                Err(refusal) => Err(Misuse::Reindex { index: index.clone(), refusal }),
            },
            Event::Verify { index } => match self.can_verify(index) {
                Ok(()) => Ok(None),
                Err(refusal) => Err(Misuse::Verify { index: index.clone(), refusal }),
            },
            Event::Elapsed | Event::Drain { .. } => Ok(None),
        }
    }

    fn expect(&self, id: CallId, fits: impl Fn(Purpose) -> bool) -> Result<Option<Call>, Misuse> {
        match self.calls.get(id) {
            Some(call) if fits(call.purpose) => Ok(Some(call)),
            Some(call) => Err(Misuse::WrongAnswer { call: id, stage: call.purpose.stage() }),
            // An answer to a call that was abandoned. Its retry, or the end of the run, is on its way.
            None if self.calls.was_made(id) => Ok(None),
            None => Err(Misuse::UnknownCall(id)),
        }
    }

    fn expect_scan(&self, id: CallId) -> Result<Option<Call>, Misuse> {
        match self.calls.get(id) {
            Some(call) => Err(Misuse::WrongAnswer { call: id, stage: call.purpose.stage() }),
            None if self.calls.was_made(id) => Ok(None),
            None => Err(Misuse::UnknownCall(id)),
        }
    }

    fn admit_items(&self, lane: Lane, given: usize) -> Result<Option<Call>, Misuse> {
        if lane == Lane::Live && !self.capture.is_open() {
            return Err(Misuse::NoCapture);
        }
        let capacity = self.capacity(lane);
        match given <= capacity {
            true => Ok(None),
            false => Err(Misuse::OverCapacity { lane, given, capacity }),
        }
    }
}
