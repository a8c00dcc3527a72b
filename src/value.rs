//! The values that keys and row images are made of.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use smol_str::SmolStr;

/// One value of a key or of a row image.
///
/// The kinds are few on purpose, and a value has one form only: an integer is the same however wide the column it came
/// in, and what has no kind of its own here (numerics, UUIDs, times) travels as its canonical text. So a key read from a
/// change log and the same key read by a query are equal.
///
/// Values are totally ordered: by kind, then integers and floats by number (floats by IEEE 754's total order), text and
/// bytes by their bytes. A snapshot reads its table in this order (see
/// [`ChangeCapture::snapshot`](crate::ports::ChangeCapture::snapshot)).
#[derive(Clone, Default)]
pub enum Value {
    /// SQL's NULL.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A floating-point number, compared by IEEE 754's total order.
    Float(f64),
    /// Text, or the canonical text of a kind that has no variant here.
    Text(SmolStr),
    /// Bytes.
    Bytes(Arc<[u8]>),
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Text(_) => 4,
            Self::Bytes(_) => 5,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (a, b) => a.rank() == b.rank(),
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.rank());
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Int(value) => value.hash(state),
            Self::Float(value) => value.to_bits().hash(state),
            Self::Text(value) => value.hash(state),
            Self::Bytes(value) => value.hash(state),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{:?}", value.as_str()),
            Self::Bytes(value) => {
                f.write_str("0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from! {
    bool => Bool,
    i8 => Int, i16 => Int, i32 => Int, i64 => Int, u8 => Int, u16 => Int, u32 => Int,
    f32 => Float, f64 => Float,
    &str => Text, alloc::string::String => Text, SmolStr => Text,
    &[u8] => Bytes, Vec<u8> => Bytes,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_integer_is_the_same_however_wide() {
        assert_eq!(Value::from(7_i16), Value::from(7_i64));
        assert_ne!(Value::from(7), Value::from("7"));
    }

    #[test]
    fn what_is_not_there_is_null() {
        assert_eq!(Value::from(None::<i64>), Value::Null);
        assert_eq!(Value::from(Some("x")), Value::from("x"));
    }

    #[test]
    fn floats_are_ordered_totally() {
        assert_eq!(Value::from(f64::NAN), Value::from(f64::NAN));
        assert!(Value::from(-0.0) < Value::from(0.0));
        assert!(Value::from(1.0) < Value::from(f64::INFINITY));
    }

    #[test]
    fn values_are_equal_where_neither_is_the_lesser() {
        let numbers = [0.0, -0.0, 1.0, f64::NAN, -f64::NAN].map(Value::from);
        let others = [Value::Null, true.into(), false.into(), 0.into(), 1.into(), "".into(), "1".into()];
        let bytes: [Value; 2] = [vec![0_u8].into(), Vec::<u8>::new().into()];
        let values: Vec<Value> = numbers.into_iter().chain(others).chain(bytes).collect();
        for (at, value) in values.iter().enumerate() {
            for (other_at, other) in values.iter().enumerate() {
                assert_eq!(value == other, at == other_at, "{value:?}, {other:?}");
                assert_eq!(value == other, value.cmp(other) == Ordering::Equal, "{value:?}, {other:?}");
            }
        }
    }

    #[test]
    fn values_are_told_apart_by_their_hashes() {
        let hash = |value: Value| {
            let mut hasher = std::hash::DefaultHasher::new();
            value.hash(&mut hasher);
            hasher.finish()
        };
        let values = [0.0, -0.0, 1.0, f64::NAN].map(Value::from);
        let others = [Value::Null, true.into(), false.into(), 0.into(), 1.into(), "".into(), "1".into()];
        let hashes: BTreeSet<u64> = values.into_iter().chain(others).map(hash).collect();
        assert_eq!(hashes.len(), 11);
        assert_eq!(hash(f64::NAN.into()), hash(f64::NAN.into()));
    }

    #[test]
    fn a_value_is_small() {
        assert!(size_of::<Value>() <= 24, "{}", size_of::<Value>());
    }
}
