//! What may be acknowledged, and what has been.
//!
//! The watermark is one less than the oldest change that is still owed; the newest checkpoint at or under it is
//! acknowledged. One confirm is under way at a time, and the newest wins. That is all of the acknowledgement logic, and
//! it stands here: the [`Ledger`] tells which checkpoints are safe, this stage which of them to send.

use crate::change::Position;
use crate::pipeline::ledger::{Handle, Ledger};
use crate::time::Instant;

/// A position from which the source could resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Checkpoint {
    pub(super) position: Position,
    /// How many changes of the run were captured before it.
    pub(super) captured: u64,
    /// When the first change after it was captured.
    pub(super) followed: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Ack {
    /// The changes that are owed, with the checkpoints between them.
    pub(super) changes: Ledger<Checkpoint>,
    /// The newest that is safe and not sent.
    safe: Option<Checkpoint>,
    /// The one that is being confirmed.
    sent: Option<Checkpoint>,
    acknowledged: Option<Position>,
    acknowledged_changes: u64,
    /// When the oldest change that is not acknowledged was captured.
    since: Option<Instant>,
    /// How many changes of earlier streams were captured.
    foreign: u64,
    /// The stream was opened again, and nothing has been sent since: the source may have forgotten the newest confirm.
    unsure: bool,
}

impl Ack {
    /// A change was captured.
    pub(super) fn on_change(&mut self, now: Instant) -> Handle {
        self.since.get_or_insert(now);
        if let Some(checkpoint) = self.changes.latest_mut() {
            checkpoint.followed.get_or_insert(now);
        }
        for checkpoint in [&mut self.safe, &mut self.sent].into_iter().flatten() {
            checkpoint.followed.get_or_insert(now);
        }
        self.changes.push(now)
    }

    /// A checkpoint was captured.
    pub(super) fn on_checkpoint(&mut self, position: Position) {
        let captured = self.changes.pushed();
        self.changes.mark(Checkpoint { position, captured, followed: None });
    }

    /// The stream is another one: what was to be acknowledged belongs to the old one, which nobody can be given again.
    pub(super) fn on_new_stream(&mut self) {
        self.changes.clear_marks();
        self.safe = None;
        self.sent = None;
        self.acknowledged = None;
        self.acknowledged_changes = self.changes.pushed();
        self.since = None;
        self.foreign = self.changes.pushed();
        self.unsure = false;
    }

    /// The stream was opened again. What is acknowledged is sent once more where it comes again, or else an idle source that
    /// has forgotten it would keep its log until the next change.
    pub(super) fn on_reopened(&mut self) {
        self.unsure = true;
    }

    /// Whether a change that is owed belongs to the stream that is open.
    pub(super) fn is_of_stream(&self, handle: Handle) -> bool {
        self.changes.number(handle) >= self.foreign
    }

    /// Takes what became safe. After a reopening earlier positions may come again: what is acknowledged never goes back.
    pub(super) fn advance(&mut self) {
        if let Some(checkpoint) = self.changes.take_safe() {
            let newest = self.safe.or(self.sent).map(|known| known.position).max(self.acknowledged);
            if newest.is_none_or(|newest| checkpoint.position > newest) {
                self.safe = Some(checkpoint);
            } else if newest == Some(checkpoint.position) {
                self.repeat(checkpoint);
            }
        }
    }

    /// A position that is already known came again, with more changes of the run before it: those are settled with it.
    fn repeat(&mut self, checkpoint: Checkpoint) {
        if self.unsure {
            self.safe = Some(checkpoint);
            return;
        }
        match self.safe.as_mut().or(self.sent.as_mut()) {
            Some(known) => *known = checkpoint,
            None => self.confirm(checkpoint),
        }
    }

    /// Whether there is something to send, and nothing under way.
    pub(super) fn is_ready(&self) -> bool {
        self.safe.is_some() && self.sent.is_none()
    }

    /// Whether everything that is safe has been acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.safe.is_none() && self.sent.is_none()
    }

    /// The position to send now: the newest that is safe, or once more the one whose confirm failed.
    pub(super) fn send(&mut self) -> Option<Position> {
        self.unsure &= self.safe.is_none();
        self.sent = self.safe.take().or(self.sent);
        self.sent.map(|checkpoint| checkpoint.position)
    }

    /// The confirm that was under way succeeded.
    pub(super) fn on_confirmed(&mut self) {
        if let Some(checkpoint) = self.sent.take() {
            self.confirm(checkpoint);
        }
    }

    fn confirm(&mut self, checkpoint: Checkpoint) {
        self.acknowledged = self.acknowledged.max(Some(checkpoint.position));
        self.acknowledged_changes = checkpoint.captured;
        self.since = checkpoint.followed;
    }

    pub(super) fn acknowledged(&self) -> Option<Position> {
        self.acknowledged
    }

    /// How many captured changes are not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.changes.pushed() - self.acknowledged_changes
    }

    /// When the oldest of those was captured.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether what is acknowledged would be sent again.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// The position that is being confirmed, and the newest that waits.
    pub(super) fn outgoing(&self) -> (Option<Checkpoint>, Option<Checkpoint>) {
        (self.sent, self.safe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wins_and_nothing_goes_back() {
        let mut ack = Ack::default();
        let change = ack.on_change(Instant::from_millis(1));
        ack.on_checkpoint(Position(10));
        ack.advance();
        assert_eq!(ack.send(), None);
        ack.changes.settle(change);
        ack.advance();
        assert_eq!(ack.send(), Some(Position(10)));
        ack.on_checkpoint(Position(20));
        ack.advance();
        ack.on_checkpoint(Position(30));
        ack.advance();
        assert!(!ack.is_ready(), "one at a time");
        ack.on_confirmed();
        assert_eq!((ack.send(), ack.unacknowledged()), (Some(Position(30)), 0));
        ack.on_confirmed();
        ack.on_checkpoint(Position(20));
        ack.advance();
        assert_eq!((ack.send(), ack.acknowledged()), (None, Some(Position(30))));
    }

    #[test]
    fn a_source_that_was_opened_again_is_told_again_once() {
        let mut ack = Ack::default();
        ack.on_checkpoint(Position(10));
        ack.advance();
        assert_eq!(ack.send(), Some(Position(10)));
        ack.on_confirmed();
        ack.on_reopened();
        ack.on_checkpoint(Position(9));
        ack.advance();
        assert!(!ack.is_ready(), "what is acknowledged never goes back");
        for told in [Some(Position(10)), None] {
            ack.on_checkpoint(Position(10));
            ack.advance();
            assert_eq!(ack.is_ready().then(|| ack.send()).flatten(), told);
            ack.on_confirmed();
        }
    }

    #[test]
    fn what_belonged_to_another_stream_is_not_waited_for() {
        let mut ack = Ack::default();
        let change = ack.on_change(Instant::from_millis(1));
        ack.on_new_stream();
        assert_eq!((ack.since(), ack.unacknowledged()), (None, 0));
        let _next = ack.on_change(Instant::from_millis(2));
        ack.changes.settle(change);
        assert_eq!((ack.since(), ack.unacknowledged()), (Some(Instant::from_millis(2)), 1));
    }

    #[test]
    fn the_oldest_unacknowledged_change_is_the_first_after_the_checkpoint() {
        let mut ack = Ack::default();
        let first = ack.on_change(Instant::from_millis(1));
        ack.on_checkpoint(Position(10));
        let _second = ack.on_change(Instant::from_millis(2));
        ack.changes.settle(first);
        ack.advance();
        ack.send();
        assert_eq!(ack.since(), Some(Instant::from_millis(1)));
        ack.on_confirmed();
        assert_eq!((ack.since(), ack.unacknowledged()), (Some(Instant::from_millis(2)), 1));
    }
}
