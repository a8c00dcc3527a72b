//! What a driver must not do is refused, and changes nothing.

use syncline::pipeline::{CallId, Command, Event, Misuse, Then};
use syncline::ports::Resolved;
use syncline::time::Instant;
use syncline::{Captured, Change, IndexName, Lane};

use crate::drive::Drive;
use crate::model::{State, table};
use crate::op::Wrong;

impl Drive {
    /// Everything that a driver must not do now is refused, and changes nothing.
    pub fn misuse_in_every_way(&mut self) {
        use Wrong::{NeverMade, NoCapture, OtherKind, TimeBack, TooManyChanges, TooManyRows, UnknownIndex};
        if self.finished.is_none() {
            let all = [TimeBack, NeverMade, OtherKind, TooManyChanges, TooManyRows, NoCapture, UnknownIndex];
            for wrong in all {
                self.misuse(wrong);
            }
        }
    }

    pub(super) fn misuse(&mut self, wrong: Wrong) {
        let mut at = self.now;
        let event = match wrong {
            Wrong::TimeBack => {
                at = Instant::from_nanos(self.told.as_nanos() - 1);
                Event::Elapsed
            }
            Wrong::NeverMade => {
                let call = CallId(self.newest.0 + 1);
                self.refused(at, Event::Scanned { call, keys: Vec::new(), then: Then::Idle });
                // The first call is 1.
                self.refused(at, Event::Done { call: CallId(0), result: Ok(()) });
                Event::Done { call, result: Ok(()) }
            }
            Wrong::OtherKind => match self.open.first() {
                None => return,
                Some(Command::Resolve { call, .. }) => Event::Done { call: *call, result: Ok(()) },
                Some(other) => {
                    let call = other.call().expect("an open call has an id");
                    Event::Resolved { call, result: Ok(Resolved::default()) }
                }
            },
            Wrong::TooManyChanges if self.is_capturing() => changes(self.capacity(Lane::Live) + 1),
            Wrong::TooManyRows => match &self.snapshot {
                None => return,
                Some(snapshot) => {
                    let keys = (0..=self.capacity(Lane::Backfill)).map(|key| (100 + key as i64).into());
                    Event::Scanned { call: snapshot.call, keys: keys.collect(), then: Then::Idle }
                }
            },
            // A run that is ending does not ask any more whether its capture is open.
            Wrong::NoCapture if !self.is_capturing() && !self.is_ending() => changes(0),
            Wrong::UnknownIndex => {
                let index = IndexName::new("nobody").expect("a name");
                self.refused(at, Event::Verify { index: index.clone() });
                Event::Reindex { index }
            }
            Wrong::TooManyChanges | Wrong::NoCapture => return,
        };
        self.refused(at, event);
        self.mark("misuse");
    }

    /// A run that is over takes nothing.
    pub(super) fn refuse_everything(&mut self) {
        let misuse = self.refused(self.now, Event::Elapsed);
        assert_eq!(misuse, Misuse::Finished);
    }

    fn refused(&mut self, at: Instant, event: Event<State>) -> Misuse {
        let before = self.pipeline.clone();
        let misuse = self.pipeline.handle(at, event.clone()).expect_err("misuse is refused");
        assert_eq!(before, self.pipeline, "{misuse}: the state changed with {event:?}");
        misuse
    }
}

fn changes(count: usize) -> Event<State> {
    let change = |key: usize| Captured::from(Change::upsert(table(), key as i64));
    Event::Captured { items: (0..count).map(change).collect(), then: Then::Idle }
}
