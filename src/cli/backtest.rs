//! `barograph backtest`: what the daemon would have said about the past.

use super::failure::{Failure, finish};
use crate::app::{Backtest, Config};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Replay recordings through the daemon's stages at recorded time, as fast as possible.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph backtest recording.jsonl.gz --out result
  barograph backtest traces.jsonl logs.jsonl metrics.jsonl --out result --scores
  barograph backtest ./barograph-data --out result      (the journal of a daemon that has stopped)

Writes result/anomalies.jsonl, and with --scores and --templates scores.csv and templates.csv.")]
pub struct Arguments {
    /// OTLP JSON lines as the Collector's file exporter writes them (.gz and .zst too), which are merged
    /// by time; or one directory of a daemon.
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// Folder to write into; it is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write scores.csv: how unusual each metric point was, and how probable in health.
    #[arg(long)]
    scores: bool,
    /// Write templates.csv: the template of each log record that has a log.record.uid.
    #[arg(long)]
    templates: bool,
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key by its dotted path; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the backtest.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    finish(backtest(arguments))
}

fn backtest(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { recordings, out, scores, templates, config, set } = arguments;
    let config = Config::load(config.as_deref(), &set).map_err(|error| Failure::usage(error.to_string()))?;
    let backtest = Backtest { inputs: recordings, out, scores, templates };
    let outcome = backtest.run(&config).map_err(|error| Failure::failed(error.to_string()))?;
    super::output::write_out(&format!(
        "{} requests replayed, {} anomalies, see {}\n",
        outcome.requests,
        outcome.anomalies,
        backtest.out.join("anomalies.jsonl").display()
    ))
}
