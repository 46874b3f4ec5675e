//! The words of an alert, for someone who is woken by it: what, where, since when, how bad for
//! users, budget, suspected cause and change, where the evidence lies. No line depends on the time
//! of writing, so that a text changes only when there is news.

use super::Attachment;
use crate::confirm::{Anomaly, Member};
use crate::detect::{Band, Symptom};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Most characters of a line that come from outside.
const LONGEST_LINE: usize = 300;
/// Most characters of a label's value.
const LONGEST_LABEL: usize = 256;
/// Names listed before the rest is counted.
const NAMES_LISTED: usize = 3;

/// Text from outside as one line: control characters and those that reorder or hide text are
/// written as `\u{…}`, and what is too long is cut.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(longest));
    for (number, c) in text.chars().enumerate() {
        if number >= longest {
            out.push('…');
            break;
        }
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The alert's name, by symptom.
const fn name(symptom: Symptom) -> &'static str {
    match symptom {
        Symptom::Errors => "ServiceErrors",
        Symptom::Latency => "ServiceSlow",
        Symptom::TrafficDrop => "ServiceTrafficDrop",
        Symptom::Silence => "ServiceSilent",
        Symptom::MissedJob => "JobMissed",
        Symptom::Saturation => "ResourceSaturated",
        Symptom::BudgetBurn => "ErrorBudgetBurn",
        Symptom::Level => "MetricOutOfBand",
        Symptom::Data => "TelemetryDegraded",
        Symptom::Rule => "ForeignRuleFired",
        Symptom::Exhaustion => "ResourceFillsUp",
    }
}

/// The labels: a pure function of what is fixed when an anomaly opens, and of the severity.
pub(super) fn labels(anomaly: &Anomaly, severity: &str) -> BTreeMap<String, String> {
    [
        ("alertname", name(anomaly.symptom)),
        ("environment", &anomaly.service.environment),
        ("namespace", &anomaly.service.namespace),
        ("service", &anomaly.service.name),
        ("symptom", anomaly.symptom.as_str()),
        ("severity", severity),
        ("anomaly_id", &anomaly.id.0),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), clean(value, LONGEST_LABEL)))
    .collect()
}

/// Where an alert leads.
#[derive(Clone, Copy, Default)]
pub(super) struct Links<'a> {
    pub evidence: Option<&'a str>,
    /// Empty if there is none.
    pub runbook: &'a str,
}

/// The runbook of an alert, by the configured pattern. Names come from outside: what is not a letter, a digit or
/// one of `-._~` is percent-encoded (RFC 3986, section 2.1).
pub(super) fn runbook(pattern: &str, anomaly: &Anomaly) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    };
    let mut url = pattern.to_owned();
    for (name, value) in [
        ("{environment}", &*anomaly.service.environment),
        ("{namespace}", &*anomaly.service.namespace),
        ("{service}", &*anomaly.service.name),
        ("{symptom}", anomaly.symptom.as_str()),
    ] {
        url = url.replace(name, &encoded(value));
    }
    url
}

/// The annotations: a summary, a description of at most twelve lines, and the parts for machines.
pub(super) fn annotations(
    anomaly: &Anomaly,
    attachment: &Attachment,
    links: Links<'_>,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            out.insert(key.to_owned(), clean(value, LONGEST_LINE));
        }
    };
    let cause = attachment.cause_summary.as_deref().unwrap_or_default();
    put(
        "summary",
        &if cause.is_empty() { anomaly.title.clone() } else { format!("{}: {cause}", anomaly.title) },
    );
    put("cause", cause);
    put("cause_service", attachment.cause_service.as_deref().unwrap_or_default());
    put("cause_kind", attachment.cause_kind.as_deref().unwrap_or_default());
    if let Some(probability) = attachment.cause_probability {
        put("cause_probability", &format!("{probability:.2}"));
    }
    put("check", attachment.check.as_deref().unwrap_or_default());
    put("budget_spent", &attachment.impact.budget_in_words(&anomaly.service));
    put("users_affected", &attachment.impact.users_in_words());
    put("evidence", links.evidence.unwrap_or_default());
    put("runbook_url", links.runbook);
    put("onset", &anomaly.onset.earliest.to_string());
    out.insert("description".to_owned(), description(anomaly, attachment, links));
    out
}

fn description(anomaly: &Anomaly, attachment: &Attachment, links: Links<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("{name}: {}", clean(text, LONGEST_LINE)));
        }
    };
    line("What", &anomaly.title);
    line("Where", &place(anomaly));
    line("Since", &since(anomaly));
    let users = attachment.impact.users_in_words();
    let seen = impact(anomaly);
    line(
        "Users",
        &if users.is_empty() || seen.is_empty() { users + &seen } else { format!("{users}; {seen}") },
    );
    line("Synthetic check", attachment.check.as_deref().unwrap_or_default());
    line("Also affected", &others(anomaly));
    line("Error budget", attachment.budget.as_deref().unwrap_or_default());
    line("Budget spent on it", &attachment.impact.budget_in_words(&anomaly.service));
    line(
        "Suspected cause",
        match (&attachment.cause_summary, attachment.inconclusive) {
            (Some(cause), _) => cause,
            (None, true) => "nothing stands out",
            (None, false) => "still being looked for",
        },
    );
    line("Change before it", attachment.change.as_deref().unwrap_or_default());
    if let Some(link) = links.evidence {
        let holds = match (attachment.traces, attachment.log_records) {
            (0, 0) => String::new(),
            (traces, logs) => format!(" ({traces} traces, {logs} log records)"),
        };
        line("Evidence", &format!("{link}{holds}"));
    }
    line("Runbook", links.runbook);
    lines.join("\n")
}

fn place(anomaly: &Anomaly) -> String {
    let mut text = format!("service {}", anomaly.service.name);
    let parts: Vec<String> =
        [("environment", &anomaly.service.environment), ("namespace", &anomaly.service.namespace)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
    if !parts.is_empty() {
        let _ = write!(text, " ({})", parts.join(", "));
    }
    let signals: Vec<&str> = anomaly
        .members
        .iter()
        .filter(|member| member.service == anomaly.service && !member.signal.is_empty())
        .map(|member| member.signal.as_str())
        .collect();
    if !signals.is_empty() {
        let _ = write!(text, ", {}", listed(&signals));
    }
    text
}

fn since(anomaly: &Anomaly) -> String {
    let onset = anomaly.onset;
    let uncertain = onset.latest.since(onset.earliest);
    let began = clock(onset.earliest);
    let seen = clock(anomaly.opened_at);
    if uncertain.as_secs() >= 1 {
        format!("{began} UTC or up to {} later, noticed {seen}", duration(uncertain.as_nanos() as f64))
    } else {
        format!("{began} UTC, noticed {seen}")
    }
}

fn clock(at: crate::model::Timestamp) -> String {
    let text = crate::model::Timestamp::from_secs(at.secs()).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}

/// What the strongest member of each symptom looks like from outside.
fn impact(anomaly: &Anomaly) -> String {
    let mut symptoms = BTreeSet::new();
    anomaly
        .members
        .iter()
        .filter(|member| symptoms.insert(member.symptom))
        .take(2)
        .map(sentence)
        .collect::<Vec<_>>()
        .join("; ")
}

fn sentence(member: &Member) -> String {
    let observed = quantity(member.observed, &member.unit);
    let healthy = band(member.expected, &member.unit);
    let what = if member.signal.is_empty() { member.service.name.to_string() } else { member.signal.clone() };
    match member.symptom {
        Symptom::Errors => format!("{observed} of {what} fail (healthy: {healthy})"),
        Symptom::Latency => format!("{what} takes {observed} (healthy: {healthy})"),
        Symptom::TrafficDrop => format!("{what} serves {observed} (healthy: {healthy})"),
        Symptom::Silence => format!("nothing is heard of {what}"),
        Symptom::MissedJob => format!("{what} did not run when it was due"),
        Symptom::Saturation => format!("{what} is at {observed} (healthy: {healthy})"),
        Symptom::Exhaustion => format!("none yet; {what} is full in {observed} if it goes on like this"),
        Symptom::BudgetBurn => format!("{what} burns its budget at {observed} (sustainable: {healthy})"),
        Symptom::Level => format!("{what} is {observed} (usual: {healthy}); no effect on users is known"),
        Symptom::Data => format!("unknown: the telemetry of {what} is incomplete"),
        Symptom::Rule => {
            let said = member.attributes.iter().find(|(name, _)| name == "summary");
            format!("unknown; the rule {what} says: {}", said.map_or("nothing", |(_, text)| text))
        }
    }
}

fn others(anomaly: &Anomaly) -> String {
    let names: BTreeSet<&str> = anomaly
        .members
        .iter()
        .filter(|member| member.service != anomaly.service)
        .map(|member| &*member.service.name)
        .collect();
    listed(&names.into_iter().collect::<Vec<_>>())
}

/// The first few distinct names, in their order, and how many more there are.
fn listed(names: &[&str]) -> String {
    let mut seen = BTreeSet::new();
    let distinct: Vec<String> =
        names.iter().filter(|name| seen.insert(**name)).map(|name| clean(name, 80)).collect();
    let mut text = distinct.iter().take(NAMES_LISTED).cloned().collect::<Vec<_>>().join(", ");
    if distinct.len() > NAMES_LISTED {
        let _ = write!(text, " and {} more", distinct.len() - NAMES_LISTED);
    }
    text
}

fn band(band: Band, unit: &str) -> String {
    match (band.low.is_finite() && band.low > 0.0, band.high.is_finite()) {
        (true, true) => format!("{} to {}", quantity(band.low, unit), quantity(band.high, unit)),
        (false, true) => format!("at most {}", quantity(band.high, unit)),
        (true, false) => format!("at least {}", quantity(band.low, unit)),
        (false, false) => "unknown".to_owned(),
    }
}

/// A number with its unit, as people say it.
fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" => duration(value),
        "s" => duration(value * 1e9),
        "ms" => duration(value * 1e6),
        "1" => format!("{} %", digits(value * 100.0)),
        "By" => bytes(value),
        "" => digits(value),
        other => format!("{} {}", digits(value), other.replace(['{', '}'], "")),
    }
}

fn duration(ns: f64) -> String {
    let (unit, size) = [("h", 3.6e12), ("min", 6e10), ("s", 1e9), ("ms", 1e6), ("µs", 1e3)]
        .into_iter()
        .find(|(_, size)| ns.abs() >= *size)
        .unwrap_or(("ns", 1.0));
    format!("{} {unit}", digits(ns / size))
}

fn bytes(value: f64) -> String {
    let (unit, size) = [("GiB", 1024f64.powi(3)), ("MiB", 1024f64.powi(2)), ("KiB", 1024.0)]
        .into_iter()
        .find(|(_, size)| value.abs() >= *size)
        .unwrap_or(("B", 1.0));
    format!("{} {unit}", digits(value / size))
}

/// Three significant digits, no trailing zeros.
fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 || size == 0.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_say_them() {
        for (value, unit, text) in [
            (4_200_000_000.0, "ns", "4.2 s"),
            (80e6, "ns", "80 ms"),
            (0.3124, "1", "31.2 %"),
            (0.004, "1", "0.4 %"),
            (12.34, "{request}/s", "12.3 request/s"),
            (3.0 * 1024.0 * 1024.0, "By", "3 MiB"),
            (f64::NAN, "1", "unknown %"),
            (1200.0, "", "1200"),
        ] {
            assert_eq!(quantity(value, unit), text);
        }
        assert_eq!(band(Band { low: 0.0, high: 0.004 }, "1"), "at most 0.4 %");
        assert_eq!(band(Band { low: 5.0, high: f64::INFINITY }, ""), "at least 5");
    }

    #[test]
    fn nothing_that_hides_or_breaks_a_line_passes() {
        assert_eq!(clean("a\nb\x1b[31m\u{202e}c", 99), "a\\u{a}b\\u{1b}[31m\\u{202e}c");
        assert_eq!(clean("abcdef", 3), "abc…");
    }
}
