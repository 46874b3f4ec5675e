//! More requests are slow than were: the share slower than the baseline's 99th percentile, tested
//! as errors are. Robust, exact at low counts, and seen also when the median stands still.

use super::baseline::Baseline;
use super::evidence::{Observed, Stand};
use super::share::{ShareTest, Verdict};
use crate::sketch::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Buckets an octave are 2^COARSE: a bucket is 9 % wide.
const COARSE: i8 = 3;
/// Buckets above the percentile that still count as healthy: slower by up to a fifth is not news.
const MARGIN: i32 = 2;
/// The share of slow requests below which nobody is paged, however sure it is.
const FLOOR: f64 = 0.03;
const MEMORY_S: f64 = 7_200.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    baseline: Baseline,
    pub test: ShareTest,
    /// Median while slow, for the report.
    worst: f32,
}

fn coarse(histogram: &Histogram) -> impl Iterator<Item = (i32, u64)> + '_ {
    let shift = i32::from(histogram.scale() - COARSE);
    histogram.positive().map(move |(bucket, count)| {
        (if shift >= 0 { bucket >> shift.min(31) } else { bucket << (-shift).min(31) }, count)
    })
}

impl Latency {
    /// The last healthy bucket, and the count above it.
    fn threshold(&self) -> (i32, f64) {
        match self.baseline.highest_but(0.01) {
            Some(bucket) => {
                let limit = bucket + MARGIN;
                (limit, self.baseline.above(limit))
            }
            None => (i32::MAX, 0.0),
        }
    }

    pub fn learn(&mut self, seen: &Histogram, slow_above: i32, slow_share: f64) {
        self.baseline.fade(1.0 - 1.0 / MEMORY_S);
        for (bucket, count) in coarse(seen) {
            self.baseline.count(bucket, count as f64 * if bucket > slow_above { slow_share } else { 1.0 });
        }
    }

    pub fn observe(&mut self, seen: Observed, histogram: &Histogram, healthy: Duration) -> Verdict {
        let (limit, above) = self.threshold();
        let (mut total, mut slow) = (0u64, 0u64);
        for (bucket, count) in coarse(histogram) {
            total += count;
            slow += if bucket > limit { count } else { 0 };
        }
        let verdict = self.test.observe(seen, (slow, total), (above, self.baseline.total()), FLOOR, healthy);
        if self.test.evidence.is_active() {
            if let Some(now) = histogram.quantile(0.5) {
                let now = now as f32;
                self.worst = if self.worst == 0.0 { now } else { 0.7 * self.worst + 0.3 * now };
            }
        } else {
            self.worst = 0.0;
            // Nothing slow is learned of a run-up until it is over, and then no more than one cluster.
            let bad = verdict.learned.map_or(0.0, |(_, bad)| bad);
            let share = if slow == 0 { 1.0 } else { (bad / slow as f64).min(1.0) };
            let late = bad - slow as f64;
            if late > 0.0 {
                self.baseline.count(limit.saturating_add(1), late);
            }
            self.learn(histogram, limit, share);
        }
        if verdict.stand == Stand::Cleared {
            self.worst = 0.0;
        }
        verdict
    }

    /// Durations that nearly all requests keep below while healthy, in the unit of what was observed.
    #[must_use]
    pub fn limit(&self) -> f64 {
        match self.threshold() {
            (i32::MAX, _) => f64::INFINITY,
            (bucket, _) => (f64::from(bucket + 1) / f64::from(COARSE).exp2()).exp2(),
        }
    }

    /// Quantile of the baseline, in the same unit.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.baseline.quantile(q).map(|bucket| Histogram::middle_of(bucket, COARSE))
    }

    /// A recent median while slow, in the same unit.
    #[must_use]
    pub fn slow(&self) -> f64 {
        f64::from(self.worst)
    }
}
