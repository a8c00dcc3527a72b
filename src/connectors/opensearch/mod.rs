//! A search cluster: a [`Sink`](crate::ports::Sink) that writes to OpenSearch 2 and later, and to Elasticsearch 7.10 and later,
//! over HTTP; and a [`Quarantine`](crate::ports::Quarantine) beside it.
//!
//! ```no_run
//! use syncline::connectors::opensearch::OpenSearchSink;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = OpenSearchSink::builder("https://search.example:9200")
//!     .basic_auth("syncline", std::env::var("SEARCH_PASSWORD")?)
//!     .certificate_authority(std::fs::read("/etc/search/ca.pem")?)
//!     .build()?;
//! let quarantine = sink.quarantine();
//! // `Engine::new(capture, documents, sink).with_quarantine(quarantine)`
//! # Ok(())
//! # }
//! ```
//!
//! # What is written
//!
//! A body is the text of a JSON object. It goes to the index that its document names, which searches find under this very
//! name: it is an alias, and has to be one that the server takes (lower case, at most 180 bytes, none of ``\ / * ? " < > | , # :``
//! or space). Behind it stands a physical index, `<name>-<hash>-<epoch>-<random>`, whose hash is that of its mapping and
//! settings. It is created with the fields of its mapping and no others: a document with another field, or with a value of
//! another kind, is rejected with the server's reason, and the others of its flush are written. Numbers are not coerced
//! from texts. With [`keep_unmapped_fields`](OpenSearchSinkBuilder::keep_unmapped_fields) other fields are kept, unsearched.
//! An index without a mapping, or whose mapping has no fields, takes what comes, as the server sees fit.
//!
//! | field | type |
//! | --- | --- |
//! | text, keyword, integer, float, bool | `text`, `keyword`, `long`, `double`, `boolean` |
//! | object | `object`, whose inner fields the server maps as they come |
//!
//! Each document gets one field more, `syncline_id`: a keyword that holds its id, by which documents can be listed in order. A
//! body or a mapping with a field of that name of its own is refused.
//!
//! Where the mapping or the settings differ from those that the index was created with, another is created, which the engine
//! seeds while the old one is still searched; where it was removed or put back by hand, searches find nothing, or a part,
//! until it is seeded. An index or an alias of that name that the sink has not created is never touched: the run ends, and
//! says what is in the way.
//!
//! # How an index is rebuilt
//!
//! Where it is to be seeded again though its rows are still there ([`Sink::rebuild`](crate::ports::Sink::rebuild)), it has two
//! physical indexes for as long as that takes, and twice the documents. Searches find the old one. The engine sees the new
//! one: its seeded state, what is listed and compared. Every write goes to both, under the same version, so that searches find
//! it at once, and neither goes back in time. What is told of a document is what the new one answered; what the old one could
//! not take at the moment is retried too, and what it refuses, because its mapping is another, is logged, and stays there as
//! it was. Once all of it is durable, the new one is refreshed, and one request puts it behind the alias and removes the old
//! one, while nothing is written to either: nothing that the old one shows is missing in the new one.
//!
//! What searches find is kept only where it holds any document: an index that is seeded for the first time is found as it
//! grows. Where the root table was truncated ([`Sink::clear`](crate::ports::Sink::clear)), nothing is kept, and both are
//! replaced by an empty one, at once. So is an index whose mapping has changed and which nobody seeds, at the first write:
//! nobody would ever say that the new one is complete.
//!
//! The state (below) says which index is written and which is searched, and it is changed first: before the alias is moved,
//! and not after, because it is only ever changed under the condition that nobody has changed it, while a request about
//! aliases may land at any time. So what the aliases are asked for has been decided for good, and landing late it is what the
//! state says anyway, or asks for the removal of an index that is gone, and is refused as a whole. At its start, when it
//! ensures an index, a run has the aliases follow the state, and removes what the state does not name:
//!
//! | a run dies after | the next one finds | and |
//! | --- | --- | --- |
//! | the new index was created | the old one alone in the state | removes the new one |
//! | the state names both | the old one behind the alias | goes on writing to both, from the cursor of the new one |
//! | the state names the new one alone, as seeded | the old one behind the alias, as complete | puts the new one in its place |
//! | the alias was moved | both as the state says | has nothing to do |
//! | another rebuild, or a clear, was in the state | an index that the state names no longer | removes it |
//!
//! One of the two that was removed by hand is done without: searches find what has been built so far, or another one is
//! begun. The old one is then missed by the first flush, which is retried, or by the next start. That is also the way out where
//! a shard of the old one is lost for good: while nobody can tell whether it holds anything, a rebuild is retried, and so is
//! every write to it.
//!
//! # How it is sent
//!
//! A flush is cut into bulk requests by bytes and by count, some of which are under way at once, compressed. Each document is
//! answered for by itself: written; not there when it was to be deleted, which is as good; throttled (429, any 5xx, a
//! cluster block: an outage is never a document's fault), and retried alone; or rejected. Of a whole request, 413 halves it until
//! the document that is too large stands alone and is rejected; 429 and 503 throttle its documents, or, with a
//! `Retry-After`, delay the whole flush for as long; 400 is for the engine to halve; any other 5xx, a time-out, a reset
//! connection and an answer that is cut off are transient; whatever else, 401 and 403 among it, ends the run. What was
//! sent twice is written once, by its version.
//!
//! A flush returns when the server has synced the documents to its log (`index.translog.durability: request`). Searches see
//! them when the server refreshes the index by itself, and at once whenever the engine has caught up: only then the sink
//! asks for a refresh.
//!
//! # What is remembered
//!
//! The epoch, and for each index the physical index with its UUID, its seeded marker or cursor, and the physical index that is
//! searched where it is another, stand in one document of the index `<prefix>-state`, which is only replaced if nobody has replaced it since it was read (`if_seq_no`). A marker
//! holds for its stream, its definition and its physical index alone. Without that document everything is seeded again, and
//! nothing is kept: the records of the quarantine are removed, since they are of epochs that are counted anew.
//!
//! # Late writes
//!
//! Every document carries an external version, made of its run and its build, and the server refuses what is not newer than
//! what it holds. Of a deleted document it keeps the version for [`tombstones`](OpenSearchSinkBuilder::tombstones)
//! (`index.gc_deletes`), an hour where the server's own default is a minute. That is kept in the memory of the shard, so
//! that it is also lost when the shard moves, fails over or restarts. A write that was given up and arrives after both,
//! the deletion and the loss, brings a deleted document back, until the row changes again or the index is seeded.
//!
//! A run writes through an alias of its own to each physical index, `<physical>-e<epoch>`, and the beginning of the next one takes it away, so that
//! requests of earlier runs that arrive from then on are refused (`require_alias`), and the run that sends them ends. What
//! the server had already taken up at that moment may still be applied: so
//! [`refuses_older_epochs`](crate::ports::Guarantees::refuses_older_epochs) is not promised. A server that skips the removal of an alias that is gone may also give it back to an earlier
//! run, where the beginning of a run in between lands late: its versions are older all the same. A deletion through an alias that is gone makes
//! the server create an index of the alias's name, and ends the run that sent it; the next start removes that index, where the
//! engine's builder describes the documents of what it was of.
//!
//! Clearing and rebuilding start another physical index. Whatever was sent before reaches what is removed, or what is kept and
//! has the same versions. A late step of an interrupted clear or rebuild is refused, or leaves an index that nobody names and
//! the next start removes, as above. While a snapshot of an index is taken the server refuses to remove it: the step is tried again, every half a
//! minute for as many times as the engine's retry policy has it, and what is left over is removed by a later start.
//!
//! # What is verified
//!
//! The sink can tell what it holds, for [`Running::verify`](crate::Running::verify). Documents are compared with what `_mget`
//! finds, which needs no refresh: as JSON values, the numbers by their exact decimal value. Documents are listed by searches
//! sorted by `syncline_id`, after a refresh of the index; nothing is kept at the server between them. A document that
//! somebody else has put there without that field is not listed; where it stands in the place of one that has a row, it
//! differs, and is written anew. Settings that have the server make up the sources of documents, instead of storing them,
//! have documents differ that do not.
//!
//! # What the server must grant
//!
//! Within `<prefix>-*`, and within `<name>` and `<name>-*` for each index, the permissions to create and delete indexes, to
//! manage and read aliases, to read mappings and settings, to read, search, write and bulk-write documents, and to refresh. In
//! OpenSearch's terms that is the action group `indices_all` on these patterns, and `indices:data/write/bulk` and
//! `indices:data/read/mget` on the cluster; in Elasticsearch's, the index privilege `all`, or `manage`, `read` and `write`. Nothing of the cluster's settings is
//! read or changed. Its `http.max_content_length` must take a bulk request, and
//! `action.destructive_requires_name` may be set.
//!
//! Two sinks that write to one cluster need [prefixes](OpenSearchSinkBuilder::prefix) of their own, and indexes of their own.
//!
//! # What it needs
//!
//! TLS is that of rustls with ring. Credentials are sent with every request, also over plain HTTP, and to no other host: a
//! redirect ends the run. They stand in no log, no error and no [`Debug`] text. No proxy is taken from the environment.
//!
//! The typed clients of both projects return bulk answers as untyped JSON, and that of Elasticsearch has never left alpha; what
//! is needed here are a dozen calls, made with `reqwest`.

mod date;
mod flush;
mod generations;
mod http;
mod layout;
mod physical;
mod quarantine;
mod sink;
mod state;
mod tls;
mod verify;
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
                writing: tokio::sync::RwLock::default(),
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
