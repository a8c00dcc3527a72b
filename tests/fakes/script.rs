//! What a port does instead of answering at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncline::Fault;

use super::lock;

/// What one call does.
#[derive(Debug, Clone)]
pub enum Act {
    /// What it was asked.
    Well,
    /// Nothing, and fails.
    Fail(Fault),
    /// What it was asked, and fails all the same.
    FailAfter(Fault),
    /// Nothing, and never answers.
    Hang,
    /// What it was asked, after this long.
    Late(Duration),
    /// Never answers, and what was asked happens after this long, whatever became of the call. A flush alone can do it.
    Land(Duration),
    /// Panics.
    Panic,
}

#[derive(Default)]
struct State {
    acts: BTreeMap<&'static str, VecDeque<Act>>,
    /// What calls do for which there is no act left.
    always: BTreeMap<&'static str, Act>,
    /// Every call gives way once before it answers.
    gives_way: bool,
    /// Calls that hang, and that nobody has dropped.
    hanging: usize,
}

/// A call that hangs until it is dropped.
struct Hanging(Script);

impl Drop for Hanging {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        state.hanging = state.hanging.saturating_sub(1);
    }
}

/// The acts of a port, by the names of its calls.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<State>>);

impl Script {
    /// The next call of this name does this.
    pub fn next(&self, call: &'static str, act: Act) {
        self.times(1, call, act);
    }

    /// The next so many calls of this name do this.
    pub fn times(&self, times: usize, call: &'static str, act: Act) {
        lock(&self.0).acts.entry(call).or_default().extend(std::iter::repeat_n(act, times));
    }

    /// Every call of this name does this, once its acts are used up.
    pub fn always(&self, call: &'static str, act: Act) {
        lock(&self.0).always.insert(call, act);
    }

    /// Every call gives way once before it answers.
    pub fn give_way(&self) {
        lock(&self.0).gives_way = true;
    }

    /// Every call does what it was asked, from now on.
    pub fn forget(&self) {
        *lock(&self.0) = State::default();
    }

    /// How many scripted acts of this name are left.
    pub fn left(&self, call: &'static str) -> usize {
        lock(&self.0).acts.get(call).map_or(0, VecDeque::len)
    }

    /// How many calls hang that nobody has dropped.
    pub fn hanging(&self) -> usize {
        lock(&self.0).hanging
    }

    pub fn take(&self, call: &'static str) -> Act {
        let mut state = lock(&self.0);
        let next = state.acts.get_mut(call).and_then(VecDeque::pop_front);
        next.or_else(|| state.always.get(call).cloned()).unwrap_or(Act::Well)
    }

    /// Plays a call up to where it does what it was asked. The answer is the fault to end with, where there is one.
    pub async fn play(&self, call: &'static str) -> Result<Option<Fault>, Fault> {
        let act = self.take(call);
        self.play_act(act).await
    }

    pub async fn play_act(&self, act: Act) -> Result<Option<Fault>, Fault> {
        if lock(&self.0).gives_way {
            tokio::task::yield_now().await;
        }
        match act {
            Act::Well => Ok(None),
            Act::Fail(fault) => Err(fault),
            Act::FailAfter(fault) => Ok(Some(fault)),
            Act::Hang | Act::Land(_) => {
                lock(&self.0).hanging += 1;
                let _dropped = Hanging(self.clone());
                std::future::pending().await
            }
            Act::Late(delay) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            #[expect(clippy::panic, reason = "a port that panics is what is tested")]
            Act::Panic => panic!("a port panicked"),
        }
    }
}

/// The end of a call that has done what it was asked.
pub fn end<T>(answer: T, fault: Option<Fault>) -> Result<T, Fault> {
    fault.map_or(Ok(answer), Err)
}
