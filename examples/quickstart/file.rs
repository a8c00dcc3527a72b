//! What is in the user's file, and how documents are made of it.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use syncline::Fault;
use syncline::connectors::sqlite::{IndexDefinition, Related};
use syncline::name::NameError;

use crate::Failure;
use crate::cli::{TableOptions, input};

/// A connection that only reads. Errors: there is no such file, or it is no database.
pub(crate) fn open(path: &Path) -> Result<Connection, Failure> {
    if path.as_os_str().is_empty() {
        return Err(input("--db '': name the database's file"));
    }
    let wrong = |what: &str| Err(input(format!("--db {}: {what}", path.display())));
    if path.as_os_str() == ":memory:" {
        return wrong("a database in memory is its own program's alone; name a file");
    }
    if path.is_dir() {
        return wrong("it is a directory; name the database's file");
    }
    if !path.is_file() {
        return wrong("there is no such file");
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let readable = connection.and_then(|connection| {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    readable.or_else(|error| wrong(&error.to_string()))
}

/// `it has orders, users`.
pub(crate) fn known_tables(connection: &Connection) -> Result<String, Fault> {
    let mut statement = connection.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(match &names[..] {
        [] => "the file has none".into(),
        names => format!("the file has {}", names.join(", ")),
    })
}

/// How many rows a table has.
pub(crate) fn rows(connection: &Connection, table: &str) -> Result<u64, Fault> {
    let sql = format!("SELECT count(*) FROM {}", quoted(table));
    Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

pub(crate) fn definition(connection: &Connection, table: &TableOptions) -> Result<IndexDefinition, Failure> {
    let name = &table.name;
    let named = |error: NameError| input(format!("--table {name}: {error}"));
    is_table(connection, name)?;
    let sql = match &table.sql {
        Some(sql) => sql.clone(),
        None => every_column(connection, name)?,
    };
    // Without a list of fields the index is searched by all of a document's texts at once.
    let mut definition = IndexDefinition::new(name, name, sql).map_err(named)?;
    for (child, columns) in &table.related {
        definition = definition.related(Related::columns(child, columns).map_err(named)?);
    }
    for constant in &table.constants {
        definition = definition.constant(constant).map_err(named)?;
    }
    Ok(definition)
}

/// Errors: the name is not that of a table.
fn is_table(connection: &Connection, name: &str) -> Result<(), Failure> {
    let sql = "SELECT type FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    let kind = connection.query_row(sql, [name], |row| row.get::<_, String>(0)).optional();
    let what = match kind.map_err(Fault::from)?.as_deref() {
        Some("table") => return Ok(()),
        Some("view") => {
            "it is a view; name the table whose rows become documents, and read the view with --sql"
                .to_owned()
        }
        Some(kind) => format!("it is a {kind} table, whose changes cannot be followed"),
        None => format!("there is no such table; {}", known_tables(connection)?),
    };
    Err(input(format!("--table {name}: {what}")))
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
