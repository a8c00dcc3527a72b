//! What can be set: the file, and the secrets that stand in the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use syncline::Fault;
use syncline::connectors::opensearch::OpenSearchSink;
use syncline::connectors::postgres::{IndexDefinition, Related, Server, Tls};
use syncline::ports::{Field, FieldKind};

/// The password of [`OpenSearch::user`].
const SEARCH_PASSWORD: &str = "SEARCH_PASSWORD";

/// A key instead of a user.
const SEARCH_API_KEY: &str = "SEARCH_API_KEY";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Under which name the server keeps its log for this program: one for each destination.
    pub(crate) consumer: String,
    /// Where `/metrics` and `/health` are served. No password is asked for: keep it inside.
    #[serde(default = "default_listen")]
    pub(crate) listen: String,
    #[serde(default)]
    pub(crate) on_rejected: OnRejected,
    /// Within how long a program that is told to stop has ended. Less than whoever stops it waits before it kills.
    #[serde(default = "default_drain_seconds")]
    pub(crate) drain_seconds: u64,
    /// How long `/health` tells of a run that has failed, before the program ends and is started anew.
    #[serde(default = "default_linger_seconds")]
    pub(crate) linger_seconds: u64,
    /// `/health` fails while the oldest change that is not acknowledged is older.
    #[serde(default = "default_stalled_seconds")]
    pub(crate) stalled_seconds: u64,
    /// A warning is logged once the server keeps more of its log than this for the program. Default: 1 GiB.
    pub(crate) lag_alarm_bytes: Option<u64>,
    postgres: Postgres,
    opensearch: OpenSearch,
    #[serde(rename = "index")]
    indexes: Vec<Index>,
}

/// What is made of the settings without asking a server.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Whose changes are captured.
    pub(crate) captured: Server,
    /// Where documents are read: a standby of the captured server, or that server itself.
    pub(crate) read: Server,
    /// How the documents of each index are made.
    pub(crate) definitions: Vec<IndexDefinition>,
    pub(crate) sink: OpenSearchSink,
}

/// What happens to a document that the cluster rejects, or that cannot be built.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnRejected {
    /// The program ends, and nothing is lost.
    #[default]
    Stop,
    /// It is remembered in the quarantine, and the others go on.
    Skip,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Postgres {
    /// As libpq takes it. The password is not here but in `PGPASSWORD`, or in the file.
    connection: String,
    /// A standby from which documents are read.
    read_from: Option<String>,
    password_file: Option<PathBuf>,
    /// The certificates that sign the server's, in PEM: then its name is verified too.
    certificate_authority: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenSearch {
    url: String,
    user: Option<String>,
    certificate_authority: Option<PathBuf>,
    /// What the names of the program's own indexes begin with.
    prefix: Option<String>,
    /// A JSON object: the settings of every index that is created.
    index_settings: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    name: String,
    /// The root table: each of its rows is a document.
    table: String,
    /// Yields the key and the body of every document whose key is in `$1`.
    sql: String,
    /// The kinds of the fields: `text`, `keyword`, `integer`, `float`, `bool`, `object`.
    #[serde(default)]
    fields: BTreeMap<String, Kind>,
    /// The other tables that the SQL reads.
    #[serde(default)]
    related: Vec<RelatedTable>,
    /// Tables that the SQL reads and whose changes do not matter.
    #[serde(default)]
    constant: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelatedTable {
    table: String,
    /// The columns that name the document, or that are given to the SQL.
    columns: Vec<String>,
    /// Where the columns do not name the document: yields them, and the key of the document.
    sql: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Keyword,
    Integer,
    Float,
    Bool,
    Object,
}

fn default_listen() -> String {
    "127.0.0.1:9184".into()
}

fn default_drain_seconds() -> u64 {
    25
}

fn default_linger_seconds() -> u64 {
    10
}

fn default_stalled_seconds() -> u64 {
    300
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| Fault::fatal(format!("reading `{}`: {error}", path.display())))
}

/// What is wrong, without the value that is: a name that is not known is told, and of a value only what was expected.
fn without_values(message: &str) -> String {
    let is_of_a_name =
        ["unknown field", "missing field", "duplicate"].iter().any(|of| message.starts_with(of));
    match message.split_once(", expected ") {
        Some((_, expected)) if !is_of_a_name => format!("expected {expected}"),
        _ => message.to_owned(),
    }
}

impl Config {
    /// Reads the file. Errors name the file, the place and what is wrong there.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Fault::fatal(format!("reading `{shown}`: {error}")))?;
        // The error itself would show the line, or a value, and what stands there may be a secret that should not.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let place = error.span().and_then(|span| text.get(..span.start)).map(|before| {
                let line = before.rsplit('\n').next().unwrap_or_default();
                format!(", line {}, column {}", before.matches('\n').count() + 1, line.chars().count() + 1)
            });
            Fault::fatal(format!(
                "`{shown}`{}: {}",
                place.unwrap_or_default(),
                without_values(error.message())
            ))
        })
    }

    /// Errors: a value that cannot be used, or a secret or a file that is not there.
    pub(crate) fn parts(&self) -> Result<Parts, Fault> {
        if self.indexes.is_empty() {
            return Err(Fault::fatal("no `[[index]]` is defined"));
        }
        // They are read anew with each connection.
        let files = [&self.postgres.password_file, &self.postgres.certificate_authority];
        for path in files.into_iter().flatten() {
            read(path)?;
        }
        let captured = self.postgres.server(&self.postgres.connection)?;
        let read = match &self.postgres.read_from {
            Some(standby) => self.postgres.server(standby)?,
            None => captured.clone(),
        };
        let definitions = self.indexes.iter().map(Index::definition).collect::<Result<_, _>>()?;
        Ok(Parts { captured, read, definitions, sink: self.opensearch.sink()? })
    }

    /// How long a run that is told to stop works off what is owed.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds).saturating_sub(self.grace())
    }

    /// How long it waits after that for what is under way.
    pub(crate) fn grace(&self) -> Duration {
        (Duration::from_secs(self.drain_seconds) / 4).min(Duration::from_secs(10))
    }
}

impl Postgres {
    /// A server by a connection string. The password is read from the environment where the file is not named.
    fn server(&self, connection: &str) -> Result<Server, Fault> {
        let mut server = Server::new(connection)?;
        if let Some(path) = &self.password_file {
            server = server.password_file(path);
        }
        if let Some(roots) = &self.certificate_authority {
            server = server.tls(Tls::verify_full(roots));
        }
        Ok(server)
    }
}

impl OpenSearch {
    fn sink(&self) -> Result<OpenSearchSink, Fault> {
        let mut builder = OpenSearchSink::builder(&self.url);
        if let Some(user) = &self.user {
            let password = std::env::var(SEARCH_PASSWORD).map_err(|error| {
                let what = "`opensearch.user` is set; its password is looked for in the variable";
                Fault::fatal(format!("{what} {SEARCH_PASSWORD}: {error}"))
            })?;
            builder = builder.basic_auth(user, password);
        } else if let Ok(key) = std::env::var(SEARCH_API_KEY) {
            builder = builder.api_key(key);
        }
        if let Some(path) = &self.certificate_authority {
            builder = builder.certificate_authority(read(path)?);
        }
        if let Some(prefix) = &self.prefix {
            builder = builder.prefix(prefix);
        }
        if let Some(settings) = &self.index_settings {
            builder = builder.index_settings(settings);
        }
        builder.build()
    }
}

impl Index {
    fn definition(&self) -> Result<IndexDefinition, Fault> {
        let mut definition = IndexDefinition::new(&self.name, &self.table, &self.sql)?;
        for (name, kind) in &self.fields {
            definition = definition.field(Field::new(name, kind.of_field()));
        }
        for RelatedTable { table, columns, sql } in &self.related {
            definition = definition.related(match sql {
                None => Related::columns(table, columns)?,
                Some(sql) => Related::query(table, columns, sql)?,
            });
        }
        for table in &self.constant {
            definition = definition.constant(table);
        }
        Ok(definition)
    }
}

impl Kind {
    fn of_field(self) -> FieldKind {
        match self {
            Self::Text => FieldKind::Text,
            Self::Keyword => FieldKind::Keyword,
            Self::Integer => FieldKind::Integer,
            Self::Float => FieldKind::Float,
            Self::Bool => FieldKind::Bool,
            Self::Object => FieldKind::Object,
        }
    }
}
