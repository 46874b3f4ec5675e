//! One fault, one anomaly: findings find each other by the call graph and by time.

use super::anomaly::{Anomaly, AnomalyId, AnomalyState, BudgetDraw, Examined, Fingerprint, Severity};
use super::confirm::Confirm;
use super::graph::{Around, Graph};
use super::open::{MEMBERS_AT_MOST, MemberKey, Open, admit, is_absence, is_key_of, key_of};
use crate::detect::{Census, Finding, Gravity, SUSPICION, Symptom};
use crate::model::{ServiceKey, Timestamp, name_of};
use crate::window::Topology;
use std::collections::BTreeSet;
use std::time::Duration;

/// A page does not join a ticket that was told longer ago: its words would be about something else.
const RAISED_WITHIN: Duration = Duration::from_secs(60);
/// Onsets of absences that lie so close are one, whatever the graph knows.
const ABSENT_TOGETHER: Duration = Duration::from_secs(60);

fn fingerprint_of(service: &ServiceKey, symptom: Symptom) -> String {
    name_of([&*service.environment, &service.namespace, &service.name, symptom.as_str()])
}

/// While nobody was told, a fault that turns out to lie deeper, in what cannot speak for itself, is named
/// after that: its callers' telemetry does not come at the same moment.
fn rename(open: &mut Open, finding: &Finding, graph: &Graph) {
    let anomaly = &mut open.anomaly;
    let below = |a: &ServiceKey, b: &ServiceKey| graph.below(a, std::iter::once(b)) > 0;
    let deeper = below(&anomaly.service, &finding.service) && !below(&finding.service, &anomaly.service);
    if finding.blames
        && deeper
        && anomaly.state == AnomalyState::Gathering
        && matches!(anomaly.symptom, Symptom::Errors | Symptom::Latency)
    {
        anomaly.service = finding.service.clone();
        anomaly.symptom = finding.symptom;
        anomaly.fingerprint = Fingerprint(fingerprint_of(&finding.service, finding.symptom));
        open.lead = key_of(finding);
        (open.changed, open.grown) = (true, true);
    }
}

impl Confirm {
    /// Whether a finding, around whose service lies this, belongs to an open anomaly.
    fn belongs(&self, finding: &Finding, pages: bool, open: &Open, around: &Around) -> bool {
        let anomaly = &open.anomaly;
        if pages && anomaly.severity < Severity::Page && finding.at.since(anomaly.opened_at) > RAISED_WITHIN {
            return false;
        }
        if open.services.contains(&finding.service) {
            return true;
        }
        let apart = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a));
        let onsets_apart = apart(finding.onset.latest, anomaly.onset.latest);
        let alike = |is: fn(Symptom) -> bool| is(finding.symptom) && is(anomaly.symptom);
        if (alike(is_absence) || alike(Symptom::is_blindness))
            && finding.service.environment == anomaly.service.environment
            && onsets_apart <= ABSENT_TOGETHER
        {
            return true;
        }
        let together = onsets_apart <= self.config.together.0;
        together && open.services.iter().any(|service| around.has(service))
    }

    /// Lets suspicions join open anomalies. Asked are those that came since, and of anomalies that have grown all.
    pub(super) fn join(&mut self, graph: &Graph, census: &Census) {
        let fresh = std::mem::take(&mut self.fresh);
        let all_anew = std::mem::replace(&mut self.edges, graph.edges()) != graph.edges();
        let mut grown = all_anew;
        for open in &mut self.state.anomalies {
            grown |= open.grown;
            open.grown |= all_anew;
        }
        if fresh.is_empty() && !grown {
            return;
        }
        let keys: Vec<MemberKey> = if grown {
            self.state.watched.keys().cloned().collect()
        } else {
            fresh.iter().cloned().collect()
        };
        let asked: Vec<bool> =
            self.state.anomalies.iter_mut().map(|open| std::mem::take(&mut open.grown)).collect();
        let distance = usize::try_from(self.config.distance).unwrap_or(2);
        let mut around: Option<(ServiceKey, Around)> = None;
        for key in keys {
            let Some(finding) = self.state.watched.get(&key) else { continue };
            if !finding.decided && f64::from(finding.log_evidence) < SUSPICION {
                continue;
            }
            if around.as_ref().is_none_or(|(service, _)| *service != finding.service) {
                around = Some((finding.service.clone(), graph.around(&finding.service, distance)));
            }
            let Some((_, around)) = &around else { continue };
            let is_fresh = fresh.contains(&key);
            let pages = self.severity_of(finding, census) == Severity::Page;
            let home = self.state.anomalies.iter().zip(&asked).position(|(open, asked)| {
                let ask = is_fresh || *asked || open.grown;
                ask && open.is_open() && self.belongs(finding, pages, open, around)
            });
            if home.is_none() && self.is_echo(finding) {
                self.state.watched.remove(&key);
                continue;
            }
            let (Some(home), Some(finding)) = (home, self.state.watched.get(&key).cloned()) else { continue };
            let severity = self.severity_of(&finding, census);
            let Some(open) = self.state.anomalies.get_mut(home) else { continue };
            self.state.watched.remove(&key);
            admit(open, &finding, severity);
            rename(open, &finding, graph);
        }
    }

    /// Whether a burn finding is the echo of an anomaly that has recovered: it began before the end of that,
    /// and its windows still hold what that anomaly burned.
    fn is_echo(&self, finding: &Finding) -> bool {
        finding.symptom == Symptom::BudgetBurn
            && self
                .state
                .ended
                .iter()
                .any(|ended| finding.onset.latest <= ended.at && ended.services.contains(&finding.service))
    }

    /// Opens an anomaly for each service whose evidence reaches what the budget asks.
    pub(super) fn open_new(&mut self, at: Timestamp, graph: &Graph, census: &Census) {
        loop {
            let Some(opener) = self.opener(at, census) else { return };
            let open_ones = self.state.anomalies.iter().filter(|open| open.is_open()).count() as u64;
            if open_ones >= self.config.open {
                // The storm: the rest joins the youngest.
                let severity = self.severity_of(&opener, census);
                self.state.watched.remove(&key_of(&opener));
                if let Some(open) = self.state.anomalies.iter_mut().rev().find(|open| open.is_open()) {
                    admit(open, &opener, severity);
                }
                continue;
            }
            let root = self.root(&opener, graph, census);
            let severity = self.severity_of(&opener, census);
            let budget_draw = (severity == Severity::Page && !opener.decided).then(|| {
                let share = (-self.above(&opener, census)).exp().min(1.0);
                self.state.spent.retain(|(when, _)| at.since(*when) < Duration::from_secs(604_800));
                self.state.spent.push((at, share));
                let (per_week, in_week) = self.budget(at);
                BudgetDraw { share, in_week, per_week }
            });
            let fingerprint = fingerprint_of(&root.service, root.symptom);
            let id = name_of([&fingerprint, &at.secs().to_string()]);
            let mut open = Open {
                anomaly: Anomaly {
                    id: AnomalyId(id),
                    fingerprint: Fingerprint(fingerprint),
                    service: root.service.clone(),
                    symptom: root.symptom,
                    severity,
                    state: AnomalyState::Gathering,
                    opened_at: at,
                    fired_at: None,
                    ended_at: None,
                    onset: opener.onset,
                    members: Vec::new(),
                    p_value: 1.0,
                    suspects: Vec::new(),
                    merged_into: None,
                    suppressed_by: None,
                    budget_draw,
                    examined: Examined::default(),
                    title: String::new(),
                    revision: 0,
                },
                lead: key_of(&root),
                told_at: Timestamp::ZERO,
                exempt: None,
                changed: true,
                refreshed: false,
                services: BTreeSet::new(),
                grown: true,
            };
            for member in [&opener, &root] {
                self.state.watched.remove(&key_of(member));
                admit(&mut open, member, severity);
            }
            self.state.anomalies.push(open);
            self.join(graph, census);
        }
    }

    /// Where the fault is: among the services under suspicion around the opener, the deepest that is
    /// called; of absent traffic, the one where it should have entered.
    fn root(&self, opener: &Finding, graph: &Graph, census: &Census) -> Finding {
        if !matches!(opener.symptom, Symptom::Errors | Symptom::Latency | Symptom::TrafficDrop) {
            return opener.clone();
        }
        let alike = |finding: &&Finding| {
            (finding.gravity > Gravity::Support || finding.blames)
                && f64::from(finding.log_evidence) >= SUSPICION
                && is_absence(finding.symptom) == is_absence(opener.symptom)
                && matches!(finding.symptom, Symptom::Errors | Symptom::Latency | Symptom::TrafficDrop)
                && graph.near(&opener.service, &finding.service, 4)
        };
        let around: Vec<&Finding> = self.state.watched.values().filter(alike).collect();
        let services: BTreeSet<&ServiceKey> = around.iter().map(|finding| &finding.service).collect();
        let rank = |finding: &&&Finding| {
            let below = graph.below(&finding.service, services.iter().copied()) as i64;
            let depth = if is_absence(opener.symptom) { below } else { -below };
            // What a service says of itself tells more than what its callers do.
            (depth, !finding.blames, self.fires_alone(finding, census))
        };
        let strongest = around
            .iter()
            .max_by(|a, b| rank(a).cmp(&rank(b)).then(a.log_evidence.total_cmp(&b.log_evidence)));
        strongest.map_or_else(|| opener.clone(), |finding| (*finding).clone())
    }

    /// Two anomalies that turn out to be one: the younger ends as merged.
    pub(super) fn merge(&mut self, at: Timestamp, topology: &Topology) {
        if self.state.anomalies.iter().filter(|open| open.is_open()).count() < 2
            || at.since(self.state.merged_at) < Duration::from_secs(5)
        {
            return;
        }
        self.state.merged_at = at;
        let graph = Graph::new(topology);
        let distance = usize::try_from(self.config.distance).unwrap_or(2);
        for younger in 1..self.state.anomalies.len() {
            let Some(young) = self.state.anomalies.get(younger).filter(|open| open.is_open()) else {
                continue;
            };
            let around = graph.around(&young.anomaly.service, distance);
            let elder = self.state.anomalies.iter().take(younger).position(|old| {
                let (a, b) = (old.anomaly.onset.latest, young.anomaly.onset.latest);
                let alike = old.anomaly.severity >= young.anomaly.severity
                    || young.anomaly.opened_at.since(old.anomaly.opened_at) <= RAISED_WITHIN;
                old.is_open()
                    && alike
                    && a.since(b).max(b.since(a)) <= self.config.together.0
                    && (old.anomaly.service == young.anomaly.service || around.has(&old.anomaly.service))
            });
            let Some(elder) = elder else { continue };
            let Some(into) = self.state.anomalies.get(elder).map(|open| open.anomaly.id.clone()) else {
                continue;
            };
            let Some(young) = self.state.anomalies.get_mut(younger) else { continue };
            young.anomaly.state = AnomalyState::Merged;
            young.anomaly.ended_at = Some(at);
            young.anomaly.merged_into = Some(into);
            young.changed = true;
            let (members, severity) = (young.anomaly.members.clone(), young.anomaly.severity);
            let lead = young.lead.clone();
            let Some(old) = self.state.anomalies.get_mut(elder) else { continue };
            (old.changed, old.grown) = (true, true);
            for member in members {
                let known = old.anomaly.members.iter().any(|known| {
                    is_key_of(
                        known,
                        &(
                            member.service.clone(),
                            member.signal.clone(),
                            member.attributes.clone(),
                            member.symptom,
                            member.series,
                        ),
                    )
                });
                if !known && old.anomaly.members.len() < MEMBERS_AT_MOST {
                    old.services.insert(member.service.clone());
                    old.anomaly.members.push(member);
                }
            }
            old.lead_by(lead, severity);
        }
    }
}
