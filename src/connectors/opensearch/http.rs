//! Requests and their answers: who is asked, as whom, for how long, and what a failure means for the engine.

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Url};
use serde::de::DeserializeOwned;

use super::date::seconds_of;
use super::tls;
use super::wire::Refusal;
use crate::error::{Fault, FaultKind};

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// From how many bytes on a body is worth compressing.
const MIN_GZIP_BYTES: usize = 1_024;

/// The longest delay that a server is granted: a header that is wrong must not stop a run for good.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Who asks. Its text shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    ApiKey(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::ApiKey(_) => "ApiKey(…)",
        })
    }
}

/// A server, and everything that is needed to ask it.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    base: Url,
    credentials: Credentials,
    gzip: bool,
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Json(serde_json::Value),
    /// Lines of JSON.
    Lines(String),
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl Http {
    /// A client for the server at `url`. Credentials in the URL are taken out of it. Errors: fatal, where the URL, the
    /// credentials or the certificates cannot be used.
    pub(super) fn new(
        url: &str,
        mut credentials: Credentials,
        authority: Option<&[u8]>,
        timeout: Duration,
        gzip: bool,
    ) -> Result<Self, Fault> {
        // What cannot be parsed is not shown: it may hold a password.
        let mut base =
            Url::parse(url).map_err(|error| Fault::fatal(format!("the URL of the server: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(Fault::fatal("the URL of the server begins with neither http:// nor https://"));
        }
        if let Some((user, password)) = credentials_of(&base)? {
            if credentials != Credentials::None {
                return Err(Fault::fatal("credentials stand both in the URL and beside it"));
            }
            credentials = Credentials::Basic { user, password };
            let cleaned = base.set_username("").and_then(|()| base.set_password(None));
            cleaned.map_err(|()| Fault::fatal("the URL of the server cannot have credentials"))?;
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        if let Credentials::ApiKey(key) = &credentials {
            api_key(key)?;
        }
        let builder = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .tls_backend_preconfigured(tls::config(authority)?)
            // A redirect would carry documents to where nobody meant to send them.
            .redirect(reqwest::redirect::Policy::none());
        let client = builder.build().map_err(|error| Fault::fatal(error.without_url()))?;
        Ok(Self { client, base, credentials, gzip })
    }

    /// Asks, and reads the whole answer. `path` is encoded already. Errors: transient, where there was no answer; what
    /// was asked may have been done nevertheless. Fatal, where the server's certificate is not trusted.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Answer, Fault> {
        let url =
            self.base.join(path).map_err(|error| Fault::fatal(format!("the path of a request: {error}")))?;
        let what = format!("{method} {}", url.path());
        let mut request = self.client.request(method, url);
        request = match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
            Credentials::ApiKey(key) => request.header(reqwest::header::AUTHORIZATION, api_key(key)?),
        };
        let (kind, bytes) = match body {
            Body::None => (None, Vec::new()),
            Body::Json(json) => (Some("application/json"), json.to_string().into_bytes()),
            Body::Lines(lines) => (Some("application/x-ndjson"), lines.into_bytes()),
        };
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
            request = match self.gzip && bytes.len() >= MIN_GZIP_BYTES {
                true => request.header(CONTENT_ENCODING, "gzip").body(gzip(bytes).await?),
                false => request.body(bytes),
            };
        }
        let failed = |error: reqwest::Error| transport(&what, error);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Fault::transient(format!(
                    "{what}: the answer is longer than {MAX_ANSWER_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, retry_after })
    }
}

/// How long it is waited before an index is removed again of which a snapshot is being taken: that takes minutes.
const SNAPSHOT_DELAY: Duration = Duration::from_secs(30);

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Why the server did not do it.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::of_answer(&self.body)
    }

    /// The answer, if the server did what was asked. Errors: what [`fault`](Self::fault) makes of it.
    pub(super) fn done(self, doing: &str) -> Result<Self, Fault> {
        if self.is_success() { Ok(self) } else { Err(self.fault(doing)) }
    }

    /// The answer as what it should be. Errors: transient, with what is wrong, since it may have been cut off.
    pub(super) fn json<T: DeserializeOwned>(&self, doing: &str) -> Result<T, Fault> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Fault::transient(format!("{doing}: the answer is malformed: {error}")))
    }

    /// What it means for the engine that the server did not do it: 429 and every 5xx are trouble of the moment, as is an index
    /// that cannot be removed while a snapshot of it is taken; 413 is for the documents to answer for, everything else ends the run.
    pub(super) fn fault(&self, doing: &str) -> Fault {
        let refusal = self.refusal();
        let kind = match self.status {
            408 | 425 | 429 | 500..=599 => FaultKind::Transient,
            403 if refusal.kind == "cluster_block_exception" => FaultKind::Transient,
            400 if refusal.is_of_a_snapshot() => FaultKind::Transient,
            413 => FaultKind::Content,
            _ => FaultKind::Fatal,
        };
        let fault = Fault::new(kind, format!("{doing}: the server answered {}: {refusal}", self.status));
        let delay = self.retry_after.or_else(|| refusal.is_of_a_snapshot().then_some(SNAPSHOT_DELAY));
        match delay {
            Some(delay) if kind == FaultKind::Transient => fault.with_retry_after(delay),
            _ => fault,
        }
    }

    /// Whether the server asked for a delay.
    pub(super) fn asks_for_delay(&self) -> bool {
        self.retry_after.is_some()
    }
}

/// A name as a part of a path.
pub(super) fn segment(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                encoded.push(char::from(byte))
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// User and password of a URL, decoded.
fn credentials_of(url: &Url) -> Result<Option<(String, String)>, Fault> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
                Some(byte) => (bytes.push(byte), rest = &after[2..]),
                None => (bytes.push(*first), rest = after),
            };
        }
        String::from_utf8(bytes).map_err(|_| Fault::fatal("the credentials in the URL are no text"))
    };
    Ok(Some((decoded(url.username())?, decoded(url.password().unwrap_or_default())?)))
}

fn api_key(key: &str) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(&format!("ApiKey {key}"));
    let mut value = value.map_err(|_| Fault::fatal("the API key holds what no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn gzip(bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let compress = move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        encoder.write_all(&bytes)?;
        Ok(encoder.finish()?)
    };
    // Some megabytes take long enough to hold up whatever else the engine's task is doing.
    tokio::task::spawn_blocking(compress).await.unwrap_or_else(|error| Err(Fault::fatal(error)))
}

/// What it means that there was no answer: the request may have been lost, or its answer, or both are still on their way.
fn transport(what: &str, error: reqwest::Error) -> Fault {
    let kind = match tls::is_untrusted(&error) || error.is_builder() {
        true => FaultKind::Fatal,
        false => FaultKind::Transient,
    };
    // The URL is left out: who logs the fault must not log where it came from, nor with which path.
    let error = error.without_url();
    let mut message = format!("{what}: {error}");
    let mut cause = Error::source(&error);
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !message.contains(&words) {
            message.push_str(": ");
            message.push_str(&words);
        }
        cause = inner.source();
    }
    Fault::new(kind, message)
}

/// The delay that a server asks for: in seconds, or until a date, which is compared with the date of the same answer, so
/// that no clock of this machine matters.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = text(RETRY_AFTER)?.trim();
    let seconds = match asked.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => seconds_of(asked)?.saturating_sub(seconds_of(text(DATE)?)?),
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Http, Fault> {
        Http::new(url, Credentials::None, None, Duration::from_secs(1), true)
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.into(), retry_after: Some(Duration::from_secs(7)) }
    }

    #[test]
    fn credentials_leave_the_url_and_are_shown_nowhere() {
        let http = open("https://us%65r:hunter%32@search.example:9200/base?x#y").unwrap();
        assert_eq!(http.base.as_str(), "https://search.example:9200/base/");
        let basic = Credentials::Basic { user: "user".into(), password: "hunter2".into() };
        assert_eq!(http.credentials, basic);
        for shown in [
            format!("{http:?}"),
            format!("{basic:?}"),
            format!("{:?}", Credentials::ApiKey("hunter2".into())),
        ] {
            assert!(!shown.contains("hunter"), "{shown}");
        }
        for url in ["hunter2", "ftp://a:hunter2@b", "http://a:hunter2@", "http://a:hunter2@[b"] {
            let fault = open(url).unwrap_err();
            assert!(
                fault.kind() == FaultKind::Fatal && !fault.message().contains("hunter2"),
                "{url}: {fault}"
            );
        }
        let twice = Http::new("http://a:b@c", basic, None, Duration::from_secs(1), true).unwrap_err();
        assert!(twice.message().contains("both in the URL and beside it"), "{twice}");
        let odd = Http::new(
            "http://c",
            Credentials::ApiKey("hunter2\n".into()),
            None,
            Duration::from_secs(1),
            true,
        );
        let odd = odd.unwrap_err();
        assert!(!odd.message().contains("hunter2") && odd.kind() == FaultKind::Fatal, "{odd}");
    }

    #[test]
    fn names_become_parts_of_a_path() {
        assert_eq!(segment("bücher-2.x*"), "b%C3%BCcher-2.x*");
        assert_eq!(segment("100%?/#"), "100%25%3F%2F%23");
    }

    #[test]
    fn statuses_are_told_apart_by_whether_a_retry_helps() {
        let kind = |status| answer(status, "{}").fault("writing").kind();
        assert_eq!([429, 503, 502, 504, 500, 408].map(kind), [FaultKind::Transient; 6]);
        assert_eq!([400, 401, 403, 404, 301].map(kind), [FaultKind::Fatal; 5]);
        assert_eq!(kind(413), FaultKind::Content);
        let blocked = answer(403, r#"{"error":{"type":"cluster_block_exception","reason":"read-only"}}"#)
            .fault("writing");
        assert_eq!(
            (blocked.kind(), blocked.message(), blocked.retry_after()),
            (
                FaultKind::Transient,
                "writing: the server answered 403: cluster_block_exception: read-only",
                Some(Duration::from_secs(7))
            )
        );
        assert_eq!(answer(401, "").fault("writing").retry_after(), None);
    }

    #[test]
    fn a_delay_is_asked_for_in_seconds_or_until_a_date() {
        let asked = |retry: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(retry));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            retry_after(&headers).map(|delay| delay.as_secs())
        };
        assert_eq!(asked("120", None), Some(120));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked("99999", None), Some(3_600));
        assert_eq!(asked("Sun, 06 Nov 1994 09:00:00 GMT", date), Some(623));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:00 GMT", date), Some(0));
        assert_eq!(asked("Mon, 07 Nov 1994 08:49:40 GMT", None), None);
        assert_eq!(asked("soon", date), None);
        assert_eq!(asked("-1", date), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
