//! Events and settings as a transcript writes them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Body, Run};
use crate::change::{Captured, Change, Position, Truncation, Visibility};
use crate::config::{Config, FailurePolicies, FailurePolicy};
use crate::document::{Document, DocumentId, Epoch};
use crate::error::{Fault, FaultKind, RejectedDocument};
use crate::name::{ColumnName, IndexName, StreamId, TableName};
use crate::pipeline::{CallId, Command, Event, Then};
use crate::ports::{
    Built, FailedDocument, FlushReport, IndexMapping, IndexScope, Resolved, SeedState, SnapshotTable,
};
use crate::row::{Key, Row};
use crate::value::Value;

type Parsed<T> = Result<T, String>;

fn number<T: core::str::FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = number(&text[..digits])?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        "m" => Ok(Duration::from_secs(60 * count)),
        _ => Err(format!("`{text}` is no duration: 50ms, 5s, 1m")),
    }
}

pub(super) fn config(config: &mut Config, text: &str) -> Parsed<()> {
    let Config { batch, limits, retry, alarms, failure_policies, .. } = config;
    for setting in text.split_whitespace() {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        match name {
            "max_changes" => batch.max_changes = number(value)?,
            "max_documents" => batch.max_documents = number(value)?,
            "max_bytes" => batch.max_bytes = number(value)?,
            "max_delay" => batch.max_delay = duration(value)?,
            "changes" => limits.changes = number(value)?,
            "documents" => limits.documents = number(value)?,
            "resolves" => limits.resolves = number(value)?,
            "resolve_changes" => limits.resolve_changes = number(value)?,
            "builds" => limits.builds = number(value)?,
            "flushes" => limits.flushes = number(value)?,
            "units" => limits.units = number(value)?,
            "adaptive" => limits.adaptive = true,
            "backfill_rows" => limits.backfill_rows = number(value)?,
            "backfill_share" => limits.backfill_share = number(value)?,
            "delay_min" => retry.delay_min = duration(value)?,
            "delay_max" => retry.delay_max = duration(value)?,
            "attempts" => retry.attempts = number(value)?,
            "attempt_timeout" => retry.attempt_timeout = duration(value)?,
            "unacknowledged_age" => alarms.unacknowledged_age = duration(value)?,
            "lag_bytes" => alarms.lag_bytes = Some(number(value)?),
            "lag_interval" => alarms.lag_interval = duration(value)?,
            "policy" => *failure_policies = FailurePolicies::new(policy(value)?),
            "quarantine" => config.quarantine = true,
            "skip_backfill" => config.skip_backfill = true,
            "cursor_interval" => config.cursor_interval = duration(value)?,
            "grace" => config.grace = duration(value)?,
            _ => match name.strip_prefix("policy.") {
                Some(index) => {
                    *failure_policies = failure_policies.clone().with_override(index, policy(value)?)
                }
                None => return Err(format!("`{name}` is no setting")),
            },
        }
    }
    Ok(())
}

fn policy(text: &str) -> Parsed<FailurePolicy> {
    match text {
        "skip" => Ok(FailurePolicy::Skip),
        "park" => Ok(FailurePolicy::Park),
        "stop" => Ok(FailurePolicy::Stop),
        _ => Err(format!("`{text}` is no policy: skip, stop")),
    }
}

/// What `start` stands for.
#[derive(Debug, Default)]
pub(super) struct Start {
    flushes: usize,
    mappings: Vec<IndexMapping>,
    scopes: Vec<IndexScope>,
    states: Vec<(IndexName, SeedState)>,
    quarantined: Vec<DocumentId>,
}

impl Start {
    /// The answer to a call of the start; `None` for the first one that is not of it.
    pub(super) fn answer(&self, call: CallId, command: &Command<Body>) -> Option<Event<Body>> {
        Some(match command {
            Command::Begin { .. } => Event::Begun { call, result: Ok((Epoch(1), self.flushes.max(1))) },
            Command::Describe { .. } => {
                Event::Described { call, result: Ok((self.mappings.clone(), self.scopes.clone())) }
            }
            Command::LoadQuarantine { .. } => {
                Event::QuarantineLoaded { call, result: Ok(self.quarantined.clone()) }
            }
            Command::Open { .. } => Event::Opened { call, result: StreamId::new("s1").map_err(Fault::fatal) },
            Command::ReadSeed { index, .. } => {
                let state = self.states.iter().find(|(name, _)| name == index)?.1.clone();
                Event::SeedRead { call, result: Ok(state) }
            }
            Command::ReadLag { .. } => Event::LagRead { call, result: Ok(None) },
            Command::Ensure { .. } => Event::Done { call, result: Ok(()) },
            Command::Resolve { .. }
            | Command::Build { .. }
            | Command::Flush { .. }
            | Command::Compare { .. }
            | Command::List { .. }
            | Command::CaughtUp { .. }
            | Command::Quarantine { .. }
            | Command::Release { .. }
            | Command::Ack { .. }
            | Command::Clear { .. }
            | Command::Rebuild { .. }
            | Command::SaveCursor { .. }
            | Command::Scan { .. }
            | Command::MarkSeeded { .. }
            | Command::Park { .. }
            | Command::Abandon { .. }
            | Command::Notify(_)
            | Command::Finish(_) => return None,
        })
    }
}

pub(super) fn start(text: &str) -> Parsed<Start> {
    let mut start = Start::default();
    for word in text.split_whitespace() {
        let (index, value) = word.split_once('=').unwrap_or((word, "seeded"));
        match index {
            "flushes" => start.flushes = number(value)?,
            "quarantined" => start.quarantined = value.split(',').map(document_id).collect::<Parsed<_>>()?,
            _ => {
                let (mapping, scope) = scope(index)?;
                if let Some(scope) = scope {
                    start.states.push((scope.index.clone(), seed_state(value)?));
                    start.scopes.push(scope);
                }
                start.mappings.push(mapping);
            }
        }
    }
    Ok(start)
}

fn seed_state(text: &str) -> Parsed<SeedState> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("unseeded", "") => Ok(SeedState::Unseeded),
        ("start", "") => Ok(SeedState::Seeding(None)),
        ("after", after) => Ok(SeedState::Seeding(Some(key(after)))),
        ("seeded", "") => Ok(SeedState::Seeded),
        ("parked", "") => Ok(SeedState::Parked),
        _ => Err(format!("`{text}` is no seed state: unseeded, start, after:3, seeded, parked")),
    }
}

/// `users`, `books@users` (another root table), `books@users+orders` (built from `orders` too, and from no other table),
/// `logs@-` (no scope), `users#v2` (a definition).
fn scope(text: &str) -> Parsed<(IndexMapping, Option<IndexScope>)> {
    let (text, definition) = text.split_once('#').unwrap_or((text, ""));
    let (index, table) = text.split_once('@').unwrap_or((text, text));
    let index = IndexName::new(index).map_err(|error| error.to_string())?;
    let scope = match table {
        "-" => None,
        table => {
            let mut tables =
                table.split('+').map(|table| TableName::new(table).map_err(|error| error.to_string()));
            let root = tables.next().ok_or("an index has a root table")??;
            let related = tables.collect::<Parsed<Vec<_>>>()?;
            let scope = IndexScope::new(index.clone(), SnapshotTable::new(root)).with_definition(definition);
            Some(if related.is_empty() { scope } else { scope.with_related(related) })
        }
    };
    Ok((IndexMapping::new(index, []), scope))
}

/// One event: as it should read, and what it is.
pub(super) fn event(run: &Run, text: &str) -> Parsed<(String, Event<Body>)> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let verb = verb(&words).ok_or_else(|| format!("`{text}` is no event"))?;
    words.drain(..verb.split(' ').count());
    let given = words.first().and_then(|word| word.strip_prefix('#'));
    let id = match given {
        Some(id) => {
            words.remove(0);
            Some(number::<u64>(id)?)
        }
        None if matches!(verb, "captured" | "capture failed" | "drain" | "reindex" | "verify") => None,
        None => {
            let first = run.open.iter().copied().find(|id| answers(verb, &run.calls[id]));
            Some(first.ok_or_else(|| format!("no call waits for `{verb}`"))?)
        }
    };
    let call = CallId(id.unwrap_or_default() + run.ids);
    let asked = id.and_then(|id| run.calls.get(&id));
    let rest = words.join(" ");
    let mut shown = String::from(verb);
    for part in [id.map(|id| format!("#{id}")).unwrap_or_default(), rest.clone()] {
        if !part.is_empty() {
            shown.push(' ');
            shown.push_str(&part);
        }
    }
    let event = match verb {
        "begun" => {
            let mut answer = (Epoch(1), 1);
            for pair in words.chunks(2) {
                match pair {
                    ["epoch", epoch] => answer.0 = Epoch(number(epoch)?),
                    ["flushes", flushes] => answer.1 = number(flushes)?,
                    other => return Err(format!("`{other:?}` is not `epoch 1` or `flushes 1`")),
                }
            }
            Event::Begun { call, result: Ok(answer) }
        }
        "described" => {
            let described: Vec<_> = words.iter().map(|word| scope(word)).collect::<Parsed<_>>()?;
            let (mappings, scopes): (Vec<_>, Vec<_>) = described.into_iter().unzip();
            Event::Described { call, result: Ok((mappings, scopes.into_iter().flatten().collect())) }
        }
        "quarantine loaded" => Event::QuarantineLoaded { call, result: Ok(document_ids(&words)?) },
        "opened" => {
            Event::Opened { call, result: Ok(StreamId::new(&rest).map_err(|error| error.to_string())?) }
        }
        "captured" => {
            let then = then(&mut words)?;
            Event::Captured { items: words.iter().map(|word| captured(word)).collect::<Parsed<_>>()?, then }
        }
        "capture failed" => Event::CaptureFailed { fault: fault(&rest)? },
        "resolved" => Event::Resolved { call, result: Ok(resolved(&rest, asked)?) },
        "built" => {
            let (answers, bytes) = built(&words, asked)?;
            Event::Built { call, result: Ok(answers), bytes }
        }
        "flushed" => Event::Flushed { call, result: Ok(flushed(&words)?) },
        "compared" => Event::Compared { call, result: Ok(document_ids(&words)?) },
        "listed" => Event::Listed { call, result: Ok(document_ids(&words)?) },
        "seed read" => Event::SeedRead { call, result: Ok(seed_state(&rest)?) },
        "scanned" => {
            let then = then(&mut words)?;
            Event::Scanned { call, keys: words.iter().map(|word| key(word)).collect(), then }
        }
        "scan failed" => Event::ScanFailed { call, fault: fault(&rest)? },
        "lag read" if rest == "unknown" => Event::LagRead { call, result: Ok(None) },
        "lag read" => Event::LagRead { call, result: Ok(Some(number(&rest)?)) },
        "done" => Event::Done { call, result: Ok(()) },
        "failed" => failed(call, asked, fault(&rest)?),
        "drain" => Event::Drain { deadline: run.now.after(duration(&rest)?) },
        "reindex" => Event::Reindex { index: IndexName::new(&rest).map_err(|error| error.to_string())? },
        "verify" => Event::Verify { index: IndexName::new(&rest).map_err(|error| error.to_string())? },
        other => return Err(format!("`{other}` is no event")),
    };
    Ok((shown, event))
}

fn verb(words: &[&str]) -> Option<&'static str> {
    const VERBS: [&str; 22] = [
        "begun",
        "described",
        "quarantine loaded",
        "opened",
        "captured",
        "capture failed",
        "resolved",
        "built",
        "flushed",
        "compared",
        "listed",
        "seed read",
        "scanned",
        "scan failed",
        "lag read",
        "done",
        "failed",
        "drain",
        "reindex",
        "verify",
        "elapsed",
        "timeout",
    ];
    VERBS.into_iter().find(|verb| verb.split(' ').enumerate().all(|(at, word)| words.get(at) == Some(&word)))
}

/// Whether an event of this name can answer the command.
fn answers(verb: &str, command: &Command<Body>) -> bool {
    let fits = match command {
        Command::Begin { .. } => "begun",
        Command::Describe { .. } => "described",
        Command::LoadQuarantine { .. } => "quarantine loaded",
        Command::Open { .. } => "opened",
        Command::Resolve { .. } => "resolved",
        Command::Build { .. } => "built",
        Command::Flush { .. } => "flushed",
        Command::Compare { .. } => "compared",
        Command::List { .. } => "listed",
        Command::ReadSeed { .. } => "seed read",
        Command::Scan { .. } => return matches!(verb, "done" | "scanned" | "scan failed" | "failed"),
        Command::ReadLag { .. } => "lag read",
        Command::Ensure { .. }
        | Command::CaughtUp { .. }
        | Command::Quarantine { .. }
        | Command::Release { .. }
        | Command::Ack { .. }
        | Command::Clear { .. }
        | Command::Rebuild { .. }
        | Command::SaveCursor { .. }
        | Command::MarkSeeded { .. }
        | Command::Park { .. } => "done",
        Command::Abandon { .. } | Command::Notify(_) | Command::Finish(_) => return false,
    };
    verb == fits || verb == "failed"
}

fn failed(call: CallId, asked: Option<&Command<Body>>, fault: Fault) -> Event<Body> {
    match asked {
        Some(Command::Begin { .. }) => Event::Begun { call, result: Err(fault) },
        Some(Command::Describe { .. }) => Event::Described { call, result: Err(fault) },
        Some(Command::LoadQuarantine { .. }) => Event::QuarantineLoaded { call, result: Err(fault) },
        Some(Command::Open { .. }) => Event::Opened { call, result: Err(fault) },
        Some(Command::Resolve { .. }) => Event::Resolved { call, result: Err(fault) },
        Some(Command::Build { .. }) => Event::Built { call, result: Err(fault), bytes: Vec::new() },
        Some(Command::Flush { .. }) => Event::Flushed { call, result: Err(fault) },
        Some(Command::Compare { .. }) => Event::Compared { call, result: Err(fault) },
        Some(Command::List { .. }) => Event::Listed { call, result: Err(fault) },
        Some(Command::ReadSeed { .. }) => Event::SeedRead { call, result: Err(fault) },
        Some(Command::ReadLag { .. }) => Event::LagRead { call, result: Err(fault) },
        Some(
            Command::Ensure { .. }
            | Command::CaughtUp { .. }
            | Command::Quarantine { .. }
            | Command::Release { .. }
            | Command::Ack { .. }
            | Command::Clear { .. }
            | Command::Rebuild { .. }
            | Command::SaveCursor { .. }
            | Command::Scan { .. }
            | Command::MarkSeeded { .. }
            | Command::Park { .. }
            | Command::Abandon { .. }
            | Command::Notify(_)
            | Command::Finish(_),
        )
        | None => Event::Done { call, result: Err(fault) },
    }
}

/// `transient connection reset`.
fn fault(text: &str) -> Parsed<Fault> {
    let (kind, message) = text.split_once(' ').unwrap_or((text, "it failed"));
    let kind = match kind {
        "transient" => FaultKind::Transient,
        "content" => FaultKind::Content,
        "fatal" => FaultKind::Fatal,
        _ => return Err(format!("`{kind}` is no kind of failure: transient, content, fatal")),
    };
    Ok(match message.split_once("; retry after ") {
        Some((message, delay)) => Fault::new(kind, message).with_retry_after(duration(delay)?),
        None => Fault::new(kind, message),
    })
}

fn then(words: &mut Vec<&str>) -> Parsed<Then> {
    match words.pop() {
        Some("more") => Ok(Then::More),
        Some("idle") => Ok(Then::Idle),
        Some("end") => Ok(Then::End),
        _ => Err("it ends with what follows: more, idle, end".into()),
    }
}

fn key(text: &str) -> Key {
    Key::single(value(text))
}

fn value(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
}

fn document_ids(words: &[&str]) -> Parsed<Vec<DocumentId>> {
    words.iter().map(|id| document_id(id)).collect()
}

fn document_id(text: &str) -> Parsed<DocumentId> {
    let (index, id) = text.split_once('/').ok_or_else(|| format!("`{text}` is no document: users/1"))?;
    Ok(DocumentId::new(IndexName::new(index).map_err(|error| error.to_string())?, key(id)))
}

fn captured(word: &str) -> Parsed<Captured> {
    if let Some(position) = word.strip_prefix('@') {
        return Ok(Position(number(position)?).into());
    }
    let (word, token) = word.split_once('~').map_or((word, None), |(word, token)| (word, Some(token)));
    let visibility = token.map(number).transpose()?.map(Visibility);
    let name = |table: &str| TableName::new(table).map_err(|error| error.to_string());
    if let Some(tables) = word.strip_prefix("truncate:") {
        let tables = tables.split(',').map(name).collect::<Parsed<Vec<_>>>()?;
        return Ok(Truncation { tables, visibility }.into());
    }
    let (row, images) = word.strip_suffix('}').and_then(|word| word.split_once('{')).unwrap_or((word, ""));
    let (table, id) =
        row.split_once('/').ok_or_else(|| format!("`{word}` is no change or checkpoint: +users/1, @20"))?;
    let mut change = match (table.strip_prefix('+'), table.strip_prefix('-')) {
        (Some(table), _) => Change::upsert(name(table)?, key(id)),
        (_, Some(table)) => Change::delete(name(table)?, key(id)),
        _ => return Err(format!("`{word}` is neither + nor -")),
    };
    let (before, after) = images.split_once("->").unwrap_or(("", images));
    change.before = image(before)?;
    change.after = image(after)?;
    change.visibility = visibility;
    Ok(change.into())
}

fn image(text: &str) -> Parsed<Option<Row>> {
    if text.is_empty() {
        return Ok(None);
    }
    let column = |text: &str| {
        let (name, of) = text.split_once('=').ok_or_else(|| format!("`{text}` is no column: user=1"))?;
        Ok((ColumnName::new(name).map_err(|error| error.to_string())?, value(of)))
    };
    Ok(Some(text.split(',').map(column).collect::<Parsed<Row>>()?))
}

/// The documents of each change, between commas; without any, of each row the document of the same name.
fn resolved(text: &str, asked: Option<&Command<Body>>) -> Parsed<Resolved> {
    let mut resolved = Resolved::default();
    if let (true, Some(Command::Resolve { changes, .. })) = (text.is_empty(), asked) {
        for change in changes.iter() {
            let index = IndexName::new(change.table.to_string()).map_err(|error| error.to_string())?;
            resolved.push([DocumentId::new(index, change.key.clone())]);
        }
        return Ok(resolved);
    }
    for ids in text.split(',') {
        let ids = ids.split_whitespace().filter(|id| *id != "nothing");
        resolved.push(ids.map(document_id).collect::<Parsed<Vec<_>>>()?);
    }
    Ok(resolved)
}

/// `users/1=body`, `users/1=body*100` (of so many bytes), `-users/2`, `users/3!content:reason`; without any, every
/// document that was asked for, with some body.
fn built(words: &[&str], asked: Option<&Command<Body>>) -> Parsed<(Vec<Built<Body>>, Vec<usize>)> {
    if let ([], Some(Command::Build { ids, .. })) = (words, asked) {
        let answers = ids.iter().map(|id| Ok(Document::upsert(id.clone(), "row".into()))).collect();
        return Ok((answers, alloc::vec![3; ids.len()]));
    }
    let one = |word: &&str| {
        if let Some(id) = word.strip_prefix('-') {
            return Ok((Ok(Document::delete(document_id(id)?)), 0));
        }
        if let Some((id, failure)) = word.split_once('!') {
            let fault = fault(&failure.replacen(':', " ", 1).replace('_', " "))?;
            return Ok((Err(FailedDocument { id: document_id(id)?, fault }), 0));
        }
        let (id, body) =
            word.split_once('=').ok_or_else(|| format!("`{word}` is no answer: users/1=a, -users/1"))?;
        let (body, bytes) = match body.split_once('*') {
            Some((body, bytes)) => (body, number(bytes)?),
            None => (body, body.len()),
        };
        Ok((Ok(Document::upsert(document_id(id)?, body.into())), bytes))
    };
    Ok(words.iter().map(one).collect::<Parsed<Vec<_>>>()?.into_iter().unzip())
}

/// `users/1!too_long` is rejected, `users/2!throttled` is throttled; all others are applied.
fn flushed(words: &[&str]) -> Parsed<FlushReport> {
    let mut report = FlushReport::clean();
    for word in words {
        match word.split_once('!') {
            Some((id, "throttled")) => report.throttled.push(document_id(id)?),
            Some((id, reason)) => {
                report.rejected.push(RejectedDocument::new(&document_id(id)?, reason.replace('_', " ")));
            }
            None => return Err(format!("`{word}` is no verdict: users/1!too_long, users/2!throttled")),
        }
    }
    Ok(report)
}
