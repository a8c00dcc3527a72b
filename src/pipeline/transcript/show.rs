//! Commands, notices and statuses as a transcript prints them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::Body;
use crate::change::{Change, Operation, Visibility};
use crate::document::{Content, Writes};
use crate::pipeline::{CallId, Command, Notice, Status, Timer};
use crate::ports::Lane;
use crate::row::{Key, Row};

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// To the millisecond, which is as exact as a reader wants the jitter.
pub(super) fn duration(duration: Duration) -> String {
    let millis = (duration.as_nanos() + 500_000) / 1_000_000;
    if millis == 0 { "0ms".into() } else { format!("{:?}", Duration::from_millis(millis as u64)) }
}

pub(super) fn command(command: &Command<Body>, ids: u64) -> String {
    let id = |call: &CallId| format!("#{}", call.0 - ids);
    match command {
        Command::Begin { call } => format!("begin {}", id(call)),
        Command::Describe { call } => format!("describe {}", id(call)),
        Command::Ensure { call, mapping } => format!("ensure {} {}", id(call), mapping.index),
        Command::LoadQuarantine { call } => format!("load quarantine {}", id(call)),
        Command::Open { call } => format!("open {}", id(call)),
        Command::Resolve { call, changes } => {
            format!("resolve {} {}", id(call), list(changes.iter().map(change)))
        }
        Command::Build { call, ids, visibility } => {
            format!("build {} {}{}", id(call), list(ids.iter()), sees(*visibility))
        }
        Command::Flush { call, writes: all, caught_up } => {
            let version = all.iter().next().map(|write| write.version).unwrap_or_default();
            let caught_up = if *caught_up { ", caught up" } else { "" };
            format!(
                "flush {} {} (version {}.{}{caught_up})",
                id(call),
                writes(all),
                version.epoch.0,
                version.build
            )
        }
        Command::CaughtUp { call } => format!("caught up {}", id(call)),
        Command::Quarantine { call, documents } => {
            let records = documents.iter().map(|record| {
                let sign = if record.operation == Operation::Delete { "-" } else { "" };
                format!("{sign}{} ({}, attempt {})", record.id, record.reason, record.attempts)
            });
            format!("quarantine {} {}", id(call), list(records))
        }
        Command::Release { call, documents } => {
            format!("release {} {}", id(call), list(documents.iter().map(|document| &document.id)))
        }
        Command::Ack { call, stream, position } => format!("ack {} {position} of {stream}", id(call)),
        Command::Compare { call, writes } => format!("compare {} [{}]", id(call), self::writes(writes)),
        Command::List { call, index, after, limit } => {
            let after = after.as_ref().map_or("from the start".into(), |id| format!("after {id}"));
            format!("list {} {limit} of {index} {after}", id(call))
        }
        Command::ReadSeed { call, index, seed } => {
            format!("read seed {} {index} of {}{}", id(call), seed.stream, definition(&seed.definition))
        }
        Command::Clear { call, index } => format!("clear {} {index}", id(call)),
        Command::Rebuild { call, index } => format!("rebuild {} {index}", id(call)),
        Command::SaveCursor { call, index, seed, after } => {
            let definition = definition(&seed.definition);
            format!("save cursor {} {index} {} of {}{definition}", id(call), from(after), seed.stream)
        }
        Command::Scan { call, table, after, visibility } => {
            format!("scan {} {} {}{}", id(call), table.table, from(after), sees(*visibility))
        }
        Command::MarkSeeded { call, index, seed } => {
            format!("mark seeded {} {index} of {}{}", id(call), seed.stream, definition(&seed.definition))
        }
        Command::Park { call, index, seed } => {
            format!("park {} {index} of {}{}", id(call), seed.stream, definition(&seed.definition))
        }
        Command::ReadLag { call } => format!("read lag {}", id(call)),
        Command::Abandon { call } => format!("abandon {}", id(call)),
        Command::Notify(notice) => format!("* {}", self::notice(notice)),
        Command::Finish(Ok(report)) => {
            let acknowledged = report.acknowledged.map_or("nothing".into(), |position| position.to_string());
            let unseeded = match report.unseeded.len() {
                0 => String::new(),
                _ => format!(", not seeded {}", list(&report.unseeded)),
            };
            let quarantined = match report.quarantined {
                0 => String::new(),
                count => format!(", quarantined {count}"),
            };
            let parked = match report.parked.len() {
                0 => String::new(),
                _ => format!(", parked {}", list(&report.parked)),
            };
            let (captured, rest) = (report.captured, report.unacknowledged);
            format!(
                "finish: captured {captured}, acknowledged {acknowledged}, to be given again {rest}{unseeded}{parked}{quarantined}"
            )
        }
        Command::Finish(Err(error)) => format!("finish with an error: {error}"),
    }
}

fn sees(visibility: Option<Visibility>) -> String {
    visibility.map(|token| format!(" (sees {})", token.0)).unwrap_or_default()
}

fn definition(definition: &str) -> String {
    if definition.is_empty() { String::new() } else { format!(" as {definition}") }
}

fn from(after: &Option<Key>) -> String {
    after.as_ref().map_or("from the start".into(), |key| format!("after {key:?}"))
}

/// A change as it is written in an event.
pub(super) fn change(change: &Change) -> String {
    let sign = if change.operation == Operation::Delete { '-' } else { '+' };
    let image = |row: &Option<Row>| {
        let columns = row.iter().flat_map(Row::known).map(|(name, value)| format!("{name}={value:?}"));
        columns.collect::<Vec<_>>().join(",")
    };
    let images = match (&change.before, &change.after) {
        (None, None) => String::new(),
        (None, after) => format!("{{{}}}", image(after)),
        (before, after) => format!("{{{}->{}}}", image(before), image(after)),
    };
    let visible = change.visibility.map(|token| format!("~{}", token.0)).unwrap_or_default();
    format!("{sign}{}/{:?}{images}{visible}", change.table, change.key)
}

fn writes(writes: &Writes<Body>) -> String {
    list(writes.iter().map(|write| match &write.document.content {
        Content::Upsert(body) => format!("{}={body}", write.document.id),
        Content::Delete => format!("-{}", write.document.id),
    }))
}

fn notice(notice: &Notice) -> String {
    match notice {
        Notice::IndexesEnsured(count) => format!("{count} indexes ensured"),
        Notice::BackfillStarted(indexes) => format!("backfill started: {}", list(indexes)),
        Notice::IndexSeeded(index) => format!("index seeded: {index}"),
        Notice::BackfillCompleted => "backfill completed".into(),
        Notice::LiveStarted => "live started".into(),
        Notice::Captured(count) => format!("captured {count}"),
        Notice::Committed(stats) => {
            let lane = if stats.lane == Lane::Backfill { " of the backfill" } else { "" };
            let indexes = stats.documents_by_index.iter().map(|(index, count)| format!("{index} {count}"));
            let flush = duration(stats.flush);
            format!(
                "committed{lane}: changes {}, documents {} [{}], flushed in {flush}",
                stats.changes,
                stats.documents,
                list(indexes)
            )
        }
        Notice::Quarantined(document, attempts) => format!("quarantined {document} (attempt {attempts})"),
        Notice::Released(id) => format!("released {id}"),
        Notice::Parked(document) => format!("parked {} for {document}", document.id.index),
        Notice::Verified(verified) => {
            let (compared, different) = (verified.compared, verified.different);
            let documents = list(&verified.documents);
            format!("verified {}: compared {compared}, different {different} [{documents}]", verified.index)
        }
        Notice::Retried { stage, attempt, delay, fault } => {
            format!("{stage} failed, attempt {attempt}, again in {}: {fault}", duration(*delay))
        }
        Notice::Stalled(age) => format!("stalled for {}", duration(*age)),
        Notice::Lag(bytes) => format!("lag {bytes}"),
        Notice::LagExceeded(bytes) => format!("lag exceeded: {bytes}"),
    }
}

pub(super) fn timer(timer: Timer) -> String {
    match timer {
        Timer::Unit(Lane::Live) => "a unit is due".into(),
        Timer::Unit(Lane::Backfill) => "a unit of the backfill is due".into(),
        Timer::Retry(stage) => format!("{stage} is tried again"),
        Timer::Attempt(stage) => format!("{stage} has taken too long"),
        Timer::Cursor => "cursors are saved".into(),
        Timer::Stalled => "the run is stalled".into(),
        Timer::Lag => "the lag is read".into(),
        Timer::Drain => "the drain is over".into(),
        Timer::Grace => "the grace is over".into(),
        Timer::Verify => "a difference is told".into(),
    }
}

pub(super) fn status(status: &Status) -> Vec<String> {
    let position = status.acknowledged.map_or("nothing".into(), |position| position.to_string());
    let caught_up = if status.caught_up { ", caught up" } else { "" };
    let age = status.oldest_unacknowledged.map_or("none".into(), duration);
    let mut lines = alloc::vec![
        format!(
            "{:?}: captured {}, durable {}, acknowledged {position}{caught_up}",
            status.phase, status.captured, status.durable
        ),
        format!("dirty {}, in flight {}, oldest unacknowledged {age}", status.dirty, status.in_flight),
        format!("retries {}, quarantined {}", status.retries, status.quarantined),
    ];
    lines.extend(status.indexes.iter().map(|index| {
        let seeded = match (index.seeded, index.parked) {
            (true, _) => "seeded",
            (false, true) => "parked",
            (false, false) => "not seeded",
        };
        format!("{} {seeded}, rows read {}, durable {}", index.index, index.rows_read, index.rows_durable)
    }));
    lines
}
