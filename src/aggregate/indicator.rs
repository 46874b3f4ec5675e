//! What service level indicators need counted exactly, per second of event time.

use crate::model::{SeriesKey, ServiceKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Number of an indicator, given by whoever defined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndicatorId(pub u32);

/// Which spans count, and which of them are good. An SLO's counts are never read from a sketch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indicator {
    pub id: IndicatorId,
    pub service: ServiceKey,
    /// Only spans of this name; all of the service's requests if `None`.
    pub operation: Option<Arc<str>>,
    /// Good = not an error, and, where this is set, not slower.
    pub threshold_ns: Option<u64>,
    /// Whether errors count as bad (false: latency alone is judged).
    pub errors_are_bad: bool,
}

impl Indicator {
    /// Whether spans of this series count.
    #[must_use]
    pub fn counts(&self, key: &SeriesKey) -> bool {
        key.entry
            && key.service == self.service
            && self.operation.as_ref().is_none_or(|name| *name == key.operation)
    }

    #[must_use]
    pub fn is_good(&self, error: bool, duration_ns: u64) -> bool {
        !(error && self.errors_are_bad) && self.threshold_ns.is_none_or(|limit| duration_ns <= limit)
    }
}

/// Good and total of one indicator in one second of event time. Exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondCount {
    /// Whole second of event time since the epoch.
    pub second: u64,
    pub good: u64,
    pub total: u64,
}
