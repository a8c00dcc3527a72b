//! Who is given the work.

use std::time::Duration;

use crate::live::Latencies;
use crate::scenarios::Scenario;

/// An engine, or what stands for the least that any engine must do.
pub trait Contestant: Sync {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// How many rounds of a scenario it can be asked for, of those that are wanted: none where it cannot do it.
    fn rounds(&self, scenario: &Scenario, wanted: usize) -> usize {
        let _ = scenario;
        wanted
    }

    /// Does a scenario's work once.
    ///
    /// # Panics
    ///
    /// Where not all of it was done: there is no figure then.
    fn run(&self, scenario: &Scenario) -> Outcome;

    /// Makes the calls of the edges that the work amounts to, one after the other, without an engine: what they allocate
    /// is not the engine's. Returns whether there is anything to be made; nothing where the contestant has no edges.
    fn edges(&self, scenario: &Scenario) -> bool {
        let _ = scenario;
        false
    }
}

/// What a contestant tells of its work, besides that it is done.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How long changes took from their capture to their acknowledgement, where the work has a pace.
    pub latencies: Latencies,
    /// How long it took, where that is not the time of the call: a database had to be filled first.
    pub took: Option<Duration>,
    /// The most memory it had, in KiB, where that is not this process's.
    pub peak_kib: Option<u64>,
}

impl From<Latencies> for Outcome {
    fn from(latencies: Latencies) -> Self {
        Self { latencies, ..Self::default() }
    }
}
