//! Documents in a file, a line of JSON for each.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use syncline::{Content, Fault, FlushReport, Sink, Writes};

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Appends every document to a file, as JSON, in the fields of `flusso`'s own sink that tell what it is.
#[derive(Debug)]
pub struct FileSink(Mutex<File>);

impl FileSink {
    /// A sink that appends to this file.
    ///
    /// # Panics
    ///
    /// Where it cannot be opened.
    #[must_use]
    pub fn append_to(path: &Path) -> Self {
        Self(Mutex::new(File::options().create(true).append(true).open(path).expect("a file")))
    }
}

impl Sink for FileSink {
    type Body = String;

    async fn flush(&self, writes: &Writes<String>, _caught_up: bool) -> Result<FlushReport, Fault> {
        let mut lines = Vec::with_capacity(256 * writes.len());
        for write in writes.iter() {
            let id = &write.document.id;
            let (op, document) = match &write.document.content {
                Content::Upsert(body) => ("upsert", &**body),
                Content::Delete => ("delete", "null"),
            };
            writeln!(
                lines,
                r#"{{"document":{document},"id":"{}","index":"{}","op":"{op}"}}"#,
                id.sink_id(),
                id.index
            )?;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines)?;
        Ok(FlushReport::clean())
    }
}

/// Someone who reads a file while it is written.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// What was read of a line that has no end yet.
    rest: Vec<u8>,
}

impl Reader {
    /// A reader from the beginning of this file.
    ///
    /// # Panics
    ///
    /// Where it cannot be opened.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self { file: File::open(path).expect("a file"), rest: Vec::new() }
    }

    /// Reads on until so many documents have been written as lines that hold `text`.
    ///
    /// # Panics
    ///
    /// Where they do not come.
    pub fn wait_for(&mut self, documents: usize, text: &str) {
        let begun = Instant::now();
        let mut seen = HashSet::with_capacity(documents);
        while seen.len() < documents {
            assert!(begun.elapsed() < PATIENCE, "{} of {documents} documents were written", seen.len());
            if self.file.read_to_end(&mut self.rest).expect("it can be read") == 0 {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            for line in String::from_utf8_lossy(&self.rest[..end]).lines() {
                if line.contains(text) {
                    seen.extend(id(line));
                }
            }
            self.rest.drain(..end);
        }
    }
}

/// The document's id: the one that is a text.
fn id(line: &str) -> Option<u64> {
    let (_, after) = line.rsplit_once(r#""id":""#)?;
    after.split('"').next()?.parse().ok()
}
