//! What would have kept an anomaly from being told: lines to copy.

use super::anomaly::{Anomaly, Member};
use super::exempt::is_news;
use crate::model::ServiceKey;

/// Bytes of a scope; a longer one is not worth reading.
const SCOPE_BYTES: usize = 200;

/// A way in which an anomaly would not have been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silencer {
    /// What it is good for, in words.
    pub when: &'static str,
    /// What to write as an exemption; nothing where the anomaly is to be made a known issue.
    pub line: Option<String>,
    /// The same as a command.
    pub command: String,
}

/// What would have kept an anomaly from being told, the narrowest first. Lines hold nothing that acts in a
/// shell, whatever telemetry says: where a name does, the fingerprint stands for it.
#[must_use]
pub fn silencers(anomaly: &Anomaly) -> Vec<Silencer> {
    let scope = of_all(anomaly).filter(|scope| scope.len() <= SCOPE_BYTES);
    let scope = scope.unwrap_or_else(|| format!("fingerprint={}", anomaly.fingerprint.0));
    let exempt = |when, line: String| Silencer {
        when,
        command: format!("barograph exempt add '{line}'"),
        line: Some(line),
    };
    // Whether it is covered is asked when it is told.
    let hour = anomaly.fired_at.unwrap_or(anomaly.opened_at).secs() / 3_600 % 24;
    vec![
        Silencer {
            when: "the same again, no worse by half and in the same version",
            line: None,
            command: format!("barograph exempt known {} --because WHY", anomaly.id),
        },
        exempt("until it has recovered", format!("{scope} until=recovery because=WHY")),
        exempt(
            "every day at this hour",
            format!("{scope} daily={hour:02}:00-{:02}:00 because=WHY", hour + 1),
        ),
    ]
}

/// Service and symptom, if all that was wrong has the same, be it well again or not.
fn of_all(anomaly: &Anomaly) -> Option<String> {
    let counts = |member: &&Member| is_news(anomaly, member);
    let mut members = anomaly.members.iter().filter(counts);
    let is_alike =
        members.all(|member| member.service == anomaly.service && member.symptom == anomaly.symptom);
    let ServiceKey { environment, namespace, name } = &anomaly.service;
    let words = [
        ("service", &**name),
        ("environment", environment),
        ("namespace", namespace),
        ("symptom", anomaly.symptom.as_str()),
    ];
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c));
    let is_safe = !name.is_empty() && words.iter().all(|(_, value)| is_plain(value));
    let words = words.iter().filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = words.map(|(key, value)| format!("{key}={value}")).collect();
    (is_alike && is_safe).then(|| words.join(" "))
}
