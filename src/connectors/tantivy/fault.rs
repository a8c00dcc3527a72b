//! What an error of tantivy or of the file system means for the call that met it.
//!
//! A disk that is full, an interrupted call and exhausted file handles are trouble of the moment: they are retried, and
//! at the limit of attempts the run halts with nothing lost. Everything else (no permission, a corrupt index, a lock
//! that another process holds) ends the run at once, because no retry cures it.

use std::io;
use std::path::{Path, PathBuf};

use ::tantivy::TantivyError;
use ::tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError, OpenWriteError};

use crate::error::{Fault, FaultKind};

/// An error with what was being done, and where.
#[derive(Debug, thiserror::Error)]
#[error("{doing} in {}: {source}", path.display())]
struct Failure {
    doing: String,
    path: PathBuf,
    source: TantivyError,
}

/// A fault for an error of tantivy, with the directory it happened in.
pub(super) fn tantivy(doing: impl Into<String>, path: &Path, source: TantivyError) -> Fault {
    let kind = classify(&source);
    Fault::new(kind, Failure { doing: doing.into(), path: path.to_owned(), source })
}

/// A fault for an error of the file system, with the path it happened at.
pub(super) fn io(doing: impl Into<String>, path: &Path, source: io::Error) -> Fault {
    tantivy(doing, path, source.into())
}

/// The kind of an error of tantivy: that of the I/O error inside, where there is one.
pub(super) fn classify(error: &TantivyError) -> FaultKind {
    match error {
        TantivyError::IoError(error)
        | TantivyError::LockFailure(LockError::IoError(error), _)
        | TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error: error, .. })
        | TantivyError::OpenReadError(OpenReadError::IoError { io_error: error, .. })
        | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error: error, .. }) => classify_io(error),
        // A worker that had died before it was asked. The writer is rolled back, so that the retry has a living one,
        // and meets the cause itself if it is still there.
        TantivyError::ErrorInThread(_) | TantivyError::SystemError(_) => FaultKind::Transient,
        // Left by a commit that failed, and held by a merge that has not ended yet. It is removed after that.
        TantivyError::OpenWriteError(OpenWriteError::FileAlreadyExists(_)) => FaultKind::Transient,
        _ => FaultKind::Fatal,
    }
}

fn classify_io(error: &io::Error) -> FaultKind {
    use io::ErrorKind as Io;
    /// Too many open files, in this process or on this machine, which [`io::ErrorKind`] has no name for.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.kind() {
        Io::StorageFull
        | Io::QuotaExceeded
        | Io::Interrupted
        | Io::TimedOut
        | Io::WouldBlock
        | Io::ResourceBusy
        | Io::OutOfMemory
        | Io::StaleNetworkFileHandle => FaultKind::Transient,
        _ if cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => FaultKind::Transient,
        _ => FaultKind::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_retried_and_a_missing_permission_is_not() {
        let kind = |kind: io::ErrorKind| io("writing", Path::new("/x"), kind.into()).kind();
        assert_eq!(kind(io::ErrorKind::StorageFull), FaultKind::Transient);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), FaultKind::Fatal);
        assert_eq!(kind(io::ErrorKind::NotFound), FaultKind::Fatal);
        let files = io("writing", Path::new("/x"), io::Error::from_raw_os_error(24));
        assert_eq!(files.kind(), FaultKind::Transient);
        assert!(files.message().contains("writing in /x"), "{files}");
    }

    #[test]
    fn an_io_error_is_found_inside_those_of_tantivy() {
        let error = OpenWriteError::wrap_io_error(io::ErrorKind::StorageFull.into(), "segment".into());
        assert_eq!(classify(&error.into()), FaultKind::Transient);
        assert_eq!(classify(&TantivyError::LockFailure(LockError::LockBusy, None)), FaultKind::Fatal);
        assert_eq!(classify(&TantivyError::SchemaError("odd".into())), FaultKind::Fatal);
    }
}
