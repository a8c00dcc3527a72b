//! Writes that arrive after they were given up, and runs that were followed by another.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use syncline::connectors::tantivy::TantivySink;
use syncline::document::{Epoch, Writes};
use syncline::error::FaultKind;
use syncline::ports::{SeedState, Sink as _};

use crate::support::*;

#[tokio::test]
async fn each_run_has_a_greater_epoch_also_across_sinks() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(1));
    assert_eq!(sink.begin(Epoch(1)).await.unwrap(), Epoch(2));
    assert_eq!(sink.begin(Epoch(9)).await.unwrap(), Epoch(9));
    drop(sink);
    let sink = open(dir.path());
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(10));
    flush(&sink, [put(id("a", 1), "{}", (10, 1))]).await;
    drop(sink);
    // The documents know the epoch too.
    std::fs::remove_file(dir.path().join("epoch")).unwrap();
    let sink = open(dir.path());
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(11));
    drop(sink);
    std::fs::write(dir.path().join("epoch"), "?").unwrap();
    let fault = TantivySink::open(dir.path()).unwrap_err();
    assert!(fault.message().contains("epoch holds no epoch but"), "{fault}");
}

#[tokio::test]
async fn a_run_that_was_followed_by_another_writes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.begin(Epoch(1)).await.unwrap();
    flush(&sink, [put(id("a", 1), r#"{"run":1}"#, (1, 1))]).await;
    sink.begin(Epoch(0)).await.unwrap();
    let late: Writes<String> =
        [put(id("a", 2), "{}", (2, 1)), put(id("a", 1), r#"{"run":"late"}"#, (1, 99))].into_iter().collect();
    let fault = sink.flush(&late, false).await.unwrap_err();
    assert_eq!(
        (fault.kind(), fault.message()),
        (FaultKind::Fatal, "run 1 may write no more: run 2 has begun")
    );
    assert_eq!(all(&sink, "a"), [("1".into(), r#"{"run":1}"#.into())]);
}

#[tokio::test]
async fn an_older_write_is_passed_over_without_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    flush(&sink, [put(id("a", 1), r#"{"v":5}"#, (run, 5)), put(id("a", 2), "{}", (run, 5))]).await;
    flush(&sink, [remove(id("a", 2), (run, 7))]).await;
    let expected = [("1".to_owned(), r#"{"v":5}"#.to_owned())];
    for reopened in [false, true] {
        let late = [
            put(id("a", 1), r#"{"v":4}"#, (run, 4)),
            remove(id("a", 1), (run, 3)),
            put(id("a", 9), r#"{"v":"no older than anything"}"#, (run, 2)),
        ];
        let report = try_flush(&sink, late).await;
        assert_eq!(report.rejected, []);
        if !reopened {
            flush(&sink, [put(id("a", 2), r#"{"v":"ghost"}"#, (run, 6))]).await;
        }
        let stored = all(&sink, "a");
        assert_eq!(stored[..1], expected, "{reopened}");
        assert_eq!(stored.len(), 2, "{stored:?}");
        // Without another run, what is stored is all that is known.
        drop(sink);
        sink = open(dir.path());
    }
    // The same version again is a retry, and a greater one replaces.
    flush(&sink, [put(id("a", 1), r#"{"v":"5 again"}"#, (run, 5))]).await;
    assert_eq!(sink.get(&index("a"), &1.into()).unwrap().as_deref(), Some(r#"{"v":"5 again"}"#));
    flush(&sink, [put(id("a", 1), r#"{"v":8}"#, (run, 8)), put(id("a", 2), r#"{"v":8}"#, (run, 8))]).await;
    assert_eq!(sink.get(&index("a"), &2.into()).unwrap().as_deref(), Some(r#"{"v":8}"#));
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    flush(&sink, [put(id("a", 1), r#"{"v":"next run"}"#, (run, 1))]).await;
    assert_eq!(sink.get(&index("a"), &1.into()).unwrap().as_deref(), Some(r#"{"v":"next run"}"#));
}

/// Starts a call, so that it waits for a thread, and gives it up.
fn start_and_drop(call: impl Future) {
    let started = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
    assert!(started.is_pending());
}

#[test]
fn calls_that_were_given_up_while_they_waited_do_nothing() {
    // One thread may block, so that it is known when a call can begin.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let own = seed("s", "d");
    runtime.block_on(async {
        let run = sink.begin(Epoch(0)).await.unwrap().0;
        flush(&sink, [put(id("a", 1), r#"{"v":1}"#, (run, 1))]).await;
        let (release, held) = mpsc::channel::<()>();
        let hold = tokio::task::spawn_blocking(move || held.recv().is_ok());
        let late: Writes<String> = [put(id("a", 1), r#"{"v":"late"}"#, (run, 2))].into_iter().collect();
        start_and_drop(sink.flush(&late, true));
        start_and_drop(sink.clear(&index("a")));
        start_and_drop(sink.mark_seeded(&index("a"), &own));
        start_and_drop(sink.save_cursor(&index("a"), &own, Some(&7.into())));
        start_and_drop(sink.ensure_index(&mapping("a", &[("v", syncline::ports::FieldKind::Text)])));
        start_and_drop(sink.begin(Epoch(77)));
        release.send(()).unwrap();
        assert!(hold.await.unwrap());
        // This call comes after all of them.
        assert_eq!(sink.seed_state(&index("a"), &own).await.unwrap(), SeedState::Unseeded);
        assert_eq!(all(&sink, "a"), [("1".into(), r#"{"v":1}"#.into())]);
        flush(&sink, [put(id("a", 1), r#"{"v":3}"#, (run, 3))]).await;
        assert_eq!(all(&sink, "a"), [("1".into(), r#"{"v":3}"#.into())]);
    });
}

#[test]
fn calls_of_a_run_that_still_wait_when_another_begins_are_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    runtime.block_on(async {
        let run = sink.begin(Epoch(0)).await.unwrap().0;
        flush(&sink, [put(id("a", 1), r#"{"v":1}"#, (run, 1))]).await;
        let (release, held) = mpsc::channel::<()>();
        let hold = tokio::task::spawn_blocking(move || held.recv().is_ok());
        let mut begin = pin!(sink.begin(Epoch(0)));
        let name = index("a");
        let mut clear = pin!(sink.clear(&name));
        let mut context = Context::from_waker(Waker::noop());
        assert!(begin.as_mut().poll(&mut context).is_pending());
        assert!(clear.as_mut().poll(&mut context).is_pending());
        release.send(()).unwrap();
        assert!(hold.await.unwrap());
        assert_eq!(begin.await.unwrap(), Epoch(run + 1));
        let fault = clear.await.unwrap_err();
        assert_eq!(fault.message(), "run 1 may write no more: run 2 has begun");
        assert_eq!(sink.count(&name).unwrap(), 1);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn flushes_dropped_at_any_moment_never_undo_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    for round in 0..40_u64 {
        let (early, late) = (2 * round + 1, 2 * round + 2);
        let writes = |build: u64| -> Writes<String> {
            let body = format!(r#"{{"v":{build}}}"#);
            (0..20).map(|key| put(id("a", key), &body, (run, build))).collect()
        };
        let first = writes(early);
        let given_up = tokio::time::timeout(
            std::time::Duration::from_micros(round * round * 20),
            sink.flush(&first, false),
        );
        let _ = given_up.await;
        let report = sink.flush(&writes(late), false).await.unwrap();
        assert_eq!(report.rejected, []);
        let all = all(&sink, "a");
        assert_eq!(all.len(), 20);
        assert!(all.iter().all(|(_, body)| *body == format!(r#"{{"v":{late}}}"#)), "{round}: {all:?}");
    }
}
