//! How calls are answered, and what they do to the world.

use std::sync::Arc;

use syncline::document::Writes;
use syncline::pipeline::{CallId, Command, Event};
use syncline::ports::{FailedDocument, IndexScope, Resolved};
use syncline::{
    Document, DocumentId, Epoch, FailurePolicy, Fault, FlushReport, IndexMapping, IndexName,
    RejectedDocument, SeedState, SnapshotTable,
};

use crate::drive::{Drive, fault};
use crate::model::{Late, OnWire, Snapshot, State, related, table};
use crate::op::{Answer, Effect, Kind};

/// How many flushes the sink of this world takes at once.
const CONCURRENCY: usize = 8;

impl Drive {
    pub(super) fn answer_open(&mut self, at: u8, how: Answer) {
        if self.open.is_empty() {
            return;
        }
        let at = usize::from(at) % self.open.len();
        let command = self.open.remove(at);
        self.wrong = how == Answer::Wrong;
        let event = self.answer(command, how);
        self.handle(event);
    }

    /// An answer to a call that was given up. It must make no difference.
    pub(super) fn answer_stale(&mut self, at: u8) {
        if self.stale.is_empty() {
            return;
        }
        let at = usize::from(at) % self.stale.len();
        let command = self.stale.remove(at);
        self.mark("stale answer");
        let event = match command {
            Command::Resolve { call, changes } => {
                let mut resolved = Resolved::default();
                changes.iter().for_each(|change| resolved.push(self.model.touched(&change.key)));
                Event::Resolved { call, result: Ok(resolved) }
            }
            Command::Build { call, ids, .. } => {
                let built = ids.iter().map(|id| Ok(Document::upsert(id.clone(), self.model.document(id))));
                Event::Built { call, result: Ok(built.collect()), bytes: vec![1; ids.len()] }
            }
            Command::Flush { call, writes, .. } => {
                let mut report = FlushReport::clean();
                let mut ids = writes.iter().map(|write| write.document.id.clone());
                report.throttled.extend(ids.next());
                report.rejected.extend(ids.next().map(|id| RejectedDocument::new(&id, "late")));
                Event::Flushed { call, result: Ok(report) }
            }
            Command::Compare { call, writes } => {
                let ids = writes.iter().map(|write| write.document.id.clone());
                Event::Compared { call, result: Ok(ids.collect()) }
            }
            Command::List { call, index, limit, .. } => {
                Event::Listed { call, result: Ok(self.model.list(&index, None, limit)) }
            }
            Command::Begin { call } => Event::Begun { call, result: Ok((Epoch(0), 1)) },
            Command::Describe { call } => Event::Described { call, result: Ok((Vec::new(), Vec::new())) },
            Command::LoadQuarantine { call } => Event::QuarantineLoaded { call, result: Ok(Vec::new()) },
            Command::Open { call } => Event::Opened { call, result: Err(Fault::fatal("late")) },
            Command::ReadSeed { call, .. } => Event::SeedRead { call, result: Ok(SeedState::Seeded) },
            Command::ReadLag { call } => Event::LagRead { call, result: Ok(None) },
            other => done(other.call().expect("a call has an id"), None),
        };
        self.handle_stale(event);
    }

    /// The last answer comes a second time. Rows and changes are no answers: given again, they are new ones.
    pub(super) fn repeat(&mut self) {
        match self.last.clone() {
            Some(Event::Captured { .. } | Event::CaptureFailed { .. } | Event::Drain { .. }) | None => {}
            Some(Event::Scanned { .. } | Event::ScanFailed { .. } | Event::Verify { .. }) => {}
            Some(event) => self.handle_stale(event),
        }
    }

    /// The answer to a call, with what it did.
    fn answer(&mut self, command: Command<State>, how: Answer) -> Event<State> {
        let (failed, effect) = match how {
            Answer::Failed(kind, effect) => (Some(fault(kind)), effect),
            Answer::Done | Answer::Reversed | Answer::Partly(..) | Answer::Mixed(..) | Answer::Wrong => {
                (None, Effect::All)
            }
        };
        let applies = matches!(effect, Effect::All | Effect::Half);
        if let Some(fault) = &failed {
            self.mark(match fault.kind() {
                syncline::FaultKind::Transient => "a call failed",
                syncline::FaultKind::Content => "a call was refused",
                syncline::FaultKind::Fatal => "a call failed for good",
            });
        }
        match command {
            Command::Begin { call } => {
                let epoch = self.model.begin();
                Event::Begun { call, result: failed.map_or(Ok((Epoch(epoch), CONCURRENCY)), Err) }
            }
            Command::Describe { call } => {
                Event::Described { call, result: failed.map_or_else(|| Ok(self.describe(how)), Err) }
            }
            Command::Ensure { call, mapping } => {
                if failed.is_none() {
                    let at = self.model.indexes.iter().position(|index| *index == mapping.index);
                    self.ensured.extend(at);
                }
                done(call, failed)
            }
            Command::LoadQuarantine { call } => {
                let ids: Vec<DocumentId> = self.model.quarantined.keys().cloned().collect();
                if failed.is_none() {
                    self.owed.on_quarantine_loaded(&ids);
                    self.retrials = ids.len();
                }
                Event::QuarantineLoaded { call, result: failed.map_or(Ok(ids), Err) }
            }
            Command::Open { call } => {
                if failed.is_none() {
                    self.open_capture();
                }
                let stream = self.model.stream_id();
                Event::Opened { call, result: failed.map_or(Ok(stream), Err) }
            }
            Command::Resolve { call, changes } => {
                if let Some(fault) = failed {
                    return Event::Resolved { call, result: Err(fault) };
                }
                let touched: Vec<_> = changes.iter().map(|change| self.model.touched(&change.key)).collect();
                let mut resolved = Resolved::default();
                match how {
                    // The order of documents says nothing, nor does one that is told twice.
                    Answer::Reversed => touched.iter().for_each(|ids| {
                        resolved.push(ids.iter().rev().chain(ids.first()).cloned());
                    }),
                    _ => touched.iter().for_each(|ids| resolved.push(ids.iter().cloned())),
                }
                match how {
                    Answer::Wrong => resolved.push([]),
                    _ => self.owed.on_resolved(call, touched),
                }
                Event::Resolved { call, result: Ok(resolved) }
            }
            Command::Build { call, ids, .. } => self.build(call, &ids, how, failed),
            Command::Flush { call, writes, .. } => self.flush(call, &writes, how, failed, effect),
            Command::Compare { call, writes } => self.compare(call, &writes, how, failed),
            Command::List { call, index, after, limit } => {
                let mut ids = self.model.list(&index, after.as_ref(), limit);
                if after.is_some() && self.owed.compared(&index).is_some_and(|compared| compared.touched) {
                    self.mark("a change came between two pages of a listing");
                }
                if how == Answer::Wrong {
                    ids.push(DocumentId::new(IndexName::new("nobody").expect("a name"), 1));
                }
                Event::Listed { call, result: failed.map_or(Ok(ids), Err) }
            }
            Command::CaughtUp { call } => done(call, failed),
            Command::Quarantine { call, documents } => {
                if applies {
                    let records = documents.iter().map(|document| (document.id.clone(), document.version));
                    self.model.quarantined.extend(records);
                    self.mark("quarantined");
                }
                if failed.is_none() {
                    self.owed.on_recorded(documents.iter().map(|document| &document.id));
                }
                done(call, failed)
            }
            Command::Release { call, documents } => {
                if applies {
                    self.mark("released");
                    self.model.release(&documents);
                }
                if effect == Effect::Late {
                    self.model.late.push(Late::Release(documents.clone()));
                }
                if failed.is_none() {
                    self.owed.on_released(documents.iter().map(|document| &document.id));
                }
                done(call, failed)
            }
            Command::Ack { call, stream, position } => {
                if stream == self.model.stream_id() && applies {
                    assert!(position >= self.model.confirmed, "B1: {position} goes back");
                    self.model.confirmed = position;
                    self.mark("confirmed");
                }
                if failed.is_none() {
                    self.acknowledged = self.acknowledged.max(Some(position));
                    self.ack_pending = false;
                }
                done(call, failed)
            }
            Command::ReadSeed { call, index, seed } => {
                let state = self.model.seed_state(&index, &seed);
                if failed.is_none() && state == SeedState::Parked {
                    self.owed.on_found_parked(&index);
                }
                Event::SeedRead { call, result: failed.map_or(Ok(state), Err) }
            }
            Command::Clear { call, index } => {
                if applies {
                    self.model.clear(&index);
                    self.mark("cleared");
                }
                if failed.is_none() {
                    self.owed.on_cleared(&index);
                    if !self.setup.seeds() {
                        // Then it is built from now on.
                        self.owed.on_started(&index);
                    }
                }
                done(call, failed)
            }
            Command::Rebuild { call, index } => {
                if applies {
                    self.model.rebuild(&index);
                    self.mark("rebuilt");
                }
                if failed.is_none() {
                    self.owed.on_rebuilt(&index);
                }
                done(call, failed)
            }
            Command::SaveCursor { call, index, seed, after } => {
                if applies {
                    self.mark(if after.is_some() { "cursor saved" } else { "seeding began" });
                    let state = SeedState::Seeding(after.clone());
                    self.model.sink.seeds.insert(index.clone(), (seed, state));
                }
                if failed.is_none() && after.is_none() {
                    self.owed.on_started(&index);
                }
                done(call, failed)
            }
            Command::Scan { call, after, .. } => {
                if failed.is_none() {
                    self.mark(if after.is_some() { "scan resumed" } else { "scan began" });
                    self.snapshot = Some(Snapshot { call, keys: self.model.scan(after.as_ref()) });
                }
                done(call, failed)
            }
            Command::MarkSeeded { call, index, seed } => {
                if applies {
                    self.mark("seeded");
                    self.model.found.remove(&index);
                    self.model.sink.seeds.insert(index, (seed, SeedState::Seeded));
                }
                done(call, failed)
            }
            Command::Park { call, index, seed } => {
                if applies {
                    self.mark("parked");
                    self.model.found.remove(&index);
                    self.model.sink.seeds.insert(index.clone(), (seed, SeedState::Parked));
                }
                if failed.is_none() {
                    self.owed.on_parked(&index);
                }
                done(call, failed)
            }
            Command::ReadLag { call } => Event::LagRead { call, result: failed.map_or(Ok(None), Err) },
            other => panic!("no call of this world: {other:?}"),
        }
    }

    fn describe(&self, how: Answer) -> (Vec<IndexMapping>, Vec<IndexScope>) {
        let indexes = &self.model.indexes;
        let mut mappings: Vec<_> = indexes.iter().map(|index| IndexMapping::new(index.clone(), [])).collect();
        let scope = |index: &syncline::IndexName| {
            let scope = IndexScope::new(index.clone(), SnapshotTable::new(table()));
            match self.model.is_built_from_related(index) {
                true => scope.with_related([related()]),
                false => scope.with_related([]),
            }
        };
        let mut scopes: Vec<_> = indexes.iter().filter(|_| self.setup.scopes).map(scope).collect();
        match (how, scopes.first().cloned()) {
            (Answer::Wrong, Some(again)) => scopes.push(again),
            (Answer::Wrong, None) => mappings.push(IndexMapping::new(indexes[0].clone(), [])),
            _ => {}
        }
        (mappings, scopes)
    }

    fn open_capture(&mut self) {
        let stream = self.model.stream;
        if self.opened_stream.replace(stream) != Some(stream) {
            self.owed.on_new_stream();
            self.acknowledged = None;
            self.ack_pending = false;
        }
        self.has_opened = true;
        self.told_idle = false;
        self.capture = Some(self.model.resume());
    }

    fn build(
        &mut self,
        call: CallId,
        ids: &Arc<[DocumentId]>,
        how: Answer,
        failed: Option<Fault>,
    ) -> Event<State> {
        let read = self.reads.remove(&call);
        if let Some(fault) = failed {
            if fault.kind() == syncline::FaultKind::Content && self.is_running() {
                match &**ids {
                    [id] => {
                        self.model.built.insert(id.clone(), self.model.document(id));
                        self.skip(ids);
                    }
                    _ => {
                        self.mark("build halved");
                        self.owed.on_put_back(ids);
                    }
                }
            }
            return Event::Built { call, result: Err(fault), bytes: Vec::new() };
        }
        // It may have read as early as it was asked to.
        let read = match (how, read) {
            (Answer::Reversed, Some(read)) => read,
            _ => self.model.read(),
        };
        let (mut built, mut bytes) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let state = self.model.document_of(&read, id);
            self.model.built.insert(id.clone(), state);
            if let Some(kind) = how.failure(at) {
                match kind {
                    Kind::Transient => self.mark("some were not built"),
                    Kind::Content => refused.push(id.clone()),
                    Kind::Fatal => {}
                }
                built.push(Err(FailedDocument { id: id.clone(), fault: fault(kind) }));
                bytes.push(0);
                continue;
            }
            bytes.push(self.model.bytes(&self.setup, id, state));
            built.push(Ok(match state.there {
                true => Document::upsert(id.clone(), state),
                false => Document::delete(id.clone()),
            }));
        }
        match how {
            Answer::Reversed => {
                built.reverse();
                bytes.reverse();
            }
            Answer::Wrong => drop(built.pop()),
            Answer::Partly(..) | Answer::Mixed(..) | Answer::Done | Answer::Failed(..) => {}
        }
        self.skip(&refused);
        Event::Built { call, result: Ok(built), bytes }
    }

    fn compare(
        &mut self,
        call: CallId,
        writes: &Writes<State>,
        how: Answer,
        failed: Option<Fault>,
    ) -> Event<State> {
        if let Some(fault) = failed {
            // What cannot even be compared is written.
            if fault.kind() == syncline::FaultKind::Content {
                self.owed.on_differing(writes.iter().map(|write| &write.document.id));
            }
            return Event::Compared { call, result: Err(fault) };
        }
        let compared = self.on_wire(writes);
        // A sink that calls equal documents different has them written once more.
        let (mut differ, mut equal) = (Vec::new(), Vec::new());
        for (at, (id, state, _)) in compared.into_iter().enumerate() {
            let is_held = self.model.holds(&id, state) && how.failure(at).is_none();
            if is_held { equal.push(id) } else { differ.push(id) }
        }
        match how {
            Answer::Reversed => differ.reverse(),
            Answer::Wrong => {
                let index = self.model.indexes[0].clone();
                differ.push(DocumentId::new(index, 99));
                return Event::Compared { call, result: Ok(differ) };
            }
            Answer::Done | Answer::Failed(..) | Answer::Partly(..) | Answer::Mixed(..) => {}
        }
        if !equal.is_empty() {
            self.mark("held as it should be");
        }
        if !differ.is_empty() {
            self.mark("a difference was found");
        }
        self.owed.on_differing(&differ);
        self.owed.on_written(&equal);
        for id in &equal {
            self.model.built.remove(id);
        }
        Event::Compared { call, result: Ok(differ) }
    }

    fn flush(
        &mut self,
        call: CallId,
        writes: &Writes<State>,
        how: Answer,
        failed: Option<Fault>,
        effect: Effect,
    ) -> Event<State> {
        let sent = self.on_wire(writes);
        if let Some(fault) = failed {
            match effect {
                Effect::Nothing => {}
                Effect::Half => self.model.apply(&sent[..sent.len() / 2]),
                Effect::All => self.model.apply(&sent),
                Effect::Late => self.model.late.push(Late::Writes(sent.clone())),
            }
            if fault.kind() == syncline::FaultKind::Content {
                match &*sent {
                    [(id, ..)] => self.skip(core::slice::from_ref(id)),
                    _ => self.mark("flush halved"),
                }
            }
            return Event::Flushed { call, result: Err(fault) };
        }
        let mut report = FlushReport::clean();
        let mut applied: Vec<OnWire> = Vec::new();
        for (at, write) in sent.into_iter().enumerate() {
            match how.failure(at) {
                None => applied.push(write),
                Some(Kind::Transient) => report.throttled.push(write.0),
                Some(Kind::Content | Kind::Fatal) => {
                    report.rejected.push(RejectedDocument::new(&write.0, "poison"));
                }
            }
        }
        self.model.apply(&applied);
        if how == Answer::Wrong {
            report.throttled.extend(applied.first().map(|(id, ..)| DocumentId::new(id.index.clone(), 99)));
            return Event::Flushed { call, result: Ok(report) };
        }
        let rejected: Vec<DocumentId> = report.rejected.iter().map(|document| document.id.clone()).collect();
        if !report.throttled.is_empty() {
            self.mark("throttled");
        }
        self.refused |= self.stops(&rejected);
        if !self.stops(&rejected) {
            self.owed.on_written(applied.iter().map(|(id, ..)| id));
            for (id, ..) in &applied {
                self.model.built.remove(id);
            }
        }
        self.skip(&rejected);
        Event::Flushed { call, result: Ok(report) }
    }

    /// The pipeline learns that these will not be had as they are.
    fn skip(&mut self, ids: &[DocumentId]) {
        if self.stops(ids) {
            return;
        }
        let policy = |id: &DocumentId| self.policy(&id.index);
        let (skipped, parked): (Vec<_>, Vec<_>) =
            ids.iter().partition(|id| policy(id) == FailurePolicy::Skip);
        if !skipped.is_empty() && !parked.is_empty() {
            self.mark("one skipped and one parked");
        }
        if !skipped.is_empty() {
            self.mark("skipped");
        }
        self.owed.on_skipped(skipped, self.setup.quarantine);
        self.owed.on_stopped(parked);
    }

    /// Whether one of these ends the run, so that nothing is done about the others.
    fn stops(&self, ids: &[DocumentId]) -> bool {
        ids.iter().any(|id| self.policy(&id.index) == FailurePolicy::Stop)
    }

    fn is_running(&self) -> bool {
        use syncline::pipeline::Phase;
        matches!(self.status().phase, Phase::Running | Phase::Draining)
    }
}

fn done(call: CallId, fault: Option<Fault>) -> Event<State> {
    Event::Done { call, result: fault.map_or(Ok(()), Err) }
}
