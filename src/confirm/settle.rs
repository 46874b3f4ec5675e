//! Confirms what has gathered, ends what has recovered, and gives out what changed.

use super::anomaly::{Anomaly, AnomalyState, Member};
use super::confirm::{Confirm, Ended};
use super::open::{Open, has_recovered, is_key_of, patience};
use super::title::title;
use crate::context::Changes;
use crate::model::{ServiceKey, Timestamp};
use crate::window::Topology;
use std::collections::BTreeSet;
use std::time::Duration;

/// Numbers of an open anomaly are told anew at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Ended anomalies are remembered as long as the longest window of a burn rate.
const REMEMBERED: Duration = Duration::from_secs(3 * 86_400);
const ENDED_AT_MOST: usize = 1_000;

impl Confirm {
    /// Confirms what has gathered, ends what has recovered, and gives out what changed.
    pub(super) fn settle(&mut self, at: Timestamp, topology: &Topology, changes: &Changes) -> Vec<Anomaly> {
        let mut told = Vec::new();
        let mut ended_with: Vec<String> = Vec::new();
        let blind: BTreeSet<ServiceKey> =
            self.state.blind.keys().map(|(service, _)| service.clone()).collect();
        for open in &mut self.state.anomalies {
            let anomaly = &mut open.anomaly;
            if anomaly.state == AnomalyState::Gathering && at.since(anomaly.opened_at) >= self.config.gather.0
            {
                let reason = self.exemptions.explain(at, anomaly, changes, &self.state.places);
                open.exempt = reason.as_ref().and_then(|reason| reason.told.clone());
                let reason = reason.map(|reason| reason.because);
                if reason.is_none() {
                    anomaly.examined = self.exemptions.examine(at, anomaly, changes, &self.state.places);
                    anomaly.state = AnomalyState::Confirmed;
                    anomaly.fired_at = Some(at);
                }
                open.changed |= reason.is_none() || reason != anomaly.suppressed_by;
                anomaly.suppressed_by = reason;
            }
            // No news of a service that cannot be seen is no good news.
            let hidden = |member: &Member| !member.symptom.is_blindness() && blind.contains(&member.service);
            for member in anomaly.members.iter_mut().filter(|member| !member.recovered && !hidden(member)) {
                if at.since(member.last_seen) > patience(member.symptom) {
                    member.recovered = true;
                    open.changed = true;
                }
            }
            let recovered = has_recovered(anomaly) && !anomaly.members.iter().any(hidden);
            if anomaly.state == AnomalyState::Confirmed && recovered {
                anomaly.state = AnomalyState::Recovered;
                anomaly.ended_at = Some(at);
                open.changed = true;
            }
            if anomaly.state == AnomalyState::Gathering && anomaly.suppressed_by.is_some() && recovered {
                anomaly.state = AnomalyState::Suppressed;
                ended_with.extend(open.exempt.clone());
                anomaly.ended_at = Some(at);
                open.changed = true;
            }
            let due = open.refreshed && at.since(open.told_at) >= TOLD_EVERY;
            if open.changed || due {
                anomaly.members.sort_by(|a, b| {
                    b.log_evidence.total_cmp(&a.log_evidence).then_with(|| {
                        (&a.service, &a.signal, &a.attributes, a.symptom).cmp(&(
                            &b.service,
                            &b.signal,
                            &b.attributes,
                            b.symptom,
                        ))
                    })
                });
                anomaly.p_value = anomaly.members.iter().map(|member| member.tail).fold(1.0, f64::min);
                let services: BTreeSet<&ServiceKey> =
                    anomaly.members.iter().map(|member| &member.service).collect();
                anomaly.suspects = changes.suspects(anomaly.onset.latest, services.iter().copied(), topology);
                let lead = anomaly.members.iter().find(|member| is_key_of(member, &open.lead));
                anomaly.title = title(anomaly, lead);
                anomaly.revision += 1;
                (open.changed, open.refreshed, open.told_at) = (false, false, at);
                told.push(anomaly.clone());
            }
        }
        ended_with.iter().for_each(|id| self.exemptions.recovered(at, id));
        let ended = self.state.anomalies.iter().filter(|open| open.anomaly.state == AnomalyState::Recovered);
        let ended: Vec<Ended> = ended
            .map(|open| Ended {
                at,
                services: open.anomaly.members.iter().map(|member| member.service.clone()).collect(),
            })
            .collect();
        if !ended.is_empty() {
            self.state.ended.retain(|ended| at.since(ended.at) < REMEMBERED);
            self.state.ended.extend(ended);
            let too_many = self.state.ended.len().saturating_sub(ENDED_AT_MOST);
            self.state.ended.drain(..too_many);
        }
        self.state.anomalies.retain(Open::is_open);
        told
    }
}
