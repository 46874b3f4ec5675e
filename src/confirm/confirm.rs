//! From findings to anomalies: evidence against the budget, one fault one anomaly, recovery.

use super::anomaly::{Anomaly, AnomalyId, AnomalyState, Fingerprint, Member, Severity};
use super::config::Config;
use super::exempt::Exemptions;
use super::graph::Graph;
use super::title::title;
use crate::context::Changes;
use crate::detect::{Census, Finding, Gravity, Phase, SUSPICION, Symptom};
use crate::model::{ServiceKey, Timestamp, name_of};
use crate::window::Topology;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Ticks in a week: one a second.
const TICKS_PER_WEEK: f64 = 604_800.0;
/// Members kept of one anomaly.
const MEMBERS_AT_MOST: usize = 200;
/// Findings under suspicion kept at once.
const WATCHED_AT_MOST: usize = 10_000;
/// A suspicion that is not renewed for so long is forgotten.
const WATCHED_FOR: Duration = Duration::from_secs(600);
/// Numbers of an open anomaly are told anew at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// A page does not join a ticket that was told longer ago: its words would be about something else.
const RAISED_WITHIN: Duration = Duration::from_secs(60);
/// Onsets of absences that lie so close are one, whatever the graph knows.
const ABSENT_TOGETHER: Duration = Duration::from_secs(60);

/// Ended anomalies are remembered as long as the longest window of a burn rate.
const REMEMBERED: Duration = Duration::from_secs(3 * 86_400);
const ENDED_AT_MOST: usize = 1_000;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of confirmation cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// What a member is recognised by.
type MemberKey = (ServiceKey, String, Vec<(String, String)>, Symptom);

fn key_of(finding: &Finding) -> MemberKey {
    (finding.service.clone(), finding.signal.clone(), finding.attributes.clone(), finding.symptom)
}

fn is_key_of(member: &Member, key: &MemberKey) -> bool {
    member.symptom == key.3 && member.signal == key.1 && member.service == key.0 && member.attributes == key.2
}

/// Decides what is told.
#[derive(Debug)]
pub struct Confirm {
    config: Config,
    exemptions: Exemptions,
    state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Suspicions that belong to no anomaly yet.
    watched: BTreeMap<MemberKey, Finding>,
    /// Open ones, by time of opening.
    anomalies: Vec<Open>,
    /// Recovered ones, whose tail effects open nothing for a while.
    ended: Vec<Ended>,
    /// When a page drew on the budget, and how much of a false page it may have been.
    spent: Vec<(Timestamp, f64)>,
    merged_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    anomaly: Anomaly,
    /// The finding that gave it its service and symptom: what the title speaks of.
    lead: MemberKey,
    told_at: Timestamp,
    changed: bool,
    refreshed: bool,
}

/// What is remembered of an anomaly that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ended {
    at: Timestamp,
    services: BTreeSet<ServiceKey>,
}

impl Open {
    fn is_open(&self) -> bool {
        matches!(self.anomaly.state, AnomalyState::Gathering | AnomalyState::Confirmed)
    }
}

fn is_absence(symptom: Symptom) -> bool {
    matches!(symptom, Symptom::TrafficDrop | Symptom::Silence)
}

/// How long a member may go without news before it counts as over.
fn patience(symptom: Symptom) -> Duration {
    match symptom {
        Symptom::Errors | Symptom::Latency | Symptom::TrafficDrop => Duration::from_secs(600),
        Symptom::MissedJob => Duration::from_secs(7 * 86_400),
        _ => Duration::from_secs(3_600),
    }
}

impl Confirm {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { exemptions: Exemptions::new(&config), config, state: State::default() }
    }

    /// The whole state, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.state).unwrap_or_default()
    }

    /// Takes back what [`Self::state`] gave.
    ///
    /// # Errors
    /// The bytes are not such a state; nothing is changed then.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.state = postcard::from_bytes(bytes)?;
        Ok(())
    }

    /// Anomalies that are open, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Anomaly> {
        self.state.anomalies.iter().filter(|open| open.is_open()).map(|open| &open.anomaly)
    }

    /// How many false pages are accepted in a week, and how many of this week's are expected to have
    /// been false.
    #[must_use]
    pub fn budget(&self, at: Timestamp) -> (f64, f64) {
        let since = at.saturating_sub(Duration::from_secs(604_800));
        let spent = self.state.spent.iter().filter(|(when, _)| *when > since).map(|(_, share)| share).sum();
        (self.config.false_pages_per_week, spent)
    }

    /// The run length that the budget buys over all services together.
    fn threshold(&self, census: &Census) -> f64 {
        census.services.max(1) as f64 * TICKS_PER_WEEK / self.config.false_pages_per_week
    }

    /// Findings of a cut in, anomalies that changed out.
    pub fn step(
        &mut self,
        at: Timestamp,
        findings: Vec<Finding>,
        census: &Census,
        topology: &Topology,
        changes: &Changes,
    ) -> Vec<Anomaly> {
        if findings.is_empty() && self.state.anomalies.is_empty() && self.state.watched.is_empty() {
            return Vec::new();
        }
        for finding in findings {
            self.take(finding, census);
        }
        self.state.watched.retain(|_, finding| at.since(finding.at) < WATCHED_FOR);
        if !self.state.watched.is_empty() {
            let graph = Graph::new(topology);
            self.join(&graph, census);
            self.open_new(at, &graph, census);
        }
        self.merge(at, topology);
        self.settle(at, topology, changes)
    }

    /// Brings a finding to the anomaly that it is a member of, or watches it.
    fn take(&mut self, finding: Finding, census: &Census) {
        let key = key_of(&finding);
        let fires = self.fires_alone(&finding, census);
        let mut taken = false;
        for open in self.state.anomalies.iter_mut().filter(|open| open.is_open()) {
            let Some(member) = open.anomaly.members.iter_mut().find(|member| is_key_of(member, &key)) else {
                continue;
            };
            taken = true;
            if finding.phase == Phase::Cleared {
                open.changed |= !std::mem::replace(&mut member.recovered, true);
                continue;
            }
            if finding.log_evidence <= 0.0 {
                continue;
            }
            open.changed |= std::mem::replace(&mut member.recovered, false);
            member.observed = finite(finding.observed);
            member.last_seen = finding.at;
            member.tail = member.tail.min(finding.tail);
            member.log_evidence = member.log_evidence.max(finding.log_evidence);
            open.refreshed = true;
            if fires && finding.gravity == Gravity::Page && open.anomaly.severity < Severity::Page {
                open.anomaly.severity = Severity::Page;
                open.changed = true;
            }
        }
        if taken {
            return;
        }
        if finding.phase == Phase::Cleared || finding.log_evidence <= 0.0 {
            self.state.watched.remove(&key);
        } else if self.state.watched.len() < WATCHED_AT_MOST || self.state.watched.contains_key(&key) {
            self.state.watched.insert(key, finding);
        }
    }

    /// Whether one finding is enough for what it says, on its own.
    fn fires_alone(&self, finding: &Finding, census: &Census) -> bool {
        let tests = census.tests.get(&finding.service).copied().unwrap_or(1).max(1) as f64;
        finding.decided || f64::from(finding.log_evidence) - tests.ln() >= self.threshold(census).ln()
    }

    fn severity_of(&self, finding: &Finding, census: &Census) -> Severity {
        match finding.gravity {
            Gravity::Page if self.fires_alone(finding, census) => Severity::Page,
            Gravity::Page | Gravity::Ticket => Severity::Ticket,
            Gravity::Support | Gravity::Info => Severity::Info,
        }
    }

    /// Whether a finding belongs to an open anomaly.
    fn belongs(&self, finding: &Finding, open: &Open, graph: &Graph, census: &Census) -> bool {
        let anomaly = &open.anomaly;
        let pages = self.severity_of(finding, census) == Severity::Page;
        if pages && anomaly.severity < Severity::Page && finding.at.since(anomaly.opened_at) > RAISED_WITHIN {
            return false;
        }
        if anomaly.members.iter().any(|member| member.service == finding.service) {
            return true;
        }
        let apart = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a));
        let onsets_apart = apart(finding.onset.latest, anomaly.onset.latest);
        if is_absence(finding.symptom)
            && is_absence(anomaly.symptom)
            && finding.service.environment == anomaly.service.environment
            && onsets_apart <= ABSENT_TOGETHER
        {
            return true;
        }
        let together = onsets_apart <= self.config.together.0;
        let distance = usize::try_from(self.config.distance).unwrap_or(2);
        let mut services: Vec<&ServiceKey> = anomaly.members.iter().map(|member| &member.service).collect();
        services.sort();
        services.dedup();
        together && services.iter().any(|service| graph.near(&finding.service, service, distance))
    }

    /// Lets suspicions join open anomalies.
    fn join(&mut self, graph: &Graph, census: &Census) {
        let keys: Vec<MemberKey> = self.state.watched.keys().cloned().collect();
        for key in keys {
            let Some(finding) = self.state.watched.get(&key) else { continue };
            if !finding.decided && f64::from(finding.log_evidence) < SUSPICION {
                continue;
            }
            let home = self
                .state
                .anomalies
                .iter()
                .position(|open| open.is_open() && self.belongs(finding, open, graph, census));
            if home.is_none() && self.is_echo(finding) {
                self.state.watched.remove(&key);
                continue;
            }
            let (Some(home), Some(finding)) = (home, self.state.watched.get(&key).cloned()) else { continue };
            let severity = self.severity_of(&finding, census);
            let Some(open) = self.state.anomalies.get_mut(home) else { continue };
            self.state.watched.remove(&key);
            admit(open, &finding, severity);
        }
    }

    /// Whether a burn finding is the echo of an anomaly that has recovered: its long window still
    /// holds what that anomaly burned.
    fn is_echo(&self, finding: &Finding) -> bool {
        let window = finding.attributes.iter().find(|(name, _)| name == "window_s");
        let window =
            window.and_then(|(_, seconds)| seconds.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        finding.symptom == Symptom::BudgetBurn
            && self.state.ended.iter().any(|ended| {
                finding.at.since(ended.at) <= window && ended.services.contains(&finding.service)
            })
    }

    /// Opens an anomaly for each service whose evidence reaches what the budget asks.
    fn open_new(&mut self, at: Timestamp, graph: &Graph, census: &Census) {
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
            let share = (self.threshold(census).ln() - f64::from(opener.log_evidence)).exp().min(1.0);
            if severity == Severity::Page && !opener.decided {
                self.state.spent.retain(|(when, _)| at.since(*when) < Duration::from_secs(604_800));
                self.state.spent.push((at, share));
            }
            let symptom = root.symptom.as_str();
            let fingerprint =
                name_of([&root.service.environment, &root.service.namespace, &root.service.name, symptom]);
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
                    title: String::new(),
                    revision: 0,
                },
                lead: key_of(&root),
                told_at: Timestamp::ZERO,
                changed: true,
                refreshed: false,
            };
            for member in [&opener, &root] {
                self.state.watched.remove(&key_of(member));
                admit(&mut open, member, severity);
            }
            self.state.anomalies.push(open);
            self.join(graph, census);
        }
    }

    /// The strongest finding of a service that may open an anomaly now.
    fn opener(&self, at: Timestamp, census: &Census) -> Option<Finding> {
        let threshold = self.threshold(census).ln();
        let mut sums: BTreeMap<&ServiceKey, f64> = BTreeMap::new();
        for finding in self.state.watched.values().filter(|f| f.gravity == Gravity::Page && !f.decided) {
            *sums.entry(&finding.service).or_default() += f64::from(finding.log_evidence).exp();
        }
        let cool_down = self.config.cool_down.0;
        let cooling: BTreeSet<&ServiceKey> = self
            .state
            .ended
            .iter()
            .filter(|ended| at.since(ended.at) < cool_down)
            .flat_map(|ended| &ended.services)
            .collect();
        let fires = |finding: &&Finding| {
            if cooling.contains(&finding.service) || finding.gravity == Gravity::Support {
                return false;
            }
            if finding.decided {
                return true;
            }
            let tests = census.tests.get(&finding.service).copied().unwrap_or(1).max(1) as f64;
            let mean = sums.get(&finding.service).copied().unwrap_or_default() / tests;
            finding.gravity == Gravity::Page && mean.ln() >= threshold
        };
        let strongest = |a: &&Finding, b: &&Finding| {
            (a.gravity, a.log_evidence)
                .partial_cmp(&(b.gravity, b.log_evidence))
                .unwrap_or(std::cmp::Ordering::Equal)
        };
        self.state.watched.values().filter(fires).max_by(strongest).cloned()
    }

    /// Where the fault is: among the services under suspicion around the opener, the deepest that is
    /// called; of absent traffic, the one where it should have entered.
    fn root(&self, opener: &Finding, graph: &Graph, census: &Census) -> Finding {
        if !matches!(opener.symptom, Symptom::Errors | Symptom::Latency | Symptom::TrafficDrop) {
            return opener.clone();
        }
        let alike = |finding: &&Finding| {
            finding.gravity > Gravity::Support
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
            (depth, self.fires_alone(finding, census))
        };
        let strongest = around
            .iter()
            .max_by(|a, b| rank(a).cmp(&rank(b)).then(a.log_evidence.total_cmp(&b.log_evidence)));
        strongest.map_or_else(|| opener.clone(), |finding| (*finding).clone())
    }

    /// Two anomalies that turn out to be one: the younger ends as merged.
    fn merge(&mut self, at: Timestamp, topology: &Topology) {
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
            let elder = self.state.anomalies.iter().take(younger).position(|old| {
                let (a, b) = (old.anomaly.onset.latest, young.anomaly.onset.latest);
                let alike = old.anomaly.severity >= young.anomaly.severity
                    || young.anomaly.opened_at.since(old.anomaly.opened_at) <= RAISED_WITHIN;
                old.is_open()
                    && alike
                    && a.since(b).max(b.since(a)) <= self.config.together.0
                    && graph.near(&old.anomaly.service, &young.anomaly.service, distance)
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
            let Some(old) = self.state.anomalies.get_mut(elder) else { continue };
            old.changed = true;
            old.anomaly.severity = old.anomaly.severity.max(severity);
            for member in members {
                let known = old.anomaly.members.iter().any(|known| {
                    is_key_of(
                        known,
                        &(
                            member.service.clone(),
                            member.signal.clone(),
                            member.attributes.clone(),
                            member.symptom,
                        ),
                    )
                });
                if !known && old.anomaly.members.len() < MEMBERS_AT_MOST {
                    old.anomaly.members.push(member);
                }
            }
        }
    }

    /// Confirms what has gathered, ends what has recovered, and gives out what changed.
    fn settle(&mut self, at: Timestamp, topology: &Topology, changes: &Changes) -> Vec<Anomaly> {
        let mut told = Vec::new();
        for open in &mut self.state.anomalies {
            let anomaly = &mut open.anomaly;
            if anomaly.state == AnomalyState::Gathering && at.since(anomaly.opened_at) >= self.config.gather.0
            {
                let reason = self.exemptions.explain(at, anomaly).map(str::to_owned);
                if reason.is_none() {
                    anomaly.state = AnomalyState::Confirmed;
                    anomaly.fired_at = Some(at);
                }
                open.changed |= reason.is_none() || reason != anomaly.suppressed_by;
                anomaly.suppressed_by = reason;
            }
            for member in anomaly.members.iter_mut().filter(|member| !member.recovered) {
                if at.since(member.last_seen) > patience(member.symptom) {
                    member.recovered = true;
                    open.changed = true;
                }
            }
            if anomaly.state == AnomalyState::Confirmed && has_recovered(anomaly) {
                anomaly.state = AnomalyState::Recovered;
                anomaly.ended_at = Some(at);
                open.changed = true;
            }
            if anomaly.state == AnomalyState::Gathering
                && anomaly.suppressed_by.is_some()
                && has_recovered(anomaly)
            {
                anomaly.state = AnomalyState::Suppressed;
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

/// Every member is healthy again. Burn rates lag behind by their windows and are not waited for
/// unless nothing else speaks.
fn has_recovered(anomaly: &Anomaly) -> bool {
    let others = anomaly.members.iter().filter(|member| member.symptom != Symptom::BudgetBurn);
    if others.clone().next().is_none() {
        return anomaly.members.iter().all(|member| member.recovered);
    }
    others.clone().all(|member| member.recovered)
}

/// JSON, in which anomalies are kept and told, knows no infinity and no NaN. (A band is written with
/// its open ends, which read back as such.)
fn finite(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) }
}

/// Makes a finding a member.
fn admit(open: &mut Open, finding: &Finding, severity: Severity) {
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
        observed: finite(finding.observed),
        expected: finding.expected,
        unit: finding.unit.clone(),
        tail: finite(finding.tail),
        log_evidence: finite(f64::from(finding.log_evidence)).clamp(-1e30, 1e30) as f32,
        onset: finding.onset,
        last_seen: finding.at,
        recovered: false,
    });
    anomaly.severity = anomaly.severity.max(severity);
    // A silent service whose callers see it fail hits users.
    let silent = anomaly.members.iter().any(|member| member.symptom == Symptom::Silence);
    let hit = |member: &Member| matches!(member.symptom, Symptom::Errors | Symptom::Latency);
    if silent && anomaly.members.iter().any(hit) {
        anomaly.severity = Severity::Page;
    }
    // The fault began when the first of them did, but not long before it was opened.
    if anomaly.state == AnomalyState::Gathering
        && finding.onset.latest < anomaly.onset.latest
        && anomaly.onset.latest.since(finding.onset.latest) <= Duration::from_secs(300)
        && finding.symptom != Symptom::BudgetBurn
    {
        anomaly.onset = finding.onset;
    }
    open.changed = true;
}
