//! Bodies, under any mapping: a body is refused with a reason, or the library indexes it and gives it back as it was.

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::tantivy::fuzz::Layout;
use syncline::connectors::tantivy::library::directory::RamDirectory;
use syncline::connectors::tantivy::library::{Index, TantivyDocument};
use syncline::ports::{Field, FieldKind};
use syncline::{Epoch, IndexMapping, IndexName, Version};

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    fields: Vec<(Name<'a>, u8)>,
    id: &'a str,
    epoch: u64,
    build: u64,
    body: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    Short(u8),
    Any(&'a str),
}

const KINDS: [FieldKind; 6] = [
    FieldKind::Text,
    FieldKind::Keyword,
    FieldKind::Integer,
    FieldKind::Float,
    FieldKind::Bool,
    FieldKind::Object,
];

/// What tantivy takes for a writer at least.
const MEMORY_BYTES: usize = 15_000_000;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let fields = case.fields.iter().map(|(name, kind)| {
        let name = match name {
            Name::Short(letter) => char::from(b'a' + letter % 6).to_string(),
            Name::Any(name) => (*name).to_owned(),
        };
        Field::new(name, KINDS[usize::from(*kind) % KINDS.len()])
    });
    let mapping = IndexMapping::new(IndexName::new("index").unwrap(), fields);
    let Ok(layout) = Layout::of_mapping(&mapping) else { return };
    assert_eq!(Layout::of_schema(layout.schema()).map(|found| found.schema()), Some(layout.schema()));
    let version = Version { epoch: Epoch(case.epoch), build: case.build };
    match layout.document(case.id, version, case.body) {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(document) => {
            assert_eq!(layout.stored(&document), Some((case.id.to_owned(), case.body.to_owned())));
            let found = index(&layout, document);
            assert_eq!(layout.stored(&found), Some((case.id.to_owned(), case.body.to_owned())));
        }
    }
}

/// The document as an index that holds nothing else gives it back.
fn index(layout: &Layout, document: TantivyDocument) -> TantivyDocument {
    let mut writer = Index::builder()
        .schema(layout.schema())
        .single_segment_index_writer(RamDirectory::create(), MEMORY_BYTES)
        .unwrap();
    writer.add_document(document).unwrap();
    let searcher = writer.finalize().unwrap().reader().unwrap().searcher();
    let [segment] = searcher.segment_readers() else { panic!("one document is one segment") };
    segment.get_store_reader(1).unwrap().get(0).unwrap()
}
