//! Short names for what every test writes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value as Json;
use syncline::connectors::opensearch::{OpenSearchSink, OpenSearchSinkBuilder};
use syncline::document::{Document, DocumentId, Epoch, Version, Write, Writes};
use syncline::error::Fault;
use syncline::name::{IndexName, StreamId};
use syncline::ports::{Field, FieldKind, FlushReport, IndexMapping, Seed, Sink as _};
use syncline::row::Key;

use crate::wire::{Response, exchange};

pub(crate) fn index(name: &str) -> IndexName {
    IndexName::new(name).unwrap()
}

pub(crate) fn id(name: &str, key: impl Into<Key>) -> DocumentId {
    DocumentId::new(index(name), key)
}

pub(crate) fn put(id: DocumentId, body: &str, version: (Epoch, u64)) -> Write<String> {
    let (epoch, build) = version;
    Write { document: Document::upsert(id, body.to_owned()), version: Version { epoch, build } }
}

pub(crate) fn remove(id: DocumentId, version: (Epoch, u64)) -> Write<String> {
    let (epoch, build) = version;
    Write { document: Document::delete(id), version: Version { epoch, build } }
}

pub(crate) fn seed(stream: &str, definition: &str) -> Seed {
    Seed { stream: StreamId::new(stream).unwrap(), definition: definition.into() }
}

pub(crate) fn mapping(name: &str, fields: &[(&str, FieldKind)]) -> IndexMapping {
    IndexMapping::new(index(name), fields.iter().map(|(name, kind)| Field::new(name, *kind)))
}

/// `v`, a number, and `title`, a text.
pub(crate) fn books() -> IndexMapping {
    mapping("books", &[("v", FieldKind::Integer), ("title", FieldKind::Text)])
}

/// A sink that gives up soon.
pub(crate) fn builder(url: &str) -> OpenSearchSinkBuilder {
    OpenSearchSink::builder(url).timeout(Duration::from_secs(20))
}

/// A sink in its first run, with the index of [`books`].
pub(crate) async fn begun(builder: OpenSearchSinkBuilder) -> (OpenSearchSink, Epoch) {
    let sink = builder.build().unwrap();
    let epoch = sink.begin(Epoch(0)).await.unwrap();
    sink.ensure_index(&books()).await.unwrap();
    (sink, epoch)
}

pub(crate) async fn try_flush(
    sink: &OpenSearchSink,
    writes: impl IntoIterator<Item = Write<String>>,
) -> Result<FlushReport, Fault> {
    sink.flush(&writes.into_iter().collect::<Writes<String>>(), true).await
}

/// Writes documents that must be taken.
pub(crate) fn flush<I>(sink: &OpenSearchSink, writes: I) -> impl Future<Output = ()> + use<I>
where
    I: IntoIterator<Item = Write<String>>,
{
    let writes: Writes<String> = writes.into_iter().collect();
    let sink = sink.clone();
    async move { assert_eq!(sink.flush(&writes, true).await.unwrap(), FlushReport::clean()) }
}

pub(crate) async fn ask(server: SocketAddr, method: &str, path: &str) -> Response {
    exchange(server, method, path, "").await.unwrap()
}

/// The ids and bodies that a search through an alias finds, in the order of the ids.
pub(crate) async fn found(server: SocketAddr, alias: &str) -> Vec<(String, Json)> {
    let (path, query) = (format!("/{alias}/_search"), r#"{"size":1000,"query":{"match_all":{}}}"#);
    let answer = exchange(server, "POST", &path, query).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut hits: Vec<(String, Json)> = answer.json()["hits"]["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| {
            let (id, mut body) = (hit["_id"].as_str().unwrap().to_owned(), hit["_source"].clone());
            let name = body.as_object_mut().and_then(|fields| fields.remove("syncline_id"));
            assert_eq!(name, Some(id.as_str().into()), "{hit}");
            (id, body)
        })
        .collect();
    hits.sort_by(|a, b| a.0.cmp(&b.0));
    hits
}

/// The `v` of each document, by id.
pub(crate) async fn values(server: SocketAddr, alias: &str) -> Vec<(String, i64)> {
    found(server, alias).await.into_iter().map(|(id, body)| (id, body["v"].as_i64().unwrap())).collect()
}

pub(crate) fn v(value: i64) -> String {
    format!(r#"{{"v":{value}}}"#)
}

/// The indexes at the server whose names begin so, in order.
pub(crate) async fn indexes(server: SocketAddr, prefix: &str) -> Vec<String> {
    let all = ask(server, "GET", "/_cat/indices?format=json").await.json();
    let all = all.as_array().unwrap().clone();
    let names = all.iter().map(|entry| entry["index"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// How a server answers a request of a rebuild or a clear that lands after it was made again.
pub(crate) fn arrives(path: &str) -> u16 {
    match path {
        "_doc/state" => 409,
        // It asks for the removal of an index that is gone.
        "_aliases" => 404,
        // Nobody names what it creates.
        _ => 200,
    }
}

/// The one physical index behind an alias.
pub(crate) async fn physical(server: SocketAddr, alias: &str) -> String {
    let held = ask(server, "GET", &format!("/_alias/{alias}")).await.json();
    let names: Vec<&String> = held.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 1, "{held}");
    names[0].clone()
}
