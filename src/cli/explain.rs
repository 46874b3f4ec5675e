//! `barograph explain`: what broke at a time, from recordings or from an evidence bundle.

use super::failure::{Failure, finish};
use crate::app::{Config, Question, write_causes};
use crate::diagnose::{Bundle, Cause};
use crate::model::Timestamp;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what broke at a time, compared with a baseline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph explain recording.jsonl.gz --at 2026-01-01T14:02:00Z --out result
  barograph explain traces.jsonl logs.jsonl --at 2026-01-01T14:02:00Z \\
      --baseline 2026-01-01T13:00:00Z/2026-01-01T13:50:00Z --out result

  barograph explain --bundle 3f1c9a0d5e7b2468.tar.zst

Nothing timed after --at is looked at. Writes result/causes.json; an empty list means that nothing is wrong.
A bundle is diagnosed again from what it holds, and what was told when it was made is shown beside it.")]
pub struct Arguments {
    /// OTLP JSON lines as the Collector's file exporter writes them (.gz and .zst too).
    #[arg(required_unless_present = "bundle", value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// An evidence bundle, a directory or a .tar.zst file.
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["recordings", "at", "baseline"])]
    bundle: Option<PathBuf>,
    /// The moment, RFC 3339 with a zone.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_rfc3339, required_unless_present = "bundle")]
    at: Option<Timestamp>,
    /// The healthy period; by default ten minutes that end two minutes before.
    #[arg(long, value_name = "FROM/TO", value_parser = period)]
    baseline: Option<(Timestamp, Timestamp)>,
    /// Folder to write into; it is made.
    #[arg(long, value_name = "DIR", required_unless_present = "bundle")]
    out: Option<PathBuf>,
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
    let Arguments { recordings, bundle, at, baseline, out, config, set } = arguments;
    if let Some(bundle) = bundle {
        return explain_bundle(&bundle, out.as_deref());
    }
    let (Some(at), Some(out)) = (at, out) else { return Err(Failure::usage("--at and --out are needed")) };
    let config = Config::load(config.as_deref(), &set).map_err(|error| Failure::usage(error.to_string()))?;
    let question = Question { inputs: recordings, at, baseline };
    let found = question.write(&config, &out).map_err(|error| Failure::failed(error.to_string()))?;
    super::output::write_out(&listed(&found.causes))
}

fn explain_bundle(path: &Path, out: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: crate::diagnose::Error| Failure::failed(format!("{}: {error}", path.display()));
    let bundle = Bundle::open(path).map_err(failed)?;
    let found = bundle.explain();
    if let Some(out) = out {
        write_causes(out, bundle.at, &found).map_err(|error| Failure::failed(error.to_string()))?;
    }
    let title = crate::serve::text::plain(&bundle.anomaly.title);
    super::output::write_out(&format!(
        "{title}\n\nnow:\n{}\ntold at {}:\n{}",
        listed(&found.causes),
        bundle.at,
        listed(&bundle.told)
    ))
}

/// The causes, one a line.
fn listed(causes: &[Cause]) -> String {
    let mut text = String::new();
    if causes.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    for cause in causes {
        let (service, reason) =
            (crate::serve::text::plain(&cause.service), crate::serve::text::plain(&cause.reason));
        text.push_str(&format!(
            "{}. {service} ({}, {:.0} %): {reason}\n",
            cause.rank,
            cause.kind.as_str(),
            cause.score * 100.0
        ));
    }
    text
}
