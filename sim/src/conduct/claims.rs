//! What a run says of itself, by its status, its report and what its observer hears: whether it is so.

use std::collections::{BTreeMap, BTreeSet};

use syncline::{IndexName, Report, SeedState, Status, Verified};

use crate::conduct::{Conduct, LATE_US};
use crate::index::Tampering;
use crate::judge::Broken;
use crate::outcome::Check;
use crate::plan::Engine;
use crate::tables::{Doc, doc_of};

fn untrue(what: String) -> Result<(), Broken> {
    Err((Check::Told, what))
}

impl Conduct {
    pub(super) fn is_stalled(&self, now_us: u64, age_us: u64) -> bool {
        self.waiting.front().is_some_and(|(_, at_us)| now_us - at_us > age_us)
    }

    /// The run says that its oldest change is too old: whether it is.
    pub(crate) fn on_warning(&mut self, now_us: u64, of: &Engine) -> Result<(), Broken> {
        self.has_warned = true;
        match self.has_repeats || self.is_stalled(now_us + 1, of.alarm_ms * 1000) {
            true => Ok(()),
            false => untrue("a run warns of an old change, and has none".to_owned()),
        }
    }

    /// Whether the run has warned where its oldest change is too old.
    pub(super) fn has_warned_in_time(&self, now_us: u64, of: &Engine) -> Result<(), Broken> {
        if self.has_warned
            || self.was_paused
            || self.has_repeats
            || !self.is_stalled(now_us, of.alarm_ms * 1000 + LATE_US)
        {
            return Ok(());
        }
        let oldest = self.waiting.front().map_or(0, |(_, at_us)| now_us - at_us);
        untrue(format!("a change was not acknowledged for {oldest} us, and nobody was warned"))
    }

    /// An index is said to be seeded: whether it has been marked.
    pub(crate) fn on_seeded(&self, index: usize) -> Result<(), Broken> {
        match self.known.get(&index) {
            Some(SeedState::Seeded) => Ok(()),
            known => untrue(format!("index {index} is said to be seeded, and is {known:?}")),
        }
    }

    /// A document is said to be quarantined: whether it was not rejected together with one for which the run ends.
    pub(crate) fn on_quarantined(&self, doc: &Doc) -> Result<(), Broken> {
        match self.beside_a_stop.contains(doc) {
            true => untrue(format!("{doc:?} is said to be quarantined, beside one for which the run ends")),
            false => Ok(()),
        }
    }

    /// So many documents are said to have been written by a unit.
    pub(crate) fn on_batch(&mut self, documents: usize) -> Result<(), Broken> {
        self.batched += documents;
        match self.batched <= self.written.len() {
            true => Ok(()),
            false => untrue(format!(
                "{} documents are said to be written, and {} are",
                self.batched,
                self.written.len()
            )),
        }
    }

    /// The status of the run. Returns whether, by that, everything that it was given is durable.
    pub(crate) fn on_status(&self, status: &Status, names: &[IndexName]) -> (bool, Result<(), Broken>) {
        let known = |name: &IndexName| {
            let number = names.iter().position(|known| known == name)?;
            self.known.get(&number)
        };
        let is_done = |index: &IndexName| matches!(known(index), Some(SeedState::Seeded | SeedState::Parked));
        let wrong = status.indexes.iter().find(|index| {
            let of = known(&index.index);
            (index.seeded && of != Some(&SeedState::Seeded))
                || (index.parked && of != Some(&SeedState::Parked))
        });
        let verdict = if let Some(index) = wrong {
            untrue(format!("the status shows {index:?}, which is {:?}", known(&index.index)))
        } else if status.captured > self.given {
            untrue(format!("the status shows {} changes; {} were given", status.captured, self.given))
        } else if status.caught_up && !status.indexes.iter().all(|index| is_done(&index.index)) {
            untrue("the status says that a run is caught up, which seeds an index yet".to_owned())
        } else {
            Ok(())
        };
        let newest = self.newest().and_then(|position| self.checkpoints.get(&position));
        let is_all = status.durable == self.given && newest == Some(&self.given);
        (status.caught_up || is_all, verdict)
    }

    /// An index was compared to the end: whether all is mended that was wrong when it began, and what was found is told.
    /// What is still wrong is given.
    pub(crate) fn on_verified(
        &mut self,
        index: usize,
        verified: &Verified,
        wrong: &BTreeMap<Doc, Tampering>,
        names: &[IndexName],
    ) -> Result<(), Broken> {
        let found = std::mem::take(&mut self.differing);
        let before = self.verifying.remove(&index).unwrap_or_default();
        let mut lasting = before.iter().filter(|(doc, number)| wrong.get(doc) == Some(number));
        if let Some((doc, _)) = lasting.next() {
            return untrue(format!("index {index} was compared, and {doc:?} is still wrong"));
        }
        let told: BTreeSet<Doc> = verified.documents.iter().map(|id| doc_of(id, names)).collect();
        // A change that came since may have been what was seen.
        let mut certain = found.iter().filter(|(doc, given)| doc.index == index && **given == self.given);
        match certain.find(|(doc, _)| !told.contains(doc)) {
            Some((doc, _)) => untrue(format!("{doc:?} was found to differ, and is not told: {verified:?}")),
            None => Ok(()),
        }
    }

    /// The run is over, with its report where it was drained: whether that is so, and it was in time.
    pub(crate) fn on_ended(
        &self,
        now_us: u64,
        report: Option<&Report>,
        names: &[IndexName],
        of: &Engine,
    ) -> Result<(), Broken> {
        self.has_warned_in_time(now_us, of)?;
        let (Some(report), Some(drain)) = (report, self.drain) else { return Ok(()) };
        let (took_us, within_us) = (now_us - drain.asked_us, drain.within_ms * 1000);
        let most_us = within_us + of.grace_ms * 1000 + LATE_US;
        if took_us > most_us && !self.was_paused {
            return Err((Check::Drained, format!("a drain took {took_us} us; the most is {most_us} us")));
        }
        if !report.started {
            return Ok(());
        }
        let owed = self.given - self.acknowledged;
        let behind = self.given - self.newest().map_or(0, |newest| self.checkpoints[&newest]);
        let is_done =
            |index: &usize| matches!(self.known.get(index), Some(SeedState::Seeded | SeedState::Parked));
        let is_parked = |index: &usize| self.known.get(index) == Some(&SeedState::Parked);
        let named = |which: &dyn Fn(&usize) -> bool| -> Vec<&IndexName> {
            (0..names.len()).filter(which).map(|index| &names[index]).collect()
        };
        // What a run learns while it ends, it may not heed; and one that is to be seeded anew goes on.
        let has_lasted = |index: &usize| {
            let since_us = self.known_us.get(index).map_or(0, |at_us| now_us - at_us);
            is_parked(index) && !self.reasons.contains_key(index) && since_us > of.grace_ms * 1000 + LATE_US
        };
        let lasting = named(&has_lasted);
        let (unseeded, parked) = (named(&|index| !is_done(index)), named(&is_parked));
        // Of what was given twice, who knows which of them was acknowledged.
        let is_owed = report.unacknowledged == owed || self.has_repeats;
        let what = if report.captured != self.given || !is_owed {
            format!(
                "it says that {} of {} changes are not acknowledged; it was given {}, and {owed} are not",
                report.unacknowledged, report.captured, self.given
            )
        } else if report.acknowledged.map(|position| position.0) != self.confirmed_of_stream {
            format!(
                "it says that {:?} is acknowledged; {:?} is",
                report.acknowledged, self.confirmed_of_stream
            )
        } else if unseeded.iter().any(|index| !report.unseeded.contains(index)) {
            // What was marked when it ended may be said not to be.
            format!("it says that {:?} are not seeded; {unseeded:?} are not", report.unseeded)
        } else if report.parked.iter().any(|index| !parked.contains(&index))
            || lasting.iter().any(|index| !report.parked.contains(index))
        {
            format!("it says that {:?} have stopped; {parked:?} have", report.parked)
        } else if took_us < within_us && owed > behind && !self.has_repeats {
            format!(
                "it ended {took_us} us after it was asked, of {within_us} us, and had {owed} changes to acknowledge"
            )
        } else {
            return Ok(());
        };
        Err((Check::Drained, format!("of a drained run: {what}")))
    }
}
