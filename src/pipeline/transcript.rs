//! Stories of the pipeline: what happened, and the commands that it caused.
//!
//! Every file under `transcripts/` is one story. Its first line states the goal; `config` lines set what differs from
//! the default; then come the events, each followed by what it caused:
//!
//! ```text
//! # A4: nothing is acknowledged before the flush that made it durable.
//! config max_changes=2
//!
//! > start users
//! > captured +users/1 -users/2 @20 idle
//!   * captured 2
//!   resolve #6 +users/1 -users/2
//! ```
//!
//! - `>` is an event. A duration in front of it (`> 5ms flushed #9`) lets that much time pass before it; alone
//!   (`> 5ms`) it is time that passes. `> timeout` goes exactly to the next deadline: the laziest legal driver.
//! - `?` asks: `status`, `timeout`, `capacity` or `view`, the canonical one.
//! - Indented lines are the answer: a command, with the id that its answer echoes; `*` is what the observer hears;
//!   `!` a misuse, which leaves the state unchanged.
//! - `+users/1` is a row that was inserted or updated, `-users/2` one that was deleted, `+users/1~7` one that queries see
//!   from token 7 on, `+orders/5{user=1->user=2}` one with its images; `truncate:users,orders` are tables that were
//!   emptied; `@20` is a checkpoint. `users/1=a` is a document
//!   with its body, `-users/2` a tombstone, `users/3!throttled` and the like a failure of that document alone.
//! - `start` stands for everything from `describe` to the seed states of its indexes: `users` is seeded, `users=unseeded` is
//!   not, `users=after:3` resumes from a cursor, `books@users` has `users` for its root table, `books@users+orders` is
//!   built from `orders` too and from no other.
//!
//! With `UPDATE_TRANSCRIPTS=1` the expected parts are rewritten, and an id that an event leaves out is filled in: the
//! oldest call that it can answer. The difference is then reviewed like code. The shape of it all is that of the
//! `testdata` of etcd's raft.
//!
//! Every story is told three times: as it stands, again, and an hour later with other call ids; commands and canonical
//! views must be the same. After every event the invariants are checked, and that no deadline lies in the past.

mod parse;
mod show;

use std::collections::BTreeMap;
use std::eprintln;
use std::fs;
use std::path::{Path, PathBuf};

use super::calls::{Calls, Purpose};
use super::{CallId, Command, Event, Misuse, Pipeline};
use crate::config::Config;
use crate::ports::Lane;
use crate::time::Instant;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::time::Duration;

type Body = String;

/// So much later than the story begins is told once more, and with so many call ids used up.
const LATER: Duration = Duration::from_secs(3600);
const IDS_LATER: u64 = 1000;

#[test]
fn every_transcript_tells_what_happens() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut wrong = String::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pipeline/transcripts"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
    files.sort();
    assert!(!files.is_empty(), "there are transcripts");
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let told = tell(&name, &text, Instant::ORIGIN, 0);
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                let _ = writeln!(wrong, "{error}");
                continue;
            }
        };
        assert_replays(&name, &told);
        let later = tell(&name, &text, Instant::ORIGIN.after(LATER), IDS_LATER).unwrap();
        assert_eq!(later.text, told.text, "{name}: an hour later the commands differ");
        assert_eq!(later.views, told.views, "{name}: an hour later the canonical views differ");
        if update {
            fs::write(&path, &told.text).unwrap();
        } else if told.text != text {
            let _ = write!(wrong, "{name}\n{}", difference(&text, &told.text));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\nUPDATE_TRANSCRIPTS=1 rewrites the expected parts");
}

/// A story as it was told.
struct Told {
    /// The file as it should read.
    text: String,
    config: Config,
    events: Vec<(Instant, Event<Body>)>,
    commands: Vec<Command<Body>>,
    /// The canonical view after each event.
    views: Vec<String>,
    /// The pipeline at the end.
    pipeline: Pipeline<Body>,
}

/// The pipeline at the end of a story.
pub(super) fn after(story: &str) -> Pipeline<Body> {
    tell("a story", story, Instant::ORIGIN, 0).unwrap().pipeline
}

/// The recorded events, given to a fresh pipeline, cause the same commands.
fn assert_replays(name: &str, told: &Told) {
    let mut pipeline = Pipeline::new(told.config.clone(), Instant::ORIGIN).unwrap();
    let mut commands: Vec<_> = core::iter::from_fn(|| pipeline.poll_command()).collect();
    for (now, event) in &told.events {
        pipeline.handle(*now, event.clone()).unwrap();
        commands.extend(core::iter::from_fn(|| pipeline.poll_command()));
    }
    assert_eq!(commands, told.commands, "{name}: replayed, the commands differ");
}

/// Tells a story that begins at `start`, after so many call ids. Errors name file and line.
fn tell(name: &str, text: &str, start: Instant, ids: u64) -> Result<Told, String> {
    if !text.starts_with("# ") {
        return Err(format!("{name}:1: the first line states the goal: `# A4: ...`"));
    }
    let mut place = Place { name, line: 0 };
    let mut config = Config::default();
    let mut run: Option<Run> = None;
    let mut out = String::new();
    for (at, line) in text.lines().enumerate() {
        place.line = at + 1;
        let fail = |what: String| format!("{name}:{}: {what}", at + 1);
        if line.starts_with("> ") || line.starts_with("? ") {
            if run.is_none() {
                run = Some(Run::new(config.clone(), start, ids).map_err(fail)?);
            }
            let Some(run) = &mut run else { continue };
            let (shown, answer) = match line.strip_prefix("> ") {
                Some(event) => run.event(event.trim()).map_err(fail)?,
                None => (line.into(), run.ask(line[2..].trim()).map_err(fail)?),
            };
            let _ = writeln!(out, "{shown}");
            for line in answer {
                let _ = writeln!(out, "  {line}");
            }
            continue;
        }
        if line.starts_with("  ") {
            continue;
        }
        match line.strip_prefix("config") {
            Some(_) if run.is_some() => return Err(fail("`config` stands before the first event".into())),
            Some(settings) => parse::config(&mut config, settings).map_err(fail)?,
            None if line.is_empty() || line.starts_with('#') => {}
            None => return Err(fail(format!("this is no comment, `config`, `>` or `?`: {line}"))),
        }
        let _ = writeln!(out, "{line}");
    }
    let run = run.ok_or_else(|| format!("{name}: nothing happens"))?;
    let Run { events, commands, views, pipeline, .. } = run;
    Ok(Told { text: out, config, events, commands, views, pipeline })
}

/// Where the story is: told where an assertion fails.
struct Place<'a> {
    name: &'a str,
    line: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}:{}", self.name, self.line);
        }
    }
}

/// A pipeline with the driver's side of it.
struct Run {
    pipeline: Pipeline<Body>,
    start: Instant,
    now: Instant,
    /// How many call ids were used up before.
    ids: u64,
    /// Every command that makes a call, as the transcript numbers it.
    calls: BTreeMap<u64, Command<Body>>,
    /// Those that were neither answered nor abandoned.
    open: Vec<u64>,
    events: Vec<(Instant, Event<Body>)>,
    commands: Vec<Command<Body>>,
    views: Vec<String>,
}

impl Run {
    fn new(config: Config, start: Instant, ids: u64) -> Result<Self, String> {
        let mut pipeline = Pipeline::new(config, start).map_err(|error| error.to_string())?;
        if ids > 0 {
            pipeline.commands.clear();
            pipeline.calls = Calls::new(pipeline.config.retry);
            for _ in 0..ids {
                let id = pipeline.calls.make(Purpose::Describe, 1, start);
                pipeline.calls.answered(id);
            }
            pipeline.make(Purpose::Describe, 1);
        }
        let mut run = Self {
            pipeline,
            start,
            now: start,
            ids,
            calls: BTreeMap::new(),
            open: Vec::new(),
            events: Vec::new(),
            commands: Vec::new(),
            views: Vec::new(),
        };
        run.poll();
        Ok(run)
    }

    /// Gives the pipeline an event and returns what it caused.
    fn feed(&mut self, now: Instant, event: Event<Body>) -> Vec<String> {
        let before = self.pipeline.clone();
        if let Err(misuse) = self.pipeline.handle(now, event.clone()) {
            assert!(self.pipeline == before, "a misuse leaves the state unchanged: {misuse}");
            return alloc::vec![format!("! misuse: {}", self.relative(misuse))];
        }
        self.now = now;
        let answered = event.call().map(|call| call.0 - self.ids);
        // The rows of a snapshot come under the id of the call that opened it.
        let calls = &self.calls;
        let is_scan = |id: &u64| matches!(calls.get(id), Some(Command::Scan { .. }));
        self.open.retain(|id| Some(*id) != answered || is_scan(id));
        self.events.push((now, event));
        let lines = self.poll();
        self.pipeline.check_invariants();
        if let Some((at, why)) = self.pipeline.poll_timeout() {
            assert!(at > now, "what is due ({why:?}) is a command by now");
        }
        self.views.push(self.pipeline.canonical().to_string());
        lines
    }

    fn poll(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(command) = self.pipeline.poll_command() {
            lines.push(show::command(&command, self.ids));
            if let Some(CallId(id)) = command.call() {
                self.calls.insert(id - self.ids, command.clone());
                self.open.push(id - self.ids);
            }
            if let Command::Abandon { call } = &command {
                self.open.retain(|id| *id != call.0 - self.ids);
            }
            self.commands.push(command);
        }
        lines
    }

    /// One event line: as it should read, and what it caused.
    fn event(&mut self, text: &str) -> Result<(String, Vec<String>), String> {
        if text == "timeout" {
            let (at, _) = self.pipeline.poll_timeout().ok_or("there is no deadline")?;
            return Ok((format!("> {text}"), self.feed(at, Event::Elapsed)));
        }
        if let Some(rest) = text.strip_prefix("start ") {
            return Ok((format!("> {text}"), self.begin(rest)?));
        }
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (back, first) = first.strip_prefix('-').map_or((false, first), |first| (true, first));
        let Ok(passed) = parse::duration(first) else {
            let (shown, event) = parse::event(self, text)?;
            return Ok((format!("> {shown}"), self.feed(self.now, event)));
        };
        if back {
            let earlier = Instant::from_nanos(self.now.as_nanos() - passed.as_nanos() as u64);
            return Ok((format!("> {text}"), self.feed(earlier, parse::event(self, rest)?.1)));
        }
        let until = self.now.after(passed);
        let mut lines = self.pass(until);
        if rest.is_empty() {
            return Ok((format!("> {text}"), lines));
        }
        let (shown, event) = parse::event(self, rest)?;
        lines.extend(self.feed(until, event));
        Ok((format!("> {first} {shown}"), lines))
    }

    /// Time passes; the pipeline is woken at each of its deadlines, and at the end.
    fn pass(&mut self, until: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some((at, _)) = self.pipeline.poll_timeout().filter(|(at, _)| *at < until) {
            lines.extend(self.feed(at, Event::Elapsed));
        }
        lines.extend(self.feed(until, Event::Elapsed));
        lines
    }

    /// Everything from `describe` to the seed states: what is then under way.
    fn begin(&mut self, text: &str) -> Result<Vec<String>, String> {
        let start = parse::start(text)?;
        let mut last = Vec::new();
        while let Some(&id) = self.open.first() {
            let Some(event) = start.answer(CallId(id + self.ids), &self.calls[&id]) else { break };
            last = self.feed(self.now, event);
        }
        last.retain(|line| line.starts_with('!'));
        last.extend(self.open.iter().map(|id| show::command(&self.calls[id], self.ids)));
        Ok(last)
    }

    fn ask(&self, text: &str) -> Result<Vec<String>, String> {
        match text {
            "status" => Ok(show::status(&self.pipeline.status())),
            "timeout" => Ok(alloc::vec![match self.pipeline.poll_timeout() {
                Some((at, why)) => format!("in {}: {}", show::duration(at.since(self.now)), show::timer(why)),
                None => "none".into(),
            }]),
            "capacity" => {
                let of = |lane| self.pipeline.capacity(lane);
                Ok(alloc::vec![format!("{} changes, {} rows", of(Lane::Live), of(Lane::Backfill))])
            }
            "view" => Ok(self.pipeline.canonical().to_string().lines().map(String::from).collect()),
            other => Err(format!("`{other}` is not `status`, `timeout`, `capacity` or `view`")),
        }
    }

    /// A misuse as the transcript numbers calls and times.
    fn relative(&self, misuse: Misuse) -> Misuse {
        let time = |at: Instant| Instant::from_nanos(at.as_nanos() - self.start.as_nanos());
        let id = |call: CallId| CallId(call.0 - self.ids);
        match misuse {
            Misuse::TimeWentBack { event, last } => {
                Misuse::TimeWentBack { event: time(event), last: time(last) }
            }
            Misuse::UnknownCall(call) => Misuse::UnknownCall(id(call)),
            Misuse::WrongAnswer { call, stage } => Misuse::WrongAnswer { call: id(call), stage },
            other @ (Misuse::OverCapacity { .. }
            | Misuse::NoCapture
            | Misuse::Reindex { .. }
            | Misuse::Verify { .. }
            | Misuse::Finished) => other,
        }
    }
}

/// The lines in which two texts differ, with some around them.
fn difference(expected: &str, told: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), told.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let rest = (old.len() - head).min(new.len() - head);
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(same).count();
    let mut text = String::new();
    let mut block = |sign: char, lines: &[&str]| {
        for line in lines {
            let _ = writeln!(text, "{sign} {line}");
        }
    };
    block(' ', &old[head.saturating_sub(3)..head]);
    block('-', &old[head..old.len() - tail]);
    block('+', &new[head..new.len() - tail]);
    block(' ', &old[old.len() - tail..(old.len() - tail + 3).min(old.len())]);
    format!("@ line {}\n{text}", head + 1)
}

#[test]
fn an_error_names_file_and_line() {
    let tell = |text: &str| tell("x.txt", text, Instant::ORIGIN, 0).err();
    assert_eq!(tell("config\n").unwrap(), "x.txt:1: the first line states the goal: `# A4: ...`");
    assert_eq!(tell("# A\nconfig max_change=2\n").unwrap(), "x.txt:2: `max_change` is no setting");
    assert_eq!(tell("# A\n\n> described #1\n> jumped\n").unwrap(), "x.txt:4: `jumped` is no event");
    assert_eq!(tell("# A\n> start users\n> built\n").unwrap(), "x.txt:3: no call waits for `built`");
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), "@ line 2\n  a\n- b\n+ x\n  c\n");
}
