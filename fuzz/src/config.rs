//! Any configuration: it is refused with a reason, or a run with it takes a transaction from its capture to its
//! acknowledgement.

use std::collections::VecDeque;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use syncline::pipeline::{Command, Event, Pipeline, Then};
use syncline::ports::Resolved;
use syncline::time::Instant;
use syncline::{
    Captured, Captures, Change, Config, Document, DocumentId, Epoch, FlushReport, IndexName, Lane, Position,
    StreamId, TableName,
};

/// The smallest run takes some ten calls.
const MOST_STEPS: usize = 1000;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(config) = config(&mut Unstructured::new(bytes)) else { return };
    match config.check() {
        Err(error) => {
            assert!(error.to_string().contains('`'), "{error} names no field");
            assert_eq!(Pipeline::<()>::new(config, Instant::ORIGIN).err(), Some(error));
        }
        Ok(()) => finish(config),
    }
}

fn config(bytes: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = Config::default();
    let batch = &mut config.batch;
    for field in [&mut batch.max_changes, &mut batch.max_documents, &mut batch.max_bytes] {
        *field = number(bytes, *field)?;
    }
    let limits = &mut config.limits;
    for field in [
        &mut limits.changes,
        &mut limits.documents,
        &mut limits.resolves,
        &mut limits.resolve_changes,
        &mut limits.builds,
        &mut limits.flushes,
        &mut limits.units,
        &mut limits.backfill_rows,
    ] {
        *field = number(bytes, *field)?;
    }
    for field in [&mut limits.backfill_share, &mut config.retry.attempts] {
        *field = number(bytes, *field as usize)? as u32;
    }
    for field in [
        &mut config.batch.max_delay,
        &mut config.retry.delay_min,
        &mut config.retry.delay_max,
        &mut config.retry.attempt_timeout,
        &mut config.alarms.unacknowledged_age,
        &mut config.alarms.lag_interval,
        &mut config.cursor_interval,
        &mut config.grace,
    ] {
        *field = delay(bytes, *field)?;
    }
    config.retry.seed = bytes.arbitrary()?;
    config.alarms.lag_bytes = bytes.arbitrary()?;
    config.quarantine = bytes.arbitrary()?;
    config.skip_backfill = bytes.arbitrary()?;
    config.limits.adaptive = bytes.arbitrary()?;
    Ok(config)
}

/// The default most of the time, so that a contradiction stands alone.
fn number(bytes: &mut Unstructured<'_>, default: usize) -> Result<usize> {
    Ok(match bytes.int_in_range(0..=7)? {
        0 => bytes.arbitrary()?,
        1 => bytes.arbitrary::<u8>()?.into(),
        2 => 1 << bytes.int_in_range(0..=40)?,
        3 => 1,
        _ => default,
    })
}

fn delay(bytes: &mut Unstructured<'_>, default: Duration) -> Result<Duration> {
    Ok(match bytes.int_in_range(0..=7)? {
        0 => bytes.arbitrary()?,
        1 => Duration::from_nanos(bytes.arbitrary::<u8>()?.into()),
        2 => Duration::MAX,
        3 => Duration::ZERO,
        _ => default,
    })
}

/// A transaction of two changes, and the end of the stream. Every call is answered at once, as it was asked.
fn finish(config: Config) {
    let mut now = Instant::from_millis(1);
    let mut pipeline = Pipeline::new(config, now).expect("it was checked");
    let table = TableName::new("rows").unwrap();
    let changes = [1, 2].map(|key| Captured::from(Change::upsert(table.clone(), key)));
    let mut items = VecDeque::from_iter(changes.into_iter().chain([Position(1).into()]));
    let (mut is_open, mut acknowledged) = (false, None);
    for _ in 0..MOST_STEPS {
        let mut events = Vec::new();
        while let Some(command) = pipeline.poll_command() {
            match &command {
                Command::Finish(outcome) => {
                    let report = outcome.as_ref().expect("nothing failed");
                    assert_eq!(
                        (acknowledged, report.captured, report.unacknowledged),
                        (Some(Position(1)), 2, 0)
                    );
                    return;
                }
                Command::Ack { position, .. } => acknowledged = Some(*position),
                Command::Open { .. } => is_open = true,
                _ => {}
            }
            events.extend(answer(command));
        }
        if events.is_empty() && is_open && pipeline.capacity(Lane::Live) > 0 {
            events.push(capture(&mut items, pipeline.capacity(Lane::Live)));
            is_open = !items.is_empty();
        }
        if events.is_empty() {
            (now, _) = pipeline.poll_timeout().expect("a run that is not over waits for something");
            events.push(Event::Elapsed);
        }
        for event in events {
            pipeline.handle(now, event).expect("a legal driver");
        }
    }
    panic!("not finished: {:?}", pipeline.status());
}

fn capture(items: &mut VecDeque<Captured>, room: usize) -> Event<()> {
    let mut taken = Captures::default();
    while let Some(item) = items.pop_front() {
        if matches!(item, Captured::Change(_)) && taken.counted() == room {
            items.push_front(item);
            break;
        }
        taken.push(item);
    }
    Event::Captured { items: taken, then: if items.is_empty() { Then::End } else { Then::More } }
}

fn answer(command: Command<()>) -> Option<Event<()>> {
    Some(match command {
        Command::Begin { call } => Event::Begun { call, result: Ok((Epoch(1), 1)) },
        Command::Describe { call } => Event::Described { call, result: Ok((Vec::new(), Vec::new())) },
        Command::LoadQuarantine { call } => Event::QuarantineLoaded { call, result: Ok(Vec::new()) },
        Command::Open { call } => Event::Opened { call, result: Ok(StreamId::new("stream").unwrap()) },
        Command::Resolve { call, changes } => {
            let mut resolved = Resolved::default();
            for change in changes.iter() {
                resolved.push([DocumentId::new(IndexName::new("index").unwrap(), change.key.clone())]);
            }
            Event::Resolved { call, result: Ok(resolved) }
        }
        Command::Build { call, ids, .. } => {
            let built = ids.iter().map(|id| Ok(Document::delete(id.clone()))).collect();
            Event::Built { call, result: Ok(built), bytes: vec![1; ids.len()] }
        }
        Command::Flush { call, .. } => Event::Flushed { call, result: Ok(FlushReport::clean()) },
        Command::ReadLag { call } => Event::LagRead { call, result: Ok(None) },
        other => Event::Done { call: other.call()?, result: Ok(()) },
    })
}
