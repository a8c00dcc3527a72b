//! Whether a plan makes sense: what a person may have written is looked at before it is run.

use std::time::Duration;

use serde_json::Value;
use syncline::{
    Alarms, BatchPolicy, Config, FailurePolicies, FailurePolicy, IndexName, Limits, RetryPolicy, TableName,
};

use crate::plan::{Act, At, Moment, Node, Plan, Point, Span, Statement, Table};
use crate::tables::Shape;

/// No time is longer than an hour.
const MILLIS_MAX: u64 = 3_600_000;
/// And nothing else is larger than this.
const COUNT_MAX: u64 = 1 << 30;

impl Plan {
    /// Whether the plan can be run. Errors: the first thing that contradicts another, or names what there is not, and where
    /// it stands.
    pub fn check(&self) -> Result<(), String> {
        let all = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for part in ["schema", "rows", "workload", "source", "sink", "network", "engine", "faults"] {
            check_numbers(part, "", &all[part])?;
        }
        for (at, table) in self.schema.tables.iter().enumerate() {
            TableName::new(&table.name).map_err(|error| format!("schema: {error}"))?;
            if table.key_columns == 0 {
                return Err(format!("schema: table `{}` has a key without columns", table.name));
            }
            if self.schema.tables[..at].iter().any(|other| other.name == table.name) {
                return Err(format!("schema: two tables have the name `{}`", table.name));
            }
            for by in &table.refs {
                if by.key_column.is_some_and(|part| part >= table.key_columns) {
                    let columns = table.key_columns;
                    return Err(format!("schema: a ref of `{}` is no part of its {columns}", table.name));
                }
            }
        }
        let shape = Shape::new(&self.schema).map_err(|error| format!("schema: {error}"))?;
        if self.schema.indexes.is_empty() {
            return Err("schema: there is no index, so that nothing could be checked".to_owned());
        }
        if let Some(table) = (0..shape.tables()).find(|table| shape.needs_before(*table))
            && !self.source.before_images
        {
            let table = shape.table_name(table);
            return Err(format!(
                "source.before_images: rows of `{table}` leave a document that no key of theirs tells"
            ));
        }
        for (at, index) in self.schema.indexes.iter().enumerate() {
            IndexName::new(&index.name).map_err(|error| format!("schema: {error}"))?;
            if self.schema.indexes[..at].iter().any(|other| other.name == index.name) {
                return Err(format!("schema: two indexes have the name `{}`", index.name));
            }
            if index.skips && index.parks {
                return Err(format!("schema: `{}` can either skip or park", index.name));
            }
        }
        for (at, statement) in self.rows.iter().enumerate() {
            self.check_statement(statement).map_err(|error| format!("rows[{at}]: {error}"))?;
        }
        for (at, transaction) in self.workload.iter().enumerate() {
            for (nth, statement) in transaction.statements.iter().enumerate() {
                self.check_statement(statement)
                    .map_err(|error| format!("workload[{at}].statements[{nth}]: {error}"))?;
            }
        }
        let (source, sink, network) = (&self.source, &self.sink, &self.network);
        for (name, Span { min, max }) in [
            ("source.visible_us", source.visible_us),
            ("source.replica_lag_us", source.replica_lag_us),
            ("source.query_us", source.query_us),
            ("sink.stage_us", sink.stage_us),
            ("sink.sync_us", sink.sync_us),
            ("network.latency_us", network.latency_us),
        ] {
            if min > max {
                return Err(format!("{name}: the least, {min}, is greater than the most, {max}"));
            }
        }
        if network.lost_ppm > 1_000_000 {
            return Err(format!("network.lost_ppm: {} of a million", network.lost_ppm));
        }
        for (at, fault) in self.faults.iter().enumerate() {
            self.check_act(fault.at, &fault.act).map_err(|error| format!("faults[{at}]: {error}"))?;
        }
        let named = |error: String| error.replace("`batch.", "`engine.").replace("`limits.", "`engine.");
        self.config().check().map_err(|error| named(error.to_string()))
    }

    fn check_statement(&self, statement: &Statement) -> Result<(), String> {
        match statement {
            Statement::Put { table, key, refs, .. } => {
                let table = self.keyed(table, key)?;
                let own = table.refs.iter().filter(|by| by.key_column.is_none()).count();
                match refs.len() == own {
                    true => Ok(()),
                    false => Err(format!("`{}` has {own} refs of its own, not {}", table.name, refs.len())),
                }
            }
            Statement::Remove { table, key } => self.keyed(table, key).map(drop),
            Statement::Rekey { table, from, to } => {
                self.keyed(table, from)?;
                self.keyed(table, to).map(drop)
            }
            Statement::Truncate { tables } => tables.iter().try_for_each(|table| self.table(table).map(drop)),
        }
    }

    fn table(&self, name: &str) -> Result<&Table, String> {
        let found = self.schema.tables.iter().find(|table| table.name == name);
        found.ok_or_else(|| format!("the schema has no table `{name}`"))
    }

    fn keyed(&self, table: &str, key: &[i64]) -> Result<&Table, String> {
        let table = self.table(table)?;
        match table.key_columns == key.len() {
            true => Ok(table),
            false => Err(format!(
                "the key of `{}` has {} columns, not {}",
                table.name,
                table.key_columns,
                key.len()
            )),
        }
    }

    fn check_act(&self, at: At, act: &Act) -> Result<(), String> {
        let place = || format!("{} {:?}", act.name(at.moment), at.point).to_lowercase();
        if let Some(side) = at.point.only_side().filter(|side| *side != at.moment) {
            let said = |moment: Moment| format!("{moment:?}").to_lowercase();
            let (wrong, right) = (said(at.moment), said(side));
            return Err(format!("nothing comes `{wrong}` that point, but `{right}` it: {}", place()));
        }
        match act {
            Act::Fail { .. } | Act::Lose | Act::Hold { .. } if !at.point.is_request() => {
                Err(format!("nothing is asked at that point, and nothing answered: {}", place()))
            }
            Act::Throttle { one_in: 0 } => Err("one in 0 documents cannot be throttled".to_owned()),
            Act::Throttle { .. } if (at.point, at.moment) != (Point::Flush, Moment::Before) => {
                Err(format!("only before a flush can documents be throttled: {}", place()))
            }
            Act::LeaveOut if (at.point, at.moment) != (Point::Build, Moment::After) => {
                Err(format!("only after a build can a document be left out: {}", place()))
            }
            Act::RefuseCredentials { node: Node::Engine, .. } => {
                Err("the engine asks for no credentials".to_owned())
            }
            Act::DeleteIndex { index }
            | Act::Redefine { index }
            | Act::Reindex { index }
            | Act::Verify { index }
            | Act::Tamper { index, .. }
                if *index >= self.schema.indexes.len() =>
            {
                Err(format!("there is no index {index}; the first one is 0"))
            }
            _ => Ok(()),
        }
    }

    /// The configuration of the engine.
    pub(crate) fn config(&self) -> Config {
        let of = &self.engine;
        let millis = Duration::from_millis;
        let mut policies = FailurePolicies::default();
        for index in self.schema.indexes.iter().filter(|index| index.skips) {
            policies = policies.with_override(&index.name, FailurePolicy::Skip);
        }
        for index in self.schema.indexes.iter().filter(|index| index.parks) {
            policies = policies.with_override(&index.name, FailurePolicy::Park);
        }
        Config {
            batch: BatchPolicy {
                max_changes: of.max_changes,
                max_documents: of.max_documents,
                max_bytes: of.max_bytes,
                max_delay: millis(of.max_delay_ms),
            },
            failure_policies: policies,
            limits: Limits {
                changes: of.changes,
                documents: of.documents,
                resolves: of.resolves,
                resolve_changes: of.resolve_changes,
                builds: of.builds,
                flushes: of.flushes,
                units: of.units,
                backfill_rows: of.backfill_rows,
                backfill_share: of.backfill_share,
                adaptive: of.adaptive,
            },
            retry: RetryPolicy {
                delay_min: millis(of.retry_min_ms),
                delay_max: millis(of.retry_max_ms),
                attempts: of.attempts,
                attempt_timeout: millis(of.attempt_ms),
                seed: Some(self.seed),
            },
            alarms: Alarms { unacknowledged_age: millis(of.alarm_ms), ..Alarms::default() },
            quarantine: true,
            skip_backfill: false,
            cursor_interval: millis(of.cursor_interval_ms),
            grace: millis(of.grace_ms),
        }
    }
}

/// Whether times and sizes are such that a run comes to an end. Keys of rows may be any number.
fn check_numbers(path: &str, name: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) => {
            let mut numbered = items.iter().enumerate();
            numbered.try_for_each(|(at, item)| check_numbers(&format!("{path}[{at}]"), name, item))
        }
        Value::Object(items) => {
            let rows = ["key", "from", "to", "refs"];
            let mut items =
                items.iter().filter(|(name, value)| !(rows.contains(&name.as_str()) && value.is_array()));
            items.try_for_each(|(name, item)| {
                // The bounds of a span are of the unit that the span's name tells.
                check_numbers(
                    &format!("{path}.{name}"),
                    if matches!(name.as_str(), "min" | "max") { path } else { name },
                    item,
                )
            })
        }
        Value::Number(number) => {
            let most = match name {
                _ if name == "ms" || name.ends_with("_ms") => MILLIS_MAX,
                _ if name.ends_with("_us") => MILLIS_MAX * 1000,
                _ => COUNT_MAX,
            };
            match number.as_u64().is_some_and(|number| number <= most) {
                true => Ok(()),
                false => Err(format!("{path}: {number} is more than {most}")),
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
