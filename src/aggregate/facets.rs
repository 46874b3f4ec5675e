//! What services did under each value of a facet, and which services there are.

use super::config::{Bounds, FACET_VALUES, OTHER};
use super::{Facet, FacetKey};
use crate::model::{ServiceKey, WindowId};
use hashbrown::HashMap;
use std::sync::Arc;

/// Facets by number, and their counts since the last barrier.
#[derive(Debug)]
pub(super) struct Facets {
    /// Facets told apart at most, beside one of each service and name that stands for the rest.
    most: usize,
    keys: Vec<Arc<FacetKey>>,
    numbers: HashMap<Arc<FacetKey>, u32>,
    /// Values told apart, by service and name.
    values: HashMap<(ServiceKey, Arc<str>), usize>,
    counts: HashMap<(u32, WindowId), Facet>,
    /// How many of them are of windows that late items opened.
    late: usize,
}

impl Facets {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            most: bounds.facets,
            keys: Vec::new(),
            numbers: HashMap::new(),
            values: HashMap::new(),
            counts: HashMap::new(),
            late: 0,
        }
    }

    /// The number of a facet; that of `_other` when its service has too many values of it, or all have too many.
    pub fn number(&mut self, service: &ServiceKey, name: &Arc<str>, value: &str) -> u32 {
        let mut key = FacetKey { service: service.clone(), name: name.clone(), value: value.into() };
        if let Some(&known) = self.numbers.get(&key) {
            return known;
        }
        let values = self.values.entry((service.clone(), name.clone())).or_default();
        if (*values >= FACET_VALUES || self.keys.len() >= self.most) && value != OTHER {
            return self.number(service, name, OTHER);
        }
        *values += 1;
        let number = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        key.value = value.into();
        let key = Arc::new(key);
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        number
    }

    /// Counts what was done in a window, which only late items open or not.
    pub fn add(&mut self, facet: u32, window: WindowId, is_late: bool, what: &Facet) {
        let before = self.counts.len();
        self.counts.entry((facet, window)).or_default().merge(what);
        if is_late {
            self.late += self.counts.len() - before;
        }
    }

    /// Memory of what late items opened.
    #[inline]
    pub fn late_bytes(&self) -> usize {
        self.late * size_of::<((u32, WindowId), Facet)>()
    }

    /// What was counted, sorted by key and window.
    pub fn take(&mut self) -> Vec<(Arc<FacetKey>, WindowId, Facet)> {
        self.late = 0;
        let mut taken: Vec<_> = self
            .counts
            .drain()
            .filter_map(|((facet, window), what)| {
                Some((self.keys.get(facet as usize)?.clone(), window, what))
            })
            .collect();
        taken.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        taken
    }

    /// Forgets every number: to be followed by forgetting every resource.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.numbers.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Config;

    #[test]
    fn values_of_all_services_together_are_bounded() {
        let bounds = Bounds { facets: 30, ..Config::default().bounds(1) };
        let mut facets = Facets::new(bounds);
        let name: Arc<str> = "service.version".into();
        for round in 0..2 {
            for service in 0..10 {
                let service = ServiceKey::named(&format!("s{service}"));
                let numbers: Vec<u32> =
                    (0..5).map(|value| facets.number(&service, &name, &format!("v{value}"))).collect();
                let apart = numbers.iter().collect::<std::collections::BTreeSet<_>>().len();
                assert!(
                    apart == 5 || numbers.iter().all(|number| *number == numbers[0]),
                    "{round}: {numbers:?}"
                );
            }
            assert_eq!(facets.keys.len(), 30 + 4, "with one for the rest of each of four");
        }
    }
}
