//! What documents are stored, as answers to `_mget` and `_search` tell it.
//!
//! The formats: <https://docs.opensearch.org/latest/api-reference/document-apis/multi-get/> and
//! <https://docs.opensearch.org/latest/search-plugins/searching-data/paginate/#the-search_after-parameter>.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::Malformed;
use super::refusal::{Cause, Refusal};

const GET: &str = "a request for documents";
const SEARCH: &str = "a search";

/// A document that was asked for, at its place in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sought<'a> {
    /// The index: its own name, never an alias.
    pub index: &'a str,
    /// The document's id.
    pub id: &'a str,
}

/// What is stored of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stored {
    /// It is there; its body, where that was asked for.
    Held(Option<Box<str>>),
    /// There is none.
    Missing,
    /// The server cannot tell.
    Unknown(Refusal),
}

#[derive(Deserialize)]
struct Answer {
    docs: Vec<Doc>,
}

#[derive(Deserialize)]
struct Doc {
    #[serde(rename = "_index", default)]
    index: Option<String>,
    #[serde(rename = "_id", default)]
    id: Option<String>,
    #[serde(default)]
    found: Option<bool>,
    #[serde(rename = "_source", default)]
    source: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Cause>,
}

/// Reads the answer to `_mget`: what is stored of each document, in the order of the request. `answer` is the body of an
/// answer with the status 200.
///
/// Errors: [`Malformed`], where some document is not answered for at its place.
pub fn read_stored(answer: &[u8], sought: &[Sought<'_>]) -> Result<Vec<Stored>, Malformed> {
    let Answer { docs } = serde_json::from_slice(answer).map_err(|error| Malformed::new(GET, error))?;
    if docs.len() != sought.len() {
        let wrong = format!("it speaks of {} documents, not of {}", docs.len(), sought.len());
        return Err(Malformed::new(GET, wrong));
    }
    let each = docs.into_iter().zip(sought).enumerate();
    each.map(|(at, (doc, sought))| {
        stored(doc, sought)
            .map_err(|wrong| Malformed::new(GET, format!("document {at} ({}): {wrong}", sought.id)))
    })
    .collect()
}

fn stored(doc: Doc, sought: &Sought<'_>) -> Result<Stored, String> {
    if doc.id.as_deref() != Some(sought.id) {
        return Err(format!("it speaks of the document {:?}", doc.id.unwrap_or_default()));
    }
    if doc.index.as_deref() != Some(sought.index) {
        return Err(format!("it speaks of the index {:?}", doc.index.unwrap_or_default()));
    }
    match (doc.found, doc.error) {
        (_, Some(error)) => Ok(Stored::Unknown(Refusal::of(&error))),
        (Some(true), None) => Ok(Stored::Held(doc.source.map(|source| source.get().into()))),
        (Some(false), None) => Ok(Stored::Missing),
        (None, None) => Err("it does not say whether it was found".to_owned()),
    }
}

#[derive(Deserialize)]
struct Page {
    hits: Hits,
    timed_out: bool,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    sort: Vec<Option<String>>,
}

/// Reads the answer to a search that was sorted by one text field alone, from after a value on: the values of the field, in
/// order. They end before the first document that has none, for those stand last. `answer` is the body of an answer with
/// the status 200.
///
/// Errors: [`Malformed`], also where the values are not in order or not after that value: who pages by them would go astray.
pub fn read_names(answer: &[u8], after: Option<&str>) -> Result<Vec<String>, Malformed> {
    let page: Page = serde_json::from_slice(answer).map_err(|error| Malformed::new(SEARCH, error))?;
    if page.timed_out {
        return Err(Malformed::new(SEARCH, "it timed out, and tells a part"));
    }
    let mut names: Vec<String> = Vec::with_capacity(page.hits.hits.len());
    for hit in page.hits.hits {
        let [name] = <[Option<String>; 1]>::try_from(hit.sort)
            .map_err(|sort| Malformed::new(SEARCH, format!("a document has {} sort values", sort.len())))?;
        let Some(name) = name else { break };
        let is_in_order = names.last().is_none_or(|last| *last <= name);
        if !is_in_order || after.is_some_and(|after| name.as_str() <= after) {
            let wrong = format!("{name:?} follows {:?}", names.last().map(String::as_str).or(after));
            return Err(Malformed::new(SEARCH, wrong));
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUGHT: Sought<'_> = Sought { index: "b-1", id: "1" };

    fn one(doc: &str) -> Result<Stored, Malformed> {
        let answer = format!(r#"{{"docs":[{{"_index":"b-1","_id":"1",{doc}}}]}}"#);
        read_stored(answer.as_bytes(), &[SOUGHT]).map(|mut stored| stored.remove(0))
    }

    #[test]
    fn a_document_is_held_or_missing_or_the_server_says_why_it_cannot_tell() {
        // The digits of a number are those that were written.
        let held = one(r#""_version":7,"found":true,"_source":{"a": 1.50, "b":123456789012345678901}"#);
        assert_eq!(held, Ok(Stored::Held(Some(r#"{"a": 1.50, "b":123456789012345678901}"#.into()))));
        assert_eq!(one(r#""found":true"#), Ok(Stored::Held(None)));
        assert_eq!(one(r#""_type":null,"found":false"#), Ok(Stored::Missing));
        let unknown = one(r#""error":{"root_cause":[],"type":"x_exception","reason":"because"}"#);
        let Ok(Stored::Unknown(refusal)) = unknown else { panic!("{unknown:?}") };
        assert_eq!(
            (refusal.kind.as_str(), refusal.to_string().as_str()),
            ("x_exception", "x_exception: because")
        );
    }

    #[test]
    fn an_answer_that_leaves_a_document_out_is_malformed() {
        for (answer, words) in [
            ("", "EOF"),
            ("{}", "missing field `docs`"),
            (r#"{"docs":[]}"#, "it speaks of 0 documents, not of 1"),
            (r#"{"docs":[{"_index":"b-1","_id":"2","found":true}]}"#, "it speaks of the document \"2\""),
            (r#"{"docs":[{"_index":"b-2","_id":"1","found":true}]}"#, "it speaks of the index \"b-2\""),
            (r#"{"docs":[{"_index":"b-1","_id":"1"}]}"#, "it does not say whether"),
            (r#"{"docs":[{"_index":"b-1","_id":1}]}"#, "invalid type"),
            (r#"{"docs":[{"_index":"b-1","_id":"1","found":true,"_source":{}}"#, "EOF"),
        ] {
            let message = read_stored(answer.as_bytes(), &[SOUGHT]).unwrap_err().to_string();
            assert!(message.contains(words), "{answer}: {message}");
            assert!(message.starts_with("the answer to a request for documents is malformed"), "{message}");
        }
    }

    fn names(sorts: &str, after: Option<&str>) -> Result<Vec<String>, String> {
        let hits: Vec<String> =
            sorts.split(' ').map(|sort| format!(r#"{{"_id":"x","sort":{sort}}}"#)).collect();
        let hits = if sorts.is_empty() { String::new() } else { hits.join(",") };
        let answer = format!(r#"{{"took":1,"timed_out":false,"hits":{{"max_score":null,"hits":[{hits}]}}}}"#);
        read_names(answer.as_bytes(), after).map_err(|malformed| malformed.to_string())
    }

    #[test]
    fn names_come_in_order_and_after_the_one_that_was_named() {
        assert_eq!(names("", None).unwrap(), [""; 0]);
        assert_eq!(names(r#"["a"] ["b"] ["b"] [null]"#, Some("Z")).unwrap(), ["a", "b", "b"]);
        for (sorts, after, words) in [
            (r#"["b"] ["a"]"#, None, r#""a" follows Some("b")"#),
            (r#"["a"]"#, Some("a"), r#""a" follows Some("a")"#),
            (r#"["a","b"]"#, None, "has 2 sort values"),
            ("[]", None, "has 0 sort values"),
            ("[7]", None, "invalid type"),
        ] {
            let message = names(sorts, after).unwrap_err();
            assert!(message.contains(words), "{sorts}: {message}");
            assert!(message.starts_with("the answer to a search is malformed"), "{message}");
        }
        let partial = read_names(br#"{"timed_out":true,"hits":{"hits":[]}}"#, None).unwrap_err();
        assert!(partial.to_string().contains("it timed out"), "{partial}");
        assert!(read_names(br#"{"hits":{"hits":[]}}"#, None).is_err());
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
                let _ = read_stored(&bytes, &[SOUGHT]);
                let _ = read_names(&bytes, Some("1"));
            }

            #[test]
            fn no_answer_that_is_cut_off_is_read(cut in 0_usize..200, source in "[a-z{}\":]{0,20}") {
                let doc = serde_json::json!({ "_index": "b-1", "_id": "1", "found": true, "_source": { "a": source } });
                let stored = serde_json::json!({ "docs": [doc] }).to_string();
                prop_assert!(read_stored(stored.as_bytes(), &[SOUGHT]).is_ok());
                if cut < stored.len() {
                    prop_assert!(read_stored(&stored.as_bytes()[..cut], &[SOUGHT]).is_err());
                }
            }
        }
    }
}
