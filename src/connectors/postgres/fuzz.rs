//! Private: the fuzzers' doors to what reads bytes that a server, or whoever answers for one, has sent. No part of the API.

use super::pgoutput;
use super::relation::Known;
use super::schema::{self, Identity, Table};
use super::value::Kind;
use crate::change::{Change, Visibility};
use crate::name::{ColumnName, TableName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Begin { commit: u64, xid: u32 },
    Commit { end: u64 },
    Relation(Relation),
    Insert { relation: u32, new: Tuple },
    Update { relation: u32, old: Option<Old>, new: Tuple },
    Delete { relation: u32, old: Old },
    Truncate { relations: Vec<u32> },
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub id: u32,
    pub schema: String,
    pub table: String,
    pub identity: u8,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub in_identity: bool,
    pub type_oid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    Identity(Tuple),
    Whole(Tuple),
}

pub type Tuple = Vec<Datum>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datum {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// The message that these bytes are. Errors: why they are none.
pub fn decode(bytes: &[u8]) -> Result<Message, String> {
    pgoutput::decode(bytes).map(Message::from).map_err(|error| error.to_string())
}

/// The changes that these messages are, of a table that was opened with this key: each relation among them is taken for a
/// new shape of it. Errors: why one is no message, or no change.
pub fn changes(key: &[ColumnName], messages: &[Vec<u8>]) -> Result<Vec<Change>, String> {
    let (mut known, mut changes) = (None, Vec::new());
    for message in messages {
        let message = pgoutput::decode(message).map_err(|error| error.to_string())?;
        let change = match (&message, &known) {
            (pgoutput::Message::Relation(relation), _) => {
                known = Some(shape(key, relation)?);
                continue;
            }
            (pgoutput::Message::Insert { new, .. }, Some(known)) => known.insert(new, Visibility(1)),
            (pgoutput::Message::Update { old, new, .. }, Some(known)) => {
                known.update(old.as_ref(), new, Visibility(1))
            }
            (pgoutput::Message::Delete { old, .. }, Some(known)) => known.delete(old, Visibility(1)),
            _ => continue,
        };
        changes.push(change?);
    }
    Ok(changes)
}

fn shape(key: &[ColumnName], relation: &pgoutput::Relation<'_>) -> Result<Known, String> {
    let columns: Vec<_> = key.iter().map(|name| schema::Column::of_key(name.clone())).collect();
    let identity = if relation.identity == b'f' { Identity::Full } else { Identity::PrimaryKey };
    let name = TableName::new("books").map_err(|error| error.to_string())?;
    let table = Table { oid: 1, name, key: (0..columns.len()).collect(), columns, identity };
    let kinds = relation.columns.iter().map(|column| Kind::of(column.type_oid)).collect();
    Known::new(&table, relation, kinds)
}

impl From<pgoutput::Message<'_>> for Message {
    fn from(message: pgoutput::Message<'_>) -> Self {
        match message {
            pgoutput::Message::Begin { commit, xid } => Self::Begin { commit, xid },
            pgoutput::Message::Commit { end } => Self::Commit { end },
            pgoutput::Message::Relation(relation) => Self::Relation(Relation {
                id: relation.id,
                schema: relation.schema.into(),
                table: relation.table.into(),
                identity: relation.identity,
                columns: relation.columns.into_iter().map(Column::from).collect(),
            }),
            pgoutput::Message::Insert { relation, new } => Self::Insert { relation, new: tuple(new) },
            pgoutput::Message::Update { relation, old, new } => {
                Self::Update { relation, old: old.map(Old::from), new: tuple(new) }
            }
            pgoutput::Message::Delete { relation, old } => Self::Delete { relation, old: old.into() },
            pgoutput::Message::Truncate { relations } => Self::Truncate { relations },
            pgoutput::Message::Other => Self::Other,
        }
    }
}

impl From<pgoutput::Column<'_>> for Column {
    fn from(column: pgoutput::Column<'_>) -> Self {
        Self { name: column.name.into(), in_identity: column.in_identity, type_oid: column.type_oid }
    }
}

impl From<pgoutput::Old<'_>> for Old {
    fn from(old: pgoutput::Old<'_>) -> Self {
        match old {
            pgoutput::Old::Identity(values) => Self::Identity(tuple(values)),
            pgoutput::Old::Whole(values) => Self::Whole(tuple(values)),
        }
    }
}

fn tuple(values: pgoutput::Tuple<'_>) -> Tuple {
    let datum = |value| match value {
        pgoutput::Datum::Null => Datum::Null,
        pgoutput::Datum::Unchanged => Datum::Unchanged,
        pgoutput::Datum::Text(text) => Datum::Text(text.into()),
        pgoutput::Datum::Binary(bytes) => Datum::Binary(bytes.into()),
    };
    values.into_iter().map(datum).collect()
}
