//! `/metrics` and `/health`.

use std::convert::Infallible;
use std::sync::Arc;
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

use crate::metrics::Metrics;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the program ends.
pub(crate) async fn serve(
    listener: TcpListener,
    running: Arc<Running>,
    metrics: Arc<Metrics>,
    stalled_after: Duration,
) {
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
        let (running, metrics) = (Arc::clone(&running), Arc::clone(&metrics));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&request, &running.status(), &metrics, stalled_after);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    status: &Status,
    metrics: &Metrics,
    stalled_after: Duration,
) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let (code, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.text(status))
        }
        (&Method::GET | &Method::HEAD, "/health") => {
            let (code, body) = health(status, metrics, stalled_after);
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

/// Whether the run does what it should: it is under way, and its oldest change is not too old. A backfill that takes hours
/// is healthy.
fn health(status: &Status, metrics: &Metrics, stalled_after: Duration) -> (StatusCode, String) {
    let oldest = status.oldest_unacknowledged.unwrap_or_default();
    let ill = match status.phase {
        Phase::Starting | Phase::Running if oldest <= stalled_after => None,
        Phase::Starting | Phase::Running => {
            Some(format!("stalled: the oldest change is not acknowledged since {} s", oldest.as_secs()))
        }
        Phase::Ended => Some(match metrics.error() {
            Some(error) => format!("ended: {error}"),
            None => "ended".to_owned(),
        }),
        _ => Some("stopping".to_owned()),
    };
    match ill {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None if status.caught_up => (StatusCode::OK, "caught up\n".to_owned()),
        None => (StatusCode::OK, "catching up\n".to_owned()),
    }
}
