//! Document ids: what is encoded decodes to the same key, two keys never meet in one id, and a text that decodes at all
//! is the very one that its key is written as.

use arbitrary::{Arbitrary, Result, Unstructured};
use syncline::document::{decode_key, encode_key};
use syncline::{Key, Value};

/// Two keys, as parts, and a text that claims to be an id.
#[derive(Debug, Arbitrary)]
struct Case {
    one: Vec<Part>,
    other: Vec<Part>,
    text: String,
}

/// A part of a key. Texts are of the characters that the encoding gives a meaning to, or of any.
#[derive(Debug)]
struct Part(Value);

/// What stands for itself, for another part, or for an escape.
const TELLING: [&str; 16] =
    [":", "%", "'", "~", "3A", "25", "f", "x", "-", "0", "7", "42", "true", "false", "", "a"];

impl<'a> Arbitrary<'a> for Part {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match bytes.int_in_range(0..=7)? {
            0 => Value::Null,
            1 => bool::arbitrary(bytes)?.into(),
            2 => i64::arbitrary(bytes)?.into(),
            3 => Value::Float(f64::from_bits(u64::arbitrary(bytes)?)),
            4 => String::arbitrary(bytes)?.into(),
            5 => <Vec<u8>>::arbitrary(bytes)?.into(),
            6 => i64::arbitrary(bytes)?.to_string().into(),
            _ => {
                let pieces = (0..bytes.int_in_range(0..=4)?).map(|_| Ok(*bytes.choose(&TELLING)?));
                pieces.collect::<Result<String>>()?.into()
            }
        }))
    }
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let keys = [case.one, case.other].map(|parts| Key::new(parts.into_iter().map(|part| part.0)).ok());
    let ids = keys.each_ref().map(|key| key.as_ref().map(encode_key));
    for (key, id) in keys.iter().zip(&ids) {
        assert_eq!(id.as_deref().and_then(decode_key), *key, "{id:?} decodes to another key");
    }
    assert_eq!(keys[0] == keys[1], ids[0] == ids[1], "{keys:?} meet in {ids:?}");
    if let Some(key) = decode_key(&case.text) {
        assert_eq!(encode_key(&key), case.text, "{key:?} has two names");
    }
}
