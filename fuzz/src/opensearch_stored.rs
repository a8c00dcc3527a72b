//! What an index holds: any answer to `_mget` and to `_search` is refused, or says of every document what is stored, or which
//! come next, in order; one that is of the documented form is read as it was meant, and none that was cut off is.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Value as Json, json};
use syncline::connectors::opensearch::wire::{Sought, Stored, read_names, read_stored};

use crate::opensearch_bulk::{MAX_REASON, any_error};

const IDS: [&str; 4] = ["1", "2", "", "é'"];
const INDEXES: [&str; 2] = ["books-1", "books-2"];
const NAMES: [&str; 6] = ["", "1", "10", "2", "'é", "\u{1f980}"];

/// Bodies with what a reader might change: digits, spaces, escapes, the order and the repetition of fields.
const SOURCES: [&str; 6] = [
    r#"{"v":1.50,"w":123456789012345678901}"#,
    r#"{ "b" : [ 1e400 , null ],"a":"\u00e9\/" }"#,
    r#"{"a":1,"a":{"found":false}}"#,
    "{}",
    "[]",
    r#""text""#,
];

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    // Answers that other tests have seen: they are of these documents.
    for count in 0..=2 {
        let sought: Vec<Sought<'_>> =
            IDS.iter().take(count).map(|id| Sought { index: INDEXES[0], id }).collect();
        all_or_none(bytes, &sought);
    }
    for after in [None, Some("1")] {
        in_order(bytes, after);
    }
    let mut input = Unstructured::new(bytes);
    let _ = documented_documents(&mut input).and_then(|()| documented_page(&mut input));
}

fn all_or_none(answer: &[u8], sought: &[Sought<'_>]) -> Option<Vec<Stored>> {
    let stored = read_stored(answer, sought).ok()?;
    assert_eq!(stored.len(), sought.len());
    for stored in &stored {
        match stored {
            Stored::Held(Some(source)) => {
                serde_json::from_str::<&serde_json::value::RawValue>(source).expect("a body is one value");
            }
            Stored::Held(None) | Stored::Missing => {}
            Stored::Unknown(refusal) => {
                assert!(refusal.reason.chars().count() <= MAX_REASON, "{refusal:?}");
            }
        }
    }
    Some(stored)
}

fn in_order(answer: &[u8], after: Option<&str>) -> Option<Vec<String>> {
    let names = read_names(answer, after).ok()?;
    assert!(names.is_sorted(), "{names:?}");
    assert!(names.iter().all(|name| Some(name.as_str()) > after), "{names:?} after {after:?}");
    Some(names)
}

/// What one document's part of an answer says.
struct Doc {
    id: &'static str,
    index: &'static str,
    found: Option<bool>,
    source: Option<&'static str>,
    error: Option<Json>,
}

impl Doc {
    fn any(input: &mut Unstructured<'_>, sought: &Sought<'static>) -> Result<Self> {
        let strays = input.ratio(1, 16)?;
        Ok(Self {
            id: if strays { input.choose(&IDS)? } else { sought.id },
            index: if strays { input.choose(&INDEXES)? } else { sought.index },
            found: Option::arbitrary(input)?,
            source: if bool::arbitrary(input)? { Some(*input.choose(&SOURCES)?) } else { None },
            error: if input.ratio(1, 4)? { Some(any_error(input, 0)?) } else { None },
        })
    }

    fn said(&self) -> String {
        let mut said = format!(r#"{{"_index":{},"_id":{},"_version":7"#, json!(self.index), json!(self.id));
        if let Some(found) = self.found {
            said.push_str(&format!(r#","found":{found}"#));
        }
        if let Some(source) = self.source {
            said.push_str(&format!(r#","_source":{source}"#));
        }
        if let Some(error) = &self.error {
            said.push_str(&format!(r#","error":{error}"#));
        }
        said + "}"
    }

    fn answers(&self, sought: &Sought<'_>) -> bool {
        (self.id, self.index) == (sought.id, sought.index) && (self.found.is_some() || self.error.is_some())
    }

    fn is(&self, stored: &Stored) -> bool {
        match (stored, self.found, &self.error) {
            (Stored::Unknown(_), _, Some(_)) | (Stored::Missing, Some(false), None) => true,
            (Stored::Held(source), Some(true), None) => source.as_deref() == self.source,
            _ => false,
        }
    }
}

fn documented_documents(input: &mut Unstructured<'_>) -> Result<()> {
    let (mut sought, mut docs) = (Vec::new(), Vec::new());
    for _ in 0..input.int_in_range(1..=4)? {
        let wanted = Sought { index: INDEXES[0], id: input.choose(&IDS)? };
        docs.push(Doc::any(input, &wanted)?);
        sought.push(wanted);
    }
    if input.ratio(1, 16)? {
        docs.pop();
    }
    let said: Vec<String> = docs.iter().map(Doc::said).collect();
    let answer = format!(r#"{{"docs":[{}]}}"#, said.join(","));
    let stored = all_or_none(answer.as_bytes(), &sought);
    let is_answer =
        docs.len() == sought.len() && docs.iter().zip(&sought).all(|(doc, sought)| doc.answers(sought));
    assert_eq!(stored.is_some(), is_answer, "{answer}");
    for (stored, doc) in stored.iter().flatten().zip(&docs) {
        assert!(doc.is(stored), "{stored:?}: {answer}");
    }
    let cut = input.int_in_range(0..=answer.len() - 1)?;
    assert!(all_or_none(&answer.as_bytes()[..cut], &sought).is_none(), "{answer} was cut at {cut}");
    Ok(())
}

fn documented_page(input: &mut Unstructured<'_>) -> Result<()> {
    let after: Option<&str> = if bool::arbitrary(input)? { Some(*input.choose(&NAMES)?) } else { None };
    let timed_out = input.ratio(1, 16)?;
    // A document without the field stands last, as `null`.
    let mut sorts: Vec<Vec<Option<&str>>> = Vec::new();
    for _ in 0..input.int_in_range(0..=5)? {
        let values = if input.ratio(1, 16)? { input.int_in_range(0..=2)? } else { 1 };
        let value = |input: &mut Unstructured<'_>| -> Result<Option<&str>> {
            Ok(if input.ratio(1, 8)? { None } else { Some(*input.choose(&NAMES)?) })
        };
        sorts.push((0..values).map(|_| value(input)).collect::<Result<_>>()?);
    }
    if input.ratio(3, 4)? {
        sorts.sort_by_key(|sort| (sort.first().is_none_or(Option::is_none), sort.clone()));
    }
    let hits: Vec<Json> = sorts.iter().map(|sort| json!({ "_id": "x", "sort": sort })).collect();
    let answer = json!({ "timed_out": timed_out, "hits": { "max_score": null, "hits": hits } });
    let told: Vec<&Vec<Option<&str>>> = sorts.iter().take_while(|sort| ***sort != [None]).collect();
    let expected: Option<Vec<&str>> =
        told.iter().map(|sort| if sort.len() == 1 { sort[0] } else { None }).collect();
    let expected = expected
        .filter(|names| !timed_out && names.is_sorted() && names.iter().all(|name| Some(*name) > after));
    let text = answer.to_string();
    let names = in_order(text.as_bytes(), after);
    assert_eq!(names, expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{text}");
    let cut = input.int_in_range(0..=text.len() - 1)?;
    assert!(in_order(&text.as_bytes()[..cut], after).is_none(), "{text} was cut at {cut}");
    Ok(())
}
