//! The verdicts of one sink call: which of its documents were applied, rejected or throttled.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::document::{DocumentId, Writes};
use crate::ports::FlushReport;

/// Places within the call's writes, each in exactly one list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verdicts {
    pub(super) applied: Vec<usize>,
    pub(super) rejected: Vec<(usize, Arc<str>)>,
    pub(super) throttled: Vec<usize>,
}

/// Sorts the documents of a call by what was said of them. Errors: a document that was not in the call, or that two
/// things were said of.
pub(super) fn verdicts<B>(writes: &Writes<B>, report: FlushReport) -> Result<Verdicts, String> {
    if report == FlushReport::clean() {
        return Ok(Verdicts { applied: (0..writes.len()).collect(), ..Verdicts::default() });
    }
    let places: BTreeMap<&DocumentId, usize> =
        writes.iter().enumerate().map(|(at, write)| (&write.document.id, at)).collect();
    let find = |id: &DocumentId| {
        places.get(id).copied().ok_or_else(|| format!("document {id} was reported, but not written"))
    };
    let mut said: Vec<bool> = writes.iter().map(|_| false).collect();
    let mut say = |id: &DocumentId| -> Result<usize, String> {
        let at = find(id)?;
        if core::mem::replace(&mut said[at], true) {
            return Err(format!("document {id} was reported twice"));
        }
        Ok(at)
    };
    let mut verdicts = Verdicts::default();
    for document in &report.rejected {
        verdicts.rejected.push((say(&document.id)?, document.reason.clone()));
    }
    for id in &report.throttled {
        verdicts.throttled.push(say(id)?);
    }
    verdicts.rejected.sort_unstable_by_key(|(at, _)| *at);
    verdicts.throttled.sort_unstable();
    verdicts.applied = (0..writes.len()).filter(|at| !said[*at]).collect();
    Ok(verdicts)
}

/// Cuts writes into calls of at most `max_bytes`, in order; a larger document stands alone.
pub(super) fn parts<B>(writes: &Writes<B>, bytes: &[usize], max_bytes: usize) -> Vec<Writes<B>> {
    let mut parts = Vec::new();
    let (mut from, mut held) = (0, 0_usize);
    for (at, bytes) in bytes.iter().enumerate().take(writes.len()) {
        if at > from && held.saturating_add(*bytes) > max_bytes {
            parts.push(writes.slice(from, at));
            (from, held) = (at, 0);
        }
        held = held.saturating_add(*bytes);
    }
    if from < writes.len() {
        parts.push(writes.slice(from, writes.len()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Version, Write};
    use crate::error::RejectedDocument;
    use crate::name::IndexName;
    use alloc::vec;

    fn id(key: i64) -> DocumentId {
        DocumentId::new(IndexName::new("users").unwrap(), key)
    }

    fn writes(count: i64) -> Writes<()> {
        (0..count)
            .map(|key| Write { document: Document::delete(id(key)), version: Version::default() })
            .collect()
    }

    #[test]
    fn every_document_of_a_call_gets_one_verdict() {
        let report =
            FlushReport { rejected: vec![RejectedDocument::new(&id(2), "no")], throttled: vec![id(0)] };
        let verdicts = verdicts(&writes(4), report).unwrap();
        assert_eq!(verdicts.applied, [1, 3]);
        assert_eq!(verdicts.rejected, [(2, Arc::from("no"))]);
        assert_eq!(verdicts.throttled, [0]);
    }

    #[test]
    fn b15_a_report_about_another_document_is_an_error() {
        let foreign = FlushReport::rejected([RejectedDocument::new(&id(9), "no")]);
        assert_eq!(
            verdicts(&writes(4), foreign).unwrap_err(),
            "document users/9 was reported, but not written"
        );
        let twice =
            FlushReport { rejected: vec![RejectedDocument::new(&id(1), "no")], throttled: vec![id(1)] };
        assert_eq!(verdicts(&writes(4), twice).unwrap_err(), "document users/1 was reported twice");
    }

    #[test]
    fn a_call_carries_at_most_max_bytes_unless_one_document_is_larger() {
        let lengths = |bytes: &[usize]| -> Vec<usize> {
            parts(&writes(bytes.len() as i64), bytes, 10).iter().map(Writes::len).collect()
        };
        assert_eq!(lengths(&[4, 4, 4, 4]), [2, 2]);
        assert_eq!(lengths(&[4, 40, 4]), [1, 1, 1]);
        assert_eq!(lengths(&[]), [] as [usize; 0]);
        assert_eq!(lengths(&[10, 10]), [1, 1]);
        assert_eq!(lengths(&[5, 5, 5]), [2, 1]);
        assert_eq!(lengths(&[40, 4]), [1, 1]);
    }
}
