//! Runs every target over its committed corpus: what the fuzzers found once stays found, with any toolchain.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, panic};

use fuzz::{TARGETS, Target};

fn names(directory: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_binary_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    let binaries = names("fuzz_targets").iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(targets, binaries);
    assert_eq!(targets, names("corpus"));
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} has no [[bin]]");
    }
}

#[test]
fn every_corpus_passes() {
    let failed: Vec<String> = TARGETS.into_iter().flat_map(|(name, target)| replay(name, target)).collect();
    assert!(failed.is_empty(), "these fail, for the reasons above: {failed:#?}");
}

/// The files of a corpus that fail.
fn replay(name: &str, target: Target) -> Vec<String> {
    let files = names(&format!("corpus/{name}"));
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    let paths = files.iter().map(|file| format!("corpus/{name}/{file}"));
    let fails = |path: &String| {
        let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        panic::catch_unwind(|| target(&bytes)).is_err()
    };
    paths.filter(fails).collect()
}
