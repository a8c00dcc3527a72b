//! What the server holds, compared and listed.
//!
//! Documents are compared by `_mget`, which sees what was written whether it was refreshed or not. They are listed by
//! searches that are sorted by the field which holds their ids ([`NAME`]), each from after the last id of the one before
//! (`search_after`), so that the server keeps nothing in between.

use std::ops::Range;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value as Json, json};

use super::flush::{Sending, weight};
use super::http::{Body, Http, segment};
use super::wire::{NAME, Refusal, Sought, Stored, check_id, cut, named, read_names, read_stored};
use crate::connectors::equal;
use crate::document::{Content, DocumentId, Write, decode_key};
use crate::error::{Fault, FaultKind};
use crate::name::IndexName;

const COMPARING: &str = "comparing documents";

/// The most documents that are listed at once: less than any server's `index.max_result_window`, unless it was lowered.
const PAGE: usize = 1_000;

/// How much an answer says of a document beside its body, about.
const OVERHEAD_BYTES: usize = 100;

/// A document that the server is asked for.
struct Asked<'a> {
    write: &'a Write<String>,
    physical: &'a str,
    name: String,
    /// The body as it would be stored; `None` where there should be no document.
    body: Option<String>,
}

impl Sending {
    /// Which of these documents are not stored as they are, index by index. Errors: after every request was answered or has
    /// failed.
    pub(super) async fn compare(
        &self,
        http: &Http,
        parts: &[(Option<String>, Vec<&Write<String>>)],
    ) -> Result<Vec<DocumentId>, Fault> {
        let (asked, mut different) = asked(parts);
        let size = |asked: &Asked<'_>| OVERHEAD_BYTES + asked.body.as_ref().map_or(0, String::len);
        let requests = cut(asked.iter().map(size), self.max_bytes, self.max_documents);
        let requests = requests.into_iter().map(|range: Range<usize>| request(http, &asked[range]));
        let answers: Vec<_> = futures::stream::iter(requests).buffered(self.requests.max(1)).collect().await;
        let mut faults = Vec::new();
        for answer in answers {
            match answer {
                Ok(found) => different.extend(found),
                Err(fault) => faults.push(fault),
            }
        }
        faults.into_iter().max_by_key(weight).map_or(Ok(different), Err)
    }
}

/// What is to be asked, and what differs whatever would be answered: what no index can hold as it is, or what belongs to an
/// index that is not there.
fn asked<'a>(parts: &'a [(Option<String>, Vec<&'a Write<String>>)]) -> (Vec<Asked<'a>>, Vec<DocumentId>) {
    let (mut asked, mut different) = (Vec::new(), Vec::new());
    for (physical, writes) in parts {
        for write in writes {
            let name = write.document.id.sink_id();
            let physical = physical.as_deref().filter(|_| check_id(&name).is_ok());
            let body = match &write.document.content {
                Content::Upsert(body) => Some(named(body, &name)),
                Content::Delete => None,
            };
            match (physical, body.transpose()) {
                (Some(physical), Ok(body)) => asked.push(Asked { write, physical, name, body }),
                (None, Ok(None)) => {}
                (_, Err(_)) | (None, Ok(Some(_))) => different.push(write.document.id.clone()),
            }
        }
    }
    (asked, different)
}

/// Which of these differ.
async fn request(http: &Http, asked: &[Asked<'_>]) -> Result<Vec<DocumentId>, Fault> {
    let docs: Vec<Json> = asked
        .iter()
        .map(|asked| json!({ "_index": asked.physical, "_id": asked.name, "_source": asked.body.is_some() }))
        .collect();
    let answer =
        http.ask(Method::POST, "_mget", Body::Json(json!({ "docs": docs }))).await?.done(COMPARING)?;
    let sought: Vec<Sought<'_>> =
        asked.iter().map(|asked| Sought { index: asked.physical, id: &asked.name }).collect();
    // It may have been cut off on its way.
    let stored = read_stored(&answer.body, &sought).map_err(Fault::transient)?;
    let mut different = Vec::new();
    for (asked, stored) in asked.iter().zip(stored) {
        let is_same = match (&asked.body, stored) {
            (_, Stored::Unknown(refusal)) => return Err(unknown(asked, &refusal)),
            (None, stored) => stored == Stored::Missing,
            (Some(_), Stored::Missing | Stored::Held(None)) => false,
            (Some(body), Stored::Held(Some(source))) => equal::same(&source, body),
        };
        if !is_same {
            different.push(asked.write.document.id.clone());
        }
    }
    Ok(different)
}

/// Why the server cannot tell what it holds of a document. That carries no status: an index that is gone or closed, and
/// credentials that do not suffice, end the run; whatever else is trouble of a shard, which passes.
fn unknown(asked: &Asked<'_>, refusal: &Refusal) -> Fault {
    let kind = match refusal.kind.as_str() {
        "index_not_found_exception" | "index_closed_exception" | "security_exception" => FaultKind::Fatal,
        _ => FaultKind::Transient,
    };
    Fault::new(kind, format!("{COMPARING}: document `{}`: {refusal}", asked.write.document.id))
}

/// The first documents of an index after this one, in the order of their ids, byte by byte; at most `limit`.
pub(super) async fn list(
    http: &Http,
    index: &IndexName,
    physical: &str,
    after: Option<&DocumentId>,
    limit: usize,
) -> Result<Vec<DocumentId>, Fault> {
    let doing = format!("listing the documents of index `{index}`");
    // Searches see nothing of what was written since the last one.
    http.ask(Method::POST, &format!("{}/_refresh", segment(physical)), Body::None).await?.done(&doing)?;
    let size = limit.min(PAGE);
    let mut after = after.map(DocumentId::sink_id);
    loop {
        let mut query = json!({
            "size": size, "query": { "match_all": {} }, "sort": [{ NAME: "asc" }], "_source": false,
            "track_total_hits": false,
        });
        if let Some(after) = &after {
            query["search_after"] = json!([after]);
        }
        let path = format!("{}/_search?allow_partial_search_results=false", segment(physical));
        let answer = http.ask(Method::POST, &path, Body::Json(query)).await?.done(&doing)?;
        let mut names = read_names(&answer.body, after.as_deref()).map_err(Fault::transient)?;
        let is_full = names.len() >= size;
        names.dedup();
        // What no key is written as was not written by an engine, which cannot name it.
        let keys = names.iter().filter_map(|name| decode_key(name));
        let ids: Vec<DocumentId> = keys.map(|key| DocumentId::new(index.clone(), key)).collect();
        match names.pop() {
            Some(last) if ids.is_empty() && is_full => after = Some(last),
            _ => return Ok(ids),
        }
    }
}
