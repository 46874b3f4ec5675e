//! Histogram points of clients, as one kind of histogram.

use crate::otlp::ExponentialPoint;
use crate::sketch::{Histogram, SCALE};

/// Buckets a client may send in one point; more are cut. SDKs send at most 160.
const BUCKETS: usize = 4_096;

/// Puts the counts of explicit buckets into the exponential histogram, each at the geometric middle of
/// its bucket, clamped by the extremes where these are known. Bucket `i` holds values in
/// (bounds[i-1], bounds[i]].
pub(super) fn explicit(counts: &[u64], bounds: &[f64], min: Option<f64>, max: Option<f64>) -> Histogram {
    let mut histogram = Histogram::new();
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
        histogram.record_many(middle, count);
    }
    histogram
}

/// An exponential histogram point at its own scale, or at [`SCALE`] if its own is finer.
pub(super) fn exponential(point: &ExponentialPoint<'_>) -> Histogram {
    let scale = point.scale.clamp(-10, 20);
    let kept = scale.min(i32::from(SCALE));
    let shift = scale - kept;
    let mut histogram = Histogram::with_scale(i8::try_from(kept).unwrap_or(SCALE));
    histogram.record_zero(point.zero_count);
    for (buckets, negative) in [(point.positive, false), (point.negative, true)] {
        for (number, count) in (0i32..).zip(buckets.counts().take(BUCKETS)) {
            histogram.add_bucket(buckets.offset.saturating_add(number) >> shift, count, negative);
        }
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lie_in_the_middle_of_their_buckets() {
        let histogram = explicit(&[1, 0, 2, 3], &[10.0, 20.0, 40.0], None, None);
        let near = |q: f64, value: f64| {
            let got = histogram.quantile(q).unwrap();
            assert!((got / value - 1.0).abs() < 0.006, "{q}: {got} for {value}");
        };
        assert_eq!(histogram.count(), 6);
        near(0.1, 5.0);
        near(0.5, 28.28);
        near(1.0, 40.0);
        let clamped = explicit(&[0, 0, 0, 4], &[10.0, 20.0, 40.0], Some(90.0), Some(90.0));
        assert!((clamped.quantile(0.5).unwrap() / 90.0 - 1.0).abs() < 0.006);
        let odd = explicit(&[5, 5], &[f64::NAN], Some(f64::INFINITY), None);
        assert!(odd.count() <= 10);
    }
}
