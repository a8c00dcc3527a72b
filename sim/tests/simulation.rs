//! The simulation as a test: some hundred seeds, the regressions, and that a run is one run.

#![cfg(madsim)]

use std::fs;
use std::path::Path;

use sim::draw::draw;
use sim::kill_points::{Pairs, kill_points};
use sim::plan::Plan;
use sim::run::simulate;
use sim::swarm::swarm;

/// `SIM_SEEDS=A..B` runs others.
#[test]
fn seeds_hold() {
    let seeds = std::env::var("SIM_SEEDS").ok();
    let range = seeds
        .as_deref()
        .and_then(|seeds| seeds.split_once(".."))
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    let swarm = swarm(range.unwrap_or(0..400), 2, |_| {});
    let broken: Vec<String> = swarm
        .failures
        .iter()
        .map(|(seed, failure)| format!("{failure}\n  cargo sim -- run --seed {seed}"))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What once broke stays whole.
#[test]
fn plans_hold() {
    for (name, plan) in plans("plans").unwrap() {
        if let Err(failure) = simulate(&plan) {
            panic!("{}\n{failure}\n  cargo sim -- replay sim/plans/{name}", plan.title);
        }
    }
}

/// The engine is killed at every point of each of the small plans, and at one in so many pairs of points.
#[test]
fn kill_points_hold() {
    for (name, plan) in plans("plans/kill").unwrap() {
        let kills = kill_points(&plan, Pairs::OneIn(25), 2, |_, _| {}).unwrap();
        assert!(kills.singles > 100 && kills.pairs > 500, "{name} has too few points: {kills:?}");
        let broken: Vec<String> =
            kills.failures.iter().map(|(at, failure)| format!("killed at {at:?}: {failure}")).collect();
        let line = format!("cargo sim -- kill-points sim/plans/kill/{name}");
        assert!(broken.is_empty(), "{}\n  {line}", broken.join("\n"));
    }
}

/// The plans of a directory, with the names of their files.
fn plans(directory: &str) -> Result<Vec<(String, Plan)>, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut plans = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            plans.push((
                path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                Plan::parse(&text)?,
            ));
        }
    }
    plans.sort_by(|one, other| one.0.cmp(&other.0));
    if plans.is_empty() { Err("there are no plans".to_owned()) } else { Ok(plans) }
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..25 {
        let plan = draw(seed).0;
        let traces = [simulate(&plan), simulate(&plan)].map(|result| match result {
            Ok(outcome) => outcome.trace.to_text(),
            Err(failure) => failure.outcome.trace.to_text(),
        });
        assert!(!traces[0].is_empty());
        assert!(traces[0] == traces[1], "seed {seed} gives two traces");
    }
}

#[test]
fn a_plan_survives_its_text() {
    for seed in 0..50 {
        let plan = draw(seed).0;
        assert_eq!(Plan::parse(&plan.to_text()).unwrap(), plan);
    }
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    let mut plan = draw(0).0;
    plan.schema.indexes[0].root = "nothing".to_owned();
    let failure = simulate(&plan).unwrap_err();
    assert_eq!(failure.what, "schema: the schema has no table `nothing`");
}

/// What is wrong with a plan that someone wrote is said before it is run, with its place.
#[test]
fn a_plan_that_names_what_there_is_not_is_refused() {
    let plan = r#"{
        "schema": {
            "tables": [
                { "name": "books", "key_columns": 1 },
                { "name": "reviews", "key_columns": 2, "refs": [{ "table": "books", "key_column": 0 }, { "table": "books" }] }
            ],
            "indexes": [{ "name": "books", "root": "books", "children": ["reviews"] }]
        },
        "rows": [{ "put": { "table": "reviews", "key": [1, 1], "refs": [1] } }],
        "workload": [{ "after_ms": 1, "statements": [{ "rekey": { "table": "books", "from": [1], "to": [2] } }] }],
        "sink": { "sync_us": { "min": 1, "max": 2 } },
        "faults": [{ "at": { "point": "flush", "moment": "after", "nth": 0 }, "act": { "reindex": { "index": 0 } } }]
    }"#;
    assert_eq!(Plan::parse(plan).unwrap().check(), Ok(()));
    for (from, to, error) in [
        ("\"name\": \"reviews\"", "\"name\": \"books\"", "two tables have the name"),
        ("\"key_columns\": 1", "\"key_columns\": 0", "has a key without columns"),
        ("\"key_column\": 0", "\"key_column\": 2", "is no part of its 2"),
        ("\"key\": [1, 1]", "\"key\": [1]", "rows[0]: the key of `reviews` has 2 columns, not 1"),
        ("\"refs\": [1]", "\"refs\": [1, 2]", "rows[0]: `reviews` has 1 refs of its own, not 2"),
        (
            "\"rekey\": { \"table\": \"books\"",
            "\"rekey\": { \"table\": \"x\"",
            "workload[0].statements[0]: the schema has no",
        ),
        ("\"to\": [2]", "\"to\": []", "workload[0].statements[0]: the key of `books` has 1 columns, not 0"),
        ("\"min\": 1", "\"min\": 3", "sink.sync_us: the least, 3, is greater than the most, 2"),
        ("\"reindex\": { \"index\": 0 }", "\"verify\": { \"index\": 1 }", "faults[0]: there is no index 1"),
        ("\"reindex\": { \"index\": 0 }", "\"throttle\": { \"one_in\": 0 }", "faults[0]: one in 0"),
        (
            "\"children\": [\"reviews\"]",
            "\"skips\": true, \"parks\": true",
            "`books` can either skip or park",
        ),
        ("\"rows\"", "\"engine\": { \"builds\": 0 }, \"rows\"", "`engine.builds` is 0"),
        (
            "\"flush\"",
            "\"sync\"",
            "faults[0]: nothing comes `after` that point, but `before` it: reindex sync",
        ),
        (
            "\"root\": \"books\", \"children\": [\"reviews\"]",
            "\"root\": \"books\", \"children\": [\"books\"]",
            "schema: ",
        ),
        ("\"rows\"", "\"network\": { \"lost_ppm\": 2000000 }, \"rows\"", "network.lost_ppm"),
        ("\"rows\"", "\"row\": 1, \"rows\"", "unknown field `row`"),
    ] {
        assert!(plan.contains(from), "{from}");
        let found = Plan::parse(&plan.replacen(from, to, 1)).unwrap_err();
        assert!(found.contains(error), "`{found}` does not say `{error}`");
    }
    for (text, error) in [
        ("", "it is empty"),
        ("[]", "a plan is a JSON object"),
        ("no plan", "a plan is a JSON object"),
        ("{}", "there is no index"),
    ] {
        let found = Plan::parse(text).unwrap_err();
        assert!(found.contains(error), "`{found}` does not say `{error}`");
    }
}
