//! Every answer of the API as JSON: names and meanings that scripts rely on. Times are RFC 3339 in
//! UTC, durations `_ns`, ratios 0..1; what names a service also has its environment and namespace.

use super::convert::from_proto;
use crate::alert::users_in_words;
use crate::api::v1;
use crate::settings::{Seconds, Setting};
use crate::slo::share_in_words;
use serde_json::{Map, Value, json};
use std::time::Duration;

pub(super) fn time(at: Option<&prost_types::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(from_proto(at).to_string()))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `service`, `environment`, `namespace`, then the rest.
pub(super) fn row(service: Option<&v1::Service>, rest: Value) -> Value {
    let service = service.cloned().unwrap_or_default();
    let mut row = object(json!({
        "service": service.name,
        "environment": service.environment,
        "namespace": service.namespace,
    }));
    row.extend(object(rest));
    Value::Object(row)
}

/// A row of `services`.
#[must_use]
pub fn service_json(of: &v1::ServiceSummary) -> Value {
    row(
        of.service.as_ref(),
        json!({
            "spans": of.spans,
            "log_records": of.log_records,
            "metric_points": of.metric_points,
            "requests": of.requests,
            "errors": of.errors,
            "error_ratio": of.error_ratio,
            "p50_ns": of.p50_ns,
            "p90_ns": of.p90_ns,
            "p95_ns": of.p95_ns,
            "p99_ns": of.p99_ns,
            "p999_ns": of.p999_ns,
        }),
    )
}

/// A row of `operations`.
#[must_use]
pub fn operation_json(of: &v1::OperationSummary) -> Value {
    row(
        of.service.as_ref(),
        json!({
            "operation": of.operation,
            "kind": kind_name(of.kind()),
            "requests": of.requests,
            "errors": of.errors,
            "error_ratio": of.error_ratio,
            "p50_ns": of.p50_ns,
            "p90_ns": of.p90_ns,
            "p95_ns": of.p95_ns,
            "p99_ns": of.p99_ns,
            "p999_ns": of.p999_ns,
        }),
    )
}

/// `server`, `client` …
#[must_use]
pub(crate) fn kind_name(kind: v1::SpanKind) -> &'static str {
    match kind {
        v1::SpanKind::Unspecified => "unspecified",
        v1::SpanKind::Internal => "internal",
        v1::SpanKind::Server => "server",
        v1::SpanKind::Client => "client",
        v1::SpanKind::Producer => "producer",
        v1::SpanKind::Consumer => "consumer",
    }
}

/// A row of `latency`: quantiles by their text, such as `0.99`.
#[must_use]
pub fn latency_json(service: Option<&v1::Service>, of: &v1::LatencyRow) -> Value {
    let quantiles: Map<String, Value> =
        of.quantiles.iter().map(|at| (at.quantile.to_string(), json!(at.value_ns))).collect();
    let mut row = object(row(service, Value::Null));
    row.extend(object(json!({
        "start": time(of.start.as_ref()),
        "end": time(of.end.as_ref()),
        "count": of.count,
        "quantiles": quantiles,
    })));
    Value::Object(row)
}

/// A series over time, with its points.
#[must_use]
pub fn time_series_json(of: &v1::TimeSeries) -> Value {
    let points: Vec<Value> = of
        .points
        .iter()
        .map(|at| {
            json!({
                "start": time(at.start.as_ref()),
                "end": time(at.end.as_ref()),
                "count": at.count,
                "errors": at.errors,
                "p50_ns": at.p50_ns,
                "p99_ns": at.p99_ns,
                "last": at.last,
                "min": at.min,
                "max": at.max,
                "mean": at.mean,
                "delta": at.delta,
            })
        })
        .collect();
    row(
        of.service.as_ref(),
        json!({ "name": of.name, "unit": of.unit, "attributes": of.attributes, "points": points }),
    )
}

/// A row of `graph`. `environment` and `namespace` are the client's; the server's follow its name.
#[must_use]
pub fn edge_json(of: &v1::Edge) -> Value {
    let client = of.client.clone().unwrap_or_default();
    let (server, environment, namespace, system) = match &of.server {
        Some(v1::edge::Server::Service(service)) => {
            (service.name.clone(), Some(&service.environment), Some(&service.namespace), None)
        }
        Some(v1::edge::Server::Peer(peer)) => (peer.address.clone(), None, None, Some(&peer.system)),
        None => (String::new(), None, None, None),
    };
    json!({
        "client": client.name,
        "environment": client.environment,
        "namespace": client.namespace,
        "server": server,
        "server_environment": environment,
        "server_namespace": namespace,
        "server_system": system,
        "kind": kind_name(of.kind()),
        "requests": of.requests,
        "errors": of.errors,
        "p50_ns": of.p50_ns,
        "p99_ns": of.p99_ns,
    })
}

/// A row of `slo`.
#[must_use]
pub fn slo_json(of: &v1::Slo) -> Value {
    let burn: Map<String, Value> =
        of.burn.iter().map(|burn| (burn.window.clone(), json!(burn.rate))).collect();
    let mut row = object(json!({ "slo": of.slo }));
    row.extend(object(self::row(
        of.service.as_ref(),
        json!({
            "target": of.target,
            "window": window_text(of.window_ns),
            "state": data_state_name(of.state()),
            "good": of.good,
            "total": of.total,
            "budget_remaining_ratio": of.budget_remaining_ratio,
            "burn": burn,
            "exhausted_at": time(of.exhausted_at.as_ref()),
            "default": of.is_default,
            "users_affected": of.users_affected,
            "users": of.users,
            "counted_since": time(of.counted_since.as_ref()),
            "silent_until": time(of.silent_until.as_ref()),
            "excluded_ns": of.excluded_ns,
        }),
    )));
    Value::Object(row)
}

/// A file with objectives that is refused.
#[must_use]
pub fn refused_file_json(of: &v1::RefusedFile) -> Value {
    json!({
        "file": of.file,
        "line": of.line,
        "key": (!of.key.is_empty()).then_some(&of.key),
        "reason": of.reason,
        "left_out": of.left_out,
    })
}

/// A synthetic check.
#[must_use]
pub fn check_json(of: &v1::Check) -> Value {
    let state = match (&of.last_at, of.error.is_empty()) {
        (None, _) => "unknown",
        (Some(_), true) => "ok",
        (Some(_), false) => "failing",
    };
    json!({
        "check": of.name,
        "url": of.url,
        "service": of.service,
        "state": state,
        "since": time(of.since.as_ref()),
        "error": (!of.error.is_empty()).then_some(&of.error),
        "runs": of.runs,
        "failed_runs": of.failed_runs,
        "last_at": time(of.last_at.as_ref()),
        "last_took_ns": of.last_took_ns,
    })
}

/// `28d`, `1h`, `90s` …: the largest unit that is whole.
#[must_use]
pub(crate) fn window_text(ns: i64) -> String {
    Seconds(Duration::from_nanos(u64::try_from(ns).unwrap_or_default())).show().trim_matches('"').to_owned()
}

/// How much of its period does not count for an objective: `90m`; empty if all of it does.
#[must_use]
pub(crate) fn excluded_text(ns: i64) -> String {
    if ns > 0 { window_text(ns) } else { String::new() }
}

/// `ok`, `quiet`, `silent`, `gone`.
pub(super) const fn data_state_name(state: v1::DataState) -> &'static str {
    match state {
        v1::DataState::Ok => "ok",
        v1::DataState::Unspecified | v1::DataState::Quiet => "quiet",
        v1::DataState::Silent => "silent",
        v1::DataState::Gone => "gone",
    }
}

/// An anomaly as in `anomalies.jsonl`.
#[must_use]
pub fn anomaly_json(of: &v1::Anomaly) -> Value {
    let signals: Vec<Value> = of
        .signals
        .iter()
        .map(|signal| {
            row(
                signal.service.as_ref(),
                json!({
                    "metric": signal.metric,
                    "attributes": signal.attributes,
                    "symptom": signal.symptom,
                    "observed": signal.observed,
                    "expected": { "low": signal.expected_low, "high": signal.expected_high },
                    "unit": signal.unit,
                    "onset": time(signal.onset.as_ref()),
                    "recovered": signal.recovered,
                    "p_value": signal.p_value,
                    "log_evidence": signal.log_evidence,
                }),
            )
        })
        .collect();
    let causes: Vec<Value> = of.causes.iter().map(cause_json).collect();
    let nearest: Vec<Value> =
        of.nearest_exemptions.iter().map(|one| json!({ "line": one.line, "why_not": one.why_not })).collect();
    let silencers: Vec<Value> = of
        .silencers
        .iter()
        .map(|one| json!({ "when": one.when, "command": one.command, "line": one.line }))
        .collect();
    let head = json!({
        "id": of.id,
        "state": anomaly_state_name(of.state()),
        "severity": severity_name(of.severity()),
        "title": of.title,
    });
    let mut object_ = object(head);
    object_.extend(object(row(
        of.service.as_ref(),
        json!({
            "symptom": of.symptom,
            "onset": time(of.onset.as_ref()),
            "detected_at": time(of.detected_at.as_ref()),
            "fired_at": time(of.fired_at.as_ref()),
            "resolved_at": time(of.resolved_at.as_ref()),
            "signals": signals,
            "causes": causes,
            "p_value": of.p_value,
            "evidence": of.evidence,
            "merged_into": of.merged_into,
            "suppressed_by": of.suppressed_by,
            "budget_draw": of.budget_draw.map(|draw| json!({
                "share": draw.share,
                "in_week": draw.in_week,
                "per_week": draw.per_week,
            })),
            "exemptions_examined": of.exemptions_examined,
            "nearest_exemptions": nearest,
            "silencers": silencers,
            "suspects": of.suspects,
            "fingerprint": of.fingerprint,
            "revision": of.revision,
        }),
    )));
    Value::Object(object_)
}

/// A suspect as in `causes.json`.
#[must_use]
pub fn cause_json(of: &v1::Cause) -> Value {
    let mut cause = object(json!({ "rank": of.rank }));
    cause.extend(object(row(
        of.service.as_ref(),
        json!({
            "kind": of.kind,
            "operation": of.operation,
            "score": of.score,
            "reason": of.reason,
            "reasons": of.reasons,
        }),
    )));
    Value::Object(cause)
}

/// `pending`, `firing`, `resolved`, `merged`, `suppressed`.
#[must_use]
pub(crate) fn anomaly_state_name(state: v1::AnomalyState) -> &'static str {
    match state {
        v1::AnomalyState::Unspecified | v1::AnomalyState::Pending => "pending",
        v1::AnomalyState::Firing => "firing",
        v1::AnomalyState::Resolved => "resolved",
        v1::AnomalyState::Merged => "merged",
        v1::AnomalyState::Suppressed => "suppressed",
    }
}

/// `info`, `ticket`, `page`.
#[must_use]
pub(crate) fn severity_name(severity: v1::Severity) -> &'static str {
    match severity {
        v1::Severity::Unspecified | v1::Severity::Info => "info",
        v1::Severity::Ticket => "ticket",
        v1::Severity::Page => "page",
    }
}

/// An incident.
#[must_use]
pub fn incident_json(of: &v1::Incident) -> Value {
    let timeline: Vec<Value> = of
        .timeline
        .iter()
        .map(|entry| json!({ "at": time(entry.at.as_ref()), "who": entry.who, "what": entry.what }))
        .collect();
    let mut incident = object(json!({ "id": of.id, "anomalies": of.anomalies, "state": of.state }));
    incident.extend(object(row(
        of.service.as_ref(),
        json!({
            "severity": severity_name(of.severity()),
            "title": of.title,
            "onset": time(of.onset.as_ref()),
            "detected_at": time(of.detected_at.as_ref()),
            "alerted_at": time(of.alerted_at.as_ref()),
            "acknowledged_at": time(of.acknowledged_at.as_ref()),
            "recovered_at": time(of.recovered_at.as_ref()),
            "time_to_detect_ns": of.time_to_detect_ns,
            "time_to_recover_ns": of.time_to_recover_ns,
            "cause": of.cause.as_ref().map(cause_json),
            "budget_spent": of.budget_spent.iter().map(budget_spent_json).collect::<Vec<_>>(),
            "users_affected": of.users_affected,
            "users": of.users,
            "timeline": timeline,
        }),
    )));
    Value::Object(incident)
}

fn budget_spent_json(of: &v1::BudgetSpent) -> Value {
    let mut spent = object(json!({ "slo": of.slo }));
    spent.extend(object(row(of.service.as_ref(), json!({ "bad": of.bad, "ratio": of.ratio }))));
    Value::Object(spent)
}

/// What an incident cost, by objective, in words: `12.1 % of "charge-fast" (3000 bad)`.
#[must_use]
pub(crate) fn budget_spent_text(of: &v1::Incident) -> String {
    let mut parts = Vec::with_capacity(of.budget_spent.len());
    for spent in &of.budget_spent {
        let mut text = format!("{} of {:?}", share_in_words(spent.ratio), spent.slo);
        if spent.service != of.service {
            let name = spent.service.as_ref().map_or("", |service| service.name.as_str());
            text.push_str(&format!(" of {name}"));
        }
        parts.push(format!("{text} ({} bad)", spent.bad));
    }
    parts.join(", ")
}

/// Users that something bad happened to, of all, in words; empty where nobody counts them.
#[must_use]
pub(crate) fn users_text(affected: Option<u64>, all: Option<u64>) -> String {
    match (affected, all) {
        (Some(affected), Some(all)) => users_in_words(affected, all),
        _ => String::new(),
    }
}

/// A change. `service` is null if it may concern any.
#[must_use]
pub fn change_json(of: &v1::Change) -> Value {
    let mut change = object(json!({ "id": of.id, "at": time(of.at.as_ref()) }));
    change.extend(match &of.service {
        Some(service) => object(row(Some(service), json!({}))),
        None => object(json!({ "service": null, "environment": "", "namespace": "" })),
    });
    change.extend(object(json!({
        "kind": change_kind_name(of.kind()),
        "title": of.title,
        "inferred": of.inferred,
        "version": of.version,
    })));
    Value::Object(change)
}

/// An exemption that was told.
#[must_use]
pub fn exemption_json(of: &v1::Exemption) -> Value {
    json!({
        "id": of.id,
        "line": of.line,
        "author": of.author,
        "told_at": time(of.told_at.as_ref()),
        "ended_at": time(of.ended_at.as_ref()),
        "ended_by": of.ended_by,
        "anomalies": of.anomalies,
    })
}

/// A time that was taken out of budgets.
#[must_use]
pub fn adjustment_json(of: &v1::Adjustment) -> Value {
    json!({
        "id": of.id,
        "slo": of.slo,
        "service": of.service,
        "from": time(of.from.as_ref()),
        "until": time(of.until.as_ref()),
        "author": of.author,
        "reason": of.reason,
        "incident": of.incident,
        "told_at": time(of.told_at.as_ref()),
        "undone_at": time(of.undone_at.as_ref()),
        "undone_by": of.undone_by,
        "undone_because": of.undone_because,
    })
}

/// `deploy`, `flag`, `configuration`, `other`.
#[must_use]
pub(crate) fn change_kind_name(kind: v1::ChangeKind) -> &'static str {
    match kind {
        v1::ChangeKind::Deploy => "deploy",
        v1::ChangeKind::Flag => "flag",
        v1::ChangeKind::Configuration => "configuration",
        v1::ChangeKind::Unspecified | v1::ChangeKind::Other => "other",
    }
}

/// What a diagnosis found, without the files' bytes.
#[must_use]
pub fn evidence_json(of: &v1::Evidence) -> Value {
    let files: Vec<Value> = of
        .files
        .iter()
        .map(|file| json!({ "path": file.path, "size_bytes": file.size_bytes, "blake3": file.blake3 }))
        .collect();
    json!({
        "anomaly": of.anomaly,
        "complete": of.complete,
        "at": time(of.at.as_ref()),
        "causes": of.causes.iter().map(cause_json).collect::<Vec<_>>(),
        "traces": of.traces,
        "failed_traces": of.failed_traces,
        "log_records": of.log_records,
        "files": files,
    })
}

/// A service with more series than there is room for, or a caller with more services.
fn crowded_json(of: &v1::CrowdedService) -> Value {
    let mut crowd = json!({
        "overflowed": of.overflowed,
        "series": of.series,
        "part": of.part,
        "values": of.values,
        "pattern": of.pattern,
    });
    if of.caller.is_empty() {
        return row(of.service.as_ref(), crowd);
    }
    if let Some(crowd) = crowd.as_object_mut() {
        crowd.insert("caller".to_owned(), of.caller.as_str().into());
    }
    crowd
}

fn late_stage_json(of: &v1::LateStage) -> Value {
    json!({ "name": of.name, "late_s": of.late_s })
}

fn untimely_json(of: &v1::UntimelyService) -> Value {
    row(of.service.as_ref(), json!({ "items": of.items }))
}

/// The daemon itself.
#[must_use]
pub fn status_json(of: &v1::Status) -> Value {
    let accepted = of.accepted.unwrap_or_default();
    let series = of.series.clone().unwrap_or_default();
    let crowded: Vec<Value> = series.crowded.iter().map(crowded_json).collect();
    let journal = of.journal.unwrap_or_default();
    let pages = of.false_pages.unwrap_or_default();
    json!({
        "version": of.version,
        "ready": of.ready,
        "uptime_s": of.uptime_s,
        "accepted": {
            "spans": accepted.spans,
            "log_records": accepted.log_records,
            "metric_points": accepted.metric_points,
        },
        "refused": of.refused,
        "rejected": of.rejected,
        "late": of.late,
        "series": {
            "live": series.live,
            "limit": series.limit,
            "overflowed": series.overflowed,
            "crowded": crowded,
        },
        "journal": {
            "bytes": journal.bytes,
            "oldest": time(journal.oldest.as_ref()),
            "newest": time(journal.newest.as_ref()),
            "keepsakes": journal.keepsakes,
            "keepsake_bytes": journal.keepsake_bytes,
            "quarantined": journal.quarantined,
        },
        "memory_bytes": of.memory_bytes,
        "false_pages": { "per_week": pages.per_week, "spent_week": pages.spent_week },
        "late_stages": of.late_stages.iter().map(late_stage_json).collect::<Vec<_>>(),
        "untimely": of.untimely.iter().map(untimely_json).collect::<Vec<_>>(),
        "refused_slo_files": of.refused_slo_files.iter().map(refused_file_json).collect::<Vec<_>>(),
    })
}
