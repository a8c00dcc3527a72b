//! How many calls of one kind may be under way at once: so many, or as many as is found to be of use.
//!
//! Where [`Limits::adaptive`](crate::config::Limits::adaptive) is set, the number begins at one. Calls are counted in rounds, of as many
//! as there may be at once. After a round in which all places were taken, and which took no longer than others before it, there
//! may be one more. When the other side is overloaded (it throttles documents, a call fails for the moment, or is not answered in
//! time) half as many remain, and three in four after a round that took more than twice as long as the fastest one: what is
//! under way then only waits there instead of here. What was made before that says nothing about the new number. Where calls
//! take longer for another reason, the number falls to one, and what is fast is learned anew.
//!
//! Additive increase and multiplicative decrease is Chiu and Jain's (1989), and TCP's; with latencies in place of losses it is
//! TCP Vegas's. That it is of use before a sink is known from Netflix's `concurrency-limits` and Vector's adaptive request
//! concurrency.

use core::time::Duration;

use crate::error::{Fault, FaultKind};
use crate::pipeline::calls::{Call, Purpose};
use crate::pipeline::{Event, Pipeline};
use crate::time::Instant;

/// A round that is slower by less than this is as fast as the others: a machine that others use stands still for as long.
const NOISE: Duration = Duration::from_millis(5);

/// How many calls of one kind may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Limit {
    most: usize,
    now: usize,
    adapts: bool,
    round: Round,
    /// How long a call took in the fastest round. It follows slower ones where calls are made one after the other, so that
    /// none of them waits for another.
    fastest: Option<Duration>,
    /// What was made before this says nothing any more.
    since: Instant,
}

/// What is known of the round that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Round {
    answered: u32,
    took: Duration,
    /// Whether all places were taken at some time.
    full: bool,
}

impl Limit {
    /// At the most so many; from the start, or where it `adapts`, one after the other.
    pub(super) fn new(most: usize, adapts: bool) -> Self {
        let now = if adapts { 1 } else { most };
        Self { most, now, adapts, round: Round::default(), fastest: None, since: Instant::ORIGIN }
    }

    /// How many calls may be under way at once.
    pub(super) fn at_once(&self) -> usize {
        self.now
    }

    /// How many may be at the most, whatever is found.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// What the number follows from, but for when it was cut; nothing where it is fixed.
    pub(super) fn found(&self) -> Option<impl core::fmt::Debug> {
        self.adapts.then_some((&self.round, self.fastest))
    }

    /// Whether a call was `made` before the number was cut.
    pub(super) fn is_of_before(&self, made: Instant) -> bool {
        made < self.since
    }

    /// A call was answered, `made` then, while so many were `under_way`, itself included.
    pub(super) fn answered(&mut self, made: Instant, at: Instant, under_way: usize) {
        if !self.adapts || self.is_of_before(made) {
            return;
        }
        self.round.answered += 1;
        self.round.took += at.since(made);
        self.round.full |= under_way >= self.now;
        if (self.round.answered as usize) < self.now {
            return;
        }
        let Round { answered, took, full } = core::mem::take(&mut self.round);
        let mean = took / answered;
        let fastest = self.fastest.unwrap_or(mean);
        self.fastest = Some(match self.now {
            1 if mean > fastest => (mean + fastest) / 2,
            _ => mean.min(fastest),
        });
        if mean > fastest * 2 && mean > fastest + NOISE {
            self.cut(self.now - self.now.div_ceil(4), at);
        } else if full && self.now < self.most {
            self.now += 1;
        }
    }

    /// A call, `made` then, was not served because there were too many, or for a reason that may be that.
    pub(super) fn overloaded(&mut self, made: Instant, at: Instant) {
        if self.adapts && !self.is_of_before(made) {
            self.cut(self.now / 2, at);
        }
    }

    fn cut(&mut self, to: usize, at: Instant) {
        self.now = to.max(1);
        self.round = Round::default();
        self.since = at;
    }
}

/// What an answer says about how many calls there are.
enum Said {
    /// It was served, in good time or not.
    Served,
    /// There may be too many.
    Overloaded,
}

fn of_failure(fault: &Fault) -> Option<Said> {
    match fault.kind() {
        FaultKind::Transient => Some(Said::Overloaded),
        // It says something of the documents, or ends the run.
        FaultKind::Content | FaultKind::Fatal => None,
    }
}

impl<B> Pipeline<B> {
    /// A call is answered, and still counted: where it is a build or a flush, that tells how many of them are of use.
    pub(super) fn learn(&mut self, event: &Event<B>, call: Call) {
        let said = if let Event::Built { result, .. } = event {
            result.as_ref().map_or_else(of_failure, |_| Some(Said::Served))
        } else if let Event::Flushed { result, .. } = event {
            let of_report = |throttles: bool| if throttles { Said::Overloaded } else { Said::Served };
            result.as_ref().map_or_else(of_failure, |report| Some(of_report(!report.throttled.is_empty())))
        } else {
            None
        };
        let under_way = self.under_way_beside(call);
        let now = self.now;
        if let (Some(said), Some(limit)) = (said, self.limit_of(call)) {
            match said {
                Said::Served => limit.answered(call.made, now, under_way),
                Said::Overloaded => limit.overloaded(call.made, now),
            }
        }
    }

    /// A call was not answered in time.
    pub(super) fn learn_overload(&mut self, call: Call) {
        let now = self.now;
        if let Some(limit) = self.limit_of(call) {
            limit.overloaded(call.made, now);
        }
    }

    fn limit_of(&mut self, call: Call) -> Option<&mut Limit> {
        if matches!(call.purpose, Purpose::Build(_)) {
            Some(&mut self.build_limit)
        } else if matches!(call.purpose, Purpose::Flush(_)) {
            Some(&mut self.flush_limit)
        } else {
            None
        }
    }

    /// How many calls of the same kind are under way, this one included.
    fn under_way_beside(&self, call: Call) -> usize {
        self.calls.under_way(|purpose| purpose.stage() == call.purpose.stage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::ORIGIN.after(Duration::from_millis(millis))
    }

    /// Calls that are made one round after the other, each of which takes as long as this says of how many there are.
    fn rounds(limit: &mut Limit, from: u64, count: usize, takes: impl Fn(usize) -> u64) -> u64 {
        let mut at = from;
        for _ in 0..count {
            let (made, together) = (at, limit.at_once());
            at += takes(together);
            (0..together).for_each(|_| limit.answered(ms(made), ms(at), together));
        }
        at
    }

    #[test]
    fn a_fixed_limit_stays() {
        let mut limit = Limit::new(4, false);
        limit.overloaded(ms(0), ms(1));
        rounds(&mut limit, 1, 9, |_| 50);
        assert_eq!((limit.at_once(), limit.most()), (4, 4));
    }

    #[test]
    fn it_grows_by_one_a_round_to_the_most() {
        let mut limit = Limit::new(4, true);
        assert_eq!(limit.at_once(), 1);
        let at = rounds(&mut limit, 0, 2, |_| 20);
        assert_eq!(limit.at_once(), 3);
        rounds(&mut limit, at, 9, |_| 20);
        assert_eq!(limit.at_once(), 4);
    }

    #[test]
    fn it_does_not_grow_while_places_are_free() {
        let mut limit = Limit::new(4, true);
        let at = rounds(&mut limit, 0, 1, |_| 20);
        for _ in 0..20 {
            limit.answered(ms(at), ms(at + 20), 1);
        }
        assert_eq!(limit.at_once(), 2);
    }

    #[test]
    fn it_is_halved_once_for_all_that_was_under_way() {
        let mut limit = Limit::new(8, true);
        let at = rounds(&mut limit, 0, 20, |_| 20);
        assert_eq!(limit.at_once(), 8);
        for _ in 0..8 {
            limit.overloaded(ms(at), ms(at + 3));
        }
        assert_eq!(limit.at_once(), 4);
        // Nor does what was made before tell of the new number.
        (0..8).for_each(|_| limit.answered(ms(at), ms(at + 20), 8));
        assert_eq!(limit.at_once(), 4);
        for (later, expected) in [(20, 2), (21, 1), (22, 1)] {
            limit.overloaded(ms(at + later), ms(at + later));
            assert_eq!(limit.at_once(), expected);
        }
    }

    /// A server that serves two at a time, the others wait there: it keeps near the number that is of use.
    #[test]
    fn it_is_cut_where_more_only_take_longer() {
        let mut limit = Limit::new(64, true);
        let takes = |together: usize| 20 * together.div_ceil(2) as u64;
        let (mut at, mut most, mut least) = (0, 0, usize::MAX);
        for round in 0..400 {
            at = rounds(&mut limit, at, 1, takes);
            if round > 20 {
                (most, least) = (most.max(limit.at_once()), least.min(limit.at_once()));
            }
        }
        assert!(most <= 5 && least >= 2, "between {least} and {most}");
    }

    /// The first calls were of small units, and those that follow are of full ones.
    #[test]
    fn it_gets_used_to_calls_that_take_longer() {
        let mut limit = Limit::new(4, true);
        let at = rounds(&mut limit, 0, 1, |_| 1);
        rounds(&mut limit, at, 20, |_| 40);
        assert_eq!(limit.at_once(), 4);
    }

    #[test]
    fn what_takes_a_moment_longer_is_as_fast() {
        let mut limit = Limit::new(4, true);
        let at = rounds(&mut limit, 0, 1, |_| 1);
        rounds(&mut limit, at, 3, |_| 4);
        assert_eq!(limit.at_once(), 4);
    }
}
