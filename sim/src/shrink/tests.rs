//! The reducer, with reasons to fail that are made up.

use crate::draw::draw;
use crate::plan::{Act, Fault, Node, Plan, Statement};
use crate::shrink::{Size, shrink};

fn removes(plan: &Plan, wanted: &str) -> usize {
    let statements = plan.workload.iter().flat_map(|transaction| &transaction.statements);
    statements
        .filter(|statement| matches!(statement, Statement::Remove { table, .. } if table == wanted))
        .count()
}

fn kills(plan: &Plan) -> usize {
    let kills = plan.faults.iter().filter(|fault| matches!(fault.act, Act::Kill { node: Node::Engine, .. }));
    kills.count()
}

/// The first seed of which this holds.
fn first(holds: impl Fn(&Plan) -> bool) -> Plan {
    (0..1000).map(|seed| draw(seed).0).find(holds).expect("one of them does")
}

#[test]
fn a_plan_is_reduced_to_the_reason_why_it_fails() {
    let fails = |plan: &Plan| {
        kills(plan) >= 2
            && removes(plan, "reviews") >= 1
            && plan.schema.tables.len() >= 2
            && plan.engine.max_changes < 50
    };
    let plan = first(|plan| fails(plan) && plan.faults.len() > 10 && plan.schema.indexes.len() > 2);
    let mut tried = 0;
    let small = shrink(&plan, fails, |progress| tried = progress.tried);
    assert!(tried > 10);
    assert!(fails(&small));
    let size =
        Size { faults: 2, transactions: 1, statements: 1, rows: 0, tables: 2, indexes: 0, settings: 1 };
    assert_eq!(Size::of(&small), size);
    assert!(small.faults.iter().all(|fault| fault.at.nth == 0), "{:?}", small.faults);
}

#[test]
fn it_is_reduced_to_the_same_one_each_time() {
    let fails = |plan: &Plan| plan.workload.len() >= 3 && kills(plan) >= 1;
    let plan = first(|plan| fails(plan) && plan.workload.len() > 20);
    let once = shrink(&plan, fails, |_| {});
    assert_eq!(once, shrink(&plan, fails, |_| {}));
    assert_eq!(once, shrink(&once, fails, |_| {}), "nothing is left to go");
}

/// Where only the time matters at which something happens, transactions go and their time stays.
#[test]
fn the_time_of_what_is_left_out_can_stay() {
    let fails =
        |plan: &Plan| plan.workload.iter().map(|transaction| transaction.after_ms).sum::<u64>() >= 100;
    let plan = first(|plan| fails(plan) && plan.workload.len() > 20);
    let small = shrink(&plan, fails, |_| {});
    assert_eq!(small.workload.len(), 1);
    assert_eq!(small.workload[0].after_ms, 100);
}

/// What names an index by its place moves with it, and goes with it.
#[test]
fn faults_follow_their_index() {
    let on = |plan: &Plan, name: &str| {
        plan.faults.iter().any(|fault| match fault.act {
            Act::DeleteIndex { index } | Act::Verify { index } => {
                plan.schema.indexes.get(index).is_some_and(|of| of.name == name)
            }
            _ => false,
        })
    };
    for act in [Act::DeleteIndex { index: 0 }, Act::Verify { index: 0 }] {
        let has = |plan: &Plan| {
            let is_kind = |fault: &Fault| std::mem::discriminant(&fault.act) == std::mem::discriminant(&act);
            plan.faults.iter().any(is_kind) && on(plan, "catalog")
        };
        let plan = first(has);
        let small = shrink(&plan, has, |_| {});
        assert_eq!(small.schema.indexes.len(), 1);
        assert_eq!(small.faults.iter().map(|fault| &fault.act).collect::<Vec<_>>(), [&act]);
        assert_eq!(small.faults[0].at.nth, 0);
    }
}
