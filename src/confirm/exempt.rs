//! Whether an anomaly is explained by what people said beforehand.

use super::anomaly::{Anomaly, Member};
use super::config::Config;
use crate::context::{ChangeKind, Changes, Ended, Exemption, Subject, ToldExemption};
use crate::detect::Symptom;
use crate::model::{ServiceKey, Timestamp};
use std::collections::BTreeMap;

/// Exemptions that are told and not over, at most.
const TOLD_AT_MOST: usize = 1_000;

/// The exemptions of the configuration, and those that were told while the daemon ran.
#[derive(Debug)]
pub(super) struct Exemptions {
    configured: Vec<Exemption>,
    told: BTreeMap<String, (Exemption, ToldExemption)>,
    /// Ended by themselves since this was last asked.
    ended: Vec<ToldExemption>,
}

/// Why an anomaly need not be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub because: String,
    /// The exemption that was told, if it was.
    pub told: Option<String>,
}

impl Exemptions {
    /// Lines that cannot be read were refused with the configuration.
    pub fn new(config: &Config) -> Self {
        let configured = config.exemptions.iter().filter_map(|line| Exemption::parse(line).ok()).collect();
        Self { configured, told: BTreeMap::new(), ended: Vec::new() }
    }

    /// Takes over what was told. What is over, or cannot be read, is let go.
    pub fn tell(&mut self, told: ToldExemption) {
        let id = told.exemption.clone();
        match Exemption::parse(&told.line) {
            Ok(exemption) if told.ended.is_none() && self.told.len() < TOLD_AT_MOST => {
                self.told.insert(id, (exemption, told));
            }
            _ => {
                self.told.remove(&id);
            }
        }
    }

    /// Ends what is over by time, and gives what ended since this was last asked.
    pub fn take_ended(&mut self, at: Timestamp) -> Vec<ToldExemption> {
        let over: Vec<String> =
            self.told.iter().filter(|(_, (of, _))| of.is_over(at)).map(|(id, _)| id.clone()).collect();
        over.iter().for_each(|id| self.end(at, id));
        std::mem::take(&mut self.ended)
    }

    fn end(&mut self, at: Timestamp, id: &str) {
        if let Some((_, mut told)) = self.told.remove(id) {
            told.ended = Some(Ended { author: "barograph".to_owned(), at });
            self.ended.push(told);
        }
    }

    /// What an exemption covered has recovered.
    pub fn recovered(&mut self, at: Timestamp, id: &str) {
        if self.told.get(id).is_some_and(|(exemption, _)| exemption.ends_with_recovery()) {
            self.end(at, id);
        }
    }

    /// Why an anomaly need not be told now: one exemption covers all that is still wrong. A member
    /// elsewhere, of another shape, or worse than what is known is news, and so is the whole; so is a known
    /// issue in another version.
    pub fn explain(&self, at: Timestamp, anomaly: &Anomaly, changes: &Changes) -> Option<Reason> {
        if let Some(exemption) = self.configured.iter().find(|exemption| covers(exemption, at, anomaly)) {
            return Some(Reason { because: exemption.because().to_owned(), told: None });
        }
        let same = |exemption: &Exemption, told: &ToldExemption| {
            !exemption.is_known_issue() || !deployed_since(told.told_at, &anomaly.service, changes)
        };
        let found = self
            .told
            .iter()
            .find(|(_, (exemption, told))| covers(exemption, at, anomaly) && same(exemption, told));
        found.map(|(id, (exemption, _))| Reason {
            because: exemption.because().to_owned(),
            told: Some(id.clone()),
        })
    }
}

fn covers(exemption: &Exemption, at: Timestamp, anomaly: &Anomaly) -> bool {
    // A budget that burns because of the rest is no news of its own.
    let burns = |symptom| symptom == Symptom::BudgetBurn && anomaly.symptom != Symptom::BudgetBurn;
    let wrong = |member: &&Member| !member.recovered && !burns(member.symptom);
    exemption.holds(at)
        && anomaly.members.iter().filter(wrong).all(|member| {
            exemption.covers(&Subject {
                service: &member.service,
                symptom: member.symptom.as_str(),
                signal: &member.signal,
                fingerprint: &anomaly.fingerprint.0,
                attributes: &member.attributes,
                observed: member.observed,
            })
        })
}

fn deployed_since(at: Timestamp, service: &ServiceKey, changes: &Changes) -> bool {
    changes.all().iter().rev().take_while(|change| change.at > at).any(|change| {
        change.kind == ChangeKind::Deploy && change.service.as_ref().is_none_or(|of| of == service)
    })
}
