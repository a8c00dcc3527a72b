//! A database of the user's own: seed, search, and follow.

use std::path::Path;

use rusqlite::Connection;
use syncline::connectors::sqlite::{SqliteCapture, SqliteError};
use syncline::connectors::tantivy::TantivySink;
use syncline::error::Stage;
use syncline::{EngineError, Fault, FaultKind, IndexName};
use tokio::time::{Duration, Instant};

use crate::cli::{Own, TableOptions, input};
use crate::news::{self, Listener};
use crate::page::{Page, count, rate, shortened, time};
use crate::sync::{Setup, Sync};
use crate::{Failure, file};

/// How many hits are shown.
const SHOWN: usize = 5;

pub(crate) async fn run(page: Page, options: Own) -> Result<(), Failure> {
    let connection = file::open(&options.db)?;
    if options.tables.is_empty() {
        let (db, known) = (options.db.display(), file::known_tables(&connection)?);
        return Err(input(format!("--db {db} needs at least one --table; {known}")));
    }
    let definitions: Vec<_> =
        options.tables.iter().map(|table| file::definition(&connection, table)).collect::<Result<_, _>>()?;
    let rows = rows(&connection, &options.tables)?;
    drop(connection);
    let setup = Setup {
        database: options.db.clone(),
        index: options.dir.clone(),
        definitions,
        consumer: consumer(&options.dir)?,
        own: true,
    };
    setup.documents().map_err(refused)?;
    work(page, &options, &setup, &rows).await.map_err(found_by_the_sql)
}

async fn work(page: Page, options: &Own, setup: &Setup, rows: &[u64]) -> Result<(), Failure> {
    let (teller, mut listener) = news::pair();
    let begun = Instant::now();
    let sync = setup.start(teller)?;
    let read = sync.seeded(page, rows.iter().sum()).await?.indexes.iter().map(|index| index.rows_read).sum();
    let took = begun.elapsed();
    sync.caught_up().await?;
    let tables = tables(options, setup, rows, &sync, &mut listener).await?;
    tell_seeding(page, &options.dir, &tables, &rate(read, "rows", took), took);
    listener.tell(page);
    for table in &options.tables {
        search(page, &sync.sink, &table.name, &options.search)?;
    }
    if !options.once {
        follow(page, options, &sync, &mut listener).await?;
    }
    let report = sync.drain().await?;
    listener.tell(page);
    page.done(format!("drained; {} changes left for the next run", count(report.unacknowledged)));
    let (db, dir) = (options.db.display(), options.dir.display());
    page.note(format!(
        "the file goes on logging its changes for that run; --db {db} --dir {dir} --remove ends it"
    ));
    match quarantined(options, setup).await?.len() as u64 {
        0 => Ok(()),
        many => Err(Fault::fatal(format!(
            "documents quarantined: {}; quarantine.db in {dir} tells why, and each run tries them again",
            count(many)
        ))
        .into()),
    }
}

/// Takes out of the file what earlier runs have installed for this index.
pub(crate) async fn remove(page: Page, options: &Own) -> Result<(), Failure> {
    drop(file::open(&options.db)?);
    let (db, dir) = (options.db.display(), options.dir.display());
    if !options.dir.is_dir() {
        return Err(input(format!(
            "there is no index in {dir}; name with --dir the one that was made from {db}"
        )));
    }
    let capture = SqliteCapture::new(&options.db, consumer(&options.dir)?, []);
    match capture.forget_consumer().await? {
        true => page.done(format!("{db} logs no changes for {dir} any more; that directory can be deleted")),
        false => page.done(format!("{db} logs no changes for {dir}: there was nothing to remove")),
    }
    Ok(())
}

/// The name of an index in the database's log: each directory is an index of its own.
fn consumer(directory: &Path) -> Result<String, Fault> {
    Ok(format!("quickstart {}", std::path::absolute(directory)?.display()))
}

/// What is wrong with the tables, the key or the SQL is the caller's to mend, with the options that there are.
fn refused(error: SqliteError) -> Failure {
    match error {
        SqliteError::Undeclared { index, table, .. } => input(format!(
            "--table {index}: its --sql reads `{table}` too, whose changes would be missed; add --related \
             {table}:COLUMN with the column of `{table}` that holds the key of `{index}`, or --constant {table} if its \
             changes do not matter"
        )),
        error => input(Fault::from(error).message()),
    }
}

/// SQL that compiles may still be wrong, which shows when it is run: that too is the caller's to mend.
fn found_by_the_sql(failure: Failure) -> Failure {
    let Failure::Fault(fault) = &failure else { return failure };
    let error = fault.source().and_then(|error| error.downcast_ref::<EngineError>());
    match error {
        Some(EngineError::Failed { stage: Stage::Build, fault, .. }) if fault.kind() == FaultKind::Fatal => {
            input(fault.message())
        }
        _ => failure,
    }
}

/// A table and its index, once they have caught up.
struct Table<'a> {
    name: &'a str,
    /// Whether this run has seeded it.
    seeded: bool,
    rows: u64,
    documents: u64,
    /// Rows that are not quarantined and have no document all the same.
    without: u64,
    /// Whether its documents are made by SQL of the user's.
    sql: bool,
}

async fn tables<'a>(
    options: &'a Own,
    setup: &Setup,
    rows_before: &[u64],
    sync: &Sync,
    listener: &mut Listener,
) -> Result<Vec<Table<'a>>, Failure> {
    let quarantined = quarantined(options, setup).await?;
    let rows_now = rows(&file::open(&options.db)?, &options.tables)?;
    let mut tables = Vec::new();
    for (at, table) in options.tables.iter().enumerate() {
        let index = IndexName::new(&table.name).map_err(Fault::from)?;
        let documents = sync.sink.count(&index)?;
        // Other programs write meanwhile; a row that came or went since the start is not held against the index.
        let rows = rows_before[at].min(rows_now[at]);
        let quarantined = quarantined.iter().filter(|quarantined| **quarantined == index).count() as u64;
        tables.push(Table {
            name: &table.name,
            seeded: listener.seeding().contains(&index),
            rows,
            documents,
            without: rows.saturating_sub(documents + quarantined),
            sql: table.sql.is_some(),
        });
    }
    Ok(tables)
}

fn rows(connection: &Connection, tables: &[TableOptions]) -> Result<Vec<u64>, Fault> {
    tables.iter().map(|table| file::rows(connection, &table.name)).collect()
}

/// The index of each document of these tables that stands in quarantine.
async fn quarantined(options: &Own, setup: &Setup) -> Result<Vec<IndexName>, Fault> {
    let indexes = setup.quarantine()?.records().await?.into_iter().map(|record| record.document.id.index);
    Ok(indexes.filter(|index| options.tables.iter().any(|table| table.name == index.as_str())).collect())
}

fn tell_seeding(page: Page, directory: &Path, tables: &[Table<'_>], rate: &str, took: Duration) {
    let (seeded, before): (Vec<&Table<'_>>, Vec<&Table<'_>>) = tables.iter().partition(|table| table.seeded);
    let directory = directory.display();
    let names = |tables: &[&Table<'_>]| {
        let names = tables.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        format!("{names} {}", if tables.len() == 1 { "is" } else { "are" })
    };
    let (filled, empty): (Vec<&Table<'_>>, Vec<&Table<'_>>) =
        seeded.into_iter().partition(|table| table.rows > 0 || table.documents > 0);
    if !filled.is_empty() {
        let documents = filled.iter().map(|table| table.documents).sum();
        let rows = filled.iter().map(|table| table.rows).sum();
        page.done(format!(
            "seeded: {} documents written from {} rows in {}{rate}",
            count(documents),
            count(rows),
            time(took)
        ));
    }
    if !empty.is_empty() {
        page.done(format!(
            "{} empty: there is nothing to seed, and rows that come are followed",
            names(&empty)
        ));
    }
    if before.len() == tables.len() {
        page.done(format!("the index in {directory} was seeded before; it goes on from there"));
    } else if !before.is_empty() {
        page.done(format!("{} seeded already", names(&before)));
    }
    for table in tables.iter().filter(|table| table.without > 0) {
        let why = match table.sql {
            true => "the SQL yields none by their keys",
            false => "their keys hold a NULL",
        };
        let (without, rows, name) = (count(table.without), count(table.rows), table.name);
        page.note(format!("{without} of the {rows} rows of {name} have no document: {why}"));
    }
}

fn search(page: Page, sink: &TantivySink, table: &str, query: &str) -> Result<(), Failure> {
    let index = IndexName::new(table).map_err(Fault::from)?;
    let begun = Instant::now();
    let hits = match sink.search(&index, query, SHOWN) {
        Err(fault) if fault.kind() == FaultKind::Content => return Err(input(fault.message())),
        hits => hits?,
    };
    let took = time(begun.elapsed());
    let documents = count(sink.count(&index)?);
    page.chapter(&format!("{query} in {table} ({documents} documents, {took})"));
    for hit in &hits {
        page.line(format!("  {}  {}", page.bold(&hit.id), shortened(&hit.source, 100)));
    }
    if hits.is_empty() {
        page.note("nothing found");
    }
    Ok(())
}

async fn follow(page: Page, options: &Own, sync: &Sync, listener: &mut Listener) -> Result<(), Fault> {
    page.chapter(&format!("Following {}; Ctrl-C ends it", options.db.display()));
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            interrupted = &mut interrupt => {
                interrupted?;
                // Past the `^C` that the terminal shows.
                page.line("");
                return Ok(());
            }
            () = listener.wait() => listener.tell(page),
            fault = sync.ended() => {
                listener.tell(page);
                return Err(fault);
            }
        }
    }
}
