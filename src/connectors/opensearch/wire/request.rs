//! The lines of a bulk request, and how they are cut into requests.
//!
//! The format: <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Serialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use super::NAME;

/// The longest id that the server takes, in bytes. One that is longer would have the whole request refused.
const MAX_ID_BYTES: usize = 512;

/// What is to be done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write it, whether it is there or not.
    Index,
    /// Remove it.
    Delete,
}

/// One document of a bulk request: its action, and its body where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// What is to be done.
    pub action: Action,
    /// The document's id.
    pub id: String,
    /// The external version of the write.
    pub version: u64,
    /// The line, or the two lines, as they are sent, each with its end.
    pub text: String,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    version: u64,
    version_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Head<'a> {
    Index(Meta<'a>),
    Delete(Meta<'a>),
}

impl Line {
    /// The lines that write this body, or that remove the document where there is none. `version_type` is `external`, or
    /// `external_gte` where the same version may be written again.
    ///
    /// Errors: why no server would take the document.
    pub fn new(
        index: &str,
        id: String,
        version: u64,
        version_type: &'static str,
        body: Option<&str>,
    ) -> Result<Self, String> {
        check_id(&id)?;
        if let Some(body) = body {
            check_object(body)?;
        }
        Self::written(index, id, version, version_type, body)
    }

    /// The lines of a document: of its body as [`named`] makes it, under a version that no other write has.
    ///
    /// Errors: why no server would take the document.
    pub fn document(index: &str, id: String, version: u64, body: Option<&str>) -> Result<Self, String> {
        let body = body.map(|body| named(body, &id)).transpose()?;
        check_id(&id)?;
        Self::written(index, id, version, "external", body.as_deref())
    }

    fn written(
        index: &str,
        id: String,
        version: u64,
        version_type: &'static str,
        body: Option<&str>,
    ) -> Result<Self, String> {
        let meta = Meta { index, id: &id, version, version_type };
        let (action, head) = match body {
            Some(_) => (Action::Index, Head::Index(meta)),
            None => (Action::Delete, Head::Delete(meta)),
        };
        let mut text = serde_json::to_string(&head).map_err(|error| error.to_string())?;
        text.push('\n');
        if let Some(body) = body {
            // A line ends where the request says so. Inside a string JSON has no raw line break, so that every one is space.
            text.reserve(body.len() + 1);
            text.extend(
                body.chars().map(|character| if matches!(character, '\n' | '\r') { ' ' } else { character }),
            );
            text.push('\n');
        }
        Ok(Self { action, id, version, text })
    }
}

/// The body of a document as it is stored: with its id in a field, by which documents can be listed in order.
///
/// Errors: why no server would take the document.
pub fn named(body: &str, id: &str) -> Result<String, String> {
    if check_object(body)? {
        return Err(format!("the field `{NAME}` is the sink's own"));
    }
    let name = serde_json::to_string(id).map_err(|error| error.to_string())?;
    let fields = body.trim_ascii_start().strip_prefix('{').unwrap_or_default();
    let comma = if fields.trim_ascii_start().starts_with('}') { "" } else { "," };
    Ok(format!("{{\"{NAME}\":{name}{comma}{fields}"))
}

/// Errors: why no server would take a document of this id.
pub fn check_id(id: &str) -> Result<(), String> {
    if id.len() <= MAX_ID_BYTES {
        return Ok(());
    }
    Err(format!("the id is {} bytes long; at most {MAX_ID_BYTES} are taken", id.len()))
}

/// Whether an object has a field of the sink's own. Errors: why it is no object.
fn check_object(body: &str) -> Result<bool, String> {
    if !body.trim_ascii_start().starts_with('{') {
        return Err("the body is not a JSON object".to_owned());
    }
    let mut read = serde_json::Deserializer::from_str(body);
    let has_name = read.deserialize_map(HasName).and_then(|has_name| read.end().map(|()| has_name));
    has_name.map_err(|error| format!("the body is not a JSON object: {error}"))
}

struct HasName;

impl<'de> Visitor<'de> for HasName {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        let mut has_name = false;
        while let Some((field, IgnoredAny)) = fields.next_entry::<Cow<'_, str>, _>()? {
            has_name |= field == NAME;
        }
        Ok(has_name)
    }
}

/// Cuts what has these sizes into requests, in order: each holds as many as fit into `max_bytes` and `max_count`, and one at
/// the least.
#[must_use]
pub fn cut(
    sizes: impl ExactSizeIterator<Item = usize>,
    max_bytes: usize,
    max_count: usize,
) -> Vec<Range<usize>> {
    let mut requests = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    let count = sizes.len();
    for (at, size) in sizes.enumerate() {
        let full = at - from >= max_count.max(1) || bytes + size > max_bytes;
        if at > from && full {
            requests.push(from..at);
            (from, bytes) = (at, 0);
        }
        bytes += size;
    }
    if from < count {
        requests.push(from..count);
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, body: Option<&str>) -> Result<Line, String> {
        Line::new("books", id.to_owned(), 7, "external", body)
    }

    #[test]
    fn a_write_is_two_lines_and_a_delete_is_one() {
        let write = line("eu:\"1\"", Some("{\n \"a\": \"x\\n\"\r\n}")).unwrap();
        assert_eq!(
            write.text,
            concat!(
                r#"{"index":{"_index":"books","_id":"eu:\"1\"","version":7,"version_type":"external"}}"#,
                "\n{  \"a\": \"x\\n\"  }\n"
            )
        );
        let delete = line("1", None).unwrap();
        assert_eq!(
            delete.text,
            "{\"delete\":{\"_index\":\"books\",\"_id\":\"1\",\"version\":7,\"version_type\":\"external\"}}\n"
        );
    }

    #[test]
    fn a_document_is_written_with_its_id_in_a_field() {
        let text = |id: &str, body: &str| {
            let line = Line::document("books", id.to_owned(), 7, Some(body)).unwrap();
            line.text.split_once('\n').unwrap().1.to_owned()
        };
        assert_eq!(text("1", "{}"), "{\"syncline_id\":\"1\"}\n");
        assert_eq!(text("1", " { } "), "{\"syncline_id\":\"1\" } \n");
        assert_eq!(text("a\"\n", "\t{ \"a\":1}"), "{\"syncline_id\":\"a\\\"\\n\", \"a\":1}\n");
        let own = Line::document("books", "1".into(), 7, Some(r#"{"a":{},"syncline\u005fid":1}"#));
        assert_eq!(own.unwrap_err(), "the field `syncline_id` is the sink's own");
        assert!(Line::document("books", "1".into(), 7, Some(r#"{"a":{"syncline_id":1}}"#)).is_ok());
        for body in ["", "[]", "{", "{}{}", "{,}"] {
            let refused = Line::document("books", "1".into(), 7, Some(body)).unwrap_err();
            assert!(refused.starts_with("the body is not a JSON object"), "{body}: {refused}");
        }
    }

    #[test]
    fn what_would_break_the_request_is_refused_alone() {
        for body in ["", "[]", "7", "{", "{}{}", "{}\n{\"delete\":{}}", "null", "{\"a\":\"\n\"}"] {
            let refused = line("1", Some(body)).unwrap_err();
            assert!(refused.starts_with("the body is not a JSON object"), "{body}: {refused}");
        }
        let refused = line(&"x".repeat(513), None).unwrap_err();
        assert_eq!(refused, "the id is 513 bytes long; at most 512 are taken");
        assert!(line(&"x".repeat(512), None).is_ok());
        let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert!(line("1", Some(&deep)).is_ok(), "its depth is for the server to judge");
    }

    #[test]
    fn requests_are_cut_by_bytes_and_by_count_and_hold_everything_in_order() {
        let lines: Vec<Line> = (0..10).map(|at| line(&at.to_string(), Some("{}")).unwrap()).collect();
        let one = lines[0].text.len();
        let cut = |lines: &[Line], max_bytes, max_count| {
            super::cut(lines.iter().map(|line| line.text.len()), max_bytes, max_count)
        };
        assert_eq!(cut(&lines, usize::MAX, 4), [0..4, 4..8, 8..10]);
        assert_eq!(cut(&lines, 3 * one, 100), [0..3, 3..6, 6..9, 9..10]);
        assert_eq!(cut(&lines, 3 * one - 1, 100), [0..2, 2..4, 4..6, 6..8, 8..10]);
        // What is too large for any request goes alone, and the server decides.
        assert_eq!(cut(&lines[..2], 1, 100), [0..1, 1..2]);
        assert_eq!(cut(&lines[..2], 1, 0), [0..1, 1..2]);
        assert!(cut(&[], 10, 10).is_empty());
    }
}
