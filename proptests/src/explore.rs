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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use syncline::pipeline::{Command, IndexStatus, Timer};
use xxhash_rust::xxh3::Xxh3Default;

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
    /// The transactions that come, in order, at any time.
    pub commits: &'static [Op],
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

/// States that are stepped from at a time, before what they lead to is sorted into what is known.
const AT_A_TIME: usize = 1024;

/// A state that was reached: from where, and by which step.
struct Reached {
    from: usize,
    op: Op,
    depth: usize,
    /// In a search that proves the view: what follows from the state.
    follows: Digest,
}

/// A state that is still to be stepped from.
struct Waiting {
    number: usize,
    drive: Drive,
    left: Left,
}

/// One step from a state.
struct Step {
    op: Op,
    left: Left,
    is_healthy: bool,
    /// What it led to, or how a check failed.
    outcome: thread::Result<Led>,
}

/// What a step led to.
struct Led {
    view: Digest,
    follows: Digest,
    met: BTreeSet<&'static str>,
    /// The state; nothing where it was known before.
    drive: Option<Drive>,
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

    /// Walks every interleaving. Panics where a check fails, with the shortest path to it, as Rust. It steps on as many
    /// threads as there are cores; what it finds, and in which order, does not depend on that.
    pub fn run(self) -> Explored {
        let world = self.world;
        let left = Left {
            commits: world.commits.len(),
            transient: world.transient,
            permanent: world.permanent,
            crashes: world.crashes,
            drains: world.drains,
        };
        let mut first = Drive::new(world.setup);
        let mut walk = Walk::new(world);
        walk.explored.met.extend(first.take_marks());
        walk.known.insert(view(&first, left), 0);
        let follows = self.follows(&first, left);
        walk.reached.push(Reached { from: 0, op: Op::Crash, depth: 0, follows });
        walk.frontier.push_back(Waiting { number: 0, drive: first, left });
        while !walk.frontier.is_empty() {
            let several = walk.frontier.len().min(AT_A_TIME);
            let several: Vec<Waiting> = walk.frontier.drain(..several).collect();
            let known = &walk.known;
            let steps = in_parallel(&several, |from| self.steps(from, known));
            for (from, steps) in several.iter().zip(steps) {
                walk.take(from, steps);
            }
        }
        walk.finish()
    }

    /// Everything that can happen next in a state.
    fn steps(&self, from: &Waiting, known: &BTreeMap<Digest, usize>) -> Vec<Step> {
        let step = |(op, left, is_healthy)| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let mut drive = from.drive.clone();
                drive.step(op);
                let met = drive.take_marks();
                let view = view(&drive, left);
                let follows = self.follows(&drive, left);
                let drive = (!known.contains_key(&view)).then_some(drive);
                Led { view, follows, met, drive }
            }));
            Step { op, left, is_healthy, outcome }
        };
        choices(&self.world, &from.drive, from.left).into_iter().map(step).collect()
    }

    /// What follows from a state: for every step what is told, and the view it leads to.
    fn follows(&self, drive: &Drive, left: Left) -> Digest {
        if !self.proves {
            return 0;
        }
        let mut follows = Digesting::default();
        for (op, then, _) in choices(&self.world, drive, left) {
            let mut next = drive.clone();
            next.step(op);
            let view = view(&next, then);
            let _ = writeln!(follows, "{op:?} {} {view}", next.told());
        }
        follows.digest()
    }
}

/// What is known of a world while it is walked.
struct Walk {
    world: World,
    explored: Explored,
    reached: Vec<Reached>,
    known: BTreeMap<Digest, usize>,
    /// The steps in which nothing fails.
    healthy: Vec<(u32, u32)>,
    frontier: VecDeque<Waiting>,
}

impl Walk {
    fn new(world: World) -> Self {
        Self {
            world,
            explored: Explored::default(),
            reached: Vec::new(),
            known: BTreeMap::new(),
            healthy: Vec::new(),
            frontier: VecDeque::new(),
        }
    }

    /// Takes what the steps from a state led to.
    fn take(&mut self, from: &Waiting, steps: Vec<Step>) {
        let at = from.number;
        let mut ends = true;
        for Step { op, left, is_healthy, outcome } in steps {
            let Led { view, follows, met, drive } = outcome.unwrap_or_else(|panic| {
                self.report(at, Some(op));
                resume_unwind(panic)
            });
            self.explored.met.extend(met);
            self.explored.steps += 1;
            let number = self.known.len();
            let to = *self.known.entry(view).or_insert(number);
            if to < number {
                if follows != self.reached[to].follows {
                    self.report(at, Some(op));
                    self.report(to, None);
                    panic!("these two paths lead to equal views that do not behave alike");
                }
            } else {
                let depth = self.reached[at].depth + 1;
                self.explored.depth = depth;
                self.reached.push(Reached { from: at, op, depth, follows });
                let drive = drive.expect("a state that nobody knew is kept");
                self.frontier.push_back(Waiting { number, drive, left });
            }
            // A state whose every step leads back to it goes on for ever, and nowhere.
            if is_healthy && to != at {
                ends = false;
                self.healthy.push((at as u32, to as u32));
            }
        }
        if ends {
            self.end(from);
        }
    }

    /// Nothing but failures leads on: all must be done.
    fn end(&mut self, from: &Waiting) {
        self.explored.ends += 1;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            assert!(from.drive.is_settled(), "stuck:\n{}", from.drive.canonical());
            check::converged(&from.drive.model);
        }));
        if let Err(panic) = ended {
            self.report(from.number, None);
            resume_unwind(panic);
        }
    }

    fn finish(mut self) -> Explored {
        self.explored.states = self.known.len();
        let finite = is_finite(self.explored.states, &self.healthy);
        assert!(finite, "{}: a path without failures turns back", self.world.name);
        crate::random::demand(&self.explored.met, self.world.demands);
        self.explored
    }

    /// The path to a state, as Rust.
    #[allow(clippy::print_stderr, reason = "a path is what one looks for in the output of a failed test")]
    fn report(&self, mut at: usize, last: Option<Op>) {
        let mut ops: Vec<Op> = last.into_iter().collect();
        while at != 0 {
            ops.push(self.reached[at].op);
            at = self.reached[at].from;
        }
        ops.reverse();
        eprintln!("{}: the path, as Rust:\n({:?}, {ops:?})", self.world.name, self.world.setup);
    }
}

/// The same of every item, on all cores, in their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let each = &each;
        let parts = items.chunks(items.len().div_ceil(cores));
        let parts = parts.map(|part| scope.spawn(move || part.iter().map(each).collect::<Vec<R>>()));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("a panic of a step is caught")).collect()
    })
}

/// A state in its canonical view.
fn view(drive: &Drive, left: Left) -> Digest {
    let mut text = Digesting::default();
    let _ = drive.write_canonical(&mut text);
    let _ = write!(text, "{left:?}");
    text.digest()
}

/// Text that is hashed as it is written. At 128 bits two different texts of some millions never have the same digest.
#[derive(Default)]
struct Digesting(Xxh3Default);

impl Digesting {
    fn digest(&self) -> Digest {
        self.0.digest128()
    }
}

impl Write for Digesting {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
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
        let commit = world.commits[world.commits.len() - left.commits];
        choices.push((commit, Left { commits: left.commits - 1, ..left }, true));
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
    for (at, index) in drive.model.indexes.iter().enumerate() {
        let is_parked = |status: &&IndexStatus| status.index == *index && status.parked;
        if drive.status().indexes.iter().any(|status| is_parked(&status)) && !drive.is_ending() {
            choices.push((Op::Reindex(at as u8), left, true));
        }
        if drive.model.tampered.contains(index) && drive.can_verify(index) {
            choices.push((Op::Verify(at as u8), left, true));
        }
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
        | Command::Rebuild { .. }
        | Command::SaveCursor { .. }
        | Command::Park { .. }
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
        Command::Compare { .. } => 0,
        _ => return answers,
    };
    answers.push(Answer::Failed(Kind::Content, Effect::Nothing));
    answers.extend(each(documents));
    answers
}
