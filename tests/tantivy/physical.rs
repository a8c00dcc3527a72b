//! What happens to the files: removed by hand, damaged, or many.

use std::path::PathBuf;

use syncline::error::FaultKind;
use syncline::ports::{FieldKind, SeedState, Sink as _};

use crate::support::*;

const FIELDS: [(&str, FieldKind); 1] = [("n", FieldKind::Integer)];

#[tokio::test]
async fn an_index_removed_between_runs_has_lost_its_marker_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let own = seed("s", "d");
    let sink = open(dir.path());
    for name in ["a", "b"] {
        sink.ensure_index(&mapping(name, &FIELDS)).await.unwrap();
        flush(&sink, [put(id(name, 1), "{}", (0, 1))]).await;
        sink.mark_seeded(&index(name), &own).await.unwrap();
    }
    drop(sink);
    std::fs::remove_dir_all(dir.path().join("i-a")).unwrap();
    std::fs::remove_file(dir.path().join("i-b/meta.json")).unwrap();
    let sink = open(dir.path());
    for name in ["a", "b"] {
        sink.ensure_index(&mapping(name, &FIELDS)).await.unwrap();
        assert_eq!(sink.seed_state(&index(name), &own).await.unwrap(), SeedState::Unseeded);
        assert_eq!(sink.count(&index(name)).unwrap(), 0);
        flush(&sink, [put(id(name, 2), "{}", (0, 2))]).await;
        assert_eq!(all(&sink, name), [("2".into(), "{}".into())]);
    }
}

#[tokio::test]
async fn an_index_removed_while_it_is_in_use_is_an_error_until_it_is_ensured_or_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let own = seed("s", "d");
    let sink = open(dir.path());
    sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap();
    flush(&sink, [put(id("a", 1), "{}", (0, 1))]).await;
    sink.mark_seeded(&index("a"), &own).await.unwrap();
    for cleared in [false, true] {
        std::fs::remove_dir_all(dir.path().join("i-a")).unwrap();
        for _ in 0..2 {
            let writes = [put(id("a", 2), "{}", (0, 2))].into_iter().collect();
            let faults = [
                sink.flush(&writes, true).await.unwrap_err(),
                sink.save_cursor(&index("a"), &own, None).await.unwrap_err(),
                sink.mark_seeded(&index("a"), &own).await.unwrap_err(),
            ];
            for fault in faults {
                assert_eq!(fault.kind(), FaultKind::Fatal);
                assert!(fault.message().contains("index `a` was removed while it was in use"), "{fault}");
            }
        }
        assert_eq!(sink.seed_state(&index("a"), &own).await.unwrap(), SeedState::Unseeded);
        assert!(sink.count(&index("a")).is_err());
        match cleared {
            true => sink.clear(&index("a")).await.unwrap(),
            false => sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap(),
        }
        assert_eq!(sink.seed_state(&index("a"), &own).await.unwrap(), SeedState::Unseeded);
        flush(&sink, [put(id("a", 3), r#"{"n":3}"#, (0, 3))]).await;
        assert_eq!(all(&sink, "a"), [("3".into(), r#"{"n":3}"#.into())]);
        // With the fields it had.
        assert_eq!(sink.search(&index("a"), "n:3", 9).unwrap().len(), 1);
        sink.mark_seeded(&index("a"), &own).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_flush_leaves_nothing_for_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, [put(id("a", 1), r#"{"v":1}"#, (0, 1))]).await;
    let (own, away) = (dir.path().join("i-a"), dir.path().join("away"));
    std::fs::rename(&own, &away).unwrap();
    let lost = [put(id("a", 1), r#"{"v":"lost"}"#, (0, 2)), put(id("a", 2), "{}", (0, 2))];
    assert!(sink.flush(&lost.into_iter().collect(), false).await.is_err());
    std::fs::rename(&away, &own).unwrap();
    flush(&sink, [put(id("a", 3), "{}", (0, 3))]).await;
    assert_eq!(all(&sink, "a"), [("1".into(), r#"{"v":1}"#.into()), ("3".into(), "{}".into())]);
}

#[tokio::test]
async fn a_damaged_index_is_named_and_not_touched() {
    for damaged in ["meta.json", ".managed.json"] {
        let dir = tempfile::tempdir().unwrap();
        let sink = open(dir.path());
        flush(&sink, [put(id("a", 1), "{}", (0, 1))]).await;
        drop(sink);
        let file = dir.path().join("i-a").join(damaged);
        std::fs::write(&file, "{ no").unwrap();
        let sink = open(dir.path());
        let faults = [
            sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap_err(),
            sink.flush(&[put(id("a", 2), "{}", (0, 2))].into_iter().collect(), false).await.unwrap_err(),
            sink.seed_state(&index("a"), &seed("s", "d")).await.unwrap_err(),
            sink.count(&index("a")).unwrap_err(),
        ];
        for fault in faults {
            assert_eq!(fault.kind(), FaultKind::Fatal);
            assert!(fault.message().contains("i-a"), "{fault}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ no");
    }
}

#[tokio::test]
async fn a_run_begins_beside_indexes_that_it_does_not_use_and_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, [put(id("a", 1), "{}", (0, 1)), put(id("b", 1), "{}", (0, 1))]).await;
    let first = sink.begin(syncline::document::Epoch(7)).await.unwrap();
    flush(&sink, [put(id("b", 2), "{}", (first.0, 1))]).await;
    drop(sink);
    std::fs::write(dir.path().join("i-a/meta.json"), "{ no").unwrap();
    std::fs::write(dir.path().join("i-file"), "").unwrap();
    std::fs::write(dir.path().join("m-file"), "").unwrap();
    // What can be read still tells the epoch that its file does not.
    std::fs::remove_file(dir.path().join("epoch")).unwrap();
    let sink = open(dir.path());
    let second = sink.begin(syncline::document::Epoch(0)).await.unwrap();
    assert_eq!(second.0, first.0 + 1);
    flush(&sink, [put(id("b", 2), r#"{"n":2}"#, (second.0, 1))]).await;
    assert_eq!(sink.count(&index("b")).unwrap(), 2);
    // The one that is used says what ails it.
    let fault = sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap_err();
    assert!(fault.message().contains("i-a"), "{fault}");
}

#[tokio::test]
async fn an_index_of_another_program_is_refused() {
    use syncline::connectors::tantivy::library::{Index, schema::Schema};
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("i-a");
    std::fs::create_dir(&own).unwrap();
    Index::create_in_dir(&own, Schema::builder().build()).unwrap();
    std::fs::write(own.join(".tmpXyZ"), "being written").unwrap();
    let sink = open(dir.path());
    let fault = sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap_err();
    assert!(fault.message().contains("was not written by this version of the sink"), "{fault}");
    assert!(own.join(".tmpXyZ").exists());
    assert!(sink.count(&index("a")).is_err());
}

/// What stands in the place of an index is replaced only where all of it is the sink's.
#[tokio::test]
async fn files_of_others_are_named_and_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(file("i-foreign")).unwrap();
    std::fs::create_dir_all(file("i-empty")).unwrap();
    std::fs::create_dir_all(file("tmp")).unwrap();
    for path in ["i-foreign/letter.txt", "tmp/letter.txt", "i-file"] {
        std::fs::write(file(path), "Dear Ada").unwrap();
    }
    let sink = open(dir.path());
    for name in ["foreign", "file"] {
        let writes = [put(id(name, 1), "{}", (0, 1))].into_iter().collect();
        for fault in [
            sink.ensure_index(&mapping(name, &FIELDS)).await.unwrap_err(),
            sink.flush(&writes, false).await.unwrap_err(),
            sink.clear(&index(name)).await.unwrap_err(),
        ] {
            assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
            assert!(fault.message().contains(&format!("i-{name}")), "{fault}");
        }
    }
    let fault = sink.ensure_index(&mapping("foreign", &FIELDS)).await.unwrap_err();
    assert!(fault.message().contains("holds \"letter.txt\", which is not the sink's"), "{fault}");
    sink.ensure_index(&mapping("empty", &FIELDS)).await.unwrap();
    flush(&sink, [put(id("empty", 1), "{}", (0, 1))]).await;

    // Nor what was put beside an index of its own: one with other fields, and one that lost its meta file.
    std::fs::write(file("i-empty/notes.txt"), "x").unwrap();
    let fault = sink.ensure_index(&mapping("empty", &[])).await.unwrap_err();
    assert!(fault.message().contains("holds \"notes.txt\", which is not the sink's"), "{fault}");
    assert_eq!(sink.count(&index("empty")).unwrap(), 1);
    std::fs::remove_file(file("i-empty/meta.json")).unwrap();
    sink.ensure_index(&mapping("empty", &FIELDS)).await.unwrap_err();
    std::fs::remove_file(file("i-empty/notes.txt")).unwrap();
    sink.ensure_index(&mapping("empty", &FIELDS)).await.unwrap();
    assert_eq!(sink.count(&index("empty")).unwrap(), 0);
    for path in ["i-foreign/letter.txt", "tmp/letter.txt", "i-file"] {
        assert_eq!(std::fs::read_to_string(file(path)).unwrap(), "Dear Ada", "{path}");
    }
}

#[tokio::test]
async fn missing_segment_files_fail_calls_and_panic_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, (0..100).map(|key| put(id("a", key), "{}", (0, 1)))).await;
    drop(sink);
    for file in files(&dir.path().join("i-a")) {
        if file.extension().is_some_and(|extension| extension == "store" || extension == "idx") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let sink = open(dir.path());
    let fault = sink.count(&index("a")).unwrap_err();
    assert!(fault.message().contains("i-a"), "{fault}");
    let writes = [put(id("a", 1), r#"{"v":2}"#, (0, 2))].into_iter().collect();
    let fault = sink.flush(&writes, false).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fatal, "{fault}");
}

#[tokio::test]
async fn files_that_were_not_renamed_when_a_process_died_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, [put(id("a", 1), "{}", (0, 1))]).await;
    drop(sink);
    let left: [PathBuf; 2] = [dir.path().join("i-a/.tmpXyZ"), dir.path().join("syncline.tmp/new/half")];
    for path in &left {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "half").unwrap();
    }
    let sink = open(dir.path());
    flush(&sink, [put(id("a", 2), "{}", (0, 2))]).await;
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(sink.count(&index("a")).unwrap(), 2);
}

#[tokio::test]
async fn a_commit_that_was_half_written_does_not_stand_in_the_way_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    flush(&sink, (0..5).map(|key| put(id("a", key), "{}", (0, 1)))).await;
    drop(sink);
    // The lists of deleted documents that the next commits would write, as a killed process leaves them.
    let own = dir.path().join("i-a");
    let store =
        files(&own).into_iter().find(|file| file.extension().is_some_and(|ext| ext == "store")).unwrap();
    let segment = store.file_stem().unwrap().to_str().unwrap().to_owned();
    let left: Vec<String> = (0..50).map(|stamp| format!("{segment}.{stamp}.del")).collect();
    let managed = std::fs::read_to_string(own.join(".managed.json")).unwrap();
    let all_managed = managed.trim().replacen('[', &format!("[\"{}\",", left.join("\",\"")), 1);
    std::fs::write(own.join(".managed.json"), all_managed).unwrap();
    left.iter().for_each(|file| std::fs::write(own.join(file), "half").unwrap());
    let sink = open(dir.path());
    flush(&sink, [remove(id("a", 1), (0, 2)), put(id("a", 2), r#"{"v":2}"#, (0, 2))]).await;
    assert_eq!(sink.count(&index("a")).unwrap(), 4);
    assert_eq!(sink.get(&index("a"), &2.into()).unwrap().as_deref(), Some(r#"{"v":2}"#));
}

/// Eight segments and more are merged as soon as the next flush begins, beside its deletions.
#[tokio::test]
async fn a_merge_beside_the_first_flush_of_a_writer_leaves_no_document_twice() {
    use syncline::connectors::tantivy::library::{
        Index, IndexWriter, TantivyDocument, Term, indexer::NoMergePolicy,
    };
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap();
    drop(sink);
    // Segments that wait to be merged, as a process leaves them that is killed before it has.
    let own = Index::open_in_dir(dir.path().join("i-a")).unwrap();
    let field = |name: &str| own.schema().get_field(name).unwrap();
    let mut writer: IndexWriter = own.writer_with_num_threads(1, 15_000_000).unwrap();
    writer.set_merge_policy(Box::new(NoMergePolicy));
    let payload = own.load_metas().unwrap().payload.unwrap();
    for segment in 0..10 {
        for part in 0..if segment == 0 { 9 } else { 3 } {
            let mut document = TantivyDocument::new();
            document.add_text(field("_id"), (segment * 10 + part).to_string());
            document.add_text(field("_source"), "{}");
            document.add_u64(field("_epoch"), 0);
            document.add_u64(field("_build"), 1);
            writer.add_document(document).unwrap();
        }
        if segment == 9 {
            (1..9).for_each(|segment| {
                writer.delete_term(Term::from_field_text(field("_id"), &(segment * 10).to_string()));
            });
        }
        let mut commit = writer.prepare_commit().unwrap();
        commit.set_payload(&payload);
        commit.commit().unwrap();
    }
    drop(writer);
    let sink = open(dir.path());
    sink.begin(syncline::document::Epoch(0)).await.unwrap();
    flush(&sink, [put(id("a", 51), r#"{"n":2}"#, (1, 2))]).await;
    for _ in 0..500 {
        if own.load_metas().unwrap().segments.len() < 8 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(own.load_metas().unwrap().segments.len() < 8, "nothing was merged");
    let all = all(&sink, "a");
    let mut ids: Vec<_> = all.iter().map(|(id, _)| id.clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "{all:?}");
    assert_eq!(ids.len(), 9 + 9 * 3 - 8);
    assert_eq!(sink.get(&index("a"), &51.into()).unwrap().as_deref(), Some(r#"{"n":2}"#));
}

#[tokio::test]
async fn hundreds_of_flushes_leave_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    sink.ensure_index(&mapping("a", &FIELDS)).await.unwrap();
    let run = sink.begin(syncline::document::Epoch(0)).await.unwrap().0;
    let mut most = 0;
    for round in 0..10_u64 {
        for at in 1..=30 {
            let build = round * 30 + at;
            let body = format!(r#"{{"n":{build}}}"#);
            flush(
                &sink,
                (0..5).map(|part| put(id("a", (build * 7 + part) as i64 % 400), &body, (run, build))),
            )
            .await;
        }
        most = most.max(files(dir.path()).len());
    }
    assert_eq!(sink.count(&index("a")).unwrap(), 400);
    // Eight segments of a level, a few levels, some ten files each, and what a merge is about to remove.
    assert!(most < 400, "{most} files");
}
