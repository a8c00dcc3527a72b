//! Many seeds, and a table of what they met.

use std::fmt::Write as _;
use std::ops::Range;

use crate::cli::failures::keep;
use crate::draw::draw;
use crate::marks::Mark;
use crate::swarm::{self, Swarm};

pub(super) fn swarm(seeds: Range<u64>, jobs: usize) -> bool {
    let swarm = swarm::swarm(seeds, jobs.max(1), |line| eprint!("{line}"));
    eprintln!();
    for (seed, failure) in &swarm.failures {
        println!("seed {seed} BROKEN {failure}");
        println!("  {}", keep(&draw(*seed).0, Some(format!("cargo sim -- run --seed {seed}"))));
    }
    print!("{}", table(&swarm));
    let unmet = swarm.unmet();
    if !unmet.is_empty() && swarm.seeds >= 1000 {
        println!("\nnever met: {}", unmet.iter().map(|mark| mark.name()).collect::<Vec<_>>().join(", "));
        return false;
    }
    swarm.failures.is_empty()
}

fn table(swarm: &Swarm) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name:<48} | {value:>14} |");
    };
    row("", String::new());
    row(&"-".repeat(48), "-".repeat(13) + ":");
    row("seeds", swarm.seeds.to_string());
    row("broken", swarm.failures.len().to_string());
    row("seconds", format!("{:.1}", swarm.seconds));
    row("seeds a second", format!("{:.0}", swarm.seeds as f64 / swarm.seconds));
    row("simulated hours", format!("{:.1}", swarm.simulated_us as f64 / 3.6e9));
    row("simulated seconds a second", format!("{:.0}", swarm.simulated_us as f64 / 1e6 / swarm.seconds));
    row("engine starts", swarm.starts.to_string());
    row("transactions", swarm.commits.to_string());
    row("requests", swarm.requests.to_string());
    row("documents written", swarm.writes.to_string());
    for (name, count) in &swarm.faults {
        row(&format!("fault: {name}"), count.to_string());
    }
    for mark in Mark::ALL {
        row(&format!("met: {}", mark.name()), swarm.marks.get(mark).copied().unwrap_or_default().to_string());
    }
    text
}
