//! One plan, with everything that happens: from a seed, or from a file.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::cli::failures::keep;
use crate::cli::given::Given;
use crate::outcome::{Failure, Outcome};
use crate::run::simulate;
use crate::shrink::Size;

/// Prints what a plan is made of, everything that happens, and the verdict. Returns whether it holds.
pub(super) fn run(given: &Given) -> bool {
    let plan = &given.plan;
    println!("{}\n", plan.title);
    if let Some(options) = &given.options {
        print!("{}", settings("drawn", options));
    }
    print!(
        "{}{}{}{}",
        settings("source", &plan.source),
        settings("sink", &plan.sink),
        settings("network", &plan.network),
        settings("engine", &plan.engine)
    );
    for index in &plan.schema.indexes {
        print!("{}", settings("index", index));
    }
    println!("plan      {}", Size::of(plan));
    println!(
        "\n  seconds lane      what: > a request arrives, < it is answered, #: its number; 0/7 is document 7 of index 0"
    );
    tell(given, &simulate(plan))
}

/// Names and values, in as many lines as it takes.
fn settings(name: &str, of: &impl Serialize) -> String {
    let mut text = String::new();
    let mut line = format!("{name:<9}");
    let of = serde_json::to_value(of).unwrap_or_default();
    for (name, value) in of.as_object().into_iter().flatten() {
        let item = match (&value["min"], &value["max"]) {
            (Value::Null, _) | (_, Value::Null) => format!(" {name} {value}"),
            (min, max) => format!(" {name} {min}..{max}"),
        };
        if line.len() + item.len() > 110 {
            text += &line;
            text += ",\n";
            line = format!("{:<9}", "");
        } else if line.len() > 9 {
            line.push(',');
        }
        line += &item;
    }
    text + &line.replace('"', "") + "\n"
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
    if faults.is_empty() {
        faults.push_str(" none");
    }
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
