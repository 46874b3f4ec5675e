//! Alerts of others: rules that somebody already has enter the same incidents.

use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rules that fire at once; further ones are not taken up until one ends.
const AT_MOST: usize = 1_000;
/// An alert that goes on is said again so often.
const REMIND: Duration = Duration::from_secs(10);

/// An attribute of findings by rules that only remark upon something, and its value.
const SEVERITY: &str = "severity";
const INFO: &str = "info";

/// Whether a finding with these attributes is by a rule that only remarks upon something.
#[must_use]
pub fn is_remark(symptom: Symptom, attributes: &[(String, String)]) -> bool {
    symptom == Symptom::Rule && attributes.iter().any(|(key, value)| key == SEVERITY && value == INFO)
}

/// An alert as somebody else's rule tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForeignAlert {
    /// What tells it from others: a hash of its labels.
    pub foreign_alert: String,
    pub name: String,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME` of what it is about.
    pub service: String,
    pub severity: Gravity,
    /// One line of what it says.
    pub summary: String,
    pub starts_at: Timestamp,
    /// When it ended, or will if it is not told again.
    pub ends_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    alert: ForeignAlert,
    service: ServiceKey,
    said: Timestamp,
}

/// All that fire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    held: BTreeMap<String, Held>,
}

impl Foreign {
    /// Takes over what was told; `known` are the services that send telemetry.
    pub fn tell<'a>(&mut self, alert: ForeignAlert, known: impl Iterator<Item = &'a ServiceKey>) {
        if let Some(held) = self.held.get_mut(&alert.foreign_alert) {
            // What a finding is recognised by stays.
            let summary = std::mem::take(&mut held.alert.summary);
            held.alert = ForeignAlert { summary, ..alert };
        } else if self.held.len() < AT_MOST {
            let mut meant = known.filter(|service| service.is_meant_by(&alert.service));
            let service = match (meant.next(), meant.next()) {
                (Some(one), None) => one.clone(),
                _ => as_written(&alert.service),
            };
            self.held.insert(alert.foreign_alert.clone(), Held { alert, service, said: Timestamp::ZERO });
        }
    }

    /// What begins, goes on, or ends.
    pub fn step(&mut self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.held.retain(|_, held| {
            let ended = held.alert.ends_at <= now;
            if ended || held.said == Timestamp::ZERO || now.since(held.said) >= REMIND {
                // One that was over before it was heard of says nothing.
                if !(ended && held.said == Timestamp::ZERO) {
                    findings.push(finding(held, now, ended));
                }
                held.said = now;
            }
            !ended
        });
        findings
    }
}

fn finding(held: &Held, now: Timestamp, ended: bool) -> Finding {
    let mut finding = Finding::about(now, &held.service, &held.alert.name, Symptom::Rule);
    finding.phase = if ended { Phase::Cleared } else { Phase::Active };
    finding.gravity = held.alert.severity;
    finding.decided = true;
    finding.tail = 1e-6;
    finding.log_evidence = 14.0;
    finding.observed = 1.0;
    finding.expected = Band { low: 0.0, high: 0.0 };
    finding.unit = "{alert}".to_owned();
    // Who waits five minutes before an alert began five minutes before it; longer ago says nothing of now.
    let earliest = held.alert.starts_at.max(now.saturating_sub(Duration::from_secs(300))).min(now);
    finding.onset = Interval { earliest, latest: now };
    finding.attributes.push(("rule".to_owned(), held.alert.foreign_alert.clone()));
    if held.alert.severity <= Gravity::Info {
        finding.attributes.push((SEVERITY.to_owned(), INFO.to_owned()));
    }
    if !held.alert.summary.is_empty() {
        finding.attributes.push(("summary".to_owned(), held.alert.summary.clone()));
    }
    finding
}

fn as_written(text: &str) -> ServiceKey {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [environment, namespace, name] => ServiceKey::new(environment, namespace, name),
        [namespace, name] => ServiceKey::new("", namespace, name),
        _ => ServiceKey::named(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str, ends_at: u64) -> ForeignAlert {
        ForeignAlert {
            foreign_alert: id.into(),
            name: "DiskFull".into(),
            service: "cart".into(),
            severity: Gravity::Ticket,
            summary: "92 % of /data".into(),
            starts_at: Timestamp::from_secs(90),
            ends_at: Timestamp::from_secs(ends_at),
        }
    }

    #[test]
    fn a_rule_is_said_again_each_ten_seconds_and_ends() {
        let known = [ServiceKey::new("prod", "shop", "cart"), ServiceKey::named("other")];
        let mut foreign = Foreign::default();
        foreign.tell(alert("a", 400), known.iter());
        foreign.tell(alert("over", 50), known.iter());
        let mut said = Vec::new();
        for second in 100..500 {
            if second == 350 {
                foreign.tell(alert("a", 450), known.iter());
            }
            let findings = foreign.step(Timestamp::from_secs(second));
            said.extend(findings.into_iter().map(|of| (second, of.phase, of.service)));
        }
        let active: Vec<u64> =
            said.iter().filter(|of| of.1 == Phase::Active).map(|(second, ..)| *second).collect();
        assert_eq!(active, (100..450).step_by(10).collect::<Vec<u64>>());
        assert_eq!(said.last().map(|(second, phase, _)| (*second, *phase)), Some((450, Phase::Cleared)));
        assert!(said.iter().all(|of| of.2 == known[0]), "the service that sends telemetry");
        // A bound: what is one too many is not taken up.
        for number in 0..2 * AT_MOST {
            foreign.tell(alert(&number.to_string(), 10_000), known.iter());
        }
        assert_eq!(foreign.step(Timestamp::from_secs(600)).len(), AT_MOST);
    }
}
