//! Markers and cursors, and the physical indexes that they hold for.

use syncline::change::Operation;
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::document::{Epoch, Version};
use syncline::error::FaultKind;
use syncline::ports::{FieldKind, Quarantine as _, QuarantinedDocument, SeedState, Sink as _};
use syncline::row::Key;

use crate::proxy::{Fault, Proxy};
use crate::servers::Server;
use crate::support::*;
use crate::wire::{Response, exchange};

crate::on_both! {
    markers_and_cursors_hold_for_their_stream_and_definition_across_runs
    a_mapping_that_changed_or_an_index_that_was_removed_or_put_back_is_seeded_again
    clearing_starts_another_physical_index_behind_the_same_alias
    what_an_interrupted_run_has_left_is_completed_and_swept
    what_others_have_put_under_the_name_is_not_touched
    a_state_that_is_lost_has_everything_seeded_again
    two_sinks_with_their_own_prefixes_keep_apart
}

fn refused(epoch: Epoch) -> QuarantinedDocument {
    QuarantinedDocument {
        id: id("books", 1),
        operation: Operation::Upsert,
        reason: "odd".into(),
        attempts: 1,
        version: Version { epoch, build: 2 },
    }
}

async fn again(server: &Server) -> (OpenSearchSink, Epoch) {
    begun(builder(&server.url())).await
}

async fn markers_and_cursors_hold_for_their_stream_and_definition_across_runs(server: Server) {
    let (mut sink, _) = again(&server).await;
    let (books, own) = (index("books"), seed("log/1", "d1"));
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Unseeded);
    sink.clear(&books).await.unwrap();
    let cursor = Key::new(["a:\"\n".into(), (-7).into()]).unwrap();
    for (after, state) in
        [(None, SeedState::Seeding(None)), (Some(&cursor), SeedState::Seeding(Some(cursor.clone())))]
    {
        sink.save_cursor(&books, &own, after).await.unwrap();
        assert_eq!(sink.seed_state(&books, &own).await.unwrap(), state);
        (sink, _) = again(&server).await;
        assert_eq!(sink.seed_state(&books, &own).await.unwrap(), state);
    }
    sink.mark_seeded(&books, &own).await.unwrap();
    let (sink, _) = again(&server).await;
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Seeded);
    sink.park(&books, &own).await.unwrap();
    sink.mark_seeded(&books, &own).await.unwrap();
    assert_eq!(sink.seed_state(&books, &own).await.unwrap(), SeedState::Parked, "what comes late says less");
    for other in [seed("log/2", "d1"), seed("log/1", "d2")] {
        assert_eq!(sink.seed_state(&books, &other).await.unwrap(), SeedState::Unseeded);
    }
    assert_eq!(sink.seed_state(&index("other"), &own).await.unwrap(), SeedState::Unseeded);
}

async fn a_mapping_that_changed_or_an_index_that_was_removed_or_put_back_is_seeded_again(server: Server) {
    let (sink, run) = again(&server).await;
    let (name, own) = (index("books"), seed("log/1", "d"));
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    sink.mark_seeded(&name, &own).await.unwrap();
    let before = physical(server.address, "books").await;
    // The same again is the same.
    let (sink, _) = again(&server).await;
    assert_eq!(physical(server.address, "books").await, before);
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Seeded);
    assert_eq!(values(server.address, "books").await.len(), 1);
    // Another mapping is another index.
    let sink = builder(&server.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&mapping("books", &[("v", FieldKind::Keyword)])).await.unwrap();
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Unseeded);
    assert_eq!(physical(server.address, "books").await, before, "until the other one is complete");
    assert_eq!(values(server.address, "books").await.len(), 1);
    // Removed by hand, during a run and before one.
    sink.mark_seeded(&name, &own).await.unwrap();
    let after = physical(server.address, "books").await;
    assert_ne!(after, before);
    assert_eq!(indexes(server.address, "books").await, std::slice::from_ref(&after), "the old one is gone");
    assert_eq!(values(server.address, "books").await, []);
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Seeded);
    ask(server.address, "DELETE", &format!("/{after}")).await;
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Unseeded);
    let (sink, run) = again(&server).await;
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Unseeded);
    // Put back under its name, from elsewhere: it has another UUID.
    sink.mark_seeded(&name, &own).await.unwrap();
    let held = physical(server.address, "books").await;
    ask(server.address, "DELETE", &format!("/{held}")).await;
    exchange(server.address, "PUT", &format!("/{held}"), "{}").await.unwrap();
    assert_eq!(sink.seed_state(&name, &own).await.unwrap(), SeedState::Unseeded);
    // Writing there meanwhile is refused: the index is not that of the run.
    let fault = try_flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains("index `books` cannot be written"), "{fault}");
    let fault = try_flush(&sink, [remove(id("books", 1), (run, 2))]).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
}

async fn clearing_starts_another_physical_index_behind_the_same_alias(server: Server) {
    let (sink, run) = again(&server).await;
    flush(&sink, [put(id("books", 1), &v(1), (run, 1)), put(id("books", 2), &v(2), (run, 1))]).await;
    let before = physical(server.address, "books").await;
    sink.mark_seeded(&index("books"), &seed("s", "d")).await.unwrap();
    sink.clear(&index("books")).await.unwrap();
    let after = physical(server.address, "books").await;
    assert_ne!(after, before);
    assert_eq!(indexes(server.address, "books").await, [after]);
    assert_eq!(values(server.address, "books").await, []);
    assert_eq!(sink.seed_state(&index("books"), &seed("s", "d")).await.unwrap(), SeedState::Unseeded);
    // The same version as before, and a smaller one: nothing of the old index is left to compare with.
    flush(&sink, [put(id("books", 1), &v(11), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 11)]);
    // The mapping is the same.
    let report = try_flush(&sink, [put(id("books", 3), r#"{"unknown":1}"#, (run, 2))]).await.unwrap();
    assert_eq!(report.rejected.len(), 1);
}

async fn what_an_interrupted_run_has_left_is_completed_and_swept(server: Server) {
    let (sink, run) = again(&server).await;
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    let current = physical(server.address, "books").await;
    // It had created another one, and died; it had lost the alias; a deletion after its end had created an index.
    let hash = current.split('-').nth(1).unwrap();
    let orphan = format!("books-{hash}-{}-00000000", run.0);
    let meta = r#"{"mappings":{"_meta":{"syncline":{"owner":"syncline","index":"books"}}}}"#;
    exchange(server.address, "PUT", &format!("/{orphan}"), meta).await.unwrap();
    let ghost = format!("books-{hash}-{}-11111111-e{}", run.0, run.0);
    exchange(server.address, "PUT", &format!("/{ghost}"), "{}").await.unwrap();
    exchange(server.address, "PUT", "/books-archive", "{}").await.unwrap();
    let foreign = format!("books-{hash}-{}-22222222", run.0);
    exchange(server.address, "PUT", &format!("/{foreign}"), "{}").await.unwrap();
    let remove = format!(r#"{{"actions":[{{"remove":{{"index":"{current}","alias":"books"}}}}]}}"#);
    assert_eq!(exchange(server.address, "POST", "/_aliases", &remove).await.unwrap().status, 200);
    // A start that cannot remove something leaves it to the next.
    let proxy = Proxy::start(Some(server.address)).await;
    proxy.on(
        "DELETE",
        format!("/{orphan}"),
        1,
        Fault::Answer(Response::new(400, "a snapshot is being taken")),
    );
    begun(builder(&proxy.url())).await;
    proxy.all_used();
    assert!(indexes(server.address, "books").await.contains(&orphan));
    let (sink, run) = again(&server).await;
    assert_eq!(physical(server.address, "books").await, current);
    let mut left = vec![current.as_str(), "books-archive", foreign.as_str()];
    left.sort_unstable();
    assert_eq!(indexes(server.address, "books").await, left);
    assert_eq!(values(server.address, "books").await, [("1".into(), 1)]);
    flush(&sink, [put(id("books", 1), &v(2), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 2)]);
}

async fn what_others_have_put_under_the_name_is_not_touched(server: Server) {
    let sink = builder(&server.url()).build().unwrap();
    sink.begin(Epoch(0)).await.unwrap();
    exchange(server.address, "PUT", "/theirs", r#"{"aliases":{"books":{}}}"#).await.unwrap();
    exchange(server.address, "PUT", "/films", "{}").await.unwrap();
    let fault = sink.ensure_index(&books()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(
        fault.message().contains("`books` is an alias of `theirs`, which this sink has not created"),
        "{fault}"
    );
    let refused = sink.ensure_index(&mapping("films", &[])).await;
    if server.kind == crate::servers::Kind::Osmem {
        // Noida lets an alias be called as an index is.
        assert_eq!(refused.unwrap_err().kind(), FaultKind::Fatal);
    }
    assert_eq!(ask(server.address, "GET", "/theirs").await.status, 200);
    assert_eq!(ask(server.address, "GET", "/films").await.status, 200);
    let fault = sink.ensure_index(&mapping("Books", &[])).await.unwrap_err();
    assert!(fault.message().contains("it holds a capital letter"), "{fault}");
}

async fn a_state_that_is_lost_has_everything_seeded_again(server: Server) {
    let (sink, _) = again(&server).await;
    let run = sink.begin(Epoch(40)).await.unwrap();
    sink.ensure_index(&books()).await.unwrap();
    flush(&sink, [put(id("books", 1), &v(1), (run, 1))]).await;
    sink.mark_seeded(&index("books"), &seed("s", "d")).await.unwrap();
    sink.quarantine().record(&[refused(run)]).await.unwrap();
    ask(server.address, "DELETE", "/syncline-state").await;
    let fault = sink.mark_seeded(&index("books"), &seed("s", "d")).await.unwrap_err();
    assert!(fault.message().contains("`syncline-state` was removed during the run"), "{fault}");
    // Epochs begin anew, which no document of an earlier count hinders.
    let (sink, run) = again(&server).await;
    assert_eq!(run, Epoch(1));
    assert_eq!(sink.seed_state(&index("books"), &seed("s", "d")).await.unwrap(), SeedState::Unseeded);
    sink.clear(&index("books")).await.unwrap();
    flush(&sink, [put(id("books", 1), &v(2), (run, 1))]).await;
    assert_eq!(values(server.address, "books").await, [("1".into(), 2)]);
    assert_eq!(indexes(server.address, "books").await.len(), 1);
    // Nor a record, which would be newer than every one to come.
    assert_eq!(sink.quarantine().load().await.unwrap(), []);
    sink.quarantine().record(&[refused(run)]).await.unwrap();
    assert_eq!(sink.quarantine().load().await.unwrap().len(), 1);
}

async fn two_sinks_with_their_own_prefixes_keep_apart(server: Server) {
    let (one, first) = again(&server).await;
    let other = builder(&server.url()).prefix("other").build().unwrap();
    other.begin(Epoch(0)).await.unwrap();
    other.ensure_index(&mapping("films", &[("v", FieldKind::Integer)])).await.unwrap();
    flush(&one, [put(id("books", 1), &v(1), (first, 1))]).await;
    let fault = other.ensure_index(&books()).await.unwrap_err();
    assert!(fault.message().contains("the sink with the prefix `syncline` has created"), "{fault}");
    assert_eq!(values(server.address, "books").await.len(), 1);
}
