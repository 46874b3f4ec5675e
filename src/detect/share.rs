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

/// Blocks over which the share is compared with its mean: so many seconds, and expected bad ones, at least;
/// and how many of them are remembered.
const BLOCK_S: u64 = 120;
const BLOCK_EXPECTED: f32 = 4.0;
const BLOCKS: u16 = 150;
/// Standard deviations of the slow wandering of the share that belong to the null.
const WANDERS: f64 = 3.0;
/// A block that is worse by this factor is a fault, from which nothing is learned.
const FAULT: f32 = 3.0;

/// From this dispersion on, bad ones are taken to come in clusters.
const IN_CLUSTERS: f32 = 1.2;
/// Expected bad ones over which the dispersion is learned, those that speak for 1 at first, and standard
/// deviations of one observation that are learned from at most.
const DISPERSION_MEMORY: f32 = 100.0;
const DISPERSION_PRIOR: f32 = 3.0;
const CLIP: f64 = 6.0;

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

/// How the share wanders over minutes, beyond what counts do by chance: what is over-dispersed only slowly
/// looks like a fault to each second by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Wandering {
    /// Of the present block.
    since_s: u64,
    total: f32,
    expected: f32,
    bad: f32,
    /// Squared residuals of its observations.
    squares: f32,
    /// Variance of the share relative to its mean.
    variance: f32,
    blocks: u16,
}

impl Wandering {
    /// Gives a block that is over and no fault.
    fn observe(&mut self, second: u64, n: f64, k: f64, mean: f64, dispersion: f32) -> Option<Self> {
        if self.expected == 0.0 {
            self.since_s = second;
        }
        let residual = (k - n * mean).powi(2).min(CLIP * CLIP * f64::from(dispersion) * (n * mean).max(1.0));
        self.total += n as f32;
        self.expected += (n * mean) as f32;
        self.bad += k as f32;
        self.squares += residual as f32;
        if second.saturating_sub(self.since_s) < BLOCK_S || self.expected < BLOCK_EXPECTED {
            return None;
        }
        let block = std::mem::take(self).keep(self);
        let ratio = block.bad / block.expected;
        if ratio > FAULT + 3.0 * (dispersion / block.expected).sqrt() {
            return None;
        }
        let beyond = (ratio - 1.0).powi(2) - dispersion / block.expected;
        self.blocks = self.blocks.saturating_add(1).min(BLOCKS);
        self.variance += (beyond - self.variance) / f32::from(self.blocks).max(10.0);
        Some(block)
    }

    /// Leaves what is remembered in `next`, for the block that follows.
    fn keep(self, next: &mut Self) -> Self {
        (next.variance, next.blocks) = (self.variance, self.blocks);
        self
    }

    /// By what the null is larger than the mean share.
    fn factor(&self) -> f64 {
        1.0 + WANDERS * f64::from(self.variance.max(0.0)).sqrt()
    }
}

/// Log-likelihood ratio of `times` as many bad ones as the `expected`, where they come in clusters of geometric
/// size whose counts are Poisson (Pólya–Aeppli) and so vary `dispersion` (> 1) times as much: the exponential
/// tilt of that distribution, whose expectation is 1 in health. A long cluster is then no surprise by itself.
fn clustered(expected: f64, k: f64, times: f64, dispersion: f64) -> f64 {
    let size = 0.5 * (dispersion + 1.0);
    let more = 1.0 - 1.0 / size;
    let a = times * size * size;
    let tilt = (2.0 * more * a + 1.0 - (4.0 * more * a + 1.0).sqrt()) / (2.0 * a * more * more);
    let generated = tilt / size / (1.0 - more * tilt).max(1e-9);
    k * tilt.max(1.0).ln() - expected / size * (generated - 1.0).max(0.0)
}

/// The state of one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareTest {
    mixture: Mixture<7>,
    pub evidence: Evidence,
    /// Variance of the bad counts relative to a binomial one, ≥ 1: bursts belong to the null. Squared residuals
    /// and expected counts that it is learned from.
    dispersion: f32,
    squares: f32,
    expected: f32,
    wandering: Wandering,
    /// Since the run-up began.
    pub total: u64,
    pub bad: u64,
}

impl Default for ShareTest {
    fn default() -> Self {
        Self {
            mixture: Mixture::default(),
            evidence: Evidence::default(),
            dispersion: 1.0,
            squares: 0.0,
            expected: 0.0,
            wandering: Wandering::default(),
            total: 0,
            bad: 0,
        }
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
    /// While active: all, and bad ones, of minutes that were bad, but no fault; to be learned after all.
    pub mild: Option<(f64, f64)>,
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
        let null = (upper_bound(base_bad, base_total) * self.wandering.factor()).clamp(floor, 0.45);
        let (log_bad, log_good) = (null.ln(), (1.0 - null).ln());
        let temper = 1.0 / f64::from(self.dispersion);
        let ratios = GRID.map(|times| {
            let share = (null * times).min(HIGHEST);
            if self.dispersion < IN_CLUSTERS {
                k * (share.ln() - log_bad) + (n - k) * ((1.0 - share).ln() - log_good)
            } else {
                clustered(n * null, k, share / null, f64::from(self.dispersion))
            }
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
        let mean = (base_bad + 0.5) / (base_total + 1.0);
        let clipped = k.min(n * mean + 3.0 * (n * mean * f64::from(self.dispersion)).sqrt() + 1.0);
        let block = self.wandering.observe(seen.now.secs(), n, k, mean, self.dispersion);
        let mild = block.map(|block| {
            self.disperse(&block);
            (f64::from(block.total), f64::from(block.bad))
        });
        Verdict { stand, null, clipped, mild: mild.filter(|_| self.evidence.is_active()) }
    }

    /// Learns the dispersion from minutes that were no fault.
    fn disperse(&mut self, block: &Wandering) {
        let keep = (1.0 - block.expected / DISPERSION_MEMORY).max(0.5);
        self.squares = self.squares * keep + block.squares;
        self.expected = self.expected * keep + block.expected;
        self.dispersion = ((self.squares + DISPERSION_PRIOR) / (self.expected + DISPERSION_PRIOR)).max(1.0);
    }

    /// Share of bad ones since the run-up began.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.bad as f64 / self.total.max(1) as f64
    }
}
