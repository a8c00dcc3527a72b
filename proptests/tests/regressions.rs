//! The smallest cases of what was found, kept for ever. Each runs, and then converges.

use proptests::drive::Drive;
use proptests::op::{Answer::*, Effect::*, Emptied::*, Kind::*, Op, Op::*, Wrong::*};
use proptests::random::run;
use proptests::setup::Setup;
use syncline::EngineError;

fn heals(setup: Setup, ops: &[Op]) -> Drive {
    let mut drive = run(setup, ops);
    drive.heal();
    drive
}

/// After a reopening the change and its checkpoint come again while the first of them are still owed; the newest position
/// is that of the first, once those alone are settled.
#[test]
fn b02_a_checkpoint_that_comes_again_before_it_was_confirmed() {
    let setup = Setup { changes: 10, resolve_changes: 2, builds: 2, flushes: 3, ..Setup::SMALL };
    let ops = [
        Commit(1, 0),
        Commit(2, 0),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Capture(4),
        FailCapture(Transient),
        Deadline,
        Answer(2, Done),
        Capture(4),
        Answer(1, Failed(Transient, Nothing)),
    ];
    heals(setup, &ops);
}

/// The capture of a run that is being drained fails: the drain goes on.
#[test]
fn b12_a_capture_that_fails_while_draining() {
    let setup = Setup { changes: 2, documents: 1, ..Setup::SMALL };
    let ops = [
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Commit(1, 0),
        Capture(1),
        Answer(0, Done),
        Drain(1),
        FailCapture(Transient),
        Misuse(NoCapture),
    ];
    heals(setup, &ops);
}

/// A change whose document was refused before any flush: the sink has heard nothing, and need not.
#[test]
fn a10_nothing_is_told_where_nothing_was_flushed() {
    let setup = Setup { max_changes: 1, max_documents: 1, changes: 1, documents: 1, ..Setup::SMALL };
    let ops = [
        Commit(2, 0),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Capture(1),
        Answer(5, Done),
        Answer(0, Failed(Content, Nothing)),
        Heartbeat,
        Capture(1),
    ];
    heals(setup, &ops);
}

/// A source that was opened again is told once more what is acknowledged already, and that confirm fails.
#[test]
fn b07_a_confirm_that_is_told_again_fails() {
    let ops = [
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Heartbeat,
        Capture(1),
        Answer(0, Done),
        FailCapture(Transient),
        Deadline,
        Answer(0, Done),
        Answer(0, Failed(Transient, Nothing)),
    ];
    heals(Setup::SMALL, &ops);
}

/// Two truncations captured in one burst while an index that was rebuilt waits for its start to be saved.
#[test]
fn b05_two_truncations_while_a_rebuilt_index_starts() {
    let setup = Setup {
        indexes: 3,
        joined: true,
        scopes: true,
        rows: 173,
        sized: true,
        skip: false,
        park: false,
        mixed: false,
        quarantine: true,
        skip_backfill: false,
        max_changes: 2,
        max_documents: 6,
        max_bytes: 53,
        max_delay_ms: 20,
        changes: 243,
        documents: 0,
        resolves: 1,
        resolve_changes: 135,
        builds: 97,
        flushes: 24,
        units: 134,
        backfill_rows: 1,
        backfill_share: 1,
        attempts: 109,
        delay_ms: 219,
        timeout_s: 182,
        cursor_ms: 130,
        tampered: 0,
    };
    let ops = [
        Answer(4, Done),
        Answer(1, Done),
        Answer(4, Done),
        Truncate(Rows, 85),
        Answer(1, Done),
        Deadline,
        Deadline,
        Answer(5, Done),
        Answer(2, Done),
        Answer(2, Done),
        Answer(2, Done),
        Answer(2, Reversed),
        Truncate(Related, 181),
        Answer(2, Partly(Transient, 13)),
        Answer(5, Done),
        Answer(0, Done),
        Deadline,
    ];
    heals(setup, &ops);
}

/// A change that was captured is not written yet when the index is compared, and its stream is lost before that is over: it still
/// is what the difference comes of.
#[test]
fn b17_a_difference_that_a_change_of_a_lost_stream_explains() {
    let setup = Setup {
        indexes: 1,
        joined: false,
        scopes: true,
        rows: 1,
        sized: false,
        skip: false,
        park: false,
        mixed: false,
        quarantine: false,
        skip_backfill: false,
        max_changes: 1,
        max_documents: 1,
        max_bytes: 1,
        max_delay_ms: 0,
        changes: 4,
        documents: 2,
        resolves: 1,
        resolve_changes: 3,
        builds: 1,
        flushes: 2,
        units: 0,
        backfill_rows: 3,
        backfill_share: 1,
        attempts: 3,
        delay_ms: 30,
        timeout_s: 5,
        cursor_ms: 50,
        tampered: 0,
    };
    let ops = [
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Done),
        Answer(0, Partly(Transient, 1)),
        Answer(0, Partly(Transient, 1)),
        Commit(16, 16),
        Answer(0, Done),
        Scan(1),
        Tarry,
        Commit(64, 0),
        Capture(4),
        Answer(2, Done),
        Answer(2, Done),
        Answer(0, Done),
        FailCapture(Transient),
        Tarry,
        Tarry,
        Tarry,
        Answer(2, Done),
        Tarry,
        Answer(1, Done),
        Deadline,
        Answer(3, Done),
        Answer(3, Partly(Transient, 1)),
        Commit(33, 57),
        FailCapture(Transient),
        Answer(0, Done),
        Commit(4, 44),
        Verify(0),
        Deadline,
        Answer(0, Failed(Transient, Nothing)),
        Answer(0, Done),
        Deadline,
        Deadline,
        Answer(2, Done),
        Answer(2, Done),
        Answer(0, Done),
        Answer(0, Done),
        Scan(1),
        Answer(2, Done),
        Deadline,
        Deadline,
        Answer(0, Done),
        Answer(0, Done),
        Capture(2),
        Answer(0, Done),
        Answer(5, Done),
        Heartbeat,
        Scan(1),
        Heartbeat,
        LoseStream,
        Deadline,
        Deadline,
        Deadline,
        Deadline,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
        Heartbeat,
    ];
    heals(setup, &ops);
}

/// A document that stood in quarantine is written beside the comparison, and not compared: it has left the quarantine by the end.
#[test]
fn b17_what_stood_in_quarantine_is_written_without_a_comparison() {
    let setup = Setup {
        scopes: true,
        rows: 49,
        quarantine: true,
        max_changes: 1,
        max_documents: 1,
        max_bytes: 1,
        changes: 1,
        documents: 1,
        resolve_changes: 1,
        units: 0,
        backfill_rows: 1,
        backfill_share: 1,
        attempts: 2,
        timeout_s: 5,
        cursor_ms: 50,
        ..Setup::SMALL
    };
    let mut ops = vec![Answer(0, Done); 5];
    ops.extend([
        Answer(5, Done),
        Answer(1, Done),
        Answer(1, Done),
        Answer(5, Done),
        Scan(1),
        Answer(2, Done),
    ]);
    ops.push(Answer(0, Failed(Content, Nothing)));
    let mut drive = run(setup, &ops);
    drive.settle();
    assert!(!drive.model.quarantined.is_empty());
    drive.step(Verify(0));
    drive.settle();
    assert_eq!(drive.heard().verified.len(), 1);
    drive.heal();
}

/// A snapshot that failed before its first row counted as having been tried twice, so that a run with two attempts made one.
#[test]
fn b08_a_snapshot_that_fails_before_its_first_row() {
    let setup = Setup { scopes: true, rows: 1, attempts: 1, ..Setup::SMALL };
    let mut drive = run(setup, &[Answer(0, Done); 9]);
    assert!(drive.snapshot().is_some(), "{:?}", drive.open());
    drive.step(FailScan(Transient));
    let ended = drive.finished().expect("it may be tried once");
    assert!(matches!(ended, Err(EngineError::Failed { attempts: 1, .. })), "{ended:?}");
}
