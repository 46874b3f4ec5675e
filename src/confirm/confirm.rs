//! From findings to anomalies: evidence against the budget, one fault one anomaly, recovery.

use super::anomaly::{Anomaly, Severity};
use super::config::Config;
use super::exempt::Exemptions;
use super::graph::Graph;
use super::open::{MemberKey, Open, finite, is_key_of, key_of};
use super::pace::Pace;
use super::places::Places;
use crate::aggregate::{Facet, FacetKey};
use crate::context::{Changes, ToldExemption};
use crate::detect::{Census, Finding, Gravity, Phase};
use crate::model::{ServiceKey, Timestamp};
use crate::window::Topology;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Findings under suspicion kept at once.
const WATCHED_AT_MOST: usize = 10_000;
/// A suspicion that is not renewed for so long is forgotten.
const WATCHED_FOR: Duration = Duration::from_secs(600);

/// Findings about data that hide whether a service is well: what is renamed or sampled still shows it.
const HIDES: [&str; 4] = ["telemetry", "instances", "pipeline", "lateness"];
/// What has not been seen for so long is gone.
const BLIND_FOR: Duration = Duration::from_secs(3_600);

/// Open anomalies, by services of their members.
type Homes = HashMap<ServiceKey, Vec<usize>, foldhash::fast::FixedState>;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of confirmation cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// Decides what is told.
#[derive(Debug)]
pub struct Confirm {
    pub(super) config: Config,
    pub(super) exemptions: Exemptions,
    pub(super) state: State,
    /// What came since it was last asked to which anomaly it belongs.
    pub(super) fresh: BTreeSet<MemberKey>,
    /// Edges of the call graph by which that was asked.
    pub(super) edges: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Suspicions that belong to no anomaly yet.
    pub watched: BTreeMap<MemberKey, Finding>,
    /// Open ones, by time of opening.
    pub anomalies: Vec<Open>,
    /// Recovered ones, whose tail effects open nothing for a while.
    pub ended: Vec<Ended>,
    /// When a page drew on the budget, and how much of a false page it may have been.
    pub spent: Vec<(Timestamp, f64)>,
    pub merged_at: Timestamp,
    /// Services of which something is not seen, by what hides it, and since when.
    pub blind: BTreeMap<(ServiceKey, String), Timestamp>,
    /// How high evidence rises in health.
    pub pace: Pace,
    /// Where services run, as far as exemptions speak of it.
    pub places: Places,
}

/// What is remembered of an anomaly that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub at: Timestamp,
    pub services: BTreeSet<ServiceKey>,
}

impl Confirm {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            exemptions: Exemptions::new(&config),
            config,
            state: State::default(),
            fresh: BTreeSet::new(),
            edges: 0,
        }
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
        self.state.anomalies.iter_mut().for_each(Open::restore);
        Ok(())
    }

    /// Anomalies that are open, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Anomaly> {
        self.state.anomalies.iter().filter(|open| open.is_open()).map(|open| &open.anomaly)
    }

    /// Takes over an exemption that somebody told, or ended.
    pub fn tell_exemption(&mut self, told: ToldExemption) {
        self.exemptions.tell(told);
    }

    /// Exemptions that ended by themselves since this was last asked.
    pub fn take_ended_exemptions(&mut self, at: Timestamp) -> Vec<ToldExemption> {
        self.exemptions.take_ended(at)
    }

    /// Takes note of where services run, of the facets that arrived with a cut.
    pub fn see(&mut self, at: Timestamp, facets: &[(Arc<FacetKey>, Facet)]) {
        self.state.places.note(at, facets, self.exemptions.attributes());
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
        self.state.pace.pass(at, census.services);
        findings.iter().for_each(|finding| self.state.pace.note(finding));
        if findings.is_empty() && self.state.anomalies.is_empty() && self.state.watched.is_empty() {
            return Vec::new();
        }
        let mut homes = Homes::default();
        for (at, open) in self.state.anomalies.iter().enumerate().filter(|(_, open)| open.is_open()) {
            for service in &open.services {
                homes.entry(service.clone()).or_default().push(at);
            }
        }
        for finding in findings {
            self.take(finding, &homes, census);
        }
        self.state.watched.retain(|_, finding| at.since(finding.at) < WATCHED_FOR);
        if !self.state.watched.is_empty() {
            let graph = Graph::new(topology);
            self.join(&graph, census);
            self.open_new(at, &graph, census);
        }
        self.state.blind.retain(|_, since| at.since(*since) < BLIND_FOR);
        self.merge(at, topology);
        self.settle(at, topology, changes)
    }

    /// Remembers what is not seen of a service: nobody may say then that it has recovered.
    fn note_blindness(&mut self, finding: &Finding) {
        if !finding.symptom.is_blindness() || !HIDES.contains(&&*finding.signal) {
            return;
        }
        let key = (finding.service.clone(), finding.signal.clone());
        if finding.phase == Phase::Cleared {
            self.state.blind.remove(&key);
        } else if self.state.blind.len() < WATCHED_AT_MOST {
            self.state.blind.entry(key).or_insert(finding.at);
        }
    }

    /// Brings a finding to the anomaly that it is a member of, or watches it.
    fn take(&mut self, finding: Finding, homes: &Homes, census: &Census) {
        let key = key_of(&finding);
        self.note_blindness(&finding);
        let fires = self.fires_alone(&finding, census);
        let mut taken = false;
        for &at in homes.get(&finding.service).into_iter().flatten() {
            let Some(open) = self.state.anomalies.get_mut(at) else { continue };
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
            if fires && finding.gravity == Gravity::Page {
                open.lead_by(key.clone(), Severity::Page);
            }
        }
        if taken {
            return;
        }
        if finding.phase == Phase::Cleared || finding.log_evidence <= 0.0 {
            self.state.watched.remove(&key);
        } else if self.state.watched.len() < WATCHED_AT_MOST || self.state.watched.contains_key(&key) {
            self.fresh.insert(key.clone());
            self.state.watched.insert(key, finding);
        }
    }
}
