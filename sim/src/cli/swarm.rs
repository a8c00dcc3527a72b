//! Many seeds, and a table of what they met.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::ops::Range;

use crate::cli::failures::keep;
use crate::draw::draw;
use crate::marks::Mark;
use crate::swarm::{self, Swarm};

/// So many seeds must meet every hard situation: the rarest, an older version refused, is met by 16 of 1,000.
const SEEDS_THAT_MEET_ALL: u64 = 1000;

/// Runs seeds, and prints what they met. Returns whether all of them held and, where there are enough, met every mark.
pub(super) fn swarm(seeds: Range<u64>, jobs: usize) -> bool {
    let show = std::io::stderr().is_terminal();
    let progress = |line: String| {
        if show {
            eprint!("{line}");
        }
    };
    let swarm = swarm::swarm(seeds, jobs, progress);
    if show {
        eprintln!();
    }
    print!("{}", table(&swarm));
    for (seed, failure) in &swarm.failures {
        println!("\nseed {seed} BROKEN {failure}");
        println!("  {}", keep(&draw(*seed).0, Some(format!("cargo sim -- run --seed {seed}"))));
    }
    let unmet: Vec<&str> = swarm.unmet().into_iter().map(Mark::name).collect();
    let is_blind = swarm.seeds >= SEEDS_THAT_MEET_ALL && !unmet.is_empty();
    if is_blind {
        println!("\nNEVER MET in {} seeds: {}", swarm.seeds, unmet.join(", "));
    }
    let holds = swarm.failures.is_empty() && !is_blind;
    println!("\n{}", if holds { "HOLDS" } else { "BROKEN" });
    holds
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
