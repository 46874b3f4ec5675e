//! The pages of one anomaly and of one incident, and of what went wrong with a request.

use super::band::BandChart;
use super::dashboard::{AnomalyLine, path_of};
use super::head::Head;
use crate::api::v1;
use crate::model::Timestamp;
use crate::serve::text::{between, percent, quantity, span, time};
use crate::serve::{Why, budget_spent_text, from_proto, severity_name, users_text};
use askama::Template;

#[derive(Debug, Template)]
#[template(path = "anomaly.html", config = "src/web/askama.toml")]
pub(super) struct AnomalyPage {
    head: Head,
    of: AnomalyLine,
    facts: Vec<(&'static str, String)>,
    causes: Vec<CauseLine>,
    told: Told,
}

/// What was seen of an anomaly, and why it was told.
#[derive(Debug)]
struct Told {
    signals: Vec<SignalLine>,
    why: Why,
    nearest: Vec<(String, String)>,
    silencers: Vec<v1::Silencer>,
}

impl Told {
    fn new(of: &v1::Anomaly, curves: &[v1::Curve]) -> Self {
        let onset = of.onset.as_ref().map(from_proto).unwrap_or_default();
        let chart = |signal: usize| {
            let curve = curves.iter().find(|curve| usize::try_from(curve.signal) == Ok(signal))?;
            BandChart::new(curve, onset)
        };
        let signals = of.signals.iter().enumerate();
        Self {
            signals: signals.map(|(at, signal)| SignalLine::new(signal, chart(at))).collect(),
            why: Why::of(of),
            nearest: of
                .nearest_exemptions
                .iter()
                .map(|one| (one.line.clone(), one.why_not.clone()))
                .collect(),
            silencers: of.silencers.clone(),
        }
    }
}

#[derive(Debug)]
struct CauseLine {
    service: String,
    operation: String,
    kind: String,
    score: String,
    width: u32,
    reason: String,
    reasons: Vec<String>,
}

#[derive(Debug)]
struct SignalLine {
    service: String,
    metric: String,
    attributes: String,
    symptom: String,
    observed: String,
    expected: String,
    p_value: String,
    recovered: bool,
    chart: Option<BandChart>,
}

impl AnomalyPage {
    pub fn new(head: Head, of: &v1::Anomaly, curves: &[v1::Curve], now: Timestamp) -> Self {
        let line = AnomalyLine::new(of, now);
        let facts = [
            ("Onset", line.onset.clone()),
            ("Detected", time(of.detected_at.as_ref())),
            ("Fired", time(of.fired_at.as_ref())),
            ("Over", time(of.resolved_at.as_ref())),
            ("Lasted", line.lasted.clone()),
            ("p-value", format!("{:.1e}", of.p_value)),
            ("Merged into", of.merged_into.clone().unwrap_or_default()),
            ("Explained by", of.suppressed_by.clone().unwrap_or_default()),
            ("Changes before it", of.suspects.join(", ")),
        ];
        Self {
            head,
            of: line,
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty() && value != "-").collect(),
            causes: of.causes.iter().map(CauseLine::new).collect(),
            told: Told::new(of, curves),
        }
    }
}

impl CauseLine {
    fn new(of: &v1::Cause) -> Self {
        Self {
            service: path_of(of.service.as_ref()),
            operation: of.operation.clone().unwrap_or_default(),
            kind: of.kind.clone(),
            score: percent(of.score),
            width: (of.score.clamp(0.0, 1.0) * 100.0).round() as u32,
            reason: of.reason.clone(),
            reasons: of.reasons.clone(),
        }
    }
}

impl SignalLine {
    fn new(of: &v1::AnomalySignal, chart: Option<BandChart>) -> Self {
        let show = |value: f64| quantity(value, &of.unit);
        let attributes: Vec<String> =
            of.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self {
            service: path_of(of.service.as_ref()),
            metric: of.metric.clone(),
            attributes: attributes.join(" "),
            symptom: of.symptom.replace('_', " "),
            observed: show(of.observed),
            expected: between(of.expected_low, of.expected_high, show),
            p_value: format!("{:.1e}", of.p_value),
            recovered: of.recovered,
            chart,
        }
    }
}

#[derive(Debug, Template)]
#[template(path = "incident.html", config = "src/web/askama.toml")]
pub(super) struct IncidentPage {
    head: Head,
    id: String,
    title: String,
    severity: &'static str,
    state: String,
    service: String,
    facts: Vec<(&'static str, String)>,
    anomalies: Vec<String>,
    /// The anomaly that it began with.
    told: Option<Told>,
    timeline: Vec<TimelineLine>,
}

#[derive(Debug)]
struct TimelineLine {
    at: String,
    who: String,
    what: String,
}

impl IncidentPage {
    pub fn new(head: Head, of: &v1::Incident, first: Option<(&v1::Anomaly, &[v1::Curve])>) -> Self {
        let facts = [
            ("Onset", time(of.onset.as_ref())),
            ("Detected after", of.time_to_detect_ns.map(span).unwrap_or_default()),
            ("Alerted", time(of.alerted_at.as_ref())),
            ("Acknowledged", time(of.acknowledged_at.as_ref())),
            ("Recovered after", of.time_to_recover_ns.map(span).unwrap_or_default()),
            ("Cause", of.cause.as_ref().map(|cause| cause.reason.clone()).unwrap_or_default()),
            ("Error budget spent", budget_spent_text(of)),
            ("Users affected", users_text(of.users_affected, of.users)),
        ];
        Self {
            head,
            id: of.id.clone(),
            title: of.title.clone(),
            severity: severity_name(of.severity()),
            state: of.state.clone(),
            service: path_of(of.service.as_ref()),
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty() && value != "-").collect(),
            anomalies: of.anomalies.clone(),
            told: first.map(|(anomaly, curves)| Told::new(anomaly, curves)),
            timeline: of
                .timeline
                .iter()
                .map(|line| TimelineLine {
                    at: time(line.at.as_ref()),
                    who: line.who.clone(),
                    what: line.what.clone(),
                })
                .collect(),
        }
    }
}

#[derive(Debug, Template)]
#[template(path = "message.html", config = "src/web/askama.toml")]
pub(super) struct MessagePage {
    pub head: Head,
    pub heading: String,
    pub text: String,
}
