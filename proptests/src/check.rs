//! The promises, one function each, named as `behaviour.md` numbers them. Those of the pipeline's own state (I1 to I9)
//! stand in `Pipeline::check_invariants`, which is called beside these after every step.

use std::collections::BTreeSet;

use syncline::document::Content;
use syncline::error::Stage;
use syncline::pipeline::{CallId, Command, Notice, Phase, Report};
use syncline::{
    Config, Document, DocumentId, EngineError, FailurePolicy, FaultKind, IndexName, Key, Lane, Position,
    SeedState, Visibility,
};

use crate::drive::Drive;
use crate::model::{Model, State, Stored, number};

/// Called for each command as it comes.
pub fn command(drive: &Drive, command: &Command<State>) {
    b02_one_thing_is_remembered_of_an_index_at_a_time(drive, command);
    match command {
        Command::Resolve { changes, .. } => b11_a_resolve_is_bounded(drive, changes.len()),
        Command::Build { ids, visibility, .. } => {
            a07_ensured_before_anything_is_written(drive);
            b06_one_flight_per_document(drive, ids);
            b06_a_build_sees_its_changes(drive, ids, *visibility);
            b11_a_unit_is_bounded(drive, ids);
            b03_nothing_is_built_beside_a_clear(drive, ids);
            b11_builds_at_once(drive);
        }
        Command::Flush { writes, caught_up, .. } => {
            let ids: Vec<DocumentId> = writes.iter().map(|write| write.document.id.clone()).collect();
            a07_ensured_before_anything_is_written(drive);
            b06_one_flight_per_document(drive, &ids);
            b11_a_flush_is_bounded(drive, &ids);
            a04_acknowledged_before_the_next_flush(drive);
            b11_flushes_at_once(drive);
            if *caught_up {
                a10_caught_up(drive, &ids);
            }
        }
        Command::Compare { writes, .. } => {
            b11_flushes_at_once(drive);
            b17_what_nobody_asked_about_is_not_compared(drive, writes.iter().map(|write| &write.document.id));
        }
        Command::CaughtUp { .. } => a10_caught_up(drive, &[]),
        Command::Ack { position, stream, .. } => {
            if *stream == drive.model.stream_id() {
                b01_confirmed_is_durable(&drive.model, *position);
            }
            b01_only_what_is_not_owed(drive, *position);
            a04_one_confirm_at_a_time(drive);
        }
        Command::Clear { index, .. } | Command::Rebuild { index, .. } => {
            b02_nothing_flies_beside_a_clear(drive, index);
        }
        // What is said of a stream that was lost a moment ago holds for nothing.
        Command::SaveCursor { index, seed, after: Some(after), .. }
            if seed.stream == drive.model.stream_id() =>
        {
            b03_rows_are_durable(&drive.model, index, Some(after));
        }
        Command::MarkSeeded { index, seed, .. } if seed.stream == drive.model.stream_id() => {
            b03_rows_are_durable(&drive.model, index, None);
        }
        Command::Scan { .. } => b02_a_resume_point_before_a_snapshot(drive),
        Command::Notify(notice) => {
            a08_the_observer_hears_in_order(drive, notice);
            a11_nothing_is_skipped_where_it_must_not(drive, notice);
            b16_an_index_is_told_to_be_parked_once_that_is_durable(drive, notice);
            b08_retries(&drive.config(), notice);
            b17_what_differed_is_told(drive, notice);
        }
        Command::Finish(outcome) => b08_a_run_ends_for_a_cause(drive, outcome),
        _ => {}
    }
}

/// Called after every step.
pub fn after(drive: &Drive) {
    a06_what_is_seeded_is_not_scanned(drive);
    b11_limits(drive);
    b07_what_is_safe_is_acknowledged(drive);
    a10_told_in_the_end(drive);
    no_deadline_has_passed(drive);
    a11_a_refusal_ends_the_run(drive);
    b14_status_agrees_with_the_account(drive);
    b14_caught_up_means_equal(drive);
}

fn a07_ensured_before_anything_is_written(drive: &Drive) {
    assert_eq!(drive.ensured(), drive.model.indexes.len(), "A7: an index is not ensured");
}

/// With every index seeded already there is nothing to scan for. A scan that is given up in the step that began it is none.
fn a06_what_is_seeded_is_not_scanned(drive: &Drive) {
    if !drive.open().iter().any(|open| matches!(open, Command::Scan { .. })) {
        return;
    }
    let stream = drive.model.stream_id();
    let seeded = |index| match drive.model.sink.seeds.get(index) {
        Some((seed, state)) => seed.stream == stream && *state == SeedState::Seeded,
        None => false,
    };
    let compared = drive.status().indexes.iter().any(|index| index.verifying);
    assert!(compared || !drive.model.indexes.iter().all(seeded), "A6: a scan, but every index is seeded");
}

/// Ensured first; an index is seeded after it was told that it will be; changes are captured after live has started, and
/// committed after they were captured.
fn a08_the_observer_hears_in_order(drive: &Drive, notice: &Notice) {
    let heard = drive.heard();
    let in_order = match notice {
        Notice::IndexesEnsured(count) => !heard.ensured && *count == drive.model.indexes.len(),
        Notice::BackfillStarted(_) | Notice::LiveStarted => heard.ensured,
        Notice::IndexSeeded(index) => heard.seeding.contains(index),
        Notice::BackfillCompleted => heard.ensured && heard.seeding.is_empty(),
        Notice::Captured(_) => heard.live,
        Notice::Committed(stats) if stats.lane == Lane::Live => {
            heard.committed + stats.changes as u64 <= heard.captured
        }
        _ => true,
    };
    assert!(in_order, "A8: the observer hears {notice:?} after {heard:?}");
}

/// Under `Stop` nobody is told that a document is in quarantine.
fn a11_nothing_is_skipped_where_it_must_not(drive: &Drive, notice: &Notice) {
    if let Notice::Quarantined(document, _) = notice {
        let policy = drive.policy(&document.id.index);
        assert_eq!(policy, FailurePolicy::Skip, "A11: {notice:?}, but nothing may be skipped");
    }
}

fn b16_an_index_is_told_to_be_parked_once_that_is_durable(drive: &Drive, notice: &Notice) {
    if let Notice::Parked(document) = notice {
        let index = &document.id.index;
        assert_eq!(drive.policy(index), FailurePolicy::Park, "B16: {index} is parked, but may not");
        let durable = drive.model.sink.seeds.get(index).map(|(_, state)| state);
        assert_eq!(durable, Some(&SeedState::Parked), "B16: {index} is told to be parked");
    }
}

/// Under `Stop` a run goes no further than the call in which the sink refused a document.
fn a11_a_refusal_ends_the_run(drive: &Drive) {
    let goes_on = matches!(drive.status().phase, Phase::Starting | Phase::Running | Phase::Draining);
    assert!(!(drive.was_refused() && goes_on), "A11: a document was refused, and the run goes on");
}

/// Whatever fails for good, be it a call of a run that drains.
pub fn b08_what_fails_for_good_ends_the_run(drive: &Drive) {
    assert!(drive.is_halting(), "B8: a call has failed for good, and the run goes on");
}

/// A run ends because it was asked to, because its stream has ended, or because something failed that cannot be tried again, or
/// was tried as often as it may be.
fn b08_a_run_ends_for_a_cause(drive: &Drive, outcome: &Result<Report, EngineError>) {
    let cause = drive.cause().expect("it is over");
    let is_cause = match outcome {
        Ok(report) => {
            b12_a_report_tells_what_was_done(drive, report);
            drive.may_end()
        }
        Err(EngineError::Failed { attempts, fault, .. }) => match fault.kind() {
            FaultKind::Transient => {
                let is_last = *attempts == drive.config().retry.attempts;
                is_last && (cause.transient || cause.overdue)
            }
            FaultKind::Content => cause.refused,
            FaultKind::Fatal => cause.fatal,
        },
        Err(EngineError::DocumentsRejected(..)) => {
            cause.rejected && drive.setup().has_policy(FailurePolicy::Stop)
        }
        Err(EngineError::Contract { .. }) => cause.wrong,
        Err(_) => false,
    };
    assert!(is_cause, "B8: the run ended with {outcome:?} for {cause:?}");
}

/// A run that halts works off what is durable, and starts nothing else.
pub fn b12_a_halt_starts_nothing(drive: &Drive, newest: CallId) {
    let works_off = |open: &Command<State>| {
        matches!(open, Command::Ack { .. } | Command::Quarantine { .. } | Command::Release { .. })
    };
    let started = drive.open().iter().find(|open| open.call() > Some(newest) && !works_off(open));
    assert!(started.is_none(), "B12: a run that halts makes {started:?}");
}

fn b12_a_report_tells_what_was_done(drive: &Drive, report: &Report) {
    assert_eq!(report.started, drive.has_opened(), "B12: {report:?}");
    assert_eq!(report.captured, drive.owed.captured(), "B12: changes captured");
    assert_eq!(report.acknowledged, drive.acknowledged(), "B12: the position that was confirmed last");
    assert_eq!(report.quarantined, drive.heard().quarantined, "B12: documents quarantined");
}

/// With one flush at a time: what became safe is being acknowledged before the next flush is made.
fn a04_acknowledged_before_the_next_flush(drive: &Drive) {
    if is_running(drive) && !drive.ack_is_pending() {
        assert!(drive.owed.safe() <= drive.acknowledged(), "A4: a flush before an acknowledgement");
    }
}

/// One confirm is under way at a time, and the newest wins.
fn a04_one_confirm_at_a_time(drive: &Drive) {
    let confirming = drive.open().iter().any(|open| matches!(open, Command::Ack { .. }));
    assert!(!confirming, "A4: a confirm beside another");
}

/// Nothing live waits behind these writes.
fn a10_caught_up(drive: &Drive, writes: &[DocumentId]) {
    let quiet = drive.told_idle() && drive.owed.is_resolved() && !drive.owed.has_truncations();
    assert!(quiet, "A10: caught up, but more may be ready");
    for id in drive.owed.live_documents() {
        assert!(writes.contains(id) && !drive.owed.waits(id), "A10: caught up, but {id} waits");
    }
}

/// Where nothing live is owed, the last that the sink heard, or is being told, is not that something is.
fn a10_told_in_the_end(drive: &Drive) {
    let nothing_owed = drive.owed.live_documents().next().is_none() && !drive.owed.has_truncations();
    let quiet = drive.told_idle() && drive.owed.is_resolved() && nothing_owed;
    if quiet && is_running(drive) && !drive.caught_up_is_pending() {
        assert!(drive.heard_caught_up(), "A10: nothing live waits, and the sink was not told");
    }
}

/// Everything before a position that is confirmed is in the sink, or durably in quarantine; or it is as durable that its
/// index was cleared, and will be scanned, or has stopped alone.
pub fn b01_confirmed_is_durable(model: &Model, position: Position) {
    let is_durable = |at: &Position, id: &DocumentId, state: &State, excused: bool| {
        let held = model.sink.documents.get(id).map_or(0, |(state, _)| state.time);
        let excused = excused || model.is_passed_over(id, state.time) || model.is_parked(&id.index);
        let excused = excused || model.by_hand.contains(id);
        assert!(held >= state.time || excused, "B1: {at} is confirmed, {id} is from {held}, not {state:?}");
    };
    for (at, touched) in model.transactions.iter().take_while(|(at, _)| *at <= position) {
        for (key, state) in touched {
            for id in model.touched(&Key::single(*key)) {
                is_durable(at, &id, state, model.was_cleared(&id, state.time));
            }
        }
    }
    // An index that was being cleared anyway when its table was emptied is not cleared again.
    for (at, changed) in model.truncations.iter().take_while(|(at, _)| *at <= position) {
        for (id, state) in changed {
            let excused = model.is_absent(id, state.time) || model.is_yet_to_be_scanned(id);
            is_durable(at, id, state, excused);
            let found = model.found.get(&id.index).and_then(|found| found.get(id));
            let is_gone = found.is_some_and(|found| found.time < state.time && !state.there);
            assert!(!is_gone, "B5: {at} is confirmed, {id} is still found as {found:?}, not {state:?}");
        }
    }
}

fn b01_only_what_is_not_owed(drive: &Drive, position: Position) {
    let safe = drive.owed.safe();
    assert!(Some(position) <= safe, "B1: {position} is acknowledged, {safe:?} is safe");
    assert!(Some(position) >= drive.acknowledged(), "B1: {position} goes back");
}

fn b02_nothing_flies_beside_a_clear(drive: &Drive, index: &IndexName) {
    let flying = drive.owed.flying().any(|id| id.index == *index);
    assert!(!flying, "B2: {index} is cleared while a document of it is in flight");
}

/// Of how far an index is seeded the sink is asked, or told, one thing at a time: none lands over a later one.
fn b02_one_thing_is_remembered_of_an_index_at_a_time(drive: &Drive, command: &Command<State>) {
    fn seeded(command: &Command<State>) -> Option<&IndexName> {
        match command {
            Command::ReadSeed { index, .. }
            | Command::Clear { index, .. }
            | Command::Rebuild { index, .. }
            | Command::SaveCursor { index, .. }
            | Command::MarkSeeded { index, .. }
            | Command::Park { index, .. } => Some(index),
            _ => None,
        }
    }
    if let Some(index) = seeded(command) {
        let other = drive.open().iter().find(|open| seeded(open) == Some(index));
        assert!(other.is_none(), "B2: {command:?} beside {other:?}");
    }
}

fn b02_a_resume_point_before_a_snapshot(drive: &Drive) {
    assert!(drive.has_opened(), "B2: a snapshot is read before there is a resume point");
}

/// Every row up to this key (all without one) is in the sink, unless the stream has a change of it, or a truncation that is
/// not confirmed.
fn b03_rows_are_durable(model: &Model, index: &IndexName, to: Option<&Key>) {
    let changed = model.changed_after(model.confirmed);
    for key in model.rows.keys().filter(|key| to.is_none_or(|to| **key <= number(to))) {
        let id = DocumentId::new(index.clone(), *key);
        let state = model.document(&id);
        let held = model.sink.documents.get(&id).map_or(0, |(state, _)| state.time);
        let changed = changed.contains(&id) || model.by_hand.contains(&id);
        let excused = !state.there || changed || model.is_passed_over(&id, state.time);
        assert!(
            held >= state.time || excused,
            "B3: {index} passed {id}, which is from {held}, not {state:?}"
        );
    }
}

fn b03_nothing_is_built_beside_a_clear(drive: &Drive, ids: &[DocumentId]) {
    for open in drive.open() {
        let (Command::Clear { index, .. }
        | Command::Rebuild { index, .. }
        | Command::SaveCursor { index, after: None, .. }) = open
        else {
            continue;
        };
        assert!(ids.iter().all(|id| id.index != *index), "B3: {index} is built while it is cleared");
    }
}

/// A write that is applied is of a later read than the one before.
pub fn b06_nothing_goes_back(id: &DocumentId, held: Option<&Stored>, state: State) {
    if let Some((before, _)) = held {
        assert!(before.time <= state.time, "B6: {id} goes back from {before:?} to {state:?}");
    }
}

fn b06_one_flight_per_document(drive: &Drive, ids: &[DocumentId]) {
    let distinct: BTreeSet<&DocumentId> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "A3: a document stands twice in {ids:?}");
    for open in drive.open() {
        let there = match open {
            Command::Build { ids, .. } => ids.iter().any(|id| distinct.contains(id)),
            Command::Flush { writes, .. } => writes.iter().any(|write| distinct.contains(&write.document.id)),
            _ => false,
        };
        assert!(!there, "B6: {ids:?} are in flight twice, beside {open:?}");
    }
}

/// Of the same kind, and of no other body.
pub fn b06_what_is_written_is_what_was_built(document: &Document<State>, built: State) {
    let is_same = match document.content {
        Content::Upsert(body) => built.there && body == built,
        Content::Delete => !built.there,
    };
    assert!(is_same, "B6: {} is written as {:?}, and was built as {built:?}", document.id, document.content);
}

/// Whoever builds a document for a change is told to read where that can be seen. The token of a change is its number.
fn b06_a_build_sees_its_changes(drive: &Drive, ids: &[DocumentId], token: Option<Visibility>) {
    let token = token.map(|Visibility(number)| number);
    let newest = ids.iter().filter_map(|id| drive.owed.newest(id)).max();
    assert!(newest <= token, "B6: {ids:?} are built for change {newest:?}, and read at {token:?}");
    assert!(
        token < Some(drive.owed.captured().max(1)),
        "B6: {ids:?} are read at {token:?}, which was not captured"
    );
}

/// Where nothing is under way that could be newer, everything that is safe was acknowledged.
fn b07_what_is_safe_is_acknowledged(drive: &Drive) {
    if is_running(drive) && !drive.ack_is_pending() {
        let (safe, acknowledged) = (drive.owed.safe(), drive.acknowledged());
        assert!(safe <= acknowledged, "B7: {safe:?} is safe, {acknowledged:?} acknowledged");
    }
}

fn b08_retries(config: &Config, notice: &Notice) {
    // The source's lag has an interval of its own, and no limit.
    if let Notice::Retried { stage, attempt, delay, .. } = notice
        && *stage != Stage::Lag
    {
        assert!(*attempt < config.retry.attempts, "B8: attempt {attempt} was not the last");
        assert!(*delay <= config.retry.delay_max, "B8: {delay:?} is too long");
    }
}

/// As many as there may be at the moment, where that adapts; what is under way when it is cut goes on.
fn b11_builds_at_once(drive: &Drive) {
    let builds = drive.open().iter().filter(|open| matches!(open, Command::Build { .. })).count();
    let most = drive.status().builds_at_once;
    assert!(builds < most && most <= drive.config().limits.builds, "B11: {builds} builds of {most}");
}

/// The same of flushes. Comparisons take their places.
fn b11_flushes_at_once(drive: &Drive) {
    let of_the_sink =
        |open: &&Command<State>| matches!(open, Command::Flush { .. } | Command::Compare { .. });
    let flushes = drive.open().iter().filter(of_the_sink).count();
    let most = drive.status().flushes_at_once;
    assert!(flushes < most && most <= drive.config().limits.flushes, "B11: {flushes} flushes of {most}");
}

fn b11_a_resolve_is_bounded(drive: &Drive, changes: usize) {
    let limit = drive.config().limits.resolve_changes;
    assert!(0 < changes && changes <= limit, "B11: {changes} changes to resolve at once");
}

/// A document that waits again because its builds were refused, or its index was shut, does not count against a unit that
/// it was cut into before; so the limit is that of what was cut together.
fn b11_a_unit_is_bounded(drive: &Drive, ids: &[DocumentId]) {
    let limit = drive.config().batch.max_documents;
    assert!(!ids.is_empty() && ids.len() <= limit, "B11: a unit of {} documents", ids.len());
}

fn b11_a_flush_is_bounded(drive: &Drive, ids: &[DocumentId]) {
    let bytes: usize = ids.iter().map(|id| drive.bytes(id)).sum();
    let limit = drive.config().batch.max_bytes;
    assert!(ids.len() == 1 || bytes <= limit, "B11: a flush of {bytes} bytes");
}

fn b11_limits(drive: &Drive) {
    let (config, open) = (drive.config(), |which: fn(&Command<State>) -> bool| {
        drive.open().iter().filter(|command| which(command)).count()
    });
    let limits = config.limits;
    assert!(open(|command| matches!(command, Command::Resolve { .. })) <= limits.resolves, "B11: resolves");
    assert!(open(|command| matches!(command, Command::Flush { .. })) <= limits.flushes, "B11: flushes");
    let (live, backfill) = (drive.capacity(Lane::Live), drive.capacity(Lane::Backfill));
    assert!(live <= limits.changes, "A13: room for {live} changes");
    assert!(live == 0 || drive.is_capturing(), "A13: room for {live} changes, and no capture is open");
    assert!(backfill <= limits.backfill_rows, "B11: room for {backfill} rows");
    let status = drive.status();
    let indexes = drive.model.indexes.len();
    // One change touches two documents of each index at the most.
    let fan_out = limits.resolves * limits.resolve_changes * 2 * indexes;
    let retrials = drive.retrials();
    let most = limits.documents + fan_out + limits.backfill_rows.max(indexes) + retrials;
    let dirty = status.dirty + status.in_flight;
    assert!(dirty <= most, "B11: {dirty} documents are dirty, at most {most} may be");
}

/// Whatever is due has been done: a driver that waits for the next deadline never goes round without a rest.
fn no_deadline_has_passed(drive: &Drive) {
    if let Some((at, why)) = drive.timer() {
        assert!(at > drive.now(), "{why:?} was due at {at:?}, and is still");
    }
}

/// What the run says of itself is what the naive account says: the dirty set against sets of all that each document is owed
/// for, and what is durable against every change with its holders.
fn b14_status_agrees_with_the_account(drive: &Drive) {
    if !is_running(drive) {
        return;
    }
    let (status, owed, heard) = (drive.status(), &drive.owed, drive.heard());
    assert_eq!(status.captured, owed.captured(), "B14: changes captured");
    assert_eq!(status.captured, heard.captured, "B14: changes captured, as the observer heard");
    assert_eq!(status.captured - status.durable, owed.held(), "B14: changes that are not durable");
    assert_eq!(status.in_flight, owed.flying().count(), "B14: documents in flight");
    assert!(status.dirty >= owed.waiting(), "B14: {} documents dirty of {}", status.dirty, owed.waiting());
    if !drive.setup().scopes {
        assert_eq!(status.dirty, owed.waiting(), "B14: documents dirty");
    }
    assert_eq!(status.acknowledged, drive.acknowledged(), "B14: the position that was confirmed last");
    assert_eq!(status.retries, heard.retried, "B14: retries");
    assert_eq!(status.quarantined, heard.quarantined, "B14: documents quarantined");
    for index in &status.indexes {
        assert!(index.rows_durable <= index.rows_read, "B14: rows that are durable were not read: {index:?}");
    }
}

/// Who is told that the run is caught up finds in the sink what the rows say, but for what the source has not given yet.
fn b14_caught_up_means_equal(drive: &Drive) {
    let is_told = drive.status().caught_up && drive.model.tampered.is_empty();
    if is_told && drive.is_capturing() && drive.ready() == 0 {
        converged(&drive.model);
    }
}

/// The run is over, or the world is healed and nothing is left to do: the sink is what the rows say.
pub fn converged(model: &Model) {
    for (id, state) in model.expected().filter(|(id, _)| !model.is_parked(&id.index)) {
        let held = model.sink.documents.get(&id).map(|(state, _)| *state).unwrap_or_default();
        let excused = model.is_passed_over(&id, state.time);
        assert!(held.there == state.there || excused, "A9: {id} is {held:?}, its rows are {state:?}");
        let known = held.time >= state.time || !state.there;
        assert!(known || excused, "A9: {id} is {held:?}, its rows are {state:?}");
    }
}

/// Every index that can be seeded is marked so.
pub fn seeded(model: &Model) {
    for index in &model.indexes {
        let state = model.sink.seeds.get(index).map(|(_, state)| state);
        assert_eq!(state, Some(&SeedState::Seeded), "A5: {index} is not seeded");
    }
}

fn b17_what_nobody_asked_about_is_not_compared<'a>(drive: &Drive, ids: impl Iterator<Item = &'a DocumentId>) {
    for id in ids {
        assert!(
            drive.owed.was_verified(&id.index),
            "B17: {id} is compared, and nobody asked about its index"
        );
    }
}

/// Exactly what was found is told, but for what a change explains. And what was otherwise before, and no change may have
/// written since, was found.
fn b17_what_differed_is_told(drive: &Drive, notice: &Notice) {
    let Notice::Verified(verified) = notice else { return };
    let index = &verified.index;
    let compared = drive.owed.compared(index).expect("it was asked for");
    let told: BTreeSet<DocumentId> = verified.documents.iter().cloned().collect();
    assert_eq!(told, compared.found, "B17: of {index} these are told, and those were found");
    assert_eq!(verified.different, told.len() as u64, "B17: documents of {index} that differed");
    // Those that were under way then, and all that came since.
    let changed = drive.model.changed_after(compared.confirmed);
    for id in compared.differed.difference(&told) {
        let excused = changed.contains(id) || drive.owed.is_lost(id);
        let excused = excused || drive.model.is_passed_over(id, drive.model.document(id).time);
        assert!(excused, "B17: {id} was otherwise, and is not told");
    }
}

fn is_running(drive: &Drive) -> bool {
    matches!(drive.status().phase, Phase::Running | Phase::Draining)
}
