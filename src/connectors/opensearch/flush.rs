//! One flush: documents become bulk requests, which are sent side by side, and their answers a report.

use std::collections::BTreeSet;
use std::ops::Range;

use futures::StreamExt as _;
use reqwest::Method;

use super::http::{Body, Http};
use super::state::superseded;
use super::wire::{Expected, Line, Outcome, Refusal, cut, epoch_of, external_version, read_bulk};
use crate::document::{Content, DocumentId, Epoch, Write};
use crate::error::{Fault, FaultKind, RejectedDocument};
use crate::name::IndexName;
use crate::ports::FlushReport;

/// A server that is asked for an alias takes no index for one, and creates none of its name.
const BULK: &str = "_bulk?require_alias=true";

const DOING: &str = "writing documents";

/// How documents are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    /// The most bytes of a request, before they are compressed.
    pub(super) max_bytes: usize,
    /// The most documents of a request.
    pub(super) max_documents: usize,
    /// How many requests of a flush are under way at once.
    pub(super) requests: usize,
}

/// Where the documents of an index go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) physical: String,
    /// The alias through which this run, and no other, writes there.
    pub(super) alias: String,
    pub(super) role: Role,
}

/// Whose answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// That of the index which the engine sees.
    Written,
    /// Of the one that searches find until that is complete only what is to be tried again: what it does not take, having
    /// other fields perhaps, it does without.
    Searched,
}

/// What came of a flush.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) report: FlushReport,
    /// Indexes of which what is searched could not be written at all. What was to be written there is told as throttled.
    pub(super) lost: BTreeSet<IndexName>,
    throttled: Option<Refusal>,
    /// How many documents what is searched did not take, and one reason.
    unlike: usize,
    because: Option<Refusal>,
}

/// The lines of a flush, and where each comes from and goes to.
struct Lines<'a> {
    lines: Vec<Line>,
    of: Vec<(&'a Target, &'a Write<String>)>,
}

impl Sending {
    /// Writes these documents, each as often as it stands there. Errors: of the whole flush, after every request of it was
    /// answered or has failed.
    pub(super) async fn send(
        &self,
        http: &Http,
        targets: &[(Target, Vec<&Write<String>>)],
        epoch: Epoch,
    ) -> Result<Sent, Fault> {
        let mut sent = Sent::default();
        let all = lines(targets, &mut sent.report)?;
        let sizes = all.lines.iter().map(|line| line.text.len());
        let requests = cut(sizes, self.max_bytes, self.max_documents);
        let requests = requests.into_iter().map(|range| request(http, &all, range));
        let answers: Vec<_> =
            futures::stream::iter(requests).buffer_unordered(self.requests.max(1)).collect().await;
        let mut worst: Option<Fault> = None;
        for answer in answers {
            let settled = answer.and_then(|outcomes| {
                for (at, outcome) in outcomes {
                    let (target, write) = all.of[at];
                    settle(write, target, outcome, epoch, &mut sent)?;
                }
                Ok(())
            });
            if let Err(fault) = settled {
                worst = Some(match worst.take() {
                    Some(other) if weight(&other) >= weight(&fault) => other,
                    _ => fault,
                });
            }
        }
        sent.tell_once();
        worst.map_or(Ok(sent), Err)
    }
}

impl Sent {
    /// A document that was sent to two indexes is told of once: as rejected, where the one that counts did that.
    fn tell_once(&mut self) {
        let rejected: BTreeSet<&DocumentId> =
            self.report.rejected.iter().map(|rejected| &rejected.id).collect();
        self.report.throttled.retain(|id| !rejected.contains(id));
        self.report.throttled.sort_unstable();
        self.report.throttled.dedup();
        if let Some(reason) = &self.throttled {
            tracing::warn!(documents = self.report.throttled.len(), %reason, "the server could not take documents at the moment");
        }
        if let Some(reason) = &self.because {
            tracing::warn!(documents = self.unlike, %reason, "what is searched while an index is rebuilt did not take documents");
        }
    }
}

/// What ends the run goes before what is retried, and that before what is halved: a document is not to blame for an
/// outage. Of what is retried, the longest delay that was asked for is kept.
pub(super) fn weight(fault: &Fault) -> (u8, std::time::Duration) {
    let kind = match fault.kind() {
        FaultKind::Content => 0,
        FaultKind::Transient => 1,
        FaultKind::Fatal => 2,
    };
    (kind, fault.retry_after().unwrap_or_default())
}

fn lines<'a>(
    targets: &'a [(Target, Vec<&'a Write<String>>)],
    report: &mut FlushReport,
) -> Result<Lines<'a>, Fault> {
    let mut all = Lines { lines: Vec::new(), of: Vec::new() };
    for (target, writes) in targets {
        for write in writes {
            let id = &write.document.id;
            let version = external_version(write.version).ok_or_else(|| {
                Fault::fatal(format!("{:?} is more than a version has room for", write.version))
            })?;
            let body = match &write.document.content {
                Content::Upsert(body) => Some(body.as_str()),
                Content::Delete => None,
            };
            match Line::document(&target.alias, id.sink_id(), version, body) {
                Ok(line) => {
                    all.lines.push(line);
                    all.of.push((target, write));
                }
                Err(reason) if target.role == Role::Written => {
                    report.rejected.push(RejectedDocument::new(id, reason));
                }
                Err(_) => {}
            }
        }
    }
    Ok(all)
}

/// Sends these lines, in halves where the server finds them too large.
async fn request(http: &Http, all: &Lines<'_>, range: Range<usize>) -> Result<Vec<(usize, Outcome)>, Fault> {
    let mut outcomes = Vec::with_capacity(range.len());
    let mut open = vec![range];
    while let Some(range) = open.pop() {
        let text: String = all.lines[range.clone()].iter().map(|line| line.text.as_str()).collect();
        let answer = http.ask(Method::POST, BULK, Body::Lines(text)).await?;
        match answer.status {
            200 => {
                let expected: Vec<_> = range.clone().map(|at| expected(all, at)).collect();
                // It may have been cut off on its way: what was asked may be done.
                let read = read_bulk(&answer.body, &expected).map_err(Fault::transient)?;
                outcomes.extend(range.zip(read));
            }
            413 if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                open.extend([middle..range.end, range.start..middle]);
            }
            413 => {
                let bytes = all.lines[range.start].text.len();
                let reason = format!("the server takes no request of {bytes} bytes: {}", answer.refusal());
                outcomes.push((range.start, Outcome::Rejected(Refusal { reason, ..Refusal::default() })));
            }
            // These alone are sent again; a delay that the server asks for can only be told of the whole flush.
            429 | 503 if !answer.asks_for_delay() => {
                let refusal = answer.refusal();
                outcomes.extend(range.map(|at| (at, Outcome::Throttled(refusal.clone()))));
            }
            400 => return Err(malformed(answer.fault(DOING))),
            _ => return Err(answer.done(DOING).map_or_else(|fault| fault, |answer| answer.fault(DOING))),
        }
    }
    Ok(outcomes)
}

fn expected<'a>(all: &'a Lines<'_>, at: usize) -> Expected<'a> {
    let line = &all.lines[at];
    Expected { action: line.action, id: &line.id, index: &all.of[at].0.physical, version: line.version }
}

/// A request that the server cannot read: some document of it is at fault, unless it is the request itself.
fn malformed(fault: Fault) -> Fault {
    match fault.message().contains("unrecognized parameter") {
        true => fault,
        false => fault.with_kind(FaultKind::Content),
    }
}

fn settle(
    write: &Write<String>,
    target: &Target,
    outcome: Outcome,
    epoch: Epoch,
    sent: &mut Sent,
) -> Result<(), Fault> {
    let id = &write.document.id;
    match (outcome, target.role) {
        (Outcome::Newer(Some(stored)), Role::Written) if epoch_of(stored) > epoch => {
            return Err(superseded(epoch, epoch_of(stored)));
        }
        (Outcome::Applied | Outcome::Newer(_), _) => {}
        (Outcome::Throttled(refusal), _) => {
            sent.report.throttled.push(id.clone());
            sent.throttled.get_or_insert(refusal);
        }
        (Outcome::Rejected(refusal), Role::Written) => {
            sent.report.rejected.push(RejectedDocument::new(id, refusal.to_string()));
        }
        (Outcome::Rejected(refusal), Role::Searched) => {
            sent.unlike += 1;
            sent.because.get_or_insert(refusal);
        }
        (Outcome::Closed(refusal), Role::Written) => {
            return Err(Fault::fatal(format!(
                "index `{}` cannot be written as `{}`, because another run has begun, or the index was removed, or the \
                 credentials do not allow it: {refusal}",
                id.index, target.alias
            )));
        }
        (Outcome::Closed(refusal), Role::Searched) => {
            sent.lost.insert(id.index.clone());
            sent.report.throttled.push(id.clone());
            sent.throttled.get_or_insert(refusal);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_outage_is_told_before_a_document_at_fault_and_the_longest_delay_is_kept() {
        let delayed = |seconds| Fault::transient("x").with_retry_after(Duration::from_secs(seconds));
        assert!(weight(&Fault::fatal("x")) > weight(&delayed(9)));
        assert!(weight(&delayed(9)) > weight(&delayed(3)));
        assert!(weight(&Fault::transient("x")) > weight(&Fault::content("x")));
    }

    #[test]
    fn a_request_that_no_server_would_read_is_no_documents_fault() {
        let kind = |reason: &str| malformed(Fault::fatal(reason)).kind();
        assert_eq!(
            kind("request [/_bulk] contains unrecognized parameter: [require_alias]"),
            FaultKind::Fatal
        );
        assert_eq!(kind("parse_exception"), FaultKind::Content);
    }
}
