//! Which key a series id stands for.

use crate::model::{SeriesId, SeriesKey, ServiceKey};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Every series seen, by id. Written by the window stage, read by everything after it; no shard
/// touches it.
#[derive(Debug, Default)]
pub struct Registry(RwLock<HashMap<SeriesId, Arc<SeriesKey>>>);

impl Registry {
    /// Adds a series; `false` if it was known.
    pub fn add(&self, id: SeriesId, key: Arc<SeriesKey>) -> bool {
        match self.0.write().entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(key);
                true
            }
        }
    }

    #[must_use]
    pub fn get(&self, id: SeriesId) -> Option<Arc<SeriesKey>> {
        self.0.read().get(&id).cloned()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The series of a service, in no order.
    #[must_use]
    pub fn of_service(&self, service: &ServiceKey) -> Vec<Arc<SeriesKey>> {
        self.0.read().values().filter(|key| key.service == *service).cloned().collect()
    }

    /// All series, in the order of their keys.
    #[must_use]
    pub fn all(&self) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let mut all: Vec<_> = self.0.read().iter().map(|(id, key)| (*id, key.clone())).collect();
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }
}
