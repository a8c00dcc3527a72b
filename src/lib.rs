#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(feature = "std", test)), no_std)]

extern crate alloc;

// Every `tokio::` path of the crate, those of macros included, then means the simulated one.
#[cfg(all(madsim, feature = "__sim"))]
extern crate madsim_tokio as tokio;

pub mod change;
pub mod config;
pub mod document;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod error;
pub mod name;
pub mod pipeline;
pub mod ports;
pub mod row;
pub mod time;
pub mod value;

pub mod connectors;

pub use change::{Captured, Captures, Change, Operation, Position, Truncation, Visibility};
pub use config::{Alarms, BatchPolicy, Config, FailurePolicies, FailurePolicy, Limits, RetryPolicy};
pub use document::{Content, Document, DocumentId, Epoch, Version, Write, Writes};
#[cfg(feature = "tokio")]
pub use driver::{Engine, Running};
pub use error::{Classify, EngineError, Fault, FaultKind, RejectedDocument};
pub use name::{ColumnName, IndexName, StreamId, TableName};
pub use pipeline::{Refusal, Report, Status, Verified};
pub use ports::{
    BatchStats, BoxSink, Built, ChangeCapture, DocumentBuilder, FanOut, FlushReport, IndexMapping,
    IndexScope, Lane, NoopObserver, Observer, Opened, Quarantine, Seed, SeedState, Sink, SnapshotTable,
};
pub use row::{Key, Row};
pub use value::Value;
