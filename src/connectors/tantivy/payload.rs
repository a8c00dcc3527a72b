//! What every commit of an index carries beside its documents: the seeded marker, the cursor, and whose they are.
//!
//! It stands in the same file that makes the commit visible, which is replaced atomically. So a marker is durable
//! exactly when the documents it speaks of are, and a crash at any moment leaves both or neither.

use serde_json::{Value as Json, json};

use crate::document::{Epoch, decode_key, encode_key};
use crate::name::{IndexName, StreamId};
use crate::ports::{Seed, SeedState};

/// How documents are laid out in a physical index. An index of another format is created anew, and seeded again.
const FORMAT: u64 = 1;

/// The payload of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    /// The name of the index, which its directory holds only in an encoded form.
    pub(super) index: IndexName,
    /// Which physical index this is: another one from each creation on, so that a reader notices that its files were
    /// replaced.
    pub(super) incarnation: String,
    /// The newest run that wrote.
    pub(super) epoch: Epoch,
    /// What the state holds for; `None` after the index was created or cleared.
    pub(super) seed: Option<Seed>,
    /// How far the index is seeded.
    pub(super) state: SeedState,
}

impl Payload {
    /// That of an index that holds nothing yet.
    pub(super) fn fresh(index: &IndexName, epoch: Epoch) -> Self {
        let incarnation = uuid::Uuid::new_v4().to_string();
        Self { index: index.clone(), incarnation, epoch, seed: None, state: SeedState::Unseeded }
    }

    /// How far the index is seeded for this seed.
    pub(super) fn state_for(&self, seed: &Seed) -> SeedState {
        match &self.seed {
            Some(own) if own == seed => self.state.clone(),
            _ => SeedState::Unseeded,
        }
    }

    pub(super) fn to_text(&self) -> String {
        let seed = self.seed.as_ref().map(|seed| {
            let (seeded, after) = match &self.state {
                SeedState::Unseeded => return Json::Null,
                SeedState::Seeding(after) => (false, after.as_ref().map(encode_key)),
                SeedState::Seeded => (true, None),
                SeedState::Parked => (false, None),
            };
            json!({
                "stream": seed.stream.as_str(),
                "definition": seed.definition.as_str(),
                "seeded": seeded,
                "parked": self.state == SeedState::Parked,
                "after": after,
            })
        });
        json!({
            "syncline": FORMAT,
            "index": self.index.as_str(),
            "incarnation": self.incarnation,
            "epoch": self.epoch.0,
            "seed": seed,
        })
        .to_string()
    }

    /// The payload that [`to_text`](Self::to_text) wrote; `None` where it wrote no such text, or wrote it in another
    /// format.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let json: Json = serde_json::from_str(text).ok()?;
        if json.get("syncline")?.as_u64()? != FORMAT {
            return None;
        }
        let (seed, state) = match json.get("seed")? {
            Json::Null => (None, SeedState::Unseeded),
            seed => {
                // What was written before indexes could be parked does not speak of it.
                let parked = seed.get("parked").is_some_and(|parked| *parked == Json::Bool(true));
                let state = match (seed.get("seeded")?.as_bool()?, seed.get("after")?) {
                    _ if parked => SeedState::Parked,
                    (true, _) => SeedState::Seeded,
                    (false, Json::Null) => SeedState::Seeding(None),
                    (false, after) => SeedState::Seeding(Some(decode_key(after.as_str()?)?)),
                };
                let stream = StreamId::new(seed.get("stream")?.as_str()?).ok()?;
                let definition = seed.get("definition")?.as_str()?.into();
                (Some(Seed { stream, definition }), state)
            }
        };
        Some(Self {
            index: IndexName::new(json.get("index")?.as_str()?).ok()?,
            incarnation: json.get("incarnation")?.as_str()?.to_owned(),
            epoch: Epoch(json.get("epoch")?.as_u64()?),
            seed,
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Key;
    use crate::value::Value;

    #[test]
    fn payloads_round_trip_with_every_state_and_odd_keys() {
        let fresh = Payload::fresh(&IndexName::new("a/\"b\"").unwrap(), Epoch(u64::MAX));
        let seed = Seed { stream: StreamId::new("s \u{1f980}").unwrap(), definition: "d\n\"".into() };
        let key = Key::new([Value::from("a:\u{0}%"), Value::Null, Value::from(-0.0)]).unwrap();
        let states =
            [SeedState::Seeding(None), SeedState::Seeding(Some(key)), SeedState::Seeded, SeedState::Parked];
        for state in states {
            let payload = Payload { seed: Some(seed.clone()), state: state.clone(), ..fresh.clone() };
            assert_eq!(Payload::parse(&payload.to_text()), Some(payload.clone()));
            assert_eq!(payload.state_for(&seed), state);
            let other = Seed { definition: "other".into(), ..seed.clone() };
            assert_eq!(payload.state_for(&other), SeedState::Unseeded);
        }
        assert_eq!(Payload::parse(&fresh.to_text()), Some(fresh));
    }

    #[test]
    fn what_was_not_written_here_is_no_payload() {
        for text in ["", "{}", "null", r#"{"syncline":2}"#, r#"{"syncline":1,"seed":null}"#] {
            assert_eq!(Payload::parse(text), None, "{text}");
        }
    }
}
