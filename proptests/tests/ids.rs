//! A document's id in the sink: injective, stable, and the same however its key came in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proptest::collection::vec;
use proptest::prelude::*;
use proptests::random::search;
use syncline::document::{decode_key, encode_key};
use syncline::{DocumentId, IndexName, Key, Value};

/// Texts out of what has a meaning in an id, so that two keys that could be taken for each other are drawn often.
fn text() -> impl Strategy<Value = Value> {
    prop_oneof!["[a:%'~01+-]{0,3}", "-?[0-9]{1,3}", "%(3A|25|4)?", "~?[a-z]{0,2}", "true|false|null"]
        .prop_map(Value::from)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text(),
        2 => (-12_i64..12).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => vec(any::<u8>(), 0..3).prop_map(Value::from),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    vec(value(), 1..4).prop_map(|values| Key::new(values).unwrap())
}

#[test]
fn a12_two_keys_have_the_same_id_only_where_they_are_the_same() {
    search("injective", 20_000, (key(), key()), |(one, other)| {
        assert_eq!(encode_key(&one) == encode_key(&other), one == other, "{one:?} {other:?}");
    });
}

#[test]
fn a12_an_id_says_which_key_it_is_of() {
    search("round trip", 20_000, key(), |key| {
        assert_eq!(decode_key(&encode_key(&key)), Some(key));
    });
}

#[test]
fn a12_what_decodes_is_what_was_encoded() {
    search("canonical", 20_000, "[a:%'~0-9+-]{0,8}|.{0,6}|~[xf][0-9a-g]{0,17}", |text| {
        if let Some(key) = decode_key(&text) {
            assert_eq!(encode_key(&key), text, "two texts are the id of {key:?}");
        }
    });
}

/// What a sink holds under these ids must be found again by every later release.
#[test]
fn a12_ids_are_what_they_always_were() {
    let index = IndexName::new("users").unwrap();
    let cases: [(&[Value], &str); 9] = [
        (&[42_i64.into()], "42"),
        (&["eu".into(), 42_i64.into()], "eu:42"),
        (&["42".into()], "'42"),
        (&["a:b".into(), "c".into()], "a%3Ab:c"),
        (&["100%".into()], "100%25"),
        (&[Value::Null, true.into()], "~:true"),
        (&["".into()], "'"),
        (&[1.5.into()], "~f3ff8000000000000"),
        (&[vec![0_u8, 255].into()], "~x00ff"),
    ];
    for (values, text) in cases {
        let id = DocumentId::new(index.clone(), Key::new(values.iter().cloned()).unwrap());
        assert_eq!(id.sink_id(), text);
    }
}

#[test]
fn a12_a_key_is_the_same_however_wide_its_integer_came_in() {
    search("width", 1000, any::<i16>(), |value| {
        let wide = encode_key(&Key::single(i64::from(value)));
        assert_eq!(encode_key(&Key::single(i32::from(value))), wide);
        assert_eq!(encode_key(&Key::single(value)), wide);
    });
}

/// A value that is not there is null, and one that is there is itself.
#[test]
fn an_optional_value_is_null_or_itself() {
    search("optional", 1000, prop::option::of(any::<i64>()), |value| {
        assert_eq!(Value::from(value), value.map_or(Value::Null, Value::from));
    });
}

/// Values that are equal are hashed alike, and those that are not are not all hashed alike.
#[test]
fn values_are_hashed_by_what_they_are() {
    let hash = |value: &Value| {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    };
    let (values, hashes) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    search("hash", 2000, value(), |value| {
        hashes.borrow_mut().insert(hash(&value));
        values.borrow_mut().insert(value);
    });
    assert_eq!(values.borrow().len(), hashes.borrow().len());
}
