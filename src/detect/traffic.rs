//! Fewer requests come than did: negative-binomial likelihood ratios over sealed windows, which are
//! complete; whether they are back is seen by arrival. What comes as little at this time of other days or weeks is
//! no drop ([`super::week`]).

use super::evidence::{Evidence, Observed, Stand};
use super::share::Mixture;
use super::wandering::Wandering;
use super::week::Week;
use crate::model::{Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is left of the traffic under an alternative.
const LEFT: [f64; 5] = [0.5, 0.25, 0.1, 0.03, 0.003];
/// Windows that the two memories of the rate reach back: 5 minutes, 2 hours.
const MEMORIES: [f64; 2] = [30.0, 720.0];
/// Relative standard deviation of the rate that is always granted, beyond Poisson.
const SPREAD_AT_LEAST: f64 = 0.12;
/// Standard deviations of the lower confidence bound of the rate.
const Z: f64 = 2.0;
/// Windows over which the rate is compared with what was expected of it.
const BLOCK_WINDOWS: u16 = 12;
/// The wandering that is taken for granted, as a variance.
const WANDERING_PRIOR: f32 = 0.005;
/// No more than this share of the rate is taken for wandering.
const WANDERS_AT_MOST: f64 = 0.7;
/// Complete windows that are learned from first.
const LEARN_WINDOWS: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    mean: f64,
    /// Mean of squared deviations.
    variance: f64,
}

/// The minutes over which the rate is compared with what its past lets expect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Minutes {
    windows: u16,
    expected: f32,
    seen: f32,
}

impl Minutes {
    /// Gives what the rate wandered below its past beyond chance, when a block is over.
    fn add(&mut self, expected: f64, seen: f64) -> Option<f32> {
        self.windows += 1;
        self.expected += expected as f32;
        self.seen += seen as f32;
        if self.windows < BLOCK_WINDOWS {
            return None;
        }
        let Self { expected, seen, .. } = std::mem::take(self);
        let below = (1.0 - seen / expected.max(1e-3)).max(0.0);
        // Half of it is seen, as what is above is no drop.
        Some(2.0 * below.powi(2) - 1.0 / expected.max(1.0))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Windows seen; the first one is partial and not counted.
    windows: u32,
    memories: [Memory; 2],
    minutes: Minutes,
    wandering: Wandering,
    week: Week,
    mixture: Mixture<5>,
    pub evidence: Evidence,
    /// By arrival, while down: since when is counted, how much came, whether the block before was good.
    block_since: Timestamp,
    block: u64,
    blocks_good: u32,
    /// Requests in the latest window.
    pub latest: u64,
    /// How many of the usual requests the latest window could have shown, if not all of them.
    scale: Option<f64>,
}

/// What one window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drop {
    pub stand: Stand,
    /// Requests a window expected while healthy, at least.
    pub expected: f64,
}

impl Traffic {
    fn learn(&mut self, count: f64) {
        for (memory, reach) in self.memories.iter_mut().zip(MEMORIES) {
            let weight = (1.0 / f64::from(self.windows.max(1))).max(1.0 / reach);
            let deviation = count - memory.mean;
            memory.mean += weight * deviation;
            if self.windows > 1 {
                memory.variance += weight * (deviation * deviation * (1.0 - weight) - memory.variance);
            }
        }
    }

    /// Lower bound of the mean, and the shape of the negative binomial that describes one window.
    fn null(&self) -> (f64, f64) {
        let mut null = (f64::INFINITY, f64::INFINITY);
        for (memory, reach) in self.memories.iter().zip(MEMORIES) {
            let n = f64::from(self.windows).min(2.0 * reach).max(1.0);
            let mean = memory.mean.max(1e-3);
            // While few windows are known, their spread is known badly.
            let spread = (memory.variance - mean).max(0.0) / (mean * mean) * (1.0 + 3.0 / n.sqrt());
            let spread = spread.max(SPREAD_AT_LEAST * SPREAD_AT_LEAST);
            let bound = mean * (1.0 - Z * ((1.0 / mean + spread) / n).sqrt()).max(0.05);
            null = (null.0.min(bound), null.1.min(1.0 / spread));
        }
        null.0 *= self.scale.unwrap_or(1.0);
        null
    }

    /// Requests that a window usually has; 0 while that is not known.
    #[must_use]
    pub fn usual(&self) -> f64 {
        if self.windows <= LEARN_WINDOWS + 1 {
            return 0.0;
        }
        self.memories.iter().map(|memory| memory.mean).fold(f64::INFINITY, f64::min)
    }

    /// What is usual is so many times what it was: requests are counted otherwise.
    pub fn rescale(&mut self, times: f64) {
        self.week = Week::default();
        for memory in &mut self.memories {
            memory.mean *= times;
            memory.variance *= times * times;
        }
        self.scale = None;
    }

    /// A sealed window with `count` requests, the `interval`th; `judged` is false when the window
    /// cannot be trusted or the service is still new.
    /// `scale`: how many of the usual requests it could have shown, 1 if none of them went unseen.
    pub fn window(&mut self, seen: Observed, count: u64, judged: bool, scale: f64) -> Option<Drop> {
        self.latest = count;
        let partial = (scale - 1.0).abs() > 0.01;
        self.scale = partial.then_some(scale);
        if !judged {
            return None;
        }
        let began = WindowId(seen.interval).start();
        if !partial {
            self.week.learn(began, count as f64);
        }
        if self.windows <= LEARN_WINDOWS {
            // The first window began before the service did.
            if self.windows > 0 {
                self.learn(count as f64);
            }
            self.windows += 1;
            return None;
        }
        let (mean, shape) = self.null();
        let mut mean = mean * (1.0 - self.wandering.deviation(WANDERING_PRIOR).min(WANDERS_AT_MOST));
        // Whether it is still down is asked of what it was before.
        if !self.evidence.is_active()
            && let Some(low) = self.week.low(began)
        {
            mean = mean.min(low.max(1e-3));
        }
        let k = count as f64;
        let ratios = LEFT.map(|left| {
            let other = mean * left;
            k * left.ln() + (k + shape) * ((mean + shape) / (other + shape)).ln()
        });
        if !self.evidence.is_rising() {
            // A run-up starts from even weights.
            self.mixture = Mixture::default();
        }
        let log_e = self.mixture.mix(ratios);
        let was_active = self.evidence.is_active();
        let log_recovery = -ratios.first().copied().unwrap_or_default();
        let stand = self.evidence.observe(seen, log_e, log_recovery, Duration::from_secs(20));
        if self.evidence.is_active() {
            if !was_active {
                (self.block_since, self.block, self.blocks_good) = (seen.now, 0, 0);
            }
        } else {
            self.windows = self.windows.saturating_add(1);
            if partial {
                return Some(Drop { stand, expected: mean });
            }
            // A fault must not become the baseline: what is far below is learned only in part.
            let least = self.memories.iter().map(|memory| memory.mean).fold(f64::INFINITY, f64::min);
            if let Some(beyond) = self.minutes.add(least, k) {
                self.wandering.learn(beyond);
            }
            self.learn(k.max(least * 0.7).min(least.max(1.0) * 4.0));
        }
        Some(Drop { stand, expected: mean })
    }

    /// Requests that arrived, while the traffic is down. True once they are back: two blocks of 10 s.
    pub fn arrived(&mut self, now: Timestamp, count: u64) -> bool {
        if !self.evidence.is_active() {
            return false;
        }
        self.block += count;
        let length = now.since(self.block_since).as_secs_f64();
        if length < 10.0 {
            return false;
        }
        let good = self.block as f64 >= 0.6 * self.null().0 * length / 10.0;
        self.blocks_good = if good { self.blocks_good + 1 } else { 0 };
        let back = self.block as f64 * 10.0 / length;
        (self.block_since, self.block) = (now, 0);
        if self.blocks_good < 2 {
            return false;
        }
        self.evidence = Evidence::default();
        self.mixture = Mixture::default();
        // What counts as back is what is usual from now on: it must not be lost again next minute.
        if let Some(recent) = self.memories.first_mut() {
            recent.mean = recent.mean.min(back);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 1_700_438_400;

    /// When drops began, in hours, of a shop that closes at six in the evening and has these outages.
    fn drops(days: u64, outages: &[std::ops::Range<f64>]) -> Vec<f64> {
        let (mut traffic, mut began) = (Traffic::default(), Vec::new());
        let mut random = fastrand::Rng::with_seed(11);
        let mut was_active = false;
        for window in 0..days * 8_640 {
            let hours = window as f64 / 360.0;
            let open = (8.0..18.0).contains(&(hours % 24.0)) && !outages.iter().any(|of| of.contains(&hours));
            let usual = if open { 50.0 } else { 2.0 };
            let count = (usual * (0.8 + 0.4 * random.f64())) as u64;
            let id = WindowId(MONDAY / 10 + window);
            let now = id.end().saturating_add(Duration::from_secs(10));
            traffic.arrived(now, count);
            let seen = Observed { now, interval: id.0, last: id.end() };
            traffic.window(seen, count, true, 1.0);
            let active = traffic.evidence.is_active();
            if active && !was_active {
                began.push(hours);
            }
            was_active = active;
        }
        began
    }

    #[test]
    fn what_closes_each_evening_is_told_twice_and_an_outage_always() {
        let began = drops(6, &[]);
        assert_eq!(began.len(), 2, "{began:?}");
        assert!((18.0..18.1).contains(&began[0]) && (42.0..42.1).contains(&began[1]), "{began:?}");
        // At the same hour on two days that do not follow each other, at other hours, and just before closing time.
        let noon = |day: f64| day * 24.0 + 12.0..day * 24.0 + 12.5;
        let early = 5.0 * 24.0 + 16.0..5.0 * 24.0 + 17.0;
        let began = drops(6, &[noon(3.0), noon(4.0), early]);
        assert_eq!(began.len(), 5, "{began:?}");
        for (found, outage) in began[2..].iter().zip([84.0, 108.0, 136.0]) {
            assert!((outage..outage + 0.1).contains(found), "{began:?}");
        }
    }
}
