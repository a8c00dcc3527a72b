//! The whole engine, from an SQLite database into a server behind the proxy.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::connectors::sqlite::{IndexDefinition, SqliteCapture, SqliteDocuments};
use syncline::driver::Running;
use syncline::ports::{Field, FieldKind};
use syncline::{BatchPolicy, Engine, FailurePolicy, RetryPolicy};
use tokio::time::Instant;

use crate::proxy::{Fault, Proxy};
use crate::servers::Server;
use crate::support::*;
use crate::wire::Response;

crate::on_both! {
    an_index_stays_equal_to_a_database_through_faults_and_runs
    an_index_that_is_rebuilt_is_found_whole_at_any_time_whatever_dies
    a_document_that_the_server_refuses_is_quarantined_and_cured
}

fn database(path: &Path) -> Connection {
    let database = Connection::open(path).unwrap();
    database.busy_timeout(Duration::from_secs(20)).unwrap();
    database
}

fn start(path: &Path, sink: &OpenSearchSink) -> Running {
    let books = IndexDefinition::new(
        "books",
        "books",
        "SELECT b.id, json_object('v', b.v) FROM syncline_keys k JOIN books b ON b.id = k.k1",
    );
    let books = books.unwrap().field(Field::new("v", FieldKind::Integer));
    let documents = SqliteDocuments::open(path, [books]).unwrap();
    let capture = SqliteCapture::new(path, "search", documents.tables());
    let retry = RetryPolicy {
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(100),
        ..RetryPolicy::default()
    };
    let batch =
        BatchPolicy { max_changes: 40, max_delay: Duration::from_millis(5), ..BatchPolicy::default() };
    Engine::new(capture, documents, sink.clone())
        .with_retry(retry)
        .with_batch(batch)
        .with_failure_policies(FailurePolicy::Skip)
        .with_quarantine(sink.quarantine())
        .start()
}

/// Waits until the index holds what the table does.
async fn equal(server: &Server, path: &Path, running: &Running) {
    let started = Instant::now();
    loop {
        let mut rows: Vec<(String, i64)> = database(path)
            .prepare("SELECT id, v FROM books WHERE typeof(v) = 'integer'")
            .unwrap()
            .query_map([], |row| Ok((row.get::<_, i64>(0)?.to_string(), row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        rows.sort();
        ask(server.address, "POST", "/books/_refresh").await;
        let written = values(server.address, "books").await;
        if written == rows {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{written:?} {rows:?} {:?}", running.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn plant(proxy: &Proxy) {
    let busy = || {
        Response::new(
            429,
            r#"{"error":{"type":"rejected_execution_exception","reason":"busy"},"status":429}"#,
        )
    };
    for fault in [
        Fault::Items(vec!["3", "50", "7"], 429, "rejected_execution_exception"),
        Fault::LoseAnswer,
        Fault::Answer(busy()),
        Fault::Answer(busy().with("retry-after", "0")),
        Fault::CutAnswer(100),
        Fault::Reset,
        // A document that is too large by itself would be rejected.
        Fault::With(Box::new(move |request| match request.text().lines().count() {
            0..=2 => busy(),
            _ => Response::new(413, ""),
        })),
        Fault::Answer(Response::new(502, "<html>")),
        Fault::Items(vec!["3", "50", "7"], 503, "unavailable_shards_exception"),
    ] {
        proxy.on("POST", "_bulk", 1, fault);
    }
    for (method, path) in
        [("PUT", "_doc/state"), ("GET", "_doc/state"), ("POST", "_refresh"), ("POST", "_aliases")]
    {
        proxy.on(method, path, 1, Fault::LoseAnswer);
    }
}

async fn an_index_stays_equal_to_a_database_through_faults_and_runs(server: Server) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let own = database(&path);
    own.execute_batch(
        "CREATE TABLE books(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO books SELECT i, i FROM n",
    )
    .unwrap();
    let proxy = Proxy::start(Some(server.address)).await;
    let sink = || builder(&proxy.url()).gzip(false).request_documents(25).requests(2).build().unwrap();
    plant(&proxy);
    let running = start(&path, &sink());
    assert!(running.caught_up().await, "{:?}", running.status());
    equal(&server, &path, &running).await;
    proxy.all_used();
    let seeded = physical(server.address, "books").await;

    plant(&proxy);
    for round in 0..20 {
        own.execute_batch(&format!(
            "UPDATE books SET v = v + 1000 WHERE id % 20 = {round}; DELETE FROM books WHERE id % 25 = {round};
             INSERT INTO books VALUES(1000 + {round}, {round})"
        ))
        .unwrap();
    }
    equal(&server, &path, &running).await;
    // It dies where it stands, while there is more to do.
    own.execute_batch("UPDATE books SET v = v + 1").unwrap();
    drop(running);
    own.execute_batch("DELETE FROM books WHERE id < 10; UPDATE books SET v = -1 WHERE id = 1000").unwrap();
    proxy.forget();
    let running = start(&path, &sink());
    equal(&server, &path, &running).await;
    assert_eq!(physical(server.address, "books").await, seeded, "it was not seeded again");
    running.drain(Duration::from_secs(60)).await.unwrap();

    // Another sink's clear, as by hand: the next run seeds again.
    ask(server.address, "DELETE", &format!("/{seeded}")).await;
    let running = start(&path, &sink());
    assert!(running.caught_up().await, "{:?}", running.status());
    equal(&server, &path, &running).await;
    running.drain(Duration::from_secs(60)).await.unwrap();
}

/// Searches find these rows, and whatever is written meanwhile, all the time.
async fn an_index_that_is_rebuilt_is_found_whole_at_any_time_whatever_dies(server: Server) {
    const ROWS: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let own = database(&path);
    own.execute_batch(&format!(
        "CREATE TABLE books(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO books SELECT i, i FROM n"
    ))
    .unwrap();
    let proxy = Proxy::start(Some(server.address)).await;
    let sink = || builder(&proxy.url()).gzip(false).request_documents(25).requests(2).build().unwrap();
    let running = start(&path, &sink());
    assert!(running.caught_up().await, "{:?}", running.status());
    equal(&server, &path, &running).await;
    let (address, stopped) = (server.address, std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stop = stopped.clone();
    let watching = tokio::spawn(async move {
        let mut searches = 0;
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let found = values(address, "books").await;
            let still = found.iter().filter(|(_, value)| *value <= ROWS as i64).count();
            assert_eq!(still, ROWS, "search {searches}");
            searches += 1;
        }
        searches
    });
    let mut running = running;
    let books = index("books");
    for round in 0..6 {
        let before = physical(server.address, "books").await;
        running.reindex(&books).await.unwrap();
        own.execute_batch(&format!("INSERT INTO books VALUES(1000 + {round}, 1000 + {round})")).unwrap();
        if round % 2 == 1 {
            // It dies at another request each time.
            proxy.cut_after(3 + 5 * round, round % 4 == 1);
            running.until(|status| status.retries > 0).await;
            drop(running);
            proxy.heal();
            running = start(&path, &sink());
        }
        let seeded = |status: &syncline::pipeline::Status| status.caught_up && status.indexes[0].seeded;
        let status = running.until(seeded).await;
        assert!(seeded(&status), "{status:?}");
        equal(&server, &path, &running).await;
        let after = physical(server.address, "books").await;
        assert!(after != before || round % 2 == 1, "{round}: it was rebuilt");
        assert_eq!(indexes(server.address, "books").await, [after]);
    }
    assert_eq!(running.verify(&books).await.unwrap().different, 0);
    stopped.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(watching.await.unwrap() > 10);
    running.drain(Duration::from_secs(60)).await.unwrap();
}

async fn a_document_that_the_server_refuses_is_quarantined_and_cured(server: Server) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let own = database(&path);
    own.execute_batch("CREATE TABLE books(id INTEGER PRIMARY KEY, v); INSERT INTO books VALUES (1, 1), (2, 'no number'), (3, 3)")
        .unwrap();
    let sink = builder(&server.url()).build().unwrap();
    let running = start(&path, &sink);
    assert!(running.caught_up().await, "{:?}", running.status());
    equal(&server, &path, &running).await;
    let records = sink.quarantine().records().await.unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].document.id, id("books", 2));
    assert!(records[0].document.reason.contains("failed to parse field [v]"), "{records:?}");
    own.execute_batch("UPDATE books SET v = 2 WHERE id = 2").unwrap();
    equal(&server, &path, &running).await;
    running.drain(Duration::from_secs(60)).await.unwrap();
    assert_eq!(sink.quarantine().records().await.unwrap(), []);
}
