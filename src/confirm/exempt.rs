//! Whether an anomaly is explained by what people said beforehand.

use super::anomaly::{Anomaly, Examined, Member, Uncovering};
use super::config::Config;
use super::places::Places;
use crate::context::{ChangeKind, Changes, Ended, Exemption, Subject, ToldExemption};
use crate::detect::Symptom;
use crate::model::{ServiceKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Exemptions that are told and not over, at most.
const TOLD_AT_MOST: usize = 1_000;
/// Exemptions of which an anomaly says why they did not cover it.
const NEAREST: usize = 5;

/// The exemptions of the configuration, and those that were told while the daemon ran.
#[derive(Debug)]
pub(super) struct Exemptions {
    configured: Vec<Exemption>,
    told: BTreeMap<String, (Exemption, ToldExemption)>,
    /// Ended by themselves since this was last asked.
    ended: Vec<ToldExemption>,
    /// Names of attributes that any of them speaks of.
    attributes: BTreeSet<String>,
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
        let (told, ended, attributes) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let mut exemptions = Self { configured, told, ended, attributes };
        exemptions.name_attributes();
        exemptions
    }

    fn name_attributes(&mut self) {
        let all = self.configured.iter().chain(self.told.values().map(|(exemption, _)| exemption));
        self.attributes = all.flat_map(Exemption::attributes).map(str::to_owned).collect();
    }

    /// Names of attributes that any of them speaks of.
    pub fn attributes(&self) -> &BTreeSet<String> {
        &self.attributes
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
        self.name_attributes();
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
            self.name_attributes();
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
    pub fn explain(
        &self,
        at: Timestamp,
        anomaly: &Anomaly,
        changes: &Changes,
        places: &Places,
    ) -> Option<Reason> {
        let members = Wrong::of(at, anomaly, places);
        if let Some(exemption) = self.configured.iter().find(|exemption| members.are_covered(exemption)) {
            return Some(Reason { because: exemption.because().to_owned(), told: None });
        }
        let found = self.told.iter().find(|(_, (exemption, told))| {
            members.are_covered(exemption) && !is_outdated(exemption, told, &anomaly.service, changes)
        });
        found.map(|(id, (exemption, _))| Reason {
            because: exemption.because().to_owned(),
            told: Some(id.clone()),
        })
    }

    /// What there is that does not explain an anomaly, and why it does not.
    pub fn examine(&self, at: Timestamp, anomaly: &Anomaly, changes: &Changes, places: &Places) -> Examined {
        let members = Wrong::of(at, anomaly, places);
        let configured = self.configured.iter().map(|exemption| (exemption, None));
        let told = self.told.values().map(|(exemption, told)| (exemption, Some(told)));
        let mut nearest: Vec<(Distance, &Exemption, String)> = configured
            .chain(told)
            .filter_map(|(exemption, told)| {
                let (distance, why_not) = members.why_not(exemption).or_else(|| {
                    let outdated =
                        told.is_some_and(|told| is_outdated(exemption, told, &anomaly.service, changes));
                    let why_not = "another version was deployed since it was told".to_owned();
                    outdated.then_some((Distance::Time, why_not))
                })?;
                Some((distance, exemption, why_not))
            })
            .collect();
        // Stable: of equally near ones, those of the configuration first.
        nearest.sort_by_key(|(distance, ..)| *distance);
        let exemptions = nearest.len() as u64;
        let shown = nearest.into_iter().take(NEAREST);
        let nearest = shown.map(|(_, of, why_not)| Uncovering { line: of.line().to_owned(), why_not });
        Examined { exemptions, nearest: nearest.collect() }
    }
}

/// How far an exemption is from covering an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    /// It covers all that is wrong, but not now.
    Time,
    /// It covers some of what is wrong.
    Part,
    /// It is about something else.
    All,
}

/// Whether an exemption has to cover a member: a budget that burns because of the rest is no news of its own.
pub(super) fn is_news(anomaly: &Anomaly, member: &Member) -> bool {
    member.symptom != Symptom::BudgetBurn || anomaly.symptom == Symptom::BudgetBurn
}

/// What an exemption has to cover.
fn wrong(anomaly: &Anomaly) -> impl Iterator<Item = &Member> {
    anomaly.members.iter().filter(|member| !member.recovered && is_news(anomaly, member))
}

/// What is wrong at a moment, with what is known of where it runs.
struct Wrong<'a> {
    at: Timestamp,
    anomaly: &'a Anomaly,
    members: Vec<&'a Member>,
    resources: BTreeMap<&'a ServiceKey, Vec<(String, String)>>,
}

impl<'a> Wrong<'a> {
    fn of(at: Timestamp, anomaly: &'a Anomaly, places: &Places) -> Self {
        let members: Vec<&Member> = wrong(anomaly).collect();
        let services: BTreeSet<&ServiceKey> = members.iter().map(|member| &member.service).collect();
        let resources = services.into_iter().map(|service| (service, places.of(at, service))).collect();
        Self { at, anomaly, members, resources }
    }

    fn subject(&self, member: &'a Member) -> Subject<'_> {
        Subject {
            service: &member.service,
            symptom: member.symptom.as_str(),
            signal: &member.signal,
            fingerprint: &self.anomaly.fingerprint.0,
            attributes: &member.attributes,
            resource: self.resources.get(&member.service).map_or(&[], Vec::as_slice),
            observed: member.observed,
        }
    }

    fn are_covered(&self, exemption: &Exemption) -> bool {
        exemption.holds(self.at) && self.members.iter().all(|member| exemption.covers(&self.subject(member)))
    }

    /// Why they are not covered, in words.
    fn why_not(&self, exemption: &Exemption) -> Option<(Distance, String)> {
        let missed: Vec<(&Member, String)> = self
            .members
            .iter()
            .filter_map(|member| Some((*member, exemption.why_not(&self.subject(member))?)))
            .collect();
        let Some((member, why_not)) = missed.first() else {
            return exemption.why_not_at(self.at).map(|why_not| (Distance::Time, why_not));
        };
        if missed.len() == self.members.len() {
            return Some((Distance::All, why_not.clone()));
        }
        let Member { service, signal, symptom, .. } = member;
        let more = match missed.len() - 1 {
            0 => String::new(),
            more => format!(", nor {more} more"),
        };
        let symptom = symptom.as_str();
        let told = format!("it does not cover {symptom} of {service} “{signal}”{more}: {why_not}");
        Some((Distance::Part, told))
    }
}

/// Whether it is a known issue of another version.
fn is_outdated(exemption: &Exemption, told: &ToldExemption, service: &ServiceKey, changes: &Changes) -> bool {
    exemption.is_known_issue() && deployed_since(told.told_at, service, changes)
}

fn deployed_since(at: Timestamp, service: &ServiceKey, changes: &Changes) -> bool {
    changes.all().iter().rev().take_while(|change| change.at > at).any(|change| {
        change.kind == ChangeKind::Deploy && change.service.as_ref().is_none_or(|of| of == service)
    })
}
