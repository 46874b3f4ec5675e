//! Exact tests on counts: whether the share of bad requests is larger than the baseline allows.

use super::evidence::{Evidence, Observed, Stand};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many times the null an alternative is.
const GRID: [f64; 7] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// No alternative is above this share.
const HIGHEST: f64 = 0.9;
/// Standard deviations of the upper confidence bound of the baseline.
const Z: f64 = 3.0;

/// A mixture over alternatives, whose weights follow what has been seen in the present run-up. They
/// are fixed before each observation, so that the mixture stays an e-value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture<const N: usize>(#[serde(with = "array")] [f32; N]);

mod array {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(array: &[f32; N], to: S) -> Result<S::Ok, S::Error> {
        array.as_slice().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[f32; N], D::Error> {
        Vec::<f32>::deserialize(from)?.try_into().map_err(|_| D::Error::custom("wrong number of weights"))
    }
}

impl<const N: usize> Default for Mixture<N> {
    fn default() -> Self {
        Self([1.0 / N as f32; N])
    }
}

impl<const N: usize> Mixture<N> {
    /// Natural logarithm of the mixed likelihood ratio; a run-up that is over starts from even weights.
    pub fn mix(&mut self, log_ratios: [f64; N], rising: bool) -> f64 {
        if !rising {
            *self = Self::default();
        }
        let highest = log_ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self
            .0
            .iter()
            .zip(log_ratios)
            .map(|(&weight, log)| f64::from(weight) * (log - highest).exp())
            .sum();
        let mixed = highest + sum.max(1e-300).ln();
        // A small share is given back evenly: the fault may change.
        let back = 0.05 / N as f64;
        for (weight, log) in self.0.iter_mut().zip(log_ratios) {
            *weight = (back + 0.95 * f64::from(*weight) * (log - mixed).exp()) as f32;
        }
        mixed
    }
}

/// Upper confidence bound of a share of which `bad` of `total` were seen.
#[must_use]
pub fn upper_bound(bad: f64, total: f64) -> f64 {
    ((bad + 0.5 + Z * (bad + 1.0).sqrt()) / (total + 1.0)).clamp(1e-9, 0.45)
}

/// The state of one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareTest {
    mixture: Mixture<7>,
    pub evidence: Evidence,
    /// Variance of the bad counts relative to a binomial one, ≥ 1: bursts belong to the null.
    dispersion: f32,
    /// Since the run-up began.
    pub total: u64,
    pub bad: u64,
}

impl Default for ShareTest {
    fn default() -> Self {
        Self { mixture: Mixture::default(), evidence: Evidence::default(), dispersion: 1.0, total: 0, bad: 0 }
    }
}

/// What a test says.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub stand: Stand,
    /// Upper bound of the share while healthy.
    pub null: f64,
    /// How many of the bad ones may be learned from: a fault must not become the baseline.
    pub clipped: f64,
}

impl ShareTest {
    /// `bad` of `total` now, against a baseline of `base_bad` of `base_total`; a null below `floor` is
    /// lifted to it.
    pub fn observe(
        &mut self,
        seen: Observed,
        (bad, total): (u64, u64),
        (base_bad, base_total): (f64, f64),
        floor: f64,
        healthy_for: Duration,
    ) -> Verdict {
        let (n, k) = (total as f64, bad.min(total) as f64);
        let null = upper_bound(base_bad, base_total).max(floor);
        let (log_bad, log_good) = (null.ln(), (1.0 - null).ln());
        let temper = 1.0 / f64::from(self.dispersion);
        let ratios = GRID.map(|times| {
            let share = (null * times).min(HIGHEST);
            temper * (k * (share.ln() - log_bad) + (n - k) * ((1.0 - share).ln() - log_good))
        });
        let log_e = self.mixture.mix(ratios, self.evidence.is_rising());
        // Between health and the fault, on a logarithmic scale.
        let fault = self.share().clamp(2.0 * null, HIGHEST);
        let between = (null.powf(0.4) * fault.powf(0.6)).max(1.5 * null).min(HIGHEST);
        let log_recovery =
            temper * (k * (log_bad - between.ln()) + (n - k) * (log_good - (1.0 - between).ln()));
        let stand = self.evidence.observe(seen, log_e, log_recovery, healthy_for);
        if self.evidence.is_rising() {
            self.total = self.total.saturating_add(total);
            self.bad = self.bad.saturating_add(bad);
        } else if !self.evidence.is_active() {
            (self.total, self.bad) = (0, 0);
        }
        let clipped = self.clip(n, k, (base_bad + 0.5) / (base_total + 1.0));
        Verdict { stand, null, clipped }
    }

    fn clip(&mut self, n: f64, k: f64, mean: f64) -> f64 {
        let variance = n * mean * (1.0 - mean).max(0.05);
        if !self.evidence.is_active() && n > 0.0 {
            let residual = ((k - n * mean).powi(2) / variance.max(1e-9)).min(25.0);
            self.dispersion = (self.dispersion + (residual as f32 - self.dispersion) / 200.0).max(1.0);
        }
        k.min(n * mean + 3.0 * (variance * f64::from(self.dispersion)).sqrt() + 1.0)
    }

    /// Share of bad ones since the run-up began.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.bad as f64 / self.total.max(1) as f64
    }
}
