//! A rebuild that is interrupted before and after each of its requests, and requests of it that land late.

use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::Epoch;
use syncline::error::{Fault, FaultKind};
use syncline::name::IndexName;
use syncline::ports::{Seed, SeedState, Sink as _};

use crate::proxy::Proxy;
use crate::rebuilding::three;
use crate::servers::Server;
use crate::support::*;

crate::on_both! {
    a_rebuild_that_dies_at_any_request_is_resumed_or_undone
    a_rebuild_whose_answers_are_lost_is_made_again
    requests_of_a_rebuild_that_land_late_harm_nothing
}

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Rebuild,
    /// Once more, while it is being rebuilt.
    Again,
    /// The new one takes the place.
    Mark,
    /// While it is being rebuilt.
    Clear,
    /// A start, while it is being rebuilt.
    Start,
}

const STEPS: [Step; 5] = [Step::Rebuild, Step::Again, Step::Mark, Step::Clear, Step::Start];

fn of_books() -> (IndexName, Seed) {
    (index("books"), seed("s", "d"))
}

/// A book that is no row any more: only the old index has it, so that what is found tells the two apart.
const GONE: i64 = 9;

/// Everything before the step: the books are seeded, and where they are being rebuilt, their scan is over.
async fn prepare(server: &Server, proxy: &Proxy, step: Step) -> (OpenSearchSink, Epoch) {
    let (books, own) = of_books();
    let (sink, run) = begun(builder(&proxy.url())).await;
    sink.clear(&books).await.unwrap();
    flush(&sink, [put(id("books", GONE), &v(GONE), (run, 1))]).await;
    three(&sink, run).await;
    if step != Step::Rebuild {
        sink.rebuild(&books).await.unwrap();
        sink.save_cursor(&books, &own, None).await.unwrap();
        // What is written meanwhile, and the rows.
        flush(&sink, [put(id("books", 1), &v(1), (run, 2))]).await;
        if step != Step::Again {
            flush(&sink, [2, 3].map(|key| put(id("books", key), &v(key), (run, 3)))).await;
        }
    }
    assert_eq!(found(server).await, Found::Old);
    (sink, run)
}

async fn take(sink: &OpenSearchSink, step: Step) -> Result<(), Fault> {
    let (books_, own) = of_books();
    match step {
        Step::Rebuild | Step::Again => sink.rebuild(&books_).await,
        Step::Mark => sink.mark_seeded(&books_, &own).await,
        Step::Clear => sink.clear(&books_).await,
        Step::Start => {
            sink.begin(Epoch(0)).await?;
            sink.ensure_index(&books()).await
        }
    }
}

/// What searches find.
#[derive(Debug, PartialEq)]
enum Found {
    /// All of the index that was there before.
    Old,
    /// All of the one that was built beside it.
    New,
    Nothing,
    Parts(Vec<(String, i64)>),
}

async fn found(server: &Server) -> Found {
    let found = values(server.address, "books").await;
    let keys: Vec<i64> = found.iter().map(|(key, _)| key.parse().unwrap()).collect();
    match keys[..] {
        [1, 2, 3, GONE] => Found::Old,
        [1, 2, 3] => Found::New,
        [] => Found::Nothing,
        _ => Found::Parts(found),
    }
}

/// Searches find all of it at any time, the old one until the step is one that replaces it; or nothing, where that is asked
/// for.
async fn all_found(server: &Server, step: Step, when: &str) {
    let found = found(server).await;
    let is_right = match step {
        Step::Rebuild | Step::Again | Step::Start => found == Found::Old,
        Step::Mark => found == Found::Old || found == Found::New,
        Step::Clear => found == Found::Old || found == Found::Nothing,
    };
    assert!(is_right, "{step:?} {when}: {found:?}");
}

/// The engine's way from what the sink says to an index that is seeded. Searches find all of it at any time.
async fn finish(server: &Server, sink: &OpenSearchSink, run: Epoch, step: Step, when: &str) {
    let (books, own) = of_books();
    let state = sink.seed_state(&books, &own).await.unwrap();
    if step == Step::Mark && state == SeedState::Seeded {
        assert_eq!(found(server).await, Found::New, "{when}: the aliases follow the state");
    }
    if state == SeedState::Unseeded {
        if step == Step::Clear {
            sink.clear(&books).await.unwrap();
            assert_eq!(found(server).await, Found::Nothing, "{when}");
        } else {
            sink.rebuild(&books).await.unwrap();
        }
        sink.save_cursor(&books, &own, None).await.unwrap();
    }
    if step != Step::Clear {
        all_found(server, step, when).await;
        flush(sink, [put(id("books", 1), &v(10), (run, 11))]).await;
        assert_eq!(values(server.address, "books").await[0].1, 10, "{step:?} {when}");
        all_found(server, step, when).await;
    }
    if state != SeedState::Seeded {
        flush(sink, [1, 2, 3].map(|key| put(id("books", key), &v(10 * key), (run, 12)))).await;
        sink.mark_seeded(&books, &own).await.unwrap();
    }
    // A rebuild of which nothing had come was not asked for again: the index is as it was.
    let is_untouched = step == Step::Rebuild && state == SeedState::Seeded;
    assert_eq!(found(server).await, if is_untouched { Found::Old } else { Found::New }, "{step:?} {when}");
    assert_eq!(values(server.address, "books").await[0].1, 10, "{step:?} {when}");
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeded, "{step:?} {when}");
}

/// One step, interrupted at each of its requests, which reaches the server or does not. Returns how many there were.
async fn interrupted(server: &Server, step: Step, dies: bool) -> usize {
    let proxy = Proxy::start(Some(server.address)).await;
    for reaches in [false, true] {
        for requests in 0.. {
            let when = format!("at request {requests}, which reaches: {reaches}, dies: {dies}");
            let (sink, run) = prepare(server, &proxy, step).await;
            proxy.cut_after(requests, reaches);
            let taken = take(&sink, step).await;
            let is_over = proxy.heal();
            all_found(server, step, &when).await;
            if !is_over {
                taken.unwrap();
                let expected = match step {
                    Step::Rebuild | Step::Again | Step::Start => Found::Old,
                    Step::Mark => Found::New,
                    Step::Clear => Found::Nothing,
                };
                assert_eq!(found(server).await, expected, "{step:?} {when}");
                if reaches {
                    return requests;
                }
                break;
            }
            let fault = taken.unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Transient, "{step:?} {when}: {fault}");
            let (sink, run) = if dies {
                drop(sink);
                begun(builder(&server.url())).await
            } else {
                take(&sink, step).await.unwrap();
                let run = if step == Step::Start { sink.begin(Epoch(0)).await.unwrap() } else { run };
                if step == Step::Start {
                    sink.ensure_index(&books()).await.unwrap();
                }
                (sink, run)
            };
            finish(server, &sink, Epoch(run.0), step, &when).await;
            // Nothing is left behind by the next start at the latest.
            begun(builder(&server.url())).await;
            assert_eq!(indexes(server.address, "books").await.len(), 1, "{step:?} {when}");
        }
    }
    unreachable!("every step is over after some requests");
}

async fn a_rebuild_that_dies_at_any_request_is_resumed_or_undone(server: Server) {
    for step in STEPS {
        let requests = interrupted(&server, step, true).await;
        assert!(requests >= 6, "{step:?}: {requests}");
    }
}

async fn a_rebuild_whose_answers_are_lost_is_made_again(server: Server) {
    for step in STEPS {
        interrupted(&server, step, false).await;
    }
}

/// What follows a step that was given up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Repeats,
    Rebuilds,
    Clears,
    Dies,
}

async fn requests_of_a_rebuild_that_land_late_harm_nothing(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (books, own) = of_books();
    let moments = [
        (Step::Rebuild, "PUT", "/books-"),
        (Step::Rebuild, "PUT", "_doc/state"),
        (Step::Again, "PUT", "_doc/state"),
        (Step::Again, "POST", "_aliases"),
        (Step::Mark, "PUT", "_doc/state"),
        (Step::Mark, "POST", "_aliases"),
        (Step::Clear, "PUT", "_doc/state"),
        (Step::Clear, "POST", "_aliases"),
    ];
    for (step, method, path) in moments {
        for then in [Then::Repeats, Then::Rebuilds, Then::Clears, Then::Dies] {
            let when = format!("{method} {path} is late, then {then:?}");
            let (mut sink, mut run) = prepare(&server, &proxy, step).await;
            let late = proxy.late(method, path);
            tokio::select! {
                biased;
                () = late.caught() => {}
                taken = take(&sink, step) => panic!("{step:?} {when}: {taken:?}"),
            }
            match then {
                Then::Repeats => take(&sink, step).await.unwrap(),
                Then::Rebuilds => sink.rebuild(&books).await.unwrap(),
                Then::Clears => sink.clear(&books).await.unwrap(),
                Then::Dies => (sink, run) = begun(builder(&server.url())).await,
            }
            if step == Step::Clear || then == Then::Clears {
                // It is cleared by now, or the engine has it cleared because it must be.
                sink.clear(&books).await.unwrap();
                sink.save_cursor(&books, &own, None).await.unwrap();
            } else if sink.seed_state(&books, &own).await.unwrap() == SeedState::Unseeded {
                if then == Then::Dies {
                    sink.rebuild(&books).await.unwrap();
                }
                sink.save_cursor(&books, &own, None).await.unwrap();
            }
            let before = (physical(server.address, "books").await, values(server.address, "books").await);
            let state = sink.seed_state(&books, &own).await.unwrap();
            // What it removes is left over until the next start.
            let removes = (step, path) == (Step::Again, "_aliases") && then != Then::Dies;
            let arrives = if removes { 200 } else { arrives(path) };
            assert_eq!(late.deliver().await.status, arrives, "{step:?} {when}");
            let after = (physical(server.address, "books").await, values(server.address, "books").await);
            assert_eq!(after, before, "{step:?} {when}");
            assert_eq!(sink.seed_state(&books, &own).await.unwrap(), state, "{step:?} {when}");
            flush(&sink, [1, 2, 3].map(|key| put(id("books", key), &v(20), (run, 8)))).await;
            let found_now = values(server.address, "books").await;
            assert!(found_now[..3].iter().all(|(_, value)| *value == 20), "{step:?} {when}: {found_now:?}");
            sink.mark_seeded(&books, &own).await.unwrap();
            // A rebuild of which nothing had come before its run died was not asked for again.
            let is_untouched = step == Step::Rebuild && state == SeedState::Seeded;
            let expected = if is_untouched { Found::Old } else { Found::New };
            assert_eq!(found(&server).await, expected, "{step:?} {when}");
        }
    }
    begun(builder(&server.url())).await;
    assert_eq!(indexes(server.address, "books").await.len(), 1);
}
