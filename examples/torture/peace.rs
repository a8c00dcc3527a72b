//! Nobody writes and nothing fails: the engine has to catch up, and then every document has to be right, and the engine's own
//! comparison has to say so too.

use std::time::Duration;

use tokio::time::Instant;

use crate::chaos::World;
use crate::hand;
use crate::protocol::{OfIndex, Outcome, now_ms};
use crate::schema::INDEXES;
use crate::tally::{Group, Result};
use crate::truth;
use crate::weather::Weather;
use crate::wire::exchange;

/// An engine that has not caught up after so long, with nothing in its way, never will.
const SETTLES_WITHIN: Duration = Duration::from_secs(600);

/// One that has not after so long, and is still writing, may have been given settings that are slow: another takes its place.
const SLOW_AFTER: Duration = Duration::from_secs(120);

impl World {
    /// Returns what is wrong.
    pub(crate) async fn settle_and_compare(&mut self) -> Result<Vec<String>> {
        let gate = self.gate.clone();
        let _closed = gate.write().await;
        self.proxy.set(Weather::default());
        // What is in quarantine is tried again at a start. Otherwise the engine that went through all of it has to be right.
        let quarantined = exchange(self.search, "POST", "/syncline-quarantine/_count", "").await?;
        let quarantined = quarantined.status == 200 && quarantined.json()["count"] != 0;
        if quarantined || self.random.percent(30) {
            self.supervisor.kill().await?;
        }
        let mut wrong = self.settle().await?;
        let is_first = self.tally.of(Group::Check, "comparisons") == 0;
        if wrong.is_empty() && (is_first || self.random.percent(25)) {
            wrong.extend(self.reindex_one().await?);
        }
        if wrong.is_empty() {
            wrong.extend(self.compare().await?);
        }
        if wrong.is_empty() {
            wrong.extend(self.verify_all().await?);
        }
        if wrong.is_empty() && (is_first || self.random.percent(50)) {
            wrong.extend(self.mend_one().await?);
        }
        wrong.extend(self.watcher.complaints());
        if wrong.is_empty() {
            self.tally.journal_anew()?;
        }
        Ok(wrong)
    }

    /// Waits until the engine has caught up.
    async fn settle(&mut self) -> Result<Vec<String>> {
        let (started, started_ms) = (Instant::now(), now_ms());
        let end = self.cluster.psql("shop", "SELECT pg_current_wal_insert_lsn()")?;
        let (mut looked, mut written) = (started, self.written());
        while !self.is_settled(&end).await? {
            if started.elapsed() > SETTLES_WITHIN {
                let told = self.supervisor.told_since(started_ms);
                return Ok(vec![format!("it has not caught up: slots {:?}, {told:?}", self.slots()?)]);
            }
            if looked.elapsed() > SLOW_AFTER {
                if self.written() > written {
                    self.supervisor.kill().await?;
                }
                (looked, written) = (Instant::now(), self.written());
            }
        }
        self.tally.note(format!("caught up within {:.1} s", started.elapsed().as_secs_f64()));
        Ok(Vec::new())
    }

    fn written(&self) -> u64 {
        self.tally.of(Group::Check, "documents written")
    }

    /// Whether the position is confirmed up to here, nothing is under way any more, and the engine said after that that all
    /// is done.
    async fn is_settled(&mut self, end: &str) -> Result<bool> {
        self.supervisor.mind(Duration::from_millis(100)).await?;
        let sql = format!(
            "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{end}'), false) FROM pg_replication_slots
             WHERE slot_name LIKE 'syncline%'"
        );
        if self.proxy.late() > 0 || self.cluster.psql("postgres", &sql)? != "t" {
            return Ok(false);
        }
        let moment_ms = now_ms();
        self.supervisor.mind(Duration::from_millis(250)).await?;
        Ok(self.supervisor.told_since(moment_ms).is_some_and(|told| {
            told.caught_up && told.seeded.len() == INDEXES.len() && told.parked.is_empty()
        }))
    }

    async fn compare(&mut self) -> Result<Vec<String>> {
        let (documents, mut wrong) = truth::differences(&self.cluster, self.search).await?;
        let backwards = self.proxy.backwards();
        if !backwards.is_empty() {
            wrong.push(format!("{} writes went back in time", backwards.len()));
            wrong.extend(backwards.into_iter().take(truth::SHOWN));
        }
        let slots = self.slots()?;
        if slots.len() != 1 {
            wrong.push(format!("there should be one slot: {slots:?}"));
        }
        self.tally.add(Group::Check, "comparisons", 1);
        self.tally.add(Group::Check, "documents compared", documents as u64);
        self.tally.note(format!("{documents} documents, {} wrong", wrong.len()));
        Ok(wrong)
    }

    /// With nothing in its way, an index that is to be built anew is.
    async fn reindex_one(&mut self) -> Result<Vec<String>> {
        let index = INDEXES[self.random.below(3) as usize];
        let became = self.become_of(OfIndex::Reindex, index).await?;
        match became {
            Some(Outcome::Seeded) => self.settle().await,
            other => Ok(vec![format!("{index} was to be built anew, and there is peace: {other:?}")]),
        }
    }

    /// Where every document is right, the engine must not find otherwise.
    async fn verify_all(&mut self) -> Result<Vec<String>> {
        let mut asked = Vec::new();
        for index in INDEXES {
            asked.push((index, self.supervisor.ask(OfIndex::Verify, index).await?));
        }
        let mut wrong = Vec::new();
        for (index, mut told) in asked {
            match self.supervisor.mind_until(&mut told, SETTLES_WITHIN).await? {
                Some(Outcome::Verified { different: 0, .. }) => {}
                other => {
                    wrong.push(format!("every document of {index} is right, and to verify it: {other:?}"))
                }
            }
        }
        Ok(wrong)
    }

    /// Somebody changes one document by hand: the engine must find that one, and write it as it should be.
    async fn mend_one(&mut self) -> Result<Vec<String>> {
        let index = INDEXES[self.random.below(3) as usize];
        let (id, what) = hand::tamper(self.search, index, &mut self.random).await?;
        self.tally.add(Group::Check, "documents changed by hand", 1);
        self.tally.note(&what);
        match self.become_of(OfIndex::Verify, index).await? {
            Some(Outcome::Verified { different: 1, documents, .. }) if documents == [id] => {
                self.tally.add(Group::Check, "documents changed by hand and mended", 1);
                let wrong = truth::differences(&self.cluster, self.search).await?.1;
                let told = wrong.iter().map(|wrong| format!("after {what:?} was found: {wrong}"));
                Ok(told.collect())
            }
            other => Ok(vec![format!("after {what:?}, to verify {index}: {other:?}")]),
        }
    }

    /// Asks for something and waits for it; nothing where the engine has not lived to see it.
    async fn become_of(&mut self, what: OfIndex, index: &str) -> Result<Option<Outcome>> {
        let mut told = self.supervisor.ask(what, index).await?;
        self.supervisor.mind_until(&mut told, SETTLES_WITHIN).await
    }
}
