//! Indexes that stop alone, and what may go wrong about it.

use crate::plan::{Act, At, Fault, Moment, Point, Poison, Schema, Source, Statement, Transaction};
use crate::random::Random;

/// Some indexes stop where a document of theirs fails.
pub(super) fn parks(random: &mut Random, schema: &mut Schema) {
    if random.permille(350) {
        for index in &mut schema.indexes {
            index.parks = random.permille(500);
            index.skips &= !index.parks;
        }
    }
}

/// Documents of an index that stops fail more often than others, while it is being seeded or is about to be cleared; what
/// is remembered of its seeding comes late.
pub(super) fn situations(
    random: &mut Random,
    schema: &Schema,
    source: &mut Source,
    workload: &mut Vec<Transaction>,
) -> Vec<Fault> {
    let parks: Vec<usize> = (0..schema.indexes.len()).filter(|index| schema.indexes[*index].parks).collect();
    if parks.is_empty() || random.permille(300) {
        return Vec::new();
    }
    let index = random.pick(&parks);
    let root = &schema.indexes[index].root;
    poison(random, root, workload);
    let mut faults = Vec::new();
    let mut add = |point, moment, nth, act| faults.push(Fault { at: At { point, moment, nth }, act });
    for _ in 0..random.between(1, 2) {
        let point = random.pick(&[Point::Refuse, Point::Refuse, Point::Flush, Point::Mark, Point::Commit]);
        add(point, Moment::Before, random.below(4) as u32, Act::Reindex { index });
    }
    for _ in 0..random.between(1, 3) {
        let point = random.pick(&[Point::Clear, Point::Cursor, Point::Mark]);
        let ms = random.pick(&[100, 500, 1000, 3000]);
        add(point, Moment::Before, random.below(8) as u32, Act::Hold { ms });
    }
    if random.permille(400) {
        // Its table is emptied while it is being seeded, or is about to stop.
        let at = random.below(workload.len() as u64 + 1) as usize;
        let truncate = Statement::Truncate { tables: vec![root.clone()] };
        workload.insert(at, Transaction { after_ms: random.pick(&[0, 20, 100]), statements: vec![truncate] });
    }
    if random.permille(400) {
        // It is seeded anew a moment after a change that it has passed over, from a replica that has not come to that.
        source.scan_lag_us = random.pick(&[500_000, 1_500_000]);
        for _ in 0..random.between(1, 4) {
            let nth = random.below(workload.len() as u64 + 1) as u32;
            add(Point::Commit, Moment::After, nth, Act::Reindex { index });
        }
    }
    if random.permille(650) {
        // It stops when its marker has been given up and made again, before the first one lands; and goes on after that.
        add(Point::Mark, Moment::Before, random.below(2) as u32, Act::Hold { ms: 4000 });
        for (at_ms, row, poison) in [(3000, 0, Poison::Rejected), (6000, 1, Poison::None)] {
            insert(workload, at_ms, put(schema, root, row, poison));
        }
    }
    faults
}

/// A row that nothing else of the workload touches.
fn put(schema: &Schema, table: &str, row: i64, poison: Poison) -> Statement {
    let known = schema.tables.iter().find(|known| known.name == table).expect("an index has a root table");
    let refs = known.refs.iter().filter(|by| by.key_column.is_none()).count();
    Statement::Put {
        table: known.name.clone(),
        key: vec![200 + row; known.key_columns],
        refs: vec![0; refs],
        bytes: 0,
        poison,
    }
}

/// A transaction of its own at about this time, or, where the workload is over by then, as long after it as is left.
fn insert(workload: &mut Vec<Transaction>, at_ms: u64, statement: Statement) {
    let mut now_ms = 0;
    let mut before = 0;
    while before < workload.len() && now_ms + workload[before].after_ms <= at_ms {
        now_ms += workload[before].after_ms;
        before += 1;
    }
    if let Some(next) = workload.get_mut(before) {
        next.after_ms -= at_ms - now_ms;
    }
    workload.insert(before, Transaction { after_ms: at_ms - now_ms, statements: vec![statement] });
}

/// Some rows of a table become documents that fail alone.
fn poison(random: &mut Random, root: &str, workload: &mut [Transaction]) {
    let permille = random.pick(&[50, 150, 400]);
    for statement in workload.iter_mut().flat_map(|transaction| &mut transaction.statements) {
        if let Statement::Put { table, poison, .. } = statement
            && table == root
            && random.permille(permille)
        {
            *poison = random.pick(&[Poison::Rejected, Poison::Unbuildable]);
        }
    }
}
