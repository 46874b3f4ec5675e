//! Calibrates a statistic by its own past: an extreme-value tail.
//!
//! Above a high quantile, which is tracked, excesses are taken to be exponential in the logarithm of
//! the statistic, that is, the tail to be Pareto with a learned index (peaks over threshold, as in
//! SPOT: Siffer et al., KDD 2017, with the heavy-tailed case always granted).

use serde::{Deserialize, Serialize};

/// Share of observations above the tracked quantile.
pub const ABOVE: f64 = 0.02;
/// Excesses of one observation that are learned from at most, in units of the mean excess.
const CLIP: f64 = 4.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    seen: u32,
    /// The tracked quantile and the mean excess over it, of ln(1 + statistic).
    quantile: f32,
    excess: f32,
    /// Excesses seen.
    exceeded: f32,
    /// Mean absolute size, for the step of the quantile.
    size: f32,
}

impl Tail {
    /// Natural logarithm of the probability of a statistic at least as large, and learns from it.
    pub fn observe(&mut self, statistic: f64) -> f64 {
        let y = (1.0 + statistic.clamp(0.0, 100.0)).ln() as f32;
        self.seen = self.seen.saturating_add(1);
        let over = f64::from(y - self.quantile);
        // While few excesses are known, their mean may be larger: an upper bound of it.
        let scale = f64::from(self.excess).max(0.03) * (1.0 + 2.0 / f64::from(self.exceeded + 1.0).sqrt());
        let log_p = if over <= 0.0 {
            (ABOVE.ln() * f64::from(y / self.quantile.max(1e-6))).max(ABOVE.ln())
        } else {
            ABOVE.ln() - over / scale
        };
        let weight = (1.0 / self.seen as f32).max(0.002);
        self.size += weight * (y.min(4.0 * self.size + 0.1) - self.size);
        let step = self.size.max(0.01) * weight.max(0.005) * 2.0;
        if over > 0.0 {
            self.quantile += step * (1.0 - ABOVE as f32);
            let clipped = (over as f32).min(CLIP as f32 * self.excess.max(0.05));
            self.exceeded = (self.exceeded + 1.0).min(40.0);
            self.excess += (clipped - self.excess) / self.exceeded;
        } else {
            self.quantile = (self.quantile - step * ABOVE as f32).max(0.05);
        }
        log_p
    }
}
