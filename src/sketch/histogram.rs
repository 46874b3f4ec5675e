//! Base-2 exponential histogram (OpenTelemetry metrics data model, "ExponentialHistogram").

use super::buckets::Buckets;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The one scale at which everything is recorded: 64 buckets an octave, so that a bucket's middle is
/// at most 0.55 % away from any value in it. A fixed scale makes merges bit-equal in any order.
pub const SCALE: i8 = 6;

const BUCKETS_AN_OCTAVE: usize = 1 << SCALE;

/// How values of an octave find their bucket: each of 128 equal parts of it lies in one bucket or in two,
/// and a comparison tells which.
struct Octave {
    /// The bucket in which each part begins.
    first: [u8; 2 * BUCKETS_AN_OCTAVE],
    /// Mantissa bits of the upper bounds of the buckets from 1 to 2: 2^(1/64), 2^(2/64) …
    bounds: [u64; BUCKETS_AN_OCTAVE],
}

const MANTISSA_BITS: u32 = 52;
const PART_BITS: u32 = SCALE as u32 + 1;

static OCTAVE: LazyLock<Octave> = LazyLock::new(|| {
    let mut bounds = std::array::from_fn(|n| {
        ((n + 1) as f64 / BUCKETS_AN_OCTAVE as f64).exp2().to_bits() & ((1 << MANTISSA_BITS) - 1)
    });
    // 2 itself has the mantissa of 1.
    bounds[BUCKETS_AN_OCTAVE - 1] = 1 << MANTISSA_BITS;
    let first = std::array::from_fn(|part| {
        let start = (part as u64) << (MANTISSA_BITS - PART_BITS);
        bounds.partition_point(|&bound| bound < start) as u8
    });
    Octave { first, bounds }
});

/// A sparse histogram. Bucket `i` holds values in (2^(i/2^scale), 2^((i+1)/2^scale)].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Histogram {
    scale: i8,
    zero: u64,
    positive: Buckets,
    negative: Buckets,
}

/// A histogram as it is read back.
#[derive(Deserialize)]
struct Written {
    scale: i8,
    zero: u64,
    positive: Buckets,
    negative: Buckets,
}

impl TryFrom<Written> for Histogram {
    type Error = &'static str;

    fn try_from(of: Written) -> Result<Self, Self::Error> {
        if of.scale > SCALE {
            return Err("a histogram of a finer scale than there is");
        }
        Ok(Self { scale: of.scale, zero: of.zero, positive: of.positive, negative: of.negative })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { scale: SCALE, zero: 0, positive: Buckets::default(), negative: Buckets::default() }
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

    /// A histogram of this scale, of `zero` zeros and of buckets, which must ascend and have no zero counts.
    #[must_use]
    pub fn from_sorted(scale: i8, zero: u64, positive: &[(i32, u64)], negative: &[(i32, u64)]) -> Self {
        for side in [positive, negative] {
            debug_assert!(side.is_sorted_by(|a, b| a.0 < b.0) && side.iter().all(|&(_, count)| count > 0));
        }
        let [positive, negative] = [positive, negative].map(|side| Buckets::of(side.iter().copied()));
        Self { scale: scale.min(SCALE), zero, positive, negative }
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
        grown.positive.subtract(&earlier.positive)?;
        grown.negative.subtract(&earlier.negative)?;
        Some(grown)
    }

    #[must_use]
    pub fn scale(&self) -> i8 {
        self.scale
    }

    /// The bucket of a positive, finite, normal value at [`SCALE`].
    #[must_use]
    #[inline]
    pub fn bucket_of(value: f64) -> i32 {
        let bits = value.to_bits();
        let exponent = ((bits >> MANTISSA_BITS) & 0x7ff) as i32 - 1023;
        let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
        let octave = &*OCTAVE;
        let part = (mantissa >> (MANTISSA_BITS - PART_BITS)) as usize;
        let first = octave.first.get(part).copied().unwrap_or(0);
        let beyond = octave.bounds.get(usize::from(first)).is_some_and(|&bound| bound < mantissa);
        // A power of two is the upper bound of the bucket below it.
        exponent * BUCKETS_AN_OCTAVE as i32 + i32::from(first) + i32::from(beyond) - i32::from(mantissa == 0)
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
        side.add(std::iter::once((bucket, times)));
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
            self.positive.add(other.positive.iter());
            self.negative.add(other.negative.iter());
        } else {
            let (positive, negative) = (other.positive.coarser(shift), other.negative.coarser(shift));
            self.positive.add(positive.iter());
            self.negative.add(negative.iter());
        }
    }

    /// Adds zeros and buckets of [`SCALE`], which must ascend: as [`Histogram::merge`] of what
    /// [`Histogram::from_sorted`] makes of them.
    pub fn add_sorted(&mut self, zero: u64, positive: &[(i32, u64)], negative: &[(i32, u64)]) {
        if self.scale == SCALE {
            self.zero = self.zero.saturating_add(zero);
            self.positive.add(positive.iter().copied());
            self.negative.add(negative.iter().copied());
        } else {
            self.merge(&Self::from_sorted(SCALE, zero, positive, negative));
        }
    }

    fn lower_scale(&mut self, scale: i8) {
        let shift = self.scale - scale;
        self.positive = self.positive.coarser(shift);
        self.negative = self.negative.coarser(shift);
        self.scale = scale;
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.positive.count().saturating_add(self.negative.count()).saturating_add(self.zero)
    }

    /// How many values were zero.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.zero
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
        // Negative values ascend as their buckets descend: what is not below this rank from the other end.
        let negative = self.negative.count();
        if rank <= negative {
            let mut from_zero = negative - rank + 1;
            for (bucket, here) in self.negative.iter() {
                from_zero = from_zero.saturating_sub(here);
                if from_zero == 0 {
                    return Some(-Self::middle_of(bucket, self.scale));
                }
            }
        }
        let mut left = rank - negative;
        if left <= self.zero {
            return Some(0.0);
        }
        left -= self.zero;
        let mut last = None;
        for (bucket, here) in self.positive.iter() {
            last = Some(bucket);
            left = left.saturating_sub(here);
            if left == 0 {
                break;
            }
        }
        last.map(|bucket| Self::middle_of(bucket, self.scale))
    }

    /// How many values lie in buckets above that of `value`.
    #[must_use]
    pub fn count_above(&self, value: f64) -> u64 {
        if value < f64::MIN_POSITIVE {
            return self.positive.count();
        }
        let bucket = Self::bucket_of(value) >> (SCALE - self.scale);
        self.positive.iter().filter(|&(at, _)| at > bucket).map(|(_, count)| count).sum()
    }

    /// `(bucket, count)` of the positive values, ascending, at this histogram's scale.
    pub fn positive(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        self.positive.iter()
    }

    /// What it takes of memory, itself included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.positive.size_bytes() + self.negative.size_bytes()
    }
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
        fn a_value_lies_in_its_bucket(value in prop_oneof![1e-300f64..1e300, 0.9f64..2.1]) {
            let bucket = Histogram::bucket_of(value);
            // The straightforward way, of which the edges of buckets are the last digits.
            let position = value.log2() * 64.0;
            prop_assert!((f64::from(bucket)..=f64::from(bucket + 1)).contains(&position)
                || (position - position.round()).abs() < 1e-9, "{bucket} {position}");
            prop_assert!((Histogram::middle_of(bucket, SCALE) / value - 1.0).abs() < 0.0055);
        }
    }

    #[test]
    fn bounds_belong_below_and_what_follows_them_above() {
        for n in 0..64 {
            let bound = (f64::from(n + 1) / 64.0).exp2();
            assert_eq!(Histogram::bucket_of(bound), n);
            assert_eq!(Histogram::bucket_of(f64::from_bits(bound.to_bits() + 1)), n + 1);
        }
    }

    #[test]
    fn a_thousand_latencies_take_no_more_than_half_a_kibibyte() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut histogram = Histogram::new();
        for _ in 0..1_000 {
            // Log-normal, as latencies of requests are.
            let normal =
                (-2.0 * random.f64().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
            histogram.record(20e6 * (0.6 * normal).exp());
        }
        assert!(histogram.size_bytes() <= 512, "{}", histogram.size_bytes());
    }

    #[test]
    fn powers_of_two_belong_below() {
        assert_eq!(Histogram::bucket_of(1.0), -1);
        assert_eq!(Histogram::bucket_of(2.0), 63);
        assert_eq!(Histogram::bucket_of(2.000_001), 64);
    }
}
