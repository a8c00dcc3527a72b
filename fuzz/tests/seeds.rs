//! Seeds of the corpus of `pipeline_ops`: runs that meet hard cases, as bytes.
//!
//! `cargo test -p fuzz --test seeds -- --ignored` writes them, over those that are there.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fuzz::pipeline_ops::case;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptests::op::{Answer, Effect, Kind, Op, Wrong};
use proptests::random::{self, HARD};
use proptests::setup::Setup;

/// Bytes from which [`case`] reads what was written.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.0.extend(bytes);
    }

    /// One of so many variants is read out of the upper bits of the product of a word and their number.
    fn variant(&mut self, at: u64, of: u64) {
        let word = (at << 32).div_ceil(of);
        self.bytes(u32::try_from(word).unwrap().to_le_bytes());
    }

    fn kind(&mut self, kind: Kind) {
        self.variant(kind as u64, 3);
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Done => self.variant(0, 6),
            Answer::Reversed => self.variant(1, 6),
            Answer::Failed(kind, effect) => {
                self.variant(2, 6);
                self.kind(kind);
                self.variant(effect as u64, 4);
            }
            Answer::Partly(kind, mask) => {
                self.variant(3, 6);
                self.kind(kind);
                self.bytes([mask]);
            }
            Answer::Mixed(later, refused) => {
                self.variant(4, 6);
                self.bytes([later, refused]);
            }
            Answer::Wrong => self.variant(5, 6),
        }
    }

    fn op(&mut self, op: Op) {
        let at = match op {
            Op::Commit(..) => 0,
            Op::Truncate(..) => 1,
            Op::Heartbeat => 2,
            Op::Capture(_) => 3,
            Op::Tarry => 4,
            Op::End => 5,
            Op::FailCapture(_) => 6,
            Op::LoseStream => 7,
            Op::Answer(..) => 8,
            Op::Stale(_) => 9,
            Op::Repeat => 10,
            Op::Scan(_) => 11,
            Op::FailScan(_) => 12,
            Op::Deadline => 13,
            Op::Wait(_) => 14,
            Op::Oversleep(_) => 15,
            Op::Land(_) => 16,
            Op::Crash => 17,
            Op::Reindex(_) => 18,
            Op::Drain(_) => 19,
            Op::Misuse(_) => 20,
            Op::Verify(_) => 21,
        };
        self.variant(at, 22);
        match op {
            Op::Commit(rows, removed) => self.bytes([rows, removed]),
            Op::Truncate(tables, rows) => {
                self.variant(tables as u64, 3);
                self.bytes([rows]);
            }
            Op::Answer(at, answer) => {
                self.bytes([at]);
                self.answer(answer);
            }
            Op::FailCapture(kind) | Op::FailScan(kind) => self.kind(kind),
            Op::Misuse(wrong) => self.variant(wrong as u64, 7),
            Op::Capture(number) | Op::Stale(number) | Op::Scan(number) => self.bytes([number]),
            Op::Wait(number)
            | Op::Oversleep(number)
            | Op::Land(number)
            | Op::Reindex(number)
            | Op::Drain(number)
            | Op::Verify(number) => self.bytes([number]),
            Op::Heartbeat | Op::Tarry | Op::End | Op::LoseStream | Op::Repeat | Op::Deadline | Op::Crash => {}
        }
    }

    fn setup(&mut self, setup: Setup) {
        let Setup {
            indexes, joined, scopes, rows, sized, skip, park, mixed, quarantine, skip_backfill, ..
        } = setup;
        self.bytes([
            indexes,
            joined.into(),
            scopes.into(),
            rows,
            sized.into(),
            skip.into(),
            park.into(),
            mixed.into(),
            quarantine.into(),
            skip_backfill.into(),
        ]);
        let Setup { max_changes, max_documents, max_bytes, max_delay_ms, changes, documents, .. } = setup;
        self.bytes([max_changes, max_documents, max_bytes, max_delay_ms, changes, documents]);
        let Setup { resolves, resolve_changes, builds, flushes, units, backfill_rows, .. } = setup;
        self.bytes([resolves, resolve_changes, builds, flushes, units, backfill_rows]);
        let Setup { backfill_share, attempts, delay_ms, timeout_s, cursor_ms, .. } = setup;
        self.bytes([backfill_share, attempts, delay_ms, timeout_s, cursor_ms]);
    }

    fn case(setup: Setup, ops: &[Op]) -> Vec<u8> {
        let mut bytes = Self::default();
        bytes.setup(setup);
        for op in ops {
            bytes.bytes([1]);
            bytes.op(*op);
        }
        bytes.0
    }
}

/// Cases as the random searcher draws them, always the same.
fn cases() -> impl Iterator<Item = (Setup, Vec<Op>)> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[0; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    std::iter::from_fn(move || Some(random::case().new_tree(&mut runner).unwrap().current()))
}

/// The bytes are those that the derived readers take: where `op` or `setup` changes, this says so, and corpora are to be
/// made again.
#[test]
fn cases_are_read_as_they_were_written() {
    let every = [
        Op::Answer(1, Answer::Failed(Kind::Fatal, Effect::Late)),
        Op::Answer(2, Answer::Wrong),
        Op::Misuse(Wrong::NoCapture),
        Op::FailScan(Kind::Content),
    ];
    for (setup, ops) in cases().take(100).chain([(Setup::SMALL, every.to_vec())]) {
        assert_eq!(case(&Bytes::case(setup, &ops)), Some((setup, ops)));
    }
}

/// Keeps a case where it meets a hard one that none before it met.
#[test]
#[ignore = "writes into the corpus"]
fn write() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/pipeline_ops");
    let mut wanted = BTreeSet::from(HARD);
    for (at, (setup, ops)) in cases().enumerate() {
        let met = random::run(setup, &ops).marks().clone();
        if met.iter().filter(|mark| wanted.remove(*mark)).count() > 0 {
            fs::write(corpus.join(format!("seed-{at}")), Bytes::case(setup, &ops)).unwrap();
        }
        if wanted.is_empty() {
            return;
        }
    }
}
