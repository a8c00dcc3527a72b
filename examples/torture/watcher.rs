//! Somebody who searches all the time, beside whatever is done to the indexes.
//!
//! The documents of the [anchors] have to be found by every search, once each and in one physical index: also
//! while an index is built anew, until another takes its place, and in the moment when it does. What may keep them from it
//! is told in [`excuses`](crate::excuses).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::anchors;
use crate::excuses::Excuses;
use crate::protocol::Told;
use crate::schema::INDEXES;
use crate::tally::{Group, Result, Tally, locked};
use crate::truth::SHOWN;
use crate::wire::exchange;

/// Between two searches.
const PAUSE: Duration = Duration::from_millis(20);

/// How often it is looked whether an excuse is over.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Watcher {
    search: SocketAddr,
    excuses: Arc<Excuses>,
    /// What the engine that runs told last.
    told: Arc<Mutex<Option<Told>>>,
    tally: Arc<Tally>,
    complaints: Mutex<Vec<String>>,
}

impl Watcher {
    /// It goes on until the program ends.
    pub(crate) fn start(
        search: SocketAddr,
        excuses: &Arc<Excuses>,
        told: Arc<Mutex<Option<Told>>>,
        tally: &Arc<Tally>,
    ) -> Arc<Self> {
        let (excuses, tally, complaints) = (excuses.clone(), tally.clone(), Mutex::default());
        let watcher = Arc::new(Self { search, excuses, told, tally, complaints });
        tokio::spawn(watcher.clone().search_on());
        tokio::spawn(watcher.clone().look_on());
        watcher
    }

    /// What searches missed, or found twice.
    pub(crate) fn complaints(&self) -> Vec<String> {
        locked(&self.complaints).clone()
    }

    fn complain(&self, complaint: String) {
        self.tally.note(&complaint);
        let mut complaints = locked(&self.complaints);
        if complaints.len() < SHOWN {
            complaints.push(complaint);
        }
    }

    async fn search_on(self: Arc<Self>) {
        // Where the anchors of each index were found last.
        let mut last: [Option<String>; INDEXES.len()] = Default::default();
        loop {
            for (index, last) in INDEXES.iter().zip(&mut last) {
                if let Err(error) = self.look_for(index, last).await {
                    self.complain(format!("searching {index}: {error}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn look_on(self: Arc<Self>) {
        loop {
            let told = locked(&self.told).clone();
            if let Err(error) = self.excuses.look(told).await {
                self.complain(format!("looking whether an excuse is over: {error}"));
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    async fn look_for(&self, index: &str, last: &mut Option<String>) -> Result<()> {
        let anchors = anchors::of(index);
        let query = json!({ "query": { "terms": { "syncline_id": anchors } }, "_source": false }).to_string();
        let is_seeded = |told: &Told| told.seeded.contains(index);
        let is_rebuilt = locked(&self.told).as_ref().is_some_and(|told| !is_seeded(told));
        let since = Instant::now();
        let answer = exchange(self.search, "POST", &format!("/{index}/_search"), &query).await?;
        let is_excused = self.excuses.covers(index, since);
        let found = match answer.status {
            200 => found(&answer.json()),
            404 => Vec::new(),
            status => return Err(format!("it was answered with {status}").into()),
        };
        self.tally.add(Group::Check, "searches", 1);
        if is_rebuilt && !is_excused {
            self.tally.add(Group::Check, "searches beside a rebuild", 1);
        }
        let missing: Vec<_> =
            anchors.iter().filter(|anchor| !found.iter().any(|(_, id)| id == *anchor)).collect();
        match () {
            () if missing.is_empty() => {}
            () if is_excused => self.tally.add(Group::Check, "searches excused for what they missed", 1),
            () => self.complain(format!(
                "a search of {index}, which nothing excuses, was answered with {} and did not find {missing:?}, but {found:?}",
                answer.status
            )),
        }
        if found.len() > anchors.len() || found.iter().any(|(physical, _)| *physical != found[0].0) {
            self.complain(format!("a search of {index} found more than one index holds: {found:?}"));
        }
        let physical = found.first().map(|(physical, _)| physical.clone());
        if !is_excused && physical.is_some() && last.is_some() && physical != *last {
            self.tally.add(Group::Check, "swaps seen by searches", 1);
            self.tally.note(format!("searches of {index} find {physical:?} in the place of {last:?}"));
        }
        *last = physical;
        Ok(())
    }
}

/// The physical index and the id of each document.
fn found(answer: &Json) -> Vec<(String, String)> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let hits = answer["hits"]["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
    hits.iter().map(|hit| (text(&hit["_index"]), text(&hit["_id"]))).collect()
}
