//! What became of each document of a bulk request.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::refusal::{Cause, Refusal};
use super::request::Action;

/// What was asked for, at its place in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expected<'a> {
    /// What was to be done.
    pub action: Action,
    /// The document's id.
    pub id: &'a str,
    /// The index that stands behind the alias that the request named: its own name, never an alias.
    pub index: &'a str,
    /// The external version of the write.
    pub version: u64,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is as it was asked for, durably. Deleting what is not there is that too.
    Applied,
    /// Something as new, or newer, stands there already: its external version, where the server told it.
    Newer(Option<u64>),
    /// The server could not take it at the moment, which is no fault of the document.
    Throttled(Refusal),
    /// The server does not take it as it is.
    Rejected(Refusal),
    /// The index is not there, or not under the alias that was named, or the caller may not write to it: no document can
    /// be written there.
    Closed(Refusal),
}

/// An answer that is not of the documented form, or not to this request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the answer to {to} is malformed: {wrong}")]
pub struct Malformed {
    to: &'static str,
    wrong: String,
}

impl Malformed {
    pub(super) fn new(to: &'static str, wrong: impl ToString) -> Self {
        Self { to, wrong: wrong.to_string() }
    }
}

const BULK: &str = "a bulk request";

#[derive(Deserialize)]
struct Answer {
    items: Vec<BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "_index", default)]
    index: Option<String>,
    #[serde(rename = "_id", default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    error: Option<Cause>,
}

/// Reads the answer to a bulk request: what became of each document, in the order of the request. `answer` is the body of
/// an answer with the status 200.
///
/// Every document must be answered for, at its place and by its id, and one that was written must stand in the index that
/// was meant: a delete whose alias is gone makes the server create an index of that name, and report success.
///
/// Errors: [`Malformed`], which says what is wrong and where.
pub fn read_bulk(answer: &[u8], expected: &[Expected<'_>]) -> Result<Vec<Outcome>, Malformed> {
    let Answer { items } = serde_json::from_slice(answer).map_err(|error| Malformed::new(BULK, error))?;
    if items.len() != expected.len() {
        let wrong = format!("it speaks of {} documents, not of {}", items.len(), expected.len());
        return Err(Malformed::new(BULK, wrong));
    }
    let each = items.into_iter().zip(expected).enumerate();
    each.map(|(at, (item, expected))| {
        outcome(item, expected)
            .map_err(|wrong| Malformed::new(BULK, format!("item {at} ({}): {wrong}", expected.id)))
    })
    .collect()
}

fn outcome(mut item: BTreeMap<String, Item>, expected: &Expected<'_>) -> Result<Outcome, String> {
    let (action, item) = match (item.pop_first(), item.is_empty()) {
        (Some(one), true) => one,
        _ => return Err("it is not of one action".to_owned()),
    };
    let asked = match expected.action {
        Action::Index => "index",
        Action::Delete => "delete",
    };
    if action != asked {
        return Err(format!("it answers an action {action:?}, not {asked:?}"));
    }
    let status = item.status.ok_or("it has no status")?;
    if item.id.as_deref() != Some(expected.id) {
        return Err(format!("it speaks of the document {:?}", item.id.unwrap_or_default()));
    }
    let refusal = item.error.as_ref().map(Refusal::of);
    Ok(match (status, refusal) {
        (200..=299 | 404, None) if status != 404 || expected.action == Action::Delete => {
            let index = item.index.ok_or("it does not say in which index")?;
            match index == expected.index {
                true => Outcome::Applied,
                false => elsewhere(&index),
            }
        }
        // A deletion through an alias that was gone made an index of the alias's name, and was sent again.
        (409, Some(_)) if item.index.as_deref().is_some_and(|index| index != expected.index) => {
            elsewhere(&item.index.unwrap_or_default())
        }
        (409, Some(refusal)) if refusal.kind == "version_conflict_engine_exception" => {
            conflict(refusal, expected.version)
        }
        (429 | 500..=599, refusal) => Outcome::Throttled(refusal.unwrap_or_default()),
        // A disk that is nearly full, or an operator, has blocked writes: the index opens again, and no document is at
        // fault. Newer servers answer 429 here.
        (403, Some(refusal)) if refusal.kind == "cluster_block_exception" => Outcome::Throttled(refusal),
        (401 | 403, refusal) => Outcome::Closed(refusal.unwrap_or_default()),
        (404, Some(refusal)) if refusal.kind == "index_not_found_exception" => Outcome::Closed(refusal),
        (300..=499, Some(refusal)) if refusal.kind == "index_closed_exception" => Outcome::Closed(refusal),
        (300..=499, refusal) => Outcome::Rejected(refusal.unwrap_or_default()),
        (status, Some(refusal)) => return Err(format!("it has the status {status} and the error {refusal}")),
        (status, None) => return Err(format!("it has the status {status}")),
    })
}

fn elsewhere(index: &str) -> Outcome {
    Outcome::Closed(Refusal {
        kind: String::new(),
        reason: format!("it was written to {index:?}, which is another index"),
    })
}

/// A conflict means that what is stored is as new as what was sent, or newer: servers say so with its version. Where they
/// tell one that is older, they mean something else by it.
fn conflict(refusal: Refusal, sent: u64) -> Outcome {
    let stored = refusal.reason.split_once("current version [").and_then(|(_, rest)| {
        let (version, _) = rest.split_once(']')?;
        version.parse::<u64>().ok()
    });
    match stored {
        Some(version) if version < sent => Outcome::Rejected(refusal),
        stored => Outcome::Newer(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: Expected<'_> = Expected { action: Action::Index, id: "1", index: "b-1", version: 7 };
    const DELETE: Expected<'_> = Expected { action: Action::Delete, ..INDEX };

    fn read(item: &str, expected: Expected<'_>) -> Result<Outcome, Malformed> {
        let answer = format!(r#"{{"took":3,"errors":true,"items":[{item}],"ingest_took":1}}"#);
        read_bulk(answer.as_bytes(), &[expected]).map(|mut outcomes| outcomes.remove(0))
    }

    fn index(rest: &str) -> Result<Outcome, Malformed> {
        read(&format!(r#"{{"index":{{"_index":"b-1","_id":"1",{rest}}}}}"#), INDEX)
    }

    fn delete(rest: &str) -> Result<Outcome, Malformed> {
        read(&format!(r#"{{"delete":{{"_index":"b-1","_id":"1",{rest}}}}}"#), DELETE)
    }

    fn error(status: u16, kind: &str) -> String {
        format!(r#""status":{status},"error":{{"type":"{kind}","reason":"because"}}"#)
    }

    #[test]
    fn every_status_means_what_the_engine_must_know() {
        assert_eq!(
            index(r#""status":201,"_version":7,"result":"created","_shards":{}"#),
            Ok(Outcome::Applied)
        );
        assert_eq!(delete(r#""status":200,"result":"deleted""#), Ok(Outcome::Applied));
        assert_eq!(delete(r#""status":404,"result":"not_found""#), Ok(Outcome::Applied));
        for (status, kind) in [
            (429, "rejected_execution_exception"),
            (429, "circuit_breaking_exception"),
            (503, "unavailable_shards_exception"),
            (500, "io_exception"),
            (403, "cluster_block_exception"),
        ] {
            let outcome = index(&error(status, kind)).unwrap();
            assert!(matches!(&outcome, Outcome::Throttled(refusal) if refusal.kind == kind), "{outcome:?}");
        }
        assert!(matches!(index(r#""status":503"#), Ok(Outcome::Throttled(_))));
        for (status, kind) in [
            (404, "index_not_found_exception"),
            (403, "security_exception"),
            (401, "security_exception"),
            (400, "index_closed_exception"),
        ] {
            let outcome = index(&error(status, kind)).unwrap();
            assert!(matches!(&outcome, Outcome::Closed(refusal) if refusal.kind == kind), "{outcome:?}");
        }
        for (status, kind) in
            [(400, "mapper_parsing_exception"), (404, "shard_not_found"), (409, "other"), (413, "x")]
        {
            let outcome = index(&error(status, kind)).unwrap();
            assert!(matches!(&outcome, Outcome::Rejected(refusal) if refusal.kind == kind), "{outcome:?}");
        }
        // Only of a delete is 404 the wanted state.
        assert!(matches!(index(r#""status":404"#), Ok(Outcome::Rejected(_))));
    }

    #[test]
    fn a_conflict_is_success_unless_what_is_stored_is_older() {
        let conflict = |current: &str| {
            index(&format!(
                r#""status":409,"error":{{"type":"version_conflict_engine_exception","reason":"[1]: version conflict, current version [{current}] is higher or equal to the one provided [7]"}}"#
            ))
        };
        assert_eq!(conflict("7"), Ok(Outcome::Newer(Some(7))));
        assert_eq!(conflict("99"), Ok(Outcome::Newer(Some(99))));
        assert_eq!(conflict("?"), Ok(Outcome::Newer(None)));
        assert!(matches!(conflict("6"), Ok(Outcome::Rejected(_))));
        // The index that the same deletion made when it was sent first, and its answer lost.
        let elsewhere = r#"{"delete":{"_index":"b-1-e1","_id":"1","status":409,"error":{"type":"version_conflict_engine_exception","reason":"[1]: version conflict, current version [7] is higher or equal to the one provided [7]"}}}"#;
        assert!(matches!(read(elsewhere, DELETE), Ok(Outcome::Closed(_))));
    }

    #[test]
    fn what_was_written_elsewhere_was_not_written() {
        let item = r#"{"delete":{"_index":"b-1-e7","_id":"1","status":404,"result":"not_found"}}"#;
        assert!(matches!(read(item, DELETE), Ok(Outcome::Closed(_))));
    }

    #[test]
    fn an_answer_that_is_none_says_what_is_wrong_and_where() {
        let message = |answer: &str| read_bulk(answer.as_bytes(), &[INDEX]).unwrap_err().to_string();
        for (answer, words) in [
            ("", "EOF while parsing"),
            ("<html>", "expected value"),
            (r#"{"took":1}"#, "missing field `items`"),
            (r#"{"items":[]}"#, "it speaks of 0 documents, not of 1"),
            (r#"{"items":[{}]}"#, "item 0 (1): it is not of one action"),
            (r#"{"items":[{"index":{},"delete":{}}]}"#, "item 0 (1): it is not of one action"),
            (
                r#"{"items":[{"create":{"_id":"1","status":201}}]}"#,
                "it answers an action \"create\", not \"index\"",
            ),
            (r#"{"items":[{"index":{"_id":"1"}}]}"#, "it has no status"),
            (r#"{"items":[{"index":{"_id":"2","status":201}}]}"#, "it speaks of the document \"2\""),
            (r#"{"items":[{"index":{"_id":"1","status":201}}]}"#, "it does not say in which index"),
            (r#"{"items":[{"index":{"_id":"1","status":100}}]}"#, "it has the status 100"),
            (
                r#"{"items":[{"index":{"_id":"1","status":201,"error":"x"}}]}"#,
                "it has the status 201 and the error x",
            ),
            (
                r#"{"items":[{"index":{"_id":"1","status":200,"error":{"type":"index_closed_exception"}}}]}"#,
                "it has the status 200 and the error index_closed_exception",
            ),
            (r#"{"items":[{"index":{"_id":"1","status":-1}}]}"#, "invalid value"),
            (r#"{"items":[{"index":{"_id":"1","status":201}}"#, "EOF while parsing"),
        ] {
            let message = message(answer);
            assert!(message.contains(words) && message.contains("malformed"), "{answer}: {message}");
        }
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
                let _ = read_bulk(&bytes, &[INDEX, DELETE]);
                let _ = Refusal::of_answer(&bytes);
            }

            #[test]
            fn no_answer_that_is_nearly_right_makes_it_panic(
                cut in 0_usize..400, status in any::<u16>(), kind in "[a-z_]{0,12}", reason in ".{0,40}",
            ) {
                let error = serde_json::json!({"type": kind, "reason": reason});
                let item = serde_json::json!({"_index": "b-1", "_id": "1", "status": status, "error": error});
                let text = serde_json::json!({"items": [{"index": item}]}).to_string();
                let whole = read_bulk(text.as_bytes(), &[INDEX]);
                prop_assert!(whole.is_ok() || !(300..600).contains(&status));
                if cut < text.len() {
                    prop_assert!(read_bulk(&text.as_bytes()[..cut], &[INDEX]).is_err());
                }
            }
        }
    }
}
