//! Each command as a call of a port, and its answer as an event.

use std::sync::Arc;

use tracing::Instrument;

use crate::document::{Content, Epoch};
use crate::error::Fault;
use crate::pipeline::{CallId, Command, Event};
use crate::ports::{
    BoxQuarantine, ChangeCapture, DocumentBuilder, IndexMapping, IndexScope, KeyStream, Opened, Quarantine,
    Sink,
};

/// The ports of a run.
pub(super) struct Edges<C, D, S> {
    pub(super) capture: Arc<C>,
    pub(super) documents: Arc<D>,
    pub(super) sink: Arc<S>,
    pub(super) quarantine: BoxQuarantine,
}

impl<C, D, S> Clone for Edges<C, D, S> {
    fn clone(&self) -> Self {
        Self {
            capture: self.capture.clone(),
            documents: self.documents.clone(),
            sink: self.sink.clone(),
            quarantine: self.quarantine.clone(),
        }
    }
}

/// What a call came to.
pub(super) enum Answer<B> {
    /// An event as it is.
    Event(Event<B>),
    /// The capture was opened.
    Opened(CallId, Result<Opened, Fault>),
    /// A snapshot was opened.
    Scan(CallId, Result<KeyStream, Fault>),
}

impl<C, D, S> Edges<C, D, S>
where
    C: ChangeCapture,
    D: DocumentBuilder,
    S: Sink<Body = D::Body>,
{
    /// Makes the call that a command asks for. `None` where it asks for none.
    pub(super) async fn perform(self, command: Command<D::Body>) -> Option<Answer<D::Body>> {
        let answer = match command {
            Command::Begin { call } => {
                let span = tracing::debug_span!("begin", call = call.0);
                let result = self.sink.begin(Epoch(0)).instrument(span).await;
                let flushes = self.sink.concurrency();
                Answer::Event(Event::Begun { call, result: result.map(|epoch| (epoch, flushes)) })
            }
            Command::Describe { call } => {
                let span = tracing::debug_span!("describe", call = call.0);
                let result = self.describe().instrument(span).await;
                Answer::Event(Event::Described { call, result })
            }
            Command::Ensure { call, mapping } => {
                let span = tracing::debug_span!("ensure", call = call.0, index = %mapping.index);
                done(call, self.sink.ensure_index(&mapping).instrument(span).await)
            }
            Command::LoadQuarantine { call } => {
                let span = tracing::debug_span!("quarantine", call = call.0);
                let result = self.quarantine.load().instrument(span).await;
                Answer::Event(Event::QuarantineLoaded { call, result })
            }
            Command::Open { call } => {
                let span = tracing::debug_span!("capture", call = call.0);
                Answer::Opened(call, self.open().instrument(span).await)
            }
            Command::Resolve { call, changes } => {
                let span = tracing::debug_span!("resolve", call = call.0, changes = changes.len());
                let result = self.documents.resolve_many(&changes).instrument(span).await;
                Answer::Event(Event::Resolved { call, result })
            }
            Command::Build { call, ids, visibility } => {
                let span = tracing::debug_span!("build", call = call.0, documents = ids.len());
                let result = self.documents.build_many(&ids, visibility).instrument(span).await;
                let bytes = result.iter().flatten().map(|built| match built {
                    Ok(document) => content_bytes(&*self.documents, &document.content),
                    Err(_) => 0,
                });
                let bytes = bytes.collect();
                Answer::Event(Event::Built { call, result, bytes })
            }
            Command::Flush { call, writes, caught_up } => {
                let span = tracing::debug_span!("flush", call = call.0, documents = writes.len(), caught_up);
                let result = self.sink.flush(&writes, caught_up).instrument(span).await;
                Answer::Event(Event::Flushed { call, result })
            }
            Command::Compare { call, writes } => {
                let span = tracing::debug_span!("compare", call = call.0, documents = writes.len());
                let result = self.sink.compare(&writes).instrument(span).await;
                Answer::Event(Event::Compared { call, result })
            }
            Command::List { call, index, after, limit } => {
                let span = tracing::debug_span!("list", call = call.0, %index);
                let result = self.sink.list(&index, after.as_ref(), limit).instrument(span).await;
                Answer::Event(Event::Listed { call, result })
            }
            Command::CaughtUp { call } => {
                let span = tracing::debug_span!("caught_up", call = call.0);
                done(call, self.sink.caught_up().instrument(span).await)
            }
            Command::Quarantine { call, documents } => {
                let span = tracing::debug_span!("quarantine", call = call.0, documents = documents.len());
                done(call, self.quarantine.record(&documents).instrument(span).await)
            }
            Command::Release { call, documents } => {
                let span = tracing::debug_span!("release", call = call.0, documents = documents.len());
                done(call, self.quarantine.release(&documents).instrument(span).await)
            }
            Command::Ack { call, stream, position } => {
                let span = tracing::debug_span!("ack", call = call.0, position = position.0);
                done(call, self.capture.confirm(&stream, position).instrument(span).await)
            }
            Command::ReadSeed { call, index, seed } => {
                let span = tracing::debug_span!("seed", call = call.0, %index);
                let result = self.sink.seed_state(&index, &seed).instrument(span).await;
                Answer::Event(Event::SeedRead { call, result })
            }
            Command::Clear { call, index } => {
                let span = tracing::debug_span!("clear", call = call.0, %index);
                done(call, self.sink.clear(&index).instrument(span).await)
            }
            Command::Rebuild { call, index } => {
                let span = tracing::debug_span!("rebuild", call = call.0, %index);
                done(call, self.sink.rebuild(&index).instrument(span).await)
            }
            Command::SaveCursor { call, index, seed, after } => {
                let span = tracing::debug_span!("cursor", call = call.0, %index);
                done(call, self.sink.save_cursor(&index, &seed, after.as_ref()).instrument(span).await)
            }
            Command::Scan { call, table, after, visibility } => {
                let span = tracing::debug_span!("scan", call = call.0, table = %table.table);
                let rows = self.capture.snapshot_seeing(&table, after.as_ref(), visibility);
                Answer::Scan(call, rows.instrument(span).await)
            }
            Command::MarkSeeded { call, index, seed } => {
                let span = tracing::debug_span!("mark", call = call.0, %index);
                done(call, self.sink.mark_seeded(&index, &seed).instrument(span).await)
            }
            Command::Park { call, index, seed } => {
                let span = tracing::debug_span!("park", call = call.0, %index);
                done(call, self.sink.park(&index, &seed).instrument(span).await)
            }
            Command::ReadLag { call } => {
                let span = tracing::debug_span!("lag", call = call.0);
                let result = self.capture.lag().instrument(span).await;
                Answer::Event(Event::LagRead { call, result })
            }
            Command::Abandon { .. } | Command::Notify(_) | Command::Finish(_) => return None,
        };
        Some(answer)
    }

    /// What the builder makes, once the source is known to supply what that takes.
    async fn describe(&self) -> Result<(Vec<IndexMapping>, Vec<IndexScope>), Fault> {
        let mappings = self.documents.index_mappings().await?;
        self.capture.prepare(&self.documents.needs()).await?;
        Ok((mappings, self.documents.backfill_scopes()))
    }

    async fn open(&self) -> Result<Opened, Fault> {
        self.capture.prepare(&self.documents.needs()).await?;
        self.capture.open().await
    }
}

fn done<B>(call: CallId, result: Result<(), Fault>) -> Answer<B> {
    Answer::Event(Event::Done { call, result })
}

/// The size of a document's content by its builder's measure.
fn content_bytes<D: DocumentBuilder>(builder: &D, content: &Content<D::Body>) -> usize {
    match content {
        Content::Upsert(body) => builder.body_bytes(body),
        Content::Delete => 0,
    }
}
