//! What a person reads: plain lines in a pipe, with colours and a progress bar on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

const BAR_WIDTH: usize = 30;

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    terminal: bool,
    colours: bool,
}

impl Page {
    pub(crate) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { terminal, colours: terminal && !unwanted }
    }

    pub(crate) fn line(self, text: impl AsRef<str>) {
        self.write(&format!("{}\n", text.as_ref()));
    }

    pub(crate) fn chapter(self, title: &str) {
        self.line(format!("\n{}", self.bold(title)));
    }

    /// A step that is done, and what is to be said about it.
    pub(crate) fn done(self, text: impl AsRef<str>) {
        self.line(format!("  {} {}", self.green("✓"), text.as_ref()));
    }

    pub(crate) fn failed(self, text: impl AsRef<str>) {
        self.line(format!("  {} {}", self.red("✗"), text.as_ref()));
    }

    pub(crate) fn note(self, text: impl AsRef<str>) {
        self.line(format!("    {}", self.dim(text.as_ref())));
    }

    /// Draws the bar over the one before. A pipe gets none of it: the line that tells the result says it all.
    pub(crate) fn progress(self, what: &str, done: u64, total: u64) {
        if !self.terminal {
            return;
        }
        let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        let full = (share * BAR_WIDTH as f64) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR_WIDTH - full));
        let (bar, done, total) = (self.green(&bar), count(done), count(total));
        self.write(&format!("\r\x1b[2K  {bar} {:3.0} %  {done} of {total} {what}", share * 100.0));
    }

    /// Wipes the bar away.
    pub(crate) fn progress_over(self) {
        if self.terminal {
            self.write("\r\x1b[2K");
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.coloured("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.coloured("2", text)
    }

    fn green(self, text: &str) -> String {
        self.coloured("32", text)
    }

    fn red(self, text: &str) -> String {
        self.coloured("31", text)
    }

    fn coloured(self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn write(self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // A reader who has seen enough (`| head`) is no reason to fail.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// `: 12,345 documents a second`. Nothing where there were so few that the time is that of the start.
pub(crate) fn rate(number: u64, what: &str, duration: Duration) -> String {
    match number {
        0..1_000 => String::new(),
        many => {
            let in_one_second = count((many as f64 / duration.as_secs_f64().max(1e-9)) as u64);
            format!(": {in_one_second} {what} a second")
        }
    }
}

/// One line of at most so many characters.
pub(crate) fn shortened(text: &str, characters: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() <= characters {
        true => line,
        false => line.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
    }
}
