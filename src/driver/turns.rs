//! The loop: one event in, all commands out, then wait for the next event.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;

use crate::change::{Captured, Captures};
use crate::config::Config;
use crate::driver::edges::{Answer, Edges};
use crate::driver::intake::{Burst, Intake};
use crate::driver::observe;
use crate::driver::shared::{Desk, OfIndex, Request, Told};
use crate::error::EngineError;
use crate::pipeline::{CallId, Command, Event, Phase, Pipeline, Refusal, Report};
use crate::ports::{ChangeCapture, DocumentBuilder, Lane, Observer, Sink};
use crate::row::Key;
use crate::time::Instant;

/// After so many turns in a row the task lets others run.
const TURNS_AT_ONCE: u32 = 64;
/// The most changes of a burst. Those of a larger one have left the processor's caches by the time that they are resolved and
/// written.
const BURST_MAX: usize = 512;

/// What woke the loop.
enum Woken<B> {
    Request(Request),
    Answer(Option<Answer<B>>),
    Captured(Burst<Captures>),
    Scanned(CallId, Burst<Vec<Key>>),
    Timeout,
}

/// Runs a pipeline over these edges until it is over.
#[tracing::instrument(name = "run", skip_all)]
pub(super) async fn run<C, D, S>(
    edges: Edges<C, D, S>,
    observer: Arc<dyn Observer>,
    config: Config,
    desk: Desk,
) -> Result<Report, EngineError>
where
    C: ChangeCapture,
    D: DocumentBuilder,
    S: Sink<Body = D::Body>,
{
    let origin = tokio::time::Instant::now();
    let clock = || Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut pipeline = match Pipeline::new(config, clock()) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            let outcome = Err(error.into());
            observe::observe_end(&*observer, &outcome);
            return outcome;
        }
    };
    let mut calls = FuturesUnordered::new();
    let mut aborts: BTreeMap<CallId, AbortHandle> = BTreeMap::new();
    let mut live: Option<Intake<Captured>> = None;
    let mut scan: Option<(CallId, Intake<Key>)> = None;
    // The lane that gave last is asked last. Taking turns at every turn would not do: where each burst of one causes a call
    // that answers at once, the other's turn would always be the answer's.
    let mut scan_first = false;
    let mut turns = 0_u32;
    let mut taken_up: Option<Told> = None;
    loop {
        while let Some(command) = pipeline.poll_command() {
            match &command {
                Command::Notify(notice) => observe::observe(&*observer, notice),
                Command::Finish(outcome) => {
                    let outcome = outcome.clone();
                    desk.publish(pipeline.status());
                    observe::observe_end(&*observer, &outcome);
                    return outcome;
                }
                Command::Abandon { call } => {
                    if let Some(abort) = aborts.remove(call) {
                        abort.abort();
                    }
                    scan = scan.filter(|(open, _)| open != call);
                }
                Command::Open { .. } => live = None,
                _ => {}
            }
            if let Some(call) = command.call() {
                let (abort, registration) = AbortHandle::new_pair();
                aborts.insert(call, abort);
                calls.push(Abortable::new(edges.clone().perform(command), registration));
            }
        }
        desk.publish(pipeline.status());
        // Whoever asked finds it in the status by now, or has gone.
        if let Some(told) = taken_up.take() {
            let _ = told.send(Ok(()));
        }
        turns += 1;
        if turns.is_multiple_of(TURNS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        let room = (pipeline.capacity(Lane::Live), pipeline.capacity(Lane::Backfill));
        let timeout = pipeline.poll_timeout();
        let knows_indexes = pipeline.phase() != Phase::Starting;
        let intake = poll_fn(|cx| {
            let captured = |live: &mut Option<Intake<Captured>>, cx: &mut _| match live {
                Some(live) if room.0 > 0 => live.poll_burst(cx, room.0.min(BURST_MAX)).map(Woken::Captured),
                _ => Poll::Pending,
            };
            let scanned = |scan: &mut Option<(CallId, Intake<Key>)>, cx: &mut _| match scan {
                Some((call, rows)) if room.1 > 0 => {
                    rows.poll_burst(cx, room.1).map(|burst| Woken::Scanned(*call, burst))
                }
                _ => Poll::Pending,
            };
            if scan_first {
                if let Poll::Ready(woken) = scanned(&mut scan, cx) {
                    return Poll::Ready(woken);
                }
                captured(&mut live, cx)
            } else {
                if let Poll::Ready(woken) = captured(&mut live, cx) {
                    return Poll::Ready(woken);
                }
                scanned(&mut scan, cx)
            }
        });
        let woken = tokio::select! {
            biased;
            request = desk.requested(knows_indexes) => Woken::Request(request),
            Some(answer) = calls.next() => Woken::Answer(answer.ok().flatten()),
            woken = intake => {
                scan_first = matches!(woken, Woken::Captured(_));
                woken
            }
            () = sleep_until(origin, timeout.map(|(at, _)| at)) => Woken::Timeout,
        };
        let event = match woken {
            Woken::Request(Request::Drain(until)) => {
                let within = until.saturating_duration_since(tokio::time::Instant::now());
                Event::Drain { deadline: clock().after(within) }
            }
            Woken::Request(Request::Index(what, index, told)) => {
                let refusal = match what {
                    OfIndex::Reindex => pipeline.can_reindex(&index),
                    OfIndex::Verify if !edges.sink.can_verify() => Err(Refusal::NotComparable),
                    OfIndex::Verify => pipeline.can_verify(&index),
                };
                if let Err(refusal) = refusal {
                    let _ = told.send(Err(refusal));
                    continue;
                }
                taken_up = Some(told);
                match what {
                    OfIndex::Reindex => Event::Reindex { index },
                    OfIndex::Verify => Event::Verify { index },
                }
            }
            Woken::Answer(None) => continue,
            Woken::Answer(Some(Answer::Event(event))) => {
                if let Some(call) = event.call() {
                    aborts.remove(&call);
                }
                event
            }
            Woken::Answer(Some(Answer::Opened(call, result))) => {
                aborts.remove(&call);
                let result = result.map(|opened| {
                    live = Some(Intake::new(opened.changes));
                    opened.stream
                });
                Event::Opened { call, result }
            }
            Woken::Answer(Some(Answer::Scan(call, result))) => {
                aborts.remove(&call);
                let result = result.map(|rows| scan = Some((call, Intake::new(rows))));
                Event::Done { call, result }
            }
            Woken::Captured(Ok((items, then))) => Event::Captured { items, then },
            Woken::Captured(Err(fault)) => {
                live = None;
                Event::CaptureFailed { fault }
            }
            Woken::Scanned(call, Ok((keys, then))) => Event::Scanned { call, keys, then },
            Woken::Scanned(call, Err(fault)) => {
                scan = None;
                Event::ScanFailed { call, fault }
            }
            Woken::Timeout => Event::Elapsed,
        };
        pipeline.handle(clock(), event).expect("the driver keeps the pipeline's contract");
    }
}

async fn sleep_until(origin: tokio::time::Instant, at: Option<Instant>) {
    match at.and_then(|at| origin.checked_add(Duration::from_nanos(at.as_nanos()))) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
