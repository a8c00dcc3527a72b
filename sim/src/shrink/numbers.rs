//! Numbers of rows, transactions and faults, and settings that cannot be plain: each as near to zero as it can be.

use serde_json::Value;

use crate::plan::Plan;
use crate::shrink::settings::not_plain;
use crate::shrink::{Progress, Reducer};

impl<F: FnMut(&Plan) -> bool, P: FnMut(Progress)> Reducer<F, P> {
    pub(super) fn numbers(&mut self) {
        let all = serde_json::to_value(&self.plan).expect("a plan is plain data, with text for keys");
        let mut paths = Vec::new();
        for part in ["faults", "workload", "rows", "seed"] {
            find(&all[part], &format!("/{part}"), &mut paths);
        }
        for (section, name, _) in not_plain(&self.plan) {
            find(&all[section][&name], &format!("/{section}/{name}"), &mut paths);
        }
        for path in paths {
            self.number(&path);
        }
    }

    /// Zero, else the least that fails, as if all that are greater failed too.
    fn number(&mut self, path: &str) {
        let Some(number) = self.at(path).filter(|number| *number > 0) else { return };
        if self.set_number(path, 0) {
            return;
        }
        let (mut holds, mut fails) = (0, number);
        while fails - holds > 1 {
            let middle = holds + (fails - holds) / 2;
            if self.set_number(path, middle) {
                fails = middle;
            } else {
                holds = middle;
            }
        }
    }

    fn at(&self, path: &str) -> Option<i64> {
        serde_json::to_value(&self.plan).ok()?.pointer(path)?.as_i64()
    }

    fn set_number(&mut self, path: &str, number: i64) -> bool {
        let Ok(mut plan) = serde_json::to_value(&self.plan) else { return false };
        if let Some(place) = plan.pointer_mut(path) {
            *place = Value::from(number);
        }
        serde_json::from_value(plan).is_ok_and(|plan| self.take(plan))
    }
}

/// The places of all numbers.
fn find(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.to_owned()),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find(item, &format!("{path}/{at}"), found);
            }
        }
        Value::Object(items) => {
            for (name, item) in items {
                find(item, &format!("{path}/{name}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
