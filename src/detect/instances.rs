//! Half the instances of a service are silent: its telemetry is not to be trusted about absence.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Instances remembered of one service.
const AT_MOST: usize = 1_000;
/// How long an instance that went is expected to come back.
const EXPECTED: Duration = Duration::from_secs(600);
const SILENT_AFTER: Duration = Duration::from_secs(40);
const INSTANCES_AT_LEAST: usize = 4;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instances {
    /// First and last time each one sent something.
    seen: BTreeMap<Arc<str>, (Timestamp, Timestamp)>,
    pub half_blind: bool,
}

impl Instances {
    pub fn arrived(&mut self, now: Timestamp, instance: &Arc<str>) {
        if let Some((_, last)) = self.seen.get_mut(instance) {
            *last = now;
        } else if self.seen.len() < AT_MOST {
            self.seen.insert(instance.clone(), (now, now));
        }
    }

    /// Judges who is missing; `Some` with the numbers of silent and expected ones when that changed.
    pub fn judge(&mut self, now: Timestamp) -> Option<(usize, usize)> {
        self.seen.retain(|_, (_, last)| now.since(*last) < EXPECTED);
        // Only instances that reported for a while are missed.
        let known = self.seen.values().filter(|(first, last)| last.since(*first) > SILENT_AFTER);
        let (mut expected, mut silent, mut latest) = (0, 0, Timestamp::ZERO);
        for (_, last) in known {
            expected += 1;
            latest = latest.max(*last);
            silent += usize::from(now.since(*last) > SILENT_AFTER);
        }
        // All of them silent is silence, another finding.
        let blind =
            expected >= INSTANCES_AT_LEAST && silent * 2 >= expected && now.since(latest) <= SILENT_AFTER;
        (blind != std::mem::replace(&mut self.half_blind, blind)).then_some((silent, expected))
    }
}
