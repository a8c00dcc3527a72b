//! Every interleaving of a small world, breadth first, over the canonical view of the real pipeline and its world.
//!
//! Always: every check after every step. In the end: every path on which no more fails ends, and ends converged. That is
//! proved on the whole graph: without its failures it has no cycle (but steps that change nothing), so each path in it is
//! finite; and where a path ends, the sink is what the rows say. Sometimes: the marks that a world demands.
//!
//! A general checker (stateright) was the alternative. Here a failing path is a list of [`Op`]s that any other suite replays
//! and that can be pasted into a test; convergence is decided on the graph, where a checker that follows single paths
//! misses those that join or turn back; and the claim that equal views behave alike is itself checked (see
//! [`Search::proving`]).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use syncline::pipeline::{Command, Timer};

use crate::check;
use crate::drive::Drive;
use crate::op::{Answer, Effect, Kind, Op};
use crate::setup::Setup;

/// A world, and how much may go wrong in it.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub setup: Setup,
    /// The transactions that come, in order, at any time: rows, and those of them that are deleted.
    pub commits: &'static [(u8, u8)],
    /// How many calls, captures or snapshots may fail for the moment.
    pub transient: u8,
    /// How many may be refused, or fail for good.
    pub permanent: u8,
    /// How often the run may die.
    pub crashes: u8,
    /// How often it may be drained.
    pub drains: u8,
    /// What some path must meet.
    pub demands: &'static [&'static str],
}

/// What is left of what may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    commits: usize,
    transient: u8,
    permanent: u8,
    crashes: u8,
    drains: u8,
}

/// What an exploration found.
#[derive(Debug, Clone, Default)]
pub struct Explored {
    /// Unique states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The length of the longest of the shortest paths.
    pub depth: usize,
    /// States in which nothing is left to do.
    pub ends: usize,
    /// What some path met.
    pub met: BTreeSet<&'static str>,
}

type Digest = u128;

/// A state that was reached: from where, and by which step.
struct Reached {
    from: usize,
    op: Op,
    depth: usize,
    /// In a search that proves the view: what follows from the state.
    follows: Digest,
}

/// A search of a world.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    world: World,
    proves: bool,
}

impl Search {
    /// Explores this world.
    pub fn new(world: World) -> Self {
        Self { world, proves: false }
    }

    /// Checks too that equal views behave alike: whenever a state is reached again by another way, the same steps must
    /// lead from it to the same views and tell the same. As that is checked of every pair that meets, it holds for all
    /// that follows.
    pub fn proving(self) -> Self {
        Self { proves: true, ..self }
    }

    /// Walks every interleaving. Panics where a check fails, with the shortest path to it, as Rust.
    pub fn run(self) -> Explored {
        let world = self.world;
        let left = Left {
            commits: world.commits.len(),
            transient: world.transient,
            permanent: world.permanent,
            crashes: world.crashes,
            drains: world.drains,
        };
        let mut explored = Explored::default();
        let mut reached: Vec<Reached> = Vec::new();
        let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut healthy: Vec<(u32, u32)> = Vec::new();
        let mut frontier = VecDeque::new();
        let mut first = Drive::new(world.setup);
        explored.met.extend(first.take_marks());
        known.insert(view(&first, left), 0);
        let follows = self.follows(&first, left);
        reached.push(Reached { from: 0, op: Op::Crash, depth: 0, follows });
        frontier.push_back((0, first, left));
        while let Some((at, drive, left)) = frontier.pop_front() {
            let mut ends = true;
            for (op, then, is_healthy) in choices(&world, &drive, left) {
                ends &= !is_healthy;
                let mut next = drive.clone();
                let stepped = catch_unwind(AssertUnwindSafe(|| next.step(op)));
                if let Err(panic) = stepped {
                    report(&world, &reached, at, Some(op));
                    resume_unwind(panic);
                }
                explored.met.extend(next.take_marks());
                explored.steps += 1;
                let digest = view(&next, then);
                let number = known.len();
                let to = *known.entry(digest).or_insert(number);
                let follows = self.follows(&next, then);
                if to < number {
                    if follows != reached[to].follows {
                        report(&world, &reached, at, Some(op));
                        report(&world, &reached, to, None);
                        panic!("these two paths lead to equal views that do not behave alike");
                    }
                } else {
                    let depth = reached[at].depth + 1;
                    explored.depth = depth;
                    reached.push(Reached { from: at, op, depth, follows });
                    frontier.push_back((to, next, then));
                }
                if is_healthy && to != at {
                    healthy.push((at as u32, to as u32));
                }
            }
            if ends {
                explored.ends += 1;
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    assert!(drive.is_settled(), "stuck:\n{}", drive.canonical());
                    check::converged(&drive.model);
                }));
                if let Err(panic) = ended {
                    report(&world, &reached, at, None);
                    resume_unwind(panic);
                }
            }
        }
        explored.states = known.len();
        assert!(is_finite(explored.states, &healthy), "{}: a path without failures turns back", world.name);
        crate::random::demand(&explored.met, world.demands);
        explored
    }

    /// What follows from a state: for every step what is told, and the view it leads to.
    fn follows(&self, drive: &Drive, left: Left) -> Digest {
        if !self.proves {
            return 0;
        }
        let mut text = String::new();
        for (op, then, _) in choices(&self.world, drive, left) {
            let mut next = drive.clone();
            next.step(op);
            text += &format!("{op:?} {} {}\n", next.told(), view(&next, then));
        }
        digest(&text)
    }
}

fn view(drive: &Drive, left: Left) -> Digest {
    digest(&format!("{}{left:?}", drive.canonical()))
}

fn digest(text: &str) -> Digest {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// The path to a state, as Rust.
#[allow(clippy::print_stderr, reason = "a path is what one looks for in the output of a failed test")]
fn report(world: &World, reached: &[Reached], mut at: usize, last: Option<Op>) {
    let mut ops: Vec<Op> = last.into_iter().collect();
    while at != 0 {
        ops.push(reached[at].op);
        at = reached[at].from;
    }
    ops.reverse();
    eprintln!("{}: the path, as Rust:\n({:?}, {ops:?})", world.name, world.setup);
}

/// Whether there is no cycle: everything can be taken away, each state after all that lead to it.
fn is_finite(states: usize, steps: &[(u32, u32)]) -> bool {
    let mut into = vec![0_u32; states];
    let mut from: Vec<Vec<u32>> = vec![Vec::new(); states];
    for (a, b) in steps {
        into[*b as usize] += 1;
        from[*a as usize].push(*b);
    }
    let mut free: Vec<u32> = (0..states as u32).filter(|state| into[*state as usize] == 0).collect();
    let mut taken = 0;
    while let Some(state) = free.pop() {
        taken += 1;
        for to in &from[state as usize] {
            into[*to as usize] -= 1;
            if into[*to as usize] == 0 {
                free.push(*to);
            }
        }
    }
    taken == states
}

/// Everything that can happen next, what is left then, and whether it is healthy: neither a failure nor the end of a run.
fn choices(world: &World, drive: &Drive, left: Left) -> Vec<(Op, Left, bool)> {
    // Nothing follows from the lag of this world, so its answer comes at once.
    let lag = drive.open().iter().position(|open| matches!(open, Command::ReadLag { .. }));
    if let Some(at) = lag {
        return vec![(Op::Answer(at as u8, Answer::Done), left, true)];
    }
    let mut choices = Vec::new();
    if left.commits > 0 {
        let (rows, removed) = world.commits[world.commits.len() - left.commits];
        choices.push((Op::Commit(rows, removed), Left { commits: left.commits - 1, ..left }, true));
    }
    for at in 0..drive.model.late.len() {
        choices.push((Op::Land(at as u8), left, true));
    }
    if drive.finished().is_some() {
        choices.push((Op::Crash, left, true));
        return choices;
    }
    if left.crashes > 0 {
        choices.push((Op::Crash, Left { crashes: left.crashes - 1, ..left }, false));
    }
    let transient = left.transient.checked_sub(1).map(|transient| Left { transient, ..left });
    let permanent = left.permanent.checked_sub(1).map(|permanent| Left { permanent, ..left });
    for (at, open) in drive.open().iter().enumerate() {
        let at = at as u8;
        choices.push((Op::Answer(at, Answer::Done), left, true));
        if let Some(then) = transient {
            let failures = transient_failures(open).into_iter();
            choices.extend(failures.map(|how| (Op::Answer(at, how), then, false)));
        }
        if let Some(then) = permanent {
            let failures = permanent_failures(open).into_iter();
            choices.extend(failures.map(|how| (Op::Answer(at, how), then, false)));
        }
    }
    if drive.is_capturing() && !drive.is_ending() {
        if drive.ready() > 0 || !drive.told_idle() {
            choices.push((Op::Capture(u8::MAX), left, true));
        }
        if drive.ready() > 1 {
            choices.push((Op::Capture(1), left, true));
        }
        choices.extend(transient.map(|then| (Op::FailCapture(Kind::Transient), then, false)));
    }
    if let Some(snapshot) = drive.snapshot() {
        choices.push((Op::Scan(u8::MAX), left, true));
        if snapshot.keys.len() > 1 {
            choices.push((Op::Scan(1), left, true));
        }
        choices.extend(transient.map(|then| (Op::FailScan(Kind::Transient), then, false)));
    }
    match drive.timer() {
        Some((_, Timer::Attempt(_))) => {
            choices.extend(transient.map(|then| (Op::Deadline, then, false)));
        }
        Some(_) => choices.push((Op::Deadline, left, true)),
        None => {}
    }
    if left.drains > 0 && !drive.is_ending() {
        choices.push((Op::Drain(100), Left { drains: left.drains - 1, ..left }, false));
    }
    choices
}

fn transient_failures(open: &Command<crate::model::State>) -> Vec<Answer> {
    let failed = |effect| Answer::Failed(Kind::Transient, effect);
    let each = |count: usize| (0..count.min(8)).map(|at| Answer::Partly(Kind::Transient, 1 << at));
    let mut answers = vec![failed(Effect::Nothing)];
    match open {
        Command::Build { ids, .. } => answers.extend(each(ids.len())),
        Command::Flush { writes, .. } => {
            answers.extend([failed(Effect::All), failed(Effect::Late)]);
            answers.extend((writes.len() > 1).then_some(failed(Effect::Half)));
            answers.extend(each(writes.len()));
        }
        Command::Release { .. } => answers.extend([failed(Effect::All), failed(Effect::Late)]),
        Command::Ack { .. }
        | Command::Quarantine { .. }
        | Command::Clear { .. }
        | Command::SaveCursor { .. }
        | Command::MarkSeeded { .. } => answers.push(failed(Effect::All)),
        _ => {}
    }
    answers
}

fn permanent_failures(open: &Command<crate::model::State>) -> Vec<Answer> {
    let each = |count: usize| (0..count.min(8)).map(|at| Answer::Partly(Kind::Content, 1 << at));
    let mut answers = vec![Answer::Failed(Kind::Fatal, Effect::Nothing)];
    let documents = match open {
        Command::Build { ids, .. } => ids.len(),
        Command::Flush { writes, .. } => {
            answers.push(Answer::Failed(Kind::Fatal, Effect::All));
            writes.len()
        }
        _ => return answers,
    };
    answers.push(Answer::Failed(Kind::Content, Effect::Nothing));
    answers.extend(each(documents));
    answers
}
