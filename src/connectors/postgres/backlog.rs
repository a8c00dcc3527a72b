//! Tells a backlog from silence.
//!
//! A stream that waits looks the same whether its server has nothing more or takes its time over a backlog: for a change
//! of a transaction, for the next transaction, or for what must be read about a table before its first change can be told. So
//! an opening writes a mark into the log, and until the stream has come to it, or to the end of a transaction that it has
//! begun, it never waits without having said that more follows. This is held in one place, where the stream is
//! polled, because the reading awaits in many.
//!
//! Of what is committed later the server does not tell that it is there before it sends it: between two transactions of
//! these the stream may wait for a moment in silence, since its keepalives only say how far it has sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::stream::{self, Stream, StreamExt};

use crate::change::Captured;
use crate::error::Fault;

/// Whether more is known to follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind(Arc<AtomicBool>);

impl Behind {
    pub(super) fn set(&self, is_behind: bool) {
        self.0.store(is_behind, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same changes; where they have to be waited for and more is known to follow, that is said first, once.
pub(super) fn told<S>(mut changes: S, behind: Behind) -> impl Stream<Item = Result<Captured, Fault>>
where
    S: Stream<Item = Result<Captured, Fault>> + Unpin,
{
    let mut is_told = false;
    stream::poll_fn(move |context| match changes.poll_next_unpin(context) {
        Poll::Pending if behind.is_set() && !is_told => {
            is_told = true;
            Poll::Ready(Some(Ok(Captured::More)))
        }
        Poll::Pending => Poll::Pending,
        Poll::Ready(item) => {
            is_told = false;
            Poll::Ready(item)
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc;

    use super::*;
    use crate::change::Position;

    #[test]
    fn a10_a_stream_that_is_behind_never_waits_in_silence() {
        let (send, received) = mpsc::unbounded();
        let behind = Behind::default();
        let mut changes = told(received, behind.clone());
        let mut next = || changes.next().now_or_never().map(|item| item.unwrap().unwrap());
        let checkpoint = |position| send.unbounded_send(Ok(Position(position).into())).unwrap();
        assert_eq!(next(), None, "nothing is known to follow");
        behind.set(true);
        assert_eq!((next(), next()), (Some(Captured::More), None), "it is said once");
        checkpoint(1);
        checkpoint(2);
        assert_eq!((next(), next()), (Some(Position(1).into()), Some(Position(2).into())));
        assert_eq!(
            (next(), next()),
            (Some(Captured::More), None),
            "and once again behind each of the others"
        );
        checkpoint(3);
        behind.set(false);
        assert_eq!((next(), next()), (Some(Position(3).into()), None));
    }
}
