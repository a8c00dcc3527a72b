//! What an embedder says of an index: its root table, its SQL, and the tables that its documents are made of.

use super::super::fingerprint::Definition;
use crate::name::{ColumnName, IndexName, NameError, TableName};
use crate::ports::Field;

/// How the documents of one index are made.
///
/// Each row of the root table is one document, whose id is the row's primary key. The SQL is asked for the bodies of a
/// set of keys, which stand in the temporary table `syncline_keys`, in its columns `k1`, `k2`, ... in the order of the root
/// table's key. It yields the columns of the key, then the body as the text of a JSON object, in one row for each document
/// there is; a key for which it yields no row is a document that is to be deleted. So a condition in it (`WHERE
/// b.published`) keeps rows out of the index.
///
/// Every table that it reads, itself or through a view, is declared: as the root, with [`related`](Self::related), or with
/// [`constant`](Self::constant). [`SqliteDocuments::open`](super::SqliteDocuments::open) refuses SQL that reads another.
///
/// ```
/// # use syncline::connectors::sqlite::{IndexDefinition, Related};
/// # use syncline::ports::{Field, FieldKind};
/// let books = IndexDefinition::new(
///     "books",
///     "books",
///     "SELECT b.id, json_object(
///          'title', b.title,
///          'authors', json((SELECT json_group_array(a.name ORDER BY a.name) FROM books_authors ba
///                           JOIN authors a ON a.id = ba.author_id WHERE ba.book_id = b.id)))
///      FROM syncline_keys k JOIN books b ON b.id = k.k1",
/// )?
/// .field(Field::new("title", FieldKind::Text))
/// .field(Field::new("authors", FieldKind::Text))
/// .related(Related::columns("books_authors", ["book_id"])?)
/// .related(Related::query("authors", ["id"], "SELECT book_id FROM books_authors WHERE author_id = ?1")?);
/// # Ok::<(), syncline::name::NameError>(())
/// ```
///
/// What comes out of a subquery is text to SQLite, and JSON no more: wrap it in `json(...)`, as above, or the document
/// holds a string. JSON has no place for a BLOB: `json_object('cover', hex(b.cover))`. A document whose SQL fails for its
/// own row (a BLOB given to `json_object`, malformed JSON given to `json`) fails alone, as its index's failure policy
/// says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexDefinition {
    pub(super) index: IndexName,
    pub(super) root: TableName,
    pub(super) sql: String,
    pub(super) fields: Vec<Field>,
    pub(super) related: Vec<Related>,
    pub(super) constants: Vec<TableName>,
}

impl IndexDefinition {
    /// The documents of `index`, one for each row of `root`, with the bodies that `sql` yields. Errors: a name that is
    /// empty or too long.
    pub fn new(
        index: impl AsRef<str>,
        root: impl AsRef<str>,
        sql: impl Into<String>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            index: IndexName::new(index)?,
            root: TableName::new(root)?,
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
    /// [`related`](Self::related), or so. Errors: a name that is empty or too long.
    pub fn constant(mut self, table: impl AsRef<str>) -> Result<Self, NameError> {
        self.constants.push(TableName::new(table)?);
        Ok(self)
    }

    /// The tables whose changes touch its documents: the root first.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        core::iter::once(&self.root).chain(self.related.iter().map(|related| &related.table))
    }

    /// A fingerprint of all that is said here and of the root's key: the same in every build of the program and on every
    /// machine, and another one when anything is changed. The constant tables are left out: declaring one makes no document another.
    pub(super) fn fingerprint(&self, key: &[ColumnName]) -> String {
        let tables: Vec<String> = self.related.iter().map(|related| related.table.to_string()).collect();
        let related = self.related.iter().zip(&tables);
        let related = related.map(|(related, table)| (&**table, &*related.columns, related.sql.as_deref()));
        Definition {
            kind: "1",
            index: &self.index,
            root: &self.root.to_string(),
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Related {
    pub(super) table: TableName,
    /// The columns that hold the root's key, or the parameters of the query.
    pub(super) columns: Vec<ColumnName>,
    pub(super) sql: Option<String>,
}

impl Related {
    /// Rows of `table` hold the root's key in these columns, in the order of the root's key. Nothing is queried: the row as
    /// it was and as it is both lead to their documents, so that a child that is deleted or moved to another parent
    /// rebuilds the parent it left. A row with a NULL among them belongs to no document.
    ///
    /// The values must name the key exactly. Where the key's column ignores case (`COLLATE NOCASE`) and a reference may be
    /// spelled otherwise, use a [`query`](Self::query) that yields the key's own spelling.
    ///
    /// Errors: a name that is empty or too long.
    pub fn columns<C: AsRef<str>>(
        table: impl AsRef<str>,
        columns: impl IntoIterator<Item = C>,
    ) -> Result<Self, NameError> {
        let columns = columns.into_iter().map(ColumnName::new).collect::<Result<_, _>>()?;
        Ok(Self { table: TableName::new(table)?, columns, sql: None })
    }

    /// Rows of `table` lead to the documents that `sql` yields the keys of, given these columns of the row as `?1`, `?2`,
    /// ... . It is run for the row as it was and for the row as it is, on the current state of the database.
    ///
    /// Errors: a name that is empty or too long.
    pub fn query<C: AsRef<str>>(
        table: impl AsRef<str>,
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
        assert_eq!(books().fingerprint(&key), "fd841ca8ecb2a519");
        let others = [
            IndexDefinition { sql: "SELECT 2".into(), ..books() },
            IndexDefinition { root: TableName::new("b").unwrap(), ..books() },
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
        assert!(!seen.insert(books().constant("countries").unwrap().fingerprint(&key)));
    }
}
