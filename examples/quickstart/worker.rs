//! The process that is killed: an engine, and a writer that keeps it busy.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use syncline::{BatchStats, Fault, NoopObserver, Observer};

use crate::bookshop::{self, author_name, review_text};
use crate::cli::Worker;
use crate::crash::{Moment, READY};
use crate::page::count;
use crate::random::Random;
use crate::sync::Sync;
use crate::tour::Place;

/// How many changes the writer makes in one of its transactions.
const TRANSACTION_CHANGES: u64 = 200;

/// How many transactions the writer commits before it says that the process may be killed.
const TRANSACTIONS: u64 = 20;

/// Works until it is killed.
pub(crate) async fn run(options: Worker) -> Result<(), Fault> {
    tokio::task::spawn_blocking(end_with_the_parent);
    let place = Place::below(&options.dir);
    let setup = place.setup()?;
    match options.moment {
        Moment::Transaction => in_a_transaction(&place.database, setup.start(NoopObserver)?).await,
        Moment::Unit => {
            let freeze = Arc::new(Freeze::default());
            after_a_unit(&place.database, setup.start(Arc::clone(&freeze))?, &freeze).await
        }
        Moment::Random => under_load(&place.database, setup.start(NoopObserver)?).await,
    }
}

/// Commits some transactions, and never ends the last one.
async fn in_a_transaction(database: &Path, sync: Sync) -> Result<(), Fault> {
    sync.opened().await?;
    let mut connection = bookshop::connect(database)?;
    let mut random = Random::new(2);
    for _ in 0..TRANSACTIONS {
        write(&mut connection, &mut random)?;
    }
    sync.until(|status| status.captured > 0).await?;
    let transaction = begin(&mut connection)?;
    for _ in 0..TRANSACTION_CHANGES {
        change(&transaction, &mut random)?;
    }
    let captured = count(sync.status().captured);
    ready(&format!("{TRANSACTION_CHANGES} changes of it written, {captured} of those before it captured"));
    loop {
        change(&transaction, &mut random)?;
    }
}

/// Commits one large transaction, and stops the engine where a unit of it is durable.
async fn after_a_unit(database: &Path, sync: Sync, freeze: &Freeze) -> Result<(), Fault> {
    sync.caught_up().await?;
    freeze.armed.store(true, Ordering::SeqCst);
    bookshop::connect(database)?
        .execute("UPDATE books SET title = title || ', revised' WHERE id % 2 = 1", [])?;
    Err(sync.ended().await)
}

/// Commits transactions without end.
async fn under_load(database: &Path, sync: Sync) -> Result<(), Fault> {
    sync.opened().await?;
    let mut connection = bookshop::connect(database)?;
    let mut random = Random::new(3);
    for written in 1.. {
        write(&mut connection, &mut random)?;
        sync.going().await?;
        if written == TRANSACTIONS {
            let status = sync.status();
            let (captured, durable) = (count(status.captured), count(status.durable));
            ready(&format!("{captured} changes captured by then, {durable} of them durable"));
        }
    }
    Ok(())
}

/// Holds the engine where it stands, right after a unit: the observer is called from the engine's own task, and the
/// acknowledgement comes later.
#[derive(Debug, Default)]
struct Freeze {
    armed: AtomicBool,
}

impl Observer for Freeze {
    fn on_batch_committed(&self, stats: &BatchStats) {
        if self.armed.load(Ordering::SeqCst) {
            ready(&format!(
                "{} documents of a large transaction, none of its changes acknowledged",
                count(stats.documents as u64)
            ));
            loop {
                std::thread::park();
            }
        }
    }
}

/// Tells the parent that the moment has come.
fn ready(words: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{READY}{words}").and_then(|()| stdout.flush());
}

/// A parent that was killed itself leaves no worker behind.
fn end_with_the_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(1);
}

/// Begins with the lock for writing: a transaction that reads first is refused where the engine, which writes down how far
/// it has got, comes in between.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn write(connection: &mut Connection, random: &mut Random) -> Result<(), Fault> {
    let transaction = begin(connection)?;
    for _ in 0..TRANSACTION_CHANGES {
        change(&transaction, random)?;
    }
    Ok(transaction.commit()?)
}

/// Changes something, somewhere. Where the place that is drawn is empty by now, nothing happens.
fn change(connection: &Connection, random: &mut Random) -> rusqlite::Result<()> {
    let highest = |table: &str| -> rusqlite::Result<u64> {
        let mut statement = connection.prepare_cached(&format!("SELECT max(id) FROM {table}"))?;
        Ok(statement.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    let book = random.below(highest("books")?);
    let review = random.below(highest("reviews")?);
    let run = |sql: &str, text: Option<String>| {
        let mut statement = connection.prepare_cached(sql)?;
        // `?1` is a book, `?2` is a review, `?3` is a text; not every statement has them all.
        let all = params![book, review, text];
        let used = statement.parameter_count();
        statement.execute(&all[..used]).map(drop)
    };
    match random.below(100) {
        0..35 => run(
            "INSERT INTO reviews(book_id, stars, text)
             SELECT id, 1 + ?2 % 5, ?3 FROM books WHERE id >= ?1 ORDER BY id LIMIT 1",
            Some(review_text(random)),
        ),
        35..60 => run("UPDATE reviews SET text = ?3 WHERE id = ?2", Some(review_text(random))),
        60..72 => run(
            "UPDATE reviews SET book_id = (SELECT id FROM books WHERE id >= ?1 ORDER BY id LIMIT 1) WHERE id = ?2",
            None,
        ),
        72..84 => run("DELETE FROM reviews WHERE id = ?2", None),
        84..90 => run("UPDATE books SET year = 1950 + ?2 % 75 WHERE id = ?1", None),
        90..94 => run(
            "INSERT INTO books(author_id, title, year) VALUES (1 + ?1 % 9, 'An Unwritten Book', 2000 + ?2 % 25)",
            None,
        ),
        94..96 => run("DELETE FROM books WHERE id = ?1", None),
        96..98 => run("UPDATE books SET id = (SELECT max(id) + 1 FROM books) WHERE id = ?1", None),
        _ => run(
            "UPDATE authors SET name = ?3 WHERE id = (SELECT author_id FROM books WHERE id >= ?1 LIMIT 1)",
            Some(author_name(random)),
        ),
    }
}
