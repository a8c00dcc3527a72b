//! The scenarios, in the order of the table.

use std::time::Duration;

use crate::work::{Calls, Keys, Pace, Work};

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name: that of its group, then what sets it apart there.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// What is to be done.
    pub work: Work,
    /// How often.
    pub rounds: usize,
    /// Whether engines of others are given it too.
    pub with_peers: bool,
}

impl Scenario {
    /// Whether one of these names is its own or its group's; all are chosen where there are none.
    #[must_use]
    pub fn is_chosen(&self, names: &[String]) -> bool {
        let group = self.name.split(' ').next().unwrap_or_default();
        names.is_empty() || names.iter().any(|name| name == self.name || name == group)
    }

    /// Whether it is about how long the work takes.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        !matches!(self.work.pace, Pace::Every(_)) && self.work.body_bytes == 0
    }

    /// Whether what it allocates is worth counting.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.work.is_busy() && self.is_timed()
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let ms = Duration::from_millis;
    let of = |name, about, work| Scenario { name, about, work, rounds: 5, with_peers: true };
    let sleeping = Calls { build: ms(5), flush: ms(20), ..Calls::default() };
    let resolving = Calls { resolve: ms(1), ..sleeping };
    let hot = |unit| Work { keys: Keys::Zipf { rows: 1000 }, ..Work::of(1_000_000, unit) };
    let shared = Work { documents_per_change: 10, unit_documents: 2560, ..Work::of(200_000, 256) };
    let live = Work { pace: Pace::Every(ms(10)), max_delay: Duration::ZERO, ..Work::of(1000, 256) };
    let fan_out =
        Work { documents_per_change: 1_000_000, unit_documents: 1024, body_bytes: 1024, ..Work::of(1, 256) };
    let sized = Calls { flush: Duration::ZERO, flush_per_document: ms(20) / 256, ..resolving };
    let beside = Work { calls: sized, changes: 1500, ..live.clone() };
    vec![
        of("S1 units of 256", "1 M changes to distinct documents", Work::of(1_000_000, 256)),
        of("S1 units of 1,024", "1 M changes to distinct documents", Work::of(1_000_000, 1024)),
        of("S2 units of 256", "1 M changes to 1,000 hot documents, by Zipf", hot(256)),
        of("S2 units of 1,024", "1 M changes to 1,000 hot documents, by Zipf", hot(1024)),
        Scenario {
            rounds: 3,
            ..of(
                "S3",
                "20,000 changes; a call resolves in 1 ms, builds in 5, flushes in 20; units of 256",
                Work { calls: resolving, ..Work::of(20_000, 256) },
            )
        },
        Scenario {
            rounds: 3,
            ..of(
                "S4",
                "200,000 changes; a call builds in 5 ms, flushes in 20; units of 1,024",
                Work { calls: sleeping, ..Work::of(200_000, 1024) },
            )
        },
        of("S5", "200,000 changes to ten documents each", shared),
        Scenario { rounds: 3, ..of("S6", "a change every 10 ms, 1,000 of them", live) },
        Scenario { rounds: 3, ..of("S7", "one change to 1 M documents of 1 KiB", fan_out) },
        Scenario {
            with_peers: false,
            ..of("S8 10^5", "10⁵ changes to distinct documents", Work::of(100_000, 1024))
        },
        Scenario { with_peers: false, ..of("S8 10^6", "10⁶ of them", Work::of(1_000_000, 1024)) },
        Scenario { with_peers: false, ..of("S8 10^7", "10⁷ of them", Work::of(10_000_000, 1024)) },
        Scenario {
            rounds: 3,
            ..of(
                "S9 alone",
                "a change every 10 ms over S3's edges, flushing 20 ms for 256 documents",
                beside.clone(),
            )
        },
        Scenario {
            rounds: 3,
            ..of("S9 beside", "the same beside a backfill of 200,000 rows", Work { rows: 200_000, ..beside })
        },
        Scenario {
            rounds: 3,
            with_peers: false,
            ..of(
                "S10",
                "100,000 changes; a call builds in 5 ms, flushes in 20; the sink serves four flushes at once",
                Work { calls: sleeping, serves: Some(4), ..Work::of(100_000, 256) },
            )
        },
    ]
}
