//! The schema of a physical index, and how a document's body is laid out in it.
//!
//! | field | what it holds |
//! | --- | --- |
//! | `_id` | the document's id, as [`encode_key`](crate::document::encode_key) writes it |
//! | `_source` | the body, as it was written; stored, not searched |
//! | `_epoch`, `_build` | the version of the write |
//! | each field of the mapping | its values, searched by the kind of the field |
//! | `_dynamic`, `_text` | only without a mapping: the whole body as a structure, and all of its texts |

use std::collections::{BTreeMap, BTreeSet};

use ::tantivy::TantivyDocument;
use ::tantivy::schema::{
    FAST, Field, FieldType, INDEXED, OwnedValue, STORED, STRING, Schema, TEXT, TextOptions, Value as _,
    is_valid_field_name,
};
use serde_json::{Map, Value as Json};

use crate::document::{Epoch, Version};
use crate::error::Fault;
use crate::name::MAX_NAME_BYTES;
use crate::ports::{FieldKind, IndexMapping};

pub(super) const EPOCH: &str = "_epoch";
pub(super) const BUILD: &str = "_build";
const ID: &str = "_id";
const SOURCE: &str = "_source";
const DYNAMIC: &str = "_dynamic";
const WORDS: &str = "_text";
const RESERVED: [&str; 6] = [ID, SOURCE, EPOCH, BUILD, DYNAMIC, WORDS];

/// The longest id or keyword: tantivy drops longer terms unsaid, and an id that is not indexed could not be replaced.
const MAX_TERM_BYTES: usize = 65_530;

/// The longest body. The inner addresses of tantivy's documents are 32 bits wide.
const MAX_BODY_BYTES: usize = 256 << 20;

/// The deepest nesting of a body.
const MAX_DEPTH: usize = 100;

/// The fields of a physical index.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) schema: Schema,
    pub(super) id: Field,
    source: Field,
    epoch: Field,
    build: Field,
    mapped: BTreeMap<String, (Field, FieldKind)>,
    dynamic: Option<(Field, Field)>,
}

impl Layout {
    /// That of an index with this mapping. Errors: fatal, where the mapping names a field twice, names one of ours, or
    /// has a name that cannot be searched for.
    pub(super) fn of_mapping(mapping: &IndexMapping) -> Result<Self, Fault> {
        let mut kinds = BTreeMap::new();
        for field in &mapping.fields {
            let wrong = if RESERVED.contains(&field.name.as_str()) {
                "is one of the sink's own"
            } else if field.name.is_empty() || field.name.len() > MAX_NAME_BYTES {
                "is empty or too long"
            } else if !is_valid_field_name(&field.name) {
                "begins with `-`, which leaves out what it stands before in a query"
            } else if field.name.chars().any(char::is_control) {
                "holds a control character"
            } else if kinds.insert(field.name.as_str(), field.kind).is_some() {
                "stands there twice"
            } else {
                continue;
            };
            let index = &mapping.index;
            return Err(Fault::fatal(format!(
                "the mapping of index `{index}`: field {:?} {wrong}",
                field.name
            )));
        }
        let mut builder = Schema::builder();
        builder.add_text_field(ID, STRING | STORED);
        builder.add_text_field(SOURCE, TextOptions::default().set_stored());
        builder.add_u64_field(EPOCH, FAST);
        builder.add_u64_field(BUILD, FAST);
        if kinds.is_empty() {
            builder.add_json_field(DYNAMIC, TEXT);
            builder.add_text_field(WORDS, TEXT);
        }
        // In the order of their names: a mapping that lists its fields otherwise is the same schema.
        for (name, kind) in kinds {
            match kind {
                FieldKind::Text => builder.add_text_field(name, TEXT),
                FieldKind::Keyword => builder.add_text_field(name, STRING | FAST),
                FieldKind::Integer => builder.add_i64_field(name, INDEXED | FAST),
                FieldKind::Float => builder.add_f64_field(name, INDEXED | FAST),
                FieldKind::Bool => builder.add_bool_field(name, INDEXED | FAST),
                FieldKind::Object => builder.add_json_field(name, TEXT),
            };
        }
        Self::of_schema(builder.build()).ok_or_else(|| Fault::fatal("the schema lacks the sink's own fields"))
    }

    /// That of an index that has this schema already; `None` where it is none of ours.
    pub(super) fn of_schema(schema: Schema) -> Option<Self> {
        let own = |name| schema.get_field(name).ok();
        let (id, source, epoch, build) = (own(ID)?, own(SOURCE)?, own(EPOCH)?, own(BUILD)?);
        let dynamic = own(DYNAMIC).zip(own(WORDS));
        let mut mapped = BTreeMap::new();
        for (field, entry) in schema.fields().filter(|(_, entry)| !RESERVED.contains(&entry.name())) {
            let kind = match entry.field_type() {
                FieldType::Str(options) => match options.get_indexing_options()?.tokenizer() {
                    "raw" => FieldKind::Keyword,
                    _ => FieldKind::Text,
                },
                FieldType::I64(_) => FieldKind::Integer,
                FieldType::F64(_) => FieldKind::Float,
                FieldType::Bool(_) => FieldKind::Bool,
                FieldType::JsonObject(_) => FieldKind::Object,
                _ => return None,
            };
            mapped.insert(entry.name().to_owned(), (field, kind));
        }
        Some(Self { id, source, epoch, build, mapped, dynamic, schema })
    }

    /// The fields that a query without field names searches: the texts; the keywords where there are none.
    pub(super) fn searched(&self) -> Vec<Field> {
        let of =
            |wanted| self.mapped.values().filter(move |(_, kind)| *kind == wanted).map(|(field, _)| *field);
        let mut fields: Vec<Field> =
            of(FieldKind::Text).chain(self.dynamic.map(|(_, words)| words)).collect();
        if fields.is_empty() {
            fields.extend(of(FieldKind::Keyword));
        }
        fields
    }

    /// Lays a body out. Errors: why the document cannot be taken, with the field at fault.
    pub(super) fn document(&self, id: &str, version: Version, body: &str) -> Result<TantivyDocument, String> {
        self.check_id(id)?;
        if body.len() > MAX_BODY_BYTES {
            return Err(format!("the body is {} bytes long; at most {MAX_BODY_BYTES} are taken", body.len()));
        }
        let fields: Map<String, Json> =
            serde_json::from_str(body).map_err(|error| format!("the body is not a JSON object: {error}"))?;
        let mut document = TantivyDocument::new();
        document.add_text(self.id, id);
        document.add_text(self.source, body);
        document.add_u64(self.epoch, version.epoch.0);
        document.add_u64(self.build, version.build);
        for (name, value) in &fields {
            if let Some((field, kind)) = self.mapped.get(name) {
                let values = match value {
                    Json::Array(values) => values.as_slice(),
                    one => std::slice::from_ref(one),
                };
                for value in values.iter().filter(|value| !value.is_null()) {
                    add(&mut document, *field, *kind, value)
                        .map_err(|wrong| format!("field `{name}` takes {}, not {wrong}", takes(*kind)))?;
                }
            }
        }
        if let Some((dynamic, words)) = self.dynamic {
            let mut texts = BTreeSet::new();
            for value in fields.values() {
                collect_texts(value, &mut texts, 0);
            }
            texts.into_iter().for_each(|text| document.add_text(words, text));
            let structure = structure(&fields, 0)?;
            document.add_field_value(dynamic, &structure);
        }
        Ok(document)
    }

    /// Errors: why no document of this id can be taken.
    pub(super) fn check_id(&self, id: &str) -> Result<(), String> {
        if id.len() <= MAX_TERM_BYTES {
            return Ok(());
        }
        Err(format!("the id is {} bytes long; at most {MAX_TERM_BYTES} are taken", id.len()))
    }

    /// The id and the body of a stored document.
    pub(super) fn stored(&self, document: &TantivyDocument) -> Option<(String, String)> {
        let text = |field| document.get_first(field).and_then(|value| value.as_str().map(str::to_owned));
        Some((text(self.id)?, text(self.source)?))
    }
}

/// The version that two fast fields hold.
pub(super) fn version(epoch: Option<u64>, build: Option<u64>) -> Version {
    Version { epoch: Epoch(epoch.unwrap_or_default()), build: build.unwrap_or_default() }
}

fn takes(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Text => "text",
        FieldKind::Keyword => "text of at most 65530 bytes",
        FieldKind::Integer => "an integer of 64 bits",
        FieldKind::Float => "a number",
        FieldKind::Bool => "true or false",
        FieldKind::Object => "an object of at most 100 levels",
    }
}

fn add(document: &mut TantivyDocument, field: Field, kind: FieldKind, value: &Json) -> Result<(), String> {
    match (kind, value) {
        (FieldKind::Text, Json::String(text)) => document.add_text(field, text),
        (FieldKind::Keyword, Json::String(text)) if text.len() <= MAX_TERM_BYTES => {
            document.add_text(field, text);
        }
        (FieldKind::Integer, Json::Number(number)) => {
            document.add_i64(field, number.as_i64().ok_or_else(|| number.to_string())?);
        }
        (FieldKind::Float, Json::Number(number)) => {
            let number = number.as_f64().filter(|number| number.is_finite());
            document.add_f64(field, number.ok_or_else(|| value.to_string())?);
        }
        (FieldKind::Bool, Json::Bool(value)) => document.add_bool(field, *value),
        (FieldKind::Object, Json::Object(fields)) => {
            let structure = structure(fields, 0)?;
            document.add_field_value(field, &structure);
        }
        (_, Json::Null) => {}
        (_, Json::Bool(value)) => return Err(value.to_string()),
        (_, Json::Number(number)) => return Err(number.to_string()),
        (_, Json::String(text)) if text.len() > 40 => return Err(format!("a text of {} bytes", text.len())),
        (_, Json::String(text)) => return Err(format!("{text:?}")),
        (_, Json::Array(_)) => return Err("an array inside an array".to_owned()),
        (_, Json::Object(_)) => return Err("an object".to_owned()),
    }
    Ok(())
}

/// An object as tantivy indexes it. Numbers that no field of it can hold are left out.
fn structure(fields: &Map<String, Json>, depth: usize) -> Result<OwnedValue, String> {
    let inner = fields.iter().map(|(name, value)| Ok((name.clone(), inner(value, depth + 1)?)));
    Ok(OwnedValue::Object(inner.collect::<Result<_, String>>()?))
}

fn inner(value: &Json, depth: usize) -> Result<OwnedValue, String> {
    if depth > MAX_DEPTH {
        return Err(format!("a nesting of more than {MAX_DEPTH} levels"));
    }
    Ok(match value {
        Json::Null => OwnedValue::Null,
        Json::Bool(value) => OwnedValue::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => OwnedValue::I64(number),
            (_, Some(number), _) => OwnedValue::U64(number),
            (_, _, Some(number)) => OwnedValue::F64(number),
            (None, None, None) => OwnedValue::Null,
        },
        // Tantivy's own conversion makes a date of a text that reads as one, as its query parser does.
        Json::String(_) => OwnedValue::from(value.clone()),
        Json::Array(values) => {
            let values = values.iter().map(|value| inner(value, depth + 1));
            OwnedValue::Array(values.collect::<Result<_, String>>()?)
        }
        Json::Object(fields) => structure(fields, depth)?,
    })
}

fn collect_texts<'a>(value: &'a Json, texts: &mut BTreeSet<&'a str>, depth: usize) {
    match value {
        Json::String(text) => {
            texts.insert(text);
        }
        Json::Array(values) if depth < MAX_DEPTH => {
            values.iter().for_each(|value| collect_texts(value, texts, depth + 1));
        }
        Json::Object(fields) if depth < MAX_DEPTH => {
            fields.values().for_each(|value| collect_texts(value, texts, depth + 1));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::IndexName;
    use crate::ports::Field as Mapped;

    const KINDS: [(&str, FieldKind); 6] = [
        ("title", FieldKind::Text),
        ("tag", FieldKind::Keyword),
        ("size", FieldKind::Integer),
        ("price", FieldKind::Float),
        ("open", FieldKind::Bool),
        ("more", FieldKind::Object),
    ];

    fn layout(fields: impl IntoIterator<Item = (&'static str, FieldKind)>) -> Result<Layout, Fault> {
        let fields = fields.into_iter().map(|(name, kind)| Mapped::new(name, kind));
        Layout::of_mapping(&IndexMapping::new(IndexName::new("i").unwrap(), fields))
    }

    fn refusal(body: &str) -> String {
        layout(KINDS).unwrap().document("1", Version::default(), body).unwrap_err()
    }

    #[test]
    fn every_kind_takes_its_own_values_and_several_of_them() {
        let layout = layout(KINDS).unwrap();
        let body = r#"{"title":["a","b",null],"tag":"t","size":[-1,2],"price":[1,2.5],"open":true,
                       "more":[{"x":{"y":[1,"z"]}}],"unknown":[[1]]}"#;
        let document = layout.document("1", Version::default(), body).unwrap();
        let count = |name: &str| document.get_all(layout.schema.get_field(name).unwrap()).count();
        assert_eq!(KINDS.map(|(name, _)| count(name)), [2, 1, 2, 2, 1, 1]);
        assert_eq!(layout.stored(&document), Some(("1".into(), body.into())));
        assert!(layout.document("1", Version::default(), r#"{"size":null,"title":[]}"#).is_ok());
        assert_eq!(layout.searched(), [layout.schema.get_field("title").unwrap()]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_the_name_of_its_field() {
        assert_eq!(refusal(r#"{"size":"x"}"#), "field `size` takes an integer of 64 bits, not \"x\"");
        assert_eq!(refusal(r#"{"size":[1,2.5]}"#), "field `size` takes an integer of 64 bits, not 2.5");
        assert_eq!(
            refusal(r#"{"size":9223372036854775808}"#),
            "field `size` takes an integer of 64 bits, not 9223372036854775808"
        );
        assert_eq!(refusal(r#"{"title":7}"#), "field `title` takes text, not 7");
        assert_eq!(refusal(r#"{"open":{}}"#), "field `open` takes true or false, not an object");
        assert_eq!(
            refusal(r#"{"more":[[]]}"#),
            "field `more` takes an object of at most 100 levels, not an array inside an array"
        );
        let long = format!(r#"{{"tag":"{}"}}"#, "x".repeat(MAX_TERM_BYTES + 1));
        assert_eq!(
            refusal(&long),
            "field `tag` takes text of at most 65530 bytes, not a text of 65531 bytes"
        );
        for body in ["", "[]", "7", "{", r#"{"a":1}x"#, "null"] {
            assert!(refusal(body).starts_with("the body is not a JSON object"), "{body}");
        }
        let layout = layout(KINDS).unwrap();
        let id = "x".repeat(MAX_TERM_BYTES + 1);
        let reason = layout.document(&id, Version::default(), "{}").unwrap_err();
        assert_eq!(reason, "the id is 65531 bytes long; at most 65530 are taken");
    }

    #[test]
    fn a_body_that_is_too_deep_is_refused_not_followed() {
        let deep =
            |levels: usize| format!(r#"{{"more":{}1{}}}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let layout = layout(KINDS).unwrap();
        assert!(layout.document("1", Version::default(), &deep(99)).is_ok());
        assert!(layout.document("1", Version::default(), &deep(110)).is_err());
        assert!(layout.document("1", Version::default(), &deep(100_000)).is_err());
    }

    #[test]
    fn mappings_that_contradict_themselves_are_refused() {
        let message = |fields: Vec<(&'static str, FieldKind)>| layout(fields).unwrap_err().to_string();
        assert!(
            message(vec![("a", FieldKind::Text), ("a", FieldKind::Bool)])
                .contains("field \"a\" stands there twice")
        );
        assert!(
            message(vec![("_id", FieldKind::Keyword)]).contains("field \"_id\" is one of the sink's own")
        );
        assert!(message(vec![("", FieldKind::Text)]).contains("is empty or too long"));
        assert!(message(vec![("-a", FieldKind::Text)]).contains("begins with `-`"));
        assert!(message(vec![("a\u{0}", FieldKind::Text)]).contains("control character"));
    }

    #[test]
    fn a_layout_is_found_again_in_its_schema_and_the_order_of_fields_does_not_matter() {
        let one = layout(KINDS).unwrap();
        let mut reversed = KINDS;
        reversed.reverse();
        let other = layout(reversed).unwrap();
        assert_eq!(one.schema, other.schema);
        assert_eq!(Layout::of_schema(one.schema.clone()).unwrap().mapped, one.mapped);
        assert_eq!(
            one.mapped.iter().map(|(name, (_, kind))| (name.as_str(), *kind)).collect::<BTreeMap<_, _>>(),
            KINDS.into()
        );
        assert_ne!(
            layout([("title", FieldKind::Keyword)]).unwrap().schema,
            layout([("title", FieldKind::Text)]).unwrap().schema
        );
        assert!(layout([]).unwrap().dynamic.is_some());
    }
}
