//! What the targets of the SQLite connector share: values as a database may hold them, and tables to hold them.

use arbitrary::{Arbitrary, Result, Unstructured};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use syncline::{Key, Value};

/// A value as SQLite may hold it: text need not be UTF-8.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    Null,
    Int(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// Texts that are numbers to SQLite, or nearly.
const NUMBERS: [&str; 20] = [
    "-",
    "+",
    ".",
    "e",
    "E",
    "0",
    "1",
    "9",
    "00",
    "922337203685477580",
    "7",
    "8",
    " ",
    "\t",
    "\u{b}",
    "\u{c}",
    "\r",
    "\n",
    "x",
    "\0",
];

impl<'a> Arbitrary<'a> for Stored {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match bytes.int_in_range(0..=9)? {
            0 => Self::Null,
            1 => Self::Int(bytes.arbitrary()?),
            2 => Self::Int(i64::from(bytes.arbitrary::<i8>()?)),
            3 => Self::Real(f64::from_bits(bytes.arbitrary()?)),
            4 => Self::Real(f64::from(bytes.arbitrary::<i8>()?) / 4.0),
            5 => Self::Text(bytes.arbitrary()?),
            6 => Self::Text(bytes.arbitrary::<String>()?.into()),
            7 => {
                let pieces = (0..bytes.int_in_range(0..=8)?).map(|_| Ok(*bytes.choose(&NUMBERS)?));
                Self::Text(pieces.collect::<Result<String>>()?.into())
            }
            8 => Self::Text(vec![b'a' + bytes.int_in_range(0..=3)?]),
            _ => Self::Blob(bytes.arbitrary()?),
        })
    }
}

impl Stored {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Int((*value).into()),
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Real(*value),
            Value::Text(text) => Self::Text(text.as_bytes().to_vec()),
            Value::Bytes(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Stored {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A value as a column without a type gives it back; `None` for text that is not UTF-8.
pub(crate) fn read(stored: ValueRef<'_>) -> Option<Value> {
    Some(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => value.into(),
        ValueRef::Real(value) => if value == 0.0 { 0.0 } else { value }.into(),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok()?.into(),
        ValueRef::Blob(bytes) => bytes.into(),
    })
}

/// Tables `t` of every kind of key, each with the columns of its key and a body.
pub(crate) const TABLES: [(&str, &[&str]); 13] = [
    ("CREATE TABLE t(a INTEGER PRIMARY KEY, body)", &["a"]),
    ("CREATE TABLE t(a INT PRIMARY KEY, body)", &["a"]),
    ("CREATE TABLE t(a TEXT PRIMARY KEY, body)", &["a"]),
    ("CREATE TABLE t(a PRIMARY KEY, body)", &["a"]),
    ("CREATE TABLE t(a NUMERIC PRIMARY KEY, body) WITHOUT ROWID", &["a"]),
    ("CREATE TABLE t(a REAL PRIMARY KEY, body)", &["a"]),
    ("CREATE TABLE t(a BLOB PRIMARY KEY, body) WITHOUT ROWID", &["a"]),
    ("CREATE TABLE t(a TEXT PRIMARY KEY COLLATE NOCASE, body)", &["a"]),
    ("CREATE TABLE t(a TEXT PRIMARY KEY COLLATE RTRIM, body) WITHOUT ROWID", &["a"]),
    ("CREATE TABLE t(a ANY PRIMARY KEY, body ANY) STRICT", &["a"]),
    ("CREATE TABLE t(a, b TEXT, body, PRIMARY KEY (a, b))", &["a", "b"]),
    ("CREATE TABLE t(a REAL, b NUMERIC, body, PRIMARY KEY (b, a)) WITHOUT ROWID", &["b", "a"]),
    ("CREATE TABLE t(a INT, b INTEGER, body, PRIMARY KEY (a, b DESC))", &["a", "b"]),
];

/// A table, with the rows that it takes.
#[derive(Debug, Arbitrary)]
pub(crate) struct Table {
    kind: u8,
    rows: Vec<(Stored, Stored, Stored)>,
}

impl Table {
    pub(crate) fn key_columns(&self) -> &'static [&'static str] {
        TABLES[usize::from(self.kind) % TABLES.len()].1
    }

    /// A database that holds it.
    pub(crate) fn create(&self) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES[usize::from(self.kind) % TABLES.len()].0).unwrap();
        let insert = match self.key_columns() {
            [_] => "INSERT OR IGNORE INTO t(a, body) VALUES (?1, ?2)",
            _ => "INSERT OR IGNORE INTO t(a, body, b) VALUES (?1, ?2, ?3)",
        };
        let mut insert = connection.prepare(insert).unwrap();
        let width = 1 + self.key_columns().len();
        for (a, body, b) in &self.rows {
            // A value that the column will not take, or a text longer than SQLite's limit, is no row.
            let _ = insert.execute(params_from_iter([a, body, b].into_iter().take(width)));
        }
        drop(insert);
        connection
    }

    /// Deletes the row of this key.
    pub(crate) fn delete(&self, connection: &Connection, key: &Key) {
        let stored: Vec<Stored> = key.values().iter().map(Stored::of).collect();
        let same: Vec<String> = self.key_columns().iter().map(|column| format!("{column} IS ?")).collect();
        let sql = format!("DELETE FROM t WHERE {}", same.join(" AND "));
        assert_eq!(connection.execute(&sql, params_from_iter(&stored)).unwrap(), 1);
    }

    /// The keys and bodies that it holds, each key `None` where it names no document.
    pub(crate) fn rows(&self, connection: &Connection) -> Vec<(Option<Key>, Option<Value>)> {
        let width = self.key_columns().len();
        let sql = format!("SELECT {}, body FROM t", self.key_columns().join(", "));
        let mut select = connection.prepare(&sql).unwrap();
        let mut rows = select.query([]).unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let values: Option<Vec<Value>> = (0..width).map(|at| read(row.get_ref(at).unwrap())).collect();
            let body = match row.get_ref(width).unwrap() {
                ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().map(Value::from),
                _ => None,
            };
            all.push((values.map(|values| Key::new(values).unwrap()), body));
        }
        all
    }
}

/// A key as it may be asked for.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) struct Asked(Vec<Stored>);

impl Asked {
    /// The key; `None` where there is none of these values.
    pub(crate) fn key(&self) -> Option<Key> {
        let value = |stored: &Stored| {
            Some(match stored {
                Stored::Null => Value::Null,
                Stored::Int(value) => Value::Int(*value),
                Stored::Real(value) => Value::Float(*value),
                Stored::Text(bytes) => std::str::from_utf8(bytes).ok()?.into(),
                Stored::Blob(bytes) => bytes.clone().into(),
            })
        };
        Key::new(self.0.iter().map(value).collect::<Option<Vec<_>>>()?).ok()
    }
}
