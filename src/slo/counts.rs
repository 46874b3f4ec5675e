//! Exact good and total counts over rolling windows, at the grain of their age.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Seconds a slot lasts and how long slots are kept: seconds for 2 h, 10 s for 4 d; minutes for two
/// periods of the objective.
const FINE: [(u64, u64); 2] = [(1, 7_200), (10, 345_600)];

/// Good and total so far, up to and with a slot. Differences of two give any window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    number: u64,
    good: u64,
    total: u64,
}

/// One grain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grain {
    seconds: u64,
    keep_seconds: u64,
    /// Ascending; only slots in which something happened.
    slots: VecDeque<Slot>,
    /// What was before the first slot.
    before: (u64, u64),
}

impl Grain {
    fn add(&mut self, second: u64, good: u64, total: u64) {
        let number = second / self.seconds;
        // Nearly always the newest, or newer than that.
        let at = match self.slots.back() {
            Some(last) if last.number < number => self.slots.len(),
            Some(last) if last.number == number => self.slots.len() - 1,
            _ => self.slots.partition_point(|slot| slot.number < number),
        };
        if self.slots.get(at).is_none_or(|slot| slot.number != number) {
            let (good, total) = match at.checked_sub(1).and_then(|before| self.slots.get(before)) {
                Some(slot) => (slot.good, slot.total),
                None => self.before,
            };
            self.slots.insert(at, Slot { number, good, total });
        }
        // Nearly always the last one alone.
        for slot in self.slots.iter_mut().skip(at) {
            slot.good += good;
            slot.total += total;
        }
    }

    fn forget(&mut self, now_second: u64) {
        let oldest = now_second.saturating_sub(self.keep_seconds) / self.seconds;
        while let Some(slot) = self.slots.front().filter(|slot| slot.number < oldest) {
            self.before = (slot.good, slot.total);
            self.slots.pop_front();
        }
    }

    fn since(&self, second: u64) -> (u64, u64) {
        let number = second / self.seconds;
        let all = self.slots.back().map_or(self.before, |slot| (slot.good, slot.total));
        let at = self.slots.partition_point(|slot| slot.number < number);
        let earlier = match at.checked_sub(1).and_then(|before| self.slots.get(before)) {
            Some(slot) => (slot.good, slot.total),
            None => self.before,
        };
        (all.0 - earlier.0, all.1 - earlier.1)
    }
}

/// The counts of one objective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    grains: Vec<Grain>,
}

impl Counts {
    /// For an objective over a period of so many seconds.
    #[must_use]
    pub fn new(period_seconds: u64) -> Self {
        let minutes = (60, 2 * period_seconds);
        let grain =
            |(seconds, keep_seconds)| Grain { seconds, keep_seconds, slots: VecDeque::new(), before: (0, 0) };
        Self { grains: FINE.into_iter().chain([minutes]).map(grain).collect() }
    }

    /// Counts what happened in a second of event time. Older than what a grain keeps is let go there.
    pub fn add(&mut self, now_second: u64, second: u64, good: u64, total: u64) {
        for grain in &mut self.grains {
            if now_second.saturating_sub(second) < grain.keep_seconds {
                grain.add(second, good, total);
            }
            grain.forget(now_second);
        }
    }

    /// From now on for a period of another length. What was let go is not had back.
    pub fn set_period(&mut self, period_seconds: u64) {
        if let Some(minutes) = self.grains.last_mut() {
            minutes.keep_seconds = 2 * period_seconds;
        }
    }

    /// Good and total since `now − seconds`, that edge rounded down to the grain of its age.
    #[cfg(test)]
    #[must_use]
    pub fn over(&self, now_second: u64, seconds: u64) -> (u64, u64) {
        self.between(now_second, seconds, now_second.saturating_sub(seconds), u64::MAX)
    }

    /// Good and total from one second on and before another one, both rounded down to the grain of this
    /// age.
    #[must_use]
    pub fn between(&self, now_second: u64, age: u64, from: u64, to: u64) -> (u64, u64) {
        let grain = self.grains.iter().find(|grain| age <= grain.keep_seconds).or(self.grains.last());
        let Some(grain) = grain.filter(|_| from < to) else { return (0, 0) };
        let all = grain.since(from);
        // Nothing lies further ahead than a moment.
        if to > now_second.saturating_add(3_600) {
            return all;
        }
        let after = grain.since(to);
        (all.0 - after.0, all.1 - after.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::{WINDOWS, burn_rate};
    use proptest::prelude::*;

    proptest! {
        /// Every window equals a plain sum over everything that ever happened.
        #[test]
        fn windows_equal_a_plain_sum(
            steps in prop::collection::vec((0u64..4_000, 0u64..3_700, 0u64..1_000, 0u64..1_000), 1..200),
            target in 0.9f64..0.9999,
        ) {
            let period = 30 * 86_400;
            let mut counts = Counts::new(period);
            let mut all = Vec::new();
            let mut now = 1_700_000_000u64;
            for (pause, late, good, bad) in steps {
                now += pause * pause / 40;
                let second = now - late % 3_600;
                counts.add(now, second, good, good + bad);
                all.push((second, good, good + bad));
                for (name, window) in WINDOWS.into_iter().chain([("30d", period)]) {
                    let grain = if window <= 7_200 { 1 } else if window <= 345_600 { 10 } else { 60 };
                    let edge = (now - window) / grain * grain;
                    let inside = all.iter().filter(|(second, ..)| *second >= edge);
                    let (good, total) = inside.fold((0, 0), |(g, t), (_, good, total)| (g + good, t + total));
                    prop_assert_eq!(counts.over(now, window), (good, total), "{}", name);
                    let (g, t) = counts.over(now, window);
                    let oracle = if total == 0 { 0.0 } else { (total - good) as f64 / total as f64 / (1.0 - target) };
                    prop_assert_eq!(burn_rate(g, t, target), oracle);
                }
            }
        }
    }
}
