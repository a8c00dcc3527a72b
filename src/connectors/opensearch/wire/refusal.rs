//! Why a server refused something, in its own words.

use std::fmt;

use serde::Deserialize;

/// The longest reason that is passed on, in characters.
const MAX_REASON: usize = 1_000;

/// The deepest cause that is followed.
const MAX_CAUSES: usize = 4;

/// The error of a whole answer or of one document: its type, as servers name it, and everything they say of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Refusal {
    /// `version_conflict_engine_exception` and the like; empty where the server named none.
    pub kind: String,
    /// The type, the reason and the causes in one line.
    pub reason: String,
}

/// An error as it stands in an answer. Some are objects, some texts; what an object holds besides is not looked at.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Cause {
    Object(Detail),
    Text(String),
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Cause>>,
}

#[derive(Deserialize)]
struct Whole {
    error: Option<Cause>,
}

impl Refusal {
    /// That of a whole answer. Where it is not of the documented form, its beginning is the reason.
    #[must_use]
    pub fn of_answer(answer: &[u8]) -> Self {
        match serde_json::from_slice(answer) {
            Ok(Whole { error: Some(cause) }) => Self::of(&cause),
            _ => Self { kind: String::new(), reason: shortened(&String::from_utf8_lossy(answer), 200) },
        }
    }

    /// Whether an index cannot be removed or closed because a snapshot of it is being taken.
    #[must_use]
    pub fn is_of_a_snapshot(&self) -> bool {
        self.kind == "snapshot_in_progress_exception"
    }

    pub(super) fn of(cause: &Cause) -> Self {
        let mut refusal = Self::default();
        let mut parts: Vec<&str> = Vec::new();
        let mut next = Some(cause);
        for depth in 0..MAX_CAUSES {
            match next {
                Some(Cause::Object(detail)) => {
                    let kind = detail.kind.as_deref().unwrap_or_default();
                    if depth == 0 {
                        refusal.kind = shortened(kind, 200);
                    }
                    for words in [kind, detail.reason.as_deref().unwrap_or_default()] {
                        if !words.is_empty() && !parts.contains(&words) {
                            parts.push(words);
                        }
                    }
                    next = detail.caused_by.as_deref();
                }
                Some(Cause::Text(text)) => {
                    parts.push(text);
                    break;
                }
                Some(Cause::Other(_)) | None => break,
            }
        }
        refusal.reason = shortened(&parts.join(": "), MAX_REASON);
        refusal
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reason.is_empty() { "no reason was given" } else { &self.reason })
    }
}

/// The beginning of a text, in one line.
fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text
        .chars()
        .take(limit)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    if text.chars().nth(limit).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_with_its_type_and_its_causes() {
        let answer = br#"{"error":{"type":"mapper_parsing_exception","reason":"failed to parse field [n]","extra":[1],
            "caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"x\"","caused_by":"deep"}},"status":400}"#;
        let refusal = Refusal::of_answer(answer);
        assert_eq!(refusal.kind, "mapper_parsing_exception");
        assert_eq!(
            refusal.to_string(),
            "mapper_parsing_exception: failed to parse field [n]: illegal_argument_exception: For input string: \"x\": deep"
        );
        assert_eq!(
            Refusal::of_answer(br#"{"error":"alias [x] missing","status":404}"#).to_string(),
            "alias [x] missing"
        );
    }

    #[test]
    fn whatever_else_was_answered_is_shown_by_its_beginning() {
        for (answer, words) in [
            (&b"<html>\n502"[..], "<html> 502"),
            (b"", "no reason was given"),
            (b"\xff", "\u{fffd}"),
            (br#"{"error":7}"#, "no reason was given"),
            (br#"{"error":{}}"#, "no reason was given"),
            (br#"{"took":1}"#, r#"{"took":1}"#),
        ] {
            assert_eq!(Refusal::of_answer(answer).to_string(), words);
        }
        let long = Refusal::of_answer(&[b'x'; 5_000]);
        assert_eq!(long.reason.chars().count(), 201);
    }
}
