//! Whether a plan makes sense: what a person may have written is looked at before it is run.

use std::time::Duration;

use syncline::{Alarms, BatchPolicy, Config, FailurePolicies, FailurePolicy, Limits, RetryPolicy};

use crate::plan::{Act, Plan, Span, Statement, Table};
use crate::tables::Shape;

impl Plan {
    /// Whether the plan can be run. Errors: the first thing that contradicts another, or names what there is not, and where
    /// it stands.
    pub fn check(&self) -> Result<(), String> {
        for (at, table) in self.schema.tables.iter().enumerate() {
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
        Shape::new(&self.schema)?;
        for (at, index) in self.schema.indexes.iter().enumerate() {
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
            self.check_act(&fault.act).map_err(|error| format!("faults[{at}]: {error}"))?;
        }
        self.config().check().map_err(|error| format!("engine: {error}"))
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

    fn check_act(&self, act: &Act) -> Result<(), String> {
        match act {
            Act::DeleteIndex { index }
            | Act::Redefine { index }
            | Act::Reindex { index }
            | Act::Verify { index }
            | Act::Tamper { index, .. }
                if *index >= self.schema.indexes.len() =>
            {
                Err(format!("there is no index {index}; the first one is 0"))
            }
            Act::Throttle { one_in: 0 } => Err("one in 0 documents cannot be throttled".to_owned()),
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
