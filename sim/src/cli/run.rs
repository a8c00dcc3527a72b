//! One plan, with everything that happens: from a seed, or from a file.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::cli::failures::keep;
use crate::cli::given::Given;
use crate::outcome::{Failure, Outcome};
use crate::run::simulate;
use crate::shrink::Size;

/// Of so many faults those that never came are told by name.
const NAMED: usize = 10;

const HOW_TO_READ: &str = concat!(
    "  seconds lane      what: > a request arrives, < it is answered, #: its number; ",
    "0/7 is document 7 of index 0"
);

/// Prints what a plan is made of, everything that happens, and the verdict. Returns whether it holds.
pub(super) fn run(given: &Given) -> bool {
    let result = simulate(&given.plan);
    let mut text = makeup(given);
    tell(given, &result, &mut text);
    // Whoever looks at the first lines only closes the pipe: that is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    result.is_ok()
}

fn makeup(given: &Given) -> String {
    let plan = &given.plan;
    let mut text = format!("{}\n\n", plan.title);
    if let Some(options) = &given.options {
        text += &settings("drawn", options);
    }
    text += &settings("source", &plan.source);
    text += &settings("sink", &plan.sink);
    text += &settings("network", &plan.network);
    text += &settings("engine", &plan.engine);
    for index in &plan.schema.indexes {
        text += &settings("index", index);
    }
    let _ = writeln!(text, "plan      {}\n\n{HOW_TO_READ}", Size::of(plan));
    text
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

/// What happened, and the verdict.
fn tell(given: &Given, result: &Result<Outcome, Failure>, text: &mut String) {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(failure) => &failure.outcome,
    };
    *text += &outcome.trace.to_text();
    let faults: Vec<String> = outcome.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let marks: Vec<&str> = outcome.marks.keys().map(|mark| mark.name()).collect();
    let or_none = |list: String| if list.is_empty() { "none".to_owned() } else { list };
    let _ = writeln!(text, "\nfaults: {}", or_none(faults.join(", ")));
    let _ = writeln!(text, "met: {}", or_none(marks.join(", ")));
    let never = given.plan.faults.iter().filter(|fault| !outcome.route.contains(&fault.at));
    let never: Vec<String> =
        never.map(|fault| format!("{} at {}", fault.act.name(fault.at.moment), fault.at)).collect();
    if !never.is_empty() {
        let _ = writeln!(text, "never came: {} of {} faults", never.len(), given.plan.faults.len());
        // A plan that someone wrote has few, and each of them is meant.
        if given.plan.faults.len() <= NAMED {
            let _ = writeln!(text, "  {}", never.join("\n  "));
        }
    }
    let _ = writeln!(text, "trace {}", outcome.trace.hash());
    let _ = match result {
        Ok(outcome) => {
            let seconds = outcome.simulated_us as f64 / 1e6;
            let (starts, commits) = (outcome.starts, outcome.commits);
            writeln!(
                text,
                "HOLDS after {seconds:.3} s, {starts} starts of the engine, {commits} transactions"
            )
        }
        Err(failure) => writeln!(text, "BROKEN {failure}\n{}", keep(&given.plan, Some(given.line()))),
    };
}
