//! What all nodes of a run share: the plan, the durable state of the nodes, the points that were come to, the trace.
//!
//! It lives outside of the simulated nodes, so that it survives them: what a crash loses is decided here, by the models of
//! the database and the index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use syncline::{IndexName, Seed};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::conduct::Conduct;
use crate::database::Database;
use crate::gauges::Gauges;
use crate::index::{Index, Settled};
use crate::judge::{Broken, Judge, Standing};
use crate::marks::Mark;
use crate::outcome::{Check, Failure, Outcome};
use crate::plan::{Act, At, Moment, Node, Plan, Point, Span};
use crate::random::mix;
use crate::tables::{Doc, Shape};
use crate::trace::{Entry, Lane, Phase};

/// How long the chaos node is given for what it does to other nodes: the shortest sleep of the simulated runtime.
pub(crate) const CHAOS: Duration = Duration::from_millis(1);

/// Everything that changes.
pub(crate) struct State {
    pub(crate) database: Database,
    pub(crate) index: Index,
    pub(crate) judge: Judge,
    pub(crate) outcome: Outcome,
    pub(crate) gauges: Gauges,
    pub(crate) conduct: Conduct,
    broken: Option<(Broken, u64)>,
    faults: BTreeMap<(Point, Moment, u32), Vec<Act>>,
    passed: BTreeMap<(Point, Moment), u32>,
    /// The faults are over.
    pub(crate) healed: bool,
    /// The run that was alive when they were: it may end yet on what it met before.
    pub(crate) run_at_heal: u64,
    /// Someone looks after what an engine does not mend by itself: indexes that have stopped, or were tampered with.
    pub(crate) tended: bool,
    /// The run that says of itself that it is caught up, and has nothing to do.
    pub(crate) caught_up: Option<u64>,
    /// The run of the engine that is alive, and whether it is.
    pub(crate) run: u64,
    pub(crate) is_running: bool,
    /// How each index is defined, and how it was when the run started.
    pub(crate) definitions: Vec<u32>,
    pub(crate) definitions_of_run: Vec<u32>,
    /// When each run ended.
    pub(crate) ended_at_us: BTreeMap<u64, u64>,
    /// Until when the database, and the index, refuse the engine's credentials.
    refused_until_us: BTreeMap<Node, u64>,
    pub(crate) requests: u64,
    /// Requests that the index has taken and not answered.
    pub(crate) served: usize,
    /// Acts of the chaos node that are not over.
    pub(crate) outstanding: usize,
    /// The indexes that someone asks to be seeded anew.
    pub(crate) reindex: Vec<usize>,
    /// The indexes that someone asks to be compared.
    pub(crate) verify: Vec<usize>,
    /// The deadline of a drain that was asked for.
    pub(crate) drain_within_ms: Option<u64>,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) shape: Shape,
    pub(crate) names: Vec<IndexName>,
    state: Mutex<State>,
    chaos: mpsc::UnboundedSender<Act>,
    /// Something was committed, or the stream was broken.
    pub(crate) streamed: Notify,
    /// A drain was asked for, or that an index is seeded anew.
    pub(crate) asked: Notify,
    /// A promise was broken.
    pub(crate) failed: Notify,
    origin: tokio::time::Instant,
}

impl World {
    /// Errors: a plan that contradicts itself.
    pub(crate) fn new(plan: Plan) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Act>), String> {
        plan.check()?;
        let shape = Shape::new(&plan.schema)?;
        let names = plan.schema.indexes.iter().map(|index| IndexName::new(&index.name));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let mut faults: BTreeMap<_, Vec<Act>> = BTreeMap::new();
        for fault in &plan.faults {
            let at = (fault.at.point, fault.at.moment, fault.at.nth);
            faults.entry(at).or_default().push(fault.act.clone());
        }
        let mut judge = Judge::default();
        let mut state = State {
            database: Database::new(&plan, &shape, &mut judge),
            index: Index::new(names.len(), plan.sink.checks_versions, plan.sink.checks_epochs),
            judge,
            outcome: Outcome::default(),
            gauges: Gauges::default(),
            conduct: Conduct::default(),
            broken: None,
            faults,
            passed: BTreeMap::new(),
            healed: false,
            run_at_heal: 0,
            tended: false,
            caught_up: None,
            run: 0,
            is_running: false,
            definitions: vec![0; names.len()],
            definitions_of_run: vec![0; names.len()],
            ended_at_us: BTreeMap::new(),
            refused_until_us: BTreeMap::new(),
            requests: 0,
            served: 0,
            outstanding: 0,
            reindex: Vec::new(),
            verify: Vec::new(),
            drain_within_ms: None,
        };
        for (mark, holds) in variants(&plan) {
            if holds {
                state.mark(mark);
            }
        }
        let (chaos, acts) = mpsc::unbounded_channel();
        let world = Self {
            plan,
            shape,
            names,
            state: Mutex::new(state),
            chaos,
            streamed: Notify::new(),
            asked: Notify::new(),
            failed: Notify::new(),
            origin: tokio::time::Instant::now(),
        };
        Ok((Arc::new(world), acts))
    }

    /// Looks at the state. Never across an await, and never twice at once.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Something happened.
    pub(crate) fn say(&self, lane: Lane, text: fmt::Arguments<'_>) {
        self.enter(lane, Phase::Moment, 0, text);
    }

    pub(crate) fn enter(&self, lane: Lane, phase: Phase, request: u64, text: fmt::Arguments<'_>) {
        let entry = Entry { at_us: self.now_us(), lane, phase, request, text: text.to_string() };
        self.with(|state| state.outcome.trace.entries.push(entry));
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.with(|state| state.mark(mark));
    }

    /// A promise was broken. The first one counts.
    pub(crate) fn fail(&self, check: Check, what: String) {
        let now_us = self.now_us();
        self.say(Lane::Check, format_args!("BROKEN {check}: {what}"));
        self.with(|state| {
            state.broken.get_or_insert(((check, what), now_us));
        });
        self.failed.notify_one();
    }

    pub(crate) fn judge(&self, verdict: Result<(), Broken>) {
        if let Err((check, what)) = verdict {
            self.fail(check, what);
        }
    }

    /// What the run came to until now.
    pub(crate) fn verdict(&self) -> Result<Outcome, Failure> {
        let simulated_us =
            self.with(|state| state.outcome.trace.entries.last().map_or(0, |entry| entry.at_us));
        self.with(|state| {
            let mut outcome = std::mem::take(&mut state.outcome);
            outcome.simulated_us = simulated_us;
            outcome.requests = state.requests;
            match state.broken.take() {
                None => Ok(outcome),
                Some(((check, what), at_us)) => {
                    Err(Failure { check, what, at_us, outcome: Box::new(outcome) })
                }
            }
        })
    }

    /// The run comes to a point: which time it is, and what the plan has for the request. What it has for nodes is done to
    /// them before this returns; where that ends the caller's own node, it never does.
    pub(crate) async fn pass(&self, point: Point, moment: Moment) -> (u32, Vec<Act>) {
        let (nth, acts, for_nodes) = self.come_to(point, moment);
        if for_nodes {
            sleep(CHAOS).await;
        }
        (nth, acts)
    }

    /// The same at once: whether there is something for nodes, which the caller gives [`CHAOS`] for.
    pub(crate) fn come_to(&self, point: Point, moment: Moment) -> (u32, Vec<Act>, bool) {
        let (nth, acts) = self.with(|state| {
            if state.healed {
                return (0, Vec::new());
            }
            let passed = state.passed.entry((point, moment)).or_default();
            let nth = *passed;
            *passed += 1;
            state.outcome.route.push(At { point, moment, nth });
            let acts = state.faults.remove(&(point, moment, nth));
            for act in acts.iter().flatten() {
                *state.outcome.faults.entry(act.name(moment)).or_default() += 1;
            }
            (nth, acts.unwrap_or_default())
        });
        let (of_request, of_nodes): (Vec<Act>, Vec<Act>) = acts.into_iter().partition(is_of_request);
        let passed_on = !of_nodes.is_empty();
        for act in of_nodes {
            self.with(|state| state.outstanding += 1);
            self.say(Lane::Fault, format_args!("{} at {point:?} {moment:?} {nth}", act.name(moment)));
            let sent = self.chaos.send(act);
            sent.expect("the chaos node lives as long as the world");
        }
        (nth, of_request, passed_on)
    }

    /// A number within a span, which follows from the plan's seed and the place alone.
    pub(crate) fn draw(&self, span: Span, point: Point, nth: u32) -> u64 {
        let salt = mix(self.plan.seed ^ (u64::from(nth) << 8) ^ point as u64);
        span.min + salt % (span.max.saturating_sub(span.min) + 1)
    }

    /// Whether the sender of a request still waits for it.
    pub(crate) fn is_awaited(&self, run: u64, until_us: u64) -> bool {
        let now_us = self.now_us();
        self.with(|state| state.is_running && state.run == run) && now_us < until_us
    }

    /// Whether the sender of a request died while it waited for it.
    pub(crate) fn is_orphaned(&self, run: u64, until_us: u64) -> bool {
        self.with(|state| state.ended_at_us.get(&run).is_some_and(|ended| *ended < until_us))
    }

    pub(crate) fn refuse_credentials(&self, node: Node, until_us: u64) {
        self.with(|state| state.refused_until_us.insert(node, until_us));
    }

    pub(crate) fn refuses_credentials(&self, node: Node) -> bool {
        let now_us = self.now_us();
        self.with(|state| {
            !state.healed && state.refused_until_us.get(&node).is_some_and(|until| now_us < *until)
        })
    }

    /// Writes what became durable into the books.
    pub(crate) fn book(&self, settled: Settled) {
        self.with(|state| {
            state.outcome.writes += settled.writes;
            for (mark, count) in [(Mark::StaleRefused, settled.stale), (Mark::DeadEpochRefused, settled.dead)]
            {
                if count > 0 {
                    state.mark(mark);
                }
            }
            if settled.runs.iter().any(|run| *run != state.run || !state.is_running) {
                state.mark(Mark::LateWrite);
            }
            if settled.writes > 0 {
                state.gauges.flushed_since_confirm = true;
            }
        });
        if settled.writes > 0 {
            self.say(Lane::Index, format_args!("durable{}", settled.landed));
        }
        if let Some((check, what)) = settled.broken {
            self.fail(check, what);
        }
    }

    /// Everything staged before this number becomes durable.
    pub(crate) fn sync(&self, before: u64) {
        let settled = self.with(|state| {
            let State { index, judge, database, .. } = state;
            index.sync(before, judge, |seed| seeded_since(database, seed))
        });
        self.book(settled);
    }

    /// The documents that a commit touched while they were on their way, for the marks.
    pub(crate) fn on_dirtied(&self, docs: &BTreeSet<Doc>) {
        self.with(|state| {
            if docs.iter().any(|doc| state.gauges.is_on_its_way(doc)) {
                state.mark(Mark::DirtiedInFlight);
            }
        });
    }
}

impl State {
    /// The run is over, however it ended.
    pub(crate) fn end_run(&mut self, now_us: u64) {
        if std::mem::take(&mut self.is_running) {
            self.ended_at_us.insert(self.run, now_us);
        }
        self.drain_within_ms = None;
    }

    /// Whether everything that the run was given is durable, but for documents that are excused.
    pub(crate) fn judge_caught_up(&self, is_excused: impl Fn(&Doc) -> bool) -> Result<(), Broken> {
        let (Some(slot), Some(newest)) = (&self.database.slot, self.conduct.newest()) else { return Ok(()) };
        // A position of another slot means something else.
        if self.conduct.stream() != Some(slot.incarnation) {
            return Ok(());
        }
        let is_stream = |seed: &Seed| incarnation_of(seed.stream.as_str()) == Some(slot.incarnation);
        let newest = newest + self.database.base(slot.incarnation);
        let standing = |doc: &Doc| {
            let standing = self.index.standing(doc, is_stream);
            Standing { is_recorded: standing.is_recorded || is_excused(doc), ..standing }
        };
        self.judge.on_caught_up(slot.created_at, newest, standing)
    }

    /// The run met a hard situation. Those that healing brings about are no merit of the plan.
    pub(crate) fn mark(&mut self, mark: Mark) {
        if self.healed && mark != Mark::Released {
            return;
        }
        *self.outcome.marks.entry(mark).or_default() += 1;
    }
}

/// What a plan has of the ways in which worlds differ.
fn variants(plan: &Plan) -> [(Mark, bool); 6] {
    [
        (Mark::WithoutVersions, !plan.sink.checks_versions),
        (Mark::WithoutEpochs, !plan.sink.checks_epochs),
        (Mark::WithoutBefore, !plan.source.before_images),
        (Mark::LaggingReplica, plan.source.replica_lag_us.max > 0),
        (Mark::LossyNetwork, plan.network.lost_ppm > 0),
        (Mark::NoFaults, plan.faults.is_empty() && plan.network.lost_ppm == 0),
    ]
}

/// The position from which on a stream gives everything.
pub(crate) fn seeded_since(database: &Database, seed: &Seed) -> u64 {
    let incarnation = incarnation_of(seed.stream.as_str());
    incarnation.and_then(|at| database.created.get(at as usize - 1)).copied().unwrap_or_default()
}

/// The slot's incarnation in the name of a stream.
pub(crate) fn incarnation_of(stream: &str) -> Option<u64> {
    stream.strip_prefix("slot/")?.parse().ok().filter(|incarnation| *incarnation > 0)
}

fn is_of_request(act: &Act) -> bool {
    match act {
        Act::Fail { .. } | Act::Lose | Act::Hold { .. } | Act::Throttle { .. } | Act::LeaveOut => true,
        Act::Redeliver { .. }
        | Act::BreakStream
        | Act::Kill { .. }
        | Act::Pause { .. }
        | Act::Cut { .. }
        | Act::StallReplica { .. }
        | Act::RefuseCredentials { .. }
        | Act::LosePosition
        | Act::DeleteIndex { .. }
        | Act::Redefine { .. }
        | Act::Reindex { .. }
        | Act::Tamper { .. }
        | Act::Verify { .. }
        | Act::Drain { .. } => false,
    }
}
