//! What the program can be asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Failure;
use crate::crash::Moment;

pub(crate) const HELP: &str = "\
Syncline's quickstart: a database and a search index that stays equal to it.

A tour, with a generated bookshop:
  cargo run --release --example quickstart
      --rows N          rows to generate (default 100000, at least 1000)
      --dir DIR         where the files go, and stay (default: a temporary directory)
      --keep            keep the temporary directory

Your own SQLite file:
  cargo run --release --example quickstart -- --db shop.db --table users --search ada
      --db PATH         the file
      --table TABLE     index this table: a document for each row, by the table's PRIMARY KEY; may be repeated
      --sql SQL         how the documents of the table before it are made; the default takes every column:
                        SELECT t.id, json_object('name', t.name) FROM syncline_keys k JOIN users t ON t.id = k.k1
                        (the key's columns, then a JSON object; the keys that are wanted stand in k1, k2, ...)
      --related T:C     the SQL also reads table T, whose column C holds the key of the table before; may be
                        repeated (T:C1,C2 for a key of two columns)
      --constant T      the SQL also reads table T, whose changes do not matter; may be repeated
      --search QUERY    what to search for once the index is seeded (default: everything)
      --once            end then, instead of following the changes until Ctrl-C
      --dir DIR         where the index is (default: PATH.search); the next run goes on where this one ended;
                        one that names a table that this one did not, or other SQL, seeds anew
      --remove          with --db and --dir: remove from the file what earlier runs have installed

  Your rows are only read. Added to the file are the tables and triggers `syncline_*`, which log its changes, also
  while this program does not run; --remove takes them out again.

  -h, --help            this text

Exit codes: 0 all is well; 1 something failed or differs, or documents are quarantined; 2 what was asked for cannot be
done, as with SQL that does not fit.";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Tour(Tour),
    Own(Own),
    Remove(Own),
    /// The part of the tour that is killed; it is started by the tour alone.
    Worker(Worker),
}

#[derive(Debug)]
pub(crate) struct Tour {
    pub(crate) rows: u64,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) keep: bool,
}

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) db: PathBuf,
    pub(crate) tables: Vec<TableOptions>,
    pub(crate) search: String,
    pub(crate) once: bool,
    pub(crate) dir: PathBuf,
}

#[derive(Debug)]
pub(crate) struct TableOptions {
    pub(crate) name: String,
    pub(crate) sql: Option<String>,
    /// Tables, each with the columns that hold the root's key.
    pub(crate) related: Vec<(String, Vec<String>)>,
    /// Tables that the SQL reads and that are not followed.
    pub(crate) constants: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) dir: PathBuf,
    pub(crate) moment: Moment,
}

/// Every option as it was given; what does not go together is found afterwards.
#[derive(Debug, Default)]
struct Given {
    rows: Option<u64>,
    dir: Option<PathBuf>,
    keep: bool,
    db: Option<PathBuf>,
    tables: Vec<TableOptions>,
    search: Option<String>,
    once: bool,
    remove: bool,
    worker: Option<Moment>,
}

pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    let wrong = |error: lexopt::Error| input(format!("{error}; --help lists the options"));
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut given = Given::default();
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("rows") => given.rows = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?),
            Long("dir") => given.dir = Some(parser.value().map_err(wrong)?.into()),
            Long("keep") => given.keep = true,
            Long("db") => given.db = Some(parser.value().map_err(wrong)?.into()),
            Long("table") => {
                let name = text(&mut parser).map_err(wrong)?;
                given.tables.push(TableOptions {
                    name,
                    sql: None,
                    related: Vec::new(),
                    constants: Vec::new(),
                });
            }
            Long("sql") => table_of("--sql", &mut given)?.sql = Some(text(&mut parser).map_err(wrong)?),
            Long("related") => {
                let related = related(&text(&mut parser).map_err(wrong)?)?;
                table_of("--related", &mut given)?.related.push(related);
            }
            Long("constant") => {
                let constant = text(&mut parser).map_err(wrong)?;
                table_of("--constant", &mut given)?.constants.push(constant);
            }
            Long("search") => given.search = Some(text(&mut parser).map_err(wrong)?),
            Long("once") => given.once = true,
            Long("remove") => given.remove = true,
            Long("worker") => {
                given.worker = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?);
            }
            _ => return Err(wrong(argument.unexpected())),
        }
    }
    given.command()
}

impl Given {
    fn command(self) -> Result<Command, Failure> {
        let Self { rows, dir, keep, db, tables, search, once, remove, worker } = self;
        if let (Some(moment), Some(dir)) = (worker, &dir) {
            return Ok(Command::Worker(Worker { dir: dir.clone(), moment }));
        }
        if let Some(db) = db {
            if rows.is_some() || keep {
                return Err(input("--rows and --keep belong to the tour; with --db nothing is generated"));
            }
            for (at, table) in tables.iter().enumerate() {
                if tables[..at].iter().any(|before| before.name == table.name) {
                    return Err(input(format!("--table {} is given twice", table.name)));
                }
            }
            let dir = dir.unwrap_or_else(|| {
                let mut beside = db.clone().into_os_string();
                beside.push(".search");
                beside.into()
            });
            let own = Own { db, tables, search: search.unwrap_or_else(|| "*".into()), once, dir };
            return Ok(if remove { Command::Remove(own) } else { Command::Own(own) });
        }
        if !tables.is_empty() || search.is_some() || once || remove {
            return Err(input("--table, --search, --once and --remove need --db PATH"));
        }
        match rows.unwrap_or(100_000) {
            rows if rows < 1_000 => Err(input(format!("--rows {rows} is too few: at least 1000"))),
            rows => Ok(Command::Tour(Tour { rows, dir, keep })),
        }
    }
}

pub(crate) fn input(message: impl Into<String>) -> Failure {
    Failure::Input(message.into())
}

fn text(parser: &mut lexopt::Parser) -> Result<String, lexopt::Error> {
    parser.value()?.string()
}

/// The table that an option speaks of: the one before it.
fn table_of<'a>(option: &str, given: &'a mut Given) -> Result<&'a mut TableOptions, Failure> {
    given.tables.last_mut().ok_or_else(|| input(format!("{option} belongs after the --table it speaks of")))
}

/// `reviews:book_id`.
fn related(given: &str) -> Result<(String, Vec<String>), Failure> {
    match given.split_once(':') {
        Some((table, columns)) if !table.is_empty() && !columns.is_empty() => {
            Ok((table.to_owned(), columns.split(',').map(|column| column.trim().to_owned()).collect()))
        }
        _ => Err(input(format!("--related {given}: write TABLE:COLUMN, as in reviews:book_id"))),
    }
}
