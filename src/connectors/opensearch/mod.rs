//! A sink for OpenSearch and Elasticsearch.

mod date;
mod flush;
mod http;
mod layout;
mod physical;
mod quarantine;
mod sink;
mod state;
pub mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value as Json};

use self::http::{Credentials, Http};
pub use self::quarantine::{OpenSearchQuarantine, QuarantineRecord};
use crate::error::Fault;

/// Writes documents to a cluster. Clones are the same sink.
#[derive(Debug, Clone)]
pub struct OpenSearchSink {
    shared: Arc<sink::Shared>,
}

/// How a sink writes, and as whom. See [`OpenSearchSink::builder`]. Its text shows no credentials.
#[derive(Clone)]
#[must_use]
pub struct OpenSearchSinkBuilder {
    url: String,
    credentials: Credentials,
    authority: Option<Vec<u8>>,
    timeout: Duration,
    gzip: bool,
    prefix: String,
    sending: flush::Sending,
    flushes: usize,
    tombstones: Duration,
    keeps_unmapped: bool,
    settings: String,
}

impl std::fmt::Debug for OpenSearchSinkBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("OpenSearchSinkBuilder")
            .field("credentials", &self.credentials)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl OpenSearchSinkBuilder {
    /// Asks as this user.
    pub fn basic_auth(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { credentials: Credentials::Basic { user: user.into(), password: password.into() }, ..self }
    }

    /// Asks with this key, in the encoded form that the server gave it out in.
    pub fn api_key(self, encoded: impl Into<String>) -> Self {
        Self { credentials: Credentials::ApiKey(encoded.into()), ..self }
    }

    /// Trusts the certificates in this PEM text to sign the server's, and no others. Default: those that the system trusts.
    pub fn certificate_authority(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { authority: Some(pem.into()), ..self }
    }

    /// How long one request may take. Default: 50 s, which is less than an engine gives an attempt, so that the reason is
    /// told; keep it so.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether requests are compressed; answers always may be. Default: yes.
    pub fn gzip(self, gzip: bool) -> Self {
        Self { gzip, ..self }
    }

    /// What the names of the sink's own indexes begin with: `<prefix>-state`, `<prefix>-quarantine`. Two sinks that write
    /// to one cluster have different ones. Default: `syncline`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The most bytes of one bulk request, before they are compressed. A document that is larger goes alone. Default: 5 MiB.
    pub fn request_bytes(self, bytes: usize) -> Self {
        Self { sending: flush::Sending { max_bytes: bytes, ..self.sending }, ..self }
    }

    /// The most documents of one bulk request. Default: 1,000.
    pub fn request_documents(self, documents: usize) -> Self {
        Self { sending: flush::Sending { max_documents: documents, ..self.sending }, ..self }
    }

    /// How many bulk requests of one flush are under way at once. Default: 4.
    pub fn requests(self, requests: usize) -> Self {
        Self { sending: flush::Sending { requests, ..self.sending }, ..self }
    }

    /// How many flushes are under way at once, each with its own [`requests`](Self::requests). Default: 1.
    pub fn flushes(self, flushes: usize) -> Self {
        Self { flushes, ..self }
    }

    /// How long the server remembers the versions of deleted documents (`index.gc_deletes`). A write that arrives later than
    /// that after the deletion of its document brings it back. Default: an hour.
    pub fn tombstones(self, kept: Duration) -> Self {
        Self { tombstones: kept, ..self }
    }

    /// Keeps fields that are not in the mapping of their index, unsearched, instead of having their documents rejected.
    pub fn keep_unmapped_fields(self) -> Self {
        Self { keeps_unmapped: true, ..self }
    }

    /// The settings of every index that is created, as the text of a JSON object that would stand below `index`:
    /// `{"number_of_shards": 3, "number_of_replicas": 1}`. Where they change, every index is created anew, and seeded.
    pub fn index_settings(self, json: impl Into<String>) -> Self {
        Self { settings: json.into(), ..self }
    }

    /// The sink. It asks nothing of the server yet. Errors: fatal, where a setting, the URL or a certificate cannot be used.
    pub fn build(self) -> Result<OpenSearchSink, Fault> {
        let settings: Map<String, Json> = serde_json::from_str(&self.settings).map_err(|error| {
            Fault::fatal(format!("the settings of indexes are not a JSON object: {error}"))
        })?;
        if self.tombstones.as_secs() < 60 {
            return Err(Fault::fatal("the versions of deleted documents are kept for a minute at the least"));
        }
        layout::check_prefix(&self.prefix)?;
        let http =
            Http::new(&self.url, self.credentials, self.authority.as_deref(), self.timeout, self.gzip)?;
        let defaults = layout::Defaults {
            gc_deletes_seconds: self.tombstones.as_secs(),
            keeps_unmapped: self.keeps_unmapped,
            settings,
            owner: self.prefix.clone(),
        };
        Ok(OpenSearchSink {
            shared: Arc::new(sink::Shared {
                http,
                defaults,
                sending: self.sending,
                flushes: self.flushes.max(1),
                store: state::Store::new(&self.prefix),
                run: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
                ensuring: tokio::sync::Mutex::default(),
            }),
        })
    }
}

impl OpenSearchSink {
    /// A sink for the server at `url` with the default settings, to be changed: `https://search.example:9200`.
    pub fn builder(url: impl Into<String>) -> OpenSearchSinkBuilder {
        OpenSearchSinkBuilder {
            url: url.into(),
            credentials: Credentials::None,
            authority: None,
            timeout: Duration::from_secs(50),
            gzip: true,
            prefix: "syncline".to_owned(),
            sending: flush::Sending { max_bytes: 5 << 20, max_documents: 1_000, requests: 4 },
            flushes: 1,
            tombstones: Duration::from_secs(3_600),
            keeps_unmapped: false,
            settings: "{}".to_owned(),
        }
    }
}
