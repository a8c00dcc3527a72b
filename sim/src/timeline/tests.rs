//! That the picture shows what the trace says.

use crate::draw::draw;
use crate::outcome::{Check, Failure};
use crate::plan::{Act, At, Fault, Moment, Node, Plan, Point};
use crate::run::simulate;
use crate::timeline::items::{End, Picture, Shape};
use crate::timeline::timeline;
use crate::trace::Lane;

fn calm() -> Plan {
    let plan = draw(0).0;
    Plan { faults: Vec::new(), ..plan }
}

#[test]
fn runs_end_where_the_engine_dies() {
    let at = At { point: Point::Flush, moment: Moment::Before, nth: 0 };
    let faults = vec![Fault { at, act: Act::Kill { node: Node::Engine, restart_ms: 7 } }];
    let outcome = simulate(&Plan { faults, ..calm() }).unwrap();
    let picture = Picture::new(&outcome.trace);
    let runs: Vec<_> =
        picture.of(Lane::Engine).into_iter().filter(|item| item.text.ends_with(" of the engine")).collect();
    assert_eq!(runs.len() as u64, outcome.starts);
    let down: Vec<_> = picture.down.iter().filter(|(lane, ..)| *lane == Lane::Engine).collect();
    assert_eq!(down.len() + 1, runs.len(), "each run but the last one was killed");
    for ((run, next), (_, from, to)) in runs.iter().zip(&runs[1..]).zip(down) {
        assert_eq!((run.to_us, next.from_us), (*from, *to));
    }
}

#[test]
fn requests_are_bars_until_their_answers() {
    let at = At { point: Point::Build, moment: Moment::Before, nth: 0 };
    let outcome = simulate(&Plan { faults: vec![Fault { at, act: Act::Lose }], ..calm() }).unwrap();
    let builds = Picture::new(&outcome.trace).of(Lane::Build);
    assert_eq!(builds[0].end, End::Unanswered);
    assert_eq!(builds[1].end, End::Done);
    assert!(builds.iter().all(|build| build.shape == Shape::Bar && build.from_us <= build.to_us));
}

#[test]
fn a_failure_stands_in_the_picture_with_its_sentence() {
    let plan = calm();
    let outcome = simulate(&plan).unwrap();
    let what = "<this & that> broke".to_owned();
    let failure = Failure { check: Check::Durable, what, at_us: 5, outcome: Box::new(outcome) };
    let picture = timeline(&plan, &Err(failure));
    assert!(picture.contains("durable (A4, B1): &lt;this &amp; that&gt; broke"));
    assert!(!picture.contains("<this"));
}

#[test]
fn one_run_is_one_picture() {
    let plan = draw(3).0;
    assert_eq!(timeline(&plan, &simulate(&plan)), timeline(&plan, &simulate(&plan)));
}
