//! How an index is called, and how it is created.
//!
//! Searches go to an alias that is called as the engine's index is. What it points to is a physical index that is called
//! `<alias>-<hash>-<epoch>-<random>`: the hash is that of the mapping and the settings, the epoch that of the run that
//! created it, so that every creation has a name of its own. A run writes through another alias, whose name ends in its
//! own epoch and which no other run has: `<physical>-e<epoch>`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::wire::NAME;
use crate::document::Epoch;
use crate::error::Fault;
use crate::name::IndexName;
use crate::ports::{FieldKind, IndexMapping};

/// Counted up when indexes are laid out in another way, so that they are created and seeded anew.
const FORMAT: u32 = 1;

const HASH_DIGITS: usize = 12;
const RANDOM_DIGITS: usize = 8;

/// The longest alias: names end at 255 bytes, and physical ones and their aliases are built from this.
const MAX_ALIAS_BYTES: usize = 180;

/// What the sink adds to every index that it creates.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    /// `index.gc_deletes`, in seconds.
    pub(super) gc_deletes_seconds: u64,
    /// Whether a field that is not in the mapping is kept unsearched, instead of having its document rejected.
    pub(super) keeps_unmapped: bool,
    /// What the embedder wants to be set.
    pub(super) settings: Map<String, Json>,
    /// Whose indexes they are: the prefix of the sink's own indexes.
    pub(super) owner: String,
}

/// One layout of an index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) alias: String,
    pub(super) hash: String,
    settings: Json,
    mappings: Json,
}

impl Layout {
    /// Errors: fatal, for a name that no index can have, and for a mapping that contradicts itself.
    pub(super) fn of(mapping: &IndexMapping, defaults: &Defaults) -> Result<Self, Fault> {
        let alias = alias_of(&mapping.index, &defaults.owner)?;
        let mut kinds = BTreeMap::new();
        for field in &mapping.fields {
            let name = field.name.as_str();
            let wrong = if name.is_empty() {
                "is empty"
            } else if name.chars().any(char::is_control) {
                "holds a control character"
            } else if name.split('.').next() == Some(NAME) {
                "is one of the sink's own"
            } else if kinds.insert(name, field.kind).is_some() {
                "stands there twice"
            } else if name.split('.').any(str::is_empty) {
                "has an empty part"
            } else {
                continue;
            };
            return Err(Fault::fatal(format!(
                "the mapping of index `{}`: field {name:?} {wrong}",
                mapping.index
            )));
        }
        let mut settings = json!({
            "gc_deletes": format!("{}s", defaults.gc_deletes_seconds),
            "mapping.coerce": false,
            "translog.durability": "request",
        });
        if let Some(settings) = settings.as_object_mut() {
            settings.extend(defaults.settings.clone());
        }
        let fields = kinds.iter().map(|(name, kind)| ((*name).to_owned(), property(*kind)));
        let own = [(NAME.to_owned(), json!({ "type": "keyword" }))];
        let properties: Map<String, Json> = fields.chain(own).collect();
        let mut mappings = json!({
            "_meta": { "syncline": { "owner": defaults.owner, "index": mapping.index.as_str() } },
            "properties": properties,
        });
        if !kinds.is_empty() {
            mappings["dynamic"] = if defaults.keeps_unmapped { json!("false") } else { json!("strict") };
        }
        let hash = hash(&canonical(&json!([FORMAT, settings, mappings])));
        Ok(Self { alias, hash, settings, mappings })
    }

    /// A name that no index has had.
    pub(super) fn physical(&self, epoch: Epoch) -> String {
        let random = &uuid::Uuid::new_v4().simple().to_string()[..RANDOM_DIGITS];
        format!("{}-{}-{}-{random}", self.alias, self.hash, epoch.0)
    }

    /// What creates the index, with the alias through which a run writes.
    pub(super) fn creation(&self, write_alias: &str) -> Json {
        json!({
            "settings": { "index": self.settings },
            "mappings": self.mappings,
            "aliases": { write_alias: {} },
        })
    }
}

/// The alias through which a run writes to an index.
pub(super) fn write_alias(physical: &str, epoch: Epoch) -> String {
    format!("{physical}-e{}", epoch.0)
}

/// The run whose write alias of this index it is.
pub(super) fn writer_of(alias: &str, physical: &str) -> Option<Epoch> {
    alias.strip_prefix(physical)?.strip_prefix("-e")?.parse().ok().map(Epoch)
}

/// What a name that was found at the server tells: the run that created the physical index, and the write alias in whose
/// place an index stands, if it is one. `None` where the name is none that the sink gives to what stands behind `alias`.
pub(super) fn created_by<'a>(found: &'a str, alias: &str) -> Option<(Epoch, Option<&'a str>)> {
    let mut parts = found.strip_prefix(alias)?.strip_prefix('-')?.split('-');
    let is_hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let hash = parts.next()?;
    let epoch = parts.next()?.parse().ok().map(Epoch)?;
    let random = parts.next()?;
    let writer = parts.next();
    let ours = is_hex(hash, HASH_DIGITS) && is_hex(random, RANDOM_DIGITS) && parts.next().is_none();
    let fits =
        writer.is_none_or(|writer| writer.strip_prefix('e').is_some_and(|run| run.parse::<u64>().is_ok()));
    (ours && fits).then_some((epoch, writer))
}

/// The alias of an index: its name, which must be one that the server takes.
fn alias_of(index: &IndexName, owner: &str) -> Result<String, Fault> {
    let name = index.as_str();
    let taken = [own(owner, STATE), own(owner, QUARANTINE)].iter().any(|own| own == name);
    match wrong_with(name).or_else(|| taken.then(|| "is an index of the sink's own".to_owned())) {
        None => Ok(name.to_owned()),
        Some(wrong) => {
            Err(Fault::fatal(format!("the server takes no index of the name `{index}`: it {wrong}")))
        }
    }
}

/// Errors: fatal, for a prefix that no name can begin with.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Fault> {
    let wrong = if prefix.is_empty() { Some("is empty".to_owned()) } else { wrong_with(prefix) };
    wrong.map_or(Ok(()), |wrong| {
        Err(Fault::fatal(format!("the prefix `{prefix}` cannot be used: it {wrong}")))
    })
}

/// Why the server would not take a name.
///
/// The rules: <https://docs.opensearch.org/latest/api-reference/index-apis/create-index/>.
fn wrong_with(name: &str) -> Option<String> {
    if name.len() > MAX_ALIAS_BYTES {
        Some(format!("is {} bytes long; at most {MAX_ALIAS_BYTES} are taken", name.len()))
    } else if name.chars().any(char::is_uppercase) {
        Some("holds a capital letter".to_owned())
    } else if let Some(odd) = name.chars().find(|odd| " \"*\\<>|,/?#:".contains(*odd)) {
        Some(format!("holds {odd:?}"))
    } else if name.starts_with(['-', '_', '+', '.']) {
        Some("begins with `-`, `_`, `+` or `.`".to_owned())
    } else {
        None
    }
}

pub(super) const STATE: &str = "state";
pub(super) const QUARANTINE: &str = "quarantine";

/// The name of one of the sink's own indexes.
pub(super) fn own(owner: &str, what: &str) -> String {
    format!("{owner}-{what}")
}

fn property(kind: FieldKind) -> Json {
    match kind {
        FieldKind::Text => json!({ "type": "text" }),
        FieldKind::Keyword => json!({ "type": "keyword" }),
        FieldKind::Integer => json!({ "type": "long" }),
        FieldKind::Float => json!({ "type": "double" }),
        FieldKind::Bool => json!({ "type": "boolean" }),
        // Its inner fields are whatever the documents hold.
        FieldKind::Object => json!({ "type": "object", "dynamic": "true" }),
    }
}

/// The text of a value, the same whatever order its maps are in.
fn canonical(value: &Json) -> String {
    match value {
        Json::Object(fields) => {
            let sorted: BTreeMap<&String, String> =
                fields.iter().map(|(name, value)| (name, canonical(value))).collect();
            let parts: Vec<String> = sorted.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
            format!("{{{}}}", parts.join(","))
        }
        Json::Array(values) => {
            let parts: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        plain => plain.to_string(),
    }
}

fn hash(text: &str) -> String {
    hexadecimal(text)[..HASH_DIGITS].to_owned()
}

/// The SHA-256 of a text.
pub(super) fn hexadecimal(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Field;

    fn defaults() -> Defaults {
        Defaults {
            gc_deletes_seconds: 3_600,
            keeps_unmapped: false,
            settings: Map::new(),
            owner: "syncline".into(),
        }
    }

    fn layout(name: &str, fields: &[(&str, FieldKind)]) -> Result<Layout, Fault> {
        let fields = fields.iter().map(|(name, kind)| Field::new(name, *kind));
        Layout::of(&IndexMapping::new(IndexName::new(name).unwrap(), fields), &defaults())
    }

    #[test]
    fn the_hash_is_that_of_what_is_created_and_the_order_of_fields_does_not_matter() {
        let fields = [("title", FieldKind::Text), ("size", FieldKind::Integer)];
        let one = layout("books", &fields).unwrap();
        assert_eq!(one, layout("books", &[fields[1], fields[0]]).unwrap());
        // Written down, so that a change that would have every index seeded again is noticed.
        assert_eq!(one.hash, "f0e59c63c4c0");
        assert_ne!(one.hash, layout("books", &[("title", FieldKind::Keyword), fields[1]]).unwrap().hash);
        let mut other = defaults();
        other.settings.insert("number_of_replicas".into(), 0.into());
        let mapping =
            IndexMapping::new(IndexName::new("books").unwrap(), [Field::new("title", FieldKind::Text)]);
        assert_ne!(
            Layout::of(&mapping, &defaults()).unwrap().hash,
            Layout::of(&mapping, &other).unwrap().hash
        );
        let creation = one.creation("w");
        assert_eq!(creation["mappings"]["dynamic"], "strict");
        assert_eq!(creation["mappings"]["properties"]["size"]["type"], "long");
        assert_eq!(creation["settings"]["index"]["gc_deletes"], "3600s");
        let dynamic = layout("books", &[]).unwrap().creation("w");
        assert_eq!(dynamic["mappings"].get("dynamic"), None);
        for creation in [creation, dynamic] {
            assert_eq!(creation["mappings"]["properties"]["syncline_id"], json!({ "type": "keyword" }));
        }
    }

    #[test]
    fn names_that_no_index_can_have_are_refused_with_what_is_wrong() {
        for (name, words) in [
            ("Books", "capital letter"),
            ("a b", "holds ' '"),
            ("a:b", "holds ':'"),
            ("_a", "begins with"),
            (".a", "begins with"),
            ("..", "begins with"),
            ("syncline-state", "the sink's own"),
            (&"x".repeat(181), "181 bytes long"),
        ] {
            let fault = layout(name, &[]).unwrap_err();
            assert!(fault.message().contains(words), "{name}: {fault}");
        }
        assert!(layout("bücher-2.x_y", &[]).is_ok());
        let message = |fields: &[(&str, FieldKind)]| layout("a", fields).unwrap_err().to_string();
        assert!(
            message(&[("a", FieldKind::Text), ("a", FieldKind::Bool)])
                .contains("field \"a\" stands there twice")
        );
        assert!(message(&[("a..b", FieldKind::Text)]).contains("has an empty part"));
        assert!(message(&[("", FieldKind::Text)]).contains("is empty"));
        assert!(message(&[("syncline_id", FieldKind::Keyword)]).contains("is one of the sink's own"));
    }

    #[test]
    fn what_the_sink_creates_is_known_by_its_name() {
        let layout = layout("books", &[]).unwrap();
        let physical = layout.physical(Epoch(7));
        assert!(physical.len() <= 255 && physical != layout.physical(Epoch(7)));
        assert_eq!(created_by(&physical, "books"), Some((Epoch(7), None)));
        let alias = write_alias(&physical, Epoch(9));
        assert_eq!(created_by(&alias, "books"), Some((Epoch(7), Some("e9"))));
        assert_eq!(writer_of(&alias, &physical), Some(Epoch(9)));
        assert_eq!(writer_of(&physical, &physical), None);
        for other in
            ["books", "books-archive", "books-2024-01-01", "books-abc-1-12345678", "book", "booksy-x"]
        {
            assert_eq!(created_by(other, "books"), None, "{other}");
        }
        // An index of a longer name is not taken for one of a shorter.
        let longer = super::tests::layout("books-archive", &[]).unwrap().physical(Epoch(1));
        assert_eq!(created_by(&longer, "books"), None);
    }
}
