//! What was measured, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::aims::{self, Aim, Bound};
use crate::rounds::Results;
use crate::scenarios::Scenario;
use crate::work::Pace;

/// One row: a scenario by a contestant.
#[derive(Debug)]
struct Row {
    scenario: &'static str,
    contestant: &'static str,
    rounds: usize,
    seconds: Option<f64>,
    per_second: Option<f64>,
    times_the_floor: Option<f64>,
    times_syncline: Option<f64>,
    allocations: Option<f64>,
    peak_mib: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// The table, and the aims beneath it, in Markdown.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut text = String::from(
        "| Scenario | | a second | time, floor = 1 | time, Syncline = 1 | allocations | peak, MiB | p50, ms | p99, ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows(results) {
        let cells = [
            row.per_second.map(short),
            row.times_the_floor.map(|ratio| format!("{ratio:.2}")),
            row.times_syncline.map(|ratio| format!("{ratio:.2}")),
            row.allocations.map(|each| format!("{each:.2}")),
            row.peak_mib.map(|mib| format!("{mib:.0}")),
            row.p50_ms.map(|ms| format!("{ms:.2}")),
            row.p99_ms.map(|ms| format!("{ms:.2}")),
        ];
        let cells = cells.map(Option::unwrap_or_default).join(" | ");
        let _ = writeln!(text, "| {} | {} | {cells} |", row.scenario, row.contestant);
    }
    text.push_str("\n| Aim | | measured | |\n| --- | --- | ---: | --- |\n");
    for aim in aims::all(results) {
        let (Some(figure), Some(is_met)) = (aim.figure, aim.is_met()) else { continue };
        let met = if is_met { "met" } else { "missed" };
        let _ = writeln!(text, "| {} | {} | {figure:.2} | {met} |", aim.of, in_words(&aim));
    }
    text
}

/// The same as JSON, with every round.
#[must_use]
pub fn json(results: &Results) -> String {
    let rows: Vec<Value> = rows(results)
        .into_iter()
        .map(|row| {
            json!({
                "scenario": row.scenario, "contestant": row.contestant, "rounds": row.rounds, "seconds": row.seconds,
                "per_second": row.per_second, "times_the_floor": row.times_the_floor,
                "times_syncline": row.times_syncline, "allocations_per_change": row.allocations,
                "peak_mib": row.peak_mib, "p50_ms": row.p50_ms, "p99_ms": row.p99_ms,
                "seconds_by_round": results.samples[&(row.scenario, row.contestant)]
                    .iter().map(|sample| sample.seconds).collect::<Vec<_>>(),
            })
        })
        .collect();
    let aims: Vec<Value> = aims::all(results)
        .into_iter()
        .map(|aim| json!({ "scenario": aim.of, "aim": in_words(&aim), "measured": aim.figure, "met": aim.is_met() }))
        .collect();
    let scenarios: Vec<Value> = results
        .scenarios
        .iter()
        .map(|scenario| json!({ "name": scenario.name, "about": scenario.about, "counted": counted(scenario).1 }))
        .collect();
    format!("{:#}\n", json!({ "scenarios": scenarios, "rows": rows, "aims": aims }))
}

fn rows(results: &Results) -> Vec<Row> {
    let of_scenario = |scenario: &Scenario| {
        let name = scenario.name;
        let row = |contestant| {
            let seconds = results.seconds(name, contestant);
            let is_other = !matches!(contestant, "Syncline");
            Row {
                scenario: name,
                contestant,
                rounds: results.samples[&(name, contestant)].len(),
                seconds,
                per_second: seconds
                    .zip(Some(counted(scenario).0))
                    .filter(|(_, count)| *count > 0)
                    .map(|(seconds, count)| count as f64 / seconds),
                times_the_floor: results.ratio(name, contestant, "floor"),
                times_syncline: results.ratio(name, contestant, "Syncline").filter(|_| is_other),
                allocations: results.allocations_per_change(scenario, contestant),
                peak_mib: results.peak_mib(name, contestant),
                p50_ms: results.latency_ms(name, contestant, 50),
                p99_ms: results.latency_ms(name, contestant, 99),
            }
        };
        results.contestants(name).map(row).collect::<Vec<_>>()
    };
    results.scenarios.iter().flat_map(of_scenario).collect()
}

/// How many of what a scenario works through; none where it is about something else than time.
fn counted(scenario: &Scenario) -> (u64, &'static str) {
    let work = &scenario.work;
    match work.pace {
        Pace::Every(_) => (work.rows, "rows"),
        Pace::AtOnce | Pace::Real if scenario.is_timed() => (work.changes, "changes"),
        Pace::AtOnce | Pace::Real => (0, "nothing"),
    }
}

fn in_words(aim: &Aim) -> String {
    match aim.bound {
        Bound::AtLeast(least) => format!("at least {least} {}", aim.about),
        Bound::AtMost(most) => format!("at most {most} {}", aim.about),
    }
}

fn short(rate: f64) -> String {
    match rate {
        _ if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        _ if rate >= 1e4 => format!("{:.0} k", rate / 1e3),
        _ if rate >= 1e3 => format!("{:.1} k", rate / 1e3),
        _ => format!("{rate:.0}"),
    }
}
