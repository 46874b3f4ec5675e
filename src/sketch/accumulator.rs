//! A histogram to which much is added and of which little is asked.

use super::{Histogram, SCALE};
use serde::{Deserialize, Serialize};

/// Adds up histograms in place: a bucket is searched for, where merging packed ones would write all of
/// them anew each time. Holds the positive side and zeros, at [`SCALE`]; written down as the histogram
/// that it stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Histogram", into = "Histogram")]
pub struct Accumulator {
    zero: u64,
    count: u64,
    /// Sorted by bucket, no zero counts.
    positive: Vec<(i32, u64)>,
}

impl Accumulator {
    /// Adds the zeros and positive values of a histogram of durations, which has no others. One of a
    /// coarser scale is left out.
    pub fn add(&mut self, histogram: &Histogram) {
        if histogram.scale() != SCALE {
            return;
        }
        self.zero = self.zero.saturating_add(histogram.zeros());
        self.count = self.count.saturating_add(histogram.zeros());
        for (bucket, count) in histogram.positive() {
            self.count = self.count.saturating_add(count);
            match self.positive.binary_search_by_key(&bucket, |&(known, _)| known) {
                Ok(at) => {
                    if let Some((_, sum)) = self.positive.get_mut(at) {
                        *sum = sum.saturating_add(count);
                    }
                }
                Err(at) => self.positive.insert(at, (bucket, count)),
            }
        }
    }

    /// Values added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All that was added.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        Histogram::from_sorted(SCALE, self.zero, &self.positive, &[])
    }
}

impl From<Histogram> for Accumulator {
    fn from(histogram: Histogram) -> Self {
        let mut accumulator = Self::default();
        accumulator.add(&histogram);
        accumulator
    }
}

impl From<Accumulator> for Histogram {
    fn from(accumulator: Accumulator) -> Self {
        accumulator.histogram()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_merging(many in prop::collection::vec(prop::collection::vec(0.0f64..1e10, 0..40), 0..20)) {
            let (mut accumulator, mut merged) = (Accumulator::default(), Histogram::new());
            for values in many {
                let mut one = Histogram::new();
                values.into_iter().for_each(|value| one.record(value));
                accumulator.add(&one);
                merged.merge(&one);
            }
            prop_assert_eq!(&accumulator.histogram(), &merged);
            prop_assert_eq!(accumulator.count(), merged.count());
            let written = postcard::to_stdvec(&accumulator).unwrap();
            prop_assert_eq!(&written, &postcard::to_stdvec(&merged).unwrap());
            prop_assert_eq!(postcard::from_bytes::<Accumulator>(&written).unwrap(), accumulator);
        }
    }
}
