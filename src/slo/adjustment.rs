//! Times that somebody took out of a budget: a maintenance, a false period, a known incident.

use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};

/// A time that does not count, and who said so. Told again with the same id it replaces what was told before;
/// with `undone` it counts again, and both stay on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    pub adjustment: String,
    /// Name of the objective; all of the service if empty.
    pub slo: String,
    /// `[ENVIRONMENT/][NAMESPACE/]NAME`; every service if empty.
    pub service: String,
    pub from: Timestamp,
    pub until: Timestamp,
    pub author: String,
    pub reason: String,
    /// The incident that it belongs to.
    pub incident: Option<String>,
    pub told_at: Timestamp,
    pub undone: Option<Undone>,
}

/// Who took an adjustment back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    pub author: String,
    pub reason: String,
    pub at: Timestamp,
}

impl Adjustment {
    pub(super) fn concerns(&self, slo: &str, service: &ServiceKey) -> bool {
        self.undone.is_none()
            && self.from < self.until
            && (self.slo.is_empty() || self.slo == slo)
            && (self.service.is_empty() || service.is_meant_by(&self.service))
    }
}

/// The times of adjustments, disjoint and in order, in seconds. They are widened to whole
/// grains (the coarsest on which anything is counted), so that a time does not count from end to end.
pub(super) fn excluded<'a>(all: impl Iterator<Item = &'a Adjustment>, grain_s: u64) -> Vec<(u64, u64)> {
    let grain_s = grain_s.max(1);
    let mut times: Vec<(u64, u64)> = all
        .map(|adjustment| {
            let until = adjustment.until.secs().div_ceil(grain_s).saturating_mul(grain_s);
            (adjustment.from.secs() / grain_s * grain_s, until)
        })
        .collect();
    times.sort_unstable();
    let mut disjoint: Vec<(u64, u64)> = Vec::with_capacity(times.len());
    for (from, until) in times {
        match disjoint.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => disjoint.push((from, until)),
        }
    }
    disjoint
}
