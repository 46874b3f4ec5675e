//! The demo's lines for people: with time and colour on a terminal, plain in a pipe.

use crate::api::v1;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Standard output.
pub struct Screen {
    started: Instant,
    coloured: bool,
    /// Whether the last line on a terminal is one of progress, to be overwritten.
    progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Dim,
    Good,
    Bad,
    Strong,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\u{1b}[2m",
            Self::Good => "\u{1b}[32m",
            Self::Bad => "\u{1b}[31m",
            Self::Strong => "\u{1b}[1m",
        }
    }
}

impl Screen {
    #[must_use]
    pub fn new() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { started: Instant::now(), coloured, progress: false }
    }

    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn write(&mut self, tone: Tone, text: &str, end: &str) {
        let erase = if self.progress { "\r\u{1b}[K" } else { "" };
        let seconds = self.elapsed().as_secs_f64();
        let (on, off) = match tone {
            Tone::Plain => ("", ""),
            _ if self.coloured => (tone.code(), "\u{1b}[0m"),
            _ => ("", ""),
        };
        // A closed pipe does not end the demo: its exit code still counts.
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{erase}{seconds:>6.1} s  {on}{}{off}{end}", clean(text));
        let _ = out.flush();
    }

    pub fn say(&mut self, tone: Tone, text: &str) {
        self.write(tone, text, "\n");
        self.progress = false;
    }

    /// A line that the next one replaces; nothing in a pipe.
    pub fn progress(&mut self, text: &str) {
        if self.coloured {
            self.write(Tone::Dim, text, "");
            self.progress = true;
        }
    }

    /// Several lines, indented.
    pub fn block(&mut self, tone: Tone, text: &str) {
        if self.progress {
            print!("\r\u{1b}[K");
            self.progress = false;
        }
        let (on, off) = if self.coloured { (tone.code(), "\u{1b}[0m") } else { ("", "") };
        let mut out = std::io::stdout().lock();
        for line in text.lines() {
            let _ = writeln!(out, "          {on}{}{off}", clean(line));
        }
        let _ = out.flush();
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// What came over the wire moves no cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Services with requests as a table.
#[must_use]
pub fn services_table(services: &[v1::ServiceSummary]) -> String {
    let mut text = format!("{:<16} {:>8} {:>8} {:>9} {:>9}\n", "service", "requests", "errors", "p50", "p99");
    for service in services.iter().filter(|service| service.requests > 0) {
        let name = service.service.as_ref().map_or("", |service| service.name.as_str());
        text += &format!(
            "{name:<16} {:>8} {:>7.1}% {:>9} {:>9}\n",
            service.requests,
            service.error_ratio * 100.0,
            milliseconds(service.p50_ns),
            milliseconds(service.p99_ns),
        );
    }
    text
}

fn milliseconds(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1} ms", ns as f64 / 1e6))
}

/// `12.3 s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
