//! One flush: documents become bulk requests, which are sent side by side, and their answers a report.

use std::ops::Range;

use futures::StreamExt as _;
use reqwest::Method;

use super::http::{Body, Http};
use super::state::superseded;
use super::wire::{Expected, Line, Outcome, Refusal, cut, epoch_of, external_version, read_bulk};
use crate::document::{Content, Epoch, Write};
use crate::error::{Fault, FaultKind, RejectedDocument};
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
}

/// The lines of a flush, and where each comes from and goes to.
struct Lines<'a> {
    lines: Vec<Line>,
    of: Vec<(&'a Target, &'a Write<String>)>,
}

impl Sending {
    /// Writes these documents. Errors: of the whole flush, after every request of it was answered or has failed.
    pub(super) async fn send(
        &self,
        http: &Http,
        targets: &[(Target, Vec<&Write<String>>)],
        epoch: Epoch,
    ) -> Result<FlushReport, Fault> {
        let mut report = FlushReport::clean();
        let all = lines(targets, &mut report)?;
        let sizes = all.lines.iter().map(|line| line.text.len());
        let requests = cut(sizes, self.max_bytes, self.max_documents);
        let requests = requests.into_iter().map(|range| request(http, &all, range));
        let answers: Vec<_> =
            futures::stream::iter(requests).buffer_unordered(self.requests.max(1)).collect().await;
        let mut worst: Option<Fault> = None;
        let mut throttled: Option<Refusal> = None;
        for answer in answers {
            let settled = answer.and_then(|outcomes| {
                for (at, outcome) in outcomes {
                    let (target, write) = all.of[at];
                    settle(write, target, outcome, epoch, &mut report, &mut throttled)?;
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
        if let Some(reason) = throttled {
            tracing::warn!(documents = report.throttled.len(), %reason, "the server could not take documents at the moment");
        }
        worst.map_or(Ok(report), Err)
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
                Err(reason) => report.rejected.push(RejectedDocument::new(id, reason)),
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
    report: &mut FlushReport,
    throttled: &mut Option<Refusal>,
) -> Result<(), Fault> {
    let id = &write.document.id;
    match outcome {
        Outcome::Newer(Some(stored)) if epoch_of(stored) > epoch => Err(superseded(epoch, epoch_of(stored))),
        Outcome::Applied | Outcome::Newer(_) => Ok(()),
        Outcome::Throttled(refusal) => {
            report.throttled.push(id.clone());
            throttled.get_or_insert(refusal);
            Ok(())
        }
        Outcome::Rejected(refusal) => {
            report.rejected.push(RejectedDocument::new(id, refusal.to_string()));
            Ok(())
        }
        Outcome::Closed(refusal) => Err(Fault::fatal(format!(
            "index `{}` cannot be written as `{}`, because another run has begun, or the index was removed, or the \
             credentials do not allow it: {refusal}",
            id.index, target.alias
        ))),
    }
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
