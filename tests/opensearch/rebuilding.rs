//! An index that is rebuilt beside what searches find: both are written, and the new one takes the place of the old one.

use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::{Epoch, Writes};
use syncline::ports::{FieldKind, FlushReport, SeedState, Sink as _};

use crate::proxy::{Fault, Proxy};
use crate::servers::Server;
use crate::support::*;
use crate::wire::Response;

crate::on_both! {
    searches_find_the_old_one_kept_current_until_the_new_one_is_complete
    the_new_one_takes_the_place_when_no_write_is_under_way
    another_rebuild_begins_once_more_and_a_clear_ends_both
    an_index_that_holds_nothing_is_not_kept
    the_answer_is_that_of_the_new_one_but_what_the_old_one_could_not_take_is_tried_again
    another_mapping_is_built_beside_the_old_one_where_someone_seeds_it
    what_is_removed_by_hand_meanwhile_is_done_without
    an_earlier_run_writes_to_neither
}

type Found = Vec<(String, i64)>;

fn of(values: &[(i64, i64)]) -> Found {
    values.iter().map(|(key, value)| (key.to_string(), *value)).collect()
}

/// Books 1 to 3 are seeded, with their numbers.
pub(crate) async fn three(sink: &OpenSearchSink, run: Epoch) {
    flush(sink, [1, 2, 3].map(|key| put(id("books", key), &v(key), (run, 1)))).await;
    sink.mark_seeded(&index("books"), &seed("s", "d")).await.unwrap();
}

async fn quietly(sink: &OpenSearchSink, writes: impl IntoIterator<Item = syncline::document::Write<String>>) {
    let writes: Writes<String> = writes.into_iter().collect();
    assert_eq!(sink.flush(&writes, false).await.unwrap(), FlushReport::clean());
}

async fn searches_find_the_old_one_kept_current_until_the_new_one_is_complete(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let (books, own) = (index("books"), seed("s", "d"));
    three(&sink, run).await;
    let old = physical(server.address, "books").await;
    sink.rebuild(&books).await.unwrap();
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Unseeded);
    sink.save_cursor(&books, &own, None).await.unwrap();
    assert_eq!(physical(server.address, "books").await, old);
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 2), (3, 3)]));
    assert_eq!(sink.list(&books, None, 9).await.unwrap(), [], "what the engine sees is the new one");
    // Live writes are found at once.
    flush(
        &sink,
        [
            put(id("books", 1), &v(10), (run, 2)),
            put(id("books", 4), &v(4), (run, 2)),
            remove(id("books", 2), (run, 2)),
        ],
    )
    .await;
    let live = of(&[(1, 10), (3, 3), (4, 4)]);
    assert_eq!(values(server.address, "books").await, live);
    assert_eq!(sink.list(&books, None, 9).await.unwrap(), [id("books", 1), id("books", 4)]);
    let asked: Writes<String> = [(1, 10), (3, 3)]
        .map(|(key, value)| put(id("books", key), &v(value), (run, 3)))
        .into_iter()
        .collect();
    assert_eq!(sink.compare(&asked).await.unwrap(), [id("books", 3)]);
    // The rows, of which the last are not visible yet, and are when it takes the place.
    sink.save_cursor(&books, &own, Some(&2.into())).await.unwrap();
    quietly(&sink, [put(id("books", 3), &v(3), (run, 4)), put(id("books", 4), &v(40), (run, 4))]).await;
    sink.mark_seeded(&books, &own).await.unwrap();
    let new = physical(server.address, "books").await;
    assert_ne!(new, old);
    assert_eq!(values(server.address, "books").await, of(&[(1, 10), (3, 3), (4, 40)]));
    assert_eq!(indexes(server.address, "books").await, std::slice::from_ref(&new), "the old one is gone");
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeded);
    flush(&sink, [put(id("books", 5), &v(5), (run, 5))]).await;
    assert_eq!(values(server.address, "books").await.len(), 4);
    let (sink, _) = begun(builder(&server.url())).await;
    assert_eq!(physical(server.address, "books").await, new);
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeded);
}

/// Else searches would lose for a while what the old one shows and the new one does not show yet.
async fn the_new_one_takes_the_place_when_no_write_is_under_way(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    let (books, own) = (index("books"), seed("s", "d"));
    three(&sink, run).await;
    let old = physical(server.address, "books").await;
    sink.rebuild(&books).await.unwrap();
    sink.save_cursor(&books, &own, None).await.unwrap();
    quietly(&sink, [1, 2, 3].map(|key| put(id("books", key), &v(key), (run, 2)))).await;
    let held = proxy.held("POST", "_bulk");
    let writing = tokio::spawn({
        let sink = sink.clone();
        async move { quietly(&sink, [put(id("books", 1), &v(10), (run, 3))]).await }
    });
    held.caught().await;
    let before = proxy.seen("_refresh").len();
    let mut swapping = tokio::spawn({
        let sink = sink.clone();
        async move { sink.mark_seeded(&books, &own).await }
    });
    // More exchanges than it would take.
    for _ in 0..30 {
        assert_eq!(physical(server.address, "books").await, old);
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.seen("_refresh").len(), before, "it begins with a refresh");
    assert!(!swapping.is_finished());
    held.release();
    writing.await.unwrap();
    (&mut swapping).await.unwrap().unwrap();
    assert_ne!(physical(server.address, "books").await, old);
    assert_eq!(values(server.address, "books").await, of(&[(1, 10), (2, 2), (3, 3)]));
}

async fn another_rebuild_begins_once_more_and_a_clear_ends_both(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    let (books, own) = (index("books"), seed("s", "d"));
    three(&sink, run).await;
    let old = physical(server.address, "books").await;
    sink.rebuild(&books).await.unwrap();
    sink.save_cursor(&books, &own, None).await.unwrap();
    flush(&sink, [put(id("books", 1), &v(10), (run, 2))]).await;
    let first = indexes(server.address, "books").await;
    // It may also have stopped in between.
    sink.park(&books, &own).await.unwrap();
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Parked);
    sink.rebuild(&books).await.unwrap();
    let second = indexes(server.address, "books").await;
    assert_eq!((first.len(), second.len()), (2, 2));
    assert_ne!(first, second);
    assert!(second.contains(&old) && physical(server.address, "books").await == old);
    assert_eq!(values(server.address, "books").await, of(&[(1, 10), (2, 2), (3, 3)]));
    assert_eq!(sink.list(&books, None, 9).await.unwrap(), []);
    flush(&sink, [put(id("books", 1), &v(11), (run, 3))]).await;
    assert_eq!(values(server.address, "books").await[0], ("1".into(), 11));
    sink.clear(&books).await.unwrap();
    assert_eq!(values(server.address, "books").await, []);
    assert_eq!(indexes(server.address, "books").await.len(), 1);
    flush(&sink, [put(id("books", 9), &v(9), (run, 4))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(9, 9)]));
}

async fn an_index_that_holds_nothing_is_not_kept(server: Server) {
    let (sink, run) = begun(builder(&server.url())).await;
    sink.rebuild(&index("books")).await.unwrap();
    sink.save_cursor(&index("books"), &seed("s", "d"), None).await.unwrap();
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(1, 1)]), "found while it is seeded");
    assert_eq!(indexes(server.address, "books").await.len(), 1);
}

async fn the_answer_is_that_of_the_new_one_but_what_the_old_one_could_not_take_is_tried_again(
    server: Server,
) {
    let proxy = Proxy::start(Some(server.address)).await;
    let sending = builder(&proxy.url()).gzip(false).request_documents(1).requests(1);
    let (sink, run) = begun(sending).await;
    three(&sink, run).await;
    sink.rebuild(&index("books")).await.unwrap();
    let busy = || Response::new(429, r#"{"error":{"type":"x","reason":"busy"},"status":429}"#);
    // That of the old one comes first, that of the new one second.
    for nth in [1, 2] {
        for _ in 1..nth {
            proxy.held("POST", "_bulk").release();
        }
        proxy.on("POST", "_bulk", 1, Fault::Answer(busy()));
        let report = try_flush(&sink, [put(id("books", 1), &v(10), (run, 2))]).await.unwrap();
        assert_eq!(report, FlushReport { rejected: vec![], throttled: vec![id("books", 1)] });
    }
    proxy.on("POST", "_bulk", 2, Fault::Answer(busy()));
    let report = try_flush(&sink, [put(id("books", 1), &v(10), (run, 2))]).await.unwrap();
    assert_eq!(report.throttled, [id("books", 1)], "told once");
    let no = r#"{"v":"no number"}"#;
    proxy.on("POST", "_bulk", 1, Fault::Answer(busy()));
    let report = try_flush(&sink, [put(id("books", 1), no, (run, 3))]).await.unwrap();
    assert_eq!((report.rejected.len(), report.throttled.len()), (1, 0), "{report:?}");
    proxy.all_used();
    flush(&sink, [put(id("books", 1), &v(10), (run, 4))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(1, 10), (2, 2), (3, 3)]));
}

async fn another_mapping_is_built_beside_the_old_one_where_someone_seeds_it(server: Server) {
    let (books, own, other) = (index("books"), seed("s", "d"), seed("s", "d2"));
    let (sink, run) = begun(builder(&server.url())).await;
    three(&sink, run).await;
    let old = physical(server.address, "books").await;
    let renamed = mapping("books", &[("v", FieldKind::Integer), ("name", FieldKind::Keyword)]);
    let next = async || {
        let sink = builder(&server.url()).build().unwrap();
        let run = sink.begin(Epoch(0)).await.unwrap();
        sink.ensure_index(&renamed).await.unwrap();
        (sink, run)
    };
    let (sink, run) = next().await;
    assert_eq!(sink.seed_state(&books, &other).await.unwrap(), SeedState::Unseeded);
    assert_eq!(physical(server.address, "books").await, old);
    sink.rebuild(&books).await.unwrap();
    sink.save_cursor(&books, &other, None).await.unwrap();
    // The old one does not know the field, and is left as it is; what it knows is written there.
    let named = r#"{"v":7,"name":"x"}"#;
    flush(&sink, [put(id("books", 1), named, (run, 1)), put(id("books", 2), &v(20), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 20), (3, 3)]));
    let (sink, run) = next().await;
    assert_eq!(sink.seed_state(&books, &other).await.unwrap(), SeedState::Seeding(None), "it goes on");
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 20), (3, 3)]));
    flush(&sink, [put(id("books", 3), &v(3), (run, 1))]).await;
    sink.mark_seeded(&books, &other).await.unwrap();
    assert_eq!(values(server.address, "books").await, of(&[(1, 7), (2, 20), (3, 3)]));
    // Nobody asks how far the index is, so nobody would ever say that it is complete.
    let sink = builder(&server.url()).build().unwrap();
    let run = sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&books_of_another_kind()).await.unwrap();
    assert_eq!(values(server.address, "books").await.len(), 3);
    flush(&sink, [put(id("books", 4), r#"{"v":4,"title":"x"}"#, (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(4, 4)]));
    assert_eq!(indexes(server.address, "books").await.len(), 1);
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Unseeded);
}

fn books_of_another_kind() -> syncline::ports::IndexMapping {
    mapping("books", &[("v", FieldKind::Integer), ("title", FieldKind::Keyword)])
}

async fn what_is_removed_by_hand_meanwhile_is_done_without(server: Server) {
    let (books, own) = (index("books"), seed("s", "d"));
    let (sink, run) = begun(builder(&server.url())).await;
    // What is searched, during a run and before one: searches find what has been built so far.
    for restarts in [false, true] {
        sink.clear(&books).await.unwrap();
        three(&sink, run).await;
        let old = physical(server.address, "books").await;
        sink.rebuild(&books).await.unwrap();
        sink.save_cursor(&books, &own, None).await.unwrap();
        flush(&sink, [put(id("books", 1), &v(10), (run, 2))]).await;
        ask(server.address, "DELETE", &format!("/{old}")).await;
        if restarts {
            break;
        }
        let report = try_flush(&sink, [put(id("books", 2), &v(20), (run, 3))]).await.unwrap();
        assert_eq!(report, FlushReport { rejected: vec![], throttled: vec![id("books", 2)] });
        flush(&sink, [put(id("books", 2), &v(20), (run, 3))]).await;
        assert_eq!(values(server.address, "books").await, of(&[(1, 10), (2, 20)]));
        flush(&sink, [put(id("books", 3), &v(3), (run, 4))]).await;
        sink.mark_seeded(&books, &own).await.unwrap();
        assert_eq!(values(server.address, "books").await, of(&[(1, 10), (2, 20), (3, 3)]));
    }
    let (sink, run) = begun(builder(&server.url())).await;
    assert_eq!(values(server.address, "books").await, of(&[(1, 10)]));
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeding(None));
    // What is built: what is searched stays.
    three(&sink, run).await;
    let old = physical(server.address, "books").await;
    sink.rebuild(&books).await.unwrap();
    sink.save_cursor(&books, &own, None).await.unwrap();
    let built = indexes(server.address, "books").await.into_iter().find(|name| *name != old).unwrap();
    ask(server.address, "DELETE", &format!("/{built}")).await;
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Unseeded);
    let (sink, _) = begun(builder(&server.url())).await;
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Unseeded);
    assert_eq!(physical(server.address, "books").await, old);
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 2), (3, 3)]));
    sink.rebuild(&books).await.unwrap();
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 2), (3, 3)]));
    assert_eq!(indexes(server.address, "books").await.len(), 2);
}

async fn an_earlier_run_writes_to_neither(server: Server) {
    let proxy = Proxy::start(Some(server.address)).await;
    let (sink, run) = begun(builder(&proxy.url())).await;
    three(&sink, run).await;
    sink.rebuild(&index("books")).await.unwrap();
    sink.save_cursor(&index("books"), &seed("s", "d"), None).await.unwrap();
    let late = proxy.late("POST", "_bulk");
    tokio::select! {
        biased;
        () = late.caught() => {}
        _ = try_flush(&sink, [put(id("books", 1), &v(7), (run, 9))]) => panic!("it was answered"),
    }
    let (new, second) = begun(builder(&server.url())).await;
    let answer = late.deliver().await.json();
    let statuses: Vec<_> =
        answer["items"].as_array().unwrap().iter().map(|item| &item["index"]["status"]).collect();
    assert_eq!(statuses, [404, 404], "{answer}");
    let fault = try_flush(&sink, [put(id("books", 1), &v(7), (run, 9))]).await.unwrap_err();
    assert!(fault.message().contains("another run has begun"), "{fault}");
    let fault = sink.mark_seeded(&index("books"), &seed("s", "d")).await.unwrap_err();
    assert!(fault.message().contains("may write no more"), "{fault}");
    flush(&new, [put(id("books", 2), &v(20), (second, 1))]).await;
    assert_eq!(values(server.address, "books").await, of(&[(1, 1), (2, 20), (3, 3)]));
}
