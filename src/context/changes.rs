//! Changes told and inferred.

use super::change::{Change, ChangeId, ChangeKind};
use crate::model::{ServiceKey, Timestamp, name_of};
use crate::window::{Tick, Topology};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Changes kept; the oldest go first.
const CHANGES_AT_MOST: usize = 2_000;
/// Versions remembered of one service.
const VERSIONS_AT_MOST: usize = 256;
/// Services (and attributes that name a version) watched for deploys.
const WATCHED_AT_MOST: usize = 20_000;
/// How long before an onset a change is still a suspect.
pub const SUSPECT_FOR: Duration = Duration::from_secs(600);
/// A change may be noticed a little after what it caused.
const NOTICED_LATE: Duration = Duration::from_secs(30);
/// How many edges away a changed service may be.
const DISTANCE: usize = 2;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of the changes cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// The log of changes.
#[derive(Debug, Default)]
pub struct Changes {
    state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// By time.
    changes: Vec<Change>,
    /// Versions seen by service and attribute, and the latest of them.
    versions: BTreeMap<(ServiceKey, Arc<str>), (BTreeSet<Arc<str>>, Arc<str>)>,
}

/// Whether an attribute of the resource names what was deployed.
fn names_a_version(attribute: &str) -> bool {
    matches!(
        attribute,
        "service.version" | "container.image.tag" | "container.image.tags" | "k8s.deployment.revision"
    )
}

impl Changes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

    /// A change that somebody told. One with a known id is ignored.
    pub fn tell(&mut self, change: Change) {
        if self.state.changes.iter().any(|known| known.id == change.id) {
            return;
        }
        let at = self.state.changes.partition_point(|known| known.at <= change.at);
        self.state.changes.insert(at, change);
        if self.state.changes.len() > CHANGES_AT_MOST {
            self.state.changes.remove(0);
        }
    }

    /// Looks for versions never seen before of services that had another. Returns what was inferred.
    pub fn step(&mut self, tick: &Tick) -> Vec<Change> {
        let mut inferred = Vec::new();
        for (key, facet) in &tick.facets {
            if facet.items == 0 || !names_a_version(&key.name) {
                continue;
            }
            let slot = (key.service.clone(), key.name.clone());
            let Some((known, latest)) = self.state.versions.get_mut(&slot) else {
                if self.state.versions.len() < WATCHED_AT_MOST {
                    let first = (BTreeSet::from([key.value.clone()]), key.value.clone());
                    self.state.versions.insert(slot, first);
                }
                continue;
            };
            if known.contains(&key.value) {
                continue;
            }
            if known.len() >= VERSIONS_AT_MOST {
                known.pop_first();
            }
            known.insert(key.value.clone());
            let before = std::mem::replace(latest, key.value.clone());
            let id = name_of([&*key.service.to_string(), &key.name, &key.value]);
            let change = Change {
                id: ChangeId(id),
                at: tick.cut.arrived,
                service: Some(key.service.clone()),
                kind: ChangeKind::Deploy,
                title: format!("{} {before} → {}", key.service.name, key.value),
                inferred: true,
                version: Some(key.value.to_string()),
            };
            self.tell(change.clone());
            inferred.push(change);
        }
        inferred
    }

    /// All changes kept, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Change] {
        &self.state.changes
    }

    /// Changes shortly before an onset that may concern one of the services, latest first.
    #[must_use]
    pub fn suspects<'a>(
        &self,
        onset: Timestamp,
        services: impl IntoIterator<Item = &'a ServiceKey> + Clone,
        topology: &Topology,
    ) -> Vec<ChangeId> {
        let (from, to) = (onset.saturating_sub(SUSPECT_FOR), onset.saturating_add(NOTICED_LATE));
        let in_time = self.state.changes.iter().rev().filter(|change| change.at >= from && change.at <= to);
        let concerned = in_time.filter(|change| {
            change.service.as_ref().is_none_or(|changed| {
                services
                    .clone()
                    .into_iter()
                    .any(|service| topology.distance(service, changed, DISTANCE).is_some())
            })
        });
        concerned.map(|change| change.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Facet, FacetKey};
    use crate::journal::Cut;

    fn tick(second: u64, version: &str) -> Tick {
        let key = FacetKey {
            service: ServiceKey::named("cart"),
            name: "service.version".into(),
            value: version.into(),
        };
        Tick {
            cut: Cut { number: second, arrived: Timestamp::from_secs(second), ..Cut::default() },
            facets: vec![(Arc::new(key), Facet { items: 1, ..Facet::default() })],
            ..Tick::default()
        }
    }

    #[test]
    fn a_new_version_is_a_deploy_and_a_known_one_is_not() {
        let mut changes = Changes::new();
        assert!(changes.step(&tick(100, "1.0")).is_empty());
        let inferred = changes.step(&tick(200, "1.1"));
        assert_eq!(inferred.len(), 1);
        assert_eq!(inferred[0].title, "cart 1.0 → 1.1");
        assert!(changes.step(&tick(201, "1.0")).is_empty(), "both run side by side while it rolls out");
        let (cart, other) = (ServiceKey::named("cart"), ServiceKey::named("other"));
        let topology = Topology::default();
        let suspects = |onset, service| changes.suspects(Timestamp::from_secs(onset), [service], &topology);
        assert_eq!(suspects(260, &cart), [inferred[0].id.clone()]);
        assert!(suspects(260, &other).is_empty());
        assert!(suspects(100, &cart).is_empty());
        assert!(suspects(900, &cart).is_empty());
        let mut again = Changes::new();
        again.restore(&changes.state()).unwrap();
        assert_eq!(again.all(), changes.all());
        assert!(again.step(&tick(300, "1.1")).is_empty());
    }
}
