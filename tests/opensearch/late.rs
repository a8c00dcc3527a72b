//! Requests that arrive after they were given up, and runs that were followed by another.

use std::sync::Arc;

use syncline::document::{Epoch, Writes};
use syncline::error::FaultKind;
use syncline::ports::{SeedState, Sink as _};

use crate::proxy::{Late, Proxy};
use crate::servers::{Kind, Server};
use crate::support::*;

crate::on_both! {
    each_run_has_a_greater_epoch_also_when_several_begin_at_once
    a_beginning_that_is_late_changes_nothing
    a_write_that_is_late_undoes_nothing
    a_write_that_is_late_reaches_nothing_that_was_cleared
    a_run_that_was_followed_by_another_writes_no_more
    a_clear_that_stood_still_while_another_run_began_harms_nothing
    a_clear_that_is_late_harms_nothing_at_any_of_its_steps
    a_marker_that_is_late_says_nothing
    a_fence_that_is_late_changes_nothing
    a_removal_that_is_late_removes_nothing_else
}

/// Gives a call up as soon as its request is on its way.
async fn give_up<T>(call: impl Future<Output = T>, late: &Arc<Late>) {
    tokio::select! {
        biased;
        () = late.caught() => {}
        _ = call => panic!("it was answered"),
    }
}

async fn each_run_has_a_greater_epoch_also_when_several_begin_at_once(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(1));
    assert_eq!(sink.begin(Epoch(1)).await.unwrap(), Epoch(2));
    assert_eq!(sink.begin(Epoch(9)).await.unwrap(), Epoch(9));
    let sinks: Vec<_> = (0..4).map(|_| builder(&server.url()).build().unwrap()).collect();
    let begun = futures::future::join_all(sinks.iter().map(|sink| sink.begin(Epoch(0)))).await;
    let mut epochs: Vec<u64> = begun.into_iter().map(|epoch| epoch.unwrap().0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [10, 11, 12, 13]);
    let fault = sink.begin(Epoch(1 << 23)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
    assert!(fault.message().contains("more than a version has room for"), "{fault}");
}

async fn a_beginning_that_is_late_changes_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let sink = builder(&proxy.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    let late = proxy.late("PUT", "_doc/state");
    give_up(sink.begin(Epoch(70)), &late).await;
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(2));
    assert_eq!(late.deliver().await.status, 409);
    assert_eq!(sink.begin(Epoch(0)).await.unwrap(), Epoch(3));
}

async fn a_write_that_is_late_undoes_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    flush(&sink, [put(id("books", 1), &v(1), (run, 1)), put(id("books", 2), &v(1), (run, 1))]).await;
    let late = proxy.late("POST", "_bulk");
    let given_up = [
        put(id("books", 1), &v(2), (run, 2)),
        put(id("books", 2), &v(2), (run, 2)),
        remove(id("books", 3), (run, 2)),
    ];
    give_up(try_flush(&sink, given_up.clone()), &late).await;
    // Its repetition, and a newer one. Noida forgets the versions of what was deleted.
    let deletes = server.kind == Kind::Osmem;
    flush(&sink, given_up.clone()).await;
    let second =
        if deletes { remove(id("books", 2), (run, 3)) } else { put(id("books", 2), &v(3), (run, 3)) };
    flush(&sink, [put(id("books", 1), &v(3), (run, 3)), second, put(id("books", 3), &v(3), (run, 3))]).await;
    let expected: Vec<(String, i64)> = if deletes {
        vec![("1".into(), 3), ("3".into(), 3)]
    } else {
        vec![("1".into(), 3), ("2".into(), 3), ("3".into(), 3)]
    };
    assert_eq!(values(server.address, "books").await, expected);
    let answer = late.deliver().await.json();
    assert_eq!(answer["items"][0]["index"]["status"], 409, "{answer}");
    sink.caught_up().await.unwrap();
    assert_eq!(values(server.address, "books").await, expected);
    // The same versions again are no failure, and no change.
    flush(&sink, given_up).await;
    assert_eq!(values(server.address, "books").await, expected);
}

async fn a_write_that_is_late_reaches_nothing_that_was_cleared(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    let late = proxy.late("POST", "_bulk");
    let ghosts = [put(id("books", 7), &v(7), (run, 2)), remove(id("books", 8), (run, 2))];
    give_up(try_flush(&sink, ghosts), &late).await;
    sink.clear(&index("books")).await.unwrap();
    flush(&sink, [put(id("books", 8), &v(8), (run, 1))]).await;
    let answer = late.deliver().await.json();
    assert_eq!(answer["items"][0]["index"]["status"], 404, "{answer}");
    flush(&sink, [put(id("books", 9), &v(9), (run, 3))]).await;
    assert_eq!(values(server.address, "books").await, [("8".into(), 8), ("9".into(), 9)]);
}

async fn a_run_that_was_followed_by_another_writes_no_more(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (old, first) = begun(builder(&proxy.url())).await;
    flush(&old, [put(id("books", 1), &v(1), (first, 1))]).await;
    let late = proxy.late("POST", "_bulk");
    give_up(try_flush(&old, [put(id("books", 7), &v(7), (first, 2))]), &late).await;
    let new = builder(&server.url()).build().unwrap();
    let second = new.begin(Epoch(0)).await.unwrap();
    // What was under way, of a document that the new run has not written.
    let answer = late.deliver().await.json();
    assert_eq!(answer["items"][0]["index"]["status"], 404, "{answer}");
    // What it does from here on.
    for write in [put(id("books", 8), &v(8), (first, 3)), remove(id("books", 1), (first, 3))] {
        let fault = try_flush(&old, [write]).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
        assert!(fault.message().contains("another run has begun"), "{fault}");
    }
    new.ensure_index(&books()).await.unwrap();
    let (books, own) = (index("books"), seed("s", "d"));
    for fault in [
        old.mark_seeded(&books, &own).await.unwrap_err(),
        old.save_cursor(&books, &own, None).await.unwrap_err(),
        old.clear(&books).await.unwrap_err(),
        old.seed_state(&books, &own).await.unwrap_err(),
    ] {
        assert_eq!(
            (fault.kind(), fault.message()),
            (FaultKind::Fatal, "run 1 may write no more: run 2 has begun")
        );
    }
    // Within one process the same.
    let fault = try_flush(&new, [put(id("books", 9), &v(9), (first, 4))]).await.unwrap_err();
    assert_eq!(fault.message(), "run 1 may write no more: run 2 has begun");
    flush(&new, [put(id("books", 1), &v(2), (second, 1))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 2)]);
    // What the deletion has left is swept by the next run.
    begun(builder(&server.url())).await;
    assert_eq!(indexes(server.address, "books").await.len(), 1);
}

async fn a_clear_that_stood_still_while_another_run_began_harms_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    // It stands before it reads what is behind the alias, before it reads the state again, and before it moves the alias.
    for (method, path, nth) in
        [("GET", "/_alias/books", 1), ("GET", "_doc/state", 2), ("POST", "_aliases", 1)]
    {
        let (old, first) = begun(builder(&proxy.url())).await;
        flush(&old, [put(id("books", 1), &v(1), (first, 1))]).await;
        for _ in 1..nth {
            proxy.held(method, path).release();
        }
        let held = proxy.held(method, path);
        let clearing = tokio::spawn(async move { old.clear(&index("books")).await });
        held.caught().await;
        let (new, second) = begun(builder(&server.url())).await;
        new.clear(&index("books")).await.unwrap();
        flush(&new, [put(id("books", 2), &v(2), (second, 1))]).await;
        let current = physical(server.address, "books").await;
        held.release();
        let fault = clearing.await.unwrap().unwrap_err();
        assert!(fault.message().contains("may write no more"), "{path}: {fault}");
        assert_eq!(physical(server.address, "books").await, current, "{path}");
        flush(&new, [put(id("books", 3), &v(3), (second, 2))]).await;
        assert_eq!(values(server.address, "books").await, [("2".into(), 2), ("3".into(), 3)], "{path}");
    }
}

async fn a_clear_that_is_late_harms_nothing_at_any_of_its_steps(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    let (books, own) = (index("books"), seed("s", "d"));
    for (round, step) in
        [("PUT", "/books-"), ("PUT", "_doc/state"), ("POST", "_aliases")].into_iter().enumerate()
    {
        let build = |number: u64| (run, 10 * round as u64 + number);
        flush(&sink, [put(id("books", 1), &v(1), build(1))]).await;
        let late = proxy.late(step.0, step.1);
        give_up(sink.clear(&books), &late).await;
        sink.clear(&books).await.unwrap();
        assert_eq!(values(server.address, "books").await, [], "{step:?}");
        sink.save_cursor(&books, &own, None).await.unwrap();
        flush(&sink, [put(id("books", 2), &v(2), build(2))]).await;
        sink.mark_seeded(&books, &own).await.unwrap();
        let held = physical(server.address, "books").await;
        assert_eq!(late.deliver().await.status, arrives(step.1), "{step:?}");
        assert_eq!(physical(server.address, "books").await, held, "{step:?}");
        assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeded, "{step:?}");
        flush(&sink, [put(id("books", 3), &v(3), build(3))]).await;
        assert_eq!(values(server.address, "books").await, [("2".into(), 2), ("3".into(), 3)], "{step:?}");
    }
    begun(builder(&server.url())).await;
    assert_eq!(indexes(server.address, "books").await.len(), 1);
    // Where nothing stood behind the alias before.
    let sink = builder(&proxy.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    let late = proxy.late("POST", "_aliases");
    give_up(try_flush(&sink, [put(id("free", 1), &v(1), (run, 1))]), &late).await;
    sink.clear(&index("free")).await.unwrap();
    assert_eq!(late.deliver().await.status, arrives("_aliases"));
    flush(&sink, [put(id("free", 2), &v(2), (run, 2))]).await;
    physical(server.address, "free").await;
    assert_eq!(values(server.address, "free").await, [("2".into(), 2)]);
}

async fn a_marker_that_is_late_says_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, _) = begun(builder(&proxy.url())).await;
    let (books, own) = (index("books"), seed("s", "d"));
    for cleared in [true, false] {
        sink.save_cursor(&books, &own, Some(&1.into())).await.unwrap();
        let late = proxy.late("PUT", "_doc/state");
        give_up(sink.mark_seeded(&books, &own), &late).await;
        if cleared {
            sink.clear(&books).await.unwrap();
        }
        sink.save_cursor(&books, &own, Some(&2.into())).await.unwrap();
        assert_eq!(late.deliver().await.status, 409);
        assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeding(Some(2.into())));
    }
    // A flush that was given up while it was sent leaves nothing locked.
    let late = proxy.late("POST", "_bulk");
    let nothing: Writes<String> = [put(id("books", 1), &v(1), (Epoch(1), 1))].into_iter().collect();
    give_up(sink.flush(&nothing, true), &late).await;
    sink.caught_up().await.unwrap();
}

/// What a run does when it begins: it takes the right to write from the one before.
async fn a_fence_that_is_late_changes_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (first, run) = begun(builder(&proxy.url())).await;
    flush(&first, [put(id("books", 1), &v(1), (run, 1))]).await;
    let sink = builder(&proxy.url()).build().unwrap();
    let late = proxy.late("POST", "_aliases");
    give_up(sink.begin(Epoch(0)), &late).await;
    let run = sink.begin(Epoch(0)).await.unwrap();
    assert_eq!(run, Epoch(3));
    sink.ensure_index(&books()).await.unwrap();
    flush(&sink, [put(id("books", 1), &v(2), (run, 1))]).await;
    // Both servers skip the removal of an alias that is gone; the right that it gives is that of a run that never began.
    assert_eq!(late.deliver().await.status, 200);
    // The first run does not write, and the third goes on.
    let fault = try_flush(&first, [put(id("books", 1), &v(7), (Epoch(1), 9))]).await.unwrap_err();
    assert!(fault.message().contains("another run has begun"), "{fault}");
    flush(&sink, [put(id("books", 2), &v(2), (run, 2))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 2), ("2".into(), 2)]);
}

/// What an earlier run has left is removed by the next start.
async fn a_removal_that_is_late_removes_nothing_else(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    // An index that nobody came to name.
    let late = proxy.late("PUT", "/books-");
    give_up(sink.clear(&index("books")), &late).await;
    late.deliver().await;
    assert_eq!(indexes(server.address, "books").await.len(), 2);
    let starts = async || {
        let run = sink.begin(Epoch(0)).await.unwrap();
        sink.ensure_index(&books()).await.unwrap();
        run
    };
    let late = proxy.late("DELETE", "/books-");
    give_up(starts(), &late).await;
    let run = starts().await;
    let kept = indexes(server.address, "books").await;
    assert_eq!(kept.len(), 1);
    assert_eq!(late.deliver().await.status, 404);
    assert_eq!(indexes(server.address, "books").await, kept);
    flush(&sink, [put(id("books", 2), &v(2), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 1), ("2".into(), 2)]);
}
