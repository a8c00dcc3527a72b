//! What can go wrong, by kind.
//!
//! A [`Fault`] is what an edge answers when a call failed; it is data for the pipeline, which retries, halves,
//! quarantines or halts by its [`FaultKind`]. An [`EngineError`] is what ends a run.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use crate::config::ConfigError;
use crate::name::IndexName;

/// What a failure means for the call that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FaultKind {
    /// Trouble of the moment: the same call may succeed later. Retried; at the limit the run halts.
    Transient,
    /// What was sent is at fault (too large, malformed): the same call will never succeed, a part of it may. Halved;
    /// the document at fault meets the failure policy of its index.
    Content,
    /// Nothing the engine can do (a refused credential, an unknown index). The run halts.
    Fatal,
}

/// Why a call to an edge failed.
///
/// Any error converts into it with `?`. Well-known ones are classified on the way (an interrupted connection of
/// [`std::io::Error`] is transient, a busy database of the connectors is); every other is fatal, because a run that
/// stops is noticed and one that retries a typing error is not. Say what you know with [`Fault::transient`] and
/// [`Fault::content`], or with [`Classify`] on a result.
///
/// Equality looks at the kind, the message and the delay that was asked for.
#[derive(Clone)]
pub struct Fault(Box<What>);

/// Kept apart, so that an answer takes no more room for the fault that it could have been.
#[derive(Clone)]
struct What {
    kind: FaultKind,
    message: Arc<str>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// Trouble of the moment: retried.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Transient, error)
    }

    /// What was sent is at fault: halved, then the failure policy of the index.
    pub fn content(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Content, error)
    }

    /// Ends the run.
    pub fn fatal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FaultKind::Fatal, error)
    }

    /// The change that asks for this call cannot be seen by a query yet (a replica that lags, a commit that is streamed
    /// before others see it). Transient.
    #[must_use]
    pub fn not_yet() -> Self {
        Self::transient("the change is not visible yet")
    }

    /// A failure of this kind. Given a `Fault`, the same failure, now of this kind.
    pub fn new(kind: FaultKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast::<FaultError>() {
            Ok(fault) => fault.0.with_kind(kind),
            Err(error) => {
                let source: Arc<dyn Error + Send + Sync> = Arc::from(error);
                let message = chain(&*source).into();
                Self(Box::new(What { kind, message, retry_after: None, source: Some(source) }))
            }
        }
    }

    /// The same failure, not to be retried before this much time has passed (a server's `Retry-After`).
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The same failure, of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: FaultKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What it means for the call.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.0.kind
    }

    /// The error and its causes, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The least delay before a retry, where the other side asked for one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    fn identity(&self) -> (FaultKind, &str, Option<Duration>) {
        (self.kind(), self.message(), self.retry_after())
    }

    /// The error itself.
    #[must_use]
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }
}

/// The message of an error and those of its causes. A cause whose words the error already repeats is left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !message.contains(&words) {
            message.push_str(": ");
            message.push_str(&words);
        }
        cause = error.source();
    }
    message
}

impl<E: Error + Send + Sync + 'static> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::new(classify(&error), error)
    }
}

/// A fault as an [`Error`]. `Fault` itself cannot be one, since every error converts into it (as with `anyhow::Error`).
#[derive(thiserror::Error)]
#[error("{0}")]
struct FaultError(Fault);

impl fmt::Debug for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<Fault> for Box<dyn Error + Send + Sync> {
    fn from(fault: Fault) -> Self {
        Box::new(FaultError(fault))
    }
}

impl From<Fault> for Box<dyn Error> {
    fn from(fault: Fault) -> Self {
        Box::new(FaultError(fault))
    }
}

/// The kind of a well-known error, or of the first well-known one among its causes; else fatal.
fn classify(error: &(dyn Error + 'static)) -> FaultKind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        #[cfg(feature = "postgres")]
        if let Some(error) = error.downcast_ref::<crate::connectors::postgres::PostgresError>() {
            return error.kind();
        }
        #[cfg(feature = "postgres")]
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return crate::connectors::postgres::classify(error);
        }
        #[cfg(feature = "std")]
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return classify_io(error.kind());
        }
        #[cfg(feature = "sqlite")]
        if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
            return crate::connectors::sqlite::classify(error);
        }
        cause = error.source();
    }
    FaultKind::Fatal
}

#[cfg(feature = "std")]
fn classify_io(kind: std::io::ErrorKind) -> FaultKind {
    use std::io::ErrorKind as Io;
    match kind {
        Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::NotConnected
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::BrokenPipe
        | Io::WouldBlock
        | Io::TimedOut
        | Io::Interrupted
        | Io::UnexpectedEof
        | Io::ResourceBusy => FaultKind::Transient,
        _ => FaultKind::Fatal,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind(), self.message())
    }
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Fault {}

impl Hash for Fault {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Says what an error means, on the way through `?`.
pub trait Classify<T> {
    /// An error here is trouble of the moment.
    fn transient(self) -> Result<T, Fault>;
    /// An error here is the fault of what was sent.
    fn content(self) -> Result<T, Fault>;
    /// An error here ends the run, whatever it is.
    fn fatal(self) -> Result<T, Fault>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Classify<T> for Result<T, E> {
    fn transient(self) -> Result<T, Fault> {
        self.map_err(Fault::transient)
    }

    fn content(self) -> Result<T, Fault> {
        self.map_err(Fault::content)
    }

    fn fatal(self) -> Result<T, Fault> {
        self.map_err(Fault::fatal)
    }
}

/// The calls an engine makes, for messages and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// The sink hands out a run's epoch.
    Begin,
    /// The builder describes its indexes, and the source is asked whether it can supply what they take.
    Describe,
    /// The sink creates an index, or checks it.
    Ensure,
    /// The capture is opened, or yields.
    Capture,
    /// The changes of a group are resolved to documents.
    Resolve,
    /// The documents of a unit are built.
    Build,
    /// A unit is written.
    Flush,
    /// The sink is told that it is caught up.
    CaughtUp,
    /// The quarantine is read, written or cleared.
    Quarantine,
    /// A position is confirmed to the source.
    Ack,
    /// An index's seeded state is read or written, or the index is cleared.
    Seed,
    /// A table is scanned for a backfill.
    Scan,
    /// What an index holds is listed, or compared with what it should hold.
    Verify,
    /// The source's lag is read.
    Lag,
}

impl Stage {
    /// Its name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Describe => "describe",
            Self::Ensure => "ensure",
            Self::Capture => "capture",
            Self::Resolve => "resolve",
            Self::Build => "build",
            Self::Flush => "flush",
            Self::Verify => "verify",
            Self::CaughtUp => "caught up",
            Self::Quarantine => "quarantine",
            Self::Ack => "ack",
            Self::Seed => "seed",
            Self::Scan => "scan",
            Self::Lag => "lag",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a run ended before its stream did. Whatever it was, what is not durable was not acknowledged: the next run is
/// given it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The configuration contradicts itself. Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A call failed for good, or went on failing until its limit of attempts.
    #[error("{stage} failed{}: {fault}", attempts_text(*attempts))]
    Failed {
        /// The call.
        stage: Stage,
        /// How often it was tried.
        attempts: u32,
        /// How it failed the last time.
        fault: Fault,
    },
    /// The sink rejected documents of an index whose policy is
    /// [`FailurePolicy::Stop`](crate::config::FailurePolicy::Stop), or they could not be built. How many of one call,
    /// and the first with the reason.
    #[error(
        "{0} document(s) rejected by the sink or not built, among them {1}; a failure policy that skips them would let the others go on"
    )]
    DocumentsRejected(usize, String),
    /// An edge answered what its contract excludes.
    #[error("{stage} broke its contract: {what}")]
    Contract {
        /// The call.
        stage: Stage,
        /// What it answered, and what it should have.
        what: String,
    },
    /// The run was taken down with its runtime, or a port panicked.
    #[error("the run was stopped before it ended: {0}")]
    Stopped(String),
}

impl EngineError {
    /// The failure of a call, where it is one.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Failed { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

fn attempts_text(attempts: u32) -> String {
    match attempts {
        0 | 1 => String::new(),
        more => alloc::format!(" after {more} attempts"),
    }
}

/// A document that a sink did not take, and will not take as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RejectedDocument {
    /// The document.
    pub id: crate::document::DocumentId,
    /// Why, in the sink's words.
    pub reason: Arc<str>,
}

impl RejectedDocument {
    /// A rejection of this document for this reason.
    pub fn new(id: &crate::document::DocumentId, reason: impl AsRef<str>) -> Self {
        Self { id: id.clone(), reason: reason.as_ref().into() }
    }

    /// The index it was meant for.
    #[must_use]
    pub fn index(&self) -> &IndexName {
        &self.id.index
    }
}

impl fmt::Display for RejectedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_plain_error_is_fatal_and_well_known_ones_are_classified() {
        let plain = Fault::from("x".parse::<u32>().unwrap_err());
        assert_eq!(plain.kind(), FaultKind::Fatal);
        let reset = Fault::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(reset.kind(), FaultKind::Transient);
        let wrapped = Fault::from(Outer(std::io::ErrorKind::TimedOut.into()));
        assert_eq!((wrapped.kind(), wrapped.message()), (FaultKind::Transient, "outer: timed out"));
        let said = Err::<(), _>("no").content().unwrap_err();
        assert_eq!(said.kind(), FaultKind::Content);
        let later = Fault::transient("busy").with_retry_after(Duration::from_secs(3));
        let said = Err::<(), _>(later).content().unwrap_err();
        assert_eq!(said, Fault::content("busy").with_retry_after(Duration::from_secs(3)));
    }

    #[test]
    fn a_fault_leaves_through_a_boxed_error() {
        let leave = || -> Result<(), Box<dyn Error>> { Err(Fault::transient("busy"))? };
        assert_eq!(leave().unwrap_err().to_string(), "busy");
    }
}
