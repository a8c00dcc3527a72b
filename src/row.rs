//! Keys and row images.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::name::ColumnName;
use crate::value::Value;

/// The values of a row's primary key, in the order of the key's columns.
///
/// A key of one column, the common case, is stored without an allocation; a composite one is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Parts);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Parts {
    One(Value),
    Many(Arc<[Value]>),
}

/// A key was made of no columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a key needs at least one column")]
pub struct EmptyKey;

impl Key {
    /// A key of these values. Errors: [`EmptyKey`] where there are none.
    pub fn new(values: impl IntoIterator<Item = Value>) -> Result<Self, EmptyKey> {
        let mut values = values.into_iter();
        let first = values.next().ok_or(EmptyKey)?;
        match values.next() {
            None => Ok(Self(Parts::One(first))),
            Some(second) => {
                let mut all = Vec::with_capacity(2 + values.size_hint().0);
                all.extend([first, second]);
                all.extend(values);
                Ok(Self(Parts::Many(all.into())))
            }
        }
    }

    /// A key of one column.
    pub fn single(value: impl Into<Value>) -> Self {
        Self(Parts::One(value.into()))
    }

    /// The values, in the order of the key's columns; never empty.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match &self.0 {
            Parts::One(value) => core::slice::from_ref(value),
            Parts::Many(values) => values,
        }
    }
}

impl<T: Into<Value>> From<T> for Key {
    fn from(value: T) -> Self {
        Self::single(value)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values() {
            [value] => value.fmt(f),
            values => f.debug_list().entries(values).finish(),
        }
    }
}

/// The columns of a table in the order in which its row images give them; shared by all images of a table. One word, so
/// that a change, which is moved several times on its way in, stays small.
pub type Columns = Arc<Vec<ColumnName>>;

/// A row as it was at one moment, as far as the source knows it.
///
/// A column that the source did not send (an unchanged value stored out of line, say) is *unknown*, which is not NULL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Row {
    columns: Columns,
    values: Arc<[Option<Value>]>,
}

impl Row {
    /// An image over shared columns: `values[i]` is that of `columns[i]`, `None` where it is unknown. Columns past the
    /// end of `values` are unknown; values past the end of `columns` are dropped.
    #[must_use]
    pub fn new(columns: Columns, values: impl IntoIterator<Item = Option<Value>>) -> Self {
        let values = values.into_iter().take(columns.len()).collect();
        Self { columns, values }
    }

    /// The value of a column; `None` where it is unknown.
    #[must_use]
    pub fn value(&self, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name.as_str() == column)?;
        self.values.get(at)?.as_ref()
    }

    /// The columns that are known, with their values.
    pub fn known(&self) -> impl Iterator<Item = (&ColumnName, &Value)> {
        self.columns.iter().zip(self.values.iter()).filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// The key that these columns form; `None` where one of them is unknown, or there are none.
    pub fn key(&self, columns: &[ColumnName]) -> Option<Key> {
        let values: Option<Vec<Value>> =
            columns.iter().map(|column| self.value(column.as_str()).cloned()).collect();
        Key::new(values?).ok()
    }
}

impl FromIterator<(ColumnName, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (ColumnName, Value)>>(columns: I) -> Self {
        let (columns, values): (Vec<_>, Vec<_>) =
            columns.into_iter().map(|(name, value)| (name, Some(value))).unzip();
        Self { columns: columns.into(), values: values.into() }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.known()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_a_key_with_no_columns_is_refused() {
        assert_eq!(Key::new([]).unwrap_err().to_string(), "a key needs at least one column");
        assert_eq!(Key::new([Value::from(1)]).unwrap(), Key::single(1));
        assert_eq!(Key::new([1.into(), "a".into()]).unwrap().values(), [Value::from(1), Value::from("a")]);
    }

    #[test]
    fn unknown_is_not_null() {
        let columns: Columns =
            ["a", "b", "c"].iter().map(|name| ColumnName::new(name).unwrap()).collect::<Vec<_>>().into();
        let row = Row::new(columns.clone(), [Some(Value::Null), None]);
        assert_eq!(row.value("a"), Some(&Value::Null));
        assert_eq!(row.value("b"), None);
        assert_eq!(row.value("c"), None);
        assert_eq!(row.key(&columns[..1]), Some(Key::single(Value::Null)));
        assert_eq!(row.key(&columns[..2]), None);
        assert_eq!(row.key(&[]), None);
    }
}
