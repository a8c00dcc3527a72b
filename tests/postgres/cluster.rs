//! A PostgreSQL server in a directory of its own.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// A server that is stopped when this is dropped, and when this process ends in whatever way.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    pub(crate) port: u16,
    keeper: Mutex<Option<Child>>,
}

/// The server that all tests share which need none of their own.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// Where a server's binaries are; `None` where there are none.
fn binaries() -> Option<PathBuf> {
    let given = std::env::var_os("PG_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    debian.sort();
    debian.reverse();
    let has_all = |directory: &PathBuf| {
        ["initdb", "pg_basebackup", "postgres", "psql"].iter().all(|name| directory.join(name).exists())
    };
    given.into_iter().chain(std::env::split_paths(&path)).chain(debian).find(has_all)
}

/// PostgreSQL refuses to run as root: then it runs as one of these.
fn other_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}

impl Cluster {
    /// The shared server; `None`, and a word about it, where there are no binaries.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start("")?);
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    /// A server with these further settings.
    pub(crate) fn start(settings: &str) -> Option<Self> {
        let Some(binaries) = binaries() else {
            assert!(std::env::var_os("SYNCLINE_REQUIRE_SERVERS").is_none(), "no PostgreSQL server was found");
            // Past the capture of the test harness: a test that was skipped must not look like one that passed.
            let _ = std::io::stderr().write_all(
                b"SKIPPED: no PostgreSQL server was found; install one (Debian: postgresql) or name its bin in PG_BIN\n",
            );
            return None;
        };
        let cluster = Self::nowhere(binaries);
        let (data, port) = (cluster.data(), cluster.port);
        cluster.run(
            "initdb",
            &[
                "-D",
                data.to_str().unwrap(),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale=C.UTF-8",
            ],
        );
        cluster.write("postgresql.conf", &format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nwal_level = logical\n\
             max_wal_senders = 50\nmax_replication_slots = 50\nmax_connections = 200\nfsync = off\n\
             shared_buffers = 32MB\nlog_min_messages = warning\ntimezone = 'America/New_York'\n\
             datestyle = 'SQL, DMY'\nintervalstyle = 'sql_standard'\nbytea_output = 'escape'\nextra_float_digits = -1\n{settings}\n",
            cluster.directory.path().display()
        ));
        cluster.write(
            "pg_hba.conf",
            "local all all trust\nlocal replication all trust\n\
             host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n",
        );
        cluster.up();
        Some(cluster)
    }

    /// A directory and a port, and no server yet.
    fn nowhere(binaries: PathBuf) -> Self {
        let directory = tempfile::Builder::new().prefix("syncline-pg-").tempdir().unwrap();
        let user = other_user();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { directory, binaries, user, port, keeper: Mutex::new(None) }
    }

    /// A standby of this server, which answers queries while it replays the log.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self::nowhere(self.binaries.clone());
        let (data, port) = (standby.data(), self.port.to_string());
        let (data, from) = (data.to_str().unwrap(), self.directory.path().to_str().unwrap());
        let options = ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-U", "postgres"];
        standby.run("pg_basebackup", &[&["-D", data, "-h", from, "-p", &port], &options[..]].concat());
        let settings = std::fs::read_to_string(standby.data().join("postgresql.conf")).unwrap();
        let (port, socket) = (standby.port, standby.directory.path().display());
        let own = format!("port = {port}\nunix_socket_directories = '{socket}'\nhot_standby = on\n");
        standby.write("postgresql.conf", &format!("{settings}{own}"));
        standby.up();
        standby
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a file of the server's, readable by it alone.
    pub(crate) fn write(&self, name: &str, contents: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.data().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(self.directory.path()).env_remove("PGPASSWORD");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the server, and waits until it answers. A shell between it and this process waits for the end of a pipe,
    /// so that it is stopped also where this process is killed.
    pub(crate) fn up(&self) {
        let mut command = Command::new("sh");
        command.current_dir(self.directory.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let keeper = command
            .args(["-c", "\"$@\" & server=$!; cat >/dev/null; kill -QUIT $server; wait $server", "keeper"])
            .arg(self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.keeper.lock().unwrap() = Some(keeper);
        let started = Instant::now();
        while !self.psql("postgres", "SELECT 1").is_ok_and(|answer| answer == "1") {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Sends the server a signal: `INT` breaks all connections off, `QUIT` and `KILL` are a crash. Waits until it is gone.
    pub(crate) fn down(&self, signal: &str) {
        self.down_within(signal, Duration::ZERO);
    }

    /// The same; a server that does not end within this time is made to crash.
    pub(crate) fn down_within(&self, signal: &str, patience: Duration) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().trim().to_owned();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let told = Instant::now();
        while told.elapsed() < patience && self.data().join("postmaster.pid").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut keeper = self.keeper.lock().unwrap().take().unwrap();
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        // The children of a server that was killed outlive it for a moment, and hold its memory.
        let started = Instant::now();
        while Command::new("kill").args(["-0", &pid]).stderr(Stdio::null()).status().unwrap().success() {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        if signal == "KILL" {
            let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        }
    }

    /// Runs some SQL as the superuser. Returns what it yields, a line for a row.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child = self
            .session(database)
            .args(["-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that could not connect says why, and takes nothing.
        let _ = child.stdin.take().unwrap().write_all(sql.as_bytes());
        let output = child.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn session(&self, database: &str) -> Command {
        let mut command = self.command("psql");
        let host = self.directory.path().to_str().unwrap();
        command.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-h", host, "-d", database]);
        command.args(["-p", &self.port.to_string()]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.get_mut().unwrap().take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}
