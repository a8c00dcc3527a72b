//! What the database says of a table: its columns, its key, and what else must be unique in it.

use rusqlite::{Connection, OptionalExtension};

use super::database::Database;
use super::error::SqliteError;
use crate::name::{ColumnName, TableName};
use crate::value::Value;

/// Everything of the connector's own in a database begins with this.
pub(super) const OWN: &str = "syncline_";

/// How SQLite converts a value on its way into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Affinity {
    Blob,
    Text,
    Numeric,
    Integer,
    Real,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) affinity: Affinity,
    /// Whether integers and floats can stand side by side in it.
    pub(super) mixes_numbers: bool,
}

/// Columns of which no two rows may hold the same values, each with the collation it is compared by.
pub(super) type Unique = Vec<(String, String)>;

/// A table as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name in the spelling of the database.
    pub(super) name: String,
    /// All its columns, generated ones too.
    pub(super) columns: Vec<Column>,
    /// The places of the key's columns among them, in the order of the key.
    pub(super) key: Vec<usize>,
    /// The key and every other constraint by which an insert can replace a row.
    pub(super) uniques: Vec<Unique>,
    /// The unique indexes over expressions, which no trigger can look up.
    pub(super) unseen_uniques: Vec<String>,
}

impl Table {
    /// Reads a table of the main database. Errors name a table that is missing, is not a table, or has no key.
    pub(super) fn read(
        database: &Database,
        connection: &Connection,
        name: &TableName,
    ) -> Result<Self, SqliteError> {
        let wrong = |what: &str| database.definition(format!("`{name}` {what}"));
        if name.schema().is_some_and(|schema| !schema.eq_ignore_ascii_case("main")) {
            return Err(wrong("stands in another schema; only tables of the file itself can be captured"));
        }
        let doing = format!("reading the schema of `{name}`");
        let found = connection
            .query_row(
                "SELECT name, type, wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'",
                [name.table()],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()
            .map_err(database.failed(&*doing))?;
        let Some((actual, kind, without_rowid, strict)) = found else {
            return Err(database.definition(format!("there is no table `{name}`")));
        };
        if kind != "table" {
            return Err(wrong(&format!("is a {kind}, not a table; name the tables it reads from instead")));
        }
        if actual.to_ascii_lowercase().starts_with(OWN) {
            return Err(wrong("belongs to the change log itself"));
        }
        let table =
            Self::describe(connection, actual, without_rowid, strict).map_err(database.failed(doing))?;
        if table.key.is_empty() {
            return Err(wrong(
                "has no PRIMARY KEY, so that nothing names its rows (a hidden rowid does not last); declare one",
            ));
        }
        for column in &table.columns {
            ColumnName::new(&column.name).map_err(|error| wrong(&format!("cannot be captured: {error}")))?;
        }
        Ok(table)
    }

    fn describe(
        connection: &Connection,
        name: String,
        without_rowid: bool,
        strict: bool,
    ) -> rusqlite::Result<Self> {
        let mut columns = Vec::new();
        let mut key = Vec::new();
        let mut statement =
            connection.prepare("SELECT name, type, pk FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")?;
        let mut rows = statement.query([&name])?;
        while let Some(row) = rows.next()? {
            let (column, declared, place): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if place > 0 {
                key.push((place, columns.len()));
            }
            let affinity = affinity(&declared, strict);
            let loose = matches!(affinity, Affinity::Blob | Affinity::Numeric | Affinity::Integer);
            let mixes_numbers = loose && (!strict || declared.eq_ignore_ascii_case("ANY"));
            columns.push(Column { name: column, affinity, mixes_numbers });
        }
        key.sort_unstable();
        let key: Vec<usize> = key.into_iter().map(|(_, at)| at).collect();

        let mut uniques = Vec::new();
        let mut unseen_uniques = Vec::new();
        let mut has_key_index = false;
        let mut indexes = connection.prepare(
            "SELECT name, origin FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY name",
        )?;
        let indexes: Vec<(String, String)> =
            indexes.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        for (index, origin) in indexes {
            has_key_index |= origin == "pk";
            let mut statement = connection
                .prepare("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno")?;
            let parts: Vec<(Option<String>, Option<String>)> = statement
                .query_map([&index], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let unique: Option<Unique> = parts
                .into_iter()
                .map(|(column, collation)| Some((column?, collation.unwrap_or_else(|| "BINARY".into()))))
                .collect();
            match unique {
                Some(unique) if uniques.contains(&unique) => {}
                Some(unique) => uniques.push(unique),
                None => unseen_uniques.push(index),
            }
        }
        if !has_key_index {
            uniques.insert(0, key.iter().map(|at| (columns[*at].name.clone(), "BINARY".into())).collect());
        }
        // Without an index of its own the key is the rowid, which holds integers only.
        if let ([at], false, false) = (&*key, has_key_index, without_rowid) {
            columns[*at].mixes_numbers = false;
        }
        Ok(Self { name, columns, key, uniques, unseen_uniques })
    }

    pub(super) fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|at| &self.columns[*at])
    }

    pub(super) fn column_names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }
}

/// The affinity of a declared type, by the rules of SQLite's "Datatypes In SQLite", section 3.1.
pub(super) fn affinity(declared: &str, strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if strict && declared == "ANY" {
        Affinity::Blob
    } else if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if declared.is_empty() || has("BLOB") {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

impl Affinity {
    /// Whether a column of this affinity can hold exactly this value.
    pub(super) fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null | Value::Bool(_)) | (Self::Text, Value::Float(_)) => false,
            (affinity, value) => affinity.apply(value.clone()) == *value,
        }
    }

    /// A value as a column of this affinity would hold it, so that a reference names the key it refers to also where
    /// the two columns are declared differently. Floats are left alone where a text is wanted: only SQLite itself
    /// writes them as it does.
    pub(super) fn apply(self, value: Value) -> Value {
        match (self, value) {
            (Self::Text, Value::Int(value)) => Value::from(value.to_string()),
            (Self::Real, Value::Int(value)) => Value::Float(value as f64),
            (Self::Integer | Self::Numeric, Value::Float(value)) => number(value),
            (Self::Integer | Self::Numeric | Self::Real, Value::Text(text)) => {
                // SQLite reads a number up to a NUL, though as a float alone; to it the vertical tab is white space too.
                let (number_text, is_cut) =
                    text.split_once('\0').map_or((&*text, false), |(text, _)| (text, true));
                let digits = number_text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
                let looks_numeric = digits.ends_with(|c: char| c.is_ascii_digit() || c == '.')
                    && digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
                let is_number = looks_numeric && digits.parse::<f64>().is_ok();
                match (digits.parse::<i64>(), is_number.then(|| float(digits)).flatten()) {
                    (Ok(value), _) if !is_cut => self.apply(Value::Int(value)),
                    (_, Some(value)) if self == Self::Real => self.apply(Value::Float(value)),
                    (_, Some(value)) => number(value),
                    _ => Value::Text(text),
                }
            }
            // SQLite knows one zero.
            (_, Value::Float(value)) => Value::Float(value + 0.0),
            (_, value) => value,
        }
    }
}

/// The number that a text is, which is known to be one, as SQLite reads it (`sqlite3AtoF`): of its digits only those count, some nineteen, that an
/// integer of 64 bits has room for, so that it is not always the nearest one.
fn float(text: &str) -> Option<f64> {
    const FULL: u64 = (u64::MAX - 9) / 10;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => (-1.0, whole),
        None => (1.0, whole.strip_prefix('+').unwrap_or(whole)),
    };
    let digits = whole.bytes().map(|digit| (digit, true)).chain(fraction.bytes().map(|digit| (digit, false)));
    let (mut significand, mut shift) = (0u64, 0i64);
    for (digit, is_whole) in digits {
        if significand < FULL {
            significand = significand * 10 + u64::from(digit.wrapping_sub(b'0'));
            shift -= i64::from(!is_whole);
        } else {
            shift += i64::from(is_whole);
        }
    }
    // Of an exponent five digits count; with more it is 10,000.
    let is_negative = exponent.starts_with('-');
    let read = exponent.bytes().filter(u8::is_ascii_digit).fold(0_i64, |read, digit| match read {
        ..10_000 => read * 10 + i64::from(digit - b'0'),
        _ => 10_000,
    });
    let exponent = if is_negative { -read } else { read }.saturating_add(shift);
    format!("{significand}e{exponent}").parse::<f64>().ok().map(|value| sign * value)
}

/// A number as a column of integer affinity holds it: an integer where nothing is lost by it.
fn number(value: f64) -> Value {
    let whole = value as i64;
    // The bounds of an i64 are themselves out of reach: SQLite keeps such a float a float.
    match whole as f64 == value && whole != i64::MIN && whole != i64::MAX {
        true => Value::Int(whole),
        false => Value::Float(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn affinities_are_those_of_the_manual() {
        for (declared, expected) in [
            ("INT", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("VARCHAR(9)", Affinity::Text),
            ("", Affinity::Blob),
            ("DOUBLE", Affinity::Real),
            ("DECIMAL(1,2)", Affinity::Numeric),
            ("ANY", Affinity::Numeric),
        ] {
            assert_eq!(affinity(declared, false), expected, "{declared}");
        }
        assert_eq!(affinity("ANY", true), Affinity::Blob);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            (-1e19..1e19).prop_map(|value: f64| Value::from(value.round() + 0.0)),
            any::<i32>().prop_map(|value| Value::from(f64::from(value) / 4.0)),
            "[ ]?[-+]?[0-9]{0,45}(\\.[0-9]{0,3})?(e[-+]?[0-9]{1,2})?[ ]?".prop_map(Value::from),
            "[a-z0-9 .]{0,4}".prop_map(Value::from),
            any::<i64>().prop_map(|value| Value::from(value.to_string())),
        ]
    }

    /// Whether a value is converted as SQLite converts it.
    fn check(given: &Value) {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(i INTEGER, n NUMERIC, r REAL, b BLOB)").unwrap();
        let bound = || super::super::database::Bound(given);
        connection
            .execute("INSERT INTO t VALUES (?1, ?2, ?3, ?4)", [bound(), bound(), bound(), bound()])
            .unwrap();
        let affinities = [Affinity::Integer, Affinity::Numeric, Affinity::Real, Affinity::Blob];
        for (at, affinity) in affinities.into_iter().enumerate() {
            let stored = connection
                .query_row("SELECT * FROM t", [], |row| Ok(super::super::database::value(row.get_ref(at)?)))
                .unwrap();
            assert_eq!(affinity.apply(given.clone()), stored, "{affinity:?} of {given:?}");
        }
    }

    #[test]
    fn there_is_one_zero_whatever_its_text() {
        for text in ["-.0", "-0", "-0.0", " -0. ", "-0e0", "-1e-400", "+.0"] {
            check(&Value::from(text));
        }
        check(&Value::Float(-0.0));
    }

    #[test]
    fn digits_beyond_what_sqlite_reads_do_not_count() {
        for text in [
            "922337203685477580892233720368547758011111",
            "3500000000000000.2500001",
            "35000000000000002500001e-7",
            "-0.00000000000000000000000000000000000000123456789012345678901234567890",
            "18446744073709551615184467440737095516151844674407370955161518446744073709551615e-60",
            "1e400",
            "1e-99999999999999999999",
            "0e99999999999999999999",
            "1844674407370955159a",
            "1844674407370955159-2",
            "1844674407370955159e",
        ] {
            check(&Value::from(text));
        }
        for exponent in ["e9999", "e99999", "e100000", "e-100000", "e+010000"] {
            check(&Value::from(format!("0.{}1{exponent}", "0".repeat(10_000))));
        }
    }

    #[test]
    fn white_space_and_ends_are_what_sqlite_takes_for_them() {
        for text in
            ["\u{b}7\u{c}", "\t\n\r 7 ", "\u{a0}7", "7\0", "7 \0x", "\0x", "7.5\0", "9223372036854775801\0"]
        {
            check(&Value::from(text));
        }
    }

    #[test]
    fn a_column_holds_what_it_would_leave_as_it_is() {
        let held = |affinity: Affinity| {
            let values =
                [Value::from(1), Value::from(1.0), Value::from(0.5), Value::from("1"), Value::from("a")];
            values.map(|value| affinity.holds(&value))
        };
        assert_eq!(held(Affinity::Integer), [true, false, true, false, true]);
        assert_eq!(held(Affinity::Real), [false, true, true, false, true]);
        assert_eq!(held(Affinity::Text), [false, false, false, true, true]);
        assert_eq!(held(Affinity::Blob), [true; 5]);
        assert!(!Affinity::Blob.holds(&Value::Null));
    }

    proptest! {
        #[test]
        fn a_value_is_converted_as_sqlite_converts_it(given in any_value()) {
            check(&given);
        }
    }
}
