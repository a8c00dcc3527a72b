//! What the engine says while it runs, told to a person.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncline::error::{RejectedDocument, Stage};
use syncline::{BatchStats, DocumentId, Fault, IndexName, Lane, Observer};
use tokio::sync::mpsc;
use tokio::time::Duration;

use crate::page::{Page, count, time};

/// How many reasons of quarantined documents are shown.
const SHOWN: usize = 5;

/// For how long news gather before they are told: a unit's documents are quarantined one after the other.
const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum News {
    Seeding(Vec<IndexName>),
    Batch(BatchStats),
    Quarantined(RejectedDocument),
    Retry(String),
}

/// Passes on what happens: an observer is called from the engine's own task, and must not wait for a terminal.
#[derive(Debug)]
pub(crate) struct Teller(mpsc::UnboundedSender<News>);

/// Hears what a [`Teller`] passes on.
#[derive(Debug)]
pub(crate) struct Listener {
    news: mpsc::UnboundedReceiver<News>,
    /// Heard, and not told yet.
    heard: Vec<News>,
    seeding: BTreeSet<IndexName>,
}

pub(crate) fn pair() -> (Teller, Listener) {
    let (told, news) = mpsc::unbounded_channel();
    (Teller(told), Listener { news, heard: Vec::new(), seeding: BTreeSet::new() })
}

impl Teller {
    fn say(&self, news: News) {
        // Nobody listens any more only when the program ends.
        let _ = self.0.send(news);
    }
}

impl Observer for Teller {
    fn on_backfill_started(&self, indexes: &[IndexName]) {
        self.say(News::Seeding(indexes.to_vec()));
    }

    fn on_batch_committed(&self, stats: &BatchStats) {
        if stats.lane == Lane::Live {
            self.say(News::Batch(stats.clone()));
        }
    }

    fn on_document_quarantined(&self, document: &RejectedDocument, _attempts: u32) {
        self.say(News::Quarantined(document.clone()));
    }

    fn on_retry(&self, stage: Stage, attempt: u32, delay: Duration, fault: &Fault) {
        self.say(News::Retry(format!("{stage} failed (attempt {attempt}), again in {delay:?}: {fault}")));
    }
}

impl Listener {
    /// The indexes that this run has seeded, or seeds.
    pub(crate) fn seeding(&mut self) -> &BTreeSet<IndexName> {
        self.hear();
        &self.seeding
    }

    /// Waits for something to tell.
    pub(crate) async fn wait(&mut self) {
        match self.news.recv().await {
            Some(news) => self.heard.push(news),
            // The run is over, and nobody waits for its news in vain: whoever holds it learns that from the run.
            None => std::future::pending().await,
        }
        tokio::time::sleep(GATHER).await;
    }

    /// Tells what there is to tell by now.
    pub(crate) fn tell(&mut self, page: Page) {
        self.hear();
        let mut quarantined: BTreeMap<DocumentId, Arc<str>> = BTreeMap::new();
        for news in self.heard.drain(..) {
            match news {
                News::Seeding(_) => {}
                News::Batch(stats) => batch(page, &stats),
                News::Quarantined(document) => {
                    quarantined.insert(document.id, document.reason);
                }
                News::Retry(what) => page.note(what),
            }
        }
        for line in by_reason(quarantined) {
            page.failed(line);
        }
    }

    fn hear(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.heard.push(news);
        }
        for news in &self.heard {
            if let News::Seeding(indexes) = news {
                self.seeding.extend(indexes.iter().cloned());
            }
        }
    }
}

fn batch(page: Page, stats: &BatchStats) {
    if stats.documents == 0 {
        return;
    }
    let documents: Vec<String> = stats
        .documents_by_index
        .iter()
        .map(|(index, documents)| format!("{} in {index}", count(*documents as u64)))
        .collect();
    // Quarantined documents are retried without a change.
    let cause = match stats.changes {
        0 => "retried".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{} changes", count(many as u64)),
    };
    page.done(format!("{cause}; documents: {}; {}", documents.join(", "), time(stats.flush)));
}

/// A line for each reason, the most frequent first; what many documents have in common is said once.
fn by_reason(documents: BTreeMap<DocumentId, Arc<str>>) -> Vec<String> {
    let mut reasons: BTreeMap<Arc<str>, (u64, DocumentId)> = BTreeMap::new();
    for (id, reason) in documents {
        reasons.entry(reason).or_insert((0, id)).0 += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, (number, _))| std::cmp::Reverse(*number));
    let more = reasons.split_off(reasons.len().min(SHOWN));
    let mut lines: Vec<String> = reasons
        .into_iter()
        .map(|(reason, (number, id))| match number {
            1 => format!("1 document quarantined: {id}: {reason}"),
            many => format!("{} documents quarantined, for example {id}: {reason}", count(many)),
        })
        .collect();
    if !more.is_empty() {
        let (documents, reasons) = (more.iter().map(|(_, (number, _))| number).sum(), more.len() as u64);
        lines.push(format!("{} more quarantined, for {} other reasons", count(documents), count(reasons)));
    }
    lines
}
