//! Bulk requests as they pass: which document is written how, and what the server says of each.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::anchors;
use crate::tally::Tally;
use crate::wire::{Request, Response};

/// One document of a bulk request.
pub(crate) struct Item {
    /// Its line, or its two lines.
    text: String,
    action: String,
    target: String,
    id: String,
    version: u64,
    /// The `rev` of its body, where it has one.
    rev: Option<i64>,
}

impl Item {
    /// Whether it must never be rejected: see [`anchors`].
    pub(crate) fn is_anchor(&self) -> bool {
        anchors::is_one(&self.target, &self.id)
    }
}

/// The documents of a request; none where it is not one that this module knows.
pub(crate) fn items(request: &Request) -> Vec<Item> {
    let text = String::from_utf8_lossy(&request.body);
    let mut lines = text.lines();
    let mut items = Vec::new();
    while let Some(head) = lines.next() {
        let Ok(Json::Object(action)) = serde_json::from_str(head) else { return Vec::new() };
        let Some((name, meta)) = action.iter().next() else { return Vec::new() };
        let body = if name == "delete" { None } else { lines.next() };
        let part = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
        items.push(Item {
            text: body.map_or_else(|| format!("{head}\n"), |body| format!("{head}\n{body}\n")),
            action: name.clone(),
            target: part("_index"),
            id: part("_id"),
            version: meta["version"].as_u64().unwrap_or_default(),
            rev: body
                .and_then(|body| serde_json::from_str::<Json>(body).ok())
                .and_then(|body| body["rev"].as_i64()),
        });
    }
    items
}

/// The same request with these documents alone.
pub(crate) fn with_items<'a>(request: &Request, items: impl IntoIterator<Item = &'a Item>) -> Request {
    let body: String = items.into_iter().map(|item| item.text.as_str()).collect();
    Request { body: body.into_bytes(), ..request.clone() }
}

/// What a server answers of a document that it does not take.
pub(crate) fn refused(item: &Item, status: u16) -> Json {
    let kind = match status {
        400 => "mapper_parsing_exception",
        429 => "rejected_execution_exception",
        _ => "unavailable_shards_exception",
    };
    let error = json!({ "type": kind, "reason": "said by the torture test" });
    let told = json!({ "_index": item.target, "_id": item.id, "status": status, "error": error });
    json!({ item.action.clone(): told })
}

/// The answer of a request some documents of which the server was not asked about.
pub(crate) fn merged(answer: Option<Response>, refused: Vec<(usize, Json)>) -> Response {
    let mut whole = match answer {
        Some(answer) if answer.status == 200 => answer.json(),
        Some(answer) => return answer,
        None => json!({ "took": 0, "items": [] }),
    };
    whole["errors"] = true.into();
    if let Some(items) = whole["items"].as_array_mut() {
        for (at, item) in refused {
            items.insert(at.min(items.len()), item);
        }
    }
    Response::new(200, whole.to_string()).with("content-type", "application/json")
}

/// The newest that was written of each document, and whatever went back in time.
#[derive(Default)]
pub(crate) struct Newest {
    written: BTreeMap<(String, String), (u64, i64)>,
    pub(crate) backwards: Vec<String>,
}

impl Newest {
    /// Takes note of what the server has done. A newer version must not hold an older row; that holds across runs and
    /// across the physical indexes behind a name.
    pub(crate) fn note(&mut self, items: &[Item], answer: &Response, tally: &Tally) {
        if answer.status != 200 {
            return;
        }
        let answer = answer.json();
        for (at, item) in items.iter().enumerate() {
            let told = &answer["items"][at][&item.action];
            let status = told["status"].as_u64().unwrap_or_default();
            let Item { action, target, id, version, rev, .. } = item;
            tally.journal(&format!("{status} {action} {target} {id:?} version {version:x} rev {rev:?}"));
            // A delete of what is not there leaves its version too.
            let gone = status == 404 && action == "delete" && told["error"].is_null();
            if !(status == 200 || status == 201 || gone) {
                continue;
            }
            let index = target.split('-').next().unwrap_or_default().to_owned();
            let last = self.written.entry((index, id.clone())).or_default();
            let backwards = match rev {
                Some(rev) if version > &last.0 => *rev < last.1,
                Some(rev) => *rev > last.1,
                None => false,
            };
            if backwards {
                let (version_before, rev_before) = last;
                self.backwards.push(format!(
                    "{target} {id:?}: version {version:x} holds rev {rev:?}, version {version_before:x} held rev {rev_before}"
                ));
            }
            if version > &last.0 {
                *last = (*version, rev.unwrap_or(last.1));
            }
        }
    }
}
