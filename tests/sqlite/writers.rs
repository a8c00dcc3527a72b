//! Writers in other threads and another process, while a capture follows them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use syncline::change::Captured;
use syncline::ports::ChangeCapture;
use syncline::value::Value;

use super::world::{World, next, opened};

const TRANSACTIONS: i64 = 150;
const WRITER_PATH: &str = "SYNCLINE_TEST_WRITER_PATH";

/// Writes transactions of several rows, each of which says how many there are of its transaction. Every fifth is rolled
/// back.
fn write(path: &Path, writer: i64) {
    let mut connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
    for number in 0..TRANSACTIONS {
        std::thread::sleep(Duration::from_millis(2));
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let rows = 1 + number % 17;
        for row in 0..rows {
            transaction
                .execute(
                    "INSERT INTO t(writer, number, row, rows) VALUES (?1, ?2, ?3, ?4)",
                    [writer, number, row, rows],
                )
                .unwrap();
        }
        if number % 5 == 4 {
            transaction.rollback().unwrap();
        } else {
            transaction.commit().unwrap();
        }
    }
}

/// Not a test of its own: what the other process runs.
#[test]
fn the_other_process() {
    if let Ok(path) = std::env::var(WRITER_PATH) {
        write(&PathBuf::from(path), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_no_checkpoint_stands_inside_a_transaction_and_none_is_missed_across_restarts() {
    for write_ahead_log in [true, false] {
        let world = World::new(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, writer INT, number INT, row INT, rows INT,
                 UNIQUE (writer, number, row))",
        );
        let capture = || world.capture(&["t"]).page_rows(10).write_ahead_log(write_ahead_log);
        let (mut stream, ..) = opened(&capture()).await;
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::writers::the_other_process"])
            .env(WRITER_PATH, world.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let path = world.path();
        let thread = tokio::task::spawn_blocking(move || write(&path, 1));

        // What is durable, and what came since the last checkpoint that was confirmed.
        let mut durable: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        let mut pending: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        let (mut checkpoints, mut restarts, mut opening) = (0, 0, capture());
        let wanted = 2 * (0..TRANSACTIONS).filter(|number| number % 5 != 4).count();
        while durable.len() < wanted {
            match next(&mut stream.changes).await.unwrap() {
                Captured::Change(change) => {
                    let row = change.after.unwrap();
                    let int = |column: &str| match row.value(column) {
                        Some(Value::Int(value)) => *value,
                        other => panic!("{other:?}"),
                    };
                    let transaction = (int("writer"), int("number"));
                    assert!(!durable.contains_key(&transaction), "{transaction:?} is given again");
                    let seen = pending.entry(transaction).or_default();
                    assert_eq!(*seen, int("row"), "in order, each once");
                    *seen += 1;
                    if *seen == int("rows") {
                        *seen = -*seen;
                    }
                }
                item @ (Captured::More | Captured::Truncate(_)) => unreachable!("{item:?}"),
                Captured::Checkpoint(position) => {
                    assert!(
                        pending.values().all(|seen| *seen < 0),
                        "{position} tears a transaction: {pending:?}"
                    );
                    opening.confirm(&stream.stream, position).await.unwrap();
                    durable.append(&mut pending);
                    checkpoints += 1;
                }
            }
            // Torn down in the midst of a transaction now and then, and opened again.
            if pending.len() == 2 && checkpoints > 2 * restarts {
                restarts += 1;
                pending.clear();
                let before = stream.stream.clone();
                drop(stream);
                opening = capture();
                stream = opening.open().await.unwrap();
                assert_eq!(stream.stream, before);
            }
        }
        assert!(restarts > 0 && checkpoints > 2, "{restarts} restarts, {checkpoints} checkpoints");
        assert!(process.wait().unwrap().success());
        thread.await.unwrap();
        assert_eq!(world.one::<i64>("SELECT count(*) FROM syncline_changes"), 0);
    }
}
