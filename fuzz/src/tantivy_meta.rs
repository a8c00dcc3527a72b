//! The meta file of an index, whatever it holds: opening it fails, or tells what stands there.

use std::path::Path;

use syncline::connectors::tantivy::fuzz::{Layout, open};
use syncline::connectors::tantivy::library::Directory;
use syncline::connectors::tantivy::library::directory::RamDirectory;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let directory = RamDirectory::create();
    directory.atomic_write(Path::new("meta.json"), bytes).unwrap();
    if let Ok((index, Some((layout, _)))) = open(directory) {
        assert_eq!(layout.schema(), index.schema());
        assert!(Layout::of_schema(index.schema()).is_some());
    }
}
