//! Two servers that others wrote, from PyPI, in a virtual environment of their own: each test starts its own, on a free
//! port, and stops it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::exchange;

const PACKAGES: [&str; 2] = ["osmem-server==0.1.6", "noida-db==0.2.3"];

/// With this variable set, a test that has no server fails instead of being skipped.
const REQUIRED: &str = "SYNCLINE_REQUIRE_SERVERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keeps the versions of deletions as the real one does; everything is visible at once.
    Osmem,
    /// Knows refreshes; takes a write that is older than a deletion.
    Noida,
}

/// A running server. It ends when this is dropped, or when the test dies.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
    _data: tempfile::TempDir,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts one. `None`, after saying so, where the servers cannot be had.
    pub(crate) async fn start(kind: Kind) -> Option<Self> {
        static ENVIRONMENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let packages = match ENVIRONMENT.get_or_init(environment) {
            Ok(packages) => packages,
            Err(why) => {
                assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
                // Not `eprintln`, which is shown of failed tests alone.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED on {kind:?}: {why}. These tests install {} from PyPI: have python3 with venv and pip, and the \
                     registry within reach, and run them again",
                    PACKAGES.join(" and ")
                );
                return None;
            }
        };
        // Between a port being free and its being taken someone else may take it.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(kind, packages).await {
                return Some(server);
            }
        }
        panic!("{kind:?} did not start");
    }

    async fn try_start(kind: Kind, packages: &Path) -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let command = match kind {
            Kind::Osmem => {
                format!(
                    "'{}' -addr 127.0.0.1:{port} -no-ja -no-stdin-watch",
                    packages.join("osmem_server/bin/osmem-server").display()
                )
            }
            Kind::Noida => format!(
                "'{}' start --only elasticsearch --elasticsearch-port {port} --data-dir '{}'",
                packages.join("noida_db/noida-db").display(),
                data.path().display()
            ),
        };
        // The shell waits for its input to end, which it does with the test, however that ends.
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{command} & server=$!; read _; kill $server; wait $server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Self { kind, address, child, _data: data };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if let Ok(answer) = exchange(address, "GET", "/", "").await {
                return (answer.status == 200).then_some(server);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The directory of the packages, installed if they are not there yet. Errors: why they cannot be had.
fn environment() -> Result<PathBuf, String> {
    // Cargo names the directory to tests, and not to examples.
    let tmp =
        option_env!("CARGO_TARGET_TMPDIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp"));
    let root = Path::new(tmp).join("opensearch-servers");
    let installed = root.join(PACKAGES.join("+"));
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    fs::create_dir_all(&root).map_err(|error| failed("creating the environment", error))?;
    // Several test processes may come upon it at once.
    let lock = File::create(root.join("lock")).and_then(|lock| lock.lock().map(|()| lock));
    let _lock = lock.map_err(|error| failed("locking the environment", error))?;
    let venv = root.join("venv");
    if !installed.exists() {
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/python"));
        run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
        File::create(&installed).map_err(|error| failed("marking the environment", error))?;
    }
    let python = fs::read_dir(venv.join("lib")).map_err(|error| failed("reading the environment", error))?;
    let packages =
        python.flatten().map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir());
    packages.ok_or_else(|| "the environment holds no packages".to_owned())
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown} failed: {}", said.lines().last().unwrap_or_default()))
}
