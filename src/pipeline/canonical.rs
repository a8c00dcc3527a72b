//! A state as everyone sees it who cannot tell when the run began.
//!
//! An explorer that walks every interleaving must know a state again, though it came there by another way. So in this
//! view calls, changes, units, parts and slots are named by where they stand, and times are relative to now.
//!
//! Everything that decides what follows is in it. Left out is what decides nothing: what is only counted (changes
//! captured, retries, documents quarantined), the build numbers that become versions (a document flies once, and the next
//! build is newer), and what follows from the rest (the dirty set's table and its sums). One thing that does decide is left
//! out too, or no two histories with a failure would ever meet: the generator of the jitter. States that are equal here
//! behave alike up to the delays of failures yet to come; where the policy's delay is zero there is none. They must be
//! of runs with the same configuration.

use alloc::string::String;
use core::fmt::{self, Write};

use crate::error::Stage;
use crate::pipeline::Pipeline;
use crate::pipeline::ack::Checkpoint;
use crate::pipeline::calls::{PartId, Purpose};
use crate::pipeline::dirty::view::Names;
use crate::pipeline::flight::Part;
use crate::pipeline::ledger::{Handle, Ledger};
use crate::time::Instant;

/// A canonical view of a pipeline's state: equal for states from which the same things follow. It prints as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Canonical(String);

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time relative to now, in nanoseconds; `None` for one that saturated, which never comes.
type Relative = Option<i128>;

impl<B: fmt::Debug> Pipeline<B> {
    /// The state in its canonical view. Commands must have been polled until `None`.
    #[must_use]
    pub fn canonical(&self) -> Canonical {
        let mut text = String::new();
        let _ = self.describe(&mut text);
        Canonical(text)
    }

    /// The same view, written out: who only hashes it need not keep it.
    pub fn write_canonical(&self, text: &mut dyn Write) -> fmt::Result {
        self.describe(text)
    }

    fn describe(&self, text: &mut dyn Write) -> fmt::Result {
        // How long it has been open decides only for one that has failed, and until it is long enough.
        let open_for = self.now.since(self.capture.opened).min(self.config.retry.delay_max);
        let mut capture = self.capture.clone();
        capture.opened = Instant::ORIGIN;
        let open_for = (capture.failures > 0 && capture.is_open()).then_some(open_for);
        writeln!(text, "capture {capture:?} open for {open_for:?}")?;
        writeln!(text, "builds {} flushes {}", self.build_limit.at_once(), self.flush_limit.at_once())?;
        for (limit, stage) in [(&self.build_limit, Stage::Build), (&self.flush_limit, Stage::Flush)] {
            // Of those that were made before it was cut, the first ones: they say nothing about it.
            let calls = self.calls.made().filter(|(_, call)| call.purpose.stage() == stage);
            let silent = calls.filter(|(_, call)| limit.is_of_before(call.made)).count();
            if let Some(found) = limit.found() {
                writeln!(text, "{stage:?} found {found:?} silent {silent}")?;
            }
        }
        writeln!(text, "sees {:?}", self.visibility)?;
        let (drain, grace) = (self.ending.drain_deadline(), self.ending.grace_deadline());
        writeln!(
            text,
            "ending {:?} drain {:?} grace {:?} {:?}",
            self.ending.phase(),
            drain.map(|at| self.relative(at)),
            grace.map(|at| self.relative(at)),
            self.ending.error()
        )?;
        self.describe_acks(text)?;
        self.describe_resolves(text)?;
        let row = |index: u32, handle: Handle| place(&self.seeding.get(index).rows, handle);
        let names = Names { change: &|handle| self.change(handle), row: &row, due: &|at| self.due(at) };
        self.dirty.describe(text, &names)?;
        self.describe_flights(text)?;
        self.describe_seeding(text)?;
        self.describe_calls(text)?;
        let share = self.config.limits.backfill_share;
        writeln!(
            text,
            "told {} turns {} {} quarantined {:?} cursors {:?} lag {:?} {} stalled {}",
            self.told_caught_up,
            // Beyond the share the turn is the same.
            self.live_cuts.min(share),
            self.live_flushes.min(share),
            self.quarantined,
            self.cursors_at.map(|at| self.due(at)),
            self.lag_at.map(|at| self.due(at)),
            self.lag_exceeded,
            self.stalled,
        )
    }

    fn relative(&self, at: Instant) -> Relative {
        (at.as_nanos() < u64::MAX).then(|| i128::from(at.as_nanos()) - i128::from(self.now.as_nanos()))
    }

    /// When something is due: how long ago it became so decides nothing.
    fn due(&self, at: Instant) -> Relative {
        self.relative(at).map(|at| at.max(0))
    }

    /// When a change of that age becomes an alarm; `None` for never, and then its age decides nothing.
    fn alarm(&self, since: Instant) -> Relative {
        self.relative(since.after(self.config.alarms.unacknowledged_age))
    }

    /// A change by its distance to the oldest that is owed.
    fn change(&self, handle: Handle) -> u64 {
        place(&self.ack.changes, handle)
    }

    fn checkpoint(&self, mark: Checkpoint) -> (crate::change::Position, i128, Option<Relative>) {
        let captured = i128::from(mark.captured) - i128::from(self.ack.changes.pushed());
        (mark.position, captured, mark.followed.map(|since| self.alarm(since)))
    }

    fn describe_acks(&self, text: &mut dyn Write) -> fmt::Result {
        for (handle, _, _, holders, mark) in self.ack.changes.iter() {
            let mark = mark.map(|mark| self.checkpoint(*mark));
            let foreign = !self.ack.is_of_stream(handle);
            writeln!(text, "owed {} held {holders} foreign {foreign} after {mark:?}", self.change(handle))?;
        }
        let (sent, safe) = self.ack.outgoing();
        writeln!(
            text,
            "ack sent {:?} safe {:?} last {:?} unsure {} latest {:?} unacknowledged {} alarm {:?}",
            sent.map(|mark| self.checkpoint(mark)),
            safe.map(|mark| self.checkpoint(mark)),
            self.ack.acknowledged(),
            self.ack.is_unsure(),
            self.ack.changes.latest().map(|mark| self.checkpoint(*mark)),
            self.ack.unacknowledged(),
            self.ack.since().map(|since| self.alarm(since)),
        )
    }

    fn describe_resolves(&self, text: &mut dyn Write) -> fmt::Result {
        for (handle, waiting) in self.resolve.iter() {
            writeln!(text, "unresolved {} {waiting:?}", self.change(handle))?;
        }
        for (_, changes, answer) in self.resolve.answers() {
            writeln!(text, "group of {changes} {answer:?}")?;
        }
        for (changes, is_cut) in self.resolve.bursts() {
            writeln!(text, "burst of {changes} cut {is_cut}")?;
        }
        Ok(())
    }

    fn describe_flights(&self, text: &mut dyn Write) -> fmt::Result {
        for (at, (_, unit)) in self.flights.iter().enumerate() {
            write!(
                text,
                "flight {at} {:?} {} building {} {:?} {:?} left {} written {:?} {:?} {:?}",
                unit.lane,
                unit.changes,
                unit.building,
                unit.visibility,
                unit.ids,
                unit.unsettled,
                unit.written,
                unit.flush_began.map(|at| self.relative(at)),
                unit.flush_ended.map(|at| self.relative(at)),
            )?;
            for (part, attempt) in unit.parts.values() {
                match part {
                    Part::Compare(writes) | Part::Flush(writes) => {
                        let what = if matches!(part, Part::Compare(_)) { "compare" } else { "flush" };
                        write!(text, " {what} attempt {attempt}")?;
                        for write in writes.iter() {
                            write!(text, " {:?}", write.document)?;
                        }
                    }
                    Part::Quarantine(records, _) => {
                        for record in records.iter() {
                            let (operation, attempts) = (record.operation, record.attempts);
                            write!(
                                text,
                                " quarantine {} {operation:?} {attempts} {}",
                                record.id, record.reason
                            )?;
                        }
                    }
                    Part::Parked(index, held) => write!(text, " parked {index} {}", held.len())?,
                    Part::Release(documents, _) => {
                        write!(text, " release")?;
                        documents.iter().try_for_each(|document| write!(text, " {}", document.id))?;
                    }
                }
            }
            writeln!(text)?;
        }
        for part in self.flights.all_ready() {
            writeln!(text, "ready {:?}", self.part(part))?;
        }
        for (unit, attempt) in self.flights.ready_builds() {
            let purpose = self.purpose(Purpose::Build(unit));
            writeln!(text, "ready {purpose:?} attempt {attempt}")?;
        }
        Ok(())
    }

    fn describe_seeding(&self, text: &mut dyn Write) -> fmt::Result {
        for index in &self.seeding.indexes {
            write!(
                text,
                "index {} {:?} {:?} skip {:?}",
                index.name,
                index.seed(),
                index.stage,
                index.skip_to
            )?;
            if index.anew || index.parked_for.is_some() {
                write!(text, " anew {} parked for {:?}", index.anew, index.parked_for)?;
            }
            if index.truncated || index.rebuilt {
                write!(text, " truncated {} rebuilt {}", index.truncated, index.rebuilt)?;
            }
            if index.sees.is_some() {
                write!(text, " sees {:?}", index.sees)?;
            }
            if let Some(verification) = &index.verification {
                write!(text, " verifying {}", verification.view(|at| self.relative(at)))?;
            }
            if index.verified.is_some() {
                write!(text, " {:?}", index.verified)?;
            }
            for handle in &index.until_cleared {
                write!(text, " truncated by {}", self.change(*handle))?;
            }
            for (handle, _, _, holders, mark) in index.rows.iter() {
                write!(text, " row {} held {holders} after {mark:?}", place(&index.rows, handle))?;
            }
            let latest = index.rows.latest();
            writeln!(text, " latest {latest:?} cursor {:?} saving {}", index.cursor, index.saving)?;
        }
        let scan = self.seeding.scan.as_ref();
        let scan = scan.map(|scan| {
            (&scan.table, &scan.after, &scan.members, scan.attempt, scan.open.is_some(), scan.verifies)
        });
        let (announced, completed) = (self.seeding.announced, self.seeding.completed);
        let until = self.scan_deadline().map(|at| self.relative(at));
        writeln!(
            text,
            "scan {scan:?} until {until:?} stream {:?} told {announced} {completed}",
            self.seeding.stream
        )
    }

    fn describe_calls(&self, text: &mut dyn Write) -> fmt::Result {
        for (_, call) in self.calls.made() {
            let deadline = self.relative(call.deadline);
            writeln!(
                text,
                "call {:?} attempt {} until {deadline:?}",
                self.purpose(call.purpose),
                call.attempt
            )?;
            if self.config.limits.adaptive {
                writeln!(text, "made {:?}", self.relative(call.made))?;
            }
        }
        for (at, purpose, attempt) in self.calls.waiting() {
            writeln!(text, "again {:?} attempt {attempt} in {:?}", self.purpose(purpose), self.due(at))?;
        }
        Ok(())
    }

    fn unit(&self, number: u64) -> Option<usize> {
        self.flights.iter().position(|(unit, _)| unit == number)
    }

    fn part(&self, id: PartId) -> (Option<usize>, usize) {
        let parts = self.flights.get(id.unit).map(|unit| &unit.parts);
        let before = parts.map(|parts| parts.keys().take_while(|part| **part < id.part).count());
        (self.unit(id.unit), before.unwrap_or_default())
    }

    /// A purpose whose unit, part or group is named by where it stands.
    fn purpose(&self, purpose: Purpose) -> (&'static str, Option<usize>, usize) {
        let at = |name, (place, detail): (Option<usize>, usize)| (name, place, detail);
        match purpose {
            Purpose::Begin => ("begin", None, 0),
            Purpose::Describe => ("describe", None, 0),
            Purpose::Ensure(mapping) => ("ensure", None, mapping),
            Purpose::LoadQuarantine => ("load quarantine", None, 0),
            Purpose::Open => ("open", None, 0),
            Purpose::Resolve(group) => {
                ("resolve", self.resolve.groups().position(|(number, ..)| number == group), 0)
            }
            Purpose::Build(number) => ("build", self.unit(number), 0),
            Purpose::Flush(id) => at("flush", self.part(id)),
            Purpose::Compare(id) => at("compare", self.part(id)),
            Purpose::List(index) => ("list", None, index as usize),
            Purpose::CaughtUp => ("caught up", None, 0),
            Purpose::Quarantine(id) => at("quarantine", self.part(id)),
            Purpose::Release(id) => at("release", self.part(id)),
            Purpose::Ack => ("ack", None, 0),
            Purpose::ReadSeed(index) => ("read seed", None, index as usize),
            Purpose::Clear(index) => ("clear", None, index as usize),
            Purpose::SaveCursor(index) => ("save cursor", None, index as usize),
            Purpose::Scan => ("scan", None, 0),
            Purpose::MarkSeeded(index) => ("mark seeded", None, index as usize),
            Purpose::Park(index) => ("park", None, index as usize),
            Purpose::ReadLag => ("read lag", None, 0),
        }
    }
}

/// An entry by its distance to the oldest that is owed.
fn place<M>(ledger: &Ledger<M>, handle: Handle) -> u64 {
    let oldest = ledger.iter().next().map_or(0, |(_, number, ..)| number);
    ledger.number(handle) - oldest
}
