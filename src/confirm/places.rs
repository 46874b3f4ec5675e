//! Which values the attributes of a service's resources have, of those that exemptions speak of.

use crate::aggregate::{Facet, FacetKey};
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A value that was not seen for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(600);
/// How often, at most, room is made.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Attributes that are followed, and values of all of them over all services.
const NAMES: usize = 64;
const VALUES: usize = 20_000;

/// Values of attributes, and when each was seen last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Places {
    seen: BTreeMap<ServiceKey, BTreeMap<Arc<str>, BTreeMap<Arc<str>, Timestamp>>>,
    values: usize,
    /// When what is gone was looked for last, and when a value was last left out for want of room.
    looked: Timestamp,
    left_out: Timestamp,
}

impl Places {
    /// Takes note of what arrived with a cut. `wanted`: attributes that somebody asks for.
    pub fn note(&mut self, at: Timestamp, facets: &[(Arc<FacetKey>, Facet)], wanted: &BTreeSet<String>) {
        if wanted.is_empty() {
            *self = Self::default();
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
            if self.values >= VALUES && at.since(self.looked) >= LOOK_EVERY {
                self.looked = at;
                self.forget(at);
            }
            if self.values >= VALUES {
                self.left_out = at;
            } else {
                let values = self.seen.entry(key.service.clone()).or_default();
                values.entry(key.name.clone()).or_default().insert(key.value.clone(), at);
                self.values += 1;
            }
        }
    }

    fn forget(&mut self, at: Timestamp) {
        let mut left = 0;
        self.seen.retain(|_, of| {
            of.retain(|_, values| {
                values.retain(|_, last| at.since(*last) < GONE_AFTER);
                left += values.len();
                !values.is_empty()
            });
            !of.is_empty()
        });
        self.values = left;
    }

    /// The attributes in which all of a service agrees that has them. None while values are left out: what is not
    /// known to be in one place is covered by nothing.
    pub fn of(&self, at: Timestamp, service: &ServiceKey) -> Vec<(String, String)> {
        if self.left_out != Timestamp::ZERO && at.since(self.left_out) < GONE_AFTER {
            return Vec::new();
        }
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

    #[test]
    fn while_there_is_no_room_for_a_value_nothing_is_known_to_be_in_one_place() {
        let (mut places, cart) = (Places::default(), ServiceKey::named("cart"));
        let wanted: BTreeSet<String> = ["k8s.cluster.name".to_owned()].into();
        let at = |second: u64| Timestamp::from_secs(1_000 + second);
        places.note(at(0), &[facet("blue")], &wanted);
        let other = ServiceKey::named("other");
        let of_other = |value: usize| {
            let (key, facet) = facet(&value.to_string());
            (Arc::new(FacetKey { service: other.clone(), ..(*key).clone() }), facet)
        };
        let many: Vec<_> = (0..VALUES).map(of_other).collect();
        places.note(at(1), &many, &wanted);
        assert_eq!(places.values, VALUES);
        assert_eq!(places.of(at(2), &cart), []);
        // When those are gone there is room, and what is where is known again.
        places.note(at(700), &[facet("blue"), facet("green")], &wanted);
        places.note(at(1_400), &[facet("green")], &wanted);
        assert_eq!(places.of(at(1_400), &cart), [("k8s.cluster.name".to_owned(), "green".to_owned())]);
        assert!(places.values < 10 && places.seen.len() == 1, "{}", places.values);
    }
}
