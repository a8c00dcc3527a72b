//! One call to the sink, from the future that asks for it to the thread that does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::document::Epoch;
use crate::error::Fault;

/// What the thread that does a call knows of those who asked for it.
///
/// A future can be dropped while its work waits for a thread, or is under way there. Work that was given up does
/// nothing any more: it looks before it begins, and again before each commit. Since all work is done one after the
/// other, what an abandoned call did stands before everything that was asked for after it was given up.
#[derive(Debug, Clone)]
pub(super) struct Call {
    abandoned: Arc<AtomicBool>,
    /// The run that was going on when the call was made.
    issued: Epoch,
}

/// Kept by the future: gives the call up where it is dropped before the answer.
#[derive(Debug)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Call {
    /// A call during the current run, and what gives it up.
    pub(super) fn issue(epoch: &AtomicU64) -> (Self, Wanted) {
        let abandoned = Arc::new(AtomicBool::new(false));
        let issued = Epoch(epoch.load(Ordering::SeqCst));
        (Self { abandoned: abandoned.clone(), issued }, Wanted(abandoned))
    }

    /// Errors: fatal, where another run has begun since the call was made.
    pub(super) fn admit(&self, current: Epoch) -> Result<(), Fault> {
        if self.issued == current { Ok(()) } else { Err(superseded(self.issued, current)) }
    }

    /// Errors: transient, where nobody waits for it any more; nobody hears it either.
    pub(super) fn still_wanted(&self) -> Result<(), Fault> {
        match self.abandoned.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Fault::transient("the call was given up")),
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A run has begun since.
pub(super) fn superseded(own: Epoch, current: Epoch) -> Fault {
    Fault::fatal(format!("run {} may write no more: run {} has begun", own.0, current.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_wanted_until_its_future_is_dropped_and_admitted_until_another_run_begins() {
        let (call, wanted) = Call::issue(&AtomicU64::new(3));
        assert!(call.still_wanted().is_ok() && call.admit(Epoch(3)).is_ok());
        let late = call.admit(Epoch(4)).unwrap_err();
        assert_eq!(late.message(), "run 3 may write no more: run 4 has begun");
        drop(wanted);
        assert!(call.still_wanted().is_err());
    }
}
