//! The calls that are under way, and those that wait to be made again.
//!
//! One place for all of them: ids, time limits, attempts and delays are the same whatever is called.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::config::RetryPolicy;
use crate::error::{Fault, FaultKind, Stage};
use crate::pipeline::protocol::CallId;
use crate::pipeline::retry::{self, Random};
use crate::time::Instant;

/// A part of a unit in flight: the unit's number, and the part's within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartId {
    pub(super) unit: u64,
    pub(super) part: u32,
}

/// What a call is for. At most one call for each is under way or waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Purpose {
    Begin,
    Describe,
    Ensure(usize),
    LoadQuarantine,
    Open,
    Resolve(u64),
    Build(u64),
    Flush(PartId),
    Compare(PartId),
    List(u32),
    CaughtUp,
    Quarantine(PartId),
    Release(PartId),
    Ack,
    ReadSeed(u32),
    Clear(u32),
    SaveCursor(u32),
    Scan,
    MarkSeeded(u32),
    Park(u32),
    ReadLag,
}

impl Purpose {
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Begin => Stage::Begin,
            Self::Describe => Stage::Describe,
            Self::Ensure(_) => Stage::Ensure,
            Self::LoadQuarantine | Self::Quarantine(_) | Self::Release(_) => Stage::Quarantine,
            Self::Open => Stage::Capture,
            Self::Resolve(_) => Stage::Resolve,
            Self::Build(_) => Stage::Build,
            Self::Flush(_) => Stage::Flush,
            Self::Compare(_) | Self::List(_) => Stage::Verify,
            Self::CaughtUp => Stage::CaughtUp,
            Self::Ack => Stage::Ack,
            Self::ReadSeed(_)
            | Self::Clear(_)
            | Self::SaveCursor(_)
            | Self::MarkSeeded(_)
            | Self::Park(_) => Stage::Seed,
            Self::Scan => Stage::Scan,
            Self::ReadLag => Stage::Lag,
        }
    }

    /// Whether a halt waits for it: what it writes may already be durable, and decides what may be acknowledged.
    pub(super) fn outlives_halt(self) -> bool {
        match self {
            Self::Flush(_) | Self::Quarantine(_) | Self::Release(_) | Self::Ack => true,
            Self::SaveCursor(_) | Self::MarkSeeded(_) | Self::Park(_) => true,
            Self::Begin
            | Self::Describe
            | Self::Ensure(_)
            | Self::LoadQuarantine
            | Self::Open
            | Self::Resolve(_)
            | Self::Build(_)
            | Self::Compare(_)
            | Self::List(_)
            | Self::CaughtUp
            | Self::ReadSeed(_)
            | Self::Clear(_)
            | Self::Scan
            | Self::ReadLag => false,
        }
    }

    /// Whether it concerns the seeded state of an index.
    pub(super) fn is_of_a_seed(self) -> bool {
        match self {
            Self::ReadSeed(_)
            | Self::Clear(_)
            | Self::SaveCursor(_)
            | Self::MarkSeeded(_)
            | Self::Park(_) => true,
            Self::Begin
            | Self::Describe
            | Self::Ensure(_)
            | Self::LoadQuarantine
            | Self::Open
            | Self::Resolve(_)
            | Self::Build(_)
            | Self::Flush(_)
            | Self::Compare(_)
            | Self::List(_)
            | Self::CaughtUp
            | Self::Quarantine(_)
            | Self::Release(_)
            | Self::Ack
            | Self::Scan
            | Self::ReadLag => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) purpose: Purpose,
    /// The first attempt is 1.
    pub(super) attempt: u32,
    pub(super) made: Instant,
    pub(super) deadline: Instant,
}

/// What is to be done about a transient failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It will be made again after this long.
    After(Duration),
    /// The limit of attempts is reached, or the failure is not transient.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Calls {
    policy: RetryPolicy,
    random: Random,
    next: u64,
    made: BTreeMap<CallId, Call>,
    waiting: BTreeSet<(Instant, Purpose, u32)>,
    retries: u64,
}

impl Calls {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            random: Random::new(policy.seed.unwrap_or(0)),
            next: 1,
            made: BTreeMap::new(),
            waiting: BTreeSet::new(),
            retries: 0,
        }
    }

    /// The id of the next call.
    pub(super) fn peek(&self) -> CallId {
        CallId(self.next)
    }

    /// Makes a call: its id is new.
    pub(super) fn make(&mut self, purpose: Purpose, attempt: u32, now: Instant) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        let deadline = now.after(self.policy.attempt_timeout);
        self.made.insert(id, Call { purpose, attempt, made: now, deadline });
        id
    }

    /// The call, where it is still waited for.
    pub(super) fn get(&self, id: CallId) -> Option<Call> {
        self.made.get(&id).copied()
    }

    /// Whether a call of this id was ever made.
    pub(super) fn was_made(&self, id: CallId) -> bool {
        id.0 > 0 && id.0 < self.next
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, id: CallId) {
        self.made.remove(&id);
    }

    /// Decides about a failed attempt, and notes its retry.
    pub(super) fn failed(&mut self, call: Call, fault: &Fault, now: Instant) -> Again {
        if fault.kind() != FaultKind::Transient || call.attempt >= self.policy.attempts {
            return Again::Never;
        }
        let delay = retry::delay(&self.policy, &mut self.random, call.attempt, fault);
        self.waiting.insert((now.after(delay), call.purpose, call.attempt + 1));
        self.retries += 1;
        Again::After(delay)
    }

    /// A call whose time limit has passed; it is waited for no more.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(CallId, Call)> {
        let (&id, &call) = self.made.iter().find(|(_, call)| call.deadline <= now)?;
        self.made.remove(&id);
        Some((id, call))
    }

    /// A retry whose delay has passed: its purpose and attempt.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Purpose, u32)> {
        let &(at, purpose, attempt) = self.waiting.first()?;
        if at > now {
            return None;
        }
        self.waiting.pop_first();
        Some((purpose, attempt))
    }

    /// Gives up the calls and retries that `which` says: the ids of the calls.
    pub(super) fn abandon(&mut self, which: impl Fn(Purpose) -> bool) -> alloc::vec::Vec<CallId> {
        self.waiting.retain(|(_, purpose, _)| !which(*purpose));
        let ids: alloc::vec::Vec<CallId> =
            self.made.iter().filter(|(_, call)| which(call.purpose)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.made.remove(id);
        }
        ids
    }

    /// Nothing is made again: what would have been.
    pub(super) fn forget_retries(&mut self) -> BTreeSet<Purpose> {
        core::mem::take(&mut self.waiting).into_iter().map(|(_, purpose, _)| purpose).collect()
    }

    /// Whether a call for this purpose is under way, or waits to be made again.
    pub(super) fn is_pending(&self, purpose: Purpose) -> bool {
        self.made.values().any(|call| call.purpose == purpose)
            || self.waiting.iter().any(|(_, waiting, _)| *waiting == purpose)
    }

    /// How many calls for such purposes are under way.
    pub(super) fn under_way(&self, which: impl Fn(Purpose) -> bool) -> usize {
        self.made.values().filter(|call| which(call.purpose)).count()
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    pub(super) fn made(&self) -> impl Iterator<Item = (CallId, Call)> {
        self.made.iter().map(|(id, call)| (*id, *call))
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = (Instant, Purpose, u32)> {
        self.waiting.iter().copied()
    }
}
