//! Fewer indexes and tables, and less that they have to do with each other.

use crate::plan::{Act, Plan, Statement};
use crate::shrink::{Progress, Reducer};

impl<F: FnMut(&Plan) -> bool, P: FnMut(Progress)> Reducer<F, P> {
    pub(super) fn schema(&mut self) {
        for index in (0..self.plan.schema.indexes.len()).rev() {
            self.change(|plan| drop_index(plan, index));
        }
        for index in 0..self.plan.schema.indexes.len() {
            self.list(|plan| &mut plan.schema.indexes[index].children);
            self.list(|plan| &mut plan.schema.indexes[index].parents);
            self.change(|plan| plan.schema.indexes[index].everywhere = None);
        }
        for table in (0..self.plan.schema.tables.len()).rev() {
            let mut plan = self.plan.clone();
            if drop_table(&mut plan, table) {
                self.take(plan);
            }
        }
    }
}

/// Acts name an index by its place: those on later ones move with them.
fn drop_index(plan: &mut Plan, dropped: usize) {
    plan.schema.indexes.remove(dropped);
    plan.faults.retain_mut(|fault| match &mut fault.act {
        Act::DeleteIndex { index }
        | Act::Redefine { index }
        | Act::Reindex { index }
        | Act::Tamper { index, .. }
        | Act::Verify { index } => {
            let stays = *index != dropped;
            *index -= usize::from(*index > dropped);
            stays
        }
        _ => true,
    });
}

/// With its rows, and without the refs to it. Returns whether no index needs it.
fn drop_table(plan: &mut Plan, dropped: usize) -> bool {
    let name = plan.schema.tables[dropped].name.clone();
    let is_needed = plan.schema.indexes.iter().any(|index| {
        let others = index.children.iter().chain(&index.parents).chain(&index.everywhere);
        index.root == name || others.into_iter().any(|table| *table == name)
    });
    if is_needed {
        return false;
    }
    for at in 0..plan.schema.tables.len() {
        drop_refs(plan, at, &name);
    }
    plan.schema.tables.remove(dropped);
    let of_another = |statement: &mut Statement| match statement {
        Statement::Put { table, .. } | Statement::Remove { table, .. } | Statement::Rekey { table, .. } => {
            *table != name
        }
        Statement::Truncate { tables } => {
            tables.retain(|table| *table != name);
            !tables.is_empty()
        }
    };
    plan.rows.retain_mut(of_another);
    for transaction in &mut plan.workload {
        transaction.statements.retain_mut(of_another);
    }
    true
}

/// A row's refs stand in the order of those of its table that are columns of their own.
fn drop_refs(plan: &mut Plan, table: usize, to: &str) {
    let table = &mut plan.schema.tables[table];
    let own = table.refs.iter().filter(|by| by.key_column.is_none());
    let stay: Vec<bool> = own.map(|by| by.table != to).collect();
    table.refs.retain(|by| by.table != to);
    let name = table.name.clone();
    let statements = plan.workload.iter_mut().flat_map(|transaction| &mut transaction.statements);
    for statement in plan.rows.iter_mut().chain(statements) {
        if let Statement::Put { table, refs, .. } = statement
            && *table == name
        {
            let mut stay = stay.iter();
            refs.retain(|_| stay.next().copied().unwrap_or(true));
        }
    }
}
