//! How many instances sent something, and how many would be expected to.

use crate::aggregate::{Facet, FacetKey};
use crate::model::WindowId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Windows for which an instance is expected to send again: ten minutes.
const EXPECTED_WINDOWS: u64 = 60;
/// How many instances are followed at most.
const LIMIT: usize = 100_000;
/// Facets that tell instances of a service apart.
const NAMES: [&str; 3] = ["service.instance.id", "k8s.pod.name", "host.name"];

/// The last window in which each instance sent something.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Instances(BTreeMap<Arc<FacetKey>, WindowId>);

impl Instances {
    /// Distinct instances in this window and in the last ten minutes. Call once a window, ascending.
    pub fn step(&mut self, window: WindowId, facets: &[(Arc<FacetKey>, Facet)]) -> (u32, u32) {
        for (key, facet) in facets {
            if facet.items > 0 && NAMES.contains(&&*key.name) {
                if let Some(last) = self.0.get_mut(key) {
                    *last = window;
                } else if self.0.len() < LIMIT {
                    self.0.insert(key.clone(), window);
                }
            }
        }
        if self.0.is_empty() {
            return (0, 0);
        }
        self.0.retain(|_, last| last.0.saturating_add(EXPECTED_WINDOWS) > window.0);
        (count(self.0.iter().filter(|(_, last)| **last == window)), count(self.0.iter()))
    }
}

/// Of each service, the facet with the most values; summed over services.
fn count<'a>(instances: impl Iterator<Item = (&'a Arc<FacetKey>, &'a WindowId)>) -> u32 {
    let mut sum = 0u32;
    // Keys come sorted by service, then by name.
    let mut current: Option<&FacetKey> = None;
    let (mut here, mut most) = (0u32, 0u32);
    for (key, _) in instances {
        match current {
            Some(last) if last.service == key.service && last.name == key.name => here += 1,
            Some(last) if last.service == key.service => here = 1,
            _ => {
                sum = sum.saturating_add(most);
                (here, most) = (1, 0);
            }
        }
        most = most.max(here);
        current = Some(key);
    }
    sum.saturating_add(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceKey;

    fn facet(service: &str, name: &str, value: &str) -> (Arc<FacetKey>, Facet) {
        let key = FacetKey { service: ServiceKey::named(service), name: name.into(), value: value.into() };
        (Arc::new(key), Facet { items: 1, ..Facet::default() })
    }

    #[test]
    fn an_instance_is_expected_for_ten_minutes_and_counted_once() {
        let mut instances = Instances::default();
        let all = [
            facet("a", "host.name", "h"),
            facet("a", "k8s.pod.name", "p1"),
            facet("a", "k8s.pod.name", "p2"),
            facet("a", "service.version", "1"),
            facet("b", "service.instance.id", "i"),
        ];
        assert_eq!(instances.step(WindowId(100), &all), (3, 3));
        assert_eq!(instances.step(WindowId(101), &all[1..2]), (1, 3));
        assert_eq!(instances.step(WindowId(159), &[]), (0, 3));
        assert_eq!(instances.step(WindowId(160), &[]), (0, 1));
        assert_eq!(instances.step(WindowId(161), &[]), (0, 0));
    }
}
