//! The pipeline and its world together, as someone sees them who cannot tell when the run began.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use syncline::pipeline::{Command, Notice};
use syncline::{DocumentId, Version};

use crate::drive::Drive;
use crate::model::{Late, State};

impl Drive {
    /// Equal for states from which the same things follow. Versions are ranked for each document, because a sink compares
    /// no others. Those that the pipeline holds need no rank: a document flies once, and what flies is newer than, or the
    /// same as, everything that was sent of it before.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        let _ = self.write_canonical(&mut text);
        text
    }

    /// The same, written out.
    pub fn write_canonical(&self, text: &mut dyn Write) -> fmt::Result {
        self.pipeline.write_canonical(text)?;
        let model = &self.model;
        writeln!(
            text,
            "world {:?} {:?} {:?} log {} {:?} {} {:?} {:?} {:?}",
            model.rows,
            model.transactions,
            model.emptied(),
            model.log.len(),
            model.confirmed,
            model.stream,
            model.sink.seeds,
            model.built,
            (&model.tampered, &model.by_hand),
        )?;
        for (id, (state, version)) in &model.sink.documents {
            writeln!(text, "stored {id} {state:?} {}", self.rank(id, *version))?;
        }
        for (index, found) in &model.found {
            writeln!(text, "found of {index} {found:?}")?;
        }
        for (id, version) in &model.quarantined {
            writeln!(text, "quarantined {id} {}", self.rank(id, *version))?;
        }
        for (id, state) in &model.skipped {
            writeln!(text, "skipped {id} {state:?}")?;
        }
        for late in &model.late {
            let ranked: Vec<_> = match late {
                Late::Writes(writes) => writes
                    .iter()
                    .map(|(id, state, version)| (id, Some(state), self.rank(id, *version)))
                    .collect(),
                Late::Release(documents) => documents
                    .iter()
                    .map(|document| (&document.id, None, self.rank(&document.id, document.version)))
                    .collect(),
            };
            writeln!(text, "late {ranked:?}")?;
        }
        for open in &self.open {
            match open {
                Command::Flush { writes, caught_up, .. } => {
                    let ranked = writes
                        .iter()
                        .map(|write| (&write.document, self.rank(&write.document.id, write.version)));
                    writeln!(text, "open flush {:?} {caught_up}", ranked.collect::<Vec<_>>())
                }
                Command::Compare { writes, .. } => {
                    let documents = writes.iter().map(|write| &write.document);
                    writeln!(text, "open compare {:?}", documents.collect::<Vec<_>>())
                }
                Command::List { index, after, limit, .. } => {
                    writeln!(text, "open list {index} {after:?} {limit}")
                }
                Command::Build { ids, visibility, .. } => writeln!(text, "open build {ids:?} {visibility:?}"),
                Command::Resolve { changes, .. } => writeln!(text, "open resolve {changes:?}"),
                Command::Ack { position, stream, .. } => writeln!(text, "open ack {position} {stream}"),
                Command::Clear { index, .. } => writeln!(text, "open clear {index}"),
                Command::Rebuild { index, .. } => writeln!(text, "open rebuild {index}"),
                Command::SaveCursor { index, seed, after, .. } => {
                    writeln!(text, "open cursor {index} {seed:?} {after:?}")
                }
                Command::MarkSeeded { index, seed, .. } => writeln!(text, "open marker {index} {seed:?}"),
                Command::Quarantine { documents, .. } => {
                    let ranked =
                        documents.iter().map(|record| (&record.id, self.rank(&record.id, record.version)));
                    writeln!(text, "open quarantine {:?}", ranked.collect::<Vec<_>>())
                }
                Command::Release { documents, .. } => {
                    let ranked =
                        documents.iter().map(|cured| (&cured.id, self.rank(&cured.id, cured.version)));
                    writeln!(text, "open release {:?}", ranked.collect::<Vec<_>>())
                }
                other => writeln!(text, "open {}", kind(other)),
            }?;
        }
        let snapshot = self.snapshot.as_ref().map(|snapshot| &snapshot.keys);
        writeln!(
            text,
            "driver {:?} {} {} {snapshot:?} {} {:?} {} {} {:?} {}",
            self.capture,
            self.has_opened,
            self.told_idle,
            self.ensured.len(),
            self.acknowledged,
            self.ack_pending,
            self.heard_caught_up,
            self.caught_up_again.filter(|at| *at > self.now).map(|at| at.since(self.now)),
            self.finished.is_some(),
        )?;
        writeln!(text, "owed {}", self.owed.canonical())
    }

    /// What the last step told, without what it counted.
    pub fn told(&self) -> String {
        let mut text = String::new();
        for notice in &self.notices {
            let _ = match notice {
                // The jitter of a retry is not a part of the view.
                Notice::Retried { stage, attempt, .. } => write!(text, "retried {stage} {attempt};"),
                other => write!(text, "{other:?};"),
            };
        }
        if let Some(outcome) = self.finished.as_ref().filter(|_| self.finished_now) {
            let _ = match outcome {
                Ok(report) => {
                    let (acknowledged, left) = (report.acknowledged, report.unacknowledged);
                    write!(text, "finished {acknowledged:?} {left} {:?};", report.unseeded)
                }
                Err(error) => write!(text, "halted {error};"),
            };
        }
        text
    }

    /// Which of the known versions of a document this is, the oldest first.
    fn rank(&self, id: &DocumentId, version: Version) -> usize {
        let mut known: BTreeSet<Version> = BTreeSet::new();
        known.extend(self.model.sink.documents.get(id).map(|(_, version)| *version));
        known.extend(self.model.quarantined.get(id));
        for late in &self.model.late {
            match late {
                Late::Writes(writes) => {
                    known.extend(
                        writes.iter().filter(|(other, ..)| other == id).map(|(_, _, version)| *version),
                    );
                }
                Late::Release(documents) => {
                    known.extend(documents.iter().filter(|cured| cured.id == *id).map(|cured| cured.version));
                }
            }
        }
        for open in &self.open {
            match open {
                Command::Flush { writes, .. } => {
                    let same = writes.iter().filter(|write| write.document.id == *id);
                    known.extend(same.map(|write| write.version));
                }
                Command::Quarantine { documents, .. } => {
                    known.extend(
                        documents.iter().filter(|record| record.id == *id).map(|record| record.version),
                    );
                }
                Command::Release { documents, .. } => {
                    known.extend(documents.iter().filter(|cured| cured.id == *id).map(|cured| cured.version));
                }
                _ => {}
            }
        }
        known.iter().take_while(|known| **known < version).count()
    }
}

/// The name of a command, which is all there is to one without contents.
fn kind(command: &Command<State>) -> String {
    let text = format!("{command:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().into()
}
