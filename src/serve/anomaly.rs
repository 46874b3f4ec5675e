//! An anomaly as others see it: what `confirm`, `alert` and `diagnose` last said of it, in one.

use super::convert::{service, to_proto};
use super::json::anomaly_json;
use crate::alert::{Alert, AlertState};
use crate::api::v1;
use crate::confirm::{Anomaly, AnomalyState, Member, Severity, Silencer, silencers};
use crate::diagnose::{Cause, CauseKind, Evidence};
use crate::model::ServiceKey;
use std::path::Path;

/// An anomaly as the API says it. `alert` and `evidence` are the latest of it, if there are any: until
/// an alert exists, its state is what `confirm` thinks.
#[must_use]
pub fn anomaly_message(anomaly: &Anomaly, alert: Option<&Alert>, evidence: Option<&Evidence>) -> v1::Anomaly {
    let state = match (anomaly.state, alert.map(|alert| alert.state)) {
        (AnomalyState::Merged, _) | (_, Some(AlertState::Merged)) => v1::AnomalyState::Merged,
        (AnomalyState::Suppressed, _) | (_, Some(AlertState::Suppressed)) => v1::AnomalyState::Suppressed,
        (_, Some(AlertState::Pending)) | (AnomalyState::Gathering, None) => v1::AnomalyState::Pending,
        (_, Some(AlertState::Firing)) | (AnomalyState::Confirmed, None) => v1::AnomalyState::Firing,
        (_, Some(AlertState::Resolved)) | (AnomalyState::Recovered, None) => v1::AnomalyState::Resolved,
    };
    let fired_at = match alert {
        Some(alert) => alert.fired_at,
        None => anomaly.fired_at,
    };
    let resolved_at = match (state, alert) {
        (v1::AnomalyState::Pending | v1::AnomalyState::Firing, _) => None,
        (_, Some(alert)) => alert.resolved_at.or(anomaly.ended_at),
        (_, None) => anomaly.ended_at,
    };
    let severity = alert.map_or(anomaly.severity, |alert| alert.severity.max(anomaly.severity));
    // What is told has begun: an onset estimated later than that would be a contradiction.
    let onset = fired_at.map_or(anomaly.onset.earliest, |fired| fired.min(anomaly.onset.earliest));
    v1::Anomaly {
        id: anomaly.id.0.clone(),
        fingerprint: anomaly.fingerprint.0.clone(),
        service: Some(service(&anomaly.service)),
        symptom: anomaly.symptom.as_str().to_owned(),
        onset: Some(to_proto(onset)),
        onset_latest: Some(to_proto(anomaly.onset.latest.max(onset))),
        detected_at: Some(to_proto(anomaly.opened_at)),
        fired_at: fired_at.map(to_proto),
        resolved_at: resolved_at.map(to_proto),
        severity: severity_message(severity) as i32,
        state: state as i32,
        title: anomaly.title.clone(),
        signals: anomaly.members.iter().map(signal).collect(),
        causes: evidence.map(|evidence| evidence.causes.iter().map(cause).collect()).unwrap_or_default(),
        p_value: anomaly.p_value,
        evidence: evidence.and_then(|evidence| relative(&evidence.bundle.path)),
        merged_into: anomaly.merged_into.as_ref().map(|id| id.0.clone()),
        suppressed_by: anomaly.suppressed_by.clone(),
        suspects: anomaly.suspects.iter().map(|change| change.0.clone()).collect(),
        revision: anomaly.revision,
        budget_draw: anomaly.budget_draw.map(|draw| v1::BudgetDraw {
            share: draw.share,
            in_week: draw.in_week,
            per_week: draw.per_week,
        }),
        exemptions_examined: anomaly.examined.exemptions,
        nearest_exemptions: anomaly
            .examined
            .nearest
            .iter()
            .map(|of| v1::Uncovering { line: of.line.clone(), why_not: of.why_not.clone() })
            .collect(),
        silencers: silencers(anomaly).into_iter().map(silencer).collect(),
    }
}

/// The same as JSON: a line of `anomalies.jsonl`.
#[must_use]
pub fn anomaly_object(
    anomaly: &Anomaly,
    alert: Option<&Alert>,
    evidence: Option<&Evidence>,
) -> serde_json::Value {
    anomaly_json(&anomaly_message(anomaly, alert, evidence))
}

/// `evidence/NAME` of a bundle's directory: where it is from the directory that holds all that is
/// written, wherever that is. `None` if there is no bundle.
fn relative(path: &Path) -> Option<String> {
    path.file_name().map(|name| format!("evidence/{}", name.to_string_lossy()))
}

pub(super) fn severity_message(severity: Severity) -> v1::Severity {
    match severity {
        Severity::Info => v1::Severity::Info,
        Severity::Ticket => v1::Severity::Ticket,
        Severity::Page => v1::Severity::Page,
    }
}

fn signal(member: &Member) -> v1::AnomalySignal {
    v1::AnomalySignal {
        service: Some(service(&member.service)),
        metric: member.signal.clone(),
        attributes: member.attributes.iter().cloned().collect(),
        symptom: member.symptom.as_str().to_owned(),
        observed: member.observed,
        expected_low: member.expected.low,
        expected_high: member.expected.high,
        unit: member.unit.clone(),
        onset: Some(to_proto(member.onset.earliest)),
        recovered: member.recovered,
        p_value: member.tail,
        log_evidence: f64::from(member.log_evidence),
    }
}

fn silencer(of: Silencer) -> v1::Silencer {
    v1::Silencer { when: of.when.to_owned(), command: of.command, line: of.line.unwrap_or_default() }
}

/// A suspect as the API says it.
pub(super) fn cause(cause: &Cause) -> v1::Cause {
    v1::Cause {
        rank: cause.rank,
        service: Some(service(&ServiceKey::new(&cause.environment, &cause.namespace, &cause.service))),
        kind: cause_kind(cause.kind).to_owned(),
        operation: cause.operation.clone(),
        score: cause.score,
        reason: cause.reason.clone(),
        reasons: cause.reasons.clone(),
    }
}

fn cause_kind(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::Code => "code",
        CauseKind::Database => "database",
        CauseKind::Dependency => "dependency",
        CauseKind::Saturation => "saturation",
        CauseKind::Traffic => "traffic",
        CauseKind::Deploy => "deploy",
        CauseKind::Data => "data",
        CauseKind::Job => "job",
        CauseKind::Inconclusive => "inconclusive",
    }
}
