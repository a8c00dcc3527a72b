//! The meta file of an index, whatever it holds: opening it fails, or tells what stands there; one that the library may
//! have written of an index without documents is opened.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, from_slice, from_value};
use syncline::connectors::tantivy::fuzz::{Layout, Payload, open};
use syncline::connectors::tantivy::library::directory::RamDirectory;
use syncline::connectors::tantivy::library::schema::Schema;
use syncline::connectors::tantivy::library::{Directory, Index, IndexSettings, Result};

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    if let Ok((index, Some((layout, _)))) = opened(bytes) {
        assert_eq!(layout.schema(), index.schema());
        assert!(Layout::of_schema(index.schema()).is_some());
    }
    let Ok(meta) = from_slice::<Map<String, Value>>(bytes) else { return };
    let Some((schema, payload)) = empty(&meta) else { return };
    // It is written again, because a text may name a part of it twice.
    let text = Value::Object(meta).to_string();
    let (index, own) = opened(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(index.schema(), schema);
    let payload = payload.as_deref().and_then(Payload::parse);
    assert_eq!(own.map(|(_, payload)| payload), Layout::of_schema(schema).and(payload));
}

fn opened(bytes: &[u8]) -> Result<(Index, Option<(Layout, Payload)>)> {
    let directory = RamDirectory::create();
    directory.atomic_write(Path::new("meta.json"), bytes).unwrap();
    open(directory)
}

/// The schema and the payload of a meta file as the library writes it of an index without segments; `None` where it is
/// another one.
fn empty(meta: &Map<String, Value>) -> Option<(Schema, Option<String>)> {
    const PARTS: [&str; 5] = ["index_settings", "opstamp", "payload", "schema", "segments"];
    let settings: IndexSettings = from_value(meta.get("index_settings")?.clone()).ok()?;
    let has_no_segments = meta.get("segments")?.as_array()?.is_empty();
    let is_usual = settings == IndexSettings::default() && meta.get("opstamp")?.is_u64();
    let payload = match meta.get("payload") {
        None => None,
        Some(payload) => Some(payload.as_str()?.to_owned()),
    };
    let fields = meta.get("schema")?.as_array()?;
    let mut names = BTreeSet::new();
    // The library would panic.
    let is_named_once = fields.iter().all(|field| names.insert(field.get("name").and_then(Value::as_str)));
    let is_plain = has_no_segments && is_usual && is_named_once;
    let schema = || from_value(meta.get("schema")?.clone()).ok();
    if is_plain && meta.keys().all(|part| PARTS.contains(&&**part)) {
        Some((schema()?, payload))
    } else {
        None
    }
}
