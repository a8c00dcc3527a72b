//! Rows with their history, and the documents that they make.
//!
//! Every read names the position that its snapshot shows. What a document should be at a position is defined here, once,
//! for the builder and for the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::ops::Bound;
use std::sync::Arc;

use syncline::{DocumentId, Key, Value};

use crate::plan::{Poison, Schema};

/// A document: the number of its index, and the key of its root row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Doc {
    pub(crate) index: usize,
    pub(crate) key: Vec<i64>,
}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.index)?;
        for (at, part) in self.key.iter().enumerate() {
            write!(f, "{}{part}", if at > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

/// What a document holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// How its index was defined when it was built.
    pub(crate) definition: u32,
    pub(crate) text: Arc<str>,
    /// What it counts against the limits.
    pub(crate) bytes: usize,
    pub(crate) poison: Poison,
}

/// A row without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    /// In the order of the table's refs.
    pub(crate) refs: Vec<i64>,
    pub(crate) value: u64,
    pub(crate) bytes: usize,
    pub(crate) poison: Poison,
}

/// Roots to be looked up, because they refer to a row that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    /// Roots of an index whose ref has this value.
    Referring { index: usize, by: usize, value: i64 },
    /// All roots of an index.
    All { index: usize },
}

/// One side of a change: the key, and the refs as far as they are known.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) key: Vec<i64>,
    pub(crate) refs: Vec<Option<i64>>,
}

struct Table {
    name: String,
    /// The table referred to, and the part of the key that the ref is, where it is one.
    refs: Vec<(usize, Option<usize>)>,
}

struct Index {
    root: usize,
    /// Each with the place of its ref to the root.
    children: Vec<(usize, usize)>,
    /// Each with the place of the root's ref to it.
    parents: Vec<(usize, usize)>,
    everywhere: Option<usize>,
}

/// The schema by numbers.
pub(crate) struct Shape {
    tables: Vec<Table>,
    indexes: Vec<Index>,
}

impl Shape {
    /// Errors: a name that the schema does not explain.
    pub(crate) fn new(schema: &Schema) -> Result<Self, String> {
        let number = |name: &str| {
            let found = schema.tables.iter().position(|table| table.name == name);
            found.ok_or_else(|| format!("the schema has no table `{name}`"))
        };
        let mut tables = Vec::new();
        for table in &schema.tables {
            let refs = table.refs.iter().map(|by| Ok((number(&by.table)?, by.key_column)));
            let refs = refs.collect::<Result<Vec<_>, String>>()?;
            tables.push(Table { name: table.name.clone(), refs });
        }
        let mut indexes = Vec::new();
        for index in &schema.indexes {
            let root = number(&index.root)?;
            let place = |from: usize, to: usize| {
                let found = tables[from].refs.iter().position(|(table, _)| *table == to);
                found
                    .ok_or_else(|| format!("`{}` does not refer to `{}`", tables[from].name, tables[to].name))
            };
            let children = index.children.iter().map(|name| {
                let child = number(name)?;
                Ok((child, place(child, root)?))
            });
            let children = children.collect::<Result<_, String>>()?;
            let parents = index.parents.iter().map(|name| {
                let parent = number(name)?;
                Ok((parent, place(root, parent)?))
            });
            let parents = parents.collect::<Result<_, String>>()?;
            let everywhere = index.everywhere.as_deref().map(number).transpose()?;
            indexes.push(Index { root, children, parents, everywhere });
        }
        Ok(Self { tables, indexes })
    }

    pub(crate) fn table(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.name == name)
    }

    pub(crate) fn table_name(&self, table: usize) -> &str {
        &self.tables[table].name
    }

    pub(crate) fn tables(&self) -> usize {
        self.tables.len()
    }

    pub(crate) fn indexes(&self) -> usize {
        self.indexes.len()
    }

    pub(crate) fn root(&self, index: usize) -> usize {
        self.indexes[index].root
    }

    /// The tables besides its root that the documents of an index are made of.
    pub(crate) fn related(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let index = &self.indexes[index];
        let joined = index.children.iter().chain(&index.parents).map(|(table, _)| *table);
        joined.chain(index.everywhere)
    }

    pub(crate) fn refs(&self, table: usize) -> &[(usize, Option<usize>)] {
        &self.tables[table].refs
    }

    /// The refs of a row: those of its own columns, and those that its key holds.
    pub(crate) fn all_refs(&self, table: usize, key: &[i64], own: &[i64]) -> Vec<i64> {
        let mut own = own.iter().copied();
        let refs = self.tables[table].refs.iter();
        refs.map(|(_, part)| match part {
            Some(part) => key.get(*part).copied().unwrap_or_default(),
            None => own.next().unwrap_or_default(),
        })
        .collect()
    }

    /// Whether finding the documents that a change of this table touches takes the row as it was before.
    pub(crate) fn needs_before(&self, table: usize) -> bool {
        let own = |by: usize| self.tables[table].refs[by].1.is_none();
        self.indexes.iter().any(|index| index.children.iter().any(|(child, by)| *child == table && own(*by)))
    }

    /// The documents that a change touches, as far as its images tell, and what is to be looked up for the rest.
    pub(crate) fn touched(&self, table: usize, images: &[Image]) -> (BTreeSet<Doc>, BTreeSet<Lookup>) {
        let (mut docs, mut lookups) = (BTreeSet::new(), BTreeSet::new());
        for (number, index) in self.indexes.iter().enumerate() {
            for image in images {
                if index.root == table {
                    docs.insert(Doc { index: number, key: image.key.clone() });
                }
                for (_, by) in index.children.iter().filter(|(child, _)| *child == table) {
                    docs.extend(image.refs[*by].map(|value| Doc { index: number, key: vec![value] }));
                }
                for (_, by) in index.parents.iter().filter(|(parent, _)| *parent == table) {
                    lookups.insert(Lookup::Referring { index: number, by: *by, value: image.key[0] });
                }
            }
            if index.everywhere == Some(table) {
                lookups.insert(Lookup::All { index: number });
            }
        }
        (docs, lookups)
    }
}

/// What a row was from each of these positions on; `None` where it was gone.
type Versions = Vec<(u64, Option<Columns>)>;

/// The rows of all tables, as they were at every position.
pub(crate) struct Tables {
    rows: Vec<BTreeMap<Vec<i64>, Versions>>,
}

impl Tables {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self { rows: vec![BTreeMap::new(); shape.tables()] }
    }

    /// A row becomes this at a position, which is not less than any before.
    pub(crate) fn set(&mut self, table: usize, key: Vec<i64>, at: u64, columns: Option<Columns>) {
        let versions = self.rows[table].entry(key).or_default();
        match versions.last_mut() {
            Some(last) if last.0 == at => last.1 = columns,
            _ => versions.push((at, columns)),
        }
    }

    pub(crate) fn get(&self, table: usize, key: &[i64], at: u64) -> Option<&Columns> {
        let versions = self.rows[table].get(key)?;
        let seen = versions.partition_point(|(position, _)| *position <= at);
        versions[..seen].last()?.1.as_ref()
    }

    /// The rows after a key, in order.
    pub(crate) fn scan<'a>(
        &'a self,
        table: usize,
        after: Option<&'a [i64]>,
        at: u64,
    ) -> impl Iterator<Item = (&'a Vec<i64>, &'a Columns)> + 'a {
        let from: Bound<&[i64]> = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows[table].range::<[i64], _>((from, Bound::Unbounded));
        rows.filter_map(move |(key, _)| Some((key, self.get(table, key, at)?)))
    }

    pub(crate) fn look_up(&self, shape: &Shape, lookup: &Lookup, at: u64) -> Vec<Doc> {
        let (index, wanted) = match lookup {
            Lookup::Referring { index, by, value } => (*index, Some((*by, *value))),
            Lookup::All { index } => (*index, None),
        };
        let roots = self.scan(shape.root(index), None, at);
        roots
            .filter(|(_, columns)| wanted.is_none_or(|(by, value)| columns.refs[by] == value))
            .map(|(key, _)| Doc { index, key: key.clone() })
            .collect()
    }

    /// What a document is at a position; nothing where its root row is not there.
    pub(crate) fn document(&self, shape: &Shape, doc: &Doc, at: u64) -> Option<Body> {
        let index = &shape.indexes[doc.index];
        let root = self.get(index.root, &doc.key, at)?;
        let mut text = format!("{}", root.value);
        let mut bytes = root.bytes;
        let mut part = |text: &mut String, sign: char, key: &[i64], columns: &Columns| {
            let _ = write!(text, " {sign}{key:?}={}", columns.value);
            bytes += columns.bytes;
        };
        for (parent, by) in &index.parents {
            let value = root.refs[*by];
            for (key, columns) in self.scan(*parent, Some(&[value - 1, i64::MAX]), at) {
                if key[0] != value {
                    break;
                }
                part(&mut text, '^', key, columns);
            }
        }
        for (child, by) in &index.children {
            for (key, columns) in self.scan(*child, None, at) {
                if columns.refs[*by] == doc.key[0] {
                    part(&mut text, 'v', key, columns);
                }
            }
        }
        for (key, columns) in index.everywhere.into_iter().flat_map(|table| self.scan(table, None, at)) {
            part(&mut text, '*', key, columns);
        }
        let bytes = bytes + text.len();
        Some(Body { definition: 0, text: text.into(), bytes, poison: root.poison })
    }

    /// Every document there is at a position.
    pub(crate) fn documents(&self, shape: &Shape, at: u64) -> BTreeMap<Doc, Body> {
        let mut all = BTreeMap::new();
        for index in 0..shape.indexes() {
            for doc in self.look_up(shape, &Lookup::All { index }, at) {
                if let Some(body) = self.document(shape, &doc, at) {
                    all.insert(doc, body);
                }
            }
        }
        all
    }
}

/// A key as the engine knows it.
pub(crate) fn to_key(parts: &[i64]) -> Key {
    Key::new(parts.iter().map(|part| Value::Int(*part))).expect("every table has a key of a column at least")
}

/// A key of the engine's as the world knows it.
pub(crate) fn from_key(key: &Key) -> Vec<i64> {
    let parts = key.values().iter().map(|value| match value {
        Value::Int(value) => *value,
        _ => unreachable!("all keys of the world are integers"),
    });
    parts.collect()
}

/// The document of an engine's id, by the names of the indexes.
pub(crate) fn doc_of(id: &DocumentId, indexes: &[syncline::IndexName]) -> Doc {
    let index = indexes.iter().position(|name| *name == id.index);
    Doc {
        index: index.expect("the engine writes to the indexes of the schema alone"),
        key: from_key(&id.key),
    }
}
