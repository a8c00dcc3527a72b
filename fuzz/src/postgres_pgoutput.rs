//! The stream of a PostgreSQL server: any bytes are a message no larger than they are, or refused; what the server could
//! write is read as what it says, and refused where it is cut; and the changes of a table have its key.

use arbitrary::{Arbitrary, Result, Unstructured};
use syncline::ColumnName;
use syncline::connectors::postgres::fuzz::{Column, Datum, Message, Old, Relation, Tuple, changes, decode};

/// Names that may meet, also with those of the key.
const NAMES: [&str; 6] = ["id", "title", "a", "", "x.y", "é"];

/// Object ids of types that are read in ways of their own, and of one that is not.
const TYPES: [u32; 9] = [16, 17, 20, 23, 25, 701, 1042, 1700, 600];

/// Values as the server writes them, and nearly.
const TEXTS: [&str; 12] =
    ["1", "t", "f", "-0", "NaN", "1.500", "\\x00ff", "\\x0", "\\xé0", " x  ", "", "1e999"];

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    if let Ok(message) = decode(bytes) {
        assert!(size(&message) <= bytes.len(), "{message:?} is larger than its bytes");
        if message != Message::Other {
            assert_eq!(decode(&encode(&message)).as_ref(), Ok(&message), "another when written again");
        }
    }
    let mut input = Unstructured::new(bytes);
    let Ok(messages) = (0..5).map(|_| any_message(&mut input)).collect::<Result<Vec<_>>>() else { return };
    let encoded: Vec<Vec<u8>> = messages.iter().map(encode).collect();
    for (message, bytes) in messages.iter().zip(&encoded) {
        assert_eq!(decode(bytes).as_ref(), Ok(message));
        let length = input.int_in_range(0..=bytes.len() - 1).unwrap_or(0);
        let cut = decode(&bytes[..length]);
        assert!(cut.is_err() || cut == Ok(Message::Other) && length > 0, "{length} of {bytes:?} are {cut:?}");
    }
    let key = [["id"].as_slice(), &["id", "title"], &["gone"]]
        [usize::from(bytes.first().copied().unwrap_or(0)) % 3];
    let key: Vec<ColumnName> = key.iter().map(|name| ColumnName::new(name).unwrap()).collect();
    for change in changes(&key, &encoded).into_iter().flatten() {
        assert_eq!(change.key.values().len(), key.len(), "{change:?}");
    }
}

/// How many values and bytes a message holds.
fn size(message: &Message) -> usize {
    let tuple = |values: &Tuple| -> usize {
        let bytes = |value: &Datum| match value {
            Datum::Text(bytes) | Datum::Binary(bytes) => bytes.len(),
            Datum::Null | Datum::Unchanged => 0,
        };
        values.iter().map(|value| 1 + bytes(value)).sum()
    };
    let old = |old: &Old| match old {
        Old::Identity(values) | Old::Whole(values) => tuple(values),
    };
    match message {
        Message::Begin { .. } | Message::Commit { .. } | Message::Other => 0,
        Message::Relation(relation) => {
            let columns = relation.columns.iter().map(|column| 1 + column.name.len());
            relation.schema.len() + relation.table.len() + columns.sum::<usize>()
        }
        Message::Insert { new, .. } => tuple(new),
        Message::Update { old: before, new, .. } => before.as_ref().map_or(0, old) + tuple(new),
        Message::Delete { old: before, .. } => old(before),
        Message::Truncate { relations } => relations.len(),
    }
}

/// Writes a message as the manual says that the server does. What nobody reads is one or zero.
fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Begin { commit, xid } => {
            out.push(b'B');
            out.extend([commit.to_be_bytes(), 1_u64.to_be_bytes()].concat());
            out.extend(xid.to_be_bytes());
        }
        Message::Commit { end } => {
            out.extend([b'C', 0]);
            out.extend([1_u64.to_be_bytes(), end.to_be_bytes(), 1_u64.to_be_bytes()].concat());
        }
        Message::Relation(relation) => {
            out.push(b'R');
            out.extend(relation.id.to_be_bytes());
            out.extend([relation.schema.as_bytes(), &[0], relation.table.as_bytes(), &[0]].concat());
            out.push(relation.identity);
            out.extend((relation.columns.len() as u16).to_be_bytes());
            for column in &relation.columns {
                out.push(u8::from(column.in_identity));
                out.extend([column.name.as_bytes(), &[0]].concat());
                out.extend([column.type_oid.to_be_bytes(), u32::MAX.to_be_bytes()].concat());
            }
        }
        Message::Insert { relation, new } => {
            out.push(b'I');
            out.extend(relation.to_be_bytes());
            tuple(&mut out, b'N', new);
        }
        Message::Update { relation, old: before, new } => {
            out.push(b'U');
            out.extend(relation.to_be_bytes());
            before.iter().for_each(|before| old(&mut out, before));
            tuple(&mut out, b'N', new);
        }
        Message::Delete { relation, old: before } => {
            out.push(b'D');
            out.extend(relation.to_be_bytes());
            old(&mut out, before);
        }
        Message::Truncate { relations } => {
            out.push(b'T');
            out.extend((relations.len() as u32).to_be_bytes());
            out.push(0);
            out.extend(relations.iter().flat_map(|relation| relation.to_be_bytes()));
        }
        Message::Other => out.extend(b"Yint4"),
    }
    out
}

fn old(out: &mut Vec<u8>, old: &Old) {
    match old {
        Old::Identity(values) => tuple(out, b'K', values),
        Old::Whole(values) => tuple(out, b'O', values),
    }
}

fn tuple(out: &mut Vec<u8>, tag: u8, values: &Tuple) {
    out.push(tag);
    out.extend((values.len() as u16).to_be_bytes());
    for value in values {
        let (tag, bytes) = match value {
            Datum::Null => (b'n', None),
            Datum::Unchanged => (b'u', None),
            Datum::Text(bytes) => (b't', Some(bytes)),
            Datum::Binary(bytes) => (b'b', Some(bytes)),
        };
        out.push(tag);
        if let Some(bytes) = bytes {
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
    }
}

fn any_message(input: &mut Unstructured<'_>) -> Result<Message> {
    Ok(match input.int_in_range(0..=9)? {
        0 => Message::Begin { commit: u64::arbitrary(input)?, xid: u32::arbitrary(input)? },
        1 => Message::Commit { end: u64::arbitrary(input)? },
        2..=4 => {
            let columns = (0..input.int_in_range(0..=3)?).map(|_| {
                let (name, in_identity) = (any_name(input)?, bool::arbitrary(input)?);
                Ok(Column { name, in_identity, type_oid: *input.choose(&TYPES)? })
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let (id, identity) = (u32::arbitrary(input)?, *input.choose(b"dnfi\0")?);
            Message::Relation(Relation {
                id,
                schema: any_name(input)?,
                table: any_name(input)?,
                identity,
                columns,
            })
        }
        5 => Message::Insert { relation: u32::arbitrary(input)?, new: any_tuple(input)? },
        6 | 7 => {
            let old = if bool::arbitrary(input)? { Some(any_old(input)?) } else { None };
            Message::Update { relation: u32::arbitrary(input)?, old, new: any_tuple(input)? }
        }
        8 => Message::Delete { relation: u32::arbitrary(input)?, old: any_old(input)? },
        _ => Message::Truncate { relations: Vec::arbitrary(input)? },
    })
}

fn any_name(input: &mut Unstructured<'_>) -> Result<String> {
    Ok(match bool::arbitrary(input)? {
        true => (*input.choose(&NAMES)?).to_owned(),
        false => String::arbitrary(input)?.replace('\0', ""),
    })
}

fn any_old(input: &mut Unstructured<'_>) -> Result<Old> {
    let values = any_tuple(input)?;
    Ok(if bool::arbitrary(input)? { Old::Identity(values) } else { Old::Whole(values) })
}

fn any_tuple(input: &mut Unstructured<'_>) -> Result<Tuple> {
    let values = (0..input.int_in_range(0..=3)?).map(|_| {
        Ok(match input.int_in_range(0..=5)? {
            0 => Datum::Null,
            1 => Datum::Unchanged,
            2 => Datum::Binary(Vec::arbitrary(input)?),
            3 => Datum::Text(Vec::arbitrary(input)?),
            _ => Datum::Text(input.choose(&TEXTS)?.as_bytes().to_vec()),
        })
    });
    values.collect()
}
