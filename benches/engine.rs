//! What Syncline costs beside a floor, over edges that do nothing or sleep; `benches/compare` has the same beside others.

#![allow(missing_docs, reason = "a benchmark has no readers of its documentation")]

use std::process::ExitCode;

use speed::engine::{FLUSHING, Syncline};
use speed::floor::Floor;
use speed::pipeline::Alone;
use speed::{Contest, Contestant, scenarios};

fn main() -> ExitCode {
    let mut contestants = vec![&Floor as &dyn Contestant, &Syncline, &Alone];
    contestants.extend(FLUSHING.iter().map(|flushing| flushing as &dyn Contestant));
    speed::compare(&[Contest { scenarios: scenarios::all(), contestants }], None)
}
