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
