//! The overview: what is wrong, and how every service does.

use super::head::Head;
use super::slos::BudgetCell;
use super::spark::{Spark, spark};
use crate::api::v1;
use crate::model::{ServiceKey, Timestamp};
use crate::serve::text::{count, crowded, duration, percent, span, three_digits, time};
use crate::serve::{Beat, anomaly_state_name, change_kind_name, from_proto, severity_name};
use askama::Template;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the curves show: this many steps of this length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curves {
    pub step: Duration,
    steps: u64,
}

impl Curves {
    /// Curves of half an hour; of less, in finer steps, when the oldest record is not that old.
    pub fn of_age(age: Duration) -> Self {
        if age < Duration::from_secs(600) {
            let steps = (age.as_secs() / 10).clamp(12, 60);
            Self { step: Duration::from_secs(10), steps }
        } else {
            Self { step: Duration::from_secs(30), steps: 60 }
        }
    }

    pub fn length(self) -> Duration {
        self.step * u32::try_from(self.steps).unwrap_or(u32::MAX)
    }
}

impl Default for Curves {
    fn default() -> Self {
        Self::of_age(Duration::MAX)
    }
}
/// What the numbers show.
pub(super) const NUMBERS: Duration = Duration::from_secs(300);
/// SDKs send in batches: a step is drawn when what belongs to it has come.
const SETTLED: Duration = Duration::from_secs(10);
/// Rows of each list.
const MOST_SERVICES: usize = 500;
const MOST_LINES: usize = 8;

/// Everything the page is made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub now: Timestamp,
    /// Over `NUMBERS`.
    pub services: Vec<v1::ServiceSummary>,
    pub curves: Curves,
    /// In steps of `curves`.
    pub beats: BTreeMap<ServiceKey, Vec<Beat>>,
    pub slos: Vec<v1::Slo>,
    pub checks: Vec<v1::Check>,
    /// Of a day, newest first.
    pub anomalies: Vec<v1::Anomaly>,
    /// Of a day, latest first.
    pub changes: Vec<v1::Change>,
    /// Services with more series than there is room for.
    pub crowded: Vec<v1::CrowdedService>,
    /// What need not be told now.
    pub exemptions: Vec<v1::Exemption>,
}

#[derive(Debug, Template)]
#[template(path = "dashboard.html", config = "src/web/askama.toml")]
pub(super) struct Dashboard {
    head: Head,
    /// What the curves show, in words.
    curves: String,
    tiles: Vec<Tile>,
    open: Vec<AnomalyLine>,
    rows: Vec<Row>,
    checks: Vec<CheckLine>,
    over: Vec<AnomalyLine>,
    changes: Vec<ChangeLine>,
    crowded: Vec<String>,
    exempt: Vec<ExemptLine>,
}

/// A synthetic check.
#[derive(Debug)]
struct CheckLine {
    name: String,
    url: String,
    state: &'static str,
    state_text: &'static str,
    text: String,
    took: String,
    runs: String,
}

impl CheckLine {
    fn new(of: &v1::Check, now: Timestamp) -> Self {
        let (state, state_text) = match (&of.last_at, of.error.is_empty()) {
            (None, _) => ("", "not run yet"),
            (Some(_), true) => ("ok", "ok"),
            (Some(_), false) => ("bad", "failing"),
        };
        let since = of.since.as_ref().map(|since| span(nanoseconds(now.since(from_proto(since)))));
        let mut text =
            since.map_or_else(|| state_text.to_owned(), |since| format!("{state_text} for {since}"));
        if !of.error.is_empty() {
            text.push_str(": ");
            text.push_str(&of.error);
        }
        Self {
            name: of.name.clone(),
            url: of.url.clone(),
            state,
            state_text,
            text,
            took: took(of.last_at.is_some().then_some(of.last_took_ns)),
            runs: format!("{} of {} failed", count(of.failed_runs), count(of.runs)),
        }
    }
}

#[derive(Debug)]
struct Tile {
    name: &'static str,
    value: String,
    unit: &'static str,
    class: &'static str,
    color: &'static str,
    spark: Option<Spark>,
    note: String,
}

/// An anomaly in a list.
#[derive(Clone, Debug)]
pub(super) struct AnomalyLine {
    pub id: String,
    pub title: String,
    pub service: String,
    pub severity: &'static str,
    pub state: &'static str,
    pub onset: String,
    pub ago: String,
    pub lasted: String,
    pub cause: String,
    pub signals: usize,
    pub has_evidence: bool,
}

#[derive(Debug)]
struct Row {
    name: String,
    place: String,
    state: &'static str,
    state_text: &'static str,
    anomaly: Option<String>,
    rate: String,
    requests_spark: Spark,
    errors: String,
    errors_class: &'static str,
    errors_spark: Spark,
    p50: String,
    p95: String,
    p99: String,
    latency_spark: Spark,
    budget: Option<BudgetCell>,
}

#[derive(Debug)]
struct ExemptLine {
    id: String,
    line: String,
    author: String,
    at: String,
    covered: usize,
}

#[derive(Debug)]
struct ChangeLine {
    title: String,
    kind: &'static str,
    at: String,
    service: String,
    inferred: bool,
}

/// `ENVIRONMENT/NAMESPACE/NAME` without the parts that are unset.
pub(super) fn path_of(service: Option<&v1::Service>) -> String {
    service
        .map(|of| ServiceKey::new(&of.environment, &of.namespace, &of.name).to_string())
        .unwrap_or_default()
}

fn key_of(service: Option<&v1::Service>) -> ServiceKey {
    service
        .map_or_else(|| ServiceKey::named(""), |of| ServiceKey::new(&of.environment, &of.namespace, &of.name))
}

fn took(ns: Option<i64>) -> String {
    ns.map_or_else(|| "–".to_owned(), duration)
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// `payment · database · 87.0 %: its queries take 9 times as long`.
fn cause_line(of: &v1::Anomaly) -> String {
    of.causes.first().map_or_else(String::new, |cause| {
        format!(
            "{} · {} · {}: {}",
            path_of(cause.service.as_ref()),
            cause.kind,
            percent(cause.score),
            cause.reason
        )
    })
}

impl AnomalyLine {
    pub fn new(of: &v1::Anomaly, now: Timestamp) -> Self {
        let onset = of.onset.as_ref().map(from_proto).unwrap_or_default();
        let lasted = of.resolved_at.as_ref().map(|ended| span(nanoseconds(from_proto(ended).since(onset))));
        Self {
            id: of.id.clone(),
            title: of.title.clone(),
            service: path_of(of.service.as_ref()),
            severity: severity_name(of.severity()),
            state: anomaly_state_name(of.state()),
            onset: time(of.onset.as_ref()),
            ago: format!("{} ago", span(nanoseconds(now.since(onset)))),
            lasted: lasted.unwrap_or_default(),
            cause: cause_line(of),
            signals: of.signals.len(),
            has_evidence: of.evidence.is_some(),
        }
    }
}

/// The steps that curves show: ascending starts of whole steps that have settled.
struct Steps {
    starts: Vec<Timestamp>,
    step: Duration,
}

impl Steps {
    fn new(now: Timestamp, curves: Curves) -> Self {
        let step = u64::try_from(curves.step.as_nanos()).unwrap_or(u64::MAX).max(1);
        let settled = now.saturating_sub(SETTLED).ns() / step;
        let first = settled.saturating_sub(curves.steps);
        let starts = (first..settled).map(|at| Timestamp(at.saturating_mul(step))).collect();
        Self { starts, step: curves.step }
    }

    /// A service's beats, one a step; `None` where it had none.
    fn lay<'a>(&self, beats: &'a [Beat]) -> Vec<Option<&'a Beat>> {
        let by_start: BTreeMap<Timestamp, &Beat> = beats.iter().map(|beat| (beat.start, beat)).collect();
        self.starts.iter().map(|start| by_start.get(start).copied()).collect()
    }

    fn per_second(&self, of: Option<&Beat>, value: impl Fn(&Beat) -> u64) -> f64 {
        of.map_or(0.0, |beat| value(beat) as f64 / self.step.as_secs_f64())
    }

    /// Requests a second over the settled steps of `NUMBERS`.
    fn recent_rate(&self, laid: &[Option<&Beat>], from: usize) -> f64 {
        let most = NUMBERS.as_secs().div_ceil(self.step.as_secs().max(1)) as usize;
        let recent: Vec<&Option<&Beat>> = laid.iter().skip(from).rev().take(most).collect();
        let sum: f64 = recent.iter().map(|of| self.per_second(**of, |beat| beat.requests)).sum();
        sum / recent.len().max(1) as f64
    }

    /// Where a moment lies, as a share of the curve's width.
    fn share(&self, at: Timestamp) -> Option<f64> {
        let (first, last) = (self.starts.first()?, self.starts.last()?);
        (at >= *first).then(|| at.since(*first).as_secs_f64() / last.since(*first).as_secs_f64().max(1.0))
    }
}

fn ratio(of: &Beat) -> Option<f64> {
    (of.requests > 0).then(|| of.errors as f64 / of.requests as f64)
}

impl Dashboard {
    pub fn new(head: Head, seen: &Seen) -> Self {
        let steps = Steps::new(seen.now, seen.curves);
        // Since when anything was counted: before it, nothing is not zero.
        let begin = seen.beats.values().flatten().map(|beat| beat.start).min().unwrap_or(seen.now);
        let from = steps.starts.partition_point(|start| *start < begin);
        let open: Vec<&v1::Anomaly> = seen.anomalies.iter().filter(|of| is_open(of)).collect();
        let mut rows: Vec<(u8, ServiceKey, Row)> = seen
            .services_seen()
            .into_iter()
            .map(|key| {
                let row = seen.row(&key, &steps, from, &open);
                let order = match row.state {
                    "bad" => 0,
                    "warn" => 1,
                    _ => 2,
                };
                (order, key, row)
            })
            .collect();
        rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        rows.truncate(MOST_SERVICES);
        let over = seen.anomalies.iter().filter(|of| !is_open(of)).take(MOST_LINES);
        Self {
            head,
            curves: span(nanoseconds(seen.curves.length())),
            tiles: seen.tiles(&steps, from, open.len()),
            open: open.iter().take(50).map(|of| AnomalyLine::new(of, seen.now)).collect(),
            rows: rows.into_iter().map(|(.., row)| row).collect(),
            checks: seen.checks.iter().map(|of| CheckLine::new(of, seen.now)).collect(),
            over: over.map(|of| AnomalyLine::new(of, seen.now)).collect(),
            changes: seen.changes.iter().take(MOST_LINES).map(ChangeLine::new).collect(),
            crowded: seen.crowded.iter().map(crowded).collect(),
            exempt: seen.exemptions.iter().take(MOST_LINES).map(ExemptLine::new).collect(),
        }
    }
}

fn is_open(of: &v1::Anomaly) -> bool {
    matches!(of.state(), v1::AnomalyState::Pending | v1::AnomalyState::Firing)
}

impl ExemptLine {
    fn new(of: &v1::Exemption) -> Self {
        Self {
            id: of.id.clone(),
            line: of.line.clone(),
            author: of.author.clone(),
            at: time(of.told_at.as_ref()),
            covered: of.anomalies.len(),
        }
    }
}

impl ChangeLine {
    fn new(of: &v1::Change) -> Self {
        Self {
            title: of.title.clone(),
            kind: change_kind_name(of.kind()),
            at: time(of.at.as_ref()),
            service: path_of(of.service.as_ref()),
            inferred: of.inferred,
        }
    }
}

impl Seen {
    fn services_seen(&self) -> BTreeSet<ServiceKey> {
        let numbers = self.services.iter().map(|of| key_of(of.service.as_ref()));
        numbers.chain(self.beats.keys().cloned()).collect()
    }

    fn row(&self, key: &ServiceKey, steps: &Steps, from: usize, open: &[&v1::Anomaly]) -> Row {
        let summary = self.services.iter().find(|of| key_of(of.service.as_ref()) == *key);
        let laid = steps.lay(self.beats.get(key).map(Vec::as_slice).unwrap_or_default());
        let part = |of: &&&v1::Anomaly| {
            key_of(of.service.as_ref()) == *key
                || of.signals.iter().any(|signal| key_of(signal.service.as_ref()) == *key)
        };
        let anomaly = open.iter().find(part);
        let onset = anomaly.and_then(|of| of.onset.as_ref()).and_then(|at| steps.share(from_proto(at)));
        let after = |at: usize, value: f64| (at >= from).then_some(value);
        let requests: Vec<_> = laid
            .iter()
            .enumerate()
            .map(|(at, of)| after(at, steps.per_second(*of, |beat| beat.requests)))
            .collect();
        let errors: Vec<_> = laid.iter().map(|of| of.and_then(ratio)).collect();
        let latency: Vec<_> = laid.iter().map(|of| of.and_then(|of| of.p99_ns).map(|ns| ns as f64)).collect();
        let has_requests = summary.is_some_and(|of| of.requests > 0);
        let error_ratio = summary.map_or(0.0, |of| of.error_ratio);
        let (state, state_text) = match anomaly.map(|of| of.severity()) {
            Some(v1::Severity::Page) => ("bad", "an anomaly is open"),
            Some(_) => ("warn", "an anomaly is open"),
            None if has_requests => ("ok", "ok"),
            None => ("", "no requests in the last 5 minutes"),
        };
        let place: Vec<&str> =
            [&*key.environment, &*key.namespace].into_iter().filter(|of| !of.is_empty()).collect();
        Row {
            name: key.name.to_string(),
            place: place.join(" / "),
            state,
            state_text,
            anomaly: anomaly.map(|of| of.id.clone()),
            rate: if has_requests {
                format!("{}/s", three_digits(steps.recent_rate(&laid, from)))
            } else {
                "–".to_owned()
            },
            requests_spark: spark(&requests, 0.0).with_onset(onset),
            errors: if has_requests { percent(error_ratio) } else { "–".to_owned() },
            errors_class: match error_ratio {
                high if high >= 0.05 => "bad-t",
                some if some >= 0.01 => "warn-t",
                _ => "",
            },
            errors_spark: spark(&errors, 0.02).with_onset(onset),
            p50: took(summary.and_then(|of| of.p50_ns)),
            p95: took(summary.and_then(|of| of.p95_ns)),
            p99: took(summary.and_then(|of| of.p99_ns)),
            latency_spark: spark(&latency, 0.0).with_onset(onset),
            budget: self.budget(key),
        }
    }

    /// The service's objective of which the least budget is left.
    fn budget(&self, key: &ServiceKey) -> Option<BudgetCell> {
        let of = self
            .slos
            .iter()
            .filter(|of| of.total > 0 && key_of(of.service.as_ref()) == *key)
            .min_by(|a, b| a.budget_remaining_ratio.total_cmp(&b.budget_remaining_ratio))?;
        Some(BudgetCell::of(of, self.now))
    }

    fn tiles(&self, steps: &Steps, from: usize, open: usize) -> Vec<Tile> {
        let laid: Vec<Vec<Option<&Beat>>> = self.beats.values().map(|beats| steps.lay(beats)).collect();
        let sum = |at: usize, value: fn(&Beat) -> u64| -> f64 {
            laid.iter().map(|beats| steps.per_second(beats.get(at).copied().flatten(), value)).sum()
        };
        let requests: Vec<Option<f64>> =
            (0..steps.starts.len()).map(|at| (at >= from).then(|| sum(at, |beat| beat.requests))).collect();
        let errors: Vec<Option<f64>> = (0..steps.starts.len())
            .map(|at| {
                let requests = sum(at, |beat| beat.requests);
                (requests > 0.0).then(|| sum(at, |beat| beat.errors) / requests)
            })
            .collect();
        let rate: f64 = laid.iter().map(|beats| steps.recent_rate(beats, from)).sum();
        let (all, failed) = self.services.iter().fold((0u64, 0u64), |(all, failed), of| {
            (all.saturating_add(of.requests), failed.saturating_add(of.errors))
        });
        let ratio = if all == 0 { 0.0 } else { failed as f64 / all as f64 };
        let services = self.services_seen().len();
        let busy = self.services.iter().filter(|of| of.requests > 0).count();
        let exhausted =
            self.slos.iter().filter(|of| of.total > 0 && of.budget_remaining_ratio <= 0.0).count();
        vec![
            Tile {
                name: "Requests",
                value: three_digits(rate),
                unit: "/s",
                class: "",
                color: "r",
                spark: Some(spark(&requests, 0.0)),
                note: String::new(),
            },
            Tile {
                name: "Errors",
                value: percent(ratio),
                unit: "of requests",
                class: if ratio >= 0.05 { "bad-t" } else { "" },
                color: "e",
                spark: Some(spark(&errors, 0.02)),
                note: String::new(),
            },
            Tile {
                name: "Open anomalies",
                value: open.to_string(),
                unit: "",
                class: if open > 0 { "bad-t" } else { "" },
                color: "",
                spark: None,
                note: match self.anomalies.len().saturating_sub(open) {
                    0 => "none before, in 24 hours".to_owned(),
                    over => format!("{over} over, in 24 hours"),
                },
            },
            Tile {
                name: "Services",
                value: services.to_string(),
                unit: "",
                class: "",
                color: "",
                spark: None,
                note: match exhausted {
                    0 => format!("{busy} with requests"),
                    1 => format!("{busy} with requests · 1 budget used up"),
                    budgets => format!("{busy} with requests · {budgets} budgets used up"),
                },
            },
        ]
    }
}
