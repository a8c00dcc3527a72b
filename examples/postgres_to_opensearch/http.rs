//! `/metrics` and `/health`.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use syncline::Running;
use syncline::pipeline::{Phase, Status};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked about, from before the run has started until after it has ended.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) metrics: Arc<Metrics>,
    running: OnceLock<Arc<Running>>,
    began: Instant,
    stalled_after: Duration,
}

impl Service {
    /// Nothing runs yet.
    pub(crate) fn new(stalled_after: Duration) -> Self {
        Self { metrics: Arc::default(), running: OnceLock::new(), began: Instant::now(), stalled_after }
    }

    /// This is the run.
    pub(crate) fn started(&self, running: Running) -> Arc<Running> {
        Arc::clone(self.running.get_or_init(|| Arc::new(running)))
    }

    fn status(&self) -> Status {
        let mut status = self.running.get().map(|running| running.status()).unwrap_or_default();
        if self.metrics.failure().is_some() {
            status.phase = Phase::Ended;
        }
        status
    }

    /// Whether the program does what it should: it starts or runs, and neither its start nor its oldest change takes too
    /// long. A backfill that takes hours is healthy. What a server said, and what it concerned, is for the log alone:
    /// whoever asks here was not asked for a password.
    fn health(&self) -> (StatusCode, String) {
        let status = self.status();
        let oldest = status.oldest_unacknowledged.unwrap_or_default();
        let (code, what) = match status.phase {
            Phase::Starting if self.began.elapsed() > self.stalled_after => {
                let what = format!("stalled: it has not started for {} s", self.began.elapsed().as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, what)
            }
            Phase::Running if oldest > self.stalled_after => {
                let what =
                    format!("stalled: the oldest change is not acknowledged since {} s", oldest.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, what)
            }
            Phase::Starting => (StatusCode::OK, "starting".to_owned()),
            Phase::Running if status.caught_up => (StatusCode::OK, "caught up".to_owned()),
            Phase::Running => (StatusCode::OK, "catching up".to_owned()),
            Phase::Ended => {
                let why = self.metrics.failure().map(|what| format!(": {what}; the log tells why"));
                (StatusCode::SERVICE_UNAVAILABLE, format!("ended{}", why.unwrap_or_default()))
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "stopping".to_owned()),
        };
        (code, what + "\n")
    }
}

/// Serves until the program ends.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Too many files are open, say: the next try comes when some were closed.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let answers = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, &service);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answers);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, service: &Service) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (code, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let page = service.metrics.text(&service.status());
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
        }
        (&Method::GET | &Method::HEAD, "/health") => {
            let (code, body) = service.health();
            (code, plain, body)
        }
        (_, "/metrics" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, plain, "there are /metrics and /health\n".to_owned()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if code == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    answer
}
