//! Documents that are read from a standby, which is behind.

use std::sync::Arc;
use std::time::Duration;

use syncline::change::{Change, Visibility};
use syncline::connectors::postgres::{PostgresCapture, PostgresDocuments};
use syncline::document::DocumentId;
use syncline::error::FaultKind;
use syncline::ports::{ChangeCapture, DocumentBuilder};
use syncline::{Fault, Opened};

use super::capture::reopened;
use super::documents::{SHOP, books, id, told};
use super::engine::{self, CHURN, Index, agree, lose_the_slot};
use super::world::{World, let_go, opened, table, transaction};

/// Waits until the standby shows all that is in the log, and stops it there.
async fn pause(primary: &World, standby: &World) {
    let end = primary.one("SELECT pg_current_wal_flush_lsn()");
    while standby.one(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) != "t" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    standby.run("SELECT pg_wal_replay_pause()");
    while standby.one("SELECT pg_get_wal_replay_pause_state()") != "paused" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn resume(standby: &World) {
    standby.run("SELECT pg_wal_replay_resume()");
}

/// As the engine does: again and again until the standby shows what it must.
async fn built(documents: &PostgresDocuments, ids: &[DocumentId], token: Option<Visibility>) -> Vec<String> {
    loop {
        match documents.build_many(ids, token).await {
            Ok(built) => return told(&built),
            Err(fault) => assert_eq!(fault, Fault::not_yet()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn title(books: &[String]) -> Vec<String> {
    let title =
        |body: &str| body.split("\"title\": ").nth(1).map(|rest| rest.split(',').next().unwrap().to_owned());
    books.iter().map(|book| title(book).unwrap_or_else(|| book.clone())).collect()
}

#[tokio::test]
async fn b2_nothing_is_read_from_before_the_point_from_which_the_stream_resumes() {
    let Some(world) = World::alone("", SHOP) else { return };
    let standby = world.standby();
    let documents = PostgresDocuments::open(&standby.server(), [books()]).await.unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    let ids = [id(1), id(2)];
    // What led to its books by a query before, and says nothing of when.
    let author = [("id".parse().unwrap(), "ja".into())].into_iter().collect();
    let author = Change::upsert(table("authors"), "ja").with_after(author);

    pause(&world, &standby).await;
    world.run("UPDATE books SET title = 'first' WHERE id = 1; DELETE FROM books WHERE id = 2");
    let shown = title(&told(&documents.build_many(&ids, None).await.unwrap()));
    assert_eq!(shown, ["\"Emma\"", "\"Sanditon\""], "the standby is behind");
    // No stream tells of these changes: the slot is made behind them.
    let stream = opened(&capture).await;
    assert_eq!(documents.build_many(&ids, None).await.unwrap_err(), Fault::not_yet());
    assert_eq!(documents.build(&ids[0]).await.unwrap_err(), Fault::not_yet());
    assert_eq!(documents.resolve(&author).await.unwrap_err(), Fault::not_yet());
    resume(&standby);
    assert_eq!(title(&built(&documents, &ids, None).await), ["\"first\"", "books/2 gone"]);
    documents.resolve(&author).await.unwrap();

    // The same where the slot is lost, and made anew behind changes that were in no stream.
    let (name, slot) = (stream.stream.clone(), world.slot());
    drop(stream);
    let_go(&world).await;
    pause(&world, &standby).await;
    world.run(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); UPDATE books SET title = 'second' WHERE id = 1"
    ));
    assert_eq!(title(&built(&documents, &ids[..1], None).await), ["\"first\""], "nothing is known of it yet");
    let Opened { stream, changes } = reopened(&capture).await;
    assert_ne!(stream, name);
    assert_eq!(documents.build_many(&ids, None).await.unwrap_err(), Fault::not_yet());
    resume(&standby);
    assert_eq!(title(&built(&documents, &ids, None).await), ["\"second\"", "books/2 gone"]);
    drop(changes);
}

#[tokio::test]
async fn b2_a_stream_that_is_resumed_reads_nothing_older_than_what_it_has_confirmed() {
    let Some(world) = World::alone("", SHOP) else { return };
    let standby = world.standby();
    let documents = PostgresDocuments::open(&standby.server(), [books()]).await.unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    let mut stream = opened(&capture).await;
    built(&documents, &[id(1)], None).await;
    pause(&world, &standby).await;
    world.run("UPDATE books SET title = 'confirmed' WHERE id = 1");
    let (_, position) = transaction(&mut stream.changes).await;
    // Another reader was ahead of this standby, and what it wrote is durable.
    capture.confirm(&stream.stream, position).await.unwrap();
    drop(stream);
    let_go(&world).await;
    let _stream = reopened(&capture).await;
    assert_eq!(documents.build_many(&[id(1)], None).await.unwrap_err(), Fault::not_yet());
    resume(&standby);
    assert_eq!(title(&built(&documents, &[id(1)], None).await), ["\"confirmed\""]);
}

#[tokio::test]
async fn b6_a_standby_is_read_once_it_has_replayed_the_change() {
    let Some(world) = World::alone("", SHOP) else { return };
    let standby = world.standby();
    let documents = PostgresDocuments::open(&standby.server(), [books()]).await.unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    let mut stream = opened(&capture).await;
    built(&documents, &[id(1)], None).await;
    pause(&world, &standby).await;
    world.run("UPDATE books SET title = 'again' WHERE id = 1");
    let (changes, _) = transaction(&mut stream.changes).await;
    let token = changes[0].visibility;
    assert_eq!(documents.build_many(&[id(1)], token).await.unwrap_err(), Fault::not_yet());
    let linked = Change::upsert(table("authors"), "ja")
        .with_after([("id".parse().unwrap(), "ja".into())].into_iter().collect())
        .with_visibility(token.unwrap());
    assert_eq!(documents.resolve(&linked).await.unwrap_err(), Fault::not_yet());
    // What does not depend on it need not wait.
    assert_eq!(title(&built(&documents, &[id(2)], None).await), ["\"Sanditon\""]);
    resume(&standby);
    assert_eq!(title(&built(&documents, &[id(1)], token).await), ["\"again\""]);
    documents.resolve(&linked).await.unwrap();
}

#[tokio::test]
async fn b15_a_server_that_is_no_standby_of_the_captured_one_is_refused() {
    let Some(world) = World::alone("", SHOP) else { return };
    let other = World::alone("", SHOP).unwrap();
    let documents = PostgresDocuments::open(&other.server(), [books()]).await.unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables());
    let mut stream = opened(&capture).await;
    world.run("UPDATE books SET title = 'there' WHERE id = 1");
    let (changes, _) = transaction(&mut stream.changes).await;
    let fault = documents.build_many(&[id(1)], changes[0].visibility).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal);
    assert!(fault.message().contains("captured from another server"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_read_from_a_standby_ends_as_the_primary_is() {
    let Some(world) = World::alone("", engine::SHOP) else { return };
    let standby = world.standby();
    world.run(
        "INSERT INTO books SELECT i, 'b' || i FROM generate_series(1, 1000) i;
         INSERT INTO reviews SELECT i, i / 2, i % 5 FROM generate_series(1, 2000) i",
    );
    let index = Arc::new(Index::default());
    let running = engine::start(&world, &standby, &index).await;
    agree(&world, &index, &running).await;
    // While it stands still the slot is lost, and changes come that no stream ever tells: every one of them is read by the
    // scan that follows, from a standby that does not show it.
    pause(&world, &standby).await;
    let slot = world.slot();
    lose_the_slot(&world, "UPDATE books SET title = title || ' unseen'; DELETE FROM books WHERE id % 13 = 0");
    while world.slot() == slot || world.slot().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A moment in which the scan could read what was.
    tokio::time::sleep(Duration::from_secs(1)).await;
    resume(&standby);
    agree(&world, &index, &running).await;
    assert!(*index.clears.lock().unwrap() >= 2, "it was seeded again");
    world.run(CHURN);
    agree(&world, &index, &running).await;
    running.drain(Duration::from_secs(30)).await.unwrap();
}
