//! Settings, one by one, to the plain ones.

use serde_json::Value;

use crate::plan::Plan;
use crate::shrink::{Progress, Reducer};

/// The parts of a plan that hold settings.
const SECTIONS: [&str; 4] = ["source", "sink", "network", "engine"];

fn value(plan: &Plan) -> Value {
    serde_json::to_value(plan).expect("a plan is plain data, with text for keys")
}

/// The settings that are not the plain ones: section, name and the plain value.
pub(super) fn not_plain(plan: &Plan) -> Vec<(&'static str, String, Value)> {
    let (all, plain) = (value(plan), value(&Plan::default()));
    let mut found = Vec::new();
    for section in SECTIONS {
        let settings = plain[section].as_object().into_iter().flatten();
        let other = settings.filter(|(name, plain)| all[section][name.as_str()] != **plain);
        found.extend(other.map(|(name, plain)| (section, name.clone(), plain.clone())));
    }
    found
}

impl<F: FnMut(&Plan) -> bool, P: FnMut(Progress)> Reducer<F, P> {
    pub(super) fn settings(&mut self) {
        for section in SECTIONS {
            self.set(section, None, value(&Plan::default())[section].clone());
        }
        for (section, name, plain) in not_plain(&self.plan) {
            self.set(section, Some(&name), plain);
        }
        for index in 0..self.plan.schema.indexes.len() {
            self.change(|plan| plan.schema.indexes[index].skips = false);
        }
    }

    fn set(&mut self, section: &str, name: Option<&str>, to: Value) {
        let mut plan = value(&self.plan);
        match name {
            Some(name) => plan[section][name] = to,
            None => plan[section] = to,
        }
        if let Ok(plan) = serde_json::from_value(plan) {
            self.take(plan);
        }
    }
}
