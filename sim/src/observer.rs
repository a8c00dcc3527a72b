//! What the engine says of itself: for the trace and the marks. Of the checks, only those ask for it that judge whether it is
//! true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncline::error::Stage;
use syncline::{
    BatchStats, DocumentId, EngineError, Fault, FaultKind, IndexName, Lane as Flow, Observer,
    RejectedDocument, Verified,
};

use crate::marks::Mark;
use crate::plan::{Moment, Point};
use crate::tables::doc_of;
use crate::trace::Lane;
use crate::world::World;

pub(crate) struct Ear {
    world: Arc<World>,
    seeding: AtomicBool,
}

impl Ear {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, seeding: AtomicBool::new(false) }
    }
}

impl Observer for Ear {
    fn on_backfill_started(&self, indexes: &[IndexName]) {
        self.seeding.store(true, Ordering::Relaxed);
        for index in indexes {
            let number = self.world.names.iter().position(|name| name == index);
            number.into_iter().for_each(|number| self.world.with(|state| state.gauges.on_seeding(number)));
        }
        self.world.say(Lane::Seed, format_args!("backfill of {indexes:?} started"));
    }

    fn on_index_seeded(&self, index: &IndexName) {
        self.world.say(Lane::Seed, format_args!("{index} is seeded"));
        if let Some(number) = self.world.names.iter().position(|name| name == index) {
            self.world.judge(self.world.with(|state| state.conduct.on_seeded(number)));
        }
    }

    fn on_backfill_completed(&self) {
        self.seeding.store(false, Ordering::Relaxed);
        self.world.say(Lane::Seed, format_args!("backfill completed"));
    }

    fn on_changes_captured(&self, count: usize) {
        self.world.say(Lane::Capture, format_args!("captured {count}"));
    }

    fn on_batch_committed(&self, stats: &BatchStats) {
        self.world.judge(self.world.with(|state| state.conduct.on_batch(stats.documents)));
        if stats.lane == Flow::Live && self.seeding.load(Ordering::Relaxed) {
            self.world.mark(Mark::LiveDuringBackfill);
        }
    }

    fn on_document_quarantined(&self, document: &RejectedDocument, attempts: u32) {
        self.world.say(Lane::Flush, format_args!("quarantined {} after {attempts}", document.id));
        let doc = doc_of(&document.id, &self.world.names);
        self.world.judge(self.world.with(|state| state.conduct.on_quarantined(&doc)));
    }

    fn on_document_released(&self, id: &DocumentId) {
        self.world.say(Lane::Flush, format_args!("released {id}"));
    }

    fn on_index_verified(&self, verified: &Verified) {
        self.world.mark(Mark::Verified);
        if let Some(index) = self.world.names.iter().position(|name| *name == verified.index) {
            self.world.judge(self.world.with(|state| {
                // What cannot be built or written is recorded instead; and what a change has touched is written for that.
                let confirmed = state.database.slot.as_ref().map_or(0, |slot| slot.confirmed);
                let mut tampered = state.index.tampered(index);
                tampered.retain(|doc, _| {
                    !state.index.recorded.contains_key(doc) && state.judge.changed_last(doc) <= confirmed
                });
                state.conduct.on_verified(index, verified, &tampered, &self.world.names)
            }));
        }
        self.world.say(
            Lane::Seed,
            format_args!(
                "{} compared: {} of {} differ",
                verified.index, verified.different, verified.compared
            ),
        );
    }

    fn on_index_parked(&self, document: &RejectedDocument) {
        let index = self.world.names.iter().position(|name| *name == document.id.index);
        index.into_iter().for_each(|index| self.world.with(|state| state.gauges.on_parked(index)));
        self.world.mark(Mark::Parked);
        self.world.say(Lane::Seed, format_args!("{} has stopped for {document}", document.id.index));
    }

    fn on_stalled(&self, oldest_age: Duration) {
        let world = &self.world;
        world.say(Lane::Engine, format_args!("a change of {oldest_age:?} is not acknowledged"));
        let now_us = world.now_us();
        world.judge(world.with(|state| state.conduct.on_warning(now_us, &world.plan.engine)));
        world.mark(Mark::Stalled);
    }

    fn on_retry(&self, stage: Stage, attempt: u32, delay: Duration, fault: &Fault) {
        let until_us = self.world.now_us() + delay.as_micros() as u64;
        self.world.with(|state| state.gauges.retry_until_us = until_us);
        self.world.say(Lane::Engine, format_args!("{stage} again after {attempt}: {fault}"));
        self.world.come_to(Point::Retry, Moment::After);
    }

    fn on_error(&self, error: &EngineError) {
        if let EngineError::Failed { attempts, fault, .. } = error
            && *attempts > 1
            && fault.kind() == FaultKind::Transient
        {
            self.world.mark(Mark::GaveUp);
        }
        self.world.say(Lane::Engine, format_args!("ended: {error}"));
    }
}
