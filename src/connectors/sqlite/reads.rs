//! Which tables of the database some SQL reads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::database::Database;
use super::definition::IndexDefinition;
use super::error::SqliteError;
use crate::name::TableName;

/// Refuses a definition that reads, in its SQL or in the query of a related table, a table that it says nothing of: no
/// change to that table would rebuild a document, and the index would go stale without a word.
pub(super) fn are_declared(
    database: &Database,
    connection: &mut Connection,
    definition: &IndexDefinition,
) -> Result<(), SqliteError> {
    let declared: Vec<&TableName> = definition.tables().chain(&definition.constants).collect();
    let queries =
        definition.related.iter().filter_map(|related| Some((Some(related), related.sql.as_ref()?)));
    for (related, sql) in std::iter::once((None, &definition.sql)).chain(queries) {
        let read = tables(connection, sql)
            .map_err(database.failed(format!("finding what index `{}` reads", definition.index)))?;
        let undeclared = read
            .into_iter()
            .find(|table| !declared.iter().any(|name| name.table().eq_ignore_ascii_case(table)));
        if let Some(table) = undeclared {
            return Err(SqliteError::Undeclared {
                path: database.path.clone(),
                index: definition.index.clone(),
                query_of: related.map(|related| related.table.clone()),
                table,
            });
        }
    }
    Ok(())
}

/// The tables that a statement reads, in the spelling of the database. SQLite tells its authorizer of every table and
/// view that it meets while it compiles the statement, before it leaves anything out: a view is followed by the tables
/// behind it, and what is no table of the file (a common table expression, a table-valued function, the keys) is passed
/// over.
///
/// A statement that counts the rows of a common table expression, and names none of its columns, is told of by the
/// expression's name alone: where a table has that name too, it is taken for the table.
fn tables(connection: &mut Connection, sql: &str) -> rusqlite::Result<BTreeSet<String>> {
    // Compiled once before, so that virtual tables have read their own tables by then, which are not the statement's.
    connection.prepare(sql)?;
    let named = Arc::new(Mutex::new(BTreeSet::new()));
    let told = Arc::clone(&named);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if let (AuthAction::Read { table_name, .. }, None | Some("main")) =
            (context.action, context.database_name)
        {
            told.lock().unwrap_or_else(PoisonError::into_inner).insert(table_name.to_owned());
        }
        Authorization::Allow
    }))?;
    let compiled = connection.prepare(sql).map(drop);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    compiled?;
    let named = std::mem::take(&mut *named.lock().unwrap_or_else(PoisonError::into_inner));
    let mut known = connection
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?;
    let mut tables = BTreeSet::new();
    for name in named {
        for table in known.query_map([name], |row| row.get(0))? {
            tables.insert(table?);
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Vec<String> {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT, author_id INT, tags TEXT);
                 CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE reviews(id INTEGER PRIMARY KEY, book_id INT);
                 CREATE TABLE ids(id INTEGER PRIMARY KEY);
                 CREATE INDEX reviews_of_book ON reviews(book_id);
                 CREATE VIEW named AS SELECT b.id, a.name FROM books b LEFT JOIN authors a ON a.id = b.author_id;
                 CREATE VIEW twice AS SELECT id FROM named;
                 CREATE VIRTUAL TABLE found USING fts5(title);
                 CREATE TEMP TABLE syncline_keys(k1, k2)",
            )
            .unwrap();
        tables(&mut connection, sql).unwrap().into_iter().collect()
    }

    #[test]
    fn every_table_is_found_wherever_it_stands() {
        for (sql, expected) in [
            ("SELECT k1, '{}' FROM syncline_keys", &[][..]),
            ("SELECT count(*) FROM temp.syncline_keys", &[]),
            ("SELECT b.title FROM syncline_keys k JOIN books b ON b.id = k.k1", &["Books"]),
            ("SELECT count(*) FROM bOOks", &["Books"]),
            ("SELECT rowid FROM main.books", &["Books"]),
            (
                "SELECT k1, EXISTS (SELECT 1 FROM reviews r WHERE r.book_id = k1) FROM syncline_keys",
                &["reviews"],
            ),
            ("SELECT k1 IN ids FROM syncline_keys", &["ids"]),
            ("SELECT books.* FROM books, reviews", &["Books", "reviews"]),
            // Both would be left out of the plan as it is today.
            ("SELECT b.id FROM books b LEFT JOIN authors a ON a.id = b.author_id", &["Books", "authors"]),
            ("SELECT (SELECT count(*) FROM named)", &["Books", "authors"]),
            ("SELECT id FROM twice", &["Books", "authors"]),
            ("SELECT count(*) FROM twice", &["Books", "authors"]),
            ("SELECT id FROM books UNION SELECT id FROM authors", &["Books", "authors"]),
            ("SELECT max(r.id) OVER (PARTITION BY book_id) FROM reviews r", &["reviews"]),
            // Names that are not those of tables.
            ("WITH authors AS (SELECT id FROM books) SELECT id FROM authors", &["Books"]),
            ("WITH c AS MATERIALIZED (SELECT id FROM reviews) SELECT count(*) FROM c", &["reviews"]),
            (
                "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT x FROM n LIMIT 3",
                &[],
            ),
            ("SELECT j.value FROM books b, json_each(b.tags) j", &["Books"]),
            ("SELECT name FROM pragma_table_info('reviews')", &[]),
            ("SELECT title FROM found WHERE found MATCH 'a'", &["found"]),
        ] {
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_a_virtual_table_reads_for_itself_is_not_the_statements() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.db");
        let sql = "CREATE VIRTUAL TABLE found USING fts5(title)";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        let read = tables(&mut connection, "SELECT title FROM found").unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), ["found"]);
    }

    #[test]
    fn the_authorizer_is_taken_off_again() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(tables(&mut connection, "SELEC 1").is_err());
        connection.execute_batch("CREATE TABLE t(x); SELECT x FROM t; DROP TABLE t").unwrap();
    }
}
