//! The copy of the sources that all bugs are planted in, and the program that is built from it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::planted::patch::{self, Files};
use crate::planted::{CHOSEN, bugs, ground, package};

/// What of the repository is copied: as much as Cargo needs to build the simulation with the lock file as it is.
const COPIED: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "src",
    "sim",
    "proptests",
    "fuzz",
    "benches",
    "examples",
    "tests",
];

/// Files that are read as text, and may be patched.
const TEXTS: [&str; 4] = ["rs", "toml", "lock", "md"];

/// A program in which every bug is planted, and one can be awake.
#[derive(Debug, Clone)]
pub struct Copy {
    program: PathBuf,
}

impl Copy {
    /// Copies the sources as they are now, plants all bugs, and builds that. Dependencies are shared with the original's
    /// build, so that the engine and the simulation alone are compiled. Errors: a patch that does not fit, or a build that
    /// fails.
    pub fn make() -> Result<Self, String> {
        let target = target()?;
        let root = target.join("planted");
        let mut files = sources(&package().join(".."))?;
        let mut patches = bugs()?;
        patches.push(ground()?);
        patch::apply(&mut files, &patches)?;
        let switch = package().join("planted/switch.rs");
        files.insert("src/planted.rs".to_owned(), read(&switch)?);
        write(&root, &files).map_err(|error| format!("{}: {error}", root.display()))?;
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "sim",
                "--bin",
                "planted",
                "--profile",
                "sim",
            ])
            .args(["--config", "build.rustflags=['--cfg','madsim']", "--target-dir"])
            .arg(&target)
            .current_dir(&root)
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("cargo: {error}"))?;
        match status.success() {
            true => Ok(Self { program: target.join("sim/planted") }),
            false => Err(format!("the copy in {} was not built: {status}", root.display())),
        }
    }

    /// A process of it in which this bug is awake; none, where there is no name.
    #[must_use]
    pub fn command(&self, bug: Option<&str>, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env(CHOSEN, bug.unwrap_or_default()).env("CARGO_MANIFEST_DIR", package());
        command
    }
}

/// The target directory of this program.
fn target() -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let profile = program.ancestors().find(|directory| directory.join("deps").is_dir());
    let target = profile.and_then(Path::parent).ok_or("this program was not built by cargo")?;
    Ok(target.to_owned())
}

fn sources(root: &Path) -> Result<Files, String> {
    let mut files = Files::new();
    for name in COPIED {
        gather(root, Path::new(name), &mut files)?;
    }
    Ok(files)
}

fn gather(root: &Path, path: &Path, files: &mut Files) -> Result<(), String> {
    let whole = root.join(path);
    if whole.is_dir() {
        for entry in super::files(&whole)? {
            gather(root, &path.join(entry.file_name().unwrap_or_default()), files)?;
        }
    } else if path.extension().is_some_and(|kind| TEXTS.iter().any(|text| kind == *text)) {
        // Paths in patches are written with `/`.
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        files.insert(parts.join("/"), read(&whole)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes what differs, so that nothing is built again for nothing, and removes what is no more.
fn write(root: &Path, files: &Files) -> io::Result<()> {
    for (path, text) in files {
        let path = root.join(path);
        if fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            continue;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, text)?;
    }
    let wanted: BTreeSet<PathBuf> = files.keys().map(|path| root.join(path)).collect();
    remove_others(root, &wanted)
}

fn remove_others(directory: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
