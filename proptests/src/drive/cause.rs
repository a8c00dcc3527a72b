//! What may end a run.

use syncline::pipeline::Event;
use syncline::{Fault, FaultKind};

use crate::model::State;

/// What an event brought that a run may end for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cause {
    /// A call, the capture or the snapshot failed for the moment; or the sink throttled, or a document was not built yet.
    pub transient: bool,
    /// A call that has no documents was refused.
    pub refused: bool,
    /// A call, the capture or the snapshot failed for good.
    pub fatal: bool,
    /// Documents were refused.
    pub rejected: bool,
    /// It is a breach of contract.
    pub wrong: bool,
    /// The time limit of a call had passed, or that of a snapshot.
    pub overdue: bool,
}

impl Cause {
    /// What an event brings by itself.
    pub(super) fn of(event: &Event<State>) -> Self {
        let mut cause = Self::default();
        match event {
            Event::Built { result, .. } => match result {
                Ok(built) => {
                    let failed = built.iter().filter_map(|built| built.as_ref().err());
                    failed.for_each(|failed| cause.document(&failed.fault));
                }
                Err(fault) => cause.document(fault),
            },
            Event::Flushed { result: Ok(report), .. } => {
                cause.transient = !report.throttled.is_empty();
                cause.rejected = !report.rejected.is_empty();
            }
            Event::Flushed { result: Err(fault), .. } | Event::Compared { result: Err(fault), .. } => {
                cause.document(fault);
            }
            Event::CaptureFailed { fault } | Event::ScanFailed { fault, .. } => cause.call(fault),
            Event::Described { result, .. } => cause.answer(result),
            Event::Begun { result, .. } => cause.answer(result),
            Event::QuarantineLoaded { result, .. } => cause.answer(result),
            Event::Opened { result, .. } => cause.answer(result),
            Event::Resolved { result, .. } => cause.answer(result),
            Event::Listed { result, .. } => cause.answer(result),
            Event::SeedRead { result, .. } => cause.answer(result),
            Event::Done { result, .. } => cause.answer(result),
            // No lag ends a run, and the others bring no failure.
            _ => {}
        }
        cause
    }

    fn answer<T>(&mut self, result: &Result<T, Fault>) {
        if let Err(fault) = result {
            self.call(fault);
        }
    }

    fn call(&mut self, fault: &Fault) {
        match fault.kind() {
            FaultKind::Transient => self.transient = true,
            FaultKind::Content => self.refused = true,
            FaultKind::Fatal => self.fatal = true,
        }
    }

    fn document(&mut self, fault: &Fault) {
        match fault.kind() {
            FaultKind::Content => self.rejected = true,
            FaultKind::Transient | FaultKind::Fatal => self.call(fault),
        }
    }
}
