//! Whether two texts of JSON say the same.
//!
//! Objects are compared without the order of their fields, and numbers by their exact decimal value, whatever their size:
//! `1.50` is `1.5`, and an amount of thirty digits is not taken for its neighbour.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The deepest nesting that is looked into. Below it only the same text is the same.
const MAX_DEPTH: usize = 128;

/// Whether both texts are JSON, and of one value. The same text is, whatever it is.
pub(super) fn same(one: &str, other: &str) -> bool {
    same_within(one, other, MAX_DEPTH)
}

fn same_within(one: &str, other: &str, depth: usize) -> bool {
    let (one, other) = (one.trim_ascii(), other.trim_ascii());
    if one == other {
        return true;
    }
    let kinds = (one.bytes().next(), other.bytes().next());
    if depth == 0 {
        return false;
    }
    match kinds {
        (Some(b'{'), Some(b'{')) => {
            both::<BTreeMap<String, &RawValue>>(one, other).is_some_and(|(one, other)| {
                one.len() == other.len()
                    && one.iter().zip(&other).all(|((name, value), (other_name, other_value))| {
                        name == other_name && same_within(value.get(), other_value.get(), depth - 1)
                    })
            })
        }
        (Some(b'['), Some(b'[')) => both::<Vec<&RawValue>>(one, other).is_some_and(|(one, other)| {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(&other)
                    .all(|(value, other_value)| same_within(value.get(), other_value.get(), depth - 1))
        }),
        (Some(b'"'), Some(b'"')) => both::<String>(one, other).is_some_and(|(one, other)| one == other),
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => {
            decimal(one).zip(decimal(other)).is_some_and(|(one, other)| one == other)
        }
        // `true`, `false` and `null` have one text each.
        _ => false,
    }
}

fn both<'a, T: serde::Deserialize<'a>>(one: &'a str, other: &'a str) -> Option<(T, T)> {
    serde_json::from_str(one).ok().zip(serde_json::from_str(other).ok())
}

/// A number in the one form that it has: whether it is negative, its digits without zeros at either end, and the power of
/// ten that they are multiplied by. `None` where it is none that can be told.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (is_negative, unsigned) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some((is_negative, significant.to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_in_another_text_is_the_same() {
        for (one, other) in [
            (r#"{"a":1,"b":[true,null,"x"]}"#, "{ \"b\" : [true, null, \"\\u0078\"],\n\"a\" : 1 }"),
            (r#"{"ü":"\ud83e\udd80"}"#, r#"{"\u00fc":"🦀"}"#),
            ("1", "1.0"),
            ("1.50", "15e-1"),
            ("100", "1E+2"),
            ("-0", "0.000e7"),
            ("12345678901234567890123456789.10", "12345678901234567890123456789.1"),
            ("{}", " { } "),
            ("not json", "not json"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
    }

    #[test]
    fn another_value_is_not() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":2}"#),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":{"b":{}}}"#, r#"{"a":{"b":[]}}"#),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("\"1\"", "1"),
            ("true", "false"),
            ("null", "0"),
            ("1", "-1"),
            ("1", "10"),
            ("18446744073709551617", "18446744073709551618"),
            ("0.12345678901234567891", "0.12345678901234567892"),
            ("1e99999999999999999999", "1e99999999999999999998"),
            ("{", "{ "),
            ("{", "{}"),
            ("", "0"),
        ] {
            let is_same = one.trim_ascii() == other.trim_ascii();
            assert_eq!((same(one, other), same(other, one)), (is_same, is_same), "{one} {other}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_the_same_by_its_text_alone() {
        let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(same(&nested(100, "1"), &nested(100, "1.0")));
        assert!(!same(&nested(100_000, "1"), &nested(100_000, "1.0")));
        assert!(same(&nested(100_000, "1"), &nested(100_000, "1")));
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;
        use serde_json::Value as Json;

        fn json() -> impl Strategy<Value = Json> {
            let leaf = prop_oneof![
                Just(Json::Null),
                any::<bool>().prop_map(Json::from),
                any::<i64>().prop_map(Json::from),
                "[a-c\"\\\\]{0,2}".prop_map(Json::from),
            ];
            leaf.prop_recursive(3, 12, 3, |inner| {
                prop_oneof![
                    proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                    proptest::collection::btree_map("[a-c]", inner, 0..3)
                        .prop_map(|fields| Json::Object(fields.into_iter().collect())),
                ]
            })
        }

        proptest! {
            #[test]
            fn it_agrees_with_the_library_where_no_number_is_too_large_for_that(one in json(), other in json()) {
                let pretty = serde_json::to_string_pretty(&one).unwrap();
                prop_assert!(same(&one.to_string(), &pretty));
                prop_assert_eq!(same(&pretty, &other.to_string()), one == other);
            }

            #[test]
            fn no_text_makes_it_panic(one in "[{}\\[\\]\",:0-9eE.+\\- tru]{0,12}", other in "[{}\\[\\]\",:0-9eE.+\\-]{0,12}") {
                prop_assert_eq!(same(&one, &other), same(&other, &one));
            }
        }
    }
}
