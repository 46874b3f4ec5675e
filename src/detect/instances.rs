//! Which instances of a service report: when half of them are silent, its telemetry is not to be trusted
//! about absence.

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
/// A successor may begin so long before the one that it stands for ends.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);
/// Where nothing is known of the traffic, fewer instances are not missed: they come and go.
const INSTANCES_AT_LEAST: usize = 4;
/// An instance that reports in this share of the windows is one whose absence is noticed at once.
const STEADY: f32 = 0.9;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Instance {
    /// First and last time it sent something.
    first: Timestamp,
    last: Timestamp,
    /// The longest pause, slowly forgotten, in seconds.
    pause_s: f32,
    /// Share of the windows in which it reported.
    presence: f32,
    #[serde(skip)]
    in_window: bool,
}

impl Instance {
    fn is_known(&self) -> bool {
        self.last.since(self.first) > SILENT_AFTER
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instances {
    seen: BTreeMap<Arc<str>, Instance>,
    pub half_blind: bool,
}

impl Instances {
    pub fn arrived(&mut self, now: Timestamp, name: &Arc<str>) {
        if let Some(instance) = self.seen.get_mut(name) {
            let pause_s = now.since(instance.last).as_secs_f32();
            instance.pause_s = (instance.pause_s * 0.98).max(pause_s.min(60.0));
            instance.last = now;
        } else if self.seen.len() < AT_MOST {
            let new = Instance { first: now, last: now, pause_s: 1.0, presence: 0.0, in_window: false };
            self.seen.insert(name.clone(), new);
        }
    }

    /// It sent something in the window that is being judged.
    pub fn reported(&mut self, name: &Arc<str>) {
        if let Some(instance) = self.seen.get_mut(name) {
            instance.in_window = true;
        }
    }

    /// Closes the window: which share of the instances that report in each window did so in this one. Those
    /// that began of late stand for those that went.
    pub fn share_reporting(&mut self) -> f64 {
        let (mut steady, mut present, mut fresh) = (0usize, 0usize, 0usize);
        for instance in self.seen.values_mut() {
            let reported = std::mem::take(&mut instance.in_window);
            if instance.presence > STEADY {
                steady += 1;
                present += usize::from(reported);
            } else {
                fresh += usize::from(reported);
            }
            instance.presence =
                if reported { (instance.presence + 0.25).min(1.0) } else { instance.presence * 0.99 };
        }
        if steady == 0 { 1.0 } else { ((present + fresh) as f64 / steady as f64).min(1.0) }
    }

    /// Whether an instance is quiet for longer than it ever is, and no other one took its place.
    #[must_use]
    pub fn is_one_quiet(&self, now: Timestamp) -> bool {
        let quiet = |instance: &Instance| {
            now.since(instance.last) > Duration::from_secs_f32((3.0 * instance.pause_s).clamp(5.0, 120.0))
        };
        let went = self.seen.values().filter(|instance| instance.is_known() && quiet(instance));
        let since = went.clone().map(|instance| instance.last).min().unwrap_or(now);
        let began = since.saturating_sub(REPLACED_WITHIN);
        let came = self.seen.values().filter(|instance| instance.first > began && !quiet(instance));
        went.count() > came.count()
    }

    /// Judges who is missing; `Some` with the numbers of silent and expected ones when that changed.
    /// `lost`: whether fewer requests come than usual, if that is known. If they do not, the rest took over:
    /// somebody scaled the service down.
    pub fn judge(&mut self, now: Timestamp, lost: Option<bool>) -> Option<(usize, usize)> {
        self.seen.retain(|_, instance| now.since(instance.last) < EXPECTED);
        let silent = |instance: &&Instance| now.since(instance.last) > SILENT_AFTER;
        // Only instances that reported for a while are missed.
        let went = self.seen.values().filter(|instance| instance.is_known()).filter(silent);
        let since = went.clone().map(|instance| instance.last).min().unwrap_or(now);
        let began = since.saturating_sub(REPLACED_WITHIN);
        let (gone, mut alive, mut came) = (went.count(), 0, 0);
        for instance in self.seen.values().filter(|instance| !silent(instance)) {
            alive += 1;
            came += usize::from(instance.first > began);
        }
        let missing = gone.saturating_sub(came);
        let expected = alive + missing;
        // All of them silent is silence, another finding.
        let half = missing > 0 && missing * 2 >= expected && alive > 0;
        let blind = half && (self.half_blind || lost.unwrap_or(expected >= INSTANCES_AT_LEAST));
        (blind != std::mem::replace(&mut self.half_blind, blind)).then_some((missing, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(1_000 + second)
    }

    /// Pods that report each second of these.
    fn reporting(instances: &mut Instances, pods: std::ops::Range<u32>, seconds: std::ops::Range<u64>) {
        for second in seconds {
            pods.clone().for_each(|pod| instances.arrived(at(second), &format!("pod-{pod}").into()));
        }
    }

    #[test]
    fn half_of_them_silent_is_noticed_if_their_requests_are_missing() {
        for (lost, blind) in [(Some(true), true), (Some(false), false), (None, false)] {
            let mut instances = Instances::default();
            reporting(&mut instances, 0..2, 0..100);
            assert_eq!(instances.judge(at(100), lost), None);
            assert!(!instances.is_one_quiet(at(103)));
            reporting(&mut instances, 0..1, 100..150);
            assert!(instances.is_one_quiet(at(108)));
            assert_eq!(instances.judge(at(145), lost), blind.then_some((1, 2)), "{lost:?}");
        }
        let mut many = Instances::default();
        reporting(&mut many, 0..4, 0..100);
        reporting(&mut many, 0..2, 100..150);
        assert_eq!(many.judge(at(145), None), Some((2, 4)));
    }

    #[test]
    fn a_rollout_misses_nobody() {
        let mut instances = Instances::default();
        reporting(&mut instances, 0..4, 0..100);
        reporting(&mut instances, 4..8, 98..200);
        assert_eq!(instances.judge(at(145), Some(true)), None);
        assert_eq!(instances.judge(at(200), Some(true)), None);
        assert!(!instances.is_one_quiet(at(200)));
    }

    #[test]
    fn a_window_without_some_of_them_says_so_at_once() {
        let mut instances = Instances::default();
        reporting(&mut instances, 0..4, 0..100);
        let mut window = |pods: std::ops::Range<u32>| {
            pods.for_each(|pod| instances.reported(&format!("pod-{pod}").into()));
            instances.share_reporting()
        };
        (0..8).for_each(|_| assert!(window(0..4) >= 1.0));
        assert_eq!(window(0..1), 0.25);
    }
}
