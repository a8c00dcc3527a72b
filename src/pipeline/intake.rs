//! How a run begins, what the capture yields, and how it is resolved.
//!
//! A run begins in one order: the builder's mappings and scopes, where the source is asked whether it can supply them; the
//! sink's epoch; every index ensured; the quarantine loaded; the capture opened. A run that cannot have its source thus never
//! takes the sink away from one that has; and only then is anything read from a table, so that no change can fall between a
//! snapshot and the stream.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::{Between, Captures, Position};
use crate::document::{DocumentId, Epoch};
use crate::error::{Fault, Stage};
use crate::name::{IndexName, StreamId};
use crate::pipeline::adaptive::Limit;
use crate::pipeline::calls::{Call, Purpose};
use crate::pipeline::dirty::Cause;
use crate::pipeline::{Notice, Pipeline, Then, seeding};
use crate::ports::{IndexMapping, IndexScope, Lane, Resolved};
use crate::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum State {
    #[default]
    Closed,
    Open,
    Ended,
}

/// The capture, and the mappings that are ensured before it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Capture {
    state: State,
    /// It has been open.
    started: bool,
    /// The last poll found nothing.
    idle: bool,
    /// It has yielded a change.
    live: bool,
    /// How often it has failed since it last got further, or stayed open for long.
    pub(super) failures: u32,
    /// The newest checkpoint of this opening.
    newest: Option<Position>,
    /// The newest checkpoint of this stream.
    best: Option<Position>,
    /// When it was opened.
    pub(super) opened: Instant,
    mappings: Vec<Arc<IndexMapping>>,
}

impl Capture {
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it has yielded a change.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Whether nothing more is known to be ready.
    pub(super) fn is_quiet(&self) -> bool {
        self.state == State::Ended || (self.state == State::Open && self.idle)
    }

    pub(super) fn mapping(&self, at: usize) -> Option<Arc<IndexMapping>> {
        self.mappings.get(at).cloned()
    }
}

impl<B> Pipeline<B> {
    pub(super) fn on_begun(&mut self, call: Call, result: Result<(Epoch, usize), Fault>) {
        match result {
            Ok((epoch, concurrency)) => {
                self.epoch = epoch;
                let limits = self.config.limits;
                self.flush_limit = Limit::new(limits.flushes.min(concurrency.max(1)), limits.adaptive);
                self.ensure(0);
            }
            Err(fault) => self.on_fault(call, fault),
        }
    }

    pub(super) fn on_described(
        &mut self,
        call: Call,
        result: Result<(Vec<IndexMapping>, Vec<IndexScope>), Fault>,
    ) {
        let (mappings, scopes) = match result {
            Ok(described) => described,
            Err(fault) => return self.on_fault(call, fault),
        };
        for (at, mapping) in mappings.iter().enumerate() {
            if mappings[..at].iter().any(|earlier| earlier.index == mapping.index) {
                return self.halt_contract(
                    Stage::Describe,
                    alloc::format!("index {} has two mappings", mapping.index),
                );
            }
        }
        for (at, scope) in scopes.iter().enumerate() {
            if scopes[..at].iter().any(|earlier| earlier.index == scope.index) {
                let what = alloc::format!("index {} has two root tables", scope.index);
                return self.halt_contract(Stage::Describe, what);
            }
        }
        for scope in scopes {
            self.seeding.add_scope(scope, self.config.skip_backfill);
        }
        self.capture.mappings = mappings.into_iter().map(Arc::new).collect();
        self.make(Purpose::Begin, 1);
    }

    pub(super) fn on_ensured(&mut self, at: usize) {
        self.ensure(at + 1);
    }

    fn ensure(&mut self, at: usize) {
        if at < self.capture.mappings.len() {
            return self.make(Purpose::Ensure(at), 1);
        }
        self.notify(Notice::IndexesEnsured(at));
        match self.config.quarantine {
            true => self.make(Purpose::LoadQuarantine, 1),
            false => self.make(Purpose::Open, 1),
        }
    }

    /// An index that the builder has a mapping for, and no scope: nobody can tell what it is built from.
    pub(super) fn unscoped(&self) -> Option<&IndexName> {
        let scoped = |name: &IndexName| {
            self.seeding.indexes.iter().any(|index| index.name == *name && index.root.is_some())
        };
        self.capture.mappings.iter().map(|mapping| &mapping.index).find(|name| !scoped(name))
    }

    /// Whether the builder knows an index. One that describes none may build for any.
    fn is_described(&self, index: &IndexName) -> bool {
        let mappings = &self.capture.mappings;
        let mut scoped = self.seeding.indexes.iter().filter(|index| index.root.is_some());
        (mappings.is_empty() && scoped.clone().next().is_none())
            || mappings.iter().any(|mapping| mapping.index == *index)
            || scoped.any(|scope| scope.name == *index)
    }

    pub(super) fn on_quarantine_loaded(&mut self, call: Call, result: Result<Vec<DocumentId>, Fault>) {
        match result {
            Ok(mut ids) => {
                // Nobody can build a document of an index that is defined no more. Its record stays, for when it is.
                ids.retain(|id| self.is_described(&id.index));
                for id in &ids {
                    let index = self.seeding.index(&id.index);
                    let gate = self.seeding.gate(index);
                    self.dirty.dirty(index, id.clone(), Cause::Retrial, None, self.now, gate);
                }
                self.quarantined.extend(ids);
                self.make(Purpose::Open, 1);
            }
            Err(fault) => self.on_fault(call, fault),
        }
    }

    pub(super) fn on_opened(&mut self, call: Call, result: Result<StreamId, Fault>) {
        let stream = match result {
            Ok(stream) => stream,
            Err(fault) => {
                self.capture.failures = call.attempt;
                return self.on_fault(call, fault);
            }
        };
        self.capture.state = State::Open;
        self.capture.idle = false;
        self.capture.newest = None;
        self.capture.opened = self.now;
        if self.seeding.stream.as_ref() != Some(&stream) {
            // What is under way belongs to the old stream, and its answers would be taken for the new one's.
            self.abandon(|purpose| {
                let is_of_a_table = matches!(purpose, Purpose::Scan | Purpose::List(_));
                is_of_a_table || purpose == Purpose::Ack || purpose.is_of_a_seed()
            });
            self.close_scan();
            self.ack.on_new_stream();
            self.visibility = None;
            self.dirty.forget_visibility();
            self.capture.best = None;
            self.seeding.restart(stream, self.config.skip_backfill);
            if !self.config.skip_backfill {
                // Every row is scanned again: no index stops for what failed before.
                self.numbers().for_each(|number| self.let_go(number));
            }
        } else {
            self.ack.on_reopened();
        }
        if !self.capture.started {
            self.capture.started = true;
            self.lag_at = Some(self.now);
        }
    }

    pub(super) fn on_captured(&mut self, items: Captures, then: Then) {
        for (_, position) in items.checkpoints() {
            if let Some(newest) = self.capture.newest.filter(|newest| *newest > position) {
                let what = alloc::format!("checkpoint {position} came after {newest}");
                return self.halt_contract(Stage::Capture, what);
            }
            self.capture.newest = Some(position);
        }
        if let Some(fault) = items.truncations().find_map(|(_, truncation)| self.cannot_follow(truncation)) {
            return self.halt_failed(Stage::Capture, 1, fault);
        }
        if self.capture.newest > self.capture.best {
            self.capture.best = self.capture.newest;
            self.capture.failures = 0;
        }
        let count = items.counted();
        let (changes, between) = items.into_parts();
        let mut handles = Vec::with_capacity(changes.len());
        for (before, item) in between {
            handles.extend((handles.len()..before).map(|_| self.ack.on_change(self.now)));
            match item {
                Between::Checkpoint(position) => self.ack.on_checkpoint(position),
                Between::Truncation(truncation) => {
                    let handle = self.ack.on_change(self.now);
                    self.on_truncated(handle, &truncation);
                }
            }
        }
        handles.extend((handles.len()..changes.len()).map(|_| self.ack.on_change(self.now)));
        self.resolve.push(changes, handles);
        if count > 0 {
            self.tell_live();
            self.notify(Notice::Captured(count));
        }
        self.capture.idle = then != Then::More;
        if then == Then::End {
            self.capture.state = State::Ended;
        }
    }

    /// Live changes flow: told once.
    pub(super) fn tell_live(&mut self) {
        if !core::mem::replace(&mut self.capture.live, true) {
            self.notify(Notice::LiveStarted);
        }
    }

    pub(super) fn on_capture_failed(&mut self, fault: Fault) {
        if self.ending.is_ending() {
            return;
        }
        self.capture.state = State::Closed;
        // One that stayed open for longer than any delay did not fail again and again.
        if self.now.since(self.capture.opened) >= self.config.retry.delay_max {
            self.capture.failures = 0;
        }
        self.capture.failures += 1;
        let call = Call {
            purpose: Purpose::Open,
            attempt: self.capture.failures,
            made: self.now,
            deadline: self.now,
        };
        self.on_fault(call, fault);
    }

    /// Resolves as many changes as the limits allow. The dirty limit is a soft gate: an answer is taken whole.
    pub(super) fn start_resolves(&mut self) {
        let limits = self.config.limits;
        while self.resolve.under_way() < limits.resolves && !self.is_gated() {
            let Some(group) = self.resolve.start() else { return };
            self.make(Purpose::Resolve(group), 1);
        }
    }

    /// Whether so many documents are dirty that no change is resolved.
    pub(super) fn is_gated(&self) -> bool {
        self.dirty.live_documents() >= self.config.limits.documents
    }

    pub(super) fn on_resolved(&mut self, call: Call, result: Result<Resolved, Fault>) {
        let Purpose::Resolve(group) = call.purpose else { return };
        match result {
            Ok(resolved) => {
                if let Err(what) = self.resolve.answer(group, resolved) {
                    self.halt_contract(Stage::Resolve, what);
                }
            }
            Err(fault) => self.on_fault(call, fault),
        }
    }

    /// Takes the answers in capture order: what they name is dirty, and a change that touches nothing is settled.
    pub(super) fn take_resolved(&mut self) {
        while let Some((handles, changes, resolved)) = self.resolve.take() {
            let mut ids = resolved.ids.into_iter();
            let mut from = 0;
            for ((handle, change), to) in handles.into_iter().zip(changes.iter()).zip(resolved.ends) {
                let visibility = change.visibility.filter(|_| self.ack.is_of_stream(handle));
                let mut counted = None;
                let mut fresh = false;
                for id in ids.by_ref().take(to - from) {
                    let index = self.seeding.index(&id.index);
                    if self.seeding.get(index).stage == seeding::Stage::Parked {
                        // Who seeds it anew must see what is forgotten here.
                        self.visibility = self.visibility.max(visibility);
                        continue;
                    }
                    self.seeding.explain(index, &id);
                    let gate = self.seeding.gate(index);
                    let cause = Cause::Live(handle);
                    let dirtied = self.dirty.dirty(index, id, cause, visibility, self.now, gate);
                    if dirtied.holds {
                        self.ack.changes.hold(handle);
                    }
                    if dirtied.fresh || (!fresh && dirtied.open) {
                        fresh |= dirtied.fresh;
                        counted = Some(dirtied.slot);
                    }
                }
                from = to;
                if let Some(slot) = counted {
                    self.dirty.count_change(slot);
                }
                self.ack.changes.settle(handle);
            }
        }
    }

    /// Whether every change that can be taken now has been: more company for the open unit will not come.
    pub(super) fn is_taken_in(&self) -> bool {
        // Neither a capture that has ended nor a run that ends has room for more.
        (self.capacity(Lane::Live) == 0 && self.resolve.is_empty())
            || (self.is_gated() && self.resolve.under_way() == 0 && self.resolve.has_waiting())
    }
}
