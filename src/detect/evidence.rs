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
///
/// There is one of these a test and series, nearly all of them healthy: what is only known while evidence speaks
/// against health, and with it what its owner follows meanwhile (`F`), lies elsewhere then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence<F = ()> {
    m: f32,
    /// Interval of the last update: those without data have e = 1.
    interval: u32,
    healthy_at: Timestamp,
    run_up: Option<Box<RunUp<F>>>,
}

/// From when evidence begins to speak against health until it ceases; until it is healthy again, if it
/// became active.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RunUp<F> {
    cusum: f64,
    bad_at: Timestamp,
    active: bool,
    /// Since when it has been healthy again while still active; zero if it is not.
    low_since: Timestamp,
    /// Evidence that a fault is over: CUSUM of healthy against half-way (on a log scale) to the fault.
    recovery: f64,
    followed: F,
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

impl<F: Default> Evidence<F> {
    /// `log_e`: evidence against health. `log_recovery`: log-likelihood of health over that of
    /// something half-way to the fault.
    pub fn observe(&mut self, seen: Observed, log_e: f64, log_recovery: f64, healthy_for: Duration) -> Stand {
        let interval = u32::try_from(seen.interval).unwrap_or(u32::MAX);
        let elapsed = if self.interval == 0 { 1 } else { interval.saturating_sub(self.interval).max(1) };
        self.interval = interval;
        let m = (f64::from(self.m) + f64::from(elapsed)) * log_e.clamp(-500.0, 500.0).exp();
        self.m = m.min(CAP) as f32;
        let cusum = self.run_up.as_ref().map_or(0.0, |run_up| run_up.cusum) + log_e;
        let cusum = cusum.clamp(0.0, 60.0);
        if cusum == 0.0 {
            self.healthy_at = seen.last;
        }
        let suspicious = self.log() >= SUSPICION;
        if self.run_up.is_none() && cusum == 0.0 && !suspicious {
            return Stand::Quiet;
        }
        let run_up = self.run_up.get_or_insert_default();
        run_up.cusum = cusum;
        if cusum == 0.0 {
            run_up.bad_at = Timestamp::ZERO;
        } else if run_up.bad_at == Timestamp::ZERO {
            run_up.bad_at = seen.last;
        }
        if !run_up.active {
            run_up.active = suspicious;
            if run_up.active {
                return Stand::Active;
            }
            if cusum == 0.0 {
                self.run_up = None;
            }
            return Stand::Quiet;
        }
        run_up.recovery = (run_up.recovery + log_recovery).clamp(0.0, RECOVERY_CAP);
        if run_up.recovery == 0.0 {
            run_up.low_since = Timestamp::ZERO;
        } else if run_up.low_since == Timestamp::ZERO {
            run_up.low_since = seen.now;
        }
        let low_since = run_up.low_since;
        let for_long = low_since != Timestamp::ZERO && seen.now.since(low_since) >= healthy_for;
        if for_long && run_up.recovery >= HEALTHY_AGAIN {
            *self = Self { interval, healthy_at: seen.last, ..Self::default() };
            return Stand::Cleared;
        }
        Stand::Active
    }

    /// What its owner follows since the present run-up began; `None` outside of one.
    #[must_use]
    pub fn followed(&self) -> Option<&F> {
        self.run_up.as_ref().map(|run_up| &run_up.followed)
    }

    pub fn followed_mut(&mut self) -> Option<&mut F> {
        self.run_up.as_mut().map(|run_up| &mut run_up.followed)
    }

    /// Natural logarithm of the accumulated evidence.
    #[must_use]
    pub fn log(&self) -> f64 {
        f64::from(self.m).max(1e-300).ln()
    }

    /// Whether it is or recently was under suspicion.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.run_up.as_ref().is_some_and(|run_up| run_up.active)
    }

    /// Whether the run-up of the evidence has begun.
    #[must_use]
    pub fn is_rising(&self) -> bool {
        self.run_up.as_ref().is_some_and(|run_up| run_up.cusum > 0.0)
    }

    /// Whether it is active and not on its way back.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.run_up.as_ref().is_some_and(|run_up| run_up.active && run_up.recovery < HEALTHY_AGAIN)
    }

    /// Last healthy and first bad moment of the present run-up. What was never healthy began, as far as is
    /// known, when it was first seen.
    #[must_use]
    pub fn onset(&self) -> (Timestamp, Timestamp) {
        let bad_at = self.run_up.as_ref().map_or(Timestamp::ZERO, |run_up| run_up.bad_at);
        match (self.healthy_at, bad_at) {
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
        let mut evidence = Evidence::<()>::default();
        for second in 100..110 {
            evidence.observe(seen(second), 6.0, -2.0, Duration::from_secs(20));
        }
        assert_eq!(evidence.onset(), (Timestamp::from_secs(100), Timestamp::from_secs(100)));
    }

    #[test]
    fn it_rises_clears_and_knows_the_onset() {
        let mut evidence = Evidence::<()>::default();
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
