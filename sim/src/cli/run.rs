//! One plan, with everything that happens: from a seed, or from a file.

use std::fmt::Write as _;

use crate::cli::failures::keep;
use crate::cli::given::Given;
use crate::outcome::{Failure, Outcome};
use crate::run::simulate;

pub(super) fn run(given: &Given) -> bool {
    let plan = &given.plan;
    println!("{}", plan.title);
    if let Some(options) = &given.options {
        println!("{options}");
    }
    println!(
        "source {:?}\nsink {:?}\nnetwork {:?}\nengine {:?}",
        plan.source, plan.sink, plan.network, plan.engine
    );
    println!(
        "{} rows, {} transactions, {} faults\n",
        plan.rows.len(),
        plan.workload.len(),
        plan.faults.len()
    );
    tell(given, &simulate(plan))
}

/// Prints what happened, and the verdict.
fn tell(given: &Given, result: &Result<Outcome, Failure>) -> bool {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(failure) => &failure.outcome,
    };
    print!("{}", outcome.trace.to_text());
    let mut faults = String::new();
    for (name, count) in &outcome.faults {
        let _ = write!(faults, " {name} {count},");
    }
    let marks: Vec<&str> = outcome.marks.keys().map(|mark| mark.name()).collect();
    println!("\nfaults:{}", faults.trim_end_matches(','));
    println!("met: {}", marks.join(", "));
    println!("trace {}", outcome.trace.hash());
    match result {
        Ok(outcome) => {
            let seconds = outcome.simulated_us as f64 / 1e6;
            println!("HOLDS after {seconds:.3} s, {} starts, {} commits", outcome.starts, outcome.commits);
        }
        Err(failure) => println!("BROKEN {failure}\n{}", keep(&given.plan, Some(given.line()))),
    }
    result.is_ok()
}
