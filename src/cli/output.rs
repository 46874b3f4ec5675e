//! Printing answers: as a table or as JSON, once or again and again.

use super::connection::{Channel, Daemon, runtime};
use super::failure::Failure;
use super::moment::read_duration_ns;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns and units for people.
    Table,
    /// JSON for programs, with stable names.
    Json,
}

/// How to print.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// How to print.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Printing again and again.
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Print again every so often until interrupted; with JSON, a line each time.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s", require_equals = true, value_parser = read_duration_ns)]
    pub watch: Option<i64>,
}

/// An answer in both forms; the form that is not asked for is not made.
pub(super) struct Answer<'a> {
    pub table: Box<dyn FnOnce() -> String + 'a>,
    pub json: Box<dyn FnOnce() -> Value + 'a>,
}

impl Output {
    /// Prints an answer once.
    pub fn print(&self, answer: Answer<'_>) -> Result<(), Failure> {
        let text = match self.output {
            Format::Table => (answer.table)(),
            Format::Json => format!("{:#}\n", (answer.json)()),
        };
        write_out(&text)
    }

    /// Asks and prints, once or as often as `watch` says.
    pub fn ask(
        &self,
        daemon: &Daemon,
        watch: &Watch,
        question: impl AsyncFn(Channel) -> Result<Answer<'static>, Failure>,
    ) -> Result<(), Failure> {
        let Some(every) = watch.watch else {
            return self.print(daemon.ask(question)?);
        };
        let every =
            Duration::from_nanos(u64::try_from(every).unwrap_or_default()).max(Duration::from_millis(100));
        let clear = if std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
        runtime()?.block_on(async {
            let channel = daemon.connect().await?;
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let answer = question(channel.clone()).await?;
                write_out(&match self.output {
                    Format::Table => format!("{clear}{}", (answer.table)()),
                    Format::Json => format!("{}\n", (answer.json)()),
                })?;
            }
        })
    }
}

/// Writes to standard output at once.
pub(super) fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
