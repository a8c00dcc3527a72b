//! The directory that holds the indexes: its lock, its epoch file, and where each index stands.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::tantivy::Directory;
use ::tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use ::tantivy::directory::{
    DirectoryLock, FileHandle, Lock, MmapDirectory, WatchCallback, WatchHandle, WritePtr,
};

use super::fault;
use crate::document::Epoch;
use crate::error::{Fault, FaultKind};
use crate::name::IndexName;

/// The file whose replacement makes a commit.
pub(super) const META: &str = "meta.json";

const LOCK: &str = "syncline.lock";
const EPOCH: &str = "epoch";
/// Emptied at each opening, and so by a name that nobody else gives to anything.
const TEMPORARY: &str = "syncline.tmp";
/// The file that says of an index's directory whose it is, also where it has lost its meta file.
const MARKER: &str = "syncline.index";

/// How the name begins of what tantivy writes before it renames it.
pub(super) const LEFTOVER: &str = ".tmp";

/// The longest component of an encoded name, well under what any file system takes.
const COMPONENT_BYTES: usize = 120;

/// The root directory, held by one sink at a time.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// The operating system releases the lock when the file is closed: also when the process dies.
    _lock: File,
}

impl Root {
    /// Creates the directory where there is none, takes its lock and removes what an interrupted creation left.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let failed = |error| fault::io("opening the directory of the indexes", path, error);
        create_dirs(path).map_err(failed)?;
        let lock = File::options().write(true).create(true).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::fatal(format!(
                    "the indexes in {} are already open for writing, here or in another process; \
                     `TantivyReader` reads them meanwhile",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        remove_dir(&path.join(TEMPORARY)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A place to build an index in before it is moved to its own. Empty.
    pub(super) fn temporary(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(TEMPORARY).join(name);
        remove_dir(&path)?;
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Makes sure that the place of an index is free, or holds nothing but what the sink has written, whole or not.
    /// Errors: fatal, with the first thing that is somebody else's.
    pub(super) fn check_place(&self, index: &IndexName) -> Result<(), Fault> {
        let place = place(&self.path, index);
        let failed = |error| fault::io(format!("looking at the place of index `{index}`"), &place, error);
        let mut names = Vec::new();
        match fs::read_dir(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => {
                for entry in entries.map_err(failed)? {
                    names.push(entry.map_err(failed)?.file_name());
                }
            }
        }
        names.sort();
        // Where neither says that the directory is the sink's, even files of the library are another program's. A meta
        // file was looked into before.
        let own = names.iter().any(|name| name == MARKER || name == META);
        match names.iter().find(|name| !own || !name.to_str().is_some_and(is_own_file)) {
            None => Ok(()),
            Some(name) => Err(Fault::fatal(format!(
                "index `{index}` is to be created in {}, but that holds {name:?}, which is not the sink's; move it away, and \
                 the index is created and seeded",
                place.display()
            ))),
        }
    }

    /// Puts the directory `built` in the place of an index, which was [checked](Self::check_place). What stood there is
    /// gone once this returns; after a crash in between there is the old index, or none, or the new one.
    pub(super) fn install(&self, built: &Path, index: &IndexName) -> io::Result<()> {
        let place = place(&self.path, index);
        File::create(built.join(MARKER))?.sync_all()?;
        let parent = place.parent().unwrap_or(&self.path);
        create_dirs(parent)?;
        if place.try_exists()? {
            let old = self.temporary("old")?.join("index");
            fs::rename(&place, &old)?;
            sync_dir(parent)?;
        }
        sync_dir(built)?;
        fs::rename(built, &place)?;
        sync_dir(parent)?;
        remove_dir(&self.path.join(TEMPORARY))
    }

    /// The epoch of the newest run that has begun; 0 where none has.
    pub(super) fn epoch(&self) -> Result<Epoch, Fault> {
        let path = self.path.join(EPOCH);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Epoch).map_err(|_| {
                Fault::fatal(format!("{} holds no epoch but {:?}", path.display(), text.trim()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Epoch(0)),
            Err(error) => Err(fault::io("reading the epoch", &path, error)),
        }
    }

    /// Durably replaces the epoch.
    pub(super) fn save_epoch(&self, epoch: Epoch) -> Result<(), Fault> {
        let path = self.path.join(EPOCH);
        let next = self.path.join("epoch.next");
        let save = || {
            let mut file = File::create(&next)?;
            writeln!(file, "{}", epoch.0)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            sync_dir(&self.path)
        };
        save().map_err(|error| fault::io("saving the epoch", &path, error))
    }
}

/// Where the index of this name stands below a root.
///
/// The encoding is injective also where the file system does not tell `A` from `a`, and holds nothing that any file
/// system gives a meaning to: lower-case letters, digits, `_` and `-` stand for themselves, every other byte is `%` and
/// two lower-case hexadecimal digits. What is too long for one component goes on in a directory below; `m-` begins a
/// component that goes on, `i-` the last.
pub(super) fn place(root: &Path, index: &IndexName) -> PathBuf {
    let mut path = root.to_owned();
    let mut component = String::from("i-");
    for byte in index.as_str().bytes() {
        if component.len() + 3 > COMPONENT_BYTES {
            component.replace_range(..2, "m-");
            path.push(std::mem::replace(&mut component, String::from("i-")));
        }
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => component.push(char::from(byte)),
            other => component.push_str(&format!("%{other:02x}")),
        }
    }
    path.push(component);
    path
}

/// The directories of all indexes below a root. What cannot be listed below it is [passed over](readable).
pub(super) fn places(root: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let names = || fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect();
        let names: io::Result<Vec<_>> = names();
        let names = names.map_err(|error| fault::io("listing the indexes", &directory, error));
        let names = if directory == root { Some(names?) } else { readable(names)? };
        for name in names.into_iter().flatten() {
            match name.to_str() {
                Some(text) if text.starts_with("i-") => found.push(directory.join(name)),
                Some(text) if text.starts_with("m-") => open.push(directory.join(name)),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What was read of something that a run may not need at all: `None`, with a warning, where it cannot be read. A run that
/// does need it meets the same fault again. Errors: what passes with the moment.
pub(super) fn readable<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.kind() == FaultKind::Fatal => {
            tracing::warn!(%fault, "passed over what cannot be read");
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

/// Whether an index stands in this directory. One without its meta file is none: nothing says what belongs to it.
pub(super) fn holds_index(path: &Path) -> Result<bool, Fault> {
    let meta = path.join(META);
    meta.try_exists().map_err(|error| fault::io("looking for an index", &meta, error))
}

/// Whether a file of an index's directory goes by a name that the sink and its library give: those that are replaced whole
/// and what they are written to first, the locks, and the parts of a segment, which are named after its UUID.
pub(super) fn is_own_file(name: &str) -> bool {
    let segment =
        |stem: &str| stem.len() == 32 && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    [MARKER, META, ".managed.json"].contains(&name)
        || name.starts_with(".tantivy-")
        || name.starts_with(LEFTOVER)
        || name.split_once('.').is_some_and(|(stem, _)| segment(stem))
}

fn create_dirs(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
    }
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// A directory of tantivy whose commits survive a power failure.
///
/// Tantivy syncs the directory before it renames the new meta file into place but not after, so that a commit that has
/// returned is safe from the death of the process, not from that of the machine. Here it is safe from both.
#[derive(Debug, Clone)]
pub(super) struct Durable(MmapDirectory);

impl Durable {
    pub(super) fn open(path: &Path) -> ::tantivy::Result<Self> {
        Ok(Self(MmapDirectory::open(path)?))
    }
}

impl Directory for Durable {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.0.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.0.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.0.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.0.open_write(path)
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.0.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.0.atomic_write(path, data)?;
        if path == Path::new(META) { self.0.sync_directory() } else { Ok(()) }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.0.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> ::tantivy::Result<WatchHandle> {
        self.0.watch(callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(name: &str) -> String {
        place(Path::new("r"), &IndexName::new(name).unwrap()).to_str().unwrap().to_owned()
    }

    #[test]
    fn names_become_safe_paths_that_never_meet() {
        assert_eq!(text("users-2_b"), "r/i-users-2_b");
        assert_eq!(text("../A/b"), "r/i-%2e%2e%2f%41%2fb");
        let long = "x".repeat(117);
        let names = ["a", "A", "%61", "a/b", "a", "..", ".", "con", "ä", "i-a", "m-a"];
        let long_names =
            [long.clone(), format!("{long}x"), format!("{long}xx"), "É".repeat(127), "X".repeat(255)];
        let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).chain(long_names).collect();
        let places: BTreeSet<String> = names.iter().map(|name| text(name).to_lowercase()).collect();
        assert_eq!(places.len(), names.len());
        for place in &places {
            assert!(
                place.split('/').all(|part| part.len() <= COMPONENT_BYTES && !part.contains('.')),
                "{place}"
            );
        }
    }

    #[test]
    fn no_index_stands_inside_another() {
        // The components of a longer name that has the shorter one as its beginning branch off before the last.
        for length in 100..255 {
            let (short, long) = ("x".repeat(length), "x".repeat(length + 1));
            assert!(!Path::new(&text(&long)).starts_with(text(&short)), "{length}");
        }
    }

    #[test]
    fn the_root_has_one_owner_and_keeps_the_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let root = Root::open(&path).unwrap();
        assert_eq!(root.epoch().unwrap(), Epoch(0));
        root.save_epoch(Epoch(7)).unwrap();
        let busy = Root::open(&path).unwrap_err();
        assert!(busy.message().contains("already open for writing"), "{busy}");
        drop(root);
        let root = Root::open(&path).unwrap();
        assert_eq!(root.epoch().unwrap(), Epoch(7));
        fs::write(path.join(EPOCH), "seven").unwrap();
        let odd = root.epoch().unwrap_err();
        assert!(odd.message().contains("holds no epoch but \"seven\""), "{odd}");
    }
}
