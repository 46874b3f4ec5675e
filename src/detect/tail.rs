//! Calibrates a statistic by its own past: an extreme-value tail.
//!
//! Above a high quantile, which is tracked, excesses are taken to be exponential: of the logarithm of a
//! statistic, that is, its tail to be Pareto with a learned index; or of the statistic itself, where it
//! is made of logarithms already (peaks over threshold, as in SPOT: Siffer et al., KDD 2017).

use serde::{Deserialize, Serialize};

/// Share of observations above the tracked quantile.
pub const ABOVE: f64 = 0.02;
/// Excesses of one observation that are learned from at most, in units of the mean excess.
const CLIP: f32 = 4.0;
/// Statistics are not told apart beyond this.
const LARGEST: f64 = 100.0;
/// Observations, and excesses, that a tail reaches back where one comes each five minutes or more seldom: two days,
/// and a week. What comes faster is remembered for the same time, not for the same number: otherwise what happens each
/// night would be forgotten by the next one, and be news again.
const MEMORY: f32 = 500.0;
const EXCESSES: f32 = 40.0;
const PAUSE_S: f64 = 300.0;
/// What comes faster than this many times as often is remembered for less, so that the count fits.
const STRETCH_AT_MOST: f64 = 100.0;

/// What is taken to have exponential excesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// ln(1 + statistic): deviations in units of what is usual.
    Logarithmic,
    /// The statistic itself: sums of logarithms of probabilities.
    Linear,
}

impl Scale {
    fn of(self, statistic: f64) -> f32 {
        match self {
            Self::Logarithmic => (statistic.clamp(0.0, LARGEST) as f32).ln_1p(),
            Self::Linear => statistic.max(0.0) as f32,
        }
    }

    /// The mean excess is taken to be no smaller.
    const fn least_excess(self) -> f32 {
        match self {
            Self::Logarithmic => 0.05,
            Self::Linear => 1.0,
        }
    }
}

/// How many times as many observations a memory holds of what is observed this often.
#[must_use]
pub fn stretch(cadence_s: f64) -> f64 {
    if cadence_s > 0.0 { (PAUSE_S / cadence_s).clamp(1.0, STRETCH_AT_MOST) } else { 1.0 }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// The tracked quantile and the mean excess over it.
    quantile: f32,
    excess: f32,
    /// Mean size, for the step of the quantile.
    size: f32,
    /// Observations and excesses seen, as far as the memory reaches.
    seen: u16,
    exceeded: u16,
}

impl Tail {
    /// Observations so far, no further than the memory reaches.
    #[must_use]
    pub fn seen(&self) -> u16 {
        self.seen
    }

    /// Natural logarithm of the probability of a statistic at least as large.
    #[must_use]
    pub fn judge(&self, statistic: f64, scale: Scale) -> f64 {
        self.judge_scaled(scale.of(statistic), scale)
    }

    fn judge_scaled(&self, y: f32, scale: Scale) -> f64 {
        let over = y - self.quantile;
        if over <= 0.0 {
            return f64::from(y / self.quantile.max(1e-6)) * ABOVE.ln();
        }
        // While few excesses are known, their mean may be larger: an upper bound of it.
        let unsure = 1.0 + 1.0 / f32::from(self.exceeded.saturating_add(1)).sqrt();
        ABOVE.ln() - f64::from(over / (self.excess.max(scale.least_excess()) * unsure))
    }

    /// Learns a statistic that was judged. `weight` in 0..=1: a fault must not become the usual. `stretch`: how many
    /// times as many observations it holds, [`stretch`].
    pub fn learn(&mut self, statistic: f64, scale: Scale, weight: f32, stretch: f64) {
        self.learn_scaled(scale.of(statistic), weight, stretch as f32);
    }

    fn learn_scaled(&mut self, y: f32, weight: f32, stretch: f32) {
        let over = y - self.quantile;
        self.seen = self.seen.saturating_add(1).min((MEMORY * stretch) as u16);
        let share = 1.0 / f32::from(self.seen);
        self.size += weight * share * (y.min(4.0 * self.size + 0.1) - self.size);
        let step = 3.0 * weight * self.size.max(0.01) * share.max(0.005 / stretch);
        if over > 0.0 {
            self.quantile += step * (1.0 - ABOVE as f32);
            self.exceeded = self.exceeded.saturating_add(1).min((EXCESSES * stretch) as u16);
            let clipped = over.min(CLIP * self.excess.max(0.05));
            self.excess += weight * (clipped - self.excess) / f32::from(self.exceeded);
        } else {
            self.quantile = (self.quantile - step * ABOVE as f32).max(0.05);
        }
    }

    /// Judges, then learns in full.
    pub fn observe(&mut self, statistic: f64, scale: Scale, stretch: f64) -> f64 {
        let y = scale.of(statistic);
        let log_p = self.judge_scaled(y, scale);
        self.learn_scaled(y, 1.0, stretch as f32);
        log_p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of `draws` that are judged less probable than 10^-k, times 10^k: 1 is calibrated.
    fn calibration(scale: Scale, draw: impl Fn(&mut fastrand::Rng) -> f64) -> [f64; 2] {
        let (mut tail, mut random) = (Tail::default(), fastrand::Rng::with_seed(11));
        let mut exceeded = [0u32; 2];
        let draws = 400_000;
        for n in 0..draws + 1_000 {
            let log_p = tail.observe(draw(&mut random), scale, 1.0);
            for (k, count) in exceeded.iter_mut().enumerate() {
                *count += u32::from(n >= 1_000 && log_p < -(k as f64 + 2.0) * std::f64::consts::LN_10);
            }
        }
        std::array::from_fn(|k| f64::from(exceeded[k]) / f64::from(draws) * 10f64.powi(k as i32 + 2))
    }

    #[test]
    fn light_and_heavy_tails_are_calibrated_within_three_times() {
        let exponential = calibration(Scale::Linear, |random| -random.f64().max(1e-12).ln() * 3.0);
        let normal = calibration(Scale::Logarithmic, |random| {
            ((0..12).map(|_| random.f64()).sum::<f64>() - 6.0).abs()
        });
        let heavy = calibration(Scale::Logarithmic, |random| random.f64().max(1e-12).powf(-0.4) - 1.0);
        for (name, shares) in [("exponential", exponential), ("normal", normal), ("heavy", heavy)] {
            for (k, share) in shares.iter().enumerate() {
                // A lighter tail than Pareto is judged with care: below, not above.
                let least = if name == "normal" { 0.02 } else { 1.0 / 3.0 };
                assert!((least..=3.0).contains(share), "{name}: p < 1e-{} {share} times too often", k + 2);
            }
        }
    }

    #[test]
    fn what_comes_fast_is_remembered_for_as_long() {
        // Each ten seconds; ten minutes of a day are eight times as restless.
        let news = |stretch: f64| {
            let (mut tail, mut random) = (Tail::default(), fastrand::Rng::with_seed(3));
            let judged = (0..14 * 8_640).map(|n| {
                let size = if n % 8_640 < 60 { 8.0 } else { 1.0 };
                tail.observe(-size * random.f64().max(1e-12).ln(), Scale::Linear, stretch)
            });
            let last_week = judged.skip(7 * 8_640);
            last_week.filter(|log_p| *log_p < -4.0 * std::f64::consts::LN_10).count()
        };
        // Six would be calibrated.
        let (by_points, by_time) = (news(1.0), news(stretch(10.0)));
        assert!(by_points > 30, "the case tells nothing: {by_points}");
        assert!(by_time <= 12, "{by_time} against {by_points}");
        assert_eq!((stretch(0.0), stretch(600.0), stretch(1.0)), (1.0, 1.0, STRETCH_AT_MOST));
    }

    #[test]
    fn what_is_learned_with_little_weight_changes_little() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut full = Tail::default();
        for _ in 0..2_000 {
            full.observe(random.f64(), Scale::Logarithmic, 1.0);
        }
        let mut little = full.clone();
        for _ in 0..50 {
            full.learn(20.0, Scale::Logarithmic, 1.0, 1.0);
            little.learn(20.0, Scale::Logarithmic, 0.1, 1.0);
        }
        let (full, little) = (full.judge(20.0, Scale::Logarithmic), little.judge(20.0, Scale::Logarithmic));
        assert!(little < 3.0 * full, "{little} against {full}");
    }
}
