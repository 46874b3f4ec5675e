//! `barograph explain`: what broke at a time, from recordings or from an evidence bundle.

use super::connection::Daemon;
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::output::{Answer, Output};
use crate::api::v1;
use crate::app::{Config, Question, write_causes};
use crate::diagnose::{Bundle, Cause};
use crate::model::{Clock as _, SystemClock, Timestamp};
use crate::serve::text::{percent, plain};
use crate::serve::{cause_json, from_proto, to_proto};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Say what broke at a time, compared with a baseline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph explain recording.jsonl.gz --at 2026-01-01T14:02:00Z --out result
  barograph explain traces.jsonl logs.jsonl --at 2026-01-01T14:02:00Z \\
      --baseline 2026-01-01T13:00:00Z/2026-01-01T13:50:00Z --out result

  barograph explain --at 14:02 --service cart
  barograph explain --at 14:02 --service cart --baseline 13:00/13:10 -o json
  barograph explain --at 14:02 --service cart --out cart.tar.zst
  barograph explain --bundle 3f1c9a0d5e7b2468.tar.zst

Without a recording, the daemon's journal is asked for the two minutes before --at; --out then fetches a bundle as that
of an alarm: traces, logs, causes.json, index.html.
Nothing timed after --at is looked at. Writes result/causes.json; an empty list means that nothing is worse than in the baseline.
A bundle is diagnosed again from what it holds, and what was told when it was made is shown beside it.")]
pub struct Arguments {
    /// OTLP JSON lines as the Collector's file exporter writes them (.gz and .zst too).
    #[arg(value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// An evidence bundle, a directory or a .tar.zst file.
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["recordings", "at", "baseline"])]
    bundle: Option<PathBuf>,
    /// The moment: RFC 3339 with a zone, or the latest HH:MM or HH:MM:SS of UTC.
    #[arg(long, value_name = "TIME", value_parser = moment, required_unless_present = "bundle")]
    at: Option<Timestamp>,
    /// The healthy period, two times as of --at. By default ten minutes that end two minutes before; of the daemon's
    /// journal the last such in which no anomaly is known to have gone on.
    #[arg(long, value_name = "FROM/TO", value_parser = period)]
    baseline: Option<(Timestamp, Timestamp)>,
    /// Only causes in this service and in what it calls; of the daemon's journal only.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true,
        conflicts_with_all = ["recordings", "bundle"]
    )]
    service: String,
    /// Folder to write into; it is made. Needed with recordings. Of the daemon's journal also a file that ends with
    /// .tar.zst.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key by its dotted path; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    daemon: Daemon,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    moment_before(text, SystemClock.now())
}

/// A time with a zone, or the last time before `now` at which clocks showed `HH:MM[:SS]`.
fn moment_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    const DAY: Duration = Duration::from_secs(86_400);
    if !text.contains('T') && matches!(text.split(':').count(), 2 | 3) {
        let now_text = now.to_string();
        let day = now_text.get(..10).unwrap_or_default();
        let seconds = if text.split(':').count() == 2 { ":00" } else { "" };
        let at = Timestamp::parse_rfc3339(&format!("{day}T{text}{seconds}Z"))?;
        return Ok(if at > now { at.saturating_sub(DAY) } else { at });
    }
    Timestamp::parse_rfc3339(text)
}

fn period(text: &str) -> Result<(Timestamp, Timestamp), String> {
    let (from, to) = text.split_once('/').ok_or("write FROM/TO, two times with a slash between them")?;
    let (from, to) = (moment(from)?, moment(to)?);
    if from < to { Ok((from, to)) } else { Err("the baseline ends before it begins".to_owned()) }
}

/// Answers the question.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    finish(explain(arguments))
}

fn explain(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { recordings, bundle, at, baseline, service, out, config, set, output, daemon } = arguments;
    if let Some(bundle) = bundle {
        return explain_bundle(&bundle, out.as_deref(), &output);
    }
    if recordings.is_empty() {
        let healthy = baseline.map(|(from, to)| v1::TimeRange {
            from: Some(v1::time_range::From::Since(to_proto(from))),
            to: Some(v1::time_range::To::Until(to_proto(to))),
        });
        let request = v1::ExplainRequest { at: at.map(to_proto), service, healthy };
        return match out {
            Some(out) => fetch(request, &out, &output, &daemon),
            None => explain_live(request, &output, &daemon),
        };
    }
    let (Some(at), Some(out)) = (at, out) else { return Err(Failure::usage("--at and --out are needed")) };
    let config = Config::load(config.as_deref(), &set).map_err(|error| Failure::usage(error.to_string()))?;
    let question = Question { inputs: recordings, at, baseline };
    let found = question.write(&config, &out).map_err(|error| Failure::failed(error.to_string()))?;
    output.print(Answer { table: Box::new(|| listed(&found.causes)), json: Box::new(|| found.json(at)) })
}

/// Fetches the evidence of a moment.
fn fetch(request: v1::ExplainRequest, out: &Path, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    super::fetch::into(out, |directory| {
        daemon.ask(async |channel| {
            let answer = super::traces::client(channel).download_explanation(request).await;
            let parts = answer.map_err(|status| daemon.failure(&status))?.into_inner();
            super::fetch::receive(parts, directory, daemon).await
        })
    })?;
    let failed = |error: crate::diagnose::Error| Failure::failed(format!("{}: {error}", out.display()));
    let bundle = Bundle::open(out).map_err(failed)?;
    output.print(Answer {
        table: Box::new(|| format!("{}\n{}\n", listed(&bundle.told), out.display())),
        json: Box::new(|| json!({ "at": bundle.at, "causes": bundle.told, "path": out })),
    })
}

fn explain_live(request: v1::ExplainRequest, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let answer = daemon.ask(async |channel| {
        let answer = super::traces::client(channel).explain(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner())
    })?;
    output.print(Answer {
        table: Box::new(|| explained(&answer)),
        json: Box::new(|| {
            let time = |at: &Option<prost_types::Timestamp>| at.as_ref().map(from_proto);
            json!({
                "at": time(&answer.at),
                "causes": answer.causes.iter().map(cause_json).collect::<Vec<Value>>(),
                "share": answer.share,
                "healthy_rows": answer.healthy_rows,
                "healthy_since": time(&answer.healthy_since),
                "healthy_until": time(&answer.healthy_until),
                "faults_in_healthy": answer.faults_in_healthy,
            })
        }),
    })
}

/// What broke at a moment, in words.
fn explained(answer: &v1::ExplainResponse) -> String {
    let mut text = String::new();
    let is_compared = answer.healthy_rows > 0;
    if answer.causes.is_empty() {
        text.push_str(if is_compared {
            "nothing is worse than before\n"
        } else {
            "nothing can be said: nothing is held of the healthy minutes that it would be compared with\n"
        });
    }
    for cause in &answer.causes {
        text.push_str(&format!(
            "{}. {} ({}, {:.0} %): {}\n",
            cause.rank,
            plain(&cause.service.as_ref().map(service_path).unwrap_or_default()),
            plain(&cause.kind),
            cause.score * 100.0,
            plain(&cause.reason)
        ));
    }
    text.push_str(&format!("\nfrom {} of what is recorded of both periods", percent(answer.share)));
    let times = answer.healthy_since.as_ref().zip(answer.healthy_until.as_ref());
    if let Some((since, until)) = times.filter(|_| is_compared) {
        text.push_str(&format!("; compared with {} to {}", from_proto(since), from_proto(until)));
    }
    text.push('\n');
    if is_compared && !answer.faults_in_healthy.is_empty() {
        let faults: Vec<String> = answer.faults_in_healthy.iter().map(|id| plain(id)).collect();
        text.push_str(&format!(
            "these anomalies went on then, and what they were about counts as healthy: {}; choose other minutes with --baseline\n",
            faults.join(", ")
        ));
    }
    text
}

fn explain_bundle(path: &Path, out: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let failed = |error: crate::diagnose::Error| Failure::failed(format!("{}: {error}", path.display()));
    let bundle = Bundle::open(path).map_err(failed)?;
    let found = bundle.explain();
    if let Some(out) = out {
        write_causes(out, bundle.at, &found).map_err(|error| Failure::failed(error.to_string()))?;
    }
    output.print(Answer {
        table: Box::new(|| {
            format!(
                "{}\n\nnow, from the {} traces of the bundle; shares are of those, which were chosen, not of all requests:\n{}\ntold at {}, from all that was seen then:\n{}",
                plain(&bundle.anomaly.title),
                bundle.traces(),
                listed(&found.causes),
                bundle.at,
                listed(&bundle.told)
            )
        }),
        json: Box::new(|| {
            json!({
                "title": bundle.anomaly.title,
                "at": bundle.at,
                "traces": bundle.traces(),
                "causes": found.causes,
                "told": bundle.told,
            })
        }),
    })
}

/// The causes, one a line.
fn listed(causes: &[Cause]) -> String {
    let mut text = String::new();
    if causes.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    for cause in causes {
        let (service, reason) = (plain(&cause.service), plain(&cause.reason));
        text.push_str(&format!(
            "{}. {service} ({}, {:.0} %): {reason}\n",
            cause.rank,
            cause.kind.as_str(),
            cause.score * 100.0
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_last_such_time() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        let now = at("2024-05-02T12:00:00Z");
        assert_eq!(moment_before("11:59", now), Ok(at("2024-05-02T11:59:00Z")));
        assert_eq!(moment_before("14:02:05", now), Ok(at("2024-05-01T14:02:05Z")));
        assert_eq!(moment_before("2024-05-01T12:00:00Z", now), Ok(at("2024-05-01T12:00:00Z")));
        assert!(moment_before("25:00", now).is_err() && moment_before("noon", now).is_err());
    }
}
