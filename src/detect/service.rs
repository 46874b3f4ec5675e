//! What is known of one service as a whole.

use super::errors::Errors;
use super::instances::Instances;
use super::lateness::Lateness;
use super::metered::RequestsMetered;
use super::silence::Silence;
use super::together::Together;
use super::traffic::Traffic;
use super::usual::Usual;
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A pause that is shorter is none.
const PAUSES: Duration = Duration::from_secs(5);
/// A service with so many requests a window ends one at least so often.
const BUSY: f64 = 20.0;
const SERVES_WITHIN: Duration = Duration::from_secs(8);
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
    pub lateness: Lateness,
    /// SERVER spans a request that the service's metrics count; requests a span.
    pub metered: Usual,
    pub weight: Usual,
    /// It paused with most others.
    pub paused: bool,
    /// Its operations have new names.
    pub renamed: bool,
    /// Between these moments what is missing may be missing from the data.
    unsound: Option<(Timestamp, Timestamp)>,
    /// Latest end of a request.
    pub last_end: Timestamp,
    #[serde(skip)]
    pub in_window: InWindow,
    #[serde(skip)]
    pub requests_metered: RequestsMetered,
}

/// What a service had in the window that is being judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InWindow {
    pub requests: u64,
    /// What those stand for.
    pub weight: f64,
    /// Of operations that are new.
    pub new: u64,
    /// SERVER spans, and requests that its metrics count.
    pub served: u64,
    pub metered: u64,
    /// Metrics and spans of this window differ, and the next one has to say whether they go on to.
    pub in_doubt: bool,
    /// Share of its steady instances that reported.
    pub reporting: f64,
    /// Anything at all came.
    pub heard: bool,
}

/// What arrived with one cut.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arriving {
    pub touched: bool,
    pub requests: u64,
    pub errors: u64,
    pub series: u32,
    pub last: Timestamp,
    /// Items of any kind, and those that came after their window was sealed.
    pub items: u64,
    pub late: u64,
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
            lateness: Lateness::default(),
            metered: Usual::default(),
            weight: Usual::default(),
            paused: false,
            renamed: false,
            unsound: None,
            last_end: Timestamp::ZERO,
            in_window: InWindow::default(),
            requests_metered: RequestsMetered::default(),
        }
    }

    /// What is missing between these moments may be missing from the data.
    pub fn mark_unsound(&mut self, from: Timestamp, until: Timestamp) {
        self.unsound = Some(match self.unsound {
            Some((first, end)) if from <= end => (first.min(from), end.max(until)),
            _ => (from, until),
        });
    }

    /// Whether the data between two moments can be trusted about what is missing.
    #[must_use]
    pub fn is_sound(&self, from: Timestamp, until: Timestamp) -> bool {
        self.unsound.is_none_or(|(first, end)| until <= first || from > end)
    }

    /// Whether it, or a part of it, may be unable to speak for itself: callers then speak for it.
    #[must_use]
    pub fn is_unheard(&self, now: Timestamp) -> bool {
        let serves_nothing = self.traffic.usual() >= BUSY && now.since(self.last_end) > SERVES_WITHIN;
        self.silence.silent
            || self.instances.half_blind
            || self.silence.is_pausing(now, PAUSES)
            || self.instances.is_one_quiet(now)
            || serves_nothing
    }

    /// Whether a run of a job that was expected by then may have happened unseen.
    #[must_use]
    pub fn is_blind(&self, since: Timestamp, through: Timestamp) -> bool {
        let beats = self.metrics > 0 && self.silence.is_learned();
        self.paused
            || self.lateness.active
            || !self.is_sound(since, through)
            || (beats && self.silence.last < through.saturating_sub((2 * self.silence.pause()).max(PAUSES)))
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
