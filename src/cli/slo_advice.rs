//! `barograph slo lint`, `suggest` and `test`.

use super::connection::Daemon;
use super::failure::Failure;
use super::moment::{Moment, read_moment};
use super::output::{Answer, Output};
use super::services::query;
use crate::aggregate::Source;
use crate::api::v1;
use crate::app::{Backtest, Config};
use crate::model::{Clock as _, ServiceKey, SystemClock, Timestamp};
use crate::serve::text::plain;
use crate::slo::{
    Alerted, Counted, Counting, Definition, Known, MetricName, Suggestion, Taken, Traffic, Warning, lint,
    read_all, rehearse, suggest,
};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Looks for objectives that can never fail, always fail, are no ratio, have too little traffic, are shaped by
/// long polls, or count nothing. Exit code 1 if any is found.
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

/// How finely it is asked when the first of a service came.
const STEPS: u32 = 1_000;
/// Series that one answer holds at most.
const SERIES_TOLD: usize = 1_000;

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

/// What operations did, and after those that serve, in a row without a name, what roots of other kinds a service
/// began itself.
fn traffic(daemon: &Daemon, service: &str, range: v1::TimeRange) -> Result<Vec<Traffic>, Failure> {
    let (operations, services) = daemon.ask(async |channel| {
        let request = v1::ListOperationsRequest { range: Some(range), service: service.to_owned() };
        let answer = query(channel.clone()).list_operations(request).await;
        let operations = answer.map_err(|status| daemon.failure(&status))?.into_inner().operations;
        let request = v1::ListServicesRequest { range: Some(range), service: service.to_owned() };
        let answer = query(channel).list_services(request).await;
        Ok((operations, answer.map_err(|status| daemon.failure(&status))?.into_inner().services))
    })?;
    let mut traffic: Vec<Traffic> = operations.into_iter().map(of_operation).collect();
    let roots: Vec<Traffic> = services.into_iter().filter_map(|row| roots(row, &traffic)).collect();
    traffic.extend(roots);
    Ok(traffic)
}

fn key(service: Option<v1::Service>) -> ServiceKey {
    let service = service.unwrap_or_default();
    ServiceKey::new(&service.environment, &service.namespace, &service.name)
}

fn ns(value: Option<i64>) -> u64 {
    value.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
}

fn of_operation(row: v1::OperationSummary) -> Traffic {
    Traffic {
        entry: matches!(row.kind(), v1::SpanKind::Server | v1::SpanKind::Consumer),
        service: key(row.service),
        operation: row.operation,
        requests: row.requests,
        errors: row.errors,
        p50_ns: ns(row.p50_ns),
        p99_ns: ns(row.p99_ns),
        p999_ns: ns(row.p999_ns),
    }
}

/// Requests of a service that none of its operations serves: roots of other kinds. `None` if there are none.
fn roots(row: v1::ServiceSummary, operations: &[Traffic]) -> Option<Traffic> {
    let service = key(row.service);
    let served = operations.iter().filter(|of| of.entry && of.service == service);
    let (requests, errors) = served.fold((0u64, 0u64), |(requests, errors), of| {
        (requests.saturating_add(of.requests), errors.saturating_add(of.errors))
    });
    let requests = row.requests.checked_sub(requests).filter(|requests| *requests > 0)?;
    Some(Traffic {
        service,
        operation: String::new(),
        entry: true,
        requests,
        errors: row.errors.saturating_sub(errors),
        p50_ns: ns(row.p50_ns),
        p99_ns: ns(row.p99_ns),
        p999_ns: ns(row.p999_ns),
    })
}

/// What services sent, of those whose metrics objectives count also which these are.
fn known(
    daemon: &Daemon,
    range: v1::TimeRange,
    length: Duration,
    definitions: &[Definition],
) -> Result<Vec<Known>, Failure> {
    let services = daemon.ask(async |channel| {
        let request = v1::ListServicesRequest { range: Some(range), service: String::new() };
        let answer = query(channel).list_services(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().services)
    })?;
    let mut known = Vec::with_capacity(services.len());
    for row in services {
        let service = key(row.service);
        let of_metrics = |part: &Counting| matches!(part.source, Source::Metric { .. });
        let asks = |of: &Definition| service.is_meant_by(&of.service) && of.parts.iter().any(of_metrics);
        // Where that costs too much to be answered, they are not known.
        let metrics = definitions.iter().any(asks).then(|| metrics(daemon, &service, range, length).ok());
        let metrics = metrics.flatten().flatten();
        let signal = match (row.requests, row.log_records) {
            (1.., _) => v1::Signal::Traces,
            (0, 1..) => v1::Signal::Logs,
            (0, 0) => v1::Signal::Metrics,
        };
        // Of a service that no objective means, how long it was seen speaks for the daemon.
        let seen = seen(daemon, &service, signal, length)?;
        known.push(Known { service, seen, requests: row.requests, metrics });
    }
    Ok(known)
}

fn series(
    daemon: &Daemon,
    service: &ServiceKey,
    signal: v1::Signal,
    range: v1::TimeRange,
    step: Duration,
) -> Result<Vec<v1::TimeSeries>, Failure> {
    daemon.ask(async |channel| {
        let request = v1::GetTimeSeriesRequest {
            range: Some(range),
            service: service.to_string(),
            signal: signal as i32,
            name: String::new(),
            step_ns: i64::try_from(step.as_nanos()).unwrap_or(i64::MAX),
        };
        let answer = query(channel).get_time_series(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().series)
    })
}

/// How long ago the first came of what a service sent, at most `length`.
fn seen(
    daemon: &Daemon,
    service: &ServiceKey,
    signal: v1::Signal,
    length: Duration,
) -> Result<Duration, Failure> {
    let mut seen = length;
    // Asked again of what the first answer left, it is known a thousand times as closely.
    for _ in 0..2 {
        let ago_ns = i64::try_from(seen.as_nanos()).unwrap_or(i64::MAX);
        let range = v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(ago_ns)), to: None };
        let series = series(daemon, service, signal, range, seen / STEPS)?;
        let starts = series.iter().filter_map(|of| of.points.first()?.start);
        let Some(first) = starts.filter_map(|at| u64::try_from(at.seconds).ok()).min() else {
            return Ok(Duration::ZERO);
        };
        seen = SystemClock.now().since(Timestamp::from_secs(first)).min(seen);
    }
    Ok(seen)
}

/// The metrics of a service; `None` where they are more than are told.
fn metrics(
    daemon: &Daemon,
    service: &ServiceKey,
    range: v1::TimeRange,
    length: Duration,
) -> Result<Option<Vec<MetricName>>, Failure> {
    let series = series(daemon, service, v1::Signal::Metrics, range, length)?;
    let name = |of: v1::TimeSeries| MetricName {
        name: of.name,
        unit: of.unit,
        attributes: of
            .attributes
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
    };
    Ok((series.len() < SERIES_TOLD).then(|| series.into_iter().map(name).collect()))
}

/// Reads files; each that is refused is told in a line of its own.
fn read(files: &[PathBuf]) -> Result<Taken, Failure> {
    read_all(files).map_err(|refused| Failure::usage(plain_lines(&refused.to_string())))
}

/// Lines in which nothing acts on a terminal.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

pub(super) fn run_lint(arguments: Lint, output: &Output) -> Result<(), Failure> {
    let Lint { files, offline, since, daemon } = arguments;
    let taken = read(&files)?;
    let (range, length) = range(since)?;
    let (traffic, known) = if offline {
        (Vec::new(), Vec::new())
    } else {
        (traffic(&daemon, "", range)?, known(&daemon, range, length, &taken.definitions)?)
    };
    let warnings = lint(&taken.definitions, &traffic, &known);
    output.print(Answer {
        table: Box::new(|| lint_text(&taken, &warnings)),
        json: Box::new(|| lint_json(&taken, &warnings)),
    })?;
    match warnings.len().saturating_add(taken.empty.len()) {
        0 => Ok(()),
        found => Err(Failure::failed(format!("{found} of these are worth a look"))),
    }
}

/// `FILE:LINE: NAME: KIND: what is wrong; what to do`, a line each.
fn lint_text(taken: &Taken, warnings: &[Warning]) -> String {
    let mut text = String::new();
    for error in &taken.empty {
        let _ = writeln!(text, "{}", plain(&error.to_string()));
    }
    for Warning { slo, origin, smell, text: what, advice } in warnings {
        let line =
            format!("{}:{}: {slo}: {}: {what}; {advice}", origin.path.display(), origin.line, smell.as_str());
        let _ = writeln!(text, "{}", plain(&line));
    }
    if text.is_empty() {
        let _ = writeln!(text, "{} objectives, nothing to say", taken.definitions.len());
    }
    text
}

fn lint_json(taken: &Taken, warnings: &[Warning]) -> Value {
    let note = |of: &Warning| {
        json!({
            "slo": of.slo,
            "file": of.origin.path.display().to_string(),
            "line": of.origin.line,
            "smell": of.smell.as_str(),
            "text": of.text,
            "advice": of.advice,
        })
    };
    let empty = taken.empty.iter().map(|error| error.path().display().to_string());
    json!({
        "objectives": taken.definitions.len(),
        "notes": warnings.iter().map(note).collect::<Vec<_>>(),
        "empty_files": empty.collect::<Vec<_>>(),
    })
}

/// An objective that is proposed.
struct Proposed {
    service: ServiceKey,
    suggestion: Suggestion,
    /// What it would have told; `None` where that is not known.
    told: Option<Vec<Alerted>>,
}

pub(super) fn run_suggest(arguments: Suggest, output: &Output) -> Result<(), Failure> {
    let Suggest { service, since, daemon } = arguments;
    let (range, length) = range(since)?;
    let mut by_service: BTreeMap<ServiceKey, Vec<Traffic>> = BTreeMap::new();
    for of in traffic(&daemon, &service, range)?.into_iter().filter(|of| of.entry) {
        by_service.entry(of.service.clone()).or_default().push(of);
    }
    let mut proposed = Vec::new();
    for (service, operations) in by_service {
        let path = service.to_string();
        let seen = seen(&daemon, &service, v1::Signal::Traces, length)?;
        for suggestion in suggest(&path, &operations, seen) {
            let told = match suggestion.threshold_ns {
                // How many were slower than something is not kept of the past.
                Some(_) => None,
                None => Some(rehearsed(&daemon, &path, range, suggestion.target)?),
            };
            proposed.push(Proposed { service: service.clone(), suggestion, told });
        }
    }
    output.print(Answer {
        table: Box::new(|| suggest_text(&proposed)),
        json: Box::new(|| proposed.iter().map(suggest_json).collect()),
    })
}

/// Documents of OpenSLO, with what is known of each in comments.
fn suggest_text(proposed: &[Proposed]) -> String {
    let mut text = String::new();
    for Proposed { service, suggestion, told } in proposed {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let told = told
            .as_deref()
            .map_or_else(|| "what it would have told is not known of latencies".to_owned(), told_in_words);
        let _ = writeln!(text, "# {}\n# {told}", plain(&suggestion.reason));
        text.push_str(&suggestion.yaml(&service.to_string()));
    }
    if text.is_empty() {
        text.push_str("# no service had enough requests in this time\n");
    }
    text
}

fn suggest_json(of: &Proposed) -> Value {
    let Proposed { service, suggestion, told } = of;
    let alert = |of: &Alerted| {
        json!({
            "severity": if of.page { "page" } else { "ticket" },
            "from": Timestamp::from_secs(of.from_second).to_string(),
            "until": Timestamp::from_secs(of.until_second).to_string(),
        })
    };
    json!({
        "slo": suggestion.name,
        "service": &*service.name,
        "environment": &*service.environment,
        "namespace": &*service.namespace,
        "target": suggestion.target,
        "threshold_ns": suggestion.threshold_ns,
        "reason": suggestion.reason,
        "would_have_told": told.as_ref().map(|told| told.iter().map(alert).collect::<Vec<_>>()),
        "openslo": suggestion.yaml(&service.to_string()),
    })
}

/// What an objective would have told.
fn rehearsed(
    daemon: &Daemon,
    service: &str,
    range: v1::TimeRange,
    target: f64,
) -> Result<Vec<Alerted>, Failure> {
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
        let good = point.count.saturating_sub(point.errors);
        *sum = (sum.0.saturating_add(good), sum.1.saturating_add(point.count));
    }
    let counts: Vec<(u64, u64, u64)> =
        counts.into_iter().map(|(second, (good, total))| (second, good, total)).collect();
    let config = crate::slo::Config::default();
    Ok(rehearse(&counts, target, config.bad_requests, config.improbable))
}

/// What an objective would have told, in one line.
fn told_in_words(told: &[Alerted]) -> String {
    let pages = told.iter().filter(|alerted| alerted.page).count();
    let mut text = format!("would have paged {pages} times and opened {} tickets", told.len() - pages);
    let times = told.iter().filter(|alerted| alerted.page).take(5);
    let times: Vec<String> =
        times.map(|alerted| Timestamp::from_secs(alerted.from_second).to_string()).collect();
    if !times.is_empty() {
        let _ = write!(text, ": {}", times.join(", "));
    }
    text
}

pub(super) fn run_test(arguments: Test, output: &Output) -> Result<(), Failure> {
    let Test { file, recordings } = arguments;
    let taken = read(std::slice::from_ref(&file))?;
    if taken.definitions.is_empty() {
        let why = taken.empty.first().map_or_else(
            || format!("{}: holds no .yaml and no .yml file", file.display()),
            ToString::to_string,
        );
        return Err(Failure::usage(plain(&why)));
    }
    let set = [format!("slo.files=[{:?}]", file.display().to_string()), "slo.default=false".to_owned()];
    let config = Config::load(None, &set).map_err(|error| Failure::usage(error.to_string()))?;
    let out = std::env::temp_dir().join(format!("barograph-slo-test-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let backtest = Backtest { inputs: recordings, out: out.clone(), scores: false, templates: false };
    let done = backtest.run(&config).map_err(|error| Failure::failed(error.to_string()));
    let tested = done.and_then(|outcome| {
        Ok((burns(&std::fs::read_to_string(out.join("anomalies.jsonl"))?)?, counted_text(&outcome.counted)))
    });
    let _ = std::fs::remove_dir_all(&out);
    let (burns, counted) = tested?;
    output.print(Answer {
        table: Box::new(|| burns_text(&burns) + &counted),
        json: Box::new(|| {
            // Its rows are what was told alone.
            let _ = std::io::stderr().write_all(counted.as_bytes());
            burns.iter().map(burn_json).collect()
        }),
    })
}

/// What was counted, a line for each objective.
fn counted_text(counted: &[Counted]) -> String {
    let mut text = String::new();
    for Counted { slo, service, good, total } in counted {
        let name = match service {
            Some(service) => format!("{slo} of {service}"),
            None => slo.clone(),
        };
        let what = match (service, total) {
            (None, _) => "nothing was counted, for its service sent nothing".to_owned(),
            (Some(_), 0) => "nothing was counted, though its service sent something".to_owned(),
            (Some(_), total) => format!("{good} of {total} were good"),
        };
        let _ = writeln!(text, "{}", plain(&format!("{name}: {what}")));
    }
    text
}

/// An anomaly in which budgets burned.
struct Burned {
    anomaly: Value,
    slos: BTreeSet<String>,
}

/// The burning budgets among anomalies.
fn burns(anomalies: &str) -> Result<Vec<Burned>, Failure> {
    let mut burns = Vec::new();
    for line in anomalies.lines() {
        let anomaly: Value =
            serde_json::from_str(line).map_err(|error| Failure::failed(error.to_string()))?;
        let members = anomaly.get("signals").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_burn = |of: &Value| of.get("symptom").is_some_and(|symptom| symptom == "budget_burn");
        let burning = members.iter().filter(|member| is_burn(member));
        let slos: BTreeSet<String> =
            burning.filter_map(|member| Some(member.get("metric")?.as_str()?.to_owned())).collect();
        if !slos.is_empty() || is_burn(&anomaly) {
            burns.push(Burned { anomaly, slos });
        }
    }
    Ok(burns)
}

fn burns_text(burns: &[Burned]) -> String {
    let mut text = String::new();
    for Burned { anomaly, slos } in burns {
        let of = |key: &str| plain(anomaly.get(key).and_then(Value::as_str).unwrap_or("-"));
        let names = slos.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{}  {}  {}  {names}", of("fired_at"), of("severity"), of("service"));
    }
    if text.is_empty() {
        text.push_str("no budget would have burned too fast\n");
    }
    text
}

fn burn_json(of: &Burned) -> Value {
    let mut row = serde_json::Map::new();
    for key in ["fired_at", "resolved_at", "severity", "service", "environment", "namespace", "title"] {
        row.insert(key.to_owned(), of.anomaly.get(key).cloned().unwrap_or(Value::Null));
    }
    row.insert("slos".to_owned(), json!(of.slos));
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::{Origin, Smell};

    #[test]
    fn a_note_is_a_line_or_an_object_and_nothing_in_it_acts() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("empty.yaml"), "# later\n").expect("written");
        let taken = read(&[folder.path().to_owned()]).expect("no mistake");
        let origin = Origin { path: "a\u{1b}[2J.yaml".into(), line: 7 };
        let (text, advice) = ("it is\nnever met".to_owned(), "lower `target`".to_owned());
        let notes = [Warning { slo: "x".into(), origin, smell: Smell::AlwaysFails, text, advice }];
        let said = lint_text(&taken, &notes);
        let lines: Vec<&str> = said.lines().collect();
        let [empty, note] = lines.as_slice() else { panic!("{said:?}") };
        assert!(empty.ends_with("/empty.yaml:1: document: is empty: it holds no objective"), "{empty}");
        assert_eq!(*note, "a\\u{1b}[2J.yaml:7: x: always-fails: it is\\u{a}never met; lower `target`");
        let json = lint_json(&taken, &notes);
        assert_eq!(
            json["notes"],
            json!([{
                "slo": "x", "file": "a\u{1b}[2J.yaml", "line": 7, "smell": "always-fails",
                "text": "it is\nnever met", "advice": "lower `target`",
            }])
        );
        assert_eq!((&json["objectives"], json["empty_files"].as_array().map(Vec::len)), (&json!(0), Some(1)));
        assert_eq!(lint_text(&Taken::default(), &[]), "0 objectives, nothing to say\n");
    }

    #[test]
    fn a_proposal_says_what_it_would_have_told_in_both_forms() {
        let suggestion = Suggestion {
            name: "shop-availability".into(),
            target: 0.999,
            threshold_ns: None,
            reason: "400 of 1500000 requests failed (0.027 %)".into(),
        };
        let told = vec![
            Alerted { from_second: 1_700_000_000, until_second: 1_700_000_600, page: true },
            Alerted { from_second: 1_700_100_000, until_second: 1_700_100_600, page: false },
        ];
        let service = ServiceKey::new("prod", "", "shop");
        let proposed = [
            Proposed { service: service.clone(), suggestion: suggestion.clone(), told: Some(told) },
            Proposed { service, suggestion: Suggestion { threshold_ns: Some(1), ..suggestion }, told: None },
        ];
        let text = suggest_text(&proposed);
        assert!(
            text.contains("\n# would have paged 1 times and opened 1 tickets: 2023-11-14T22:13:20Z\n"),
            "{text}"
        );
        assert!(text.contains("---\n") && text.contains("is not known of latencies"), "{text}");
        assert_eq!(crate::slo::read("a.yaml".as_ref(), &text).expect_err("two of one name").0.len(), 1);
        let json = suggest_json(&proposed[0]);
        assert_eq!(
            json["would_have_told"][0],
            json!({ "severity": "page", "from": "2023-11-14T22:13:20Z", "until": "2023-11-14T22:23:20Z" })
        );
        assert_eq!(
            (&json["service"], &json["environment"], &json["target"]),
            (&"shop".into(), &"prod".into(), &0.999.into())
        );
        let yaml = json["openslo"].as_str().expect("a text");
        assert_eq!(crate::slo::read("a.yaml".as_ref(), yaml).expect("its own words").len(), 1);
        assert_eq!(suggest_json(&proposed[1])["would_have_told"], Value::Null);
    }

    #[test]
    fn roots_that_nothing_serves_are_requests() {
        let service = |name: &str| Some(v1::Service { name: name.into(), ..v1::Service::default() });
        let of = |kind: v1::SpanKind, requests, errors| {
            let service = service("job");
            of_operation(v1::OperationSummary {
                service,
                kind: kind as i32,
                requests,
                errors,
                ..Default::default()
            })
        };
        let operations = [of(v1::SpanKind::Server, 10, 1), of(v1::SpanKind::Internal, 300, 9)];
        let row = |requests, errors| v1::ServiceSummary {
            service: service("job"),
            requests,
            errors,
            p99_ns: Some(7),
            ..v1::ServiceSummary::default()
        };
        let found = roots(row(110, 5), &operations).expect("a hundred of them");
        assert_eq!((found.entry, found.requests, found.errors, found.p99_ns), (true, 100, 4, 7));
        assert_eq!(roots(row(10, 1), &operations), None);
    }

    #[test]
    fn a_test_says_what_was_counted() {
        let of = |service: Option<&str>, good, total| Counted {
            slo: "a\nb".into(),
            service: service.map(ServiceKey::named),
            good,
            total,
        };
        assert_eq!(
            counted_text(&[of(Some("shop"), 9, 10), of(Some("shop"), 0, 0), of(None, 0, 0)]),
            "a\\u{a}b of shop: 9 of 10 were good\n\
             a\\u{a}b of shop: nothing was counted, though its service sent something\n\
             a\\u{a}b: nothing was counted, for its service sent nothing\n"
        );
    }

    #[test]
    fn only_anomalies_in_which_budgets_burned_are_shown() {
        let line = |symptom: &str, member: &str| {
            json!({
                "fired_at": "2026-12-01T00:00:00Z", "resolved_at": null, "severity": "page", "service": "shop",
                "environment": "", "namespace": "", "title": "shop: fails", "symptom": symptom,
                "signals": [{ "symptom": member, "metric": "shop-ok" }],
            })
        };
        let lines = format!("{}\n{}\n", line("errors", "budget_burn"), line("errors", "errors"));
        let found = burns(&lines).expect("JSON");
        assert_eq!(burns_text(&found), "2026-12-01T00:00:00Z  page  shop  shop-ok\n");
        let [one] = found.as_slice() else { panic!("one of them") };
        let json = burn_json(one);
        assert_eq!(
            (&json["slos"], &json["title"], &json["resolved_at"]),
            (&json!(["shop-ok"]), &"shop: fails".into(), &Value::Null)
        );
        assert_eq!(burns_text(&burns("").expect("nothing")), "no budget would have burned too fast\n");
        assert_eq!(burns("{").err().map(|failure| failure.code), Some(1));
    }
}
