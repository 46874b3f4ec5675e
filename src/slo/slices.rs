//! Slices of time that are good or bad as a whole, or by their share.

use super::definition::Method;
use crate::aggregate::RATIO_UNIT;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A slice in which something happened, and the sums up to and with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slice {
    number: u64,
    some: u64,
    total: u64,
    good_slices: u64,
    slices: u64,
}

/// The slices of one objective, in [`RATIO_UNIT`]s. One without events is neither good nor bad, and one
/// counts once it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slices {
    seconds: u64,
    keep_seconds: u64,
    /// Share that makes a slice good; its share itself counts where this is `None`.
    share: Option<f64>,
    some_is_bad: bool,
    slots: VecDeque<Slice>,
    before: (u64, u64),
}

impl Slices {
    /// `None` for a method without slices.
    pub fn new(method: Method, some_is_bad: bool, period_seconds: u64) -> Option<Self> {
        let (seconds, share) = match method {
            Method::Occurrences => return None,
            Method::Timeslices { slice_s, share } => (slice_s, Some(share)),
            Method::RatioTimeslices { slice_s } => (slice_s, None),
        };
        let keep_seconds = period_seconds.saturating_mul(2);
        let seconds = seconds.max(1);
        Some(Self { seconds, keep_seconds, share, some_is_bad, slots: VecDeque::new(), before: (0, 0) })
    }

    /// From now on for a period of another length.
    pub fn set_period(&mut self, period_seconds: u64) {
        self.keep_seconds = period_seconds.saturating_mul(2);
    }

    /// What a slice counts as.
    fn worth(&self, some: u64, total: u64) -> (u64, u64) {
        if total == 0 {
            return (0, 0);
        }
        let some = some.min(total);
        let good = if self.some_is_bad { total - some } else { some };
        let good = match self.share {
            Some(share) if good as f64 >= share * total as f64 => RATIO_UNIT,
            Some(_) => 0,
            None => u64::try_from(u128::from(good) * u128::from(RATIO_UNIT) / u128::from(total)).unwrap_or(0),
        };
        (good, RATIO_UNIT)
    }

    pub fn add(&mut self, now_second: u64, second: u64, some: u64, total: u64) {
        if now_second.saturating_sub(second) >= self.keep_seconds {
            return;
        }
        let number = second / self.seconds;
        let at = self.slots.partition_point(|slot| slot.number < number);
        let before = self.sums_before(at);
        if self.slots.get(at).is_none_or(|slot| slot.number != number) {
            let slot = Slice { number, some: 0, total: 0, good_slices: before.0, slices: before.1 };
            self.slots.insert(at, slot);
        }
        let Some(slot) = self.slots.get(at).copied() else { return };
        let (some, total) = (slot.some.saturating_add(some), slot.total.saturating_add(total));
        let (good, all) = self.worth(some, total);
        let (good, all) = (before.0 + good, before.1 + all);
        // What changed here is added to every sum behind it. Nearly always there is none.
        let (was_good, was_all) = (slot.good_slices, slot.slices);
        for (place, slot) in self.slots.iter_mut().enumerate().skip(at) {
            if place == at {
                (slot.some, slot.total) = (some, total);
            }
            slot.good_slices = slot.good_slices + good - was_good;
            slot.slices = slot.slices + all - was_all;
        }
        let oldest = now_second.saturating_sub(self.keep_seconds) / self.seconds;
        while let Some(slot) = self.slots.front().filter(|slot| slot.number < oldest) {
            self.before = (slot.good_slices, slot.slices);
            self.slots.pop_front();
        }
    }

    fn sums_before(&self, at: usize) -> (u64, u64) {
        let earlier = at.checked_sub(1).and_then(|at| self.slots.get(at));
        earlier.map_or(self.before, |slot| (slot.good_slices, slot.slices))
    }

    /// Good and total slices of those that began from one second on, and before another one, and are over.
    pub fn between(&self, now_second: u64, from: u64, to: u64) -> (u64, u64) {
        let place = |number: u64| self.slots.partition_point(|slot| slot.number < number);
        let to = to.min(now_second);
        if to <= from {
            return (0, 0);
        }
        let (early, late) =
            (self.sums_before(place(from / self.seconds)), self.sums_before(place(to / self.seconds)));
        (late.0 - early.0, late.1 - early.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
