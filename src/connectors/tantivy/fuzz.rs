//! Private: the fuzzers' doors to what reads bytes that others may have written. No part of the API.

use std::path::{Path, PathBuf};

use ::tantivy::query::Query;
use ::tantivy::schema::Schema;
use ::tantivy::{Directory, Index, TantivyDocument};

use super::{layout, meta, payload, reader, root};
use crate::document::Version;
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::IndexMapping;

/// What every commit carries beside its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(payload::Payload);

impl Payload {
    pub fn parse(text: &str) -> Option<Self> {
        payload::Payload::parse(text).map(Self)
    }

    pub fn to_text(&self) -> String {
        self.0.to_text()
    }
}

/// The schema of an index, and how a body is laid out in it.
#[derive(Debug, Clone)]
pub struct Layout(layout::Layout);

impl Layout {
    pub fn of_mapping(mapping: &IndexMapping) -> Result<Self, Fault> {
        layout::Layout::of_mapping(mapping).map(Self)
    }

    pub fn of_schema(schema: Schema) -> Option<Self> {
        layout::Layout::of_schema(schema).map(Self)
    }

    pub fn schema(&self) -> Schema {
        self.0.schema.clone()
    }

    pub fn document(&self, id: &str, version: Version, body: &str) -> Result<TantivyDocument, String> {
        self.0.document(id, version, body)
    }

    pub fn stored(&self, document: &TantivyDocument) -> Option<(String, String)> {
        self.0.stored(document)
    }

    pub fn query(&self, index: &Index, query: &str) -> Result<Box<dyn Query>, Fault> {
        reader::parse_query(index, &self.0, query)
    }
}

/// The index that the files of a directory make, with what the sink has written beside tantivy's own.
pub fn open(
    directory: impl Into<Box<dyn Directory>>,
) -> ::tantivy::Result<(Index, Option<(Layout, Payload)>)> {
    let (index, metas) = meta::open(directory)?;
    let own = meta::own(&metas).map(|(layout, payload)| (Layout(layout), Payload(payload)));
    Ok((index, own))
}

/// Where an index stands below a root.
pub fn place(root: &Path, index: &IndexName) -> PathBuf {
    root::place(root, index)
}

/// Whether a file of an index's directory goes by a name of the sink or its library.
pub fn is_own_file(name: &str) -> bool {
    root::is_own_file(name)
}
