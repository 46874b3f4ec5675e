//! `barograph backtest`: what the daemon would have said about the past.

use super::failure::{Failure, finish};
use super::output::{Answer, Output};
use super::table::Table;
use crate::app::{Backtest, Comparison, Config, later_ns};
use crate::confirm::Anomaly;
use crate::model::Timestamp;
use crate::serve::text::{count, so_many, span, time};
use crate::serve::to_proto;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Replay recordings through the daemon's stages at recorded time, as fast as possible.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph backtest recording.jsonl.gz --out result
  barograph backtest traces.jsonl logs.jsonl metrics.jsonl --out result --scores
  barograph backtest ./barograph-data --out result      (the journal of a daemon that has stopped)
  barograph backtest --config new.toml                  (what would new.toml have told?)
  barograph backtest --config new.toml --present /etc/barograph.toml recording.jsonl.gz -o json

With --out, writes result/anomalies.jsonl, and with --scores and --templates scores.csv and templates.csv.
Without, shows what would have been told beside what is told under the present settings.")]
pub struct Arguments {
    /// OTLP JSON lines as the Collector's file exporter writes them (.gz and .zst too), which are merged
    /// by time; or one directory of a daemon. Without --out, by default the directory of the present settings.
    #[arg(required_unless_present_any = ["config", "set"], value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// Folder to write into; it is made. Without, both settings are compared.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["present", "output"])]
    out: Option<PathBuf>,
    /// Write scores.csv: how unusual each metric point was, and how probable in health.
    #[arg(long, requires = "out")]
    scores: bool,
    /// Write templates.csv: the template of each log record that has a log.record.uid.
    #[arg(long, requires = "out")]
    templates: bool,
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key by its dotted path; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// TOML file with the configuration to compare with; that of no file by default.
    #[arg(long, value_name = "FILE")]
    present: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs the backtest.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    finish(backtest(arguments))
}

fn backtest(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { recordings, out, scores, templates, config, set, present, output } = arguments;
    let usage = |error: crate::app::ConfigError| Failure::usage(error.to_string());
    let config = Config::load(config.as_deref(), &set).map_err(usage)?;
    let Some(out) = out else {
        let present = Config::load(present.as_deref(), &[]).map_err(usage)?;
        return compare(recordings, &present, &config, &output);
    };
    if recordings.is_empty() {
        return Err(Failure::usage("name a recording, or the directory of a daemon"));
    }
    let backtest = Backtest { inputs: recordings, out, scores, templates };
    let outcome = backtest.run(&config).map_err(|error| Failure::failed(error.to_string()))?;
    super::output::write_out(&format!(
        "{} replayed, {} {}, see {}\n",
        so_many(outcome.requests, "request"),
        count(outcome.anomalies),
        if outcome.anomalies == 1 { "anomaly" } else { "anomalies" },
        backtest.out.join("anomalies.jsonl").display()
    ))
}

fn compare(
    mut recordings: Vec<PathBuf>,
    present: &Config,
    changed: &Config,
    output: &Output,
) -> Result<(), Failure> {
    if recordings.is_empty() {
        let data = &present.general.data_dir;
        if !data.is_dir() {
            return Err(Failure::usage(format!(
                "{} is no directory of a daemon: name one, or a recording",
                data.display()
            )));
        }
        recordings.push(data.clone());
    }
    let found =
        Comparison::run(&recordings, present, changed).map_err(|error| Failure::failed(error.to_string()))?;
    output.print(Answer { table: Box::new(|| table(&found)), json: Box::new(|| found.json()) })
}

fn table(of: &Comparison) -> String {
    let at = |anomaly: &Anomaly| anomaly.fired_at.map(|at| time(Some(&to_proto(at)))).unwrap_or_default();
    let mut table = Table::new(&[
        "TOLD BY",
        "PRESENT",
        "CHANGED",
        "SERVICE",
        "SYMPTOM",
        "TOLD AT",
        ">LATER",
        "WHAT BROKE",
    ]);
    let mut rows: Vec<(Timestamp, [String; 8])> = Vec::new();
    let mut row = |which: &str, present: Option<&Anomaly>, changed: Option<&Anomaly>| {
        let Some(shown) = changed.or(present) else { return };
        let severity = |of: Option<&Anomaly>| of.map_or("-", |of| of.severity.as_str()).to_owned();
        let later = present.zip(changed).map(|(present, changed)| later_ns(present, changed));
        let later = later.map(|ns| {
            let sign = if ns < 0 { "-" } else { "" };
            format!("{sign}{}", span(ns.saturating_abs()))
        });
        rows.push((
            shown.fired_at.unwrap_or_default(),
            [
                which.to_owned(),
                severity(present),
                severity(changed),
                shown.service.to_string(),
                shown.symptom.as_str().to_owned(),
                at(shown),
                later.unwrap_or_default(),
                shown.title.clone(),
            ],
        ));
    };
    of.only_present.iter().for_each(|anomaly| row("present only", Some(anomaly), None));
    of.only_changed.iter().for_each(|anomaly| row("changed only", None, Some(anomaly)));
    of.both.iter().for_each(|(present, changed)| row("both", Some(present), Some(changed)));
    rows.sort();
    rows.into_iter().for_each(|(_, row)| table.row(row));
    let counts = of.json();
    let count = |which: &str| {
        let of = |severity: &str| {
            let count = counts.pointer(&format!("/{which}/{severity}s")).and_then(serde_json::Value::as_u64);
            so_many(count.unwrap_or_default(), severity)
        };
        format!("{} and {}", of("page"), of("ticket"))
    };
    format!(
        "{}\npresent settings: {}; changed settings: {}\n",
        table.show("Neither tells anything of this."),
        count("present"),
        count("changed")
    )
}
