//! Somebody who changes a document in an index by hand.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::anchors;
use crate::random::Random;
use crate::tally::Result;
use crate::truth;
use crate::wire::exchange;

/// Rewrites a document, removes one, or adds one that has no row. Returns its id, and what was done.
///
/// The version stays: an engine takes what has a newer one for written later than it writes itself.
pub(crate) async fn tamper(search: SocketAddr, index: &str, random: &mut Random) -> Result<(String, String)> {
    let mut held = truth::found(search, index).await?;
    held.retain(|id, _| !anchors::is_one(index, id));
    let chosen = random.below(held.len().max(1) as u64) as usize;
    let (action, id, body) = match held.into_iter().nth(chosen) {
        Some((id, mut body)) if random.percent(50) => {
            body["rev"] = json!(-1);
            body["syncline_id"] = json!(id);
            ("index", id, Some(body))
        }
        Some((id, _)) if random.percent(50) => ("delete", id, None),
        // Of any table the key may be, with some row or none.
        _ => ("create", added(index), Some(json!({ "rev": -1, "syncline_id": added(index) }))),
    };
    let physical = truth::behind(search, index).await?;
    let physical = physical.first().ok_or_else(|| format!("nothing stands behind {index}"))?;
    let mut meta = json!({ "_index": physical, "_id": id });
    if action != "create" {
        let asked = json!({ "docs": [{ "_index": physical, "_id": id, "_source": false }] }).to_string();
        let answer = exchange(search, "POST", "/_mget", &asked).await?.json();
        meta["version"] = answer["docs"][0]["_version"].clone();
        meta["version_type"] = json!("external_gte");
    }
    let body = body.map_or_else(String::new, |body| format!("{body}\n"));
    let line = format!("{}\n{body}", json!({ action: meta }));
    let answer = exchange(search, "POST", "/_bulk", &line).await?.json();
    match &answer["items"][0][action]["status"] {
        Json::Number(status) if matches!(status.as_u64(), Some(200 | 201)) => {
            Ok((id, format!("{action} by hand: {line}")))
        }
        _ => Err(format!("{index} could not be changed by hand: {line}: {answer}").into()),
    }
}

/// The id of a document that has no row.
fn added(index: &str) -> String {
    let id = match index {
        "authors" => "9999",
        "books" => "by hand:9999",
        _ => "by hand",
    };
    id.to_owned()
}
