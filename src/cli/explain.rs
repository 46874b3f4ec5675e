//! `barograph explain`: what broke at a time, from recordings.

use super::failure::{Failure, finish};
use crate::app::{Config, Question};
use crate::model::Timestamp;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say what broke at a time, compared with a baseline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph explain recording.jsonl.gz --at 2026-01-01T14:02:00Z --out result
  barograph explain traces.jsonl logs.jsonl --at 2026-01-01T14:02:00Z \\
      --baseline 2026-01-01T13:00:00Z/2026-01-01T13:50:00Z --out result

Nothing timed after --at is looked at. Writes result/causes.json; an empty list means that nothing is wrong.")]
pub struct Arguments {
    /// OTLP JSON lines as the Collector's file exporter writes them (.gz and .zst too).
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// The moment, RFC 3339 with a zone.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_rfc3339)]
    at: Timestamp,
    /// The healthy period; by default ten minutes that end two minutes before.
    #[arg(long, value_name = "FROM/TO", value_parser = period)]
    baseline: Option<(Timestamp, Timestamp)>,
    /// Folder to write into; it is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key by its dotted path; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn period(text: &str) -> Result<(Timestamp, Timestamp), String> {
    let (from, to) = text.split_once('/').ok_or("write FROM/TO, two times with a slash between them")?;
    let (from, to) = (Timestamp::parse_rfc3339(from)?, Timestamp::parse_rfc3339(to)?);
    if from < to { Ok((from, to)) } else { Err("the baseline ends before it begins".to_owned()) }
}

/// Answers the question.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    finish(explain(arguments))
}

fn explain(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { recordings, at, baseline, out, config, set } = arguments;
    let config = Config::load(config.as_deref(), &set).map_err(|error| Failure::usage(error.to_string()))?;
    let question = Question { inputs: recordings, at, baseline };
    let causes = question.write(&config, &out).map_err(|error| Failure::failed(error.to_string()))?;
    let mut text = String::new();
    if causes.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    for cause in &causes {
        let (service, reason) =
            (crate::serve::text::plain(&cause.service), crate::serve::text::plain(&cause.reason));
        text.push_str(&format!(
            "{}. {service} ({}, {:.0} %): {reason}\n",
            cause.rank,
            cause.kind.as_str(),
            cause.score * 100.0
        ));
    }
    super::output::write_out(&text)
}
