//! Queries: any text is refused, or searches; plain words are taken, and find the document that holds one of them.

use std::cell::LazyCell;

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::tantivy::fuzz::Layout;
use syncline::connectors::tantivy::library::collector::Count;
use syncline::connectors::tantivy::library::directory::RamDirectory;
use syncline::connectors::tantivy::library::query::Query;
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

/// The words of its texts.
const HELD: [&str; 4] = ["the", "quick", "brown", "fox"];

/// No longer query is read.
const LONGEST: usize = 8192;

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
        let words = words(case.query);
        let query = match layout.query(searcher.index(), case.query) {
            Ok(query) => query,
            Err(fault) => return assert!(words.is_none(), "{fault}"),
        };
        if excludes_a_phrase(&*query) {
            return;
        }
        let found = searcher.search(&query, &Count);
        if let Some(words) = words {
            let is_held = words.iter().any(|word| HELD.contains(word));
            assert_eq!(found.unwrap(), usize::from(is_held));
        } else if let Ok(found) = found {
            // A query may be one that the library refuses only once it runs.
            assert!(found <= 1);
        }
    });
}

/// The words of a query that is nothing else; `None` where it is anything else.
fn words(query: &str) -> Option<Vec<&str>> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b' ';
    let words: Vec<&str> = query.split_ascii_whitespace().collect();
    (query.bytes().all(is_plain) && !words.is_empty() && query.len() <= LONGEST).then_some(words)
}

/// Whether something is excluded, and there is a phrase. Of an excluded phrase that is nowhere the library asserts, in
/// its debug builds alone, what it does not keep.
fn excludes_a_phrase(query: &dyn Query) -> bool {
    let shown = format!("{query:?}");
    shown.contains("MustNot") && shown.contains("Phrase")
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
