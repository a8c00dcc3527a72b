//! What an embedder says of an index: its root table, its SQL, and the tables that its documents are made of.

use super::super::fingerprint::Definition;
use crate::name::{ColumnName, IndexName, NameError};
use crate::ports::Field;

/// How the documents of one index are made.
///
/// Each row of the root table is one document, whose id is the row's key: its primary key, or the columns of the index
/// that is the table's replica identity. Tables are named as in SQL: `books`, `shop.books`, `"Odd name"`.
///
/// The SQL is asked for the bodies of a set of keys, all in one query. `$1` is an array of the values of the key's first
/// column, `$2` of its second, and so on, of the columns' own types. It yields the columns of the key, then the body: a
/// `json` or `jsonb`, a text that is a JSON object, or a row, which becomes one by `to_json`; one row for each document
/// there is. A key for which it yields no row is a document that is to be deleted. So a condition in it (`AND
/// b.published`) keeps rows out of the index.
///
/// Every table that it reads, itself or through a view, is declared: as the root, with [`related`](Self::related), or with
/// [`constant`](Self::constant). [`PostgresDocuments::open`](super::PostgresDocuments::open) refuses SQL that reads another.
/// What a function of the database reads it cannot see.
///
/// ```
/// # use syncline::connectors::postgres::{IndexDefinition, Related};
/// # use syncline::ports::{Field, FieldKind};
/// let books = IndexDefinition::new(
///     "books",
///     "books",
///     "SELECT b.id, jsonb_build_object(
///          'title', b.title,
///          'authors', (SELECT jsonb_agg(a.name ORDER BY a.name) FROM books_authors ba
///                      JOIN authors a ON a.id = ba.author_id WHERE ba.book_id = b.id))
///      FROM books b WHERE b.id = ANY($1)",
/// )?
/// .field(Field::new("title", FieldKind::Text))
/// .field(Field::new("authors", FieldKind::Text))
/// .related(Related::columns("books_authors", ["book_id"])?)
/// .related(Related::query(
///     "authors",
///     ["id"],
///     "SELECT author_id, book_id FROM books_authors WHERE author_id = ANY($1)",
/// )?);
///
/// // A key of two columns.
/// let prices = IndexDefinition::new(
///     "prices",
///     "prices",
///     "SELECT country, sku, jsonb_build_object('cents', cents)
///      FROM unnest($1, $2) AS k(country, sku) JOIN prices USING (country, sku)",
/// )?;
/// # Ok::<(), syncline::name::NameError>(())
/// ```
///
/// A document whose SQL fails for its own row (a division by zero, a text that is no number) fails alone, as its index's
/// failure policy says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexDefinition {
    pub(super) index: IndexName,
    pub(super) root: String,
    pub(super) sql: String,
    pub(super) fields: Vec<Field>,
    pub(super) related: Vec<Related>,
    pub(super) constants: Vec<String>,
}

impl IndexDefinition {
    /// The documents of `index`, one for each row of `root`, with the bodies that `sql` yields. Errors: a name that is
    /// empty or too long.
    pub fn new(
        index: impl AsRef<str>,
        root: impl Into<String>,
        sql: impl Into<String>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            index: IndexName::new(index)?,
            root: root.into(),
            sql: sql.into(),
            fields: Vec::new(),
            related: Vec::new(),
            constants: Vec::new(),
        })
    }

    /// Adds a field to the mapping that the sink ensures.
    #[must_use]
    pub fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// Adds a table that the documents are made of besides the root.
    #[must_use]
    pub fn related(mut self, related: Related) -> Self {
        self.related.push(related);
        self
    }

    /// Declares a table that the SQL reads and whose changes do not matter: they rebuild no document, which shows such a
    /// row as it was when the document was last built. Every table that is read must be declared, as the root, as
    /// [`related`](Self::related), or so.
    #[must_use]
    pub fn constant(mut self, table: impl Into<String>) -> Self {
        self.constants.push(table.into());
        self
    }

    /// A fingerprint of all that is said here and of the root's key: the same in every build of the program and on every
    /// machine, and another one when anything is changed. The constant tables are left out: declaring one makes no
    /// document another.
    pub(super) fn fingerprint(&self, key: &[ColumnName]) -> String {
        let related = self.related.iter();
        let related = related.map(|related| (&*related.table, &*related.columns, related.sql.as_deref()));
        Definition {
            kind: "postgres 1",
            index: &self.index,
            root: &self.root,
            sql: &self.sql,
            key,
            fields: &self.fields,
        }
        .fingerprint(related)
    }
}

/// A table that documents are made of besides their root, and how a row of it leads back to them.
///
/// Where the way back goes over several tables, every table on it is a related table too: when a link between an author
/// and a book is removed, it is the link's own change that leads to the book.
///
/// The columns that are named here must be told of old rows too: `ALTER TABLE ... REPLICA IDENTITY FULL` makes it so where
/// they are not part of the table's key. [`PostgresCapture`](super::PostgresCapture) refuses to start where they are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Related {
    pub(super) table: String,
    /// The columns that hold the root's key, or the parameters of the query.
    pub(super) columns: Vec<ColumnName>,
    pub(super) sql: Option<String>,
}

impl Related {
    /// Rows of `table` hold the root's key in these columns, in the order of the root's key. Nothing is queried: the row as
    /// it was and as it is both lead to their documents, so that a child that is deleted or moved to another parent
    /// rebuilds the parent it left. A row with a NULL among them belongs to no document.
    ///
    /// The values must name the key exactly. Where the key ignores case (`citext`, a collation that is not deterministic)
    /// and a reference may be spelled otherwise, use a [`query`](Self::query) that yields the key's own spelling.
    ///
    /// Errors: a column's name that is empty or too long.
    pub fn columns<C: AsRef<str>>(
        table: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Result<Self, NameError> {
        let columns = columns.into_iter().map(ColumnName::new).collect::<Result<_, _>>()?;
        Ok(Self { table: table.into(), columns, sql: None })
    }

    /// Rows of `table` lead to the documents that `sql` yields the keys of. It is run for many rows at once, as they were
    /// and as they are, on the current state of the database: `$1` is an array of the values of the first of these
    /// columns, `$2` of the second, and so on, of the columns' own types. It yields these columns again, to tell which
    /// rows it speaks of, and then the columns of the root's key.
    ///
    /// Errors: a column's name that is empty or too long.
    pub fn query<C: AsRef<str>>(
        table: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
        sql: impl Into<String>,
    ) -> Result<Self, NameError> {
        Ok(Self { sql: Some(sql.into()), ..Self::columns(table, columns)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::FieldKind;

    fn books() -> IndexDefinition {
        IndexDefinition::new("books", "books", "SELECT 1")
            .unwrap()
            .field(Field::new("title", FieldKind::Text))
            .related(Related::columns("reviews", ["book_id"]).unwrap())
    }

    #[test]
    fn b2_the_fingerprint_is_stable_and_sees_every_part() {
        let key = [ColumnName::new("id").unwrap()];
        // Written down once: it must never change, or every index would be seeded again by an upgrade.
        assert_eq!(books().fingerprint(&key), "5081e0d18c656e41");
        let others = [
            IndexDefinition { sql: "SELECT 2".into(), ..books() },
            IndexDefinition { root: "b".into(), ..books() },
            books().field(Field::new("year", FieldKind::Integer)),
            IndexDefinition { fields: vec![Field::new("title", FieldKind::Keyword)], ..books() },
            IndexDefinition { related: vec![], ..books() },
            IndexDefinition { related: vec![Related::columns("reviews", ["id"]).unwrap()], ..books() },
            IndexDefinition { related: vec![Related::query("reviews", ["book_id"], "").unwrap()], ..books() },
        ];
        let mut seen = std::collections::BTreeSet::from([books().fingerprint(&key)]);
        for other in others {
            assert!(seen.insert(other.fingerprint(&key)), "{other:?}");
        }
        assert!(seen.insert(books().fingerprint(&[ColumnName::new("isbn").unwrap()])));
        assert!(!seen.insert(books().constant("countries").fingerprint(&key)));
    }
}
