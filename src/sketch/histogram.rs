//! Base-2 exponential histogram (OpenTelemetry metrics data model, "ExponentialHistogram").

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The one scale at which everything is recorded: 64 buckets an octave, so that a bucket's middle is
/// at most 0.55 % away from any value in it. A fixed scale makes merges bit-equal in any order.
pub const SCALE: i8 = 6;

const BUCKETS_AN_OCTAVE: usize = 1 << SCALE;

/// Upper bounds of the buckets of the octave from 1 to 2: 2^(1/64), 2^(2/64) … 2.
static BOUNDS: LazyLock<[f64; BUCKETS_AN_OCTAVE]> =
    LazyLock::new(|| std::array::from_fn(|n| ((n + 1) as f64 / BUCKETS_AN_OCTAVE as f64).exp2()));

/// A sparse histogram. Bucket `i` holds values in (2^(i/2^scale), 2^((i+1)/2^scale)].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    scale: i8,
    zero: u64,
    /// Sorted by bucket, no zero counts.
    positive: Vec<(i32, u64)>,
    negative: Vec<(i32, u64)>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { scale: SCALE, zero: 0, positive: Vec::new(), negative: Vec::new() }
    }
}

impl Histogram {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty histogram of a coarser scale, as clients may send them; `scale` above [`SCALE`] is
    /// lowered to it.
    #[must_use]
    pub fn with_scale(scale: i8) -> Self {
        Self { scale: scale.min(SCALE), ..Self::default() }
    }

    /// A histogram at [`SCALE`] of `zero` zeros and of positive buckets, which must ascend and have no
    /// zero counts.
    #[must_use]
    pub fn from_sorted(zero: u64, positive: Vec<(i32, u64)>) -> Self {
        debug_assert!(
            positive.is_sorted_by(|a, b| a.0 < b.0) && positive.iter().all(|&(_, count)| count > 0)
        );
        Self { zero, positive, ..Self::default() }
    }

    /// What was added to this histogram since it was `earlier`; `None` when it cannot have grown from
    /// that. Of two scales the coarser one wins.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut grown = self.clone();
        let mut earlier = std::borrow::Cow::Borrowed(earlier);
        if earlier.scale < grown.scale {
            grown.lower_scale(earlier.scale);
        } else if earlier.scale > grown.scale {
            earlier.to_mut().lower_scale(grown.scale);
        }
        grown.zero = grown.zero.checked_sub(earlier.zero)?;
        subtract_sorted(&mut grown.positive, &earlier.positive)?;
        subtract_sorted(&mut grown.negative, &earlier.negative)?;
        Some(grown)
    }

    #[must_use]
    pub fn scale(&self) -> i8 {
        self.scale
    }

    /// The bucket of a positive, finite, normal value at [`SCALE`].
    #[must_use]
    pub fn bucket_of(value: f64) -> i32 {
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
        let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
        if mantissa == 1.0 {
            // A bound belongs to the bucket below it.
            return exponent * BUCKETS_AN_OCTAVE as i32 - 1;
        }
        let within = BOUNDS.partition_point(|&bound| bound < mantissa);
        exponent * BUCKETS_AN_OCTAVE as i32 + within as i32
    }

    /// The middle of a bucket, from which no value of the bucket is further than 0.55 % at [`SCALE`].
    #[must_use]
    pub fn middle_of(bucket: i32, scale: i8) -> f64 {
        let width = (-f64::from(scale)).exp2();
        let low = (f64::from(bucket) * width).exp2();
        let ratio = width.exp2();
        low * 2.0 * ratio / (1.0 + ratio)
    }

    /// Counts a value once. Values that are not finite are ignored; subnormal ones count as zero.
    pub fn record(&mut self, value: f64) {
        self.record_many(value, 1);
    }

    pub fn record_many(&mut self, value: f64, times: u64) {
        if times == 0 || !value.is_finite() {
            return;
        }
        if value.abs() < f64::MIN_POSITIVE {
            self.zero = self.zero.saturating_add(times);
            return;
        }
        let bucket = Self::bucket_of(value.abs()) >> (SCALE - self.scale);
        self.add_bucket(bucket, times, value < 0.0);
    }

    pub fn record_zero(&mut self, times: u64) {
        self.zero = self.zero.saturating_add(times);
    }

    /// Adds to a bucket at this histogram's own scale.
    pub fn add_bucket(&mut self, bucket: i32, times: u64, negative: bool) {
        if times == 0 {
            return;
        }
        let side = if negative { &mut self.negative } else { &mut self.positive };
        match side.binary_search_by_key(&bucket, |&(at, _)| at) {
            Ok(at) => {
                if let Some((_, count)) = side.get_mut(at) {
                    *count = count.saturating_add(times);
                }
            }
            Err(at) => side.insert(at, (bucket, times)),
        }
    }

    /// Adds another histogram; of two scales the coarser one wins. Exact: merging in any order gives
    /// equal results.
    pub fn merge(&mut self, other: &Self) {
        if other.scale < self.scale {
            self.lower_scale(other.scale);
        }
        let shift = other.scale - self.scale;
        self.zero = self.zero.saturating_add(other.zero);
        if shift == 0 {
            merge_sorted(&mut self.positive, &other.positive);
            merge_sorted(&mut self.negative, &other.negative);
        } else {
            merge_sorted(&mut self.positive, &coarser(&other.positive, shift));
            merge_sorted(&mut self.negative, &coarser(&other.negative, shift));
        }
    }

    fn lower_scale(&mut self, scale: i8) {
        let shift = self.scale - scale;
        self.positive = coarser(&self.positive, shift);
        self.negative = coarser(&self.negative, shift);
        self.scale = scale;
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        let sum = |side: &[(i32, u64)]| side.iter().fold(0u64, |sum, &(_, count)| sum.saturating_add(count));
        sum(&self.positive).saturating_add(sum(&self.negative)).saturating_add(self.zero)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.zero == 0 && self.positive.is_empty() && self.negative.is_empty()
    }

    /// The value at rank ⌈q·n⌉ (nearest rank, 1-based; q = 0 is the smallest). `None` if empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0u64;
        for &(bucket, here) in self.negative.iter().rev() {
            seen += here;
            if seen >= rank {
                return Some(-Self::middle_of(bucket, self.scale));
            }
        }
        seen += self.zero;
        if seen >= rank {
            return Some(0.0);
        }
        for &(bucket, here) in &self.positive {
            seen += here;
            if seen >= rank {
                return Some(Self::middle_of(bucket, self.scale));
            }
        }
        self.positive.last().map(|&(bucket, _)| Self::middle_of(bucket, self.scale))
    }

    /// How many values lie in buckets above that of `value`.
    #[must_use]
    pub fn count_above(&self, value: f64) -> u64 {
        if value < f64::MIN_POSITIVE {
            return self.positive.iter().map(|&(_, count)| count).sum();
        }
        let bucket = Self::bucket_of(value) >> (SCALE - self.scale);
        self.positive.iter().filter(|&&(at, _)| at > bucket).map(|&(_, count)| count).sum()
    }

    /// `(bucket, count)` of the positive values, ascending, at this histogram's scale.
    #[must_use]
    pub fn positive(&self) -> &[(i32, u64)] {
        &self.positive
    }
}

fn coarser(side: &[(i32, u64)], shift: i8) -> Vec<(i32, u64)> {
    let mut out: Vec<(i32, u64)> = Vec::with_capacity(side.len());
    for &(bucket, count) in side {
        let bucket = bucket >> shift.clamp(0, 31);
        match out.last_mut() {
            Some((last, sum)) if *last == bucket => *sum = sum.saturating_add(count),
            _ => out.push((bucket, count)),
        }
    }
    out
}

fn merge_sorted(into: &mut Vec<(i32, u64)>, other: &[(i32, u64)]) {
    if other.is_empty() {
        return;
    }
    let mut merged = Vec::with_capacity(into.len() + other.len());
    let (mut ours, mut theirs) = (into.iter().copied().peekable(), other.iter().copied().peekable());
    loop {
        match (ours.peek().copied(), theirs.peek().copied()) {
            (Some(a), Some(b)) if a.0 == b.0 => {
                merged.push((a.0, a.1.saturating_add(b.1)));
                ours.next();
                theirs.next();
            }
            (Some(a), Some(b)) if a.0 < b.0 => {
                merged.push(a);
                ours.next();
            }
            (_, Some(b)) => {
                merged.push(b);
                theirs.next();
            }
            (Some(a), None) => {
                merged.push(a);
                ours.next();
            }
            (None, None) => break,
        }
    }
    *into = merged;
}

/// `None` when something is missing of what is to be taken away.
fn subtract_sorted(from: &mut Vec<(i32, u64)>, other: &[(i32, u64)]) -> Option<()> {
    for &(bucket, count) in other {
        let at = from.binary_search_by_key(&bucket, |&(at, _)| at).ok()?;
        let (_, here) = from.get_mut(at)?;
        *here = here.checked_sub(count)?;
    }
    from.retain(|&(_, count)| count > 0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(values: &[f64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_promised_error(values in prop::collection::vec(1e-3f64..1e12, 1..500), q in 0.0f64..=1.0) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&value| histogram.record(value));
            let (got, want) = (histogram.quantile(q).unwrap(), exact(&values, q));
            prop_assert!((got / want - 1.0).abs() <= 0.0055, "{got} against {want}");
        }

        #[test]
        fn merging_in_any_order_is_equal(a in prop::collection::vec(-1e6f64..1e6, 0..50), b in prop::collection::vec(-1e6f64..1e6, 0..50), scale in 0i8..=6) {
            let make = |values: &[f64], scale| {
                let mut histogram = Histogram::with_scale(scale);
                values.iter().for_each(|&value| histogram.record(value));
                histogram
            };
            let (mut left, mut right) = (make(&a, 6), make(&b, scale));
            let (first, second) = (left.clone(), right.clone());
            left.merge(&second);
            right.merge(&first);
            prop_assert_eq!(&left, &right);
            prop_assert_eq!(left.count(), (a.len() + b.len()) as u64);
            prop_assert_eq!(&left, &make(&[a, b].concat(), scale));
        }

        #[test]
        fn what_was_added_since_is_found(a in prop::collection::vec(-1e6f64..1e6, 0..50), b in prop::collection::vec(-1e6f64..1e6, 1..50), scale in 0i8..=6) {
            let make = |values: &[f64]| {
                let mut histogram = Histogram::with_scale(scale);
                values.iter().for_each(|&value| histogram.record(value));
                histogram
            };
            let (earlier, later) = (make(&a), make(&[a.clone(), b.clone()].concat()));
            prop_assert_eq!(later.since(&earlier), Some(make(&b)));
            prop_assert_eq!(earlier.since(&later), None);
            let mut fine = Histogram::new();
            a.iter().for_each(|&value| fine.record(value));
            prop_assert_eq!(later.since(&fine), Some(make(&b)));
        }

        #[test]
        fn a_value_lies_in_its_bucket(value in 1e-300f64..1e300) {
            let bucket = Histogram::bucket_of(value);
            prop_assert!((Histogram::middle_of(bucket, SCALE) / value - 1.0).abs() < 0.0055);
        }
    }

    #[test]
    fn powers_of_two_belong_below() {
        assert_eq!(Histogram::bucket_of(1.0), -1);
        assert_eq!(Histogram::bucket_of(2.0), 63);
        assert_eq!(Histogram::bucket_of(2.000_001), 64);
    }
}
