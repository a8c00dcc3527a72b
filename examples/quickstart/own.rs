//! A database of the user's own: seed, search, and follow.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use syncline::connectors::sqlite::{IndexDefinition, Related, SqliteCapture};
use syncline::connectors::tantivy::TantivySink;
use syncline::error::{RejectedDocument, Stage};
use syncline::{BatchStats, Fault, IndexName, Lane, Observer};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use crate::Failure;
use crate::cli::{Own, TableOptions, input};
use crate::page::{Page, count, rate, shortened, time};
use crate::sync::{Setup, Sync};

/// How many hits are shown.
const SHOWN: usize = 5;

pub(crate) async fn run(page: Page, options: Own) -> Result<(), Failure> {
    let connection = open(&options.db)?;
    let definitions: Vec<_> =
        options.tables.iter().map(|table| definition(&connection, table)).collect::<Result<_, _>>()?;
    let mut total = 0;
    for table in &options.tables {
        total += rows(&connection, &table.name)?;
    }
    drop(connection);
    let setup = Setup {
        database: options.db.clone(),
        index: options.dir.clone(),
        definitions,
        consumer: consumer(&options.dir)?,
        own: true,
    };
    // What is wrong with the tables, the key or the SQL is the caller's to mend.
    setup.documents().map_err(|fault| input(fault.message()))?;

    let (told, mut news) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let sync = setup.start(Teller(told))?;
    let read: u64 = sync.seeded(page, total).await?.indexes.iter().map(|index| index.rows_read).sum();
    if read == 0 {
        page.done(format!("the index in {} was seeded before; it goes on from there", options.dir.display()));
    } else {
        let (rows, took) = (count(read), begun.elapsed());
        page.done(format!("seeded from {rows} rows in {}{}", time(took), rate(read, "rows", took)));
    }
    sync.caught_up().await?;
    while let Ok(news) = news.try_recv() {
        tell(page, news);
    }
    for table in &options.tables {
        search(page, &sync.sink, &table.name, &options.search)?;
    }
    if !options.once {
        follow(page, &options, &sync, &mut news).await?;
    }
    let report = sync.drain().await?;
    while let Ok(news) = news.try_recv() {
        tell(page, news);
    }
    page.done(format!("drained; {} changes left for the next run", count(report.unacknowledged)));
    let (db, dir) = (options.db.display(), options.dir.display());
    page.note(format!(
        "the file goes on logging its changes for that run; --db {db} --dir {dir} --remove ends it"
    ));
    Ok(())
}

/// Takes out of the file what earlier runs have installed for this index.
pub(crate) async fn remove(page: Page, options: &Own) -> Result<(), Failure> {
    drop(open(&options.db)?);
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

/// A connection that only reads. Errors: the file is missing, or is no database.
fn open(path: &Path) -> Result<Connection, Failure> {
    let wrong = |what: String| input(format!("--db {}: {what}", path.display()));
    if !path.is_file() {
        return Err(wrong("there is no such file".into()));
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let readable = connection.and_then(|connection| {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    readable.map_err(|error| wrong(error.to_string()))
}

/// The name of an index in the database's log: each directory is an index of its own.
fn consumer(directory: &Path) -> Result<String, Fault> {
    Ok(format!("quickstart {}", std::path::absolute(directory)?.display()))
}

/// Whether the table is there, and how many rows it has.
fn rows(connection: &Connection, table: &str) -> Result<u64, Failure> {
    let sql = format!("SELECT count(*) FROM {}", quoted(table));
    let counted = connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
    counted.map(i64::unsigned_abs).map_err(|error| Failure::from(Fault::from(error)))
}

fn definition(connection: &Connection, table: &TableOptions) -> Result<IndexDefinition, Failure> {
    let name = &table.name;
    let named = |error: syncline::name::NameError| input(format!("--table {name}: {error}"));
    let known = tables(connection)?;
    if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        let known =
            if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
        return Err(input(format!("--table {name}: there is no such table in the database; {known}")));
    }
    let sql = match &table.sql {
        Some(sql) => sql.clone(),
        None => every_column(connection, name)?,
    };
    // Without a list of fields the index is searched by all of a document's texts at once.
    let mut definition = IndexDefinition::new(name, name, sql).map_err(named)?;
    for (child, columns) in &table.related {
        definition = definition.related(Related::columns(child, columns).map_err(named)?);
    }
    Ok(definition)
}

fn tables(connection: &Connection) -> Result<Vec<String>, Fault> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

/// A body of all columns of a table. JSON has no place for a BLOB, which becomes its hexadecimal digits.
fn every_column(connection: &Connection, table: &str) -> Result<String, Fault> {
    let mut statement =
        connection.prepare("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid")?;
    let columns: Vec<(String, usize)> = statement
        .query_map([table], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?
        .collect::<Result<_, _>>()?;
    let mut key: Vec<(usize, String)> = Vec::new();
    let mut body = Vec::new();
    for (name, place) in columns {
        let column = format!("t.{}", quoted(&name));
        let literal = name.replace('\'', "''");
        body.push(format!("'{literal}', iif(typeof({column}) = 'blob', hex({column}), {column})"));
        if place > 0 {
            key.push((place, column));
        }
    }
    key.sort();
    let mut sql = "SELECT ".to_owned();
    for (_, column) in &key {
        let _ = write!(sql, "{column}, ");
    }
    let _ =
        write!(sql, "json_object({}) FROM syncline_keys k JOIN {} t ON true", body.join(", "), quoted(table));
    for (place, column) in &key {
        let _ = write!(sql, " AND {column} = k.k{place}");
    }
    Ok(sql)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn search(page: Page, sink: &TantivySink, table: &str, query: &str) -> Result<(), Failure> {
    let index = IndexName::new(table).map_err(Fault::from)?;
    let begun = Instant::now();
    let hits = match sink.search(&index, query, SHOWN) {
        Err(fault) if fault.kind() == syncline::FaultKind::Content => return Err(input(fault.message())),
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

/// What the engine has to say while it is followed.
#[derive(Debug)]
enum News {
    Batch(BatchStats),
    Skipped(String),
    Retry(String),
}

/// Passes on what happens: an observer is called from the engine's own task, and must not wait for a terminal.
#[derive(Debug)]
struct Teller(mpsc::UnboundedSender<News>);

impl Observer for Teller {
    fn on_batch_committed(&self, stats: &BatchStats) {
        if stats.lane == Lane::Live {
            // Nobody listens any more only when the program ends.
            let _ = self.0.send(News::Batch(stats.clone()));
        }
    }

    fn on_document_quarantined(&self, document: &RejectedDocument, _attempts: u32) {
        let _ = self.0.send(News::Skipped(document.to_string()));
    }

    fn on_retry(&self, stage: Stage, attempt: u32, delay: Duration, fault: &Fault) {
        let _ = self
            .0
            .send(News::Retry(format!("{stage} failed (attempt {attempt}), again in {delay:?}: {fault}")));
    }
}

async fn follow(
    page: Page,
    options: &Own,
    sync: &Sync,
    news: &mut mpsc::UnboundedReceiver<News>,
) -> Result<(), Fault> {
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
            Some(news) = news.recv() => tell(page, news),
            fault = sync.ended() => return Err(fault),
        }
    }
}

fn tell(page: Page, news: News) {
    match news {
        News::Batch(stats) if stats.documents == 0 => {}
        News::Batch(stats) => {
            let documents: Vec<String> = stats
                .documents_by_index
                .iter()
                .map(|(index, documents)| format!("{} in {index}", count(*documents as u64)))
                .collect();
            // Quarantined documents are retried without a change.
            let cause = match stats.changes {
                0 => "retried".to_owned(),
                1 => "1 change".to_owned(),
                many => format!("{} changes", count(many as u64)),
            };
            page.done(format!("{cause}; documents: {}; {}", documents.join(", "), time(stats.flush)));
        }
        News::Skipped(document) => {
            page.failed(format!("quarantined, and retried at the next start: {document}"))
        }
        News::Retry(what) => page.note(what),
    }
}
