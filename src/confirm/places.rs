//! Which values the attributes of a service's resources have, of those that exemptions speak of.

use crate::aggregate::{Facet, FacetKey};
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A value that was not seen for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(600);
/// Attributes that are followed, and values of all of them over all services.
const NAMES: usize = 64;
const VALUES: usize = 20_000;

/// Values of attributes, and when each was seen last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Places {
    seen: BTreeMap<ServiceKey, BTreeMap<Arc<str>, BTreeMap<Arc<str>, Timestamp>>>,
    values: usize,
}

impl Places {
    /// Takes note of what arrived with a cut. `wanted`: attributes that somebody asks for.
    pub fn note(&mut self, at: Timestamp, facets: &[(Arc<FacetKey>, Facet)], wanted: &BTreeSet<String>) {
        if wanted.is_empty() {
            (self.seen, self.values) = (BTreeMap::new(), 0);
            return;
        }
        for (key, facet) in facets {
            let is_wanted = wanted.iter().take(NAMES).any(|name| **name == *key.name);
            if facet.items == 0 || !is_wanted {
                continue;
            }
            let known = self.seen.get_mut(&key.service).and_then(|of| of.get_mut(&key.name));
            if let Some(last) = known.and_then(|values| values.get_mut(&key.value)) {
                *last = at;
                continue;
            }
            if self.values >= VALUES {
                self.forget(at);
            }
            // Of what there is no room for nothing is known: it is covered by nothing.
            if self.values < VALUES {
                let values = self.seen.entry(key.service.clone()).or_default();
                values.entry(key.name.clone()).or_default().insert(key.value.clone(), at);
                self.values += 1;
            }
        }
    }

    fn forget(&mut self, at: Timestamp) {
        let mut left = 0;
        for of in self.seen.values_mut() {
            for values in of.values_mut() {
                values.retain(|_, last| at.since(*last) < GONE_AFTER);
                left += values.len();
            }
        }
        self.values = left;
    }

    /// The attributes in which all of a service agrees.
    pub fn of(&self, at: Timestamp, service: &ServiceKey) -> Vec<(String, String)> {
        let of = self.seen.get(service).into_iter().flatten();
        let agreed = of.filter_map(|(name, values)| {
            let mut here = values.iter().filter(|(_, last)| at.since(**last) < GONE_AFTER);
            match (here.next(), here.next()) {
                (Some((value, _)), None) => Some((name.to_string(), value.to_string())),
                _ => None,
            }
        });
        agreed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facet(value: &str) -> (Arc<FacetKey>, Facet) {
        let (service, name) = (ServiceKey::named("cart"), "k8s.cluster.name".into());
        (Arc::new(FacetKey { service, name, value: value.into() }), Facet { items: 1, ..Facet::default() })
    }

    #[test]
    fn a_service_is_where_all_of_it_is_and_has_been_lately() {
        let (mut places, cart) = (Places::default(), ServiceKey::named("cart"));
        let wanted: BTreeSet<String> = ["k8s.cluster.name".to_owned()].into();
        let at = |second: u64| Timestamp::from_secs(1_000 + second);
        let here = |value: &str| vec![("k8s.cluster.name".to_owned(), value.to_owned())];
        places.note(at(0), &[facet("blue"), facet("green")], &wanted);
        assert_eq!(places.of(at(1), &cart), [], "it is in both");
        places.note(at(500), &[facet("green")], &wanted);
        assert_eq!(places.of(at(599), &cart), []);
        assert_eq!(places.of(at(600), &cart), here("green"), "it has left the one");
        assert_eq!(places.of(at(1_100), &cart), [], "nothing is known of it any more");
        places.note(at(1_200), &[facet("green")], &BTreeSet::new());
        assert_eq!(places, Places::default(), "nobody asks");
    }
}
