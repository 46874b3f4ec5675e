//! Histogram points of clients, as one kind of histogram.

use crate::otlp::{Buckets, ExponentialPoint};
use crate::sketch::{Histogram, SCALE};
use smallvec::SmallVec;

/// Buckets a client may send in one point; more are cut. SDKs send at most 160.
const BUCKETS: usize = 4_096;

/// Puts the counts of explicit buckets into the exponential histogram, each at the geometric middle of
/// its bucket, clamped by the extremes where these are known. Bucket `i` holds values in
/// (bounds[i-1], bounds[i]].
pub(super) fn explicit(counts: &[u64], bounds: &[f64], min: Option<f64>, max: Option<f64>) -> Values {
    let mut found = Values::default();
    let min = min.filter(|value| value.is_finite());
    let max = max.filter(|value| value.is_finite());
    for (number, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let low = number.checked_sub(1).and_then(|before| bounds.get(before)).copied();
        let high = bounds.get(number).copied();
        let low = match (low, min) {
            (Some(low), Some(min)) => Some(low.max(min)),
            (low, min) => low.or(min),
        };
        let high = match (high, max) {
            (Some(high), Some(max)) => Some(high.min(max)),
            (high, max) => high.or(max),
        };
        let middle = match (low, high) {
            (Some(low), Some(high)) if low > 0.0 && high > 0.0 => (low * high).sqrt(),
            (Some(low), Some(high)) if low < 0.0 && high < 0.0 => -(low * high).sqrt(),
            (Some(low), Some(high)) => low / 2.0 + high / 2.0,
            (None, Some(high)) if high > 0.0 => high / 2.0,
            (None, Some(edge)) | (Some(edge), None) => edge,
            (None, None) => 0.0,
        };
        found.add(middle, count);
    }
    ascending(&mut found.positive);
    ascending(&mut found.negative);
    found
}

/// Values and their counts on the way into a histogram: buckets ascend, and are mostly few enough for the
/// stack.
#[derive(Debug, Default)]
pub(super) struct Values {
    zero: u64,
    positive: SmallVec<[(i32, u64); 32]>,
    negative: SmallVec<[(i32, u64); 4]>,
}

impl Values {
    fn add(&mut self, value: f64, count: u64) {
        if !value.is_finite() {
            return;
        }
        if value.abs() < f64::MIN_POSITIVE {
            self.zero = self.zero.saturating_add(count);
            return;
        }
        let bucket = Histogram::bucket_of(value.abs());
        if value < 0.0 {
            self.negative.push((bucket, count));
        } else {
            self.positive.push((bucket, count));
        }
    }

    pub fn histogram(&self) -> Histogram {
        Histogram::from_sorted(SCALE, self.zero, &self.positive, &self.negative)
    }

    pub fn add_to(&self, histogram: &mut Histogram) {
        histogram.add_sorted(self.zero, &self.positive, &self.negative);
    }
}

/// Sorts by bucket, and adds up what belongs together.
fn ascending<const N: usize>(side: &mut SmallVec<[(i32, u64); N]>)
where
    [(i32, u64); N]: smallvec::Array<Item = (i32, u64)>,
{
    if !side.is_sorted_by_key(|&(bucket, _)| bucket) {
        side.sort_unstable_by_key(|&(bucket, _)| bucket);
    }
    side.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
}

/// An exponential histogram point at its own scale, or at [`SCALE`] if its own is finer.
pub(super) fn exponential(point: &ExponentialPoint<'_>) -> Histogram {
    let scale = point.scale.clamp(-10, 20);
    let kept = scale.min(i32::from(SCALE));
    let shift = scale - kept;
    let side = |buckets: &Buckets<'_>| {
        let mut side: SmallVec<[(i32, u64); 32]> = (0i32..)
            .zip(buckets.counts().take(BUCKETS))
            .filter(|&(_, count)| count > 0)
            .map(|(number, count)| (buckets.offset.saturating_add(number) >> shift, count))
            .collect();
        ascending(&mut side);
        side
    };
    let (positive, negative) = (side(&point.positive), side(&point.negative));
    Histogram::from_sorted(i8::try_from(kept).unwrap_or(SCALE), point.zero_count, &positive, &negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lie_in_the_middle_of_their_buckets() {
        let histogram = explicit(&[1, 0, 2, 3], &[10.0, 20.0, 40.0], None, None).histogram();
        let near = |q: f64, value: f64| {
            let got = histogram.quantile(q).unwrap();
            assert!((got / value - 1.0).abs() < 0.006, "{q}: {got} for {value}");
        };
        assert_eq!(histogram.count(), 6);
        near(0.1, 5.0);
        near(0.5, 28.28);
        near(1.0, 40.0);
        let clamped = explicit(&[0, 0, 0, 4], &[10.0, 20.0, 40.0], Some(90.0), Some(90.0)).histogram();
        assert!((clamped.quantile(0.5).unwrap() / 90.0 - 1.0).abs() < 0.006);
        let odd = explicit(&[5, 5], &[f64::NAN], Some(f64::INFINITY), None).histogram();
        assert!(odd.count() <= 10);
    }
}
