//! A server: how it is reached, and the connections to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{Place, PostgresError};
use super::tls::{Mode, Tls};

/// What every session is set to, so that a value has one text wherever it is read, and so that row-level security is an
/// error where it would hide rows.
pub(super) const SESSION: &str = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=1 \
     -c bytea_output=hex -c xmloption=content -c row_security=off";

/// How many connections a pool has at the most.
const CONNECTIONS: usize = 8;

/// How long to wait for a connection: for one of the pool to come free, and for a new one to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A PostgreSQL server and a database of it, with a pool of connections. Cheap to clone; clones share the pool.
///
/// ```no_run
/// use syncline::connectors::postgres::{Server, Tls};
///
/// # fn main() -> Result<(), syncline::connectors::postgres::PostgresError> {
/// let server = Server::new("host=db.example.com user=search dbname=shop")?
///     .password_file("/run/secrets/shop")
///     .tls(Tls::verify_full("/etc/ssl/certs/ca-certificates.crt"));
/// # Ok(())
/// # }
/// ```
///
/// A password is looked for in this order: in the connection string, in the file, in the environment variable
/// `PGPASSWORD`. File and variable are read for each new connection, so that a password may be changed while a run goes
/// on. It is shown nowhere: not by `Debug`, not in errors, not in logs.
#[derive(Clone)]
pub struct Server {
    config: Config,
    password_file: Option<PathBuf>,
    tls: Option<Tls>,
    connections: usize,
    pub(super) place: Place,
    pool: Arc<std::sync::OnceLock<Pool>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.place.0).finish()
    }
}

impl Server {
    /// A server by a connection string of libpq, of either form: `host=... user=... dbname=...`, or
    /// `postgresql://user@host/dbname`. Nothing is connected yet. The replication connection goes to the first host.
    ///
    /// Errors: a string that cannot be read, or that names no host, user or database.
    pub fn new(connection: &str) -> Result<Self, PostgresError> {
        let wrong = |what: String| PostgresError::Settings { what };
        // The parser's own error shows a part of the string, which may be of the password.
        let mut config: Config = connection.parse().map_err(|_| {
            wrong("they are neither `key=value` pairs nor a `postgresql://` URL of known options".into())
        })?;
        let missing = |what: &str| wrong(format!("they name no {what}"));
        let user = config.get_user().ok_or_else(|| missing("user"))?.to_owned();
        let database = config.get_dbname().ok_or_else(|| missing("dbname"))?.to_owned();
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => return Err(missing("host")),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let options = match config.get_options() {
            Some(given) => format!("{given} {SESSION}"),
            None => SESSION.into(),
        };
        config.options(options);
        if config.get_application_name().is_none() {
            config.application_name("syncline");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(Self {
            config,
            password_file: None,
            tls: None,
            connections: CONNECTIONS,
            place: Place(format!("{user}@{host}:{port}/{database}")),
            pool: Arc::default(),
        })
    }

    /// Reads the password from this file, whose last line break does not count.
    #[must_use]
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password_file = Some(path.into());
        self.separate()
    }

    /// How connections are encrypted. Default: as the `sslmode` of the connection string says (`disable`, `prefer` or
    /// `require`), and [`Tls::prefer`] where it says nothing.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self.separate()
    }

    /// How many connections the pool has at the most, besides the one of the change stream. Default: 8; at least one.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self.separate()
    }

    /// Who connects, as SQL spells it.
    pub(super) fn role(&self) -> String {
        quoted(self.config.get_user().unwrap_or_default())
    }

    /// Settings were changed: what was connected with others is not theirs.
    fn separate(mut self) -> Self {
        self.pool = Arc::default();
        self
    }

    /// A connection of the pool.
    pub(super) async fn client(&self) -> Result<Object, PostgresError> {
        let pool = match self.pool.get() {
            Some(pool) => pool,
            None => {
                let made = self.make_pool()?;
                self.pool.get_or_init(|| made)
            }
        };
        pool.get().await.map_err(|error| match self.current_config() {
            // The server's refusal of an empty password would hide why it was empty.
            Err(unreadable) => unreadable,
            Ok(_) => self.place.pooled(self.connections)(error),
        })
    }

    fn make_pool(&self) -> Result<Pool, PostgresError> {
        let connector = Connector { server: self.clone(), tls: self.mode_and_connector()? };
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(self.config.clone(), connector, recycling);
        Pool::builder(manager)
            .max_size(self.connections)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresError::Settings { what: error.to_string() })
    }

    fn tls_settings(&self) -> Tls {
        match (&self.tls, self.config.get_ssl_mode()) {
            (Some(tls), _) => tls.clone(),
            (None, SslMode::Disable) => Tls::disable(),
            (None, SslMode::Require) => Tls::require(),
            (None, _) => Tls::prefer(),
        }
    }

    /// Whether to speak TLS, and with what. Nothing is read from files where not.
    pub(super) fn mode_and_connector(&self) -> Result<Option<(Mode, MakeRustlsConnect)>, PostgresError> {
        let tls = self.tls_settings();
        let over_tcp = matches!(self.config.get_hosts().first(), Some(Host::Tcp(_)));
        match tls.mode {
            Mode::Disable => Ok(None),
            // There is none over a Unix socket, and who prefers it takes that.
            Mode::Prefer if !over_tcp => Ok(None),
            mode => Ok(Some((mode, tls.connector()?))),
        }
    }

    /// The settings of a connection that is made now.
    pub(super) fn current_config(&self) -> Result<Config, PostgresError> {
        let mut config = self.config.clone();
        if config.get_password().is_some() {
            return Ok(config);
        }
        if let Some(path) = &self.password_file {
            let password = std::fs::read_to_string(path).map_err(|error| PostgresError::Settings {
                what: format!("the password file `{}`: {error}", path.display()),
            })?;
            config.password(password.trim_end_matches(['\n', '\r']));
        } else if let Some(password) = std::env::var_os("PGPASSWORD") {
            config.password(password.into_encoded_bytes());
        }
        Ok(config)
    }
}

/// Makes the connections of a pool.
struct Connector {
    server: Server,
    tls: Option<(Mode, MakeRustlsConnect)>,
}

impl Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        // A password file that cannot be read now leaves the password out: the server's refusal is the error then.
        let mut config = self.server.current_config().unwrap_or_else(|error| {
            tracing::warn!(%error, "connecting without a password");
            config.clone()
        });
        Box::pin(async move {
            match &self.tls {
                None => {
                    config.ssl_mode(SslMode::Disable);
                    let (client, connection) = config.connect(NoTls).await?;
                    Ok((client, spawned(connection)))
                }
                Some((mode, connector)) => {
                    let prefers = *mode == Mode::Prefer;
                    config.ssl_mode(if prefers { SslMode::Prefer } else { SslMode::Require });
                    let (client, connection) = config.connect(connector.clone()).await?;
                    Ok((client, spawned(connection)))
                }
            }
        })
    }
}

fn spawned<S, T>(connection: tokio_postgres::Connection<S, T>) -> JoinHandle<()>
where
    tokio_postgres::Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async move {
        // Whoever uses the connection is told of it too.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    })
}

/// An identifier as SQL text, whatever characters it has.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Fault, FaultKind};

    #[test]
    fn b15_settings_say_what_is_wrong_and_show_no_password() {
        for (given, what) in [
            ("host=a user=b", "they name no dbname"),
            ("user=b dbname=c", "they name no host"),
            ("host=a dbname=c password=hunter2", "they name no user"),
            ("host=a user=b dbname=c password hunter2", "neither `key=value` pairs nor"),
            ("postgresql://b:hunter2@a/c?hunter2=1", "neither `key=value` pairs nor"),
        ] {
            let fault = Fault::from(Server::new(given).unwrap_err());
            assert_eq!(fault.kind(), FaultKind::Fatal);
            assert!(fault.message().contains(what), "{fault}");
            assert!(!fault.message().contains("hunter2"), "{fault}");
        }
        let server = Server::new("postgresql://b:hunter2@a:5433/c").unwrap();
        assert_eq!(format!("{server:?}"), r#"Server("b@a:5433/c")"#);
    }

    #[test]
    fn passwords_come_from_the_string_or_else_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "from the file\n").unwrap();
        let password =
            |server: Server| server.current_config().map(|config| config.get_password().map(<[u8]>::to_vec));
        let plain = Server::new("host=a user=b dbname=c").unwrap().password_file(&path);
        assert_eq!(password(plain.clone()).unwrap(), Some(b"from the file".to_vec()));
        // Another one is read by the next connection.
        std::fs::write(&path, "changed").unwrap();
        assert_eq!(password(plain).unwrap(), Some(b"changed".to_vec()));
        let given = Server::new("host=a user=b dbname=c password=own").unwrap().password_file(&path);
        assert_eq!(password(given).unwrap(), Some(b"own".to_vec()));
        let missing = Server::new("host=a user=b dbname=c").unwrap().password_file("/nowhere/password");
        assert!(password(missing).unwrap_err().to_string().contains("`/nowhere/password`"));
    }

    #[test]
    fn b15_certificates_that_cannot_be_read_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        std::fs::write(&path, "no certificate").unwrap();
        for (tls, what) in [
            (Tls::verify_full("/nowhere/roots.pem"), "`/nowhere/roots.pem`"),
            (Tls::verify_ca(&path), "there are none"),
            (Tls::require().identity("/nowhere/own.pem", "/nowhere/key.pem"), "`/nowhere/"),
        ] {
            let server = Server::new("host=a user=b dbname=c").unwrap().tls(tls);
            let error = server.mode_and_connector().err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(
            Server::new("host=a user=b dbname=c sslmode=disable")
                .unwrap()
                .mode_and_connector()
                .unwrap()
                .is_none()
        );
        assert!(Server::new("host=/tmp user=b dbname=c").unwrap().mode_and_connector().unwrap().is_none());
        assert!(Server::new("host=a user=b dbname=c").unwrap().mode_and_connector().unwrap().is_some());
    }

    #[test]
    fn identifiers_are_quoted_whatever_they_hold() {
        assert_eq!(quoted("a\"b c"), "\"a\"\"b c\"");
    }
}
