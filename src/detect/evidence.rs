//! Evidence accumulated over time: e-detectors.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Natural logarithm of the accumulated evidence from which a series counts as under suspicion: its
/// baseline stops learning and confirmation hears of it. e⁹ ≈ 8,000 seconds without a false suspicion.
pub const SUSPICION: f64 = 9.0;
/// Evidence is capped where no threshold lies any more.
const CAP: f64 = 1e26;

/// A Shiryaev–Roberts statistic, M ← (M + 1) · e, where e has expectation ≤ 1 while healthy: then
/// the expected time to M ≥ T is at least T (Shin, Ramdas, Rinaldo 2023, "E-detectors"). Beside it
/// the CUSUM of the same evidence, whose last zero is the last healthy moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    m: f64,
    /// Second of the last update: seconds without data have e = 1.
    second: u64,
    cusum: f64,
    healthy_at: Timestamp,
    bad_at: Timestamp,
    active: bool,
    /// Since when it has been healthy again while still active; zero if it is not.
    low_since: Timestamp,
    /// Evidence that a fault is over: CUSUM of healthy against half-way (on a log scale) to the fault.
    recovery: f64,
}

/// Where a series stands after an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Quiet,
    Active,
    /// Healthy again after having been active.
    Cleared,
}

/// What was observed, beside its e-value.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    pub now: Timestamp,
    /// Number of the observation interval; what lies between two observations counts as e = 1.
    pub interval: u64,
    /// Event time of the latest thing seen.
    pub last: Timestamp,
}

/// Natural logarithm of the evidence of recovery from which a series counts as healthy again, and
/// the one it is capped at: a relapse is seen fast.
const HEALTHY_AGAIN: f64 = 3.0;
const RECOVERY_CAP: f64 = 5.0;

impl Evidence {
    /// `log_e`: evidence against health. `log_recovery`: log-likelihood of health over that of
    /// something half-way to the fault.
    pub fn observe(&mut self, seen: Observed, log_e: f64, log_recovery: f64, healthy_for: Duration) -> Stand {
        let elapsed = if self.second == 0 { 1 } else { seen.interval.saturating_sub(self.second).max(1) };
        self.second = seen.interval;
        self.m = ((self.m + elapsed as f64) * log_e.clamp(-500.0, 500.0).exp()).min(CAP);
        self.cusum = (self.cusum + log_e).clamp(0.0, 60.0);
        if self.cusum == 0.0 {
            self.healthy_at = seen.last;
            self.bad_at = Timestamp::ZERO;
        } else if self.bad_at == Timestamp::ZERO {
            self.bad_at = seen.last;
        }
        if !self.active {
            self.active = self.log() >= SUSPICION;
            (self.low_since, self.recovery) = (Timestamp::ZERO, 0.0);
            return if self.active { Stand::Active } else { Stand::Quiet };
        }
        self.recovery = (self.recovery + log_recovery).clamp(0.0, RECOVERY_CAP);
        if self.recovery == 0.0 {
            self.low_since = Timestamp::ZERO;
        } else if self.low_since == Timestamp::ZERO {
            self.low_since = seen.now;
        }
        let for_long = self.low_since != Timestamp::ZERO && seen.now.since(self.low_since) >= healthy_for;
        if for_long && self.recovery >= HEALTHY_AGAIN {
            *self = Self { second: self.second, healthy_at: seen.last, ..Self::default() };
            return Stand::Cleared;
        }
        Stand::Active
    }

    /// Natural logarithm of the accumulated evidence.
    #[must_use]
    pub fn log(&self) -> f64 {
        self.m.max(1e-300).ln()
    }

    /// Whether it is or recently was under suspicion.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the run-up of the evidence has begun.
    #[must_use]
    pub fn is_rising(&self) -> bool {
        self.cusum > 0.0
    }

    /// Whether it is active and not on its way back.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.active && self.recovery < HEALTHY_AGAIN
    }

    /// Last healthy and first bad moment of the present run-up. What was never healthy began, as far as is
    /// known, when it was first seen.
    #[must_use]
    pub fn onset(&self) -> (Timestamp, Timestamp) {
        match (self.healthy_at, self.bad_at) {
            (Timestamp::ZERO, bad) => (bad, bad),
            (healthy, Timestamp::ZERO) => (healthy, healthy),
            both => both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(second: u64) -> Observed {
        Observed { now: Timestamp::from_secs(second), interval: second, last: Timestamp::from_secs(second) }
    }

    #[test]
    fn what_was_bad_from_the_first_moment_began_with_it() {
        let mut evidence = Evidence::default();
        for second in 100..110 {
            evidence.observe(seen(second), 6.0, -2.0, Duration::from_secs(20));
        }
        assert_eq!(evidence.onset(), (Timestamp::from_secs(100), Timestamp::from_secs(100)));
    }

    #[test]
    fn it_rises_clears_and_knows_the_onset() {
        let mut evidence = Evidence::default();
        let healthy = Duration::from_secs(20);
        for second in 100..200 {
            assert_eq!(evidence.observe(seen(second), -0.1, 1.0, healthy), Stand::Quiet);
        }
        assert_eq!(evidence.observe(seen(200), 6.0, -2.0, healthy), Stand::Quiet);
        assert_eq!(evidence.observe(seen(201), 6.0, -2.0, healthy), Stand::Active);
        assert_eq!(evidence.onset(), (Timestamp::from_secs(199), Timestamp::from_secs(200)));
        for second in 202..222 {
            assert_eq!(evidence.observe(seen(second), -20.0, 2.0, healthy), Stand::Active, "{second}");
        }
        assert_eq!(evidence.observe(seen(222), -20.0, 2.0, healthy), Stand::Cleared);
        assert_eq!(evidence.observe(seen(223), -20.0, 2.0, healthy), Stand::Quiet);
    }
}
