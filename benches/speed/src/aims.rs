//! What the figures should come to. Nothing fails where they do not: a machine that is busy with other things shows others.

use crate::rounds::Results;

/// The peer that the aims speak of.
pub const PEER: &str = "flusso-engine 0.15.1";

/// The same as a program.
pub const PEER_PROGRAM: &str = "flusso-cli 0.15.1";

const US: &str = "Syncline";
const FLOOR: &str = "floor";

/// The aim, in words; the figure that it is about, and what it should come to.
#[derive(Debug, Clone)]
pub struct Aim {
    /// The scenario, or the group of them.
    pub of: &'static str,
    /// In words.
    pub about: &'static str,
    /// What was measured; `None` where it was not.
    pub figure: Option<f64>,
    /// What it should be.
    pub bound: Bound,
}

/// A figure should be no less, or no more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Aim {
    /// Whether it is met; `None` where nothing was measured.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let figure = self.figure?;
        Some(match self.bound {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        })
    }
}

/// All of them, with what was measured.
#[must_use]
pub fn all(results: &Results) -> Vec<Aim> {
    use Bound::{AtLeast, AtMost};
    let faster = |of, least| Aim {
        of,
        about: "times the peer's speed",
        figure: results.ratio(of, PEER, US),
        bound: AtLeast(least),
    };
    let faster_program = |of, least| Aim {
        of,
        about: "times the peer's speed",
        figure: results.ratio(of, PEER_PROGRAM, US),
        bound: AtLeast(least),
    };
    let floor =
        |of, about, most| Aim { of, about, figure: results.ratio(of, US, FLOOR), bound: AtMost(most) };
    let scenario = |name| results.scenarios.iter().find(|scenario| scenario.name == name);
    let allocations = |of| Aim {
        of,
        about: "allocations of the engine for a change",
        figure: scenario(of).and_then(|of| results.allocations_per_change(of, US)),
        bound: AtMost(2.0),
    };
    let adaptive = Aim {
        of: "S10",
        about: "times the time of as many flushes as the sink serves, found by trying",
        figure: results.ratio("S10", "Syncline, adaptive", "Syncline, 4 flushes"),
        bound: AtMost(1.15),
    };
    let p99 = |of| results.latency_ms(of, US, 99);
    let ids = results.peak_mib("S7", FLOOR);
    vec![
        faster("S1 units of 256", 3.0),
        floor("S1 units of 256", "times the floor's time", 2.0),
        allocations("S1 units of 256"),
        faster("S1 units of 1,024", 3.0),
        floor("S1 units of 1,024", "times the floor's time", 2.0),
        allocations("S1 units of 1,024"),
        faster("S2 units of 256", 3.0),
        faster("S2 units of 1,024", 3.0),
        faster("S3", 10.0),
        floor("S3", "times the time of the slowest stage alone", 1.15),
        floor("S4", "times the time of flushing alone", 1.15),
        faster("S5", 3.0),
        Aim {
            of: "S6",
            about: "ms, the median from capture to acknowledgement",
            figure: results.latency_ms("S6", US, 50),
            bound: AtMost(2.0),
        },
        Aim {
            of: "S7",
            about: "MiB at the peak beyond the ids' own",
            figure: results.peak_mib("S7", US).zip(ids).map(|(peak, ids)| peak - ids),
            bound: AtMost(200.0),
        },
        Aim {
            of: "S8",
            about: "the largest ratio to the floor by the smallest, of the three sizes",
            figure: spread(["S8 10^5", "S8 10^6", "S8 10^7"].map(|of| results.ratio(of, US, FLOOR))),
            bound: AtMost(1.15),
        },
        Aim {
            of: "S9",
            about: "times the latency, at the 99th percentile, without a backfill",
            figure: p99("S9 beside").zip(p99("S9 alone")).map(|(beside, alone)| beside / alone),
            bound: AtMost(2.0),
        },
        adaptive,
        faster_program("E2 backfill", 2.0),
        faster_program("E2 catching up", 2.0),
        faster_program("E2 families", 2.0),
        faster_program("E2 children", 10.0),
    ]
}

fn spread(ratios: [Option<f64>; 3]) -> Option<f64> {
    let ratios: Option<Vec<f64>> = ratios.into_iter().collect();
    let ratios = ratios?;
    let largest = ratios.iter().copied().reduce(f64::max)?;
    Some(largest / ratios.iter().copied().reduce(f64::min)?)
}
