//! A builder: documents made of rows and of those that refer to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use syncline::ports::{FailedDocument, TableNeeds};
use syncline::{
    Built, Change, ColumnName, Content, Document, DocumentBuilder, DocumentId, Fault, IndexMapping,
    IndexName, IndexScope, Key, SnapshotTable, TableName, Visibility,
};

use super::script::end;
use super::{Log, Port, Script, Tables, column, index, lock, named, render, table};

/// An index: its root table, and the tables whose rows refer to a root row by a column.
#[derive(Debug, Clone)]
pub struct Shape {
    pub index: IndexName,
    pub root: TableName,
    pub children: Vec<(TableName, ColumnName)>,
    /// A change of this table touches every document.
    pub everyone: Option<TableName>,
    pub definition: String,
}

impl Shape {
    pub fn new(name: &str) -> Self {
        Self {
            index: index(name),
            root: table(name),
            children: Vec::new(),
            everyone: None,
            definition: String::new(),
        }
    }

    pub fn over(self, root: &str) -> Self {
        Self { root: table(root), ..self }
    }

    pub fn touched_by(self, everyone: &str) -> Self {
        Self { everyone: Some(table(everyone)), ..self }
    }

    pub fn with_child(mut self, child: &str, by: &str) -> Self {
        self.children.push((table(child), column(by)));
        self
    }
}

/// How an answer breaks the contract.
#[derive(Debug, Clone)]
pub enum Twist {
    Silent(DocumentId),
    Foreign(DocumentId),
    Twice(DocumentId),
}

pub struct State {
    pub shapes: Vec<Shape>,
    /// The indexes are to be seeded.
    pub scopes: bool,
    pub twist: Option<Twist>,
    /// Documents that cannot be built.
    pub broken: BTreeMap<DocumentId, Fault>,
    /// A call with one of these is refused as a whole.
    pub chokes_on: BTreeSet<DocumentId>,
    /// The newest token that reads show; all where there is none.
    pub shows: Option<u64>,
    /// The builds that are under way, and the most that ever were.
    pub under_way: usize,
    pub most_under_way: usize,
    /// The most documents of one build.
    pub most_documents: usize,
}

#[derive(Clone)]
pub struct Documents {
    log: Log,
    tables: Tables,
    pub script: Script,
    pub state: Arc<Mutex<State>>,
}

impl Documents {
    pub fn new(log: &Log, tables: &Tables, shapes: Vec<Shape>) -> Self {
        let state = State {
            shapes,
            scopes: false,
            twist: None,
            broken: BTreeMap::new(),
            chokes_on: BTreeSet::new(),
            shows: None,
            under_way: 0,
            most_under_way: 0,
            most_documents: 0,
        };
        Self {
            log: log.clone(),
            tables: tables.clone(),
            script: Script::default(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// The documents that a change touches, by its key and its images.
    pub fn touched(&self, change: &Change) -> Vec<DocumentId> {
        let mut ids = BTreeSet::new();
        for shape in self.with(|state| state.shapes.clone()) {
            let mut touch = |key: Key| ids.insert(DocumentId::new(shape.index.clone(), key));
            if shape.root == change.table {
                touch(change.key.clone());
                change.images().filter_map(|image| image.key(&[column("id")])).for_each(|key| {
                    touch(key);
                });
            }
            if shape.everyone.as_ref() == Some(&change.table) {
                lock(&self.tables).get(&shape.root).into_iter().flatten().for_each(|(key, _)| {
                    touch(key.clone());
                });
            }
            for (_, by) in shape.children.iter().filter(|(child, _)| *child == change.table) {
                for key in change.images().filter_map(|image| image.key(std::slice::from_ref(by))) {
                    touch(key);
                }
            }
        }
        ids.into_iter().collect()
    }

    /// A document as the rows are now.
    fn make(&self, id: &DocumentId) -> Document<String> {
        let shapes = self.with(|state| state.shapes.clone());
        let shape = shapes.iter().find(|shape| shape.index == id.index).expect("a known index was asked for");
        let tables = lock(&self.tables);
        let Some(root) = tables.get(&shape.root).and_then(|rows| rows.get(&id.key)) else {
            return Document::delete(id.clone());
        };
        let mut body = render(root);
        for (child, by) in &shape.children {
            for (key, row) in tables.get(child).into_iter().flatten() {
                if row.key(std::slice::from_ref(by)).as_ref() == Some(&id.key) {
                    body.push_str(&format!(" [{child} {key:?} {}]", render(row)));
                }
            }
        }
        Document::upsert(id.clone(), body)
    }

    /// Every document as it should be.
    pub fn all(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for shape in self.with(|state| state.shapes.clone()) {
            let keys: Vec<Key> = lock(&self.tables)
                .get(&shape.root)
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                let id = DocumentId::new(shape.index.clone(), key);
                if let Content::Upsert(body) = self.make(&id).content {
                    all.insert(named(&id), body);
                }
            }
        }
        all
    }

    fn answers(&self, ids: &[DocumentId]) -> Vec<Built<String>> {
        let (broken, twist) = self.with(|state| (state.broken.clone(), state.twist.clone()));
        let mut answers: Vec<Built<String>> = ids
            .iter()
            .map(|id| match broken.get(id) {
                Some(fault) => Err(FailedDocument { id: id.clone(), fault: fault.clone() }),
                None => Ok(self.make(id)),
            })
            .collect();
        let of = |built: &Built<String>| match built {
            Ok(document) => document.id.clone(),
            Err(failed) => failed.id.clone(),
        };
        match twist {
            None => {}
            Some(Twist::Silent(id)) => answers.retain(|built| of(built) != id),
            Some(Twist::Foreign(id)) => answers.push(Ok(Document::delete(id))),
            Some(Twist::Twice(id)) => answers.push(Ok(self.make(&id))),
        }
        answers
    }
}

impl DocumentBuilder for Documents {
    type Body = String;

    async fn resolve(&self, change: &Change) -> Result<Vec<DocumentId>, Fault> {
        self.log.say(Port::Documents, format!("resolve {} {:?}", change.table, change.key));
        let fault = self.script.play("resolve").await?;
        end(self.touched(change), fault)
    }

    async fn build(&self, id: &DocumentId) -> Result<Document<String>, Fault> {
        Ok(self.make(id))
    }

    async fn build_many(
        &self,
        ids: &[DocumentId],
        visibility: Option<Visibility>,
    ) -> Result<Vec<Built<String>>, Fault> {
        let asked: Vec<String> = ids.iter().map(named).collect();
        self.log.say(Port::Documents, format!("build {}", asked.join(", ")));
        let _here = Counted::new(self, ids.len());
        let hidden =
            self.with(|state| state.shows.zip(visibility).is_some_and(|(shows, token)| token.0 > shows));
        if hidden {
            return Err(Fault::not_yet());
        }
        if self.with(|state| ids.iter().any(|id| state.chokes_on.contains(id))) {
            return Err(Fault::content("one of them makes no sense"));
        }
        // What is read is read when the call begins; how late its answer comes changes nothing of it.
        let answers = self.answers(ids);
        let fault = self.script.play("build").await?;
        end(answers, fault)
    }

    fn body_bytes(&self, body: &String) -> usize {
        body.len()
    }

    async fn index_mappings(&self) -> Result<Vec<IndexMapping>, Fault> {
        let fault = self.script.play("mappings").await?;
        end(
            self.with(|state| {
                state.shapes.iter().map(|shape| IndexMapping::new(shape.index.clone(), [])).collect()
            }),
            fault,
        )
    }

    fn backfill_scopes(&self) -> Vec<IndexScope> {
        self.with(|state| {
            let shapes = state.shapes.iter().filter(|_| state.scopes);
            let scopes = shapes.map(|shape| {
                let related = shape.children.iter().map(|(table, _)| table).chain(&shape.everyone);
                IndexScope::new(shape.index.clone(), SnapshotTable::new(shape.root.clone()))
                    .with_related(related.cloned())
                    .with_definition(&shape.definition)
            });
            scopes.collect()
        })
    }

    fn needs(&self) -> Vec<TableNeeds> {
        let shapes = self.with(|state| state.shapes.clone());
        let children = shapes.into_iter().flat_map(|shape| shape.children);
        children.map(|(table, by)| TableNeeds { table, before: vec![by] }).collect()
    }
}

/// A build that is under way.
struct Counted<'a>(&'a Documents);

impl<'a> Counted<'a> {
    fn new(documents: &'a Documents, ids: usize) -> Self {
        documents.with(|state| {
            state.under_way += 1;
            state.most_under_way = state.most_under_way.max(state.under_way);
            state.most_documents = state.most_documents.max(ids);
        });
        Self(documents)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.under_way -= 1);
    }
}
