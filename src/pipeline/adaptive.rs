//! How many calls of one kind may be under way at once: so many, or as many as is found to be of use.
//!
//! Where [`Limits::adaptive`](crate::config::Limits::adaptive) is set, the number begins at one. Calls are counted in rounds, of as many
//! as there may be at once. After a round in which all places were taken, and which took about as long as such calls usually do,
//! there may be one more. When the other side is overloaded (it throttles documents, a call fails for the moment, or is not
//! answered in time) half as many remain, and three in four after a round that took more than twice as long as usual: what is
//! under way then only waits there instead of here. What was made before that says nothing about the new number. What is usual for
//! calls of a size is what they take while there is one at a time; where they come to take longer for another reason, the
//! number falls to one, and that is learned anew.
//!
//! Additive increase and multiplicative decrease is Chiu and Jain's (1989), and TCP's; with latencies in place of losses it is
//! TCP Vegas's. That it is of use before a sink is known from Netflix's `concurrency-limits` and Vector's adaptive request
//! concurrency.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Fault, FaultKind};
use crate::pipeline::calls::{Call, PartId, Purpose};
use crate::pipeline::flight::Part;
use crate::pipeline::{Event, Pipeline};
use crate::ports::{Built, FlushReport, Lane};
use crate::time::Instant;

/// So much longer a call may take than usual, whatever it takes: a machine that others use stands still for as long.
const NOISE: Duration = Duration::from_millis(5);

/// How many calls of one kind may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Limit {
    most: usize,
    now: usize,
    adapts: bool,
    round: Round,
    /// How long calls take that do not wait for each other, by their size: the binary logarithm of their documents.
    usual: BTreeMap<u32, Duration>,
    /// What was made before this says nothing any more.
    since: Instant,
}

/// What is known of the round that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Round {
    answered: usize,
    /// How long the calls took together, and how long they usually take.
    took: Duration,
    usual: Duration,
    /// Whether all places were taken at some time.
    full: bool,
}

impl Limit {
    /// At the most so many; from the start, or where it `adapts`, one after the other.
    pub(super) fn new(most: usize, adapts: bool) -> Self {
        let now = if adapts { 1 } else { most };
        let round = Round::default();
        Self { most, now, adapts, round, usual: BTreeMap::new(), since: Instant::ORIGIN }
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
        self.adapts.then_some((&self.round, &self.usual))
    }

    /// Whether a call was `made` before the number was cut.
    pub(super) fn is_of_before(&self, made: Instant) -> bool {
        made < self.since
    }

    /// A call of so many `documents` was answered, `made` then. `full` tells whether there could be no more beside it.
    pub(super) fn answered(&mut self, made: Instant, at: Instant, documents: usize, full: bool) {
        if !self.adapts || self.is_of_before(made) {
            return;
        }
        let took = at.since(made);
        let usual = self.usual.entry(documents.max(1).ilog2()).or_insert(took);
        self.round.answered += 1;
        self.round.took += took;
        self.round.usual += *usual;
        self.round.full |= full;
        // Only a call that is alone does not wait for others; what is faster beside others is so without them.
        match (self.now, took < *usual) {
            (1, false) => *usual += (took - *usual) / 4,
            (1, true) => *usual -= (*usual - took) / 4,
            (_, true) => *usual -= (*usual - took) / 8,
            (_, false) => {}
        }
        if self.round.answered < self.now {
            return;
        }
        let Round { answered, took, usual, full } = core::mem::take(&mut self.round);
        let noise = NOISE * u32::try_from(answered).unwrap_or(u32::MAX);
        if took > usual * 2 + noise {
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

/// Of so many places the backfill leaves one to the live lane, where there are several.
pub(super) fn all_but_one(places: usize) -> usize {
    places.saturating_sub(1).max(1)
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
    /// A call is answered, and still counted: where it is a build, a flush or a comparison, that tells how many of them are of use.
    pub(super) fn learn(&mut self, event: &Event<B>, call: Call) {
        let served = |is_overloaded: bool| if is_overloaded { Said::Overloaded } else { Said::Served };
        let (said, documents) = if let Event::Built { result, .. } = event {
            let is_transient = |built: &Built<B>| {
                built.as_ref().is_err_and(|failed| failed.fault.kind() == FaultKind::Transient)
            };
            let of_answers = |answers: &Vec<Built<B>>| Some(served(answers.iter().any(is_transient)));
            (result.as_ref().map_or_else(of_failure, of_answers), self.documents_of(call))
        } else if let Event::Flushed { result, .. } = event {
            let of_report = |report: &FlushReport| Some(served(!report.throttled.is_empty()));
            (result.as_ref().map_or_else(of_failure, of_report), self.documents_of(call))
        } else if let Event::Compared { result, .. } = event {
            // It reads, and may take another time than a flush of as many: it says no more than whether it failed.
            (result.as_ref().map_or_else(of_failure, |_| None), 0)
        } else {
            return;
        };
        let (now, full) = (self.now, self.is_full(call));
        if let (Some(said), Some(limit)) = (said, self.limit_of(call)) {
            match said {
                Said::Served => limit.answered(call.made, now, documents, full),
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
        } else if is_of_the_sink(call.purpose) {
            Some(&mut self.flush_limit)
        } else {
            None
        }
    }

    /// How many documents a call is about.
    fn documents_of(&self, call: Call) -> usize {
        if let Purpose::Build(unit) = call.purpose {
            self.flights.get(unit).map_or(0, |unit| unit.ids.len())
        } else if let Purpose::Flush(part) = call.purpose
            && let Some(Part::Flush(writes)) = self.flights.part(part)
        {
            writes.len()
        } else {
            0
        }
    }

    /// Whether there could be no other call beside this one and those that are under way: the places are taken, or those that
    /// the backfill may take.
    fn is_full(&self, call: Call) -> bool {
        if matches!(call.purpose, Purpose::Build(_)) {
            let places = self.build_limit.at_once();
            self.builds_under_way() >= places || self.backfill_builds_under_way() >= all_but_one(places)
        } else {
            self.calls.under_way(is_of_the_sink) >= self.flush_limit.at_once()
                || self.backfill_flushes_under_way() >= self.backfill_flushes()
        }
    }

    pub(super) fn builds_under_way(&self) -> usize {
        self.calls.under_way(|purpose| matches!(purpose, Purpose::Build(_)))
    }

    /// Those that wait to be made again take no place.
    pub(super) fn backfill_builds_under_way(&self) -> usize {
        let is_backfilled =
            |unit: u64| self.flights.get(unit).is_some_and(|unit| unit.lane == Lane::Backfill);
        self.calls.under_way(|purpose| matches!(purpose, Purpose::Build(unit) if is_backfilled(unit)))
    }

    /// How many places of the sink the backfill may take: all of them until live changes flow, and then all but one.
    pub(super) fn backfill_flushes(&self) -> usize {
        let places = self.flush_limit.at_once();
        if self.capture.is_live() { all_but_one(places) } else { places }
    }

    pub(super) fn backfill_flushes_under_way(&self) -> usize {
        let is_backfilled =
            |part: PartId| self.flights.get(part.unit).is_some_and(|unit| unit.lane == Lane::Backfill);
        self.calls.under_way(
            |purpose| matches!(purpose, Purpose::Flush(part) | Purpose::Compare(part) if is_backfilled(part)),
        )
    }
}

/// Flushes and comparisons are made of the same places.
pub(super) fn is_of_the_sink(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Flush(_) | Purpose::Compare(_))
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
            (0..together).for_each(|_| limit.answered(ms(made), ms(at), 100, true));
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
            limit.answered(ms(at), ms(at + 20), 100, false);
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
        (0..8).for_each(|_| limit.answered(ms(at), ms(at + 20), 100, true));
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
    fn what_is_usual_is_learned_of_a_call_that_is_alone_and_of_what_is_faster_beside_others() {
        let mut limit = Limit::new(2, true);
        let mut after = |took, full| {
            limit.answered(ms(0), ms(took), 100, full);
            (limit.at_once(), limit.usual[&6].as_micros())
        };
        assert_eq!(after(40, false), (1, 40_000));
        assert_eq!(after(80, false), (1, 50_000));
        assert_eq!(after(10, false), (1, 40_000));
        // From here on there are two.
        assert_eq!(after(40, true), (2, 40_000));
        assert_eq!(after(24, false), (2, 38_000));
        assert_eq!(after(60, false), (2, 38_000));
        // Twice as long as usual, and the noise: that is as long as a round may take.
        assert_eq!(after(81, false), (2, 38_000));
        assert_eq!(after(81, false), (2, 38_000));
        assert_eq!(after(81, false), (2, 38_000));
        assert_eq!(after(82, false), (1, 38_000));
    }

    #[test]
    fn what_takes_a_moment_longer_is_as_fast() {
        let mut limit = Limit::new(4, true);
        let at = rounds(&mut limit, 0, 1, |_| 1);
        rounds(&mut limit, at, 3, |_| 4);
        assert_eq!(limit.at_once(), 4);
    }

    /// Small units of live changes beside large ones of a backfill: neither is slow.
    #[test]
    fn calls_of_different_sizes_are_not_compared() {
        let mut limit = Limit::new(4, true);
        let mut at = 0;
        for _ in 0..10 {
            for (documents, takes) in [(1, 2), (1000, 100)] {
                limit.answered(ms(at), ms(at + takes), documents, true);
                at += takes;
            }
        }
        assert_eq!(limit.at_once(), 4);
    }
}
