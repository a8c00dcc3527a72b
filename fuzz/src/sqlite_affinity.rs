//! A reference is converted to what the key's column holds exactly as SQLite converts it.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::Connection;
use syncline::Value;
use syncline::connectors::sqlite::fuzz::{converted, value};

use crate::sqlite::Stored;

const DECLARED: [&str; 5] = ["INTEGER", "NUMERIC", "REAL", "BLOB", "TEXT"];

thread_local! {
    static DATABASE: RefCell<Connection> = RefCell::new({
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a INTEGER, b NUMERIC, c REAL, d BLOB, e TEXT)").unwrap();
        connection
    });
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(given) = Stored::arbitrary(&mut Unstructured::new(bytes)) else { return };
    DATABASE.with_borrow(|connection| check(connection, &given));
}

fn check(connection: &Connection, given: &Stored) {
    let one = |sql: &str| {
        connection.prepare_cached(sql).unwrap().query_row([given], |row| Ok(value(row.get_ref(0)?)))
    };
    let plain = one("SELECT ?1").unwrap();
    for (declared, column) in DECLARED.into_iter().zip(["a", "b", "c", "d", "e"]) {
        // Only SQLite itself writes floats as text as it does, and text that is none is left as its bytes.
        let is_left_alone = declared == "TEXT" && matches!(plain, Value::Float(_))
            || matches!((given, &plain), (Stored::Text(_), Value::Bytes(_)));
        if is_left_alone {
            continue;
        }
        connection.execute("DELETE FROM t", []).unwrap();
        connection
            .prepare_cached(&format!("INSERT INTO t({column}) VALUES (?1)"))
            .unwrap()
            .execute([given])
            .unwrap();
        let held = connection
            .prepare_cached(&format!("SELECT {column} FROM t"))
            .unwrap()
            .query_row([], |row| Ok(value(row.get_ref(0)?)))
            .unwrap();
        assert_eq!(converted(declared, plain.clone()), held, "{plain:?} in a column that is {declared}");
    }
}
