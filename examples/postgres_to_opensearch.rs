//! A program to copy from: keeps the indexes of an OpenSearch or Elasticsearch cluster equal to a PostgreSQL database, as its
//! configuration file says, until it is told to stop.
//!
//! `cargo run --release --example postgres_to_opensearch --features postgres,opensearch -- CONFIG.toml`
//!
//! `examples/postgres_to_opensearch/README.md` tells how to run it as a service. This file is what happens in which order;
//! `config` is what can be set, `metrics` what is measured, `http` how that is asked for.

#[path = "postgres_to_opensearch/config.rs"]
mod config;
#[path = "postgres_to_opensearch/http.rs"]
mod http;
#[path = "postgres_to_opensearch/metrics.rs"]
mod metrics;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use syncline::config::{Alarms, FailurePolicy};
use syncline::connectors::postgres::{PostgresCapture, PostgresDocuments};
use syncline::{Engine, Fault, Running};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, OnRejected};
use crate::metrics::Metrics;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        tracing::error!("usage: postgres_to_opensearch CONFIG.toml");
        return ExitCode::from(2);
    };
    match run(Path::new(&path)).await {
        Ok(code) => code,
        // With its causes. None of them shows a password.
        Err(fault) => {
            tracing::error!("{fault}");
            ExitCode::FAILURE
        }
    }
}

async fn run(path: &Path) -> Result<ExitCode, Fault> {
    let config = Config::read(path)?;
    // Heard from the first moment on: without that, a signal during the start would kill the program.
    let mut stops = Stops::listen()?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| Fault::fatal(format!("listening on `{}`: {error}", config.listen)))?;
    tracing::info!("serving /metrics and /health on {}", listener.local_addr()?);

    let metrics = Arc::new(Metrics::default());
    let running = tokio::select! {
        running = start(&config, Arc::clone(&metrics)) => Arc::new(running?),
        () = stops.next() => return Ok(ExitCode::SUCCESS),
    };
    let stalled_after = Duration::from_secs(config.stalled_seconds);
    tokio::spawn(http::serve(listener, Arc::clone(&running), metrics, stalled_after));

    let asked = tokio::select! {
        _ = running.outcome() => false,
        () = stops.next() => true,
    };
    if asked {
        tracing::info!("stopping: working off what is owed, for {} s at the most", config.drain_seconds);
        running.request_drain(Duration::from_secs(config.drain_seconds));
        tokio::select! {
            _ = running.outcome() => {}
            () = stops.next() => {
                tracing::warn!("stopping at once; the next run is given again what is not acknowledged");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    match running.outcome().await {
        Ok(report) => {
            tracing::info!(
                captured = report.captured,
                to_be_given_again = report.unacknowledged,
                indexes_not_seeded = report.unseeded.len(),
                "stopped"
            );
            Ok(ExitCode::SUCCESS)
        }
        // The engine has said why. It is over, and `/health` says so for a while, before whoever watches over this
        // program starts it anew.
        Err(_) => {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(config.linger_seconds)) => {}
                () = stops.next() => {}
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Puts the engine together, and starts it.
async fn start(config: &Config, metrics: Arc<Metrics>) -> Result<Running, Fault> {
    let captured = config.postgres.server(&config.postgres.connection)?;
    // Documents may be read from a standby of the captured server.
    let read = match &config.postgres.read_from {
        Some(standby) => config.postgres.server(standby)?,
        None => captured.clone(),
    };
    let documents = PostgresDocuments::open(&read, config.definitions()?).await?;
    let capture = PostgresCapture::new(&captured, &config.consumer, documents.tables());
    let sink = config.opensearch.sink()?;
    let quarantine = sink.quarantine();
    let mut alarms = Alarms::default();
    alarms.lag_bytes = config.lag_alarm_bytes.or(alarms.lag_bytes);
    let engine = Engine::new(capture, documents, sink).with_observer(metrics).with_alarms(alarms);
    Ok(match config.on_rejected {
        OnRejected::Stop => engine.start(),
        OnRejected::Skip => {
            engine.with_failure_policies(FailurePolicy::Skip).with_quarantine(quarantine).start()
        }
    })
}

/// What asks the program to stop: SIGTERM, or Ctrl-C.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
