//! What is known of one service as a whole.

use super::errors::Errors;
use super::instances::Instances;
use super::silence::Silence;
use super::together::Together;
use super::traffic::Traffic;
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Resources of one service whose limits are remembered.
const LIMITS_AT_MOST: usize = 256;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub key: ServiceKey,
    /// Entry series and metric series that belong to it.
    pub entries: u32,
    pub metrics: u32,
    /// Its metrics as one.
    pub together: Together,
    pub silence: Silence,
    /// Whether a deadline is set for it.
    pub silence_scheduled: bool,
    pub traffic: Traffic,
    /// Of all entry requests together.
    pub errors: Errors,
    pub first_request: Timestamp,
    pub requests: u64,
    pub instances: Instances,
    /// Limits of its resources, by the name of the resource.
    limits: BTreeMap<String, f64>,
    /// Since the last cut or window: requests, errors, earliest and latest end of one.
    #[serde(skip)]
    pub arriving: Arriving,
    #[serde(skip)]
    pub in_window: u64,
}

/// What arrived with one cut.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arriving {
    pub touched: bool,
    pub requests: u64,
    pub errors: u64,
    pub series: u32,
    pub last: Timestamp,
}

impl Service {
    #[must_use]
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            entries: 0,
            metrics: 0,
            together: Together::default(),
            silence: Silence::default(),
            silence_scheduled: false,
            requests: 0,
            traffic: Traffic::default(),
            errors: Errors::default(),
            first_request: Timestamp::ZERO,
            instances: Instances::default(),
            limits: BTreeMap::new(),
            arriving: Arriving::default(),
            in_window: 0,
        }
    }

    pub fn set_limit(&mut self, resource: &str, limit: f64) {
        if let Some(known) = self.limits.get_mut(resource) {
            *known = limit;
        } else if self.limits.len() < LIMITS_AT_MOST {
            self.limits.insert(resource.to_owned(), limit);
        }
    }

    #[must_use]
    pub fn limit(&self, resource: &str) -> Option<f64> {
        self.limits.get(resource).copied().filter(|limit| *limit > 0.0)
    }
}
