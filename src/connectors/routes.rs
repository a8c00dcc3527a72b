//! From the rows of a database to the documents of the indexes over it: what is the same for every database whose documents
//! are made by the embedder's SQL.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use rustc_hash::FxBuildHasher;

use crate::change::Change;
use crate::document::{Document, DocumentId};
use crate::error::Fault;
use crate::name::{ColumnName, IndexName, TableName};
use crate::ports::{Built, FailedDocument, IndexMapping, IndexScope, Resolved, SnapshotTable, TableNeeds};
use crate::row::{Key, Row};
use crate::value::Value;

/// What is to be known of an index, whatever its database.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: IndexName,
    /// Each of its rows is a document.
    pub(super) root: TableName,
    pub(super) key: Vec<ColumnName>,
    pub(super) fingerprint: String,
    pub(super) mapping: IndexMapping,
}

/// An index whose definition was checked against its database.
pub(super) trait Indexed {
    fn described(&self) -> &Described;

    /// These values as the key's columns hold them.
    fn held(&self, values: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Value>;

    /// The document of these values, as the key's columns hold them; none where one of them is NULL.
    fn document(&self, values: impl IntoIterator<Item = Value>) -> Option<DocumentId> {
        let described = self.described();
        let key = Key::new(self.held(values)).ok()?;
        let is_complete = key.values().len() == described.key.len() && !key.values().contains(&Value::Null);
        is_complete.then(|| DocumentId::new(described.name.clone(), key))
    }
}

/// How a row of a table leads to the documents of an index.
#[derive(Debug)]
pub(super) struct Route<Q> {
    /// The index, by its place.
    pub(super) index: usize,
    /// The columns that hold the root's key, or the parameters of the query.
    pub(super) columns: Vec<ColumnName>,
    pub(super) query: Option<Q>,
}

/// The indexes of a builder, and where the changes of each table lead to.
#[derive(Debug)]
pub(super) struct Routes<I, Q> {
    indexes: Vec<I>,
    by_table: BTreeMap<TableName, Vec<Route<Q>>>,
}

/// The rows that one route's query is to be asked about, by the route's place, each with the changes it comes from.
pub(super) type Lookups = BTreeMap<(TableName, usize), BTreeMap<Vec<Value>, Vec<usize>>>;

/// The documents that each of some changes touches, as far as its images tell, and what is still to be asked.
pub(super) struct Touched {
    changes: usize,
    /// Each with the place of its change: in one list, because most changes touch one document.
    ids: Vec<(usize, DocumentId)>,
    pub(super) lookups: Lookups,
}

impl<I, Q> Default for Routes<I, Q> {
    fn default() -> Self {
        Self { indexes: Vec::new(), by_table: BTreeMap::new() }
    }
}

impl<I: Indexed, Q> Routes<I, Q> {
    /// Where the next index stands.
    pub(super) fn next_place(&self) -> usize {
        self.indexes.len()
    }

    /// Whether there is an index of this name already.
    pub(super) fn holds(&self, name: &IndexName) -> bool {
        self.place(name).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Adds an index, with the ways that lead to it from related tables.
    pub(super) fn push(&mut self, index: I, related: impl IntoIterator<Item = (TableName, Route<Q>)>) {
        let Described { root, key, .. } = index.described();
        let own = (root.clone(), Route { index: self.indexes.len(), columns: key.clone(), query: None });
        for (table, route) in std::iter::once(own).chain(related) {
            self.by_table.entry(table).or_default().push(route);
        }
        self.indexes.push(index);
    }

    fn place(&self, name: &IndexName) -> Option<usize> {
        self.indexes.iter().position(|index| index.described().name == *name)
    }

    /// The route that a lookup is about, and its index.
    pub(super) fn route(&self, table: &TableName, place: usize) -> Option<(&I, &Route<Q>)> {
        let route = self.by_table.get(table)?.get(place)?;
        Some((self.indexes.get(route.index)?, route))
    }

    /// Every table whose changes touch a document.
    pub(super) fn tables(&self) -> impl Iterator<Item = TableName> + use<I, Q> {
        self.by_table.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Follows the routes of these changes. Errors: what is missing of a change.
    pub(super) fn follow(&self, changes: &[Change]) -> Result<Touched, String> {
        let ids = Vec::with_capacity(changes.len());
        let mut touched = Touched { changes: changes.len(), ids, lookups: Lookups::new() };
        for (at, change) in changes.iter().enumerate() {
            for (place, route) in self.by_table.get(&change.table).into_iter().flatten().enumerate() {
                let index = &self.indexes[route.index];
                let Described { root, key, .. } = index.described();
                if change.table == *root && route.query.is_none() && route.columns == *key {
                    touched.touches(at, index.document(change.key.values().iter().cloned()));
                    for image in change.images() {
                        // Nearly always it has the key of the change itself.
                        let key = change.key.values();
                        let same = |(column, value): (&ColumnName, &Value)| {
                            image.value(column.as_str()) == Some(value)
                        };
                        if route.columns.len() == key.len() && route.columns.iter().zip(key).all(same) {
                            continue;
                        }
                        if let Some(values) = values(image, &route.columns) {
                            touched.touches(at, index.document(values));
                        }
                    }
                    continue;
                }
                // Nothing else leads from a related row to its root.
                if change.images().next().is_none() {
                    return Err(format!(
                        "{change:?} carries no row image; it has to come from the capture of the same connector"
                    ));
                }
                for image in change.images() {
                    let values = values(image, &route.columns)
                        .ok_or_else(|| format!("{change:?} does not tell the columns {:?}", route.columns))?;
                    if route.query.is_some() {
                        let rows = touched.lookups.entry((change.table.clone(), place)).or_default();
                        let of = rows.entry(values.collect()).or_default();
                        // Both images may hold the same.
                        if of.last() != Some(&at) {
                            of.push(at);
                        }
                    } else {
                        touched.touches(at, index.document(values));
                    }
                }
            }
        }
        Ok(touched)
    }

    /// These documents by their indexes. Errors: an index that there is not.
    pub(super) fn by_index(&self, ids: &[DocumentId]) -> Result<Vec<(&I, Vec<DocumentId>)>, String> {
        let mut wanted: BTreeMap<usize, Vec<DocumentId>> = BTreeMap::new();
        for id in ids {
            let place = self.place(&id.index).ok_or_else(|| {
                format!("no index `{}` is defined, but its document {id} was asked for", id.index)
            })?;
            wanted.entry(place).or_default().push(id.clone());
        }
        Ok(wanted.into_iter().map(|(place, ids)| (&self.indexes[place], ids)).collect())
    }

    pub(super) fn mappings(&self) -> Vec<IndexMapping> {
        self.indexes.iter().map(|index| index.described().mapping.clone()).collect()
    }

    pub(super) fn scopes(&self) -> Vec<IndexScope> {
        let related = |at: usize| {
            let routes =
                self.by_table.iter().filter(move |(_, routes)| routes.iter().any(|route| route.index == at));
            routes.map(|(table, _)| table.clone())
        };
        let scope = |(at, index): (usize, &I)| {
            let Described { name, root, fingerprint, .. } = index.described();
            IndexScope::new(name.clone(), SnapshotTable::new(root.clone()))
                .with_related(related(at))
                .with_definition(fingerprint)
        };
        self.indexes.iter().enumerate().map(scope).collect()
    }

    /// The columns of old rows without which the routes lead nowhere.
    pub(super) fn needs(&self) -> Vec<TableNeeds> {
        self.by_table
            .iter()
            .map(|(table, routes)| {
                let before: BTreeSet<&ColumnName> = routes.iter().flat_map(|route| &route.columns).collect();
                TableNeeds { table: table.clone(), before: before.into_iter().cloned().collect() }
            })
            .collect()
    }
}

impl Touched {
    /// The change at this place touches this document. Nearly always it is the one that its last row has led to.
    fn touches(&mut self, at: usize, id: Option<DocumentId>) {
        let touched = id.map(|id| (at, id)).filter(|touched| self.ids.last() != Some(touched));
        self.ids.extend(touched);
    }

    /// The changes at these places touch this document too.
    pub(super) fn add(&mut self, changes: &[usize], id: &DocumentId) {
        self.ids.extend(changes.iter().map(|at| (*at, id.clone())));
    }

    pub(super) fn resolved(mut self) -> Resolved {
        self.ids.sort_unstable();
        self.ids.dedup();
        let mut ids = self.ids.into_iter().peekable();
        let mut resolved = Resolved::with_capacity(self.changes);
        for at in 0..self.changes {
            let next = || ids.next_if(|(of, _)| *of == at).map(|(_, id)| id);
            resolved.push(std::iter::from_fn(next));
        }
        resolved
    }
}

/// The values of these columns; `None` where one is unknown.
fn values<'a>(image: &'a Row, columns: &'a [ColumnName]) -> Option<impl Iterator<Item = Value> + 'a> {
    let value = |column: &ColumnName| image.value(column.as_str());
    let are_known = columns.iter().all(|column| value(column).is_some());
    are_known.then(|| columns.iter().filter_map(move |column| value(column).cloned()))
}

/// What stands for each key: a body, or why there is none. They are found by their keys alone: no order comes of it.
#[derive(Debug, Default)]
pub(super) struct Bodies(HashMap<Key, Result<String, String>, FxBuildHasher>);

impl Bodies {
    /// Takes a body that the SQL has yielded. There is one for each key: another one of the same key spoils both.
    pub(super) fn yielded(&mut self, key: Key, body: Result<String, String>) {
        match self.0.entry(key) {
            Entry::Vacant(free) => {
                free.insert(body);
            }
            Entry::Occupied(mut known) if *known.get() != body => {
                *known.get_mut() = Err("the SQL yields more than one body for it".into());
            }
            Entry::Occupied(_) => {}
        }
    }

    /// There is no body of this key, for this reason.
    pub(super) fn failed(&mut self, key: Key, reason: String) {
        self.0.insert(key, Err(reason));
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// An answer for every document that was asked for. One without a body has no row.
    pub(super) fn answers(
        mut self,
        ids: impl IntoIterator<Item = DocumentId>,
    ) -> impl Iterator<Item = Built<String>> {
        ids.into_iter().map(move |id| match self.0.remove(&id.key) {
            Some(Ok(body)) => Ok(Document::upsert(id, body)),
            Some(Err(reason)) => Err(FailedDocument { id, fault: Fault::content(reason) }),
            None => Ok(Document::delete(id)),
        })
    }
}

/// Whether a text is that of a JSON object. Errors: what it is instead.
pub(super) fn is_object(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        .map(drop)
        .map_err(|error| format!("no JSON object ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: i64) -> DocumentId {
        DocumentId::new(IndexName::new("users").unwrap(), key)
    }

    #[test]
    fn each_change_is_answered_for_with_each_of_its_documents_once() {
        let mut touched = Touched { changes: 4, ids: Vec::new(), lookups: Lookups::new() };
        touched.touches(0, Some(id(7)));
        touched.touches(0, Some(id(7)));
        touched.touches(0, None);
        touched.touches(2, Some(id(7)));
        touched.touches(2, Some(id(5)));
        touched.add(&[0, 2, 3], &id(5));
        let mut expected = Resolved::default();
        expected.push([id(5), id(7)]);
        expected.push([]);
        expected.push([id(5), id(7)]);
        expected.push([id(5)]);
        assert_eq!(touched.resolved(), expected);
    }

    #[test]
    fn b15_two_bodies_of_one_key_spoil_both() {
        let mut bodies = Bodies::default();
        for (key, body) in [(1, "a"), (1, "a"), (2, "a"), (2, "b"), (2, "a")] {
            bodies.yielded(Key::single(key), Ok(body.into()));
        }
        let answers: Vec<_> = bodies.answers([id(3), id(2), id(1)]).collect();
        let [Ok(gone), Err(spoilt), Ok(built)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(*gone, Document::delete(id(3)));
        assert_eq!(spoilt.fault, Fault::content("the SQL yields more than one body for it"));
        assert_eq!(*built, Document::upsert(id(1), "a".to_owned()));
    }
}
