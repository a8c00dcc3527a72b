//! A failing plan reduced to what it takes to fail.
//!
//! Anything is left out, or made plainer, as long as the plan still fails in the same way; again and again, until nothing
//! more can go. It is greedy and draws no random number, so one plan is always reduced to the same one. Removing halves
//! before single things is Zeller's delta debugging.

mod numbers;
mod schema;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::plan::{Plan, Poison, Statement};

/// After so many rounds it is enough; three are common.
const ROUNDS_MAX: usize = 20;

/// How large a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Transactions.
    pub transactions: usize,
    /// Statements of all transactions.
    pub statements: usize,
    /// Rows at the start.
    pub rows: usize,
    /// Tables.
    pub tables: usize,
    /// Indexes.
    pub indexes: usize,
    /// Settings that are not the plain ones.
    pub settings: usize,
}

impl Size {
    /// The size of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            faults: plan.faults.len(),
            transactions: plan.workload.len(),
            statements: plan.workload.iter().map(|transaction| transaction.statements.len()).sum(),
            rows: plan.rows.len(),
            tables: plan.schema.tables.len(),
            indexes: plan.schema.indexes.len(),
            settings: settings::not_plain(plan).len(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults, {} transactions, {} statements, {} rows, {} tables, {} indexes, {} settings",
            self.faults,
            self.transactions,
            self.statements,
            self.rows,
            self.tables,
            self.indexes,
            self.settings
        )
    }
}

/// How far a reduction is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Plans that were tried.
    pub tried: u64,
    /// The size of the smallest that fails.
    pub size: Size,
}

/// The smallest plan that can be reached from one for which `fails` holds, and for which it holds too. `progress` is told
/// of each plan that was tried.
pub fn shrink(plan: &Plan, fails: impl FnMut(&Plan) -> bool, progress: impl FnMut(Progress)) -> Plan {
    let mut reducer = Reducer { plan: plan.clone(), fails, progress, tried: 0 };
    for _ in 0..ROUNDS_MAX {
        let before = reducer.plan.clone();
        reducer.round();
        if reducer.plan == before {
            break;
        }
    }
    reducer.plan
}

struct Reducer<F, P> {
    /// The smallest so far.
    plan: Plan,
    fails: F,
    progress: P,
    tried: u64,
}

impl<F: FnMut(&Plan) -> bool, P: FnMut(Progress)> Reducer<F, P> {
    /// What makes the plan smallest first, so that the rest has less to run.
    fn round(&mut self) {
        self.list(|plan| &mut plan.faults);
        self.transactions();
        self.list(|plan| &mut plan.rows);
        for at in 0..self.plan.workload.len() {
            self.list(|plan| &mut plan.workload[at].statements);
        }
        self.schema();
        self.settings();
        self.rows();
        self.numbers();
    }

    /// Takes a plan where it fails and is another one than the smallest so far. Returns whether it was taken.
    fn take(&mut self, plan: Plan) -> bool {
        if plan == self.plan {
            return false;
        }
        self.tried += 1;
        let taken = (self.fails)(&plan);
        if taken {
            self.plan = plan;
        }
        (self.progress)(Progress { tried: self.tried, size: Size::of(&self.plan) });
        taken
    }

    /// The smallest plan so far, changed: taken where it still fails.
    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.plan.clone();
        change(&mut plan);
        self.take(plan)
    }

    /// Leaves out what it can of a list: all of it, halves, quarters, down to single items, from the end.
    fn list<T>(&mut self, of: impl Fn(&mut Plan) -> &mut Vec<T>) {
        self.cut(&|plan| of(plan).len(), |plan, from, to| {
            of(plan).drain(from..to);
        });
    }

    /// Transactions, too; where the time that one took matters, the next one waits as long.
    fn transactions(&mut self) {
        self.cut(&|plan| plan.workload.len(), |plan, from, to| {
            plan.workload.drain(from..to);
        });
        self.cut(&|plan| plan.workload.len(), |plan, from, to| {
            // The shortest sleep is a millisecond.
            let waits = plan.workload.drain(from..to).map(|transaction| transaction.after_ms.max(1));
            let waited: u64 = waits.sum();
            if let Some(next) = plan.workload.get_mut(from) {
                next.after_ms = next.after_ms.max(1) + waited;
            }
        });
    }

    fn cut(&mut self, len: &dyn Fn(&mut Plan) -> usize, remove: impl Fn(&mut Plan, usize, usize)) {
        let mut chunk = len(&mut self.plan);
        while chunk > 0 {
            let mut to = len(&mut self.plan);
            while to > 0 {
                let from = to.saturating_sub(chunk);
                self.change(|plan| remove(plan, from, to));
                to = from;
            }
            chunk /= 2;
        }
    }

    /// Rows that everyone will have, and that bring nothing.
    fn rows(&mut self) {
        let in_rows = self.plan.rows.len();
        let in_workload: Vec<usize> =
            self.plan.workload.iter().map(|transaction| transaction.statements.len()).collect();
        for at in 0..in_rows {
            self.change(|plan| plain(&mut plan.rows[at]));
        }
        for (transaction, statements) in in_workload.into_iter().enumerate() {
            for at in 0..statements {
                self.change(|plan| plain(&mut plan.workload[transaction].statements[at]));
            }
        }
    }
}

fn plain(statement: &mut Statement) {
    if let Statement::Put { bytes, poison, .. } = statement {
        *bytes = 0;
        *poison = Poison::None;
    }
}
