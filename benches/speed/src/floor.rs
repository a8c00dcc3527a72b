//! The least that any engine of this kind must do.

use std::collections::HashSet;
use std::hint::black_box;

use syncline::{Captured, Change, DocumentId};

use crate::contestant::{Contestant, Outcome};
use crate::engine::{index, runtime, source};
use crate::scenarios::Scenario;
use crate::work::{Pace, Work, take};

/// The same changes through a vector and one hash set for each unit, on one thread; where calls take their time, the slowest
/// stage alone, a call after the other, or as many at once as are served; where many documents come of few changes, their ids in a vector.
#[derive(Debug, Clone, Copy)]
pub struct Floor;

impl Contestant for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn rounds(&self, Scenario { work, .. }: &Scenario, wanted: usize) -> usize {
        if matches!(work.pace, Pace::AtOnce) { wanted } else { 0 }
    }

    fn run(&self, Scenario { work, .. }: &Scenario) -> Outcome {
        if !work.calls.are_free() {
            slowest_stage(work);
        } else if work.changes < work.documents_per_change {
            assert_eq!(black_box(ids(work)).len() as u64, work.changes * work.documents_per_change);
        } else {
            assert!(units(work) > 0);
        }
        Outcome::default()
    }
}

fn units(work: &Work) -> usize {
    let index = index();
    let mut unit: Vec<Change> = Vec::with_capacity(work.unit);
    let mut documents: HashSet<DocumentId> = HashSet::with_capacity(work.unit);
    let mut written = 0;
    let mut write = |unit: &mut Vec<Change>| {
        for change in unit.drain(..) {
            if work.documents_per_change == 1 {
                documents.insert(DocumentId::new(index.clone(), change.key));
            } else if let [syncline::Value::Int(row)] = change.key.values() {
                documents.extend(work.documents_of(*row).map(|id| DocumentId::new(index.clone(), id)));
            }
        }
        written += black_box(documents.drain()).count();
    };
    for item in source(work) {
        let Captured::Change(change) = item else { continue };
        unit.push(change);
        if unit.len() == work.unit {
            write(&mut unit);
        }
    }
    write(&mut unit);
    written
}

fn slowest_stage(work: &Work) {
    let at_once = work.serves.unwrap_or(1) as u64;
    let rounds = work.changes.div_ceil(work.unit as u64).div_ceil(at_once);
    let flush = work.calls.flush_of(work.unit);
    assert!(flush >= work.calls.build && flush >= work.calls.resolve, "flushing is the slowest");
    runtime().block_on(async {
        for _ in 0..rounds {
            take(flush).await;
        }
    });
}

fn ids(work: &Work) -> Vec<DocumentId> {
    let index = index();
    let all = work.rows_changed().flat_map(|row| work.documents_of(row));
    let mut ids = Vec::with_capacity((work.changes * work.documents_per_change) as usize);
    ids.extend(all.map(|id| DocumentId::new(index.clone(), id)));
    ids
}
