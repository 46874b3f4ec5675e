//! Points of histograms with explicit bounds while they are being counted.
//!
//! Points of one series mostly have the same bounds. So the counts are added up as they came, bucket by
//! bucket, and go into the exponential histogram once, when the cell is made; equal to putting each point
//! there by itself. Where a point's smallest or largest value narrows a bucket, its count goes there at once.

use super::Distribution;
use super::points::{self, Target, Values};
use crate::otlp::ExplicitRow;
use crate::sketch::Histogram;

/// Sets of bounds that are told apart; points with others go into the exponential histogram one by one.
const SETS: usize = 64;

/// What the cells of one owner share. Keeps its memory when it is emptied.
#[derive(Debug, Default)]
pub(super) struct Explicits {
    sets: Vec<Set>,
    /// The set of the last point.
    last: usize,
    counts: Vec<u64>,
}

/// Bounds, and where the counts of their buckets belong.
#[derive(Debug)]
struct Set {
    raw_bounds: Box<[u8]>,
    targets: Box<[Target]>,
}

/// The points of one series and window.
#[derive(Debug, Default)]
pub(super) struct ExplicitCell {
    /// The bounds, and where the counts begin; the first point decides.
    of: Option<(u32, u32)>,
    sum: f64,
    points: u64,
    /// What is not in the counts.
    rest: Option<Box<Histogram>>,
}

impl Explicits {
    /// Memory of the counts of cells.
    pub fn size_bytes(&self) -> usize {
        size_of_val(self.counts.as_slice())
    }

    pub fn clear(&mut self) {
        self.counts.clear();
        if self.sets.len() >= SETS {
            self.sets.clear();
            self.last = 0;
        }
    }

    /// The number of a point's bounds, if they are told apart.
    fn set_of(&mut self, point: &ExplicitRow<'_>) -> Option<usize> {
        let is = |set: &Set| *set.raw_bounds == *point.raw_bounds;
        if !self.sets.get(self.last).is_some_and(is) {
            self.last = match self.sets.iter().position(is) {
                Some(known) => known,
                None if self.sets.len() < SETS && point.bounds().len() < points::EXPLICIT_BUCKETS => {
                    self.sets.push(Set::of(point));
                    self.sets.len() - 1
                }
                None => return None,
            };
        }
        let fits = self.sets.get(self.last)?.targets.len() == point.counts().len();
        fits.then_some(self.last)
    }
}

impl Set {
    fn of(point: &ExplicitRow<'_>) -> Self {
        let lows = std::iter::once(None).chain(point.bounds().map(Some));
        let highs = point.bounds().map(Some).chain(std::iter::once(None));
        let targets = lows.zip(highs).map(|ends| Target::of(points::middle(ends))).collect();
        Self { raw_bounds: point.raw_bounds.into(), targets }
    }
}

impl ExplicitCell {
    pub fn add(&mut self, point: &ExplicitRow<'_>, shared: &mut Explicits) {
        self.points += 1;
        self.sum += point.sum.filter(|sum| sum.is_finite()).unwrap_or(0.0);
        let set = shared.set_of(point);
        if let (None, Some(set)) = (self.of, set) {
            let begin = shared.counts.len();
            shared.counts.resize(begin + point.counts().len(), 0);
            self.of = u32::try_from(set).ok().zip(u32::try_from(begin).ok());
        }
        let counts = match (self.of, set) {
            (Some((own, begin)), Some(set)) if own as usize == set => shared.counts.get_mut(begin as usize..),
            _ => None,
        };
        let Some(counts) = counts else {
            self.add_values(&points::explicit(point));
            return;
        };
        match points::extremes(point) {
            (None, None) => {
                for (sum, count) in counts.iter_mut().zip(point.counts()) {
                    *sum = sum.saturating_add(count);
                }
            }
            extremes => self.add_within(point, extremes, counts),
        }
    }

    /// Adds a point of which the extremes are known.
    fn add_within(
        &mut self,
        point: &ExplicitRow<'_>,
        (min, max): (Option<f64>, Option<f64>),
        counts: &mut [u64],
    ) {
        let mut narrowed = Values::default();
        let mut bounds = point.bounds();
        let mut low = None;
        for (sum, count) in counts.iter_mut().zip(point.counts()) {
            let high = bounds.next();
            if count > 0 {
                let ends = points::clamped(low, high, min, max);
                if ends == (low, high) {
                    *sum = sum.saturating_add(count);
                } else {
                    narrowed.add(points::middle(ends), count);
                }
            }
            low = high;
        }
        if !narrowed.is_empty() {
            narrowed.sort();
            self.add_values(&narrowed);
        }
    }

    fn add_values(&mut self, values: &Values) {
        values.add_to(self.rest.get_or_insert_default());
    }

    /// Adds what is a distribution already.
    pub fn merge(&mut self, other: &Distribution) {
        self.points += other.points;
        self.sum += other.sum;
        self.rest.get_or_insert_default().merge(&other.histogram);
    }

    /// Memory it takes beside itself and its counts.
    pub fn size_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.size_bytes())
    }

    /// All that was added.
    pub fn distribution(self, shared: &Explicits) -> Distribution {
        let mut values = Values::default();
        if let Some((set, begin)) = self.of
            && let Some(set) = shared.sets.get(set as usize)
            && let Some(counts) = shared.counts.get(begin as usize..)
        {
            for (target, count) in set.targets.iter().zip(counts).filter(|&(_, &count)| count > 0) {
                values.put(*target, *count);
            }
            values.sort();
        }
        let histogram = match self.rest {
            None => values.histogram(),
            Some(mut rest) => {
                values.add_to(&mut rest);
                *rest
            }
        };
        Distribution { histogram, sum: self.sum, points: self.points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
        values.flatten().collect()
    }

    fn point() -> impl Strategy<Value = (Vec<u64>, Vec<f64>, Option<f64>, Option<f64>, u64)> {
        let bounds = prop_oneof![
            4 => Just(vec![0.005, 0.1, 1.0, 10.0]),
            2 => Just(vec![-4.0, -0.5, 0.0, 2.0]),
            1 => Just(vec![f64::NAN, 3.0]),
            1 => Just(vec![]),
            1 => prop::collection::vec(any::<f64>(), 0..5),
        ];
        let counts = prop::collection::vec(prop_oneof![Just(0u64), 1u64..500, Just(u64::MAX)], 0..7);
        let extreme = prop_oneof![3 => Just(None), 3 => (-5.0f64..20.0).prop_map(Some), 1 => any::<f64>().prop_map(Some)];
        (counts, bounds, extreme.clone(), extreme, 0u64..9).prop_map(
            |(mut counts, bounds, min, max, count)| {
                if count > 3 {
                    counts.resize(bounds.len() + 1, count);
                }
                (counts, bounds, min, max, count)
            },
        )
    }

    proptest! {
        /// Adding up first makes what putting each point into the histogram by itself makes.
        #[test]
        fn counts_that_are_added_up_first_make_the_same_histogram(
            points in prop::collection::vec(point(), 1..12)
        ) {
            let mut shared = Explicits::default();
            let mut cell = ExplicitCell::default();
            let mut expected = Distribution::default();
            for (counts, bounds, min, max, count) in &points {
                let raw_counts = raw(counts.iter().map(|count| count.to_le_bytes()));
                let raw_bounds = raw(bounds.iter().map(|bound| bound.to_le_bytes()));
                let point = ExplicitRow {
                    count: *count,
                    sum: Some(0.5),
                    min: *min,
                    max: *max,
                    raw_counts: &raw_counts,
                    raw_bounds: &raw_bounds,
                };
                cell.add(&point, &mut shared);
                points::explicit(&point).add_to(&mut expected.histogram);
                expected.sum += 0.5;
                expected.points += 1;
            }
            prop_assert_eq!(cell.distribution(&shared), expected);
        }
    }
}
