//! A state as everyone sees it who cannot tell when the run began.
//!
//! An explorer that walks every interleaving must know a state again, though it came there by another way. So in this
//! view calls, changes, units and documents are numbered anew in the order in which they stand, times are relative to
//! now, and what no later step depends on (counts, the jitter's generator) is left out.

use alloc::string::String;
use core::fmt::{self, Write as _};

use crate::pipeline::Pipeline;
use crate::pipeline::flight::Part;
use crate::time::Instant;

/// A canonical view of a pipeline's state: equal for states from which the same things follow. It prints as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Canonical(String);

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<B: fmt::Debug> Pipeline<B> {
    /// The state in its canonical view. Commands must have been polled until `None`.
    #[must_use]
    pub fn canonical(&self) -> Canonical {
        let mut text = String::new();
        let _ = self.describe(&mut text);
        Canonical(text)
    }

    fn describe(&self, text: &mut String) -> fmt::Result {
        let oldest =
            self.ack.changes.iter().next().map_or(self.ack.changes.pushed(), |(_, number, ..)| number);
        let change = |number: u64| number - oldest;
        let in_time = |at: Instant| at.as_nanos() as i128 - self.now.as_nanos() as i128;
        // How long it has been open matters to one that has failed, and until it is long enough.
        let open_for = self.now.since(self.capture.opened).min(self.config.retry.delay_max);
        let mut capture = self.capture.clone();
        capture.opened = Instant::ORIGIN;
        writeln!(
            text,
            "capture {capture:?} open for {:?}",
            (capture.failures > 0 && capture.is_open()).then_some(open_for)
        )?;
        writeln!(text, "sees {:?}", self.visibility)?;
        writeln!(text, "ending {:?} {:?}", self.ending.phase(), self.ending.drain_deadline().map(in_time))?;
        for (handle, number, _, holders, mark) in self.ack.changes.iter() {
            writeln!(
                text,
                "owed {} held {holders} foreign {} after {:?}",
                change(number),
                !self.ack.is_of_stream(handle),
                mark.map(|mark| mark.position)
            )?;
        }
        let (sent, safe) = self.ack.outgoing();
        let position = |checkpoint: Option<super::ack::Checkpoint>| checkpoint.map(|mark| mark.position);
        writeln!(
            text,
            "ack sent {:?} safe {:?} last {:?} latest {:?}",
            position(sent),
            position(safe),
            self.ack.acknowledged(),
            self.ack.changes.latest().map(|mark| mark.position)
        )?;
        for (handle, waiting) in self.resolve.iter() {
            writeln!(text, "unresolved {} {waiting:?}", change(self.ack.changes.number(handle)))?;
        }
        for (at, (_, changes, answered)) in self.resolve.groups().enumerate() {
            writeln!(text, "group {at} of {changes} answered {answered}")?;
        }
        for (changes, is_cut) in self.resolve.bursts() {
            writeln!(text, "burst of {changes} cut {is_cut}")?;
        }
        self.describe_documents(text, &change, &in_time)?;
        self.describe_flights(text)?;
        for index in &self.seeding.indexes {
            let first = index.rows.iter().next().map_or(index.rows.pushed(), |(_, number, ..)| number);
            write!(text, "index {} {:?} skip {:?}", index.name, index.stage, index.skip_to)?;
            for (_, number, _, holders, mark) in index.rows.iter() {
                write!(text, " row {} held {holders} after {mark:?}", number - first)?;
            }
            writeln!(text, " latest {:?} saving {:?}", index.rows.latest(), index.cursor)?;
        }
        let scan = self
            .seeding
            .scan
            .as_ref()
            .map(|scan| (&scan.table, &scan.after, &scan.members, scan.open.is_some()));
        let until = self.scan_deadline().map(in_time);
        writeln!(text, "scan {scan:?} until {until:?} stream {:?}", self.seeding.stream)?;
        for (_, call) in self.calls.made() {
            let deadline = in_time(call.deadline);
            writeln!(
                text,
                "call {:?} attempt {} until {deadline}",
                self.relative(call.purpose),
                call.attempt
            )?;
        }
        for (at, purpose, attempt) in self.calls.waiting() {
            // Its jitter is left out: two states that differ by it alone behave alike.
            let due = at <= self.now;
            writeln!(text, "again {:?} attempt {attempt} due {due}", self.relative(purpose))?;
        }
        writeln!(
            text,
            "told {} turns {} {} quarantined {:?} timers {:?} {:?} {}",
            self.told_caught_up,
            self.live_cuts.min(self.config.limits.backfill_share),
            self.live_flushes.min(self.config.limits.backfill_share),
            self.quarantined,
            self.cursors_at.map(in_time),
            self.lag_at.map(in_time),
            self.stalled,
        )
    }

    fn describe_documents(
        &self,
        text: &mut String,
        change: &dyn Fn(u64) -> u64,
        in_time: &dyn Fn(Instant) -> i128,
    ) -> fmt::Result {
        for (at, (lane, _, _, slots)) in self.dirty.units().enumerate() {
            write!(text, "unit {at} {lane:?}")?;
            for slot in slots {
                if let Some(document) = self.dirty.iter().find(|document| document.slot == *slot) {
                    write!(text, " {}", document.id)?;
                }
            }
            writeln!(text)?;
        }
        let mut documents: alloc::vec::Vec<_> = self.dirty.iter().collect();
        documents.sort_unstable_by(|a, b| a.id.cmp(b.id));
        for document in documents {
            let live =
                |owed: super::dirty::Owed| owed.live.map(|handle| change(self.ack.changes.number(handle)));
            let waiting = document.waiting.map(|waiting| {
                (
                    live(waiting.owed),
                    waiting.owed.row.is_some(),
                    waiting.visibility,
                    in_time(waiting.since),
                    waiting.unit.is_some(),
                )
            });
            let flying = document.flying.map(|owed| (live(owed), owed.row.is_some()));
            writeln!(text, "document {} waits {waiting:?} flies {flying:?}", document.id)?;
        }
        Ok(())
    }

    fn describe_flights(&self, text: &mut String) -> fmt::Result {
        for (at, (_, unit)) in self.flights.iter().enumerate() {
            write!(text, "flight {at} {:?} building {} {:?}", unit.lane, unit.building, unit.ids)?;
            for (part, attempt) in unit.parts.values() {
                match part {
                    Part::Flush(writes) => {
                        write!(text, " flush attempt {attempt}")?;
                        for write in writes.iter() {
                            write!(text, " {:?}", write.document)?;
                        }
                    }
                    Part::Quarantine(records, _) => write!(text, " quarantine {records:?}")?,
                    Part::Release(documents, _) => {
                        let ids = documents.iter().map(|document| &document.id);
                        write!(text, " release {:?}", ids.collect::<alloc::vec::Vec<_>>())?;
                    }
                }
            }
            writeln!(text)?;
        }
        for part in self.flights.all_ready() {
            writeln!(text, "ready {:?}", self.relative(super::calls::Purpose::Flush(part)))?;
        }
        for (unit, attempt) in self.flights.ready_builds() {
            let purpose = self.relative(super::calls::Purpose::Build(unit));
            writeln!(text, "ready {purpose:?} attempt {attempt}")?;
        }
        Ok(())
    }

    /// A purpose whose unit, part or group is named by where it stands.
    fn relative(&self, purpose: super::calls::Purpose) -> (crate::error::Stage, Option<usize>, usize) {
        use super::calls::Purpose;
        let unit = |number: u64| self.flights.iter().position(|(unit, _)| unit == number);
        let part = |id: super::calls::PartId| {
            let parts = self
                .flights
                .get(id.unit)
                .map(|unit| unit.parts.keys().take_while(|part| **part < id.part).count());
            (unit(id.unit), parts.unwrap_or_default())
        };
        let (place, detail) = match purpose {
            Purpose::Resolve(group) => (self.resolve.groups().position(|(number, ..)| number == group), 0),
            Purpose::Build(number) => (unit(number), 0),
            Purpose::Flush(id) => part(id),
            Purpose::Quarantine(id) => (part(id).0, part(id).1 + 1000),
            Purpose::Release(id) => (part(id).0, part(id).1 + 2000),
            Purpose::Ensure(at) => (None, at),
            Purpose::ReadSeed(index) => (Some(0), index as usize),
            Purpose::Clear(index) => (Some(1), index as usize),
            Purpose::SaveCursor(index) => (Some(2), index as usize),
            Purpose::MarkSeeded(index) => (Some(3), index as usize),
            Purpose::Begin
            | Purpose::Describe
            | Purpose::LoadQuarantine
            | Purpose::Open
            | Purpose::CaughtUp
            | Purpose::Ack
            | Purpose::Scan
            | Purpose::ReadLag => (None, 0),
        };
        (purpose.stage(), place, detail)
    }
}
