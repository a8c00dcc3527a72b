//! Whether a run is one run.

use std::ops::Range;

use crate::draw::draw;
use crate::outcome::Check;
use crate::run::simulate;

pub(super) fn meta(seeds: Range<u64>) -> bool {
    let mut passed = true;
    let count = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        let (plan, _) = draw(seed);
        let traces = [simulate(&plan), simulate(&plan)].map(|result| match result {
            Ok(outcome) => outcome.trace.to_text(),
            Err(failure) => failure.outcome.trace.to_text(),
        });
        if traces[0] != traces[1] {
            let line = traces[0].lines().zip(traces[1].lines()).position(|(first, second)| first != second);
            println!("seed {seed} BROKEN {}: the traces differ in line {line:?}", Check::Repeatable);
            passed = false;
        }
    }
    println!(
        "{count} seeds, each twice: {}",
        if passed { "the same, byte for byte" } else { "NOT the same" }
    );
    passed
}
