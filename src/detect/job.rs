//! Schedules learned from root spans, and runs that are missed.
//!
//! A series is taken for a job when its runs follow each other regularly. How many runs that takes
//! depends on how regular they are: three pauses of nearly one length, or more of similar length.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Pauses remembered.
const REMEMBERED: usize = 12;
/// What runs more often than this is traffic, not a job.
const PERIOD_AT_LEAST_S: f64 = 3.0;
const GRACE_AT_LEAST_S: f64 = 3.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// End of the latest run.
    pub last: Timestamp,
    /// Pauses between runs in seconds, oldest first.
    pauses: Vec<f32>,
    pub missed: bool,
}

/// A learned schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub period: Duration,
    pub grace: Duration,
}

impl Job {
    /// Runs that ended between `first` and `last`. True if a run had been missed and they end that.
    pub fn ran(&mut self, first: Timestamp, last: Timestamp, runs: u64) -> bool {
        if self.last == Timestamp::ZERO {
            self.last = first;
        } else if first > self.last && !self.missed {
            self.note(first.since(self.last).as_secs_f64());
        }
        if runs > 1 {
            let pause = last.since(first).as_secs_f64() / (runs - 1) as f64;
            (1..runs.min(4)).for_each(|_| self.note(pause));
        }
        self.last = self.last.max(last);
        std::mem::replace(&mut self.missed, false)
    }

    fn note(&mut self, seconds: f64) {
        if self.pauses.len() == REMEMBERED {
            self.pauses.remove(0);
        }
        self.pauses.push(seconds as f32);
    }

    /// The schedule, if the runs are regular enough to be one.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        let mut sorted = self.pauses.clone();
        sorted.sort_by(f32::total_cmp);
        let median = f64::from(*sorted.get(sorted.len() / 2)?);
        let (shortest, longest) = (f64::from(*sorted.first()?), f64::from(*sorted.last()?));
        // The tolerance grows with the number of pauses that speak for a schedule: three pauses of an
        // irregular stream are rarely alike within 20 %, six rarely within a factor of two.
        let (below, above) = match sorted.len() {
            0..3 => return None,
            3 => (0.85, 1.18),
            4..6 => (0.75, 1.33),
            _ => (0.6, 1.5),
        };
        if median < PERIOD_AT_LEAST_S || shortest < below * median || longest > above * median {
            return None;
        }
        let jitter = (longest - median).max(median - shortest);
        let grace = (0.25 * median).max(2.0 * jitter).max(GRACE_AT_LEAST_S);
        Some(Schedule {
            period: Duration::try_from_secs_f64(median).ok()?,
            grace: Duration::try_from_secs_f64(grace).ok()?,
        })
    }

    /// Pauses known.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.pauses.len()
    }

    /// When the next run counts as missed.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let schedule = self.schedule()?;
        Some(self.last.saturating_add(schedule.period).saturating_add(schedule.grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_runs_are_a_schedule_and_irregular_ones_are_not() {
        let at = |s: f64| Timestamp((s * 1e9) as u64);
        for (period, jitter) in [(5.0, 0.2), (10.0, 0.5), (86_400.0, 60.0)] {
            let mut job = Job::default();
            for n in 0..4 {
                let end = 1e6 + f64::from(n) * period + if n % 2 == 0 { jitter } else { 0.0 };
                job.ran(at(end), at(end), 1);
            }
            let schedule = job.schedule().expect("regular");
            assert!((schedule.period.as_secs_f64() / period - 1.0).abs() < 0.06, "{schedule:?}");
            assert!(schedule.grace.as_secs_f64() >= 0.25 * schedule.period.as_secs_f64() - 1e-3);
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut taken = 0;
        for _ in 0..2000 {
            let (mut job, mut end) = (Job::default(), 1e6);
            for _ in 0..13 {
                end -= 8.0 * random.f64().max(1e-9).ln();
                job.ran(at(end), at(end), 1);
            }
            taken += usize::from(job.schedule().is_some());
        }
        assert_eq!(taken, 0, "a Poisson stream is not a job");
        let mut job = Job::default();
        for n in 0..100 {
            job.ran(at(1e6 + f64::from(n) * 0.1), at(1e6 + f64::from(n) * 0.1), 1);
        }
        assert_eq!(job.schedule(), None, "regular traffic is not a job");
    }
}
