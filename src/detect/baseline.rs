//! How long requests usually take: fading counts by bucket of duration.

use serde::{Deserialize, Serialize};

/// Buckets kept side by side; what lies outside counts as in the outermost one.
const BUCKETS: usize = 256;
/// Instead of making all counts smaller each time, new ones are written larger, up to so many times.
const LARGEST_SCALE: f32 = 8.0;
/// A count at the edge that has faded to less is forgotten.
const FORGOTTEN: f32 = 0.01;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    first: i32,
    /// Counts from bucket `first` on, times `scale`.
    counts: Vec<f32>,
    total: f32,
    scale: f32,
}

impl Default for Baseline {
    fn default() -> Self {
        Self { first: 0, counts: Vec::new(), total: 0.0, scale: 1.0 }
    }
}

impl Baseline {
    /// All that was counted, as far as it has not faded.
    #[must_use]
    pub fn total(&self) -> f64 {
        f64::from(self.total / self.scale)
    }

    /// Leaves this share, in (0, 1], of what was counted.
    pub fn fade(&mut self, keep: f64) {
        self.scale /= keep as f32;
        if self.scale < LARGEST_SCALE {
            return;
        }
        for count in &mut self.counts {
            *count /= self.scale;
        }
        let kept = |count: &f32| *count > FORGOTTEN;
        self.counts.truncate(self.counts.iter().rposition(kept).map_or(0, |last| last + 1));
        let forgotten = self.counts.iter().position(kept).unwrap_or(0);
        self.counts.drain(..forgotten);
        self.first = self.first.saturating_add(forgotten as i32);
        (self.total, self.scale) = (self.counts.iter().sum(), 1.0);
    }

    pub fn count(&mut self, bucket: i32, count: f64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        let mut at = i64::from(bucket) - i64::from(self.first);
        if at < 0 {
            let more = usize::try_from(-at).unwrap_or(usize::MAX).min(BUCKETS - self.counts.len());
            self.counts.splice(..0, std::iter::repeat_n(0.0, more));
            self.first = self.first.saturating_sub(more as i32);
            at = 0;
        }
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1);
        if at >= self.counts.len() {
            self.counts.reserve_exact(at + 1 - self.counts.len());
            self.counts.resize(at + 1, 0.0);
        }
        let scaled = count as f32 * self.scale;
        if let Some(sum) = self.counts.get_mut(at) {
            *sum += scaled;
            self.total += scaled;
        }
    }

    /// The lowest bucket above which no more than this share lies; `None` if nothing was counted.
    #[must_use]
    pub fn highest_but(&self, share: f64) -> Option<i32> {
        let allowed = share as f32 * self.total;
        let mut above = 0.0f32;
        for (at, count) in self.counts.iter().enumerate().rev() {
            above += count;
            if above > allowed {
                return Some(self.first.saturating_add(at as i32));
            }
        }
        None
    }

    /// What was counted above a bucket.
    #[must_use]
    pub fn above(&self, bucket: i32) -> f64 {
        let skipped = i64::from(bucket) - i64::from(self.first) + 1;
        let skipped = usize::try_from(skipped.max(0)).unwrap_or(usize::MAX);
        f64::from(self.counts.iter().skip(skipped).sum::<f32>() / self.scale)
    }

    /// The bucket in which this share of what was counted is reached.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<i32> {
        let wanted = q as f32 * self.total;
        let mut sum = 0.0f32;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted {
                return Some(self.first.saturating_add(at as i32));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_counts_as_a_map_that_fades_bucket_by_bucket_does() {
        let mut random = fastrand::Rng::with_seed(4);
        let (mut baseline, mut map) = (Baseline::default(), BTreeMap::<i32, f64>::new());
        for round in 0..3_000 {
            let keep = 0.999;
            baseline.fade(keep);
            map.values_mut().for_each(|count| *count *= keep);
            for _ in 0..random.u32(0..4) {
                // The centre moves, so that both ends grow and are forgotten.
                let bucket = 200 + round / 100 + random.i32(-20..20) * i32::from(random.bool());
                let count = random.f64() * 10.0;
                baseline.count(bucket, count);
                *map.entry(bucket).or_default() += count;
            }
            let total: f64 = map.values().sum();
            assert!((baseline.total() - total).abs() <= 1e-3 * total + 0.5, "{} {total}", baseline.total());
            if round < 10 {
                continue;
            }
            for limit in [190, 200, 215, 240] {
                let above: f64 = map.range(limit + 1..).map(|(_, count)| count).sum();
                assert!((baseline.above(limit) - above).abs() <= 1e-3 * total + 0.5);
            }
            let highest = baseline.highest_but(0.01).unwrap();
            let above = |from: i32| map.range(from..).map(|(_, count)| count).sum::<f64>();
            assert!(above(highest) >= 0.009 * total && above(highest + 1) <= 0.011 * total);
            let median = baseline.quantile(0.5).unwrap();
            assert!(above(median) >= 0.499 * total && above(median + 1) <= 0.501 * total);
        }
        assert!(baseline.counts.len() < 100, "{}", baseline.counts.len());
    }

    #[test]
    fn what_lies_far_outside_counts_at_the_edge() {
        let mut baseline = Baseline::default();
        assert_eq!((baseline.highest_but(0.01), baseline.quantile(0.5)), (None, None));
        for bucket in [100, i32::MAX, i32::MIN, 101] {
            baseline.count(bucket, 1.0);
        }
        assert_eq!((baseline.counts.len(), baseline.total()), (BUCKETS, 4.0));
        assert!((baseline.above(101) - 1.0).abs() < 1e-6);
    }
}
