//! Real sources and sinks, each behind its feature.

#[cfg(feature = "opensearch")]
pub mod opensearch;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "tantivy")]
pub mod tantivy;
