//! What the sink remembers at the server: the epoch, and for each index which physical one it is, and how far it is seeded.
//!
//! All of it is one document, that is only ever replaced under the condition that nobody has replaced it meanwhile
//! (`if_seq_no` and `if_primary_term`). So a run that has been followed by another changes nothing any more, and neither
//! does a request that arrives after it was given up and made again: what it was conditioned on is gone.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::http::{Answer, Body, Http, segment};
use super::layout::{QUARANTINE, STATE, own};
use crate::document::{Epoch, decode_key, encode_key};
use crate::error::Fault;
use crate::name::StreamId;
use crate::ports::{Seed, SeedState};

/// Counted up when the document changes in a way that an older release would misread.
const FORMAT: u32 = 1;

/// How often a change is tried again after another one came first.
const ATTEMPTS: usize = 5;

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// The newest run that has begun.
    pub(super) epoch: u64,
    /// By their names.
    pub(super) indexes: BTreeMap<String, Entry>,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The physical index that is written, seeded, compared and listed.
    pub(super) physical: String,
    /// Its UUID: what is said below holds for this very index, not for one that was put under its name.
    pub(super) uuid: String,
    /// The hash of its mapping and settings.
    pub(super) layout: String,
    /// How far it is seeded, and for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<Mark>,
    /// The one that searches find, while that is another: the index is being rebuilt. An older release takes no notice, and
    /// has searches find the new one at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) searched: Option<Generation>,
}

/// A physical index, for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) physical: String,
    pub(super) uuid: String,
    pub(super) layout: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    stream: String,
    definition: String,
    seeded: bool,
    #[serde(default)]
    parked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl Entry {
    /// That of an index that holds nothing yet, while searches find this other one.
    pub(super) fn fresh(made: Generation, searched: Option<Generation>) -> Self {
        let Generation { physical, uuid, layout } = made;
        Self { physical, uuid, layout, seed: None, searched }
    }

    /// What searches find.
    pub(super) fn found(&self) -> Generation {
        let own = || Generation {
            physical: self.physical.clone(),
            uuid: self.uuid.clone(),
            layout: self.layout.clone(),
        };
        self.searched.clone().unwrap_or_else(own)
    }

    /// The names of its physical indexes: the one that is written, and where searches find another, that.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let searched = self.searched.as_ref().map(|searched| searched.physical.as_str());
        [self.physical.as_str()].into_iter().chain(searched)
    }

    pub(super) fn mark(&mut self, seed: &Seed, state: &SeedState) {
        // A cursor or marker that comes late says less than that the index has stopped.
        if self.state_for(seed) == SeedState::Parked {
            return;
        }
        let (seeded, after) = match state {
            SeedState::Unseeded => {
                self.seed = None;
                return;
            }
            SeedState::Seeding(after) => (false, after.as_ref().map(encode_key)),
            SeedState::Seeded => (true, None),
            SeedState::Parked => (false, None),
        };
        let (stream, definition) = (seed.stream.as_str().to_owned(), seed.definition.to_string());
        self.seed = Some(Mark { stream, definition, seeded, parked: *state == SeedState::Parked, after });
    }

    /// How far the index is seeded for this seed.
    pub(super) fn state_for(&self, seed: &Seed) -> SeedState {
        let own = |mark: &&Mark| {
            StreamId::new(&mark.stream).as_ref() == Ok(&seed.stream) && mark.definition == seed.definition
        };
        match self.seed.as_ref().filter(own) {
            None => SeedState::Unseeded,
            Some(Mark { parked: true, .. }) => SeedState::Parked,
            Some(Mark { seeded: true, .. }) => SeedState::Seeded,
            Some(Mark { after: None, .. }) => SeedState::Seeding(None),
            // A cursor that cannot be read is none, and the index is cleared.
            Some(Mark { after: Some(after), .. }) => {
                decode_key(after).map_or(SeedState::Unseeded, |after| SeedState::Seeding(Some(after)))
            }
        }
    }
}

/// Where the document stands.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) index: String,
    quarantine: String,
}

/// What a document is replaced under.
#[derive(Debug, Clone, Copy)]
struct Place {
    seq_no: u64,
    primary_term: u64,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_source")]
    source: State,
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
}

impl Store {
    pub(super) fn new(owner: &str) -> Self {
        Self { index: own(owner, STATE), quarantine: own(owner, QUARANTINE) }
    }

    /// The document, as the current run finds it. Errors: fatal, where another run has begun, or it is gone.
    pub(super) async fn read(&self, http: &Http, epoch: Epoch) -> Result<State, Fault> {
        let state = self.load(http).await?.map(|(state, _)| state);
        check(state, epoch, &self.index)
    }

    /// Replaces the document by what `change` makes of it, and returns what it was changed to. Errors: those of `change`;
    /// fatal, where another run has begun; transient, where others were always faster.
    pub(super) async fn change(
        &self,
        http: &Http,
        epoch: Epoch,
        mut change: impl FnMut(&mut State) -> Result<(), Fault>,
    ) -> Result<State, Fault> {
        for _ in 0..ATTEMPTS {
            let (state, place) = self.load(http).await?.unzip();
            let mut state = check(state, epoch, &self.index)?;
            change(&mut state)?;
            if self.save(http, &state, place).await? {
                return Ok(state);
            }
        }
        Err(self.contended())
    }

    /// Durably raises the epoch by one, and to `least` at the least; creates the document where there is none.
    pub(super) async fn begin(&self, http: &Http, least: Epoch) -> Result<State, Fault> {
        for _ in 0..ATTEMPTS {
            let (state, place) = self.load(http).await?.unzip();
            if state.is_none() {
                self.forget_quarantine(http).await?;
                self.create(http).await?;
            }
            let mut state = state.unwrap_or(State { format: FORMAT, epoch: 0, indexes: BTreeMap::new() });
            state.epoch = (state.epoch + 1).max(least.0);
            if state.epoch >= super::wire::EPOCHS {
                return Err(Fault::fatal(format!(
                    "epoch {} is more than a version has room for; remove the index `{}`, and every index is seeded again",
                    state.epoch, self.index
                )));
            }
            if self.save(http, &state, place).await? {
                return Ok(state);
            }
        }
        Err(self.contended())
    }

    /// Removes the records of a count of epochs that was lost: they would be newer than all that is recorded from now on. What
    /// they were of is seeded again, and recorded again where it fails again.
    async fn forget_quarantine(&self, http: &Http) -> Result<(), Fault> {
        let answer = http.ask(Method::DELETE, &segment(&self.quarantine), Body::None).await?;
        match answer.status {
            404 => Ok(()),
            _ => answer.done("removing the quarantine of a state that is gone").map(drop),
        }
    }

    fn contended(&self) -> Fault {
        Fault::transient(format!(
            "the state in index `{}` is being changed by others all the time",
            self.index
        ))
    }

    async fn load(&self, http: &Http) -> Result<Option<(State, Place)>, Fault> {
        const DOING: &str = "reading the state";
        let answer =
            http.ask(Method::GET, &format!("{}/_doc/state", segment(&self.index)), Body::None).await?;
        if is_missing(&answer) {
            return Ok(None);
        }
        let found: Found = answer.done(DOING)?.json(DOING)?;
        if found.source.format != FORMAT {
            return Err(Fault::fatal(format!(
                "the state in index `{}` is of format {}, which this release does not know",
                self.index, found.source.format
            )));
        }
        Ok(Some((found.source, Place { seq_no: found.seq_no, primary_term: found.primary_term })))
    }

    async fn create(&self, http: &Http) -> Result<(), Fault> {
        let body = json!({
            "settings": { "index": { "number_of_shards": 1, "auto_expand_replicas": "0-1", "translog.durability": "request" } },
            // Nothing in it is searched.
            "mappings": { "dynamic": "false", "properties": {} },
        });
        create_own(http, &self.index, body).await
    }

    /// Whether the document was replaced; not, where another one came first.
    async fn save(&self, http: &Http, state: &State, place: Option<Place>) -> Result<bool, Fault> {
        const DOING: &str = "saving the state";
        let path = match place {
            Some(Place { seq_no, primary_term }) => {
                format!(
                    "{}/_doc/state?if_seq_no={seq_no}&if_primary_term={primary_term}",
                    segment(&self.index)
                )
            }
            None => format!("{}/_create/state", segment(&self.index)),
        };
        let body = serde_json::to_value(state).map_err(Fault::fatal)?;
        let answer = http.ask(Method::PUT, &path, Body::Json(body)).await?;
        if answer.status == 409 {
            return Ok(false);
        }
        answer.done(DOING).map(|_| true)
    }
}

fn check(state: Option<State>, epoch: Epoch, index: &str) -> Result<State, Fault> {
    let state = state
        .ok_or_else(|| Fault::fatal(format!("the state in index `{index}` was removed during the run")))?;
    if state.epoch == epoch.0 { Ok(state) } else { Err(superseded(epoch, Epoch(state.epoch))) }
}

/// Creates an index of the sink's own, where there is none.
pub(super) async fn create_own(http: &Http, index: &str, body: serde_json::Value) -> Result<(), Fault> {
    let answer = http.ask(Method::PUT, &segment(index), Body::Json(body)).await?;
    if answer.refusal().kind == "resource_already_exists_exception" {
        return Ok(());
    }
    answer.done(&format!("creating index `{index}`")).map(|_| ())
}

/// Whether an answer says that the document, or its whole index, is not there. A proxy that does not know the path says
/// neither.
pub(super) fn is_missing(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Missing {
        found: bool,
    }
    let unfound = || matches!(serde_json::from_slice(&answer.body), Ok(Missing { found: false }));
    answer.status == 404 && (answer.refusal().kind == "index_not_found_exception" || unfound())
}

/// Another run has begun since.
pub(super) fn superseded(own: Epoch, current: Epoch) -> Fault {
    Fault::fatal(format!("run {} may write no more: run {} has begun", own.0, current.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Key;
    use crate::value::Value;

    fn generation(physical: &str) -> Generation {
        Generation { physical: physical.into(), uuid: "uuid".into(), layout: "hash".into() }
    }

    #[test]
    fn entries_round_trip_with_every_state_and_odd_keys() {
        let seed = Seed { stream: StreamId::new("s \u{1f980}").unwrap(), definition: "d\n\"".into() };
        let key = Key::new([Value::from("a:\u{0}%"), Value::Null, Value::from(-0.0)]).unwrap();
        let mut entry = Entry::fresh(generation("b-1"), Some(generation("b-0")));
        assert_eq!(entry.names().collect::<Vec<_>>(), ["b-1", "b-0"]);
        assert_eq!(entry.state_for(&seed), SeedState::Unseeded);
        for state in [SeedState::Seeding(None), SeedState::Seeding(Some(key)), SeedState::Seeded] {
            entry.mark(&seed, &state);
            let read: Entry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
            assert_eq!(read, entry);
            assert_eq!(read.state_for(&seed), state);
            let other = Seed { definition: "other".into(), ..seed.clone() };
            assert_eq!(read.state_for(&other), SeedState::Unseeded);
            let other = Seed { stream: StreamId::new("other").unwrap(), ..seed.clone() };
            assert_eq!(read.state_for(&other), SeedState::Unseeded);
        }
        entry.mark(&seed, &SeedState::Unseeded);
        assert_eq!(entry.state_for(&seed), SeedState::Unseeded);
    }

    #[test]
    fn a_cursor_that_cannot_be_read_is_none() {
        let text = r#"{"physical":"p","uuid":"u","layout":"l","seed":{"stream":"s","definition":"d","seeded":false,"after":"'007"}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(
            (entry.searched.as_ref(), entry.found()),
            (None, Generation { physical: "p".into(), uuid: "u".into(), layout: "l".into() }),
            "as an older release has left it"
        );
        let seed = Seed { stream: StreamId::new("s").unwrap(), definition: "d".into() };
        assert_eq!(entry.state_for(&seed), SeedState::Unseeded);
    }
}
