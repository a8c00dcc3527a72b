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
use syncline::error::FaultKind;
use syncline::{Engine, Fault, Running};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, OnRejected, Parts};
use crate::http::Service;

/// It was told something wrong: starting it again cannot help.
const WRONG_SETTINGS: u8 = 2;

/// How long it waits before it looks again whether the database server can be read.
const START_DELAY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        tracing::error!("usage: postgres_to_opensearch CONFIG.toml");
        return ExitCode::from(WRONG_SETTINGS);
    };
    let settings = Config::read(Path::new(&path)).and_then(|config| Ok((config.parts()?, config)));
    let (parts, config) = match settings {
        Ok(settings) => settings,
        // With its causes. None of them shows a password.
        Err(fault) => {
            tracing::error!("{fault}");
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(config, parts)).unwrap_or_else(|fault| {
        tracing::error!("{fault}");
        ExitCode::FAILURE
    });
    // What blocks a thread still (a name server that does not answer) is not waited for.
    runtime.shutdown_background();
    code
}

async fn run(config: Config, parts: Parts) -> Result<ExitCode, Fault> {
    // Heard from the first moment on: without that, a signal during the start would kill the program.
    let mut stops = Stops::listen()?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| Fault::fatal(format!("listening on `{}`: {error}", config.listen)))?;
    let address = listener.local_addr()?;
    let service = Arc::new(Service::new(Duration::from_secs(config.stalled_seconds)));
    tokio::spawn(http::serve(listener, Arc::clone(&service)));
    tracing::info!("serving /metrics and /health on {address}");

    let running = tokio::select! {
        running = start(&config, parts, &service) => running,
        () = stops.next() => {
            tracing::info!("stopped before it had started");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let running = match running {
        Ok(running) => service.started(running),
        Err(fault) => {
            tracing::error!("{fault}");
            service.metrics.fail("it could not start");
            return Ok(linger(&config, &mut stops).await);
        }
    };

    let asked = tokio::select! {
        _ = running.outcome() => false,
        () = stops.next() => true,
    };
    if asked {
        tracing::info!("stopping: working off what is owed, and ending within {} s", config.drain_seconds);
        running.request_drain(config.drain());
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
        Err(error) => {
            // The engine has said why, where it could.
            if service.metrics.failure().is_none() {
                tracing::error!(%error, "the engine is gone");
                service.metrics.fail("it was stopped");
            }
            match asked {
                true => Ok(ExitCode::FAILURE),
                false => Ok(linger(&config, &mut stops).await),
            }
        }
    }
}

/// It is over, and `/health` says so for a while, before whoever watches over this program starts it anew.
async fn linger(config: &Config, stops: &mut Stops) -> ExitCode {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(config.linger_seconds)) => {}
        () = stops.next() => {}
    }
    ExitCode::FAILURE
}

/// Puts the engine together, and starts it, as soon as the database server can be read.
async fn start(config: &Config, parts: Parts, service: &Service) -> Result<Running, Fault> {
    let Parts { captured, read, definitions, sink } = parts;
    let documents = loop {
        match PostgresDocuments::open(&read, definitions.clone()).await.map_err(Fault::from) {
            Ok(documents) => break documents,
            Err(fault) if fault.kind() == FaultKind::Transient => {
                tracing::warn!(%fault, "the documents' SQL could not be checked, to be tried again");
                tokio::time::sleep(START_DELAY).await;
            }
            Err(fault) => return Err(fault),
        }
    };
    let capture = PostgresCapture::new(&captured, &config.consumer, documents.tables());
    let quarantine = sink.quarantine();
    let mut alarms = Alarms::default();
    alarms.lag_bytes = config.lag_alarm_bytes.or(alarms.lag_bytes);
    let engine = Engine::new(capture, documents, sink)
        .with_observer(Arc::clone(&service.metrics))
        .with_alarms(alarms)
        .with_grace(config.grace());
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
