//! Queries: any text is refused, or searches.

use std::cell::LazyCell;

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::tantivy::fuzz::Layout;
use syncline::connectors::tantivy::library::collector::Count;
use syncline::connectors::tantivy::library::directory::RamDirectory;
use syncline::connectors::tantivy::library::{Index, Searcher};
use syncline::ports::{Field, FieldKind};
use syncline::{IndexMapping, IndexName, Version};

const FIELDS: [(&str, FieldKind); 6] = [
    ("a", FieldKind::Text),
    ("b", FieldKind::Keyword),
    ("c", FieldKind::Integer),
    ("d", FieldKind::Float),
    ("e", FieldKind::Bool),
    ("f", FieldKind::Object),
];

const BODY: &str =
    r#"{"a":"the quick brown fox","b":"fox","c":7,"d":0.5,"e":true,"f":{"x":[1,"fox"],"y":{"z":false}}}"#;

thread_local! {
    /// An index with a mapping, and one without.
    static INDEXES: LazyCell<[(Layout, Searcher); 2]> = LazyCell::new(|| [index(&FIELDS), index(&[])]);
}

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    is_mapped: bool,
    query: &'a str,
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    INDEXES.with(|indexes| {
        let (layout, searcher) = &indexes[usize::from(case.is_mapped)];
        if let Ok(query) = layout.query(searcher.index(), case.query) {
            // Of an excluded phrase that is nowhere the library asserts, in its debug builds alone, what it does not keep.
            let excludes = case.query.contains('-') || case.query.contains("NOT");
            // A query may be one that the library refuses only once it runs.
            if !excludes && let Ok(found) = searcher.search(&query, &Count) {
                assert!(found <= 1);
            }
        }
    });
}

fn index(fields: &[(&str, FieldKind)]) -> (Layout, Searcher) {
    let fields = fields.iter().map(|(name, kind)| Field::new(name, *kind));
    let layout = Layout::of_mapping(&IndexMapping::new(IndexName::new("index").unwrap(), fields)).unwrap();
    let document = layout.document("1", Version::default(), BODY).unwrap();
    let mut writer = Index::builder()
        .schema(layout.schema())
        .single_segment_index_writer(RamDirectory::create(), 15_000_000)
        .unwrap();
    writer.add_document(document).unwrap();
    let searcher = writer.finalize().unwrap().reader().unwrap().searcher();
    (layout, searcher)
}
