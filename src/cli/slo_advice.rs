//! `barograph slo lint`, `suggest` and `test`.

use super::connection::Daemon;
use super::failure::Failure;
use super::moment::{Moment, read_moment};
use super::output::write_out;
use super::services::query;
use crate::api::v1;
use crate::app::{Backtest, Config};
use crate::model::{ServiceKey, Timestamp};
use crate::serve::text::plain;
use crate::slo::{Traffic, lint, read_all, rehearse, suggest};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Looks for objectives that can never fail, always fail, are no ratio, have too little traffic, or are
/// shaped by long polls. Exit code 1 if any is found.
#[derive(Debug, Args)]
pub(super) struct Lint {
    /// Files or directories with objectives.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look at the files alone, not at what the services did.
    #[arg(long)]
    offline: bool,
    /// How much of the past is looked at.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = read_moment)]
    since: Moment,
    #[command(flatten)]
    daemon: Daemon,
}

/// Proposes objectives from what services did, with what each would have told.
#[derive(Debug, Args)]
pub(super) struct Suggest {
    /// Only for this service.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// How much of the past is looked at.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = read_moment)]
    since: Moment,
    #[command(flatten)]
    daemon: Daemon,
}

/// Shows what the objectives of a file would have told about past data.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// A file or directory with objectives.
    file: PathBuf,
    /// A recording, or the directory of a daemon that has stopped; may be repeated.
    #[arg(long = "backtest", required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
}

const fn length_ns(since: Moment) -> Option<i64> {
    match since {
        Moment::AgoNs(ns) => Some(ns),
        Moment::At(_) => None,
    }
}

fn range(since: Moment) -> Result<(v1::TimeRange, Duration), Failure> {
    let ns = length_ns(since).ok_or_else(|| Failure::usage("--since takes a length such as 7d here"))?;
    let length = Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
    Ok((v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(ns)), to: None }, length))
}

/// What operations did.
fn traffic(daemon: &Daemon, service: &str, range: v1::TimeRange) -> Result<Vec<Traffic>, Failure> {
    let operations = daemon.ask(async |channel| {
        let request = v1::ListOperationsRequest { range: Some(range), service: service.to_owned() };
        let answer = query(channel).list_operations(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().operations)
    })?;
    let ns = |value: Option<i64>| value.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0);
    let of = |row: v1::OperationSummary| {
        let entry = matches!(row.kind(), v1::SpanKind::Server | v1::SpanKind::Consumer);
        let service = row.service.unwrap_or_default();
        Traffic {
            service: ServiceKey::new(&service.environment, &service.namespace, &service.name),
            operation: row.operation,
            entry,
            requests: row.requests,
            errors: row.errors,
            p50_ns: ns(row.p50_ns),
            p99_ns: ns(row.p99_ns),
            p999_ns: ns(row.p999_ns),
        }
    };
    Ok(operations.into_iter().map(of).collect())
}

pub(super) fn run_lint(arguments: Lint) -> Result<(), Failure> {
    let Lint { files, offline, since, daemon } = arguments;
    let definitions = read_all(&files).map_err(|error| Failure::usage(error.to_string()))?;
    let (range, length) = range(since)?;
    let traffic = if offline { Vec::new() } else { traffic(&daemon, "", range)? };
    let warnings = lint(&definitions, &traffic, length);
    let mut text = String::new();
    for warning in &warnings {
        let (smell, slo) = (warning.smell.as_str(), plain(&warning.slo));
        let _ = writeln!(text, "{}: {slo}: {smell}: {}", plain(&warning.origin), plain(&warning.text));
    }
    if warnings.is_empty() {
        let _ = writeln!(text, "{} objectives, nothing to say", definitions.len());
    }
    write_out(&text)?;
    match warnings.len() {
        0 => Ok(()),
        found => Err(Failure::failed(format!("{found} of these are worth a look"))),
    }
}

pub(super) fn run_suggest(arguments: Suggest) -> Result<(), Failure> {
    let Suggest { service, since, daemon } = arguments;
    let (range, length) = range(since)?;
    let mut by_service: BTreeMap<ServiceKey, Vec<Traffic>> = BTreeMap::new();
    for of in traffic(&daemon, &service, range)?.into_iter().filter(|of| of.entry) {
        by_service.entry(of.service.clone()).or_default().push(of);
    }
    let mut text = String::new();
    for (service, operations) in by_service {
        let path = service.to_string();
        for suggestion in suggest(&path, &operations, length) {
            if !text.is_empty() {
                text.push_str("---\n");
            }
            let told = match suggestion.threshold_ns {
                // How many were slower than something is not kept of the past.
                Some(_) => "what it would have told is not known of latencies".to_owned(),
                None => rehearsed(&daemon, &path, range, suggestion.target)?,
            };
            let _ = writeln!(text, "# {}\n# {told}", plain(&suggestion.reason));
            text.push_str(&suggestion.yaml(&path));
        }
    }
    if text.is_empty() {
        text.push_str("# no service had enough requests in this time\n");
    }
    write_out(&text)
}

/// What an objective would have told, in one line.
fn rehearsed(daemon: &Daemon, service: &str, range: v1::TimeRange, target: f64) -> Result<String, Failure> {
    let series = daemon.ask(async |channel| {
        let request = v1::GetTimeSeriesRequest {
            range: Some(range),
            service: service.to_owned(),
            signal: v1::Signal::Traces as i32,
            name: String::new(),
            step_ns: 120_000_000_000,
        };
        let answer = query(channel).get_time_series(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().series)
    })?;
    let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for point in series.iter().flat_map(|series| &series.points) {
        let second = point.start.as_ref().and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0);
        let sum = counts.entry(second).or_default();
        *sum = (sum.0 + point.count - point.errors.min(point.count), sum.1 + point.count);
    }
    let counts: Vec<(u64, u64, u64)> =
        counts.into_iter().map(|(second, (good, total))| (second, good, total)).collect();
    let config = crate::slo::Config::default();
    let told = rehearse(&counts, target, config.bad_requests, config.improbable);
    let pages = told.iter().filter(|alerted| alerted.page).count();
    let mut text = format!("would have paged {pages} times and opened {} tickets", told.len() - pages);
    let times = told.iter().filter(|alerted| alerted.page).take(5);
    let times: Vec<String> =
        times.map(|alerted| Timestamp::from_secs(alerted.from_second).to_string()).collect();
    if !times.is_empty() {
        let _ = write!(text, ": {}", times.join(", "));
    }
    Ok(text)
}

pub(super) fn run_test(arguments: Test) -> Result<(), Failure> {
    let Test { file, recordings } = arguments;
    read_all(std::slice::from_ref(&file)).map_err(|error| Failure::usage(error.to_string()))?;
    let set = [format!("slo.files=[{:?}]", file.display().to_string()), "slo.default=false".to_owned()];
    let config = Config::load(None, &set).map_err(|error| Failure::usage(error.to_string()))?;
    let out = std::env::temp_dir().join(format!("barograph-slo-test-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let backtest = Backtest { inputs: recordings, out: out.clone(), scores: false, templates: false };
    let done = backtest.run(&config).map_err(|error| Failure::failed(error.to_string()));
    let text = done.and_then(|_| burns(&std::fs::read_to_string(out.join("anomalies.jsonl"))?));
    let _ = std::fs::remove_dir_all(&out);
    write_out(&text?)
}

/// The burning budgets among anomalies.
fn burns(anomalies: &str) -> Result<String, Failure> {
    let mut text = String::new();
    for line in anomalies.lines() {
        let anomaly: Value =
            serde_json::from_str(line).map_err(|error| Failure::failed(error.to_string()))?;
        let members = anomaly["signals"].as_array().map(Vec::as_slice).unwrap_or_default();
        let burning = members.iter().filter(|member| member["symptom"] == "budget_burn");
        let names: std::collections::BTreeSet<&str> =
            burning.filter_map(|member| member["metric"].as_str()).collect();
        if names.is_empty() && anomaly["symptom"] != "budget_burn" {
            continue;
        }
        let of = |key: &str| plain(anomaly[key].as_str().unwrap_or("-")).to_string();
        let names = plain(&names.into_iter().collect::<Vec<_>>().join(", ")).to_string();
        let _ = writeln!(text, "{}  {}  {}  {names}", of("fired_at"), of("severity"), of("service"));
    }
    if text.is_empty() {
        text.push_str("no budget would have burned too fast\n");
    }
    Ok(text)
}
