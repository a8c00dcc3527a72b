//! The answer to a bulk request: any bytes are refused, or say what became of every document; one that is of the documented
//! form is read, and what it calls written is written where it was meant.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Value as Json, json};
use syncline::connectors::opensearch::wire::{Action, Expected, Outcome, Refusal, read_bulk};

const IDS: [&str; 4] = ["1", "2", "", "é'"];
const INDEXES: [&str; 2] = ["books-1", "books-2"];
const KINDS: [&str; 7] = [
    "version_conflict_engine_exception",
    "cluster_block_exception",
    "index_not_found_exception",
    "index_closed_exception",
    "security_exception",
    "mapper_parsing_exception",
    "",
];

/// No reason that is passed on is longer, in characters: a thousand, and one that says that it was cut.
pub(crate) const MAX_REASON: usize = 1_001;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let reason = Refusal::of_answer(bytes).reason;
    assert!(reason.chars().count() <= MAX_REASON, "{} characters", reason.chars().count());
    // Answers that other tests have seen, and what becomes of them: they are of these documents.
    for count in 0..=2 {
        let expected: Vec<Expected<'_>> =
            [(Action::Index, "1"), (Action::Delete, "2")].map(expected).into_iter().take(count).collect();
        all_or_none(bytes, &expected);
    }
    let _ = documented(&mut Unstructured::new(bytes));
}

fn expected((action, id): (Action, &str)) -> Expected<'_> {
    Expected { action, id, index: INDEXES[0], version: 7 }
}

fn all_or_none(answer: &[u8], expected: &[Expected<'_>]) -> Option<Vec<Outcome>> {
    let outcomes = read_bulk(answer, expected).ok()?;
    assert_eq!(outcomes.len(), expected.len());
    for outcome in &outcomes {
        if let Outcome::Throttled(refusal) | Outcome::Rejected(refusal) | Outcome::Closed(refusal) = outcome {
            assert!(refusal.reason.chars().count() <= MAX_REASON, "{refusal:?}");
        }
    }
    Some(outcomes)
}

/// One document's part of an answer.
struct Item {
    action: Action,
    id: &'static str,
    index: &'static str,
    status: u16,
    error: Option<Json>,
}

fn documented(input: &mut Unstructured<'_>) -> Result<()> {
    let mut wanted = Vec::new();
    let mut items = Vec::new();
    for _ in 0..input.int_in_range(1..=4)? {
        let action = if bool::arbitrary(input)? { Action::Index } else { Action::Delete };
        let id = *input.choose(&IDS)?;
        wanted.push(expected((action, id)));
        let strays = input.ratio(1, 16)?;
        items.push(Item {
            action: if strays && bool::arbitrary(input)? { Action::Index } else { action },
            id: if strays { input.choose(&IDS)? } else { id },
            index: input.choose(&INDEXES)?,
            status: any_status(input)?,
            error: if bool::arbitrary(input)? { Some(any_error(input, 0)?) } else { None },
        });
    }
    let said: Vec<Json> = items.iter().map(Item::said).collect();
    let answer = json!({ "took": 3, "errors": items.iter().any(|item| item.error.is_some()), "items": said });
    let outcomes = all_or_none(answer.to_string().as_bytes(), &wanted);
    let fits = |(item, wanted): (&Item, &Expected<'_>)| {
        let is_contradictory = item.error.is_some() && item.status < 300;
        (item.action, item.id) == (wanted.action, wanted.id) && !is_contradictory
    };
    let is_answer = items.iter().zip(&wanted).all(fits);
    assert_eq!(outcomes.is_some(), is_answer, "{answer}");
    for (outcome, item) in outcomes.iter().flatten().zip(&items) {
        let is_written = item.error.is_none()
            && item.index == INDEXES[0]
            && (item.status < 300 || item.status == 404 && item.action == Action::Delete);
        assert_eq!(*outcome == Outcome::Applied, is_written, "{outcome:?}: {answer}");
        if matches!(outcome, Outcome::Newer(_)) {
            assert_eq!(item.status, 409);
        }
        if item.status == 429 || item.status >= 500 {
            assert!(matches!(outcome, Outcome::Throttled(_)), "{outcome:?}: {answer}");
        }
    }
    Ok(())
}

impl Item {
    fn said(&self) -> Json {
        let mut said = json!({ "_index": self.index, "_id": self.id, "status": self.status, "_shards": {} });
        if let Some(error) = &self.error {
            said["error"] = error.clone();
        }
        match self.action {
            Action::Index => json!({ "index": said }),
            Action::Delete => json!({ "delete": said }),
        }
    }
}

fn any_status(input: &mut Unstructured<'_>) -> Result<u16> {
    const TELLING: [u16; 10] = [200, 201, 400, 401, 403, 404, 409, 413, 429, 503];
    match bool::arbitrary(input)? {
        true => input.choose(&TELLING).copied(),
        false => input.int_in_range(200..=599),
    }
}

pub(crate) fn any_error(input: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    Ok(match input.int_in_range(0..=4)? {
        0 => String::arbitrary(input)?.into(),
        1 => json!(["not", "an", "object"]),
        _ => {
            let reason = match bool::arbitrary(input)? {
                true => format!("[1]: version conflict, current version [{}] is", u64::arbitrary(input)?),
                false => String::arbitrary(input)?,
            };
            let mut error = json!({ "type": *input.choose(&KINDS)?, "reason": reason, "index_uuid": "u" });
            if depth < 6 && bool::arbitrary(input)? {
                error["caused_by"] = any_error(input, depth + 1)?;
            }
            error
        }
    })
}
