//! Everything that a stream has ready, at once.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use crate::change::{Captured, Captures};
use crate::error::Fault;
use crate::pipeline::Then;
use crate::row::Key;

/// So many items that need no room are taken in one go, besides those that do.
const EXTRA_ITEMS: usize = 1024;

/// What an item of a stream is to the one who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It needs room.
    Counted,
    /// It needs none.
    Free,
    /// It needs none, and says that the stream has more, ready or not.
    MoreFollows,
}

/// What a burst is gathered in.
pub(super) trait Gather<T> {
    fn with_capacity(items: usize) -> Self;
    fn weigh(item: &T) -> Weight;
    fn push(&mut self, item: T);
}

impl Gather<Captured> for Captures {
    fn with_capacity(items: usize) -> Self {
        Captures::with_capacity(items)
    }

    fn weigh(item: &Captured) -> Weight {
        match item {
            Captured::Change(_) | Captured::Truncate(_) => Weight::Counted,
            Captured::Checkpoint(_) => Weight::Free,
            Captured::More => Weight::MoreFollows,
        }
    }

    fn push(&mut self, item: Captured) {
        Captures::push(self, item);
    }
}

impl Gather<Key> for Vec<Key> {
    fn with_capacity(items: usize) -> Self {
        Vec::with_capacity(items)
    }

    fn weigh(_: &Key) -> Weight {
        Weight::Counted
    }

    fn push(&mut self, item: Key) {
        Vec::push(self, item);
    }
}

/// A stream that is read in bursts.
pub(super) struct Intake<T> {
    stream: Pin<Box<dyn Stream<Item = Result<T, Fault>> + Send>>,
    /// It was told that nothing is ready, and that has not changed.
    told_idle: bool,
    /// Its last item said that more follows: while it is pending it is not idle.
    more_follows: bool,
    /// It failed behind the items of the last burst.
    fault: Option<Fault>,
    /// The size of the last burst: the next one is taken for as large, so that it is not moved while it grows.
    last: usize,
}

/// A burst: items, and what follows; or a failure, after which the stream is not polled again.
pub(super) type Burst<I> = Result<(I, Then), Fault>;

impl<T> Intake<T> {
    pub(super) fn new(stream: Pin<Box<dyn Stream<Item = Result<T, Fault>> + Send>>) -> Self {
        Self { stream, told_idle: false, more_follows: false, fault: None, last: 0 }
    }

    /// As many items as are ready, until `room` of those that are counted are taken. Pending while nothing is ready and
    /// that is known already, or more is known to follow.
    pub(super) fn poll_burst<I: Gather<T>>(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Burst<I>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        let mut items = I::with_capacity(self.last.min(room));
        let (mut taken, mut counted) = (0, 0);
        let then = loop {
            if counted >= room || taken >= counted + EXTRA_ITEMS {
                break Then::More;
            }
            match self.stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => {
                    let weight = I::weigh(&item);
                    counted += usize::from(weight == Weight::Counted);
                    self.more_follows = weight == Weight::MoreFollows;
                    taken += 1;
                    items.push(item);
                }
                Poll::Ready(Some(Err(fault))) if taken == 0 => return Poll::Ready(Err(fault)),
                Poll::Ready(Some(Err(fault))) => {
                    self.fault = Some(fault);
                    break Then::More;
                }
                Poll::Ready(None) => break Then::End,
                Poll::Pending if taken == 0 && (self.told_idle || self.more_follows) => return Poll::Pending,
                Poll::Pending if self.more_follows => break Then::More,
                Poll::Pending => break Then::Idle,
            }
        };
        self.told_idle = then == Then::Idle;
        self.last = counted;
        Poll::Ready(Ok((items, then)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    use futures::stream;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::change::{Change, Position, Truncation};
    use crate::name::TableName;

    /// What a stream answers when it is polled.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Beat {
        Change,
        Truncation,
        Checkpoint,
        MoreFollows,
        Nothing,
        Failure,
    }

    /// Some beats; now and then more of those that need no room than are taken in one go.
    fn beats() -> impl Strategy<Value = Vec<Beat>> {
        let beat = prop_oneof![
            5 => Just(Beat::Change),
            1 => Just(Beat::Truncation),
            3 => Just(Beat::Checkpoint),
            2 => Just(Beat::MoreFollows),
            4 => Just(Beat::Nothing),
            1 => Just(Beat::Failure),
        ];
        let times = prop_oneof![19 => 1..4_usize, 1 => EXTRA_ITEMS..EXTRA_ITEMS + 4];
        vec((beat, times), 0..16).prop_map(|runs| {
            runs.into_iter().flat_map(|(beat, times)| std::iter::repeat_n(beat, times)).collect()
        })
    }

    fn intake(beats: Vec<Beat>) -> Intake<Captured> {
        let mut beats = beats.into_iter();
        let users = || TableName::new("users").expect("it has a name");
        Intake::new(Box::pin(stream::poll_fn(move |_| {
            let item = match beats.next() {
                Some(Beat::Change) => Change::upsert(users(), 1).into(),
                Some(Beat::Truncation) => Truncation::new([users()]).into(),
                Some(Beat::Checkpoint) => Position(1).into(),
                Some(Beat::MoreFollows) => Captured::More,
                Some(Beat::Nothing) => return Poll::Pending,
                Some(Beat::Failure) => return Poll::Ready(Some(Err(Fault::transient("it broke off")))),
                None => return Poll::Ready(None),
            };
            Poll::Ready(Some(Ok(item)))
        })))
    }

    /// A burst that remembers its items.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Beats(Vec<Beat>);

    impl Gather<Captured> for Beats {
        fn with_capacity(_: usize) -> Self {
            Self::default()
        }

        fn weigh(item: &Captured) -> Weight {
            <Captures as Gather<Captured>>::weigh(item)
        }

        fn push(&mut self, item: Captured) {
            self.0.push(match item {
                Captured::Change(_) => Beat::Change,
                Captured::Truncate(_) => Beat::Truncation,
                Captured::Checkpoint(_) => Beat::Checkpoint,
                Captured::More => Beat::MoreFollows,
            });
        }
    }

    fn needs_room(beat: &Beat) -> bool {
        matches!(beat, Beat::Change | Beat::Truncation)
    }

    /// The items that stand at the front of a list: all that there is room for.
    fn front(beats: &[Beat], room: usize) -> &[Beat] {
        let (mut counted, mut free) = (0, 0);
        let fits = |beat: &&Beat| {
            let takes = counted < room && free < EXTRA_ITEMS;
            counted += usize::from(needs_room(beat));
            free += usize::from(!needs_room(beat));
            takes && !matches!(beat, Beat::Nothing | Beat::Failure)
        };
        &beats[..beats.iter().take_while(fits).count()]
    }

    proptest! {
        #[test]
        fn a_stream_is_given_in_bursts_as_a_list_would_be(beats in beats(), rooms in vec(1..5_usize, 1..64)) {
            let mut intake = intake(beats.clone());
            let mut left = &beats[..];
            let (mut told_idle, mut more_follows) = (false, false);
            for room in rooms {
                let given = intake.poll_burst::<Beats>(&mut Context::from_waker(Waker::noop()), room);
                let items = front(left, room);
                let rest = &left[items.len()..];
                more_follows = items.last().map_or(more_follows, |last| *last == Beat::MoreFollows);
                let is_full = {
                    let counted = items.iter().filter(|item| needs_room(item)).count();
                    counted == room || items.len() - counted == EXTRA_ITEMS
                };
                let then = match rest.first() {
                    _ if is_full => Then::More,
                    None => Then::End,
                    Some(Beat::Nothing) if more_follows => Then::More,
                    Some(Beat::Nothing) => Then::Idle,
                    // It comes by itself.
                    Some(_) => Then::More,
                };
                let expected = match rest.first() {
                    Some(Beat::Failure) if items.is_empty() => Poll::Ready(Err(Fault::transient("it broke off"))),
                    Some(Beat::Nothing) if items.is_empty() && (told_idle || more_follows) => Poll::Pending,
                    _ => Poll::Ready(Ok((Beats(items.to_vec()), then))),
                };
                let is_over = matches!(expected, Poll::Ready(Err(_) | Ok((_, Then::End))));
                told_idle = told_idle && expected.is_pending() || matches!(expected, Poll::Ready(Ok((_, Then::Idle))));
                prop_assert_eq!(given, expected);
                if is_over {
                    break;
                }
                let asked_in_vain = !is_full && rest.first() == Some(&Beat::Nothing);
                left = &rest[usize::from(asked_in_vain)..];
            }
        }
    }
}
