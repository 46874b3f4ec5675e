//! What a webhook is sent: a CloudEvent, or a message as Slack, PagerDuty or GoAlert takes it.

use super::{Alert, AlertState};
use crate::confirm::Severity;
use serde::Deserialize;
use serde_json::{Value, json};

/// Most characters of a summary that PagerDuty takes.
const PAGERDUTY_SUMMARY: usize = 1_024;
/// Most characters of a section that Slack shows.
const SLACK_TEXT: usize = 2_900;
/// Most characters of a summary that GoAlert takes.
const GOALERT_SUMMARY: usize = 1_024;

/// Whose form a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// CloudEvents 1.0, structured JSON.
    #[default]
    CloudEvents,
    /// An incoming webhook of Slack (Mattermost and others take the same).
    Slack,
    /// PagerDuty's Events API v2; the secret is the routing key.
    PagerDuty,
    /// GoAlert's generic API; the URL holds the token.
    GoAlert,
}

fn annotation<'a>(alert: &'a Alert, name: &str) -> &'a str {
    alert.annotations.get(name).map_or("", String::as_str)
}

fn label<'a>(alert: &'a Alert, name: &str) -> &'a str {
    alert.labels.get(name).map_or("", String::as_str)
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

/// An alert as `format` has it; CloudEvents are made elsewhere.
pub(super) fn message(format: Format, alert: &Alert, secret: &str) -> Value {
    match format {
        Format::CloudEvents => Value::Null,
        Format::Slack => slack(alert),
        Format::PagerDuty => pagerduty(alert, secret),
        Format::GoAlert => goalert(alert),
    }
}

/// Slack's three characters of markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack(alert: &Alert) -> Value {
    let (mark, color) = match (alert.state, alert.severity) {
        (AlertState::Firing | AlertState::Pending, Severity::Page) => ("PAGE", "#d32f2f"),
        (AlertState::Firing | AlertState::Pending, Severity::Ticket) => ("TICKET", "#f9a825"),
        (AlertState::Firing | AlertState::Pending, Severity::Info) => ("INFO", "#1976d2"),
        (AlertState::Resolved, _) => ("RESOLVED", "#2e7d32"),
        (AlertState::Merged, _) => ("MERGED", "#757575"),
        (AlertState::Suppressed, _) => ("SUPPRESSED", "#757575"),
    };
    let summary = escaped(&cut(annotation(alert, "summary"), 300));
    let title = format!("[{mark}] {summary}");
    json!({
        "text": title,
        "attachments": [{
            "color": color,
            "fallback": title,
            "text": escaped(&cut(annotation(alert, "description"), SLACK_TEXT)),
            "footer": format!("barograph {}", alert.anomaly),
        }],
    })
}

fn pagerduty(alert: &Alert, routing_key: &str) -> Value {
    let mut message = json!({
        "routing_key": routing_key,
        "event_action": if alert.state.is_ended() { "resolve" } else { "trigger" },
        "dedup_key": alert.anomaly,
    });
    if alert.state.is_ended() {
        return message;
    }
    let severity = match alert.severity {
        Severity::Page => "critical",
        Severity::Ticket => "warning",
        Severity::Info => "info",
    };
    let service = label(alert, "service");
    message["payload"] = json!({
        "summary": cut(annotation(alert, "summary"), PAGERDUTY_SUMMARY),
        "source": if service.is_empty() { "barograph" } else { service },
        "severity": severity,
        "timestamp": alert.starts_at,
        "component": service,
        "group": label(alert, "namespace"),
        "class": label(alert, "symptom"),
        "custom_details": alert.annotations,
    });
    message["client"] = "barograph".into();
    let link = annotation(alert, "evidence");
    if !link.is_empty() {
        message["client_url"] = link.into();
        message["links"] = json!([{ "href": link, "text": "Evidence" }]);
    }
    message
}

fn goalert(alert: &Alert) -> Value {
    let mut message = json!({
        "summary": cut(annotation(alert, "summary"), GOALERT_SUMMARY),
        "details": annotation(alert, "description"),
        "dedup": alert.anomaly,
    });
    if alert.state.is_ended() {
        message["action"] = "close".into();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::fixture::anomaly;
    use super::super::{Config, Lifecycle};
    use super::*;
    use crate::confirm::AnomalyState;
    use crate::model::Timestamp;

    /// Firing, then resolved.
    fn alerts() -> [Alert; 2] {
        let at = |second: u64| Timestamp::from_secs(1_700_000_000 + second);
        let mut lifecycle = Lifecycle::new(Config::default());
        let mut of = anomaly("00000000000000aa", at(0));
        (of.state, of.severity, of.fired_at) = (AnomalyState::Confirmed, Severity::Page, Some(at(0)));
        of.title = "payment: <31 %> & more".into();
        let firing = lifecycle.step(at(10), std::slice::from_ref(&of)).pop().expect("an alert");
        of.state = AnomalyState::Recovered;
        [firing, lifecycle.step(at(12), &[of]).pop().expect("its end")]
    }

    #[test]
    fn slack_shows_the_summary_and_the_twelve_lines() {
        let [firing, resolved] = alerts().map(|alert| message(Format::Slack, &alert, ""));
        assert_eq!(firing["text"], "[PAGE] payment: &lt;31 %&gt; &amp; more");
        let lines = firing["attachments"][0]["text"].as_str().expect("text");
        assert!(lines.starts_with("What: payment: &lt;31 %&gt;") && lines.contains("\nSince: "), "{lines}");
        assert!(resolved["text"].as_str().expect("text").starts_with("[RESOLVED] "));
    }

    #[test]
    fn pagerduty_opens_and_ends_one_incident_for_an_anomaly() {
        let [firing, resolved] = alerts().map(|alert| message(Format::PagerDuty, &alert, "key"));
        assert_eq!(
            (&firing["event_action"], &resolved["event_action"]),
            (&"trigger".into(), &"resolve".into())
        );
        assert_eq!((&firing["dedup_key"], &firing["routing_key"]), (&resolved["dedup_key"], &"key".into()));
        let payload = &firing["payload"];
        assert_eq!((&payload["severity"], &payload["source"]), (&"critical".into(), &"payment".into()));
        assert_eq!(payload["timestamp"], "2023-11-14T22:13:20Z");
        assert!(resolved.get("payload").is_none());
    }

    #[test]
    fn goalert_closes_what_it_opened() {
        let [firing, resolved] = alerts().map(|alert| message(Format::GoAlert, &alert, ""));
        assert_eq!((&firing["dedup"], &resolved["action"]), (&"00000000000000aa".into(), &"close".into()));
        assert!(firing.get("action").is_none());
        assert_eq!(firing["summary"], "payment: <31 %> & more");
    }
}
