//! Slices of time that are good or bad as a whole, or by their share.

use super::definition::Method;
use super::grain::{Grain, Worth};
use serde::{Deserialize, Serialize};

/// The slices of one objective, in [`crate::aggregate::RATIO_UNIT`]s. One without events is neither good nor
/// bad, and one counts once it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slices(pub(super) Grain);

impl Slices {
    /// `None` for a method without slices.
    pub fn new(method: Method, some_is_bad: bool, period_seconds: u64) -> Option<Self> {
        let (seconds, share) = match method {
            Method::Occurrences => return None,
            Method::Timeslices { slice_s, share } => (slice_s, Some(share)),
            Method::RatioTimeslices { slice_s } => (slice_s, None),
        };
        let worth = Worth::Slice { share, some_is_bad };
        Some(Self(Grain::new(seconds, period_seconds.saturating_mul(2), worth)))
    }

    /// From now on for a period of another length.
    pub fn set_period(&mut self, period_seconds: u64) {
        self.0.keep(period_seconds.saturating_mul(2));
    }

    pub fn add(&mut self, now_second: u64, second: u64, some: u64, total: u64) {
        self.0.add(now_second, second, some, total);
    }

    /// Good and total slices of those that began from one second on, and before another one, and are over.
    pub fn between(&self, now_second: u64, from: u64, to: u64) -> (u64, u64) {
        let to = to.min(now_second);
        if to <= from { (0, 0) } else { self.0.between(from, to) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::RATIO_UNIT;
    use std::collections::BTreeMap;

    #[test]
    fn slices_equal_a_plain_walk_over_all_of_them() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let slice_s = [1, 7, 60, 300][random.usize(0..4)];
            let method = if random.bool() {
                Method::Timeslices { slice_s, share: [0.5, 0.9, 0.99, 1.0][random.usize(0..4)] }
            } else {
                Method::RatioTimeslices { slice_s }
            };
            let mut slices = Slices::new(method, seed % 2 == 0, 86_400).unwrap();
            let mut all: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            let mut now = 1_700_000_000;
            for _ in 0..300 {
                now += random.u64(0..400);
                let second = now - random.u64(0..3_600);
                let total = random.u64(0..50);
                let some = if total == 0 { 0 } else { random.u64(0..=total) };
                slices.add(now, second, some, total);
                let known = all.entry(second / slice_s).or_default();
                *known = (known.0 + some, known.1 + total);
                let from = now - random.u64(0..86_400);
                let to = from + random.u64(0..90_000);
                let (mut good, mut count) = (0, 0);
                for (number, (some, total)) in &all {
                    let inside = *number >= from / slice_s && *number < to.min(now) / slice_s;
                    if !inside || *total == 0 {
                        continue;
                    }
                    let ok = if seed % 2 == 0 { total - some } else { *some };
                    count += RATIO_UNIT;
                    good += match method {
                        Method::Timeslices { share, .. } => {
                            if ok as f64 >= share * *total as f64 {
                                RATIO_UNIT
                            } else {
                                0
                            }
                        }
                        _ => ok * RATIO_UNIT / total,
                    };
                }
                assert_eq!(slices.between(now, from, to), (good, count), "seed {seed}");
            }
        }
    }
}
