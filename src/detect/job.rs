//! Schedules learned from root spans, and runs that are missed.
//!
//! A series is taken for a job when its runs follow each other regularly. How many runs that takes
//! depends on how regular they are: three pauses of nearly one length, or more of similar length.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Pauses remembered.
const REMEMBERED: usize = 24;
/// Pauses of late from which a plain period is learned.
const RECENT: usize = 12;
/// Runs of the longest cycle that is recognised: each weekday, twice.
const CYCLE_AT_MOST: usize = 10;
/// What runs each day may run on weekdays only.
const DAILY: std::ops::RangeInclusive<f64> = 0.75 * 86_400.0..=1.25 * 86_400.0;
const WEEK_S: f64 = 6.9 * 86_400.0;
/// How far, as a share, a pause may be from the one a cycle before, and how many pairs have to be alike.
const ALIKE: f64 = 0.1;
const PAIRS_AT_LEAST: usize = 4;
/// A run that fails is news when failures in a row are at most this likely in its past,
const UNUSUAL: f64 = 0.05;
/// if it is one of a job that runs no more often than this, or the second in a row,
const RARE: Duration = Duration::from_secs(3_600);
/// and worth waking somebody from here.
const GRAVE: f64 = 0.001;
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
    /// Runs and failed runs, up to the present row of failures.
    succeeded: u32,
    failed: u32,
    failing: u32,
    /// Whether it was said that it fails.
    told: bool,
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

    /// How its runs ended. `Some` if that is news: true if it fails, and whether that is grave.
    pub fn ended(&mut self, runs: u64, failed: u64) -> Option<(bool, bool)> {
        if failed == 0 || failed < runs {
            self.succeeded = self.succeeded.saturating_add(1);
            self.failed = self.failed.saturating_add(std::mem::take(&mut self.failing));
            return std::mem::replace(&mut self.told, false).then_some((false, false));
        }
        self.failing = self.failing.saturating_add(1);
        let share = f64::from(self.failed.saturating_add(1))
            / f64::from(self.succeeded.saturating_add(self.failed).saturating_add(2));
        let likely = share.powi(i32::try_from(self.failing.min(1_000)).unwrap_or(1));
        let schedule = self.schedule()?;
        // One run of many an hour is tried again soon.
        let alone = self.failing < 2 && schedule.period < RARE;
        if likely > UNUSUAL || alone {
            return None;
        }
        let before = share.powi(i32::try_from(self.failing.min(1_000)).unwrap_or(1) - 1);
        let grave = likely <= GRAVE;
        // Said when it begins and when it gets grave.
        let news = !self.told || (grave && before > GRAVE);
        self.told = true;
        news.then_some((true, grave))
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
        self.plain().or_else(|| self.cycle())
    }

    /// Pauses that come again in the same order, such as those of a job that runs on weekdays or at 9 and
    /// at 17 o'clock: the next pause is the one that followed a cycle ago.
    fn cycle(&self) -> Option<Schedule> {
        let pauses: Vec<f64> = self.pauses.iter().map(|pause| f64::from(*pause)).collect();
        (2..=CYCLE_AT_MOST).find_map(|length| {
            let pairs = pauses.iter().zip(pauses.get(length..)?);
            let (mut count, mut apart) = (0usize, 0.0f64);
            for (a, b) in pairs {
                if (a - b).abs() > ALIKE * a.max(*b) {
                    return None;
                }
                (count, apart) = (count + 1, apart.max((a - b).abs()));
            }
            let next = *pauses.get(pauses.len().checked_sub(length)?)?;
            let shortest = pauses.iter().copied().fold(f64::INFINITY, f64::min);
            if count < PAIRS_AT_LEAST.max(length) || shortest < PERIOD_AT_LEAST_S {
                return None;
            }
            let grace = (0.25 * shortest).max(2.0 * apart).max(GRACE_AT_LEAST_S);
            Some(Schedule {
                period: Duration::try_from_secs_f64(next).ok()?,
                grace: Duration::try_from_secs_f64(grace).ok()?,
            })
        })
    }

    /// Pauses that are all alike.
    fn plain(&self) -> Option<Schedule> {
        let recent = self.pauses.len().saturating_sub(RECENT);
        let mut sorted = self.pauses.get(recent..)?.to_vec();
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
        // A week has to have been seen: five daily runs may be those of weekdays.
        let spanned: f32 = sorted.iter().sum();
        if DAILY.contains(&median) && f64::from(spanned) < WEEK_S {
            return None;
        }
        let jitter = (longest - median).max(median - shortest);
        let grace = (0.25 * median).max(2.0 * jitter).max(GRACE_AT_LEAST_S);
        Some(Schedule {
            period: Duration::try_from_secs_f64(median).ok()?,
            grace: Duration::try_from_secs_f64(grace).ok()?,
        })
    }

    /// Forgets the schedule: what is seen from now on is another share of the runs.
    pub fn relearn(&mut self) {
        self.pauses.clear();
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
        for (period, jitter) in [(5.0, 0.2), (10.0, 0.5), (3_600.0, 60.0)] {
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
