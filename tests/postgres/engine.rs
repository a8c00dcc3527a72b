//! The whole way: from a database into an index, through restarts, lost slots and a new process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncline::connectors::postgres::{IndexDefinition, PostgresCapture, PostgresDocuments, Related};
use syncline::ports::{Seed, SeedState};
use syncline::row::Key;
use syncline::{Content, Engine, Fault, FlushReport, IndexName, Running, Sink, Writes};

use super::world::World;

pub(crate) const SHOP: &str = "CREATE TABLE books(id int PRIMARY KEY, title text);
    CREATE TABLE reviews(id int PRIMARY KEY, book_id int, stars int);
    ALTER TABLE reviews REPLICA IDENTITY FULL";

const BODY: &str = "jsonb_build_object('title', b.title, 'stars',
    (SELECT coalesce(jsonb_agg(r.stars ORDER BY r.id), '[]') FROM reviews r WHERE r.book_id = b.id))";

/// An index that remembers how far it was seeded.
#[derive(Default)]
pub(crate) struct Index {
    documents: Mutex<BTreeMap<String, String>>,
    seed: Mutex<Option<(Seed, SeedState)>>,
    pub(crate) clears: Mutex<usize>,
}

impl Sink for Index {
    type Body = String;

    async fn flush(&self, writes: &Writes<String>, _caught_up: bool) -> Result<FlushReport, Fault> {
        let mut documents = self.documents.lock().unwrap();
        for write in writes.iter() {
            let id = write.document.id.sink_id();
            match &write.document.content {
                Content::Upsert(body) => documents.insert(id, body.clone()),
                Content::Delete => documents.remove(&id),
            };
        }
        Ok(FlushReport::clean())
    }

    async fn seed_state(&self, _index: &IndexName, seed: &Seed) -> Result<SeedState, Fault> {
        let known = self.seed.lock().unwrap().clone();
        Ok(known.filter(|(known, _)| known == seed).map(|(_, state)| state).unwrap_or_default())
    }

    async fn clear(&self, _index: &IndexName) -> Result<(), Fault> {
        self.documents.lock().unwrap().clear();
        *self.seed.lock().unwrap() = None;
        *self.clears.lock().unwrap() += 1;
        Ok(())
    }

    async fn save_cursor(&self, _index: &IndexName, seed: &Seed, after: Option<&Key>) -> Result<(), Fault> {
        *self.seed.lock().unwrap() = Some((seed.clone(), SeedState::Seeding(after.cloned())));
        Ok(())
    }

    async fn mark_seeded(&self, _index: &IndexName, seed: &Seed) -> Result<(), Fault> {
        *self.seed.lock().unwrap() = Some((seed.clone(), SeedState::Seeded));
        Ok(())
    }
}

/// Runs an engine that captures from one server, and reads from one: the same, or a standby of it.
pub(crate) async fn start(world: &World, read: &World, index: &Arc<Index>) -> Running {
    let sql = format!("SELECT b.id, {BODY} FROM books b WHERE b.id = ANY($1)");
    let books = IndexDefinition::new("books", "books", sql)
        .unwrap()
        .related(Related::columns("reviews", ["book_id"]).unwrap());
    let documents = PostgresDocuments::open(&read.server(), [books]).await.unwrap();
    let capture = PostgresCapture::new(&world.server(), world.consumer(), documents.tables()).page_rows(50);
    Engine::new(capture, documents, Arc::clone(index)).start()
}

/// Waits until the index says what SQL says.
pub(crate) async fn agree(world: &World, index: &Index, running: &Running) {
    let truth = format!("SELECT b.id || ' ' || {BODY} FROM books b ORDER BY b.id::text COLLATE \"C\"");
    let truth = world.one(&truth);
    let started = tokio::time::Instant::now();
    loop {
        let documents = index.documents.lock().unwrap().clone();
        let said: Vec<String> = documents.iter().map(|(id, body)| format!("{id} {body}")).collect();
        if said.join("\n") == truth {
            return;
        }
        assert!(!running.is_finished(), "the run has ended");
        assert!(started.elapsed() < Duration::from_secs(60), "{said:?} is not {truth}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const CHURN: &str =
    "UPDATE books SET title = title || '!' WHERE id % 3 = 0; DELETE FROM books WHERE id % 7 = 1;
    UPDATE reviews SET book_id = book_id + 1 WHERE id % 2 = 0; DELETE FROM reviews WHERE id % 5 = 0;
    UPDATE books b SET id = id + 100000 WHERE id % 11 = 3 AND NOT EXISTS (SELECT FROM books o WHERE o.id = b.id + 100000);
    BEGIN; INSERT INTO books SELECT i, 'n' || i FROM generate_series(1, 300) i ON CONFLICT DO NOTHING;
    INSERT INTO reviews SELECT i, i, 5 FROM generate_series(1, 300) i ON CONFLICT DO NOTHING; COMMIT;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_seeded_followed_and_resumed_through_restarts_and_lost_slots() {
    let Some(world) = World::alone("", SHOP) else { return };
    world.run(
        "INSERT INTO books SELECT i, 'b' || i FROM generate_series(1, 1000) i;
         INSERT INTO reviews SELECT i, i / 2, i % 5 FROM generate_series(1, 2000) i",
    );
    let index = Arc::new(Index::default());
    let running = start(&world, &world, &index).await;
    world.run(CHURN);
    assert!(running.caught_up().await, "{:?}", running.outcome().await);
    agree(&world, &index, &running).await;
    for signal in ["QUIT", "KILL"] {
        let cluster = Arc::clone(&world.cluster);
        tokio::task::spawn_blocking(move || (cluster.down(signal), cluster.up())).await.unwrap();
        world.run(CHURN);
        agree(&world, &index, &running).await;
    }
    assert_eq!(*index.clears.lock().unwrap(), 1, "a restart seeds nothing again");

    // Tables are emptied: one that documents have a part in, and then all.
    world.run("TRUNCATE reviews; INSERT INTO reviews SELECT i, i, 3 FROM generate_series(1, 50) i");
    agree(&world, &index, &running).await;
    world.run("BEGIN; TRUNCATE books, reviews; INSERT INTO books SELECT i, 't' || i FROM generate_series(1, 500) i; COMMIT");
    world.run(CHURN);
    agree(&world, &index, &running).await;
    assert_eq!(*index.clears.lock().unwrap(), 3, "each was cleared for its truncation");
    running.drain(Duration::from_secs(30)).await.unwrap();

    // Another process goes on from where this one was.
    world.run(CHURN);
    let running = start(&world, &world, &index).await;
    agree(&world, &index, &running).await;
    assert!(running.caught_up().await);
    assert_eq!(*index.clears.lock().unwrap(), 3, "nor does another process");

    // The slot is dropped under it, and rows vanish that no stream tells of.
    lose_the_slot(&world, "DELETE FROM books WHERE id % 13 = 0");
    world.run(CHURN);
    agree(&world, &index, &running).await;
    assert!(*index.clears.lock().unwrap() >= 4, "a lost slot seeds from a clean start");
    // The new stream may hold no change at all: then it is the first keepalive that is acknowledged.
    let acknowledged = async {
        while running.status().acknowledged.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), acknowledged)
        .await
        .expect("the new stream is acknowledged");
    running.drain(Duration::from_secs(30)).await.unwrap();
}

/// Drops the slot under a run, and changes something before there is another.
pub(crate) fn lose_the_slot(world: &World, unseen: &str) {
    let slot = world.slot();
    let drop_it = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active;
         SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active;
         {unseen};"
    );
    while world.slot() == slot {
        let _ = world.cluster.psql(&world.database, &drop_it);
    }
}
