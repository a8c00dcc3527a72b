//! The meta file of an index: what stands in the directory, whoever wrote it.

use std::collections::BTreeSet;
use std::path::Path;

use ::tantivy::directory::error::OpenReadError;
use ::tantivy::error::DataCorruption;
use ::tantivy::{Directory, Index, IndexMeta};

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

/// What is looked at before tantivy reads the file. Of a field that stands there twice the derived reader says so.
#[derive(serde::Deserialize)]
struct Meta {
    schema: Vec<Field>,
}

#[derive(serde::Deserialize)]
struct Field {
    name: String,
}

/// Refuses a file that tantivy would panic at, while it reads it: one whose schema names a field twice.
fn check(directory: &dyn Directory) -> ::tantivy::Result<()> {
    let path = Path::new(META);
    let bytes = match directory.atomic_read(path) {
        Ok(bytes) => bytes,
        // Tantivy has its own word for it.
        Err(OpenReadError::FileDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let corrupt = |what| Err(DataCorruption::new(path.to_owned(), what).into());
    let meta: Meta = match serde_json::from_slice(&bytes) {
        Ok(meta) => meta,
        Err(error) => return corrupt(format!("it is no meta file: {error}")),
    };
    let mut names = BTreeSet::new();
    match meta.schema.iter().find(|field| !names.insert(&field.name)) {
        Some(Field { name }) => corrupt(format!("its schema has two fields named {name:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ::tantivy::directory::RamDirectory;

    use super::*;

    #[test]
    fn b15_a_meta_file_that_is_damaged_says_so() {
        let message = |text: &str| {
            let directory = RamDirectory::create();
            directory.atomic_write(Path::new(META), text.as_bytes()).unwrap();
            open(directory).unwrap_err().to_string()
        };
        let field = r#"{"name":"_id","type":"text","options":{"stored":true}}"#;
        let twice = format!(r#"{{"schema":[{field},{field}],"segments":[],"opstamp":0}}"#);
        assert!(message(&twice).contains("two fields named \"_id\""), "{}", message(&twice));
        // Tantivy would have read both fields before it came to what is no JSON.
        assert!(message(&twice[..twice.len() - 1]).contains("it is no meta file"));
        let again = twice.replace("\"opstamp\"", "\"schema\":[],\"opstamp\"");
        assert!(message(&again).contains("duplicate field `schema`"), "{}", message(&again));
        assert!(open(RamDirectory::create()).is_err());
    }
}
