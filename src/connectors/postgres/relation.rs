//! The changes that the messages of a table are.

use std::sync::Arc;

use super::pgoutput::{Column, Datum, Old, Relation, Tuple};
use super::schema::{Identity, Table, spelled};
use super::value::Kind;
use crate::change::{Change, Visibility};
use crate::name::{ColumnName, TableName};
use crate::row::{Columns, Key, Row};
use crate::value::Value;

/// A table as the stream tells it from some change on: columns may have come and gone since the last time.
#[derive(Debug, Clone)]
pub(super) struct Known {
    table: TableName,
    columns: Columns,
    kinds: Vec<Kind>,
    /// The places of the key's columns, in the order of the key.
    key: Vec<usize>,
    /// Which columns an old row tells where it is told by its identity.
    in_identity: Vec<bool>,
    /// Whether an update always tells the whole old row.
    whole: bool,
}

type Values = Vec<Option<Value>>;

impl Known {
    /// The shape of a relation, whose types are of these kinds. Errors say what does not fit the table as it was opened.
    pub(super) fn new(table: &Table, relation: &Relation<'_>, kinds: Vec<Kind>) -> Result<Self, String> {
        let columns: Result<Vec<ColumnName>, _> =
            relation.columns.iter().map(|column| ColumnName::new(column.name)).collect();
        let columns = columns.map_err(|error| format!("a column cannot be captured: {error}"))?;
        let place = |name: &ColumnName| columns.iter().position(|column| column == name);
        let key: Option<Vec<usize>> = table.key_columns().map(|column| place(&column.name)).collect();
        let key = match key {
            Some(key) => key,
            // The key's one column had another name then, and the identity tells which it was.
            None => match identity(&relation.columns)[..] {
                [at] if table.key.len() == 1 && table.identity != Identity::Full => vec![at],
                _ => {
                    return Err(
                        "its key is not told: a column of it had another name, or was none of the key".into(),
                    );
                }
            },
        };
        Ok(Self {
            table: table.name.clone(),
            key,
            in_identity: relation.columns.iter().map(|column| column.in_identity).collect(),
            whole: relation.identity == b'f',
            columns: columns.into(),
            kinds,
        })
    }

    /// The table, as SQL spells it.
    pub(super) fn spelled(&self) -> String {
        spelled(&self.table)
    }

    pub(super) fn table(&self) -> &TableName {
        &self.table
    }

    pub(super) fn insert(&self, new: &Tuple<'_>, visibility: Visibility) -> Result<Change, String> {
        let after = self.values(new)?;
        let change = Change::upsert(self.table.clone(), self.key(&after)?).with_visibility(visibility);
        Ok(change.with_after(self.row(after)))
    }

    pub(super) fn update(
        &self,
        old: Option<&Old<'_>>,
        new: &Tuple<'_>,
        visibility: Visibility,
    ) -> Result<Change, String> {
        let mut after = self.values(new)?;
        let before = match old {
            Some(old) => Some(self.old(old)?),
            // Its identity is the same as after, or it had been told.
            None if !self.whole => Some(self.identity_of(&after)),
            None => None,
        };
        // What was stored out of line and has not changed is as it was.
        for (at, value) in after.iter_mut().enumerate().filter(|(_, value)| value.is_none()) {
            *value = before.as_ref().and_then(|before| before[at].clone());
        }
        let change = Change::upsert(self.table.clone(), self.key(&after)?).with_visibility(visibility);
        let change = change.with_after(self.row(after));
        Ok(match before {
            Some(before) => change.with_before(self.row(before)),
            None => change,
        })
    }

    pub(super) fn delete(&self, old: &Old<'_>, visibility: Visibility) -> Result<Change, String> {
        let before = self.old(old)?;
        let change = Change::delete(self.table.clone(), self.key(&before)?).with_visibility(visibility);
        Ok(change.with_before(self.row(before)))
    }

    fn old(&self, old: &Old<'_>) -> Result<Values, String> {
        match old {
            Old::Whole(values) => self.values(values),
            Old::Identity(values) => self.values(values).map(|values| self.identity_of(&values)),
        }
    }

    /// These values without those that no identity tells: they were sent as NULLs, or may have been others.
    fn identity_of(&self, values: &Values) -> Values {
        let told = |(value, told): (&Option<Value>, &bool)| value.as_ref().filter(|_| *told).cloned();
        values.iter().zip(&self.in_identity).map(told).collect()
    }

    fn values(&self, tuple: &Tuple<'_>) -> Result<Values, String> {
        if tuple.len() != self.kinds.len() {
            return Err(format!("a row has {} values for {} columns", tuple.len(), self.kinds.len()));
        }
        let value = |(datum, kind): (&Datum<'_>, &Kind)| match datum {
            Datum::Null => Ok(Some(Value::Null)),
            Datum::Unchanged => Ok(None),
            Datum::Text(text) => Ok(Some(kind.read(text))),
            Datum::Binary(_) => Err("a value is sent in binary, which was not asked for".to_owned()),
        };
        tuple.iter().zip(&self.kinds).map(value).collect()
    }

    fn key(&self, values: &Values) -> Result<Key, String> {
        for at in &self.key {
            let name = &self.columns[*at];
            match values.get(*at).and_then(Option::as_ref) {
                Some(Value::Null) => return Err(format!("the key's column `{name}` is NULL")),
                Some(Value::Bytes(_)) if self.kinds[*at] != Kind::Bytes => {
                    return Err(format!(
                        "the key's column `{name}` is not valid UTF-8, so that no document can be named after it"
                    ));
                }
                Some(_) => {}
                None => return Err(format!("the key's column `{name}` is not told")),
            }
        }
        let key = self.key.iter().filter_map(|at| values.get(*at)?.clone());
        Key::new(key).map_err(|error| error.to_string())
    }

    fn row(&self, values: Values) -> Row {
        Row::new(Arc::clone(&self.columns), values)
    }
}

fn identity(columns: &[Column<'_>]) -> Vec<usize> {
    columns.iter().enumerate().filter(|(_, column)| column.in_identity).map(|(at, _)| at).collect()
}
