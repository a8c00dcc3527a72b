//! Documents: how they are named, and what is written of them.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::name::IndexName;
use crate::row::Key;
use crate::value::Value;

/// One document: its index, and the key of the root row it is built from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId {
    /// The index it stands in.
    pub index: IndexName,
    /// The key of its root row.
    pub key: Key,
}

impl DocumentId {
    /// The document of `index` whose root row has this key.
    pub fn new(index: IndexName, key: impl Into<Key>) -> Self {
        Self { index, key: key.into() }
    }

    /// The name of the document inside its index, for a sink that knows ids as text: see [`encode_key`].
    #[must_use]
    pub fn sink_id(&self) -> String {
        encode_key(&self.key)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.sink_id())
    }
}

/// The text of a key: its parts joined with `:`. It is injective, and the same in every run and on every machine.
///
/// | part | text |
/// | --- | --- |
/// | integer | its digits: `42`, `-7` |
/// | text | itself: `eu`, `007`, `+491234` |
/// | text that is empty, begins with `'` or `~`, or is the very text of an integer or a boolean | after a `'`: `'`, `''`, `'42`, `'true` |
/// | null, booleans | `~`, `true`, `false` |
/// | float | `f` and the 16 hexadecimal digits of its bits, after a `~`: `~f3ff0000000000000` |
/// | bytes | `~x` and their hexadecimal digits: `~x00ff` |
///
/// Inside a text, `:` and `%` are written `%3A` and `%25`, so that `("a:b", "c")` and `("a", "b:c")` stay apart.
#[must_use]
pub fn encode_key(key: &Key) -> String {
    let mut id = String::new();
    for (at, value) in key.values().iter().enumerate() {
        if at > 0 {
            id.push(':');
        }
        encode_value(value, &mut id);
    }
    id
}

fn encode_value(value: &Value, id: &mut String) {
    match value {
        Value::Null => id.push('~'),
        Value::Bool(value) => id.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => {
            let _ = write!(id, "{value}");
        }
        Value::Float(value) => {
            let _ = write!(id, "~f{:016x}", value.to_bits());
        }
        Value::Text(text) => {
            if reads_as_another_part(text) {
                id.push('\'');
            }
            for character in text.chars() {
                match character {
                    ':' => id.push_str("%3A"),
                    '%' => id.push_str("%25"),
                    other => id.push(other),
                }
            }
        }
        Value::Bytes(bytes) => {
            id.push_str("~x");
            for byte in bytes.iter() {
                let _ = write!(id, "{byte:02x}");
            }
        }
    }
}

fn reads_as_another_part(text: &str) -> bool {
    match text.as_bytes() {
        [] => true,
        [b'\'' | b'~', ..] => true,
        _ => matches!(text, "true" | "false") || integer(text).is_some(),
    }
}

/// The integer whose one text this is. Rust reads `+7` and `007` as integers too, and writes them as `7`.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    text.parse().ok().filter(|_| canonical)
}

/// The key that [`encode_key`] wrote as `id`; `None` where it wrote no such text.
#[must_use]
pub fn decode_key(id: &str) -> Option<Key> {
    let values: Option<Vec<Value>> = id.split(':').map(decode_value).collect();
    let key = Key::new(values?).ok()?;
    // Only what `encode_key` writes is an id: `'007` is not another name of `007`.
    (encode_key(&key) == id).then_some(key)
}

fn decode_value(part: &str) -> Option<Value> {
    Some(match part.as_bytes() {
        [b'\'', ..] => Value::Text(unescape(&part[1..])?.into()),
        [b'~'] => Value::Null,
        [b'~', b'f', ..] => Value::Float(f64::from_bits(u64::from_str_radix(&part[2..], 16).ok()?)),
        [b'~', b'x', hex @ ..] => Value::Bytes(
            hex.chunks(2)
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
                .collect::<Option<_>>()?,
        ),
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        _ => match integer(part) {
            Some(value) => Value::Int(value),
            None => Value::Text(unescape(part)?.into()),
        },
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        plain.push(match rest.get(at..at + 3)? {
            "%3A" => ':',
            "%25" => '%',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Some(plain)
}

/// What is to stand in the sink under a document's id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Content<B> {
    /// This body.
    Upsert(B),
    /// Nothing: the root row is gone.
    Delete,
}

/// A built document: its id with a body, or with nothing where its root row is gone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Document<B> {
    /// Which document.
    pub id: DocumentId,
    /// What is to stand there.
    pub content: Content<B>,
}

impl<B> Document<B> {
    /// A document with a body.
    pub fn upsert(id: DocumentId, body: B) -> Self {
        Self { id, content: Content::Upsert(body) }
    }

    /// A document whose root row is gone: a tombstone.
    pub fn delete(id: DocumentId) -> Self {
        Self { id, content: Content::Delete }
    }
}

/// Which run of an engine wrote: each run that begins at a sink has a greater one than all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

/// How new a written document is. Of two writes of a document the one that was built later has the greater version,
/// across runs too, because the epoch goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version {
    /// The run that wrote.
    pub epoch: Epoch,
    /// The number of the build within that run.
    pub build: u64,
}

/// One write of a document, as a sink receives it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write<B> {
    /// The document.
    pub document: Document<B>,
    /// How new it is.
    pub version: Version,
}

/// The writes of one flush: a unit of work, or the part of one that is written by this call. Cheap to clone; no document
/// stands in it twice.
#[derive(Debug)]
pub struct Writes<B> {
    all: Arc<Vec<Write<B>>>,
    picked: Picked,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Picked {
    Range { from: u32, to: u32 },
    Each(Arc<[u32]>),
}

impl<B> Writes<B> {
    /// All of these writes.
    #[must_use]
    pub fn new(all: Vec<Write<B>>) -> Self {
        let all = Arc::new(all);
        let to = u32::try_from(all.len()).unwrap_or(u32::MAX);
        Self { all, picked: Picked::Range { from: 0, to } }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.picked {
            Picked::Range { from, to } => (to - from) as usize,
            Picked::Each(each) => each.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The writes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Write<B>> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    /// The `at`th of these writes.
    pub(crate) fn get(&self, at: usize) -> &Write<B> {
        &self.all[self.place(at)]
    }

    /// Where the `at`th of these writes stands among all of its unit.
    pub(crate) fn place(&self, at: usize) -> usize {
        match &self.picked {
            Picked::Range { from, .. } => *from as usize + at,
            Picked::Each(each) => each[at] as usize,
        }
    }

    /// The writes from `from` to before `to`, counted within these.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let (from, to) = (from.min(self.len()), to.min(self.len()));
        let picked = match &self.picked {
            Picked::Range { from: first, .. } => {
                Picked::Range { from: first + from as u32, to: first + from.max(to) as u32 }
            }
            Picked::Each(each) => Picked::Each(each[from..from.max(to)].into()),
        };
        Self { all: self.all.clone(), picked }
    }

    /// These of the writes, counted within them.
    pub(crate) fn pick(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let each = places.into_iter().map(|at| self.place(at) as u32).collect();
        Self { all: self.all.clone(), picked: Picked::Each(each) }
    }
}

impl<B> Clone for Writes<B> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), picked: self.picked.clone() }
    }
}

impl<B: PartialEq> PartialEq for Writes<B> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<B: Eq> Eq for Writes<B> {}

impl<B: core::hash::Hash> core::hash::Hash for Writes<B> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|write| write.hash(state));
    }
}

impl<B> FromIterator<Write<B>> for Writes<B> {
    fn from_iter<I: IntoIterator<Item = Write<B>>>(writes: I) -> Self {
        Self::new(writes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[Value]) -> String {
        encode_key(&Key::new(values.iter().cloned()).unwrap())
    }

    #[test]
    fn a12_a_documents_id_is_derived_from_its_key_alone() {
        assert_eq!(id(&[42.into()]), "42");
        assert_eq!(id(&["eu".into(), 42.into()]), "eu:42");
        assert_eq!(id(&["42".into()]), "'42");
        assert_eq!(id(&["".into()]), "'");
        assert_eq!(id(&["'".into(), "~".into(), "true".into()]), "'':'~:'true");
        assert_eq!(id(&[Value::Null, true.into(), 1.0.into()]), "~:true:~f3ff0000000000000");
        assert_eq!(id(&[vec![0_u8, 255].into()]), "~x00ff");
    }

    #[test]
    fn separators_inside_a_part_are_escaped() {
        assert_eq!(id(&["a:b".into(), "c".into()]), "a%3Ab:c");
        assert_eq!(id(&["a".into(), "b:c".into()]), "a:b%3Ac");
        assert_eq!(id(&["a%3Ab".into()]), "a%253Ab");
    }

    #[test]
    fn what_was_not_encoded_does_not_decode() {
        for id in ["'007", "'+7", "'-0", "~q", "~x0", "~x+1", "~f+", "%41", "a%", "~f1", "'a", ""] {
            assert_eq!(decode_key(id), None, "{id}");
        }
    }

    /// Only the one text that an integer is written as stands in its way: a telephone number or a code does not.
    #[test]
    fn texts_that_look_like_numbers_and_are_none_stay_themselves() {
        for text in ["+491234", "007", "-0", "+0", "00", "-", "+", "-01", "9223372036854775808", "1e3", "1 "]
        {
            assert_eq!(id(&[text.into()]), text);
            assert_eq!(decode_key(text), Some(Key::single(text)), "{text}");
        }
        for number in [0, -7, 42, i64::MAX, i64::MIN] {
            let text = alloc::format!("{number}");
            assert_eq!(id(&[number.into()]), text);
            assert_eq!(decode_key(&text), Some(Key::single(number)), "{text}");
            assert_eq!(id(&[Value::from(&*text)]), alloc::format!("'{text}"));
            assert_eq!(decode_key(&alloc::format!("'{text}")), Some(Key::single(&*text)), "{text}");
        }
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        fn value() -> impl Strategy<Value = Value> {
            prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
                "[a-c:%'~f0-9+-]{0,4}|[+-]?0*[0-9]{0,20}|true|false|.{0,8}".prop_map(Value::from),
                any::<i64>().prop_map(|value| Value::from(value.to_string())),
                proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::from),
            ]
        }

        proptest! {
            #[test]
            fn ids_round_trip_and_so_never_meet(values in proptest::collection::vec(value(), 1..4)) {
                let key = Key::new(values).unwrap();
                prop_assert_eq!(decode_key(&encode_key(&key)), Some(key));
            }
        }
    }
}
