//! The values of columns, from their texts and back.
//!
//! The change stream sends values as the text of their type, and every query of the connector asks for the same text, so
//! that a key is equal wherever it was read, by construction. Where PostgreSQL takes two texts for one value (`1.0` and
//! `1.00`, trailing spaces of a `char(n)`), one of them is chosen here.

use core::fmt::Write as _;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::value::Value;

/// What a column's values become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Bytes,
    /// `numeric`: a text without trailing zeros.
    Numeric,
    /// `char(n)`: a text without trailing spaces.
    Padded,
    /// Text, and everything else, as its text.
    Text,
}

impl Kind {
    /// The kind of a type that is no domain.
    pub(super) fn of(type_oid: u32) -> Self {
        match Type::from_oid(type_oid) {
            Some(Type::BOOL) => Self::Bool,
            Some(Type::INT2 | Type::INT4 | Type::INT8 | Type::OID) => Self::Int,
            Some(Type::FLOAT4 | Type::FLOAT8) => Self::Float,
            Some(Type::BYTEA) => Self::Bytes,
            Some(Type::NUMERIC) => Self::Numeric,
            Some(Type::BPCHAR) => Self::Padded,
            _ => Self::Text,
        }
    }

    /// The value of a text of this kind. Text that is not UTF-8, which a database of encoding `SQL_ASCII` may hold, comes
    /// as its bytes.
    pub(super) fn read(self, bytes: &[u8]) -> Value {
        let Ok(text) = core::str::from_utf8(bytes) else { return Value::from(bytes) };
        let read = match self {
            Self::Bool => match text {
                "t" => Some(Value::Bool(true)),
                "f" => Some(Value::Bool(false)),
                _ => None,
            },
            Self::Int => text.parse().ok().map(Value::Int),
            // There is one zero: PostgreSQL takes both for equal.
            Self::Float => text.parse().ok().map(|value: f64| Value::Float(value + 0.0)),
            Self::Bytes => text.strip_prefix("\\x").and_then(unhex).map(Value::from),
            Self::Numeric => Some(Value::from(trim_scale(text))),
            Self::Padded => Some(Value::from(text.trim_end_matches(' '))),
            Self::Text => None,
        };
        read.unwrap_or_else(|| Value::from(text))
    }

    /// A value as a key of this kind would hold it, so that a reference names the key it refers to also where the two
    /// columns are declared differently.
    pub(super) fn apply(self, value: Value) -> Value {
        match (self, value) {
            (Self::Int, Value::Text(text)) => text.parse().map_or(Value::Text(text), Value::Int),
            (Self::Int, Value::Float(value)) if value as i64 as f64 == value => Value::Int(value as i64),
            (Self::Float, Value::Int(value)) => Value::Float(value as f64),
            (Self::Float, Value::Text(text)) => {
                text.parse().map_or(Value::Text(text), |value: f64| Value::Float(value + 0.0))
            }
            (Self::Numeric | Self::Text | Self::Padded, Value::Int(value)) => Value::from(value.to_string()),
            (Self::Numeric, Value::Float(value)) => Value::from(trim_scale(&value.to_string())),
            (Self::Numeric, Value::Text(text)) => Value::from(trim_scale(&text)),
            (Self::Padded, Value::Text(text)) => Value::from(text.trim_end_matches(' ')),
            (_, value) => value,
        }
    }

    /// Whether a key column of this kind can hold the value. NULL no key can.
    pub(super) fn holds(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::Bool, Value::Bool(_))
                | (Self::Int, Value::Int(_))
                | (Self::Float, Value::Float(_))
                | (Self::Bytes, Value::Bytes(_))
                | (Self::Numeric | Self::Padded | Self::Text, Value::Text(_))
        )
    }
}

/// A numeric's text without trailing zeros, as SQL's `trim_scale` leaves it.
fn trim_scale(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// The text of a value, as any type's input takes it; none for NULL.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:e}"),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => bytes.iter().fold(String::from("\\x"), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    })
}

/// A parameter that is sent as text, and that the server reads by the parameter's own type.
#[derive(Debug)]
pub(super) struct Parameter(Option<String>);

impl Parameter {
    /// One value.
    pub(super) fn one(value: &Value) -> Self {
        Self(text(value))
    }

    /// An array of values.
    pub(super) fn array<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut array = String::from("{");
        for value in values {
            if array.len() > 1 {
                array.push(',');
            }
            if let Value::Int(value) = value {
                // It has nothing that must be quoted.
                let _ = write!(array, "{value}");
                continue;
            }
            match text(value) {
                None => array.push_str("NULL"),
                Some(text) => {
                    array.push('"');
                    for character in text.chars() {
                        if matches!(character, '"' | '\\') {
                            array.push('\\');
                        }
                        array.push(character);
                    }
                    array.push('"');
                }
            }
        }
        array.push('}');
        Self(Some(array))
    }
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_type: &Type) -> bool {
        true
    }

    fn encode_format(&self, _type: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_a_value_has_one_form_whatever_its_text() {
        for (kind, text, expected) in [
            (Kind::Int, "-7", Value::Int(-7)),
            (Kind::Bool, "t", Value::Bool(true)),
            (Kind::Float, "-0", Value::Float(0.0)),
            (Kind::Float, "-Infinity", Value::Float(f64::NEG_INFINITY)),
            (Kind::Float, "1e+300", Value::Float(1e300)),
            (Kind::Bytes, "\\x00fF", Value::from(vec![0_u8, 255])),
            (Kind::Numeric, "1.500", Value::from("1.5")),
            (Kind::Numeric, "-10.00", Value::from("-10")),
            (Kind::Numeric, "100", Value::from("100")),
            (Kind::Numeric, "NaN", Value::from("NaN")),
            (Kind::Padded, "ab  ", Value::from("ab")),
            (Kind::Text, "ab  ", Value::from("ab  ")),
            // What is no such text stays what it is.
            (Kind::Int, "x", Value::from("x")),
            (Kind::Bytes, "\\x0", Value::from("\\x0")),
            (Kind::Bytes, "\\x+1", Value::from("\\x+1")),
        ] {
            assert_eq!(kind.read(text.as_bytes()), expected, "{kind:?} {text}");
        }
        assert!(matches!(Kind::Float.read(b"NaN"), Value::Float(value) if value.is_nan()));
        assert_eq!(Kind::Text.read(&[0xff]), Value::from(&[0xff_u8][..]));
    }

    #[test]
    fn a_reference_names_the_key_it_refers_to() {
        assert_eq!(Kind::Int.apply("12".into()), Value::Int(12));
        assert_eq!(Kind::Int.apply("twelve".into()), Value::from("twelve"));
        assert_eq!(Kind::Int.apply(2.0.into()), Value::Int(2));
        assert_eq!(Kind::Int.apply(2.5.into()), Value::Float(2.5));
        assert_eq!(Kind::Numeric.apply(12.into()), Value::from("12"));
        assert_eq!(Kind::Numeric.apply("1.50".into()), Value::from("1.5"));
        assert_eq!(Kind::Float.apply(12.into()), Value::Float(12.0));
        assert!(Kind::Numeric.holds(&"1.5".into()) && !Kind::Int.holds(&"1".into()));
        assert!(!Kind::Text.holds(&Value::Null));
    }

    #[test]
    fn arrays_are_quoted_whatever_they_hold() {
        let values = [Value::from("a\"b\\c,{}"), Value::Null, Value::from("NULL"), Value::from(vec![1_u8])];
        assert_eq!(Parameter::array(&values).0.unwrap(), r#"{"a\"b\\c,{}",NULL,"NULL","\\x01"}"#);
        assert_eq!(Parameter::array([]).0.unwrap(), "{}");
    }
}
