//! Real sources and sinks, each behind its feature.

#[cfg(any(feature = "opensearch", feature = "tantivy"))]
mod equal;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod fingerprint;
#[cfg(feature = "opensearch")]
pub mod opensearch;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod routes;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "tantivy")]
pub mod tantivy;

/// The writes of each index, in order.
#[cfg(any(feature = "opensearch", feature = "tantivy"))]
fn by_index<B>(
    writes: &crate::document::Writes<B>,
) -> std::collections::BTreeMap<&crate::name::IndexName, Vec<&crate::document::Write<B>>> {
    let mut parts = std::collections::BTreeMap::<_, Vec<_>>::new();
    for write in writes.iter() {
        parts.entry(&write.document.id.index).or_default().push(write);
    }
    parts
}
