//! The meta file of an index: what stands in the directory, whoever wrote it.

use std::collections::BTreeSet;
use std::path::Path;

use ::tantivy::directory::error::OpenReadError;
use ::tantivy::error::DataCorruption;
use ::tantivy::{Directory, Index, IndexMeta};
use serde_json::Value as Json;

use super::layout::Layout;
use super::payload::Payload;
use super::root::META;

/// Opens the index in a directory, with its newest commit.
pub(super) fn open(directory: impl Into<Box<dyn Directory>>) -> ::tantivy::Result<(Index, IndexMeta)> {
    let directory = directory.into();
    check(&*directory)?;
    let index = Index::open(directory)?;
    let metas = index.load_metas()?;
    Ok((index, metas))
}

/// The newest commit of an index that is open.
pub(super) fn load(index: &Index) -> ::tantivy::Result<IndexMeta> {
    check(index.directory())?;
    index.load_metas()
}

/// What the sink has written beside tantivy's own; `None` where this version of the sink has not written it.
pub(super) fn own(metas: &IndexMeta) -> Option<(Layout, Payload)> {
    Layout::of_schema(metas.schema.clone()).zip(metas.payload.as_deref().and_then(Payload::parse))
}

/// Refuses a file that tantivy would panic at: one whose schema names a field twice.
fn check(directory: &dyn Directory) -> ::tantivy::Result<()> {
    let path = Path::new(META);
    let bytes = match directory.atomic_read(path) {
        Ok(bytes) => bytes,
        // Tantivy has its own word for it.
        Err(OpenReadError::FileDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let Ok(Json::Object(meta)) = serde_json::from_slice(&bytes) else { return Ok(()) };
    let fields = meta.get("schema").and_then(Json::as_array).into_iter().flatten();
    let mut names = BTreeSet::new();
    for name in fields.filter_map(|field| field.get("name")?.as_str()) {
        if !names.insert(name) {
            let what = format!("its schema has two fields named {name:?}");
            return Err(DataCorruption::new(path.to_owned(), what).into());
        }
    }
    Ok(())
}
