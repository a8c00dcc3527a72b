//! What is drawn of a trace.

use std::collections::BTreeMap;

use crate::trace::{Entry, Lane, Phase, Trace};

/// So long after the faults are over, a run that does not come to rest only repeats itself.
const REPEATS_US: u64 = 2_000_000;
/// A request that is never answered is drawn as long as this.
const UNANSWERED_US: u64 = 4_000;

/// How something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// It takes time.
    Bar,
    /// It happens at once.
    Moment,
    /// It goes wrong.
    Fault,
    /// A promise is broken.
    Broken,
}

/// How something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Well.
    Done,
    /// It was refused.
    Failed,
    /// Nobody knows.
    Unanswered,
}

/// Something that is drawn.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) from_us: u64,
    pub(super) to_us: u64,
    pub(super) shape: Shape,
    pub(super) end: End,
    /// In a few words.
    pub(super) label: String,
    /// In all words.
    pub(super) text: String,
}

/// All that is drawn.
pub(super) struct Picture {
    items: BTreeMap<Lane, Vec<Item>>,
    /// When nodes were down, by the lane of theirs.
    pub(super) down: Vec<(Lane, u64, u64)>,
    /// When the faults were over.
    pub(super) healed_us: Option<u64>,
    pub(super) end_us: u64,
    /// Whether what only repeats itself was left out.
    pub(super) is_cut: bool,
}

impl Picture {
    pub(super) fn new(trace: &Trace) -> Self {
        let healed_us =
            trace.entries.iter().find(|entry| is(entry, Lane::Fault, "healed")).map(|at| at.at_us);
        let cut_us = healed_us.map_or(u64::MAX, |healed| healed.saturating_add(REPEATS_US));
        let shown = |entry: &&Entry| entry.at_us <= cut_us || entry.lane == Lane::Check;
        let entries: Vec<&Entry> = trace.entries.iter().filter(shown).collect();
        let end_us = entries.last().map_or(0, |entry| entry.at_us);
        let mut items: BTreeMap<Lane, Vec<Item>> = BTreeMap::new();
        for item in
            requests(&entries, end_us).into_iter().chain(moments(&entries)).chain(runs(&entries, end_us))
        {
            items.entry(item.0).or_default().push(item.1);
        }
        for lane in items.values_mut() {
            lane.sort_by_key(|item| item.from_us);
        }
        let is_cut = entries.len() < trace.entries.len();
        Self { items, down: down(&entries, end_us), healed_us, end_us, is_cut }
    }

    pub(super) fn of(&self, lane: Lane) -> Vec<Item> {
        self.items.get(&lane).cloned().unwrap_or_default()
    }

    /// All times at which something begins or ends.
    pub(super) fn times(&self) -> Vec<u64> {
        let both = |item: &Item| [item.from_us, item.to_us];
        let mut times: Vec<u64> = self.items.values().flatten().flat_map(both).collect();
        times.extend([0, self.end_us]);
        times.sort_unstable();
        times.dedup();
        times
    }
}

fn is(entry: &Entry, lane: Lane, text: &str) -> bool {
    entry.lane == lane && entry.text == text
}

/// Requests, from when they reached their node until it answered.
fn requests(entries: &[&Entry], end_us: u64) -> Vec<(Lane, Item)> {
    let ends: BTreeMap<u64, &Entry> = entries
        .iter()
        .filter(|entry| entry.phase == Phase::End)
        .map(|entry| (entry.request, *entry))
        .collect();
    let begins = entries.iter().filter(|entry| entry.phase == Phase::Begin);
    let item = |begin: &&Entry| {
        let end = ends.get(&begin.request);
        let failed = end.and_then(|end| end.text.split_once(" failed: ")).map(|(_, why)| why);
        let (end_state, suffix) = match (end, failed) {
            (None, _) => (End::Unanswered, " (no answer)".to_owned()),
            (_, Some(why)) => (End::Failed, format!(" ({why})")),
            _ => (End::Done, String::new()),
        };
        let to_us = end.map_or((begin.at_us + UNANSWERED_US).min(end_us), |end| end.at_us);
        let item = Item {
            from_us: begin.at_us,
            to_us,
            shape: Shape::Bar,
            end: end_state,
            label: short(&begin.text),
            text: format!("{}{suffix}, request {}", begin.text, begin.request),
        };
        (begin.lane, item)
    };
    begins.map(item).collect()
}

/// What is over at once. What makes up the spans of nodes is drawn there.
fn moments(entries: &[&Entry]) -> Vec<(Lane, Item)> {
    let moments = entries.iter().filter(|entry| entry.phase == Phase::Moment);
    let own = moments.filter(|entry| {
        let of_node = entry.text.ends_with(" is down") || entry.text.ends_with(" is back");
        !is_start(entry) && !(entry.lane == Lane::Fault && (of_node || entry.text == "healed"))
    });
    let item = |entry: &&Entry| {
        let broken = entry.text.starts_with("BROKEN ");
        let shape = match entry.lane {
            Lane::Check if broken => Shape::Broken,
            Lane::Fault => Shape::Fault,
            _ => Shape::Moment,
        };
        let label = if broken { "BROKEN".to_owned() } else { short(&entry.text) };
        let item = Item {
            from_us: entry.at_us,
            to_us: entry.at_us,
            shape,
            end: End::Done,
            label,
            text: entry.text.clone(),
        };
        (entry.lane, item)
    };
    own.map(item).collect()
}

fn is_start(entry: &Entry) -> bool {
    entry.lane == Lane::Engine && entry.text.starts_with("run ") && entry.text.ends_with(" starts")
}

/// The runs of the engine, until it died or ended.
fn runs(entries: &[&Entry], end_us: u64) -> Vec<(Lane, Item)> {
    let mut runs: Vec<(Lane, Item)> = Vec::new();
    let mut open = false;
    for entry in entries {
        let ended = entry.lane == Lane::Engine
            && (entry.text.starts_with("run ended") || entry.text.starts_with("ended: "));
        if (ended || is(entry, Lane::Fault, "Engine is down"))
            && let Some((_, run)) = runs.last_mut().filter(|_| open)
        {
            run.to_us = entry.at_us;
            open = false;
        }
        if is_start(entry) {
            let label = entry.text.trim_end_matches(" starts").to_owned();
            let text = format!("{label} of the engine");
            let (shape, end) = (Shape::Bar, End::Done);
            runs.push((Lane::Engine, Item { from_us: entry.at_us, to_us: end_us, shape, end, label, text }));
            open = true;
        }
    }
    runs
}

/// When a node was down, in the lane in which what it does is drawn.
fn down(entries: &[&Entry], end_us: u64) -> Vec<(Lane, u64, u64)> {
    let nodes = [("Database", Lane::Source), ("Index", Lane::Index), ("Engine", Lane::Engine)];
    let mut spans = Vec::new();
    for (node, lane) in nodes {
        let mut since = None;
        for entry in entries.iter().filter(|entry| entry.lane == Lane::Fault) {
            if entry.text == format!("{node} is down") {
                since.get_or_insert(entry.at_us);
            } else if entry.text == format!("{node} is back")
                && let Some(from) = since.take()
            {
                spans.push((lane, from, entry.at_us));
            }
        }
        spans.extend(since.map(|from| (lane, from, end_us)));
    }
    spans
}

/// What a label has room for.
fn short(text: &str) -> String {
    const MOST: usize = 34;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
