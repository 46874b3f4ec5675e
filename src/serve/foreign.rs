//! `POST /api/v2/alerts`: alerts as Prometheus sends them to an Alertmanager, or an Alertmanager to a webhook.

use super::api::Api;
use crate::detect::{ForeignAlert, Gravity};
use crate::model::{Timestamp, name_of};
use crate::store::Stage;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Alerts of one message.
const ALERTS: usize = 1_000;
const LABELS: usize = 64;
const TEXT_BYTES: usize = 1_024;
/// An alert without an end is over when it is not told again for so long, as at an Alertmanager.
const RESOLVED_AFTER: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// `firing` or `resolved`, of a webhook.
    status: Option<String>,
    starts_at: Option<String>,
    ends_at: Option<String>,
}

/// What a message comes to: alerts, and why others are left out.
///
/// # Errors
/// Why the message as a whole is none, in words.
pub fn read(body: &[u8], now: Timestamp) -> Result<(Vec<ForeignAlert>, Vec<String>), String> {
    let message: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let list = match &message {
        Value::Array(list) => list,
        Value::Object(of) => of.get("alerts").and_then(Value::as_array).ok_or("has no list of alerts")?,
        _ => return Err("is neither a list of alerts nor a webhook's message".to_owned()),
    };
    if list.len() > ALERTS {
        return Err(format!("holds more than {ALERTS} alerts"));
    }
    let (mut alerts, mut wrong) = (Vec::new(), Vec::new());
    for (number, value) in list.iter().enumerate() {
        match Posted::deserialize(value).map_err(|error| error.to_string()).and_then(|of| alert(of, now)) {
            Ok(alert) => alerts.extend(alert),
            Err(why) => wrong.push(format!("alert {}: {why}", number + 1)),
        }
    }
    Ok((alerts, wrong))
}

/// `None` for an alert of our own that came back.
fn alert(of: Posted, now: Timestamp) -> Result<Option<ForeignAlert>, String> {
    let Posted { labels, annotations, status, starts_at, ends_at } = of;
    if labels.contains_key("anomaly_id") {
        return Ok(None);
    }
    if labels.is_empty() || labels.len() > LABELS {
        return Err(format!("has {} labels, allowed: 1 to {LABELS}", labels.len()));
    }
    let long = labels.iter().find(|(key, value)| key.len() > TEXT_BYTES || value.len() > TEXT_BYTES);
    if let Some((key, _)) = long {
        return Err(format!("the label {:?} is longer than {TEXT_BYTES} bytes", cut(key, 64)));
    }
    let label = |names: &[&str]| {
        names.iter().find_map(|name| labels.get(*name)).map(String::as_str).unwrap_or_default()
    };
    let name = match label(&["alertname"]) {
        "" => return Err("has no label alertname".to_owned()),
        name => name,
    };
    let service = label(&["service", "service_name", "service.name", "job", "app"]);
    let environment = label(&["environment", "env", "deployment_environment", "deployment_environment_name"]);
    let namespace = label(&["namespace", "service_namespace"]);
    let service = match (service, environment, namespace) {
        ("", ..) => name.to_owned(),
        (service, ..) if service.contains('/') => service.to_owned(),
        (service, "", "") => service.to_owned(),
        (service, "", namespace) => format!("{namespace}/{service}"),
        (service, environment, "") => format!("{environment}/{service}"),
        (service, environment, namespace) => format!("{environment}/{namespace}/{service}"),
    };
    let severity = match label(&["severity", "priority"]).to_lowercase().as_str() {
        "page" | "critical" | "emergency" | "high" | "p1" => Gravity::Page,
        "info" | "none" | "debug" | "low" => Gravity::Info,
        _ => Gravity::Ticket,
    };
    // The year 1 stands for no time in Go.
    let time = |text: Option<String>| text.and_then(|text| Timestamp::parse_rfc3339(&text).ok());
    let starts_at = time(starts_at).filter(|at| *at != Timestamp::ZERO).unwrap_or(now).min(now);
    let told_end = time(ends_at).filter(|at| *at != Timestamp::ZERO);
    let ends_at = match status.as_deref() {
        Some("resolved") => told_end.unwrap_or(now).min(now),
        Some(_) => now.saturating_add(Duration::from_secs(7 * 86_400)),
        None => told_end.unwrap_or_else(|| now.saturating_add(RESOLVED_AFTER)),
    };
    let foreign_alert = name_of(labels.iter().flat_map(|(key, value)| [key.as_str(), value]));
    let summary = ["summary", "message", "description"].iter().find_map(|name| annotations.get(*name));
    let summary = cut(summary.map_or("", String::as_str), 300);
    Ok(Some(ForeignAlert {
        foreign_alert,
        name: name.to_owned(),
        service,
        severity,
        summary,
        starts_at,
        ends_at,
    }))
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

/// Keeps what is good, also if others are not; a 400 names those.
pub(super) async fn take(State(api): State<Api>, body: Bytes) -> Response {
    let now = api.now();
    let (alerts, wrong) = match read(&body, now) {
        Ok(read) => read,
        Err(why) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response(),
    };
    let written = api
        .ask(move |api, _| {
            for alert in alerts {
                let payload =
                    serde_json::to_value(&alert).map_err(|error| super::Error::Storage(error.to_string()))?;
                // Told again within a minute with the same end in sight, it is no news.
                let state = if alert.ends_at <= now { "over" } else { "on" };
                let (id, minute) = (&alert.foreign_alert, now.secs() / 60);
                let key = format!("foreign/{id}/{}/{state}/{minute}", alert.starts_at.secs());
                api.sources
                    .records
                    .append(now, Stage::Context, id, &key, payload)
                    .map_err(super::Error::Storage)?;
            }
            Ok(())
        })
        .await;
    match written {
        Ok(()) if wrong.is_empty() => StatusCode::OK.into_response(),
        Ok(()) => (StatusCode::BAD_REQUEST, Json(json!({ "error": wrong.join("; ") }))).into_response(),
        Err(error) => (error.http_status(), Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn prometheus_and_alertmanager_are_understood() {
        let posted = r#"[
            {"labels":{"alertname":"DiskFull","job":"shop/cart","severity":"critical"},"annotations":{"summary":"92 %"},
             "startsAt":"2023-11-14T22:00:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://p"},
            {"labels":{"alertname":"Ours","anomaly_id":"00000000000000aa"}},
            {"labels":{"severity":"page"}},
            {"labels":{"alertname":"Over","service":"cart","namespace":"shop","env":"prod"},"endsAt":"2023-11-14T22:10:00Z"}]"#;
        let (alerts, wrong) = read(posted.as_bytes(), NOW).unwrap();
        let rows: Vec<_> = alerts
            .iter()
            .map(|of| (of.name.as_str(), of.service.as_str(), of.severity, of.ends_at > NOW))
            .collect();
        assert_eq!(
            rows,
            [
                ("DiskFull", "shop/cart", Gravity::Page, true),
                ("Over", "prod/shop/cart", Gravity::Ticket, false)
            ]
        );
        assert_eq!(wrong, ["alert 3: has no label alertname"]);
        let webhook = r#"{"version":"4","status":"firing","alerts":[
            {"status":"firing","labels":{"alertname":"A","service":"cart"},"startsAt":"2023-11-14T22:00:00Z"},
            {"status":"resolved","labels":{"alertname":"A","service":"cart"},"endsAt":"2023-11-14T22:00:00Z"}]}"#;
        let (alerts, wrong) = read(webhook.as_bytes(), NOW).unwrap();
        assert!(wrong.is_empty() && alerts[0].foreign_alert == alerts[1].foreign_alert);
        assert!(alerts[0].ends_at > NOW && alerts[1].ends_at < NOW);
        for hostile in ["", "1", "{}", "[1]", &format!("[{}]", vec!["{}"; 1_001].join(","))] {
            let answer = read(hostile.as_bytes(), NOW);
            assert!(
                answer.is_err() || answer.is_ok_and(|(alerts, wrong)| alerts.is_empty() && !wrong.is_empty())
            );
        }
    }
}
