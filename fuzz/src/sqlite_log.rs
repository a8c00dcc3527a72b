//! The change log with whatever another program may have written into it: it is read as the changes that its records say,
//! by pages of any size, or refused; a record is never passed over.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, params_from_iter};
use syncline::connectors::sqlite::fuzz::Log;
use syncline::{Captured, Change, ColumnName, Key, Position, Row, TableName, Value};

use crate::sqlite::Stored;

#[derive(Debug, Arbitrary)]
struct Case {
    shapes: Vec<Shape>,
    records: Vec<Record>,
    page_rows: u8,
}

#[derive(Debug, Arbitrary)]
struct Shape {
    table: TableText,
    columns: Json<u8>,
    key: Json<u8>,
}

#[derive(Debug, Arbitrary)]
enum TableText {
    Captured,
    OtherCase,
    Other,
}

/// The text of a list, or any text.
#[derive(Debug, Arbitrary)]
enum Json<T> {
    List(Vec<T>),
    Any(String),
}

#[derive(Debug, Arbitrary)]
struct Record {
    /// How many ids lie between it and the record before.
    gap: u8,
    shape: u8,
    op: Op,
    values: Vec<Stored>,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Insert,
    Update,
    Delete,
    Replace,
    Any(Stored),
}

/// How many values of images a record has room for: twice as many as the captured table has columns.
const ROOM: usize = 6;

thread_local! {
    static LOG: RefCell<Log> = RefCell::new({
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)").unwrap();
        Log::open(connection, "fuzz", &[table()], 1).unwrap()
    });
}

fn table() -> TableName {
    TableName::new("t").unwrap()
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary(&mut Unstructured::new(bytes)) else { return };
    LOG.with_borrow_mut(|log| {
        write(log.connection(), &case).unwrap();
        let read = log.read(usize::from(case.page_rows % 4) + 1).map(|items| {
            assert_ne!(items.last(), Some(&Captured::More), "nothing follows the end");
            items.into_iter().filter(|item| *item != Captured::More).collect::<Vec<_>>()
        });
        match (read, expected(&case)) {
            (Ok(read), Some(expected)) => assert_eq!(read, expected),
            (Err(_), None) => {}
            (read, expected) => panic!("{read:?}, where {expected:?} was written: {case:#?}"),
        }
    });
}

/// Writes the log as the case has it.
fn write(connection: &Connection, case: &Case) -> rusqlite::Result<()> {
    connection.execute_batch(
        "BEGIN; DELETE FROM syncline_changes; DELETE FROM syncline_shapes; UPDATE sqlite_sequence SET seq = 0",
    )?;
    for (at, shape) in case.shapes.iter().enumerate() {
        connection
            .prepare_cached("INSERT INTO syncline_shapes(id, tbl, columns, key) VALUES (?1, ?2, ?3, ?4)")?
            .execute((at as i64, shape.table.name(), shape.columns_text(), shape.key_text()))?;
    }
    for (id, record) in case.numbered() {
        let (numbers, op) = ([Stored::Int(id), Stored::Int(record.shape.into())], record.op.stored());
        let nulls = std::iter::repeat_n(&Stored::Null, ROOM);
        let values = record.values.iter().chain(nulls).take(ROOM);
        connection
            .prepare_cached(
                "INSERT INTO syncline_changes(id, shape, op, v0, v1, v2, v3, v4, v5) \
                 VALUES (?1, ?2, coalesce(?3, ''), ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params_from_iter(numbers.iter().chain([&op]).chain(values)))?;
    }
    connection.execute_batch("COMMIT")
}

/// What it says; `None` where it must be refused.
fn expected(case: &Case) -> Option<Vec<Captured>> {
    let mut items = Vec::new();
    let mut end = 0;
    for (id, record) in case.numbered() {
        end = id;
        let shape = case.shapes.get(usize::from(record.shape))?;
        let columns: Vec<String> = serde_json::from_str(&shape.columns_text()).ok()?;
        let key: Vec<usize> = serde_json::from_str(&shape.key_text()).ok()?;
        if key.iter().any(|at| *at >= columns.len()) {
            return None;
        }
        if matches!(shape.table, TableText::Other) {
            continue;
        }
        let columns: Vec<ColumnName> = columns.iter().map(ColumnName::new).collect::<Result<_, _>>().ok()?;
        items.push(record.change(&columns, &key)?.into());
    }
    items.push(Captured::Checkpoint(Position(end.try_into().unwrap())));
    Some(items)
}

impl Case {
    fn numbered(&self) -> impl Iterator<Item = (i64, &Record)> {
        self.records.iter().scan(0, |id, record| {
            *id += 1 + i64::from(record.gap);
            Some((*id, record))
        })
    }
}

impl TableText {
    fn name(&self) -> &'static str {
        match self {
            Self::Captured => "t",
            Self::OtherCase => "T",
            Self::Other => "u",
        }
    }
}

impl Shape {
    fn columns_text(&self) -> String {
        match &self.columns {
            Json::List(columns) => {
                let names = columns.iter().map(|column| format!("c{column}"));
                serde_json::to_string(&names.collect::<Vec<_>>()).unwrap()
            }
            Json::Any(text) => text.clone(),
        }
    }

    fn key_text(&self) -> String {
        match &self.key {
            Json::List(key) => {
                serde_json::to_string(&key.iter().map(|at| at % 4).collect::<Vec<_>>()).unwrap()
            }
            Json::Any(text) => text.clone(),
        }
    }
}

impl Op {
    fn stored(&self) -> Stored {
        let letter = match self {
            Self::Insert => "i",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Replace => "r",
            Self::Any(stored) => return stored.clone(),
        };
        Stored::Text(letter.into())
    }
}

impl Record {
    fn change(&self, columns: &[ColumnName], key: &[usize]) -> Option<Change> {
        let width = columns.len();
        let letter = match self.op.stored() {
            Stored::Text(bytes) => bytes,
            _ => return None,
        };
        let (before, after) = match &*letter {
            b"i" => (None, Some(0)),
            b"u" => (Some(0), Some(width)),
            b"d" | b"r" => (Some(0), None),
            _ => return None,
        };
        let last = after.or(before).unwrap_or(0);
        // What there is no room for is not there.
        if last + width > ROOM {
            return None;
        }
        let image = |from: usize| {
            let values = (from..from + width).map(|at| Some(self.value(at)));
            Row::new(columns.to_vec().into(), values)
        };
        let parts: Option<Vec<Value>> = key.iter().map(|at| self.key_value(last + at)).collect();
        let key = Key::new(parts?).ok()?;
        let change = match &*letter {
            b"d" => Change::delete(table(), key),
            _ => Change::upsert(table(), key),
        };
        Some(Change { before: before.map(image), after: after.map(image), ..change })
    }

    /// Text that is none comes as its bytes.
    fn value(&self, at: usize) -> Value {
        match self.values.get(at) {
            Some(Stored::Text(bytes)) if std::str::from_utf8(bytes).is_err() => bytes.clone().into(),
            _ => self.key_value(at).unwrap_or_default(),
        }
    }

    fn key_value(&self, at: usize) -> Option<Value> {
        Some(match self.values.get(at).unwrap_or(&Stored::Null) {
            Stored::Null => Value::Null,
            Stored::Int(value) => Value::Int(*value),
            // SQLite holds no NaN, and one zero.
            Stored::Real(value) if value.is_nan() => Value::Null,
            Stored::Real(value) => Value::Float(if *value == 0.0 { 0.0 } else { *value }),
            Stored::Text(bytes) => std::str::from_utf8(bytes).ok()?.into(),
            Stored::Blob(bytes) => bytes.clone().into(),
        })
    }
}
