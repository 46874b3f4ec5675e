//! A metric left the band of its own past: several statistics over several memories, each calibrated
//! by its own past ([`super::tail`]).
//!
//! * spike: the point against a short memory, in units of usual residuals (predictor residual)
//! * level: the point against a long memory (windowed Gaussian)
//! * shift: the mean of the last points against the long memory (short against long mean)
//! * rhythm: the point against the same time yesterday, once days are known
//! * spread: the recent variance against the long one, both ways (a flat line is news too)
//!
//! Memories count points, so that they adapt to any cadence from seconds to minutes. Each point is
//! judged before it is learned, and learned clipped.

use super::tail::{ABOVE, Tail};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Points, and time, that are only learned from.
const LEARN: u32 = 100;
const LEARN_TIME: Duration = Duration::from_secs(900);
/// Points a memory reaches back.
const SHORT: f64 = 6.0;
const RECENT: f64 = 24.0;
const LONG: f64 = 1000.0;
/// Slots of the daily profile.
const SLOTS: usize = 48;
const DAY_S: u64 = 86_400;
/// Points for which an episode is held: only its first point scores high.
const HOLD: f64 = 110.0;
/// Logarithm of the tail probability that scores 1.
const CERTAIN: f64 = 30.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    fn learn(&mut self, value: f64, weight: f64) {
        let deviation = value - self.mean;
        self.mean += weight * deviation;
        self.variance = (1.0 - weight) * (self.variance + weight * deviation * deviation);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    points: u32,
    cadence_s: f64,
    first_at: Timestamp,
    last_at: Timestamp,
    short: f64,
    recent: Moments,
    long: Moments,
    /// Usual size of the residual against the short memory.
    residual: f64,
    tails: [Tail; 5],
    /// Mean by time of day and how many days are in it.
    profile: Vec<(f32, f32)>,
    profile_residual: f64,
    /// What the present episode scored, fading.
    held: f64,
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelSeen {
    /// Probability of something at least as unusual while healthy.
    pub tail: f64,
    /// 0..1, high only where an episode begins.
    pub score: f64,
    pub low: f64,
    pub high: f64,
}

impl Level {
    /// A new point.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> LevelSeen {
        if !value.is_finite() {
            return LevelSeen { tail: 1.0, score: 0.0, low: self.long.mean, high: self.long.mean };
        }
        if self.points > 0 {
            let pause = at.since(self.last_at).as_secs_f64();
            self.cadence_s += (pause - self.cadence_s) / f64::from(self.points.min(50));
        } else {
            self.first_at = at;
            (self.short, self.recent.mean, self.long.mean) = (value, value, value);
        }
        self.last_at = self.last_at.max(at);
        self.points = self.points.saturating_add(1);
        let floor = (1e-3 * self.long.mean.abs()).max(1e-9);
        let spread = self.long.variance.sqrt().max(floor);
        let residual = self.residual.max(floor);
        let (low, high) = (self.long.mean - 3.0 * spread, self.long.mean + 3.0 * spread);
        let log_p = self.judge(at, value, spread, residual, floor);
        self.learn(at, value, spread);
        if self.points <= LEARN || at.since(self.first_at) < LEARN_TIME {
            return LevelSeen { tail: 1.0, score: 0.0, low, high };
        }
        let now = (-log_p / CERTAIN).clamp(0.0, 1.0);
        self.held *= 1.0 - 1.0 / HOLD;
        let score = if now > 1.2 * self.held { now } else { 0.0 };
        self.held = self.held.max(now);
        LevelSeen { tail: log_p.exp(), score, low, high }
    }

    /// Natural logarithm of the tail probability.
    fn judge(&mut self, at: Timestamp, value: f64, spread: f64, residual: f64, floor: f64) -> f64 {
        let weight = 1.0 / RECENT;
        let recent_mean = self.recent.mean + weight * (value - self.recent.mean);
        let recent_variance = self.recent.variance;
        let ratio = (recent_variance + floor * floor) / (spread * spread + floor * floor);
        let mut statistics = [
            (value - self.short).abs() / residual,
            (value - self.long.mean).abs() / spread,
            (recent_mean - self.long.mean).abs() / spread,
            0.0,
            ratio.max(1.0 / ratio),
        ];
        if let Some((mean, days)) = self.profile.get(slot(at)).copied()
            && days >= 2.0
        {
            let usual = self.profile_residual.max(floor);
            if let Some(rhythm) = statistics.get_mut(3) {
                *rhythm = (value - f64::from(mean)).abs() / usual;
            }
        }
        let logs = self.tails.iter_mut().zip(statistics).map(|(tail, statistic)| tail.observe(statistic));
        // The strongest statistic counts whole, the next two add what they have beyond their quantile.
        let (mut first, mut second, mut third) = (0.0f64, 0.0f64, 0.0f64);
        for log in logs {
            (first, second, third) = if log < first {
                (log, first, second)
            } else if log < second {
                (first, log, second)
            } else {
                (first, second, third.min(log))
            };
        }
        let beyond = -ABOVE.ln();
        (first + 0.5 * (second + beyond) + 0.5 * (third + beyond)).min(0.0)
    }

    fn learn(&mut self, at: Timestamp, value: f64, spread: f64) {
        let points = f64::from(self.points);
        let weight = |reach: f64| (1.0 / points).max(1.0 / reach);
        let deviation = value - self.long.mean;
        let clipped =
            if self.points > LEARN { deviation.clamp(-6.0 * spread, 6.0 * spread) } else { deviation };
        let learned = self.long.mean + clipped;
        let miss = (value - self.short).abs();
        let miss = if self.points > LEARN { miss.min(6.0 * self.residual.max(1e-9)) } else { miss };
        self.residual += weight(LONG) * (miss - self.residual);
        self.short += weight(SHORT) * (value - self.short);
        self.recent.learn(value, weight(RECENT));
        self.long.learn(learned, weight(LONG));
        if self.profile.is_empty() {
            self.profile = vec![(0.0, 0.0); SLOTS];
        }
        if let Some((mean, days)) = self.profile.get_mut(slot(at)) {
            if *days >= 1.0 {
                let miss = (value - f64::from(*mean)).abs();
                self.profile_residual += weight(LONG) * (miss - self.profile_residual);
            }
            // One day's points of a slot together weigh one day.
            let per_slot = (DAY_S as f64 / SLOTS as f64 / self.cadence_s.max(1.0)).max(1.0);
            *days = (*days + (1.0 / per_slot) as f32).min(7.0);
            let weight = (1.0 / (f64::from(*days) * per_slot).max(1.0)) as f32;
            *mean += weight * (value as f32 - *mean);
        }
    }

    /// Learned pause between points, in seconds; 0 while unknown.
    #[must_use]
    pub fn cadence_s(&self) -> f64 {
        self.cadence_s
    }
}

fn slot(at: Timestamp) -> usize {
    ((at.secs() % DAY_S) as usize * SLOTS) / DAY_S as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day's rhythm with noise, every five minutes; `odd` changes points.
    fn scores(days: u64, odd: impl Fn(u64, f64) -> f64) -> Vec<(u64, LevelSeen)> {
        let (mut level, mut random) = (Level::default(), fastrand::Rng::with_seed(3));
        let points = (0..days * 288).map(|n| {
            let day = std::f64::consts::TAU * n as f64 / 288.0;
            let noise: f64 = (0..6).map(|_| random.f64() - 0.5).sum();
            let value = odd(n, 50.0 + 20.0 * day.sin() + noise);
            (n, level.observe(Timestamp::from_secs(1_700_000_000 + 300 * n), value))
        });
        points.collect()
    }

    #[test]
    fn an_odd_point_scores_once_and_health_does_not() {
        let healthy = scores(14, |_, value| value);
        let alarms = healthy.iter().filter(|(_, seen)| seen.score > 0.0 && seen.tail < 1.5e-4).count();
        assert!(alarms <= 2, "{alarms} in two weeks");
        let spiked = scores(14, |n, value| if (3000..3040).contains(&n) { value + 60.0 } else { value });
        let (_, first) = spiked[3000];
        assert!(first.score > 0.3 && first.tail < 1e-6, "{first:?}");
        let again = spiked[3001..3040].iter().filter(|(_, seen)| seen.score > 0.3).count();
        assert!(again <= 2, "{again} more rows of the same episode");
    }

    #[test]
    fn a_missing_peak_is_odd_though_its_values_are_usual() {
        let flat = scores(14, |n, value| if (3528..3600).contains(&n) { 50.0 } else { value });
        let best = flat[3528..3600].iter().map(|(_, seen)| seen.score).fold(0.0, f64::max);
        assert!(best > 0.2, "{best}");
    }

    #[test]
    fn what_is_no_number_is_ignored() {
        let mut level = Level::default();
        assert_eq!(level.observe(Timestamp::from_secs(1), f64::NAN).score, 0.0);
    }
}
