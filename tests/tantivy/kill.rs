//! A process that writes is killed at random moments; what it was told is durable must be there.
//!
//! The child is this test binary again. It logs what it is about to do and what was acknowledged, in a file that is
//! appended to by single writes and so survives it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use syncline::document::{Epoch, decode_key};
use syncline::ports::{FieldKind, SeedState, Sink as _};
use syncline::row::Key;

use crate::support::*;

const CHILD: &str = "SYNCLINE_TANTIVY_CHILD";
const KEYS: u64 = 60;
const INDEXES: [&str; 2] = ["left", "right"];

/// What the flush of this number writes: some documents, and one deletion.
fn step(number: u64) -> (Vec<u64>, u64) {
    let mut puts: Vec<u64> = (0..6).map(|part| (number * 13 + part * part * 7) % KEYS).collect();
    puts.sort_unstable();
    puts.dedup();
    let deleted = (number * 29 + 5) % KEYS;
    puts.retain(|key| *key != deleted);
    (puts, deleted)
}

fn body(number: u64) -> String {
    format!(r#"{{"step":{number},"title":"words of step {number}"}}"#)
}

/// What stands in each index after this many flushes.
fn model(steps: u64) -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    for number in 1..=steps {
        let (puts, deleted) = step(number);
        documents.extend(puts.into_iter().map(|key| (key.to_string(), body(number))));
        documents.remove(&deleted.to_string());
    }
    documents
}

struct Log(File);

impl Log {
    fn open(dir: &Path) -> Self {
        Self(OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap())
    }

    fn say(&mut self, what: &str, number: u64) {
        self.0.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    }
}

/// The greatest number that was logged for each word.
fn read_log(dir: &Path) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    let text = fs::read_to_string(dir.join("log")).unwrap_or_default();
    for line in text.lines() {
        let (what, number) = line.split_once(' ').unwrap();
        last.insert(what.to_owned(), number.parse().unwrap());
    }
    last
}

fn spawn(dir: &Path, test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Kills the child after this time. Panics where it has ended by itself: it never should.
fn kill_after(mut child: Child, time: Duration) {
    std::thread::park_timeout(time);
    if let Some(status) = child.try_wait().unwrap() {
        panic!("the child ended with {status}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Every file of an index is in tantivy's own account of them, so that it is removed one day, or is a lock or the marker.
async fn no_file_is_forgotten(indexes: &Path) {
    let sink = open(indexes);
    for name in INDEXES {
        // Opened for writing, which removes what was not renamed into place.
        drop(sink.seed_state(&index(name), &seed("stream", "definition")).await.unwrap());
        let own = indexes.join(format!("i-{name}"));
        let managed = fs::read_to_string(own.join(".managed.json")).unwrap();
        for path in files(&own) {
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let known = managed.contains(&format!("\"{file}\"")) || file.ends_with(".lock");
            assert!(known || [".managed.json", "syncline.index"].contains(&&*file), "{file} is forgotten");
        }
    }
}

/// Numbers that look random, the same in each run.
fn next(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let done = read_log(dir).get("flushed").copied().unwrap_or(0);
    let mut log = Log::open(dir);
    let sink = open(&dir.join("indexes"));
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    let own = seed("stream", "definition");
    for name in INDEXES {
        sink.ensure_index(&mapping(name, &[("title", FieldKind::Text)])).await.unwrap();
        if sink.seed_state(&index(name), &own).await.unwrap() == SeedState::Unseeded {
            assert_eq!(done, 0, "a marker was lost");
            sink.clear(&index(name)).await.unwrap();
            sink.save_cursor(&index(name), &own, None).await.unwrap();
        }
    }
    for number in done + 1.. {
        let (puts, deleted) = step(number);
        let writes = INDEXES.into_iter().flat_map(|name| {
            let puts = puts.iter().map(move |key| put(id(name, *key as i64), &body(number), (run, number)));
            puts.chain([remove(id(name, deleted as i64), (run, number))])
        });
        log.say("flushing", number);
        flush(&sink, writes).await;
        log.say("flushed", number);
        if number % 3 == 0 {
            for name in INDEXES {
                sink.save_cursor(&index(name), &own, Some(&Key::from(number as i64))).await.unwrap();
            }
            log.say("cursor", number);
        }
    }
}

#[tokio::test]
async fn whatever_a_killed_process_had_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 7;
    let (mut torn, mut progressed) = (0, 0);
    let mut before = 0;
    for round in 0..24 {
        let child = spawn(dir.path(), "kill::child_writes_until_it_is_killed");
        let mut patience = 0;
        // Some rounds are killed while they open, the others once they write.
        while round % 4 != 3
            && patience < 2_000
            && read_log(dir.path()).get("flushed").copied().unwrap_or(0) <= before
        {
            std::thread::park_timeout(Duration::from_millis(2));
            patience += 1;
        }
        kill_after(child, Duration::from_millis(next(&mut random, 150)));
        let log = read_log(dir.path());
        let number = |what: &str| log.get(what).copied().unwrap_or(0);
        if number("flushing") == 0 {
            continue;
        }
        let sink = open(&dir.path().join("indexes"));
        let mut states = Vec::new();
        for name in INDEXES {
            let found = all(&sink, name);
            let stored: BTreeMap<String, String> = found.iter().cloned().collect();
            assert_eq!(found.len(), stored.len(), "{name} in round {round}: a document stands there twice");
            let possible = [number("flushed"), number("flushing")];
            let state = possible.into_iter().find(|steps| stored == model(*steps));
            let state = state.unwrap_or_else(|| panic!("{name} in round {round}: {log:?}: {stored:#?}"));
            states.push(state);
            match sink.seed_state(&index(name), &seed("stream", "definition")).await.unwrap() {
                SeedState::Seeding(after) => {
                    let after = after.map_or(0, |key| syncline::document::encode_key(&key).parse().unwrap());
                    assert!(after >= number("cursor"), "{name}: {after} {log:?}");
                    assert!(after <= state, "{name}: the cursor {after} is ahead of the documents {state}");
                }
                other => panic!("{name}: {other:?} {log:?}"),
            }
            // The inverted index knows the same documents as the store.
            let words = sink.search(&index(name), "words", 1_000).unwrap();
            assert_eq!(words.len(), stored.len(), "{name}");
            assert!(words.iter().all(|hit| stored.get(&hit.id) == Some(&hit.source)), "{name}");
            assert!(words.iter().all(|hit| decode_key(&hit.id).is_some()));
        }
        torn += u32::from(states[0] != states[1]);
        progressed += u32::from(number("flushed") > before);
        before = number("flushed");
    }
    assert!(progressed >= 10, "only {progressed} rounds wrote anything");
    // Between the commits of the two indexes of a flush, or before both: either is right.
    assert!(torn <= 24);
    no_file_is_forgotten(&dir.path().join("indexes")).await;
}

#[tokio::test]
async fn child_changes_mappings_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let mut log = Log::open(dir);
    let sink = open(&dir.join("indexes"));
    let run = sink.begin(Epoch(0)).await.unwrap().0;
    let own = seed("stream", "definition");
    for number in 1.. {
        let kind = if number % 2 == 0 { FieldKind::Text } else { FieldKind::Keyword };
        sink.ensure_index(&mapping("one", &[("title", kind)])).await.unwrap();
        log.say("ensured", number);
        if sink.seed_state(&index("one"), &own).await.unwrap() == SeedState::Seeded {
            continue;
        }
        sink.save_cursor(&index("one"), &own, None).await.unwrap();
        flush(&sink, (0..10).map(|key| put(id("one", key), &body(number), (run, number)))).await;
        sink.mark_seeded(&index("one"), &own).await.unwrap();
    }
}

#[tokio::test]
async fn an_index_that_is_replaced_has_its_marker_only_with_its_documents() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 11;
    let (mut seen, mut seeded) = (0, 0);
    for round in 0..12 {
        let before = fs::metadata(dir.path().join("log")).map_or(0, |log| log.len());
        let child = spawn(dir.path(), "kill::child_changes_mappings_until_it_is_killed");
        let mut patience = 0;
        while patience < 2_000 && fs::metadata(dir.path().join("log")).map_or(0, |log| log.len()) <= before {
            std::thread::park_timeout(Duration::from_millis(2));
            patience += 1;
        }
        kill_after(child, Duration::from_millis(next(&mut random, 120)));
        let sink = open(&dir.path().join("indexes"));
        let state = sink.seed_state(&index("one"), &seed("stream", "definition")).await.unwrap();
        let count = sink.count(&index("one")).unwrap_or(0);
        assert!(state != SeedState::Seeded || count == 10, "round {round}: {state:?} with {count} documents");
        assert!(count == 0 || count == 10, "round {round}: {count}");
        seen += u32::from(patience < 2_000);
        seeded += u32::from(state == SeedState::Seeded);
    }
    assert!(seen >= 8 && seeded < 12, "{seen} {seeded}");
}
