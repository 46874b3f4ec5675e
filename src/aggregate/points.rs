//! Histogram points of clients, as one kind of histogram.

use crate::otlp::{Buckets, ExplicitRow, ExponentialPoint};
use crate::sketch::{Histogram, SCALE};
use smallvec::SmallVec;

/// Buckets a client may send in one point; more are cut. SDKs send at most 160.
const BUCKETS: usize = 4_096;
/// The same of a point with explicit bounds.
pub(super) const EXPLICIT_BUCKETS: usize = 1_024;

/// Puts the counts of explicit buckets into the exponential histogram, each at the geometric middle of
/// its bucket, clamped by the extremes where these are known. Bucket `i` holds values in
/// (bounds[i-1], bounds[i]].
pub(super) fn explicit(point: &ExplicitRow<'_>) -> Values {
    let mut found = Values::default();
    let (min, max) = extremes(point);
    let mut low = None;
    let mut bounds = point.bounds();
    for count in point.counts().take(EXPLICIT_BUCKETS) {
        let high = bounds.next();
        if count > 0 {
            found.add(middle(clamped(low, high, min, max)), count);
        }
        // Beyond the last bound there is none to begin from.
        low = high;
    }
    if point.raw_counts.is_empty() && point.count > 0 {
        // A histogram without buckets: sum and count alone.
        found.add(middle(clamped(None, point.bounds().next(), min, max)), point.count);
    }
    found.sort();
    found
}

/// The finite ones of a point's smallest and largest value.
pub(super) fn extremes(point: &ExplicitRow<'_>) -> (Option<f64>, Option<f64>) {
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    (finite(point.min), finite(point.max))
}

/// The ends of a bucket, no wider than the extremes.
#[inline]
pub(super) fn clamped(
    low: Option<f64>,
    high: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
) -> (Option<f64>, Option<f64>) {
    let low = match (low, min) {
        (Some(low), Some(min)) => Some(low.max(min)),
        (low, min) => low.or(min),
    };
    let high = match (high, max) {
        (Some(high), Some(max)) => Some(high.min(max)),
        (high, max) => high.or(max),
    };
    (low, high)
}

/// The value that stands for a bucket with these ends.
#[inline]
pub(super) fn middle(ends: (Option<f64>, Option<f64>)) -> f64 {
    match ends {
        (Some(low), Some(high)) if low > 0.0 && high > 0.0 => (low * high).sqrt(),
        (Some(low), Some(high)) if low < 0.0 && high < 0.0 => -(low * high).sqrt(),
        (Some(low), Some(high)) => low / 2.0 + high / 2.0,
        (None, Some(high)) if high > 0.0 => high / 2.0,
        (None, Some(edge)) | (Some(edge), None) => edge,
        (None, None) => 0.0,
    }
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
    pub fn add(&mut self, value: f64, count: u64) {
        self.put(Target::of(value), count);
    }

    pub fn put(&mut self, target: Target, count: u64) {
        match target {
            Target::Nothing => {}
            Target::Zero => self.zero = self.zero.saturating_add(count),
            Target::Positive(bucket) => self.positive.push((bucket, count)),
            Target::Negative(bucket) => self.negative.push((bucket, count)),
        }
    }

    /// Puts what was added in order.
    pub fn sort(&mut self) {
        ascending(&mut self.positive);
        ascending(&mut self.negative);
    }

    pub fn is_empty(&self) -> bool {
        self.zero == 0 && self.positive.is_empty() && self.negative.is_empty()
    }

    pub fn histogram(&self) -> Histogram {
        Histogram::from_sorted(SCALE, self.zero, &self.positive, &self.negative)
    }

    pub fn add_to(&self, histogram: &mut Histogram) {
        histogram.add_sorted(self.zero, &self.positive, &self.negative);
    }
}

/// Where in a histogram a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere: it is not finite.
    Nothing,
    Zero,
    Positive(i32),
    Negative(i32),
}

impl Target {
    pub fn of(value: f64) -> Self {
        if !value.is_finite() {
            Self::Nothing
        } else if value.abs() < f64::MIN_POSITIVE {
            Self::Zero
        } else if value < 0.0 {
            Self::Negative(Histogram::bucket_of(value.abs()))
        } else {
            Self::Positive(Histogram::bucket_of(value))
        }
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

    /// Counts and bounds as they lie on the wire.
    fn raw(counts: &[u64], bounds: &[f64]) -> (Vec<u8>, Vec<u8>) {
        let counts = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        (counts, bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect())
    }

    fn of(counts: &[u64], bounds: &[f64], min: Option<f64>, max: Option<f64>) -> Histogram {
        let (raw_counts, raw_bounds) = raw(counts, bounds);
        let point = ExplicitRow {
            min,
            max,
            raw_counts: &raw_counts,
            raw_bounds: &raw_bounds,
            ..ExplicitRow::default()
        };
        explicit(&point).histogram()
    }

    #[test]
    fn counts_lie_in_the_middle_of_their_buckets() {
        let histogram = of(&[1, 0, 2, 3], &[10.0, 20.0, 40.0], None, None);
        let near = |q: f64, value: f64| {
            let got = histogram.quantile(q).unwrap();
            assert!((got / value - 1.0).abs() < 0.006, "{q}: {got} for {value}");
        };
        assert_eq!(histogram.count(), 6);
        near(0.1, 5.0);
        near(0.5, 28.28);
        near(1.0, 40.0);
        let clamped = of(&[0, 0, 0, 4], &[10.0, 20.0, 40.0], Some(90.0), Some(90.0));
        assert!((clamped.quantile(0.5).unwrap() / 90.0 - 1.0).abs() < 0.006);
        let odd = of(&[5, 5], &[f64::NAN], Some(f64::INFINITY), None);
        assert!(odd.count() <= 10);
    }
}
