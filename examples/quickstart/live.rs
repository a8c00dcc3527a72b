//! Live changes: each is committed by a second connection, and then searched for until it is found.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use syncline::Fault;
use tokio::time::Instant;

use crate::bookshop;
use crate::page::{Page, count, time};
use crate::sync::Sync;

/// How long a change may take to be found, before that is taken for a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A transaction, and what must be true of the index after it.
struct Step {
    title: &'static str,
    sql: &'static str,
    expected: &'static [Expected],
}

/// What a search must answer.
struct Expected {
    query: &'static str,
    /// SQL that yields the ids of the books that are to be found: all of them, and no other.
    books: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        title: "a book and its first review are inserted",
        sql: "INSERT INTO books VALUES (1000001, 1, 'The Zeppelin Notebooks', 1931);
              INSERT INTO reviews(book_id, stars, text) VALUES (1000001, 5, 'Tastes of marzipan');",
        expected: &[
            Expected { query: "title:zeppelin", books: "VALUES (1000001)" },
            Expected { query: "reviews:marzipan", books: "VALUES (1000001)" },
        ],
    },
    Step {
        title: "its title is updated",
        sql: "UPDATE books SET title = 'The Submarine Notebooks' WHERE id = 1000001",
        expected: &[
            Expected { query: "title:submarine", books: "VALUES (1000001)" },
            Expected { query: "title:zeppelin", books: "SELECT 1 WHERE false" },
        ],
    },
    Step {
        title: "the review is moved to another book",
        sql: "UPDATE reviews SET book_id = 7 WHERE text LIKE '%marzipan'",
        expected: &[Expected { query: "reviews:marzipan", books: "VALUES (7)" }],
    },
    Step {
        title: "the review is deleted",
        sql: "DELETE FROM reviews WHERE text LIKE '%marzipan'",
        expected: &[Expected { query: "reviews:marzipan", books: "SELECT 1 WHERE false" }],
    },
    Step {
        title: "an author is renamed, in all of her books",
        sql: "UPDATE authors SET name = 'Wilhelmina Quillfeather' WHERE id = 1",
        expected: &[Expected {
            query: "author:quillfeather",
            books: "SELECT id FROM books WHERE author_id = 1",
        }],
    },
    Step {
        title: "a book's primary key is changed",
        sql: "UPDATE books SET id = 1000002 WHERE id = 1000001",
        expected: &[Expected { query: "title:submarine", books: "VALUES (1000002)" }],
    },
    Step {
        title: "the book is deleted",
        sql: "DELETE FROM books WHERE id = 1000002",
        expected: &[Expected { query: "title:submarine", books: "SELECT 1 WHERE false" }],
    },
    Step {
        title: "one large transaction: a review for every second book",
        sql: "INSERT INTO reviews(book_id, stars, text)
              SELECT id, 4, 'Shortlisted at the autumn festival' FROM books WHERE id % 2 = 0",
        expected: &[Expected { query: "reviews:festival", books: "SELECT id FROM books WHERE id % 2 = 0" }],
    },
];

pub(crate) async fn show(page: Page, database: &Path, sync: &Sync) -> Result<(), Fault> {
    page.chapter("4  Live changes, from a second connection");
    let mut connection = bookshop::connect(database)?;
    for step in STEPS {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step.sql)?;
        transaction.commit()?;
        let committed = Instant::now();
        for expected in step.expected {
            found(&connection, sync, expected, committed).await?;
        }
        let took = time(committed.elapsed());
        page.done(format!("{:<54} {took:>7} after the commit", step.title));
        for expected in step.expected {
            page.note(told(sync, expected.query)?);
        }
    }
    Ok(())
}

/// Waits until a search finds what it should.
async fn found(
    connection: &Connection,
    sync: &Sync,
    expected: &Expected,
    committed: Instant,
) -> Result<(), Fault> {
    let wanted = wanted(connection, expected)?;
    loop {
        let looked = Instant::now();
        if ids(sync, expected.query, wanted.len() + 1)? == wanted {
            return Ok(());
        }
        if committed.elapsed() > PATIENCE {
            let query = expected.query;
            return Err(Fault::fatal(format!(
                "{query} still does not find what was committed {PATIENCE:?} ago"
            )));
        }
        sync.going().await?;
        // As long as the search itself took: the engine is to have at least half of the machine.
        tokio::time::sleep(looked.elapsed().max(Duration::from_millis(1))).await;
    }
}

/// The ids of the books that are to be found, in order.
fn wanted(connection: &Connection, expected: &Expected) -> Result<Vec<i64>, Fault> {
    let mut statement = connection.prepare(expected.books)?;
    let mut ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// The ids of the books that are found, in order.
fn ids(sync: &Sync, query: &str, limit: usize) -> Result<Vec<i64>, Fault> {
    let hits = sync.sink.search(&bookshop::index()?, query, limit)?;
    let mut ids: Vec<i64> = hits.iter().map(|hit| hit.id.parse()).collect::<Result<_, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// A search and what it finds, in a few words.
fn told(sync: &Sync, query: &str) -> Result<String, Fault> {
    let hits = sync.sink.search(&bookshop::index()?, query, usize::MAX)?;
    Ok(match &hits[..] {
        [] => format!("{query} finds nothing"),
        [hit] => {
            let book: Value = serde_json::from_str(&hit.source)?;
            format!("{query} finds {} (book {})", book["title"].as_str().unwrap_or_default(), hit.id)
        }
        many => format!("{query} finds {} books", count(many.len() as u64)),
    })
}
