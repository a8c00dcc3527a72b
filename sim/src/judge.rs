//! The checks of safety, at every step, from what the nodes hold durably and what the tables ever were: they know nothing
//! of the engine's bookkeeping.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::outcome::Check;
use crate::tables::Doc;

/// A broken promise, in words.
pub(crate) type Broken = (Check, String);

/// What a document was, from which position on.
type History = Vec<(u64, Option<Arc<str>>)>;

/// How a document changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// A row of its own did, or of its children.
    Itself,
    /// A row did that it refers to.
    ByAnother,
    /// Its own rows, or those of its children, were truncated, and it changed in no other way.
    ItselfByTruncation,
    /// Rows that it refers to were.
    ByTruncation,
}

/// What is known of a document's index, as far as it decides whether a confirm may pass the document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// The document is in the index.
    pub(crate) is_held: bool,
    /// Whoever goes on with the seeding of the index will come to it.
    pub(crate) is_to_be_scanned: bool,
    /// It stands in quarantine.
    pub(crate) is_recorded: bool,
    /// The index has stopped alone.
    pub(crate) is_parked: bool,
}

/// What is known of the documents, beside the engine.
#[derive(Default)]
pub(crate) struct Judge {
    /// What each document ever was by the tables. Before its first entry there was none.
    history: BTreeMap<Doc, History>,
    /// The documents by the positions at which they changed.
    changed: BTreeMap<u64, Vec<(Doc, Changed)>>,
    /// For each index the position at which it was cleared last.
    cleared: BTreeMap<usize, u64>,
    /// Where a row of their own changed last.
    changed_itself: BTreeMap<Doc, u64>,
    /// The newest state of each document that was ever durable: its place in the history.
    durable: BTreeMap<Doc, usize>,
    /// The oldest state that a document of a physical index may still show: its place in the history.
    shown: BTreeMap<(u64, Doc), usize>,
    /// Documents that someone refused for their content, at any time.
    refused: BTreeSet<Doc>,
    /// The indexes of which a document was, since they were cleared last.
    at_fault: BTreeSet<usize>,
    /// Positions from which the source could resume.
    checkpoints: BTreeSet<u64>,
    /// Everything up to here was judged when it was confirmed, from where its stream begins.
    judged: u64,
    since: u64,
}

impl Judge {
    /// A document became this at a position.
    pub(crate) fn on_truth(&mut self, doc: &Doc, at: u64, how: Changed, text: Option<Arc<str>>) {
        let history = self.history.entry(doc.clone()).or_insert_with(|| vec![(0, None)]);
        let last = history.last_mut().expect("a history begins with nothing");
        if last.1 == text {
            return;
        }
        if last.0 == at {
            last.1 = text;
        } else {
            history.push((at, text));
        }
        self.changed.entry(at).or_default().push((doc.clone(), how));
        if matches!(how, Changed::Itself | Changed::ItselfByTruncation) {
            self.changed_itself.insert(doc.clone(), at);
        }
    }

    /// An index was cleared. What is not there then, nor will be scanned, is rightly not there.
    pub(crate) fn on_cleared(&mut self, index: usize) {
        self.cleared.insert(index, self.checkpoints.last().copied().unwrap_or_default());
        self.at_fault.remove(&index);
        self.durable.retain(|doc, _| doc.index != index);
    }

    /// Whether the document of a change is missing for a reason that is as durable as the document would be: its index was
    /// cleared since, or, where rows of it were truncated, was empty anyway; and its row was gone by then, or at any time
    /// since the change, or will be scanned.
    fn is_rightly_missing(&self, doc: &Doc, at: u64, how: Changed, standing: Standing) -> bool {
        let history = self.history.get(doc).map_or(&[][..], Vec::as_slice);
        let since = &history[self.place(doc, at).min(history.len())..];
        let was_gone_since = since.iter().any(|(_, text)| text.is_none());
        let later = (!standing.is_held && was_gone_since) || standing.is_to_be_scanned;
        let cleared = self.cleared.get(&doc.index).filter(|cleared| **cleared >= at);
        let was_gone =
            |cleared: &u64| history.get(self.place(doc, *cleared)).is_none_or(|(_, text)| text.is_none());
        let truncated = matches!(how, Changed::ItselfByTruncation | Changed::ByTruncation);
        (truncated && later) || cleared.is_some_and(|cleared| later || was_gone(cleared))
    }

    /// Someone refuses a document for its content.
    pub(crate) fn on_refused(&mut self, doc: &Doc) {
        self.refused.insert(doc.clone());
        self.at_fault.insert(doc.index);
    }

    /// It is durable that an index has stopped: whether a document of it was refused.
    pub(crate) fn on_parked(&self, index: usize) -> Result<(), Broken> {
        match self.at_fault.contains(&index) {
            true => Ok(()),
            false => Err((
                Check::Reason,
                format!("index {index} has stopped, and nobody refused a document of it"),
            )),
        }
    }

    /// The source could resume from here.
    pub(crate) fn on_checkpoint(&mut self, at: u64) {
        self.checkpoints.insert(at);
    }

    /// The place of the state that a document has at a position.
    fn place(&self, doc: &Doc, at: u64) -> usize {
        let history = self.history.get(doc).map_or(&[][..], Vec::as_slice);
        history.partition_point(|(position, _)| *position <= at).saturating_sub(1)
    }

    /// A write became durable in a physical index. Whether the document goes forward, and is what it once was.
    pub(crate) fn on_written(
        &mut self,
        generation: u64,
        doc: &Doc,
        text: Option<&Arc<str>>,
    ) -> Result<(), Broken> {
        let nothing = vec![(0, None)];
        let history = self.history.get(doc).unwrap_or(&nothing);
        let shown = self.shown.entry((generation, doc.clone())).or_default();
        let matches = |state: &(u64, Option<Arc<str>>)| state.1.as_ref() == text;
        let Some(next) = (*shown..history.len()).find(|at| matches(&history[*at])) else {
            let words = match history.iter().any(matches) {
                true => "goes back in time, to",
                false => "is what it never was:",
            };
            let now = history[*shown].1.as_deref().unwrap_or("nothing");
            let text = text.map_or("nothing", |text| text);
            return Err((Check::Forward, format!("{doc:?} {words} `{text}`, from `{now}`")));
        };
        *shown = next;
        let newest = history.iter().rposition(matches).unwrap_or(next);
        let durable = self.durable.entry(doc.clone()).or_default();
        *durable = newest.max(*durable);
        Ok(())
    }

    /// A position is confirmed. Whether everything up to it is durable, transaction by transaction, or recorded, and nothing
    /// is found of what was truncated.
    pub(crate) fn on_confirm<'a>(
        &mut self,
        since: u64,
        position: u64,
        standing: impl Fn(&Doc) -> Standing,
        found: impl Fn(&Doc) -> Option<&'a Arc<str>>,
    ) -> Result<(), Broken> {
        if !self.checkpoints.contains(&position) {
            let what = format!("@{position} was confirmed, which stands inside a transaction");
            return Err((Check::Whole, what));
        }
        let from = self.judged.max(since);
        if position <= from {
            return Ok(());
        }
        // An index that has stopped keeps what it holds.
        let found = |doc: &Doc| found(doc).filter(|_| !standing(doc).is_parked);
        if let Some((at, doc)) = self.gone_and_found(from, position, found) {
            let what =
                format!("@{position} was confirmed, but {doc:?}, which @{at} truncated, is still found");
            return Err((Check::Durable, what));
        }
        if let Some((at, doc)) = self.owed(from, position, standing) {
            if self.refused.contains(doc) {
                let what = format!("@{position} was confirmed, but {doc:?} of @{at} is not recorded");
                return Err((Check::Recorded, what));
            }
            let what = format!("@{position} was confirmed, but {doc:?} as of @{at} is not durable");
            return Err((Check::Durable, what));
        }
        (self.judged, self.since) = (position, since);
        Ok(())
    }

    /// The first document whose row was truncated after one position, up to another, and which is found as it was before.
    fn gone_and_found<'a>(
        &self,
        since: u64,
        to: u64,
        found: impl Fn(&Doc) -> Option<&'a Arc<str>>,
    ) -> Option<(u64, &Doc)> {
        let all =
            self.changed.range(since + 1..=to).flat_map(|(at, docs)| docs.iter().map(move |doc| (*at, doc)));
        for (at, (doc, _)) in all.filter(|(_, (_, how))| *how == Changed::ItselfByTruncation) {
            let (Some(history), Some(text)) = (self.history.get(doc), found(doc)) else { continue };
            let place = self.place(doc, at);
            let is_gone = history[place].1.is_none();
            if is_gone && history[..place].iter().any(|(_, before)| before.as_ref() == Some(text)) {
                return Some((at, doc));
            }
        }
        None
    }

    /// A run says that it is caught up, and was given everything up to a position: whether that is durable.
    pub(crate) fn on_caught_up(
        &self,
        since: u64,
        position: u64,
        standing: impl Fn(&Doc) -> Standing,
    ) -> Result<(), Broken> {
        match self.owed(self.judged.max(since), position, standing) {
            Some((at, doc)) => {
                let what = format!("a run says that it is caught up, but {doc:?} as of @{at} is not durable");
                Err((Check::Told, what))
            }
            None => Ok(()),
        }
    }

    /// The first document that changed after one position, up to another, and is not durable as of then, nor excused; and
    /// where it changed.
    fn owed(&self, since: u64, to: u64, standing: impl Fn(&Doc) -> Standing) -> Option<(u64, &Doc)> {
        if to <= since {
            return None;
        }
        for (at, docs) in self.changed.range(since + 1..=to) {
            for (doc, how) in docs {
                let durable = self.durable.get(doc).copied().unwrap_or_default();
                if durable >= self.place(doc, *at) {
                    continue;
                }
                let standing = standing(doc);
                if standing.is_recorded
                    || standing.is_parked
                    || self.is_rightly_missing(doc, *at, *how, standing)
                {
                    continue;
                }
                // Who refers to a row is looked up later than it changed. One that has turned away by then is not found,
                // and is owed by the change that turned it.
                if *how == Changed::ByAnother
                    && self.changed_itself.get(doc).is_some_and(|turned| turned > at)
                {
                    continue;
                }
                return Some((*at, doc));
            }
        }
        None
    }

    /// Documents are to be recorded in the quarantine: whether they are at fault.
    pub(crate) fn on_recorded<'a>(&self, docs: impl IntoIterator<Item = &'a Doc>) -> Result<(), Broken> {
        match docs.into_iter().find(|doc| !self.refused.contains(doc)) {
            Some(doc) => Err((Check::Recorded, format!("{doc:?} was quarantined for no fault of its own"))),
            None => Ok(()),
        }
    }

    /// A document leaves the quarantine: whether what was acknowledged because it stood there is durable by now.
    pub(crate) fn on_released(&self, doc: &Doc) -> Result<(), Broken> {
        let place = self.place(doc, self.judged);
        let at = self.history.get(doc).map_or(0, |history| history[place].0);
        let durable = self.durable.get(doc).copied().unwrap_or_default();
        if at <= self.since || durable >= place {
            return Ok(());
        }
        let what =
            format!("{doc:?} left the quarantine, but as of @{at}, which is confirmed, it is not durable");
        Err((Check::Recorded, what))
    }

    /// An index is marked as seeded since a position. Whether every document that stood there then is durable in it, as it
    /// was then or later, or excused, and nothing else stands in it.
    pub(crate) fn on_marked(
        &self,
        index: usize,
        since: u64,
        contents: impl Fn(&Doc) -> Option<Arc<str>>,
        excused: impl Fn(&Doc) -> bool,
    ) -> Result<(), Broken> {
        let first = Doc { index, key: Vec::new() };
        for (doc, history) in self.history.range(first..) {
            if doc.index != index {
                break;
            }
            let text = contents(doc);
            let from = self.place(doc, since);
            if history[from..].iter().all(|state| state.1 != text) && !excused(doc) {
                let text = text.as_deref().unwrap_or("nothing");
                let what = format!("index {index} was marked, but {doc:?} is `{text}` as before @{since}");
                return Err((Check::Complete, what));
            }
        }
        Ok(())
    }

    /// Where a document changed last.
    pub(crate) fn changed_last(&self, doc: &Doc) -> u64 {
        self.history.get(doc).and_then(|history| history.last()).map_or(0, |(at, _)| *at)
    }

    /// The positions after one, up to another, at which documents changed, and how many.
    pub(crate) fn changed_between(&self, after: u64, to: u64) -> impl Iterator<Item = (u64, usize)> {
        let range = if after < to { after + 1..to + 1 } else { 0..0 };
        self.changed.range(range).map(|(at, docs)| (*at, docs.len()))
    }
}
