//! An open anomaly and its members.

use super::anomaly::{Anomaly, AnomalyState, Member, Severity};
use crate::detect::{Finding, Symptom, is_remark};
use crate::model::{SeriesId, ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Members kept of one anomaly.
pub(super) const MEMBERS_AT_MOST: usize = 200;

/// What a member is recognised by: its series too, as an operation that is served and one that is called may have
/// the same name.
pub(super) type MemberKey = (ServiceKey, String, Vec<(String, String)>, Symptom, Option<SeriesId>);

pub(super) fn key_of(finding: &Finding) -> MemberKey {
    let Finding { service, signal, attributes, symptom, series, .. } = finding;
    (service.clone(), signal.clone(), attributes.clone(), *symptom, *series)
}

pub(super) fn is_key_of(member: &Member, key: &MemberKey) -> bool {
    member.series == key.4
        && member.symptom == key.3
        && member.signal == key.1
        && member.service == key.0
        && member.attributes == key.2
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub anomaly: Anomaly,
    /// What the title speaks of: the finding that gave it its service and symptom, or the one that made a page of
    /// it later.
    pub lead: MemberKey,
    pub told_at: Timestamp,
    /// The exemption, if one was told, because of which it was not.
    pub exempt: Option<String>,
    pub changed: bool,
    pub refreshed: bool,
    /// Services of its members.
    #[serde(skip)]
    pub services: BTreeSet<ServiceKey>,
    /// Whether it may take in now what did not belong to it when that was last asked.
    #[serde(skip)]
    pub grown: bool,
}

impl Open {
    pub fn is_open(&self) -> bool {
        matches!(self.anomaly.state, AnomalyState::Gathering | AnomalyState::Confirmed)
    }

    /// Makes it as severe as a member is. Whoever is woken by a page reads of what pages, not of the ticket that was
    /// there before; and whoever follows hears of it.
    pub fn lead_by(&mut self, key: MemberKey, severity: Severity) {
        if severity <= self.anomaly.severity {
            return;
        }
        if severity == Severity::Page && self.anomaly.members.iter().any(|member| is_key_of(member, &key)) {
            self.lead = key;
        }
        self.anomaly.severity = severity;
        (self.changed, self.grown) = (true, true);
    }

    /// Finds out what is not kept in checkpoints.
    pub fn restore(&mut self) {
        self.services = self.anomaly.members.iter().map(|member| member.service.clone()).collect();
        self.grown = true;
    }
}

pub(super) fn is_absence(symptom: Symptom) -> bool {
    matches!(symptom, Symptom::TrafficDrop | Symptom::Silence)
}

/// How long a member may go without news before it counts as over.
pub(super) fn patience(symptom: Symptom) -> Duration {
    match symptom {
        Symptom::Errors | Symptom::Latency | Symptom::TrafficDrop => Duration::from_secs(600),
        Symptom::MissedJob => Duration::from_secs(7 * 86_400),
        _ => Duration::from_secs(3_600),
    }
}

/// Every member is healthy again. What only remarks upon something keeps nothing open but what it opened. Burn rates lag behind by their windows: where a detector of what users meet spoke
/// first they are not waited for. Where a budget or a metric did, those of a page are: a metric's band widens to
/// what goes on. Those of a ticket only if nothing else speaks, for their windows hold a page's minutes for hours.
pub(super) fn has_recovered(anomaly: &Anomaly) -> bool {
    let is_burn = |member: &&Member| member.symptom == Symptom::BudgetBurn;
    let counts =
        |member: &&Member| anomaly.symptom == Symptom::Rule || !is_remark(member.symptom, &member.attributes);
    let others = || anomaly.members.iter().filter(|member| !is_burn(member) && counts(member));
    let others_recovered = others().all(|member| member.recovered);
    if !matches!(anomaly.symptom, Symptom::BudgetBurn | Symptom::Level) && others().next().is_some() {
        return others_recovered;
    }
    let is_page =
        |member: &&Member| !member.attributes.iter().any(|(key, tier)| key == "tier" && tier == "ticket");
    let mut burns = anomaly.members.iter().filter(is_burn);
    let mut pages = burns.clone().filter(is_page);
    if anomaly.symptom == Symptom::Level || pages.clone().next().is_some() {
        return others_recovered && pages.all(|member| member.recovered);
    }
    others_recovered && burns.all(|member| member.recovered)
}

/// JSON, in which anomalies are kept and told, knows no infinity and no NaN. (A band is written with
/// its open ends, which read back as such.)
pub(super) fn finite(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) }
}

/// Makes a finding a member.
pub(super) fn admit(open: &mut Open, finding: &Finding, severity: Severity) {
    let anomaly = &mut open.anomaly;
    let key = key_of(finding);
    if anomaly.members.iter().any(|member| is_key_of(member, &key))
        || anomaly.members.len() >= MEMBERS_AT_MOST
    {
        return;
    }
    anomaly.members.push(Member {
        service: finding.service.clone(),
        signal: finding.signal.clone(),
        attributes: finding.attributes.clone(),
        symptom: finding.symptom,
        series: finding.series,
        observed: finite(finding.observed),
        expected: finding.expected,
        unit: finding.unit.clone(),
        tail: finite(finding.tail),
        log_evidence: finite(f64::from(finding.log_evidence)).clamp(-1e30, 1e30) as f32,
        onset: finding.onset,
        last_seen: finding.at,
        recovered: false,
    });
    // The fault began when the first of them did, but not long before it was opened.
    if anomaly.state == AnomalyState::Gathering
        && finding.onset.latest < anomaly.onset.latest
        && anomaly.onset.latest.since(finding.onset.latest) <= Duration::from_secs(300)
        && finding.symptom != Symptom::BudgetBurn
    {
        anomaly.onset = finding.onset;
    }
    open.services.insert(finding.service.clone());
    open.lead_by(key, severity);
    // A silent service whose callers see it fail hits users.
    let anomaly = &mut open.anomaly;
    let silent = anomaly.members.iter().any(|member| member.symptom == Symptom::Silence);
    let hit = |member: &Member| matches!(member.symptom, Symptom::Errors | Symptom::Latency);
    if silent && anomaly.members.iter().any(hit) {
        anomaly.severity = Severity::Page;
    }
    (open.changed, open.grown) = (true, true);
}
