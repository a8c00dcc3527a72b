//! A plan as a text that people can read and edit.

use std::fmt::Write as _;

use serde_json::Value;

use crate::plan::Plan;

/// What fits into this stands in one line.
const COLUMNS: usize = 110;

impl Plan {
    /// The plan that a text holds. Errors: where the text is none, or what of it cannot be run, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            let what = if text.trim().is_empty() { "it is empty" } else { "it is none" };
            return Err(format!("{what}; a plan is a JSON object"));
        }
        let plan: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as a text. What is plain is left out.
    #[must_use]
    pub fn to_text(&self) -> String {
        let value =
            |plan: &Self| serde_json::to_value(plan).expect("a plan is plain data, with text for keys");
        let plain = value(&Self::default());
        let mut own = value(self);
        for section in ["source", "sink", "network", "engine"] {
            if let Some(settings) = own[section].as_object_mut() {
                settings.retain(|name, setting| plain[section][name.as_str()] != *setting);
            }
        }
        if let Some(parts) = own.as_object_mut() {
            parts.retain(|_, part| !part.as_object().is_some_and(serde_json::Map::is_empty));
        }
        let mut text = String::new();
        write(&own, 0, &mut text);
        text.push('\n');
        text
    }
}

/// In one line where it fits, else an item a line.
fn write(value: &Value, indent: usize, text: &mut String) {
    let line = in_line(value);
    let items: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().map(|item| (String::new(), item)).collect(),
        Value::Object(items) => {
            items.iter().map(|(name, item)| (format!("{}: ", Value::from(name.as_str())), item)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    if items.is_empty() || (indent > 0 && indent + line.len() <= COLUMNS) {
        text.push_str(&line);
        return;
    }
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    text.push(open);
    for (at, (name, item)) in items.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\n{:width$}{name}", "", width = indent + 2);
        write(item, indent + 2, text);
    }
    let _ = write!(text, "\n{:indent$}{close}", "");
}

fn in_line(value: &Value) -> String {
    let join = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", join(items.iter().map(in_line).collect())),
        Value::Object(items) => {
            let item = |(name, item): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), in_line(item))
            };
            format!("{{ {} }}", join(items.iter().map(item).collect()))
        }
        other => other.to_string(),
    }
}
