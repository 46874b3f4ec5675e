//! Exact tests on counts: whether the share of bad requests is larger than the baseline allows.

use super::evidence::{Evidence, Observed, Stand};
use super::wandering::Wandering;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many times the null an alternative is.
const GRID: [f64; 7] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// No alternative is above this share. Where more is usual, there is nothing to find.
const HIGHEST: f64 = 0.9;
const ALL: f64 = 0.99;
/// Standard deviations of the upper confidence bound of the baseline.
const Z: f64 = 3.0;

/// Blocks over which the share is compared with its mean: so many seconds, and expected bad ones, at least.
const BLOCK_S: u32 = 120;
const BLOCK_EXPECTED: f32 = 4.0;
/// A block that is worse by this factor is a fault, from which nothing is learned.
const FAULT: f32 = 3.0;

/// What is taken for the dispersion before anything is known, and how many bad ones that speaks for: that they do
/// not come in clusters has to be learned too. Bad ones over which the dispersion is learned.
const DISPERSION_PRIOR: f32 = 2.5;
const PRIOR_SPEAKS_FOR: f32 = 4.0;
const DISPERSION_MEMORY: f32 = 150.0;
/// Clusters of one observation that are learned from at most, beyond what chance explains.
const CLUSTERS_LEARNED: f64 = 4.0;
/// The wandering that is taken for granted, as a variance.
const WANDERING_PRIOR: f32 = 0.02;
/// Where clusters go on with less probability, bad ones come one by one.
const ONE_BY_ONE: f64 = 0.01;
/// Bad ones up to which clusters are counted one by one.
const COUNTED: usize = 40;

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
    /// Natural logarithm of the mixed likelihood ratio.
    pub fn mix(&mut self, log_ratios: [f64; N]) -> f64 {
        let highest = log_ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratios = log_ratios.map(|log| (log - highest).exp());
        let sum: f64 = self.0.iter().zip(ratios).map(|(&weight, ratio)| f64::from(weight) * ratio).sum();
        let sum = sum.max(1e-300);
        // A small share is given back evenly: the fault may change.
        let back = 0.05 / N as f64;
        for (weight, ratio) in self.0.iter_mut().zip(ratios) {
            *weight = (back + 0.95 * f64::from(*weight) * ratio / sum) as f32;
        }
        highest + sum.ln()
    }
}

/// Upper confidence bound of a share of which `bad` of `total` were seen.
#[must_use]
pub fn upper_bound(bad: f64, total: f64) -> f64 {
    ((bad + 0.5 + Z * (bad + 1.0).sqrt()) / (total + 1.0)).clamp(1e-9, ALL)
}

/// The minutes over which the share is compared with its mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Block {
    since_s: u32,
    total: f32,
    expected: f32,
    bad: f32,
}

impl Block {
    /// Gives a block that is over, and begins the next.
    fn add(&mut self, second: u64, n: f64, k: f64, mean: f64) -> Option<Self> {
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        if self.expected == 0.0 {
            self.since_s = second;
        }
        self.total += n as f32;
        self.expected += (n * mean) as f32;
        self.bad += k as f32;
        let is_over = second.saturating_sub(self.since_s) >= BLOCK_S && self.expected >= BLOCK_EXPECTED;
        is_over.then(|| std::mem::take(self))
    }

    /// What the share wandered beyond chance; `None` for a fault.
    fn beyond(&self, dispersion: f32) -> Option<f32> {
        let ratio = self.bad / self.expected;
        let is_fault = ratio > FAULT + 3.0 * (dispersion / self.expected).sqrt();
        (!is_fault).then(|| (ratio - 1.0).powi(2) - dispersion / self.expected)
    }
}

/// ln(1 − share). Where the share is small, by its series: a test takes eight of them for each second of a series.
fn log_of_rest(share: f64) -> f64 {
    if share > 0.03 {
        return (1.0 - share).ln();
    }
    -share * (1.0 + share * (1.0 / 2.0 + share * (1.0 / 3.0 + share * (1.0 / 4.0 + share * (1.0 / 5.0)))))
}

/// Log-likelihood ratio of `times` as many clusters of bad ones as in health, where clusters are Poisson with
/// geometric sizes (Pólya–Aeppli) of mean `size`, and `expected` bad ones are. One long cluster is then hardly more
/// of a surprise than a short one; several in a row are.
fn clustered(expected: f64, k: u64, times: f64, size: f64) -> f64 {
    let clusters = (expected / size).max(1e-12);
    let fewer = -(times - 1.0) * clusters;
    let more = 1.0 - 1.0 / size;
    if more < ONE_BY_ONE {
        return k as f64 * times.ln() - (times - 1.0) * expected;
    }
    match usize::try_from(k) {
        Ok(k) if k <= COUNTED => {
            // Sum over how many clusters made k: terms of λᴺ/N! · C(k−1, N−1) · (p/q)ᴺ, relative to the first.
            let step = clusters / size / more.max(1e-9);
            let (mut healthy, mut faulty) = (1.0, 1.0);
            let (mut term, mut times_term) = (1.0, 1.0);
            for n in 1..k {
                let grow = step * (k - n) as f64 / (n * (n + 1)) as f64;
                term *= grow;
                times_term *= grow * times;
                healthy += term;
                faulty += times_term;
            }
            fewer + times.ln() + (faulty / healthy).ln()
        }
        // The exponential tilt of the distribution to the alternative's mean, whose expectation is 1 in health.
        _ => {
            let a = times * size * size;
            let tilt = 4.0 * a / (1.0 + (4.0 * more * a + 1.0).sqrt()).powi(2);
            let generated = tilt / size / (1.0 - more * tilt).max(1e-9);
            k as f64 * tilt.max(1.0).ln() - clusters * (generated - 1.0).max(0.0)
        }
    }
}

/// What is followed while evidence speaks against health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    mixture: Mixture<7>,
    /// Since the run-up began.
    total: u64,
    bad: u64,
}

/// The state of one test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareTest {
    pub evidence: Evidence<Followed>,
    /// Squared residuals and bad ones that the dispersion is learned from, fading.
    squares: f32,
    counted: f32,
    block: Block,
    wandering: Wandering,
}

/// What a test says.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub stand: Stand,
    /// Upper bound of the share while healthy.
    pub null: f64,
    /// All, and bad ones, that may be learned from: a fault must not become the baseline.
    pub learned: Option<(f64, f64)>,
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
        let bad = bad.min(total);
        let (n, k) = (total as f64, bad as f64);
        let null = (upper_bound(base_bad, base_total) * self.wanders()).clamp(floor, ALL);
        let (log_bad, log_good) = (null.ln(), log_of_rest(null));
        let size = self.cluster();
        // Whether bad ones come one by one or in clusters is not known for sure: the lesser of both ratios is an
        // e-value under either.
        let ratios = GRID.map(|times| {
            let share = (null * times).min(HIGHEST).max(null);
            let good = (n - k) * (log_of_rest(share) - log_good);
            // That none is bad says least, or no less, if they come one by one.
            if bad == 0 {
                return good;
            }
            let single = k * (share.ln() - log_bad) + good;
            single.min(clustered(n * null, bad, share / null, size))
        });
        // Where nearly all fails usually, nothing can be worse: what speaks against health must fade.
        let followed = self.evidence.followed();
        let (total_before, bad_before) = followed.map_or((0, 0), |followed| (followed.total, followed.bad));
        // A run-up starts from even weights.
        let weights = followed.filter(|_| self.evidence.is_rising()).map(|followed| followed.mixture.clone());
        let mut mixture = weights.unwrap_or_default();
        let log_e = match mixture.mix(ratios) {
            _ if null >= HIGHEST => -1.0,
            mixed => mixed,
        };
        let log_recovery = if self.evidence.is_active() {
            // Between health and the fault, on a logarithmic scale.
            let fault = self.share().min(HIGHEST).max(2.0 * null);
            let highest = HIGHEST.max(0.5 * (1.0 + null));
            let between = (null.powf(0.4) * fault.powf(0.6)).max(1.5 * null).min(highest);
            (k * (log_bad - between.ln()) + (n - k) * (log_good - (1.0 - between).ln())) / size
        } else {
            0.0
        };
        let stand = self.evidence.observe(seen, log_e, log_recovery, healthy_for);
        let mean = (base_bad + 0.5) / (base_total + 1.0);
        let dispersion = 2.0 * size - 1.0;
        let block = self.block.add(seen.now.secs(), n, k, mean).filter(|block| {
            let beyond = block.beyond(dispersion as f32);
            beyond.inspect(|beyond| self.wandering.learn(*beyond)).is_some()
        });
        let (total, bad) = (total_before.saturating_add(total), bad_before.saturating_add(bad));
        if let Some(followed) = self.evidence.followed_mut() {
            *followed = Followed { mixture, total, bad };
            // What stays a little worse becomes the baseline after all.
            let learned = block.filter(|_| self.evidence.is_active());
            let learned = learned.map(|block| (f64::from(block.total), f64::from(block.bad)));
            return Verdict { stand, null, learned };
        }
        // A run-up that is over was chance, a cluster or a fault: no more than one cluster is learned of it.
        let (all, bad) = (total as f64, bad as f64);
        let expected = all * mean;
        let bad = bad.min(expected + 3.0 * (expected * dispersion).sqrt() + CLUSTERS_LEARNED * size);
        self.disperse(expected, bad);
        Verdict { stand, null, learned: Some((all, bad)) }
    }

    /// By what the null is larger than the mean share, as it wanders.
    fn wanders(&self) -> f64 {
        1.0 + self.wandering.deviation(WANDERING_PRIOR)
    }

    /// Learns how much the bad ones of one observation scatter. Relative to those seen, not expected, so that a
    /// baseline that is not yet right does no harm.
    fn disperse(&mut self, expected: f64, bad: f64) {
        let keep = (1.0 - bad / f64::from(DISPERSION_MEMORY)).max(0.5) as f32;
        self.squares = self.squares * keep + (bad - expected).powi(2) as f32;
        self.counted = self.counted * keep + bad as f32;
    }

    /// Mean size of the clusters in which bad ones come, an upper bound while few are known.
    fn cluster(&self) -> f64 {
        let dispersion =
            (self.squares + PRIOR_SPEAKS_FOR * DISPERSION_PRIOR) / (self.counted + PRIOR_SPEAKS_FOR);
        0.5 * (f64::from(dispersion.max(1.0)) + 1.0)
    }

    /// Bad ones since the run-up began.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.evidence.followed().map_or(0, |followed| followed.bad)
    }

    /// Share of bad ones since the run-up began.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.evidence.followed().map_or(0.0, |followed| followed.bad as f64 / followed.total.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn more_bad_ones_say_more_however_many_there_are_and_however_they_come() {
        for size in [1.0, 1.005, 1.02, 1.3, 3.0, 20.0] {
            for times in GRID {
                let said: Vec<f64> = (1..400).map(|k| clustered(2.6, k, times, size)).collect();
                for (k, pair) in (1..).zip(said.windows(2)) {
                    let more = pair[1] - pair[0];
                    // Counted one by one up to forty, tilted beyond: both say nearly the same there.
                    let slack = if k == COUNTED { 3.0 } else { 1e-9 };
                    assert!(more > -slack, "{k} at {times} times in clusters of {size}: {pair:?}");
                }
                let all = said.last().unwrap();
                assert!(*all > 10.0 || size > 10.0, "{times} times in clusters of {size}: {all}");
            }
        }
    }

    #[test]
    fn what_is_left_of_a_small_share_has_the_logarithm_that_it_has() {
        for n in 0..=1_000 {
            let share = f64::from(n) / 20_000.0;
            let exact = (-share).ln_1p();
            assert!((log_of_rest(share) - exact).abs() <= 1e-8 * exact.abs(), "{share}");
        }
    }

    #[test]
    fn an_outage_of_steady_traffic_is_suspicious_with_its_second_second() {
        // As steady as a generator: a hundredth fails each second, then more than half.
        let mut test = ShareTest::default();
        let (mut total, mut bad, mut suspicious_at) = (1_000.0, 9.0, None);
        for second in 0..220u64 {
            let (seen, failed) = if second < 200 { (56, u64::from(second % 2 == 0)) } else { (136, 81) };
            let at = Timestamp::from_secs(1_000 + second);
            let observed = Observed { now: at, interval: 1_000 + second, last: at };
            let healthy = Duration::from_secs(20);
            let verdict = test.observe(observed, (failed, seen), (bad, total), 0.001, healthy);
            if let Some((all, failed)) = verdict.learned {
                (total, bad) = (total + all, bad + failed);
            }
            if test.evidence.is_active() {
                suspicious_at = suspicious_at.or(Some(second));
            }
        }
        assert!(matches!(suspicious_at, Some(200..=201)), "{suspicious_at:?}");
    }

    #[test]
    fn what_always_failed_is_learned_to_be_well_again() {
        let mut test = ShareTest::default();
        let (mut total, mut bad) = (100.0, 100.0);
        for second in 0..2_000u64 {
            let failed = if second < 100 { 20 } else { 0 };
            let at = Timestamp::from_secs(1_000 + second);
            let observed = Observed { now: at, interval: 1_000 + second, last: at };
            let verdict = test.observe(observed, (failed, 20), (bad, total), 0.001, Duration::from_secs(20));
            (total, bad) = (total * 0.999, bad * 0.999);
            if let Some((all, failed)) = verdict.learned {
                (total, bad) = (total + all, bad + failed);
            }
        }
        assert!(bad / total < 0.1, "{bad} of {total}");
    }
}
