//! Exact good and total counts over rolling windows, at the grain of their age.

use super::grain::{Grain, Worth};
use serde::{Deserialize, Serialize};

/// Seconds a slot lasts and how long slots are kept: seconds for 2 h, 10 s for 4 d; minutes for two
/// periods of the objective.
const FINE: [(u64, u64); 2] = [(1, 7_200), (10, 345_600)];

/// The counts of one objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub(super) grains: Vec<Grain>,
}

impl Counts {
    /// For an objective over a period of so many seconds.
    #[must_use]
    pub fn new(period_seconds: u64) -> Self {
        let minutes = (60, period_seconds.saturating_mul(2));
        let grain = |(seconds, keep_seconds)| Grain::new(seconds, keep_seconds, Worth::Events);
        Self { grains: FINE.into_iter().chain([minutes]).map(grain).collect() }
    }

    /// Counts what happened in a second of event time. Older than what a grain keeps is let go there.
    pub fn add(&mut self, now_second: u64, second: u64, good: u64, total: u64) {
        for grain in &mut self.grains {
            grain.add(now_second, second, good, total);
        }
    }

    /// From now on for a period of another length. What was let go is not had back.
    pub fn set_period(&mut self, period_seconds: u64) {
        if let Some(minutes) = self.grains.last_mut() {
            minutes.keep(period_seconds.saturating_mul(2));
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
        let grain = self.grains.iter().find(|grain| age <= grain.keep_seconds()).or(self.grains.last());
        let Some(grain) = grain.filter(|_| from < to) else { return (0, 0) };
        // Nothing lies further ahead than a moment.
        if to > now_second.saturating_add(3_600) { grain.since(from) } else { grain.between(from, to) }
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
