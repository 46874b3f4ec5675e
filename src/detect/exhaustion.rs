//! A pool, a disk or a memory fills up: when will it be full?
//!
//! Straight lines are fitted to the share in use by least squares whose weights fade with age, over minutes to hours.
//! One is believed where it explains nearly all of what moved, which takes three of its memories, and drawn on for no
//! more than three times as long. What has been as full before, as between two collections of garbage, is usual.

use super::finding::Interval;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Ages at which weights have faded to a third, in seconds.
const MEMORIES_S: [f64; 3] = [200.0, 600.0, 2_400.0];
/// How far a line is drawn on, in units of its memory.
const HORIZON: f64 = 9.0;
/// Points that a line is fitted to at least, and the part of its memory over which they are spread.
const POINTS: f64 = 10.0;
const SEEN_FOR: f64 = 1.5;
/// Share of the movement that a line explains, to be believed, and for what is seen not to count as usual.
const EXPLAINS: f64 = 0.9;
const LEANS: f64 = 0.5;
/// In use, and beyond what was seen before, at least.
const HALF: f64 = 0.5;
const BEYOND: f64 = 0.05;
/// Within this time what was seen before fades to a third.
const SEEN_MEMORY_S: f64 = 90.0 * 86_400.0;
/// What was so full was used up, which is never usual.
const USED_UP: f64 = 0.95;
/// Points in a row that begin it, and that end it.
const BEGINS: u8 = 3;
const ENDS: u8 = 3;

/// Least squares with fading weights; times are relative to the last point, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    weight: f64,
    time: f64,
    time_squared: f64,
    share: f64,
    time_share: f64,
    share_squared: f64,
}

/// A fitted line: what is added each second, and the part of the movement that it explains.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fit {
    slope: f64,
    explains: f64,
}

impl Line {
    fn add(&mut self, elapsed_s: f64, share: f64, memory_s: f64) {
        let keep = (-elapsed_s / memory_s).exp();
        let Self { weight, time, time_squared, share: sum, time_share, .. } = *self;
        self.time_squared =
            keep * (time_squared - 2.0 * elapsed_s * time + elapsed_s * elapsed_s * weight).max(0.0);
        self.time = keep * (time - elapsed_s * weight);
        self.time_share = keep * (time_share - elapsed_s * sum);
        self.weight = keep * weight + 1.0;
        self.share = keep * sum + share;
        self.share_squared = keep * self.share_squared + share * share;
    }

    fn fit(&self) -> Option<Fit> {
        let spread = self.weight * self.time_squared - self.time * self.time;
        if self.weight < POINTS || spread <= 0.0 {
            return None;
        }
        let slope = (self.weight * self.time_share - self.time * self.share) / spread;
        let moved = self.share_squared - self.share * self.share / self.weight;
        let explained = slope * slope * spread / self.weight;
        Some(Fit { slope, explains: explained / moved.max(1e-12) })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exhaustion {
    lines: [Line; 3],
    since: Timestamp,
    last: Timestamp,
    /// The highest share while nothing filled up, slowly forgotten, and the highest since it does.
    usual: f64,
    peak: f64,
    filling: u8,
    fine: u8,
    /// When it was last seen to rise no more, and first to fill up.
    fine_at: Timestamp,
    fills_at: Timestamp,
    active: bool,
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlook {
    Fine,
    /// Full after this time, if it goes on like this; and how far ahead is looked.
    Full {
        after: Duration,
        of: Duration,
    },
    /// It fills up no more.
    Over,
}

impl Exhaustion {
    /// A new share in use, 0 to 1.
    pub fn observe(&mut self, at: Timestamp, share: f64) -> Outlook {
        if !share.is_finite() || (self.last != Timestamp::ZERO && at <= self.last) {
            return Outlook::Fine;
        }
        if self.last == Timestamp::ZERO {
            (self.since, self.last, self.usual) = (at, at, share);
        }
        let elapsed_s = at.since(self.last).as_secs_f64();
        self.last = at;
        for (line, memory_s) in self.lines.iter_mut().zip(MEMORIES_S) {
            line.add(elapsed_s, share, memory_s);
        }
        let full_in_s = self.full_in_s(at, share);
        self.follow(full_in_s.is_some(), share, elapsed_s);
        if self.active && self.fine >= ENDS {
            (self.active, self.filling, self.fine) = (false, 0, 0);
            return Outlook::Over;
        }
        let new = share >= HALF && share >= self.usual + BEYOND;
        match full_in_s {
            Some((after_s, of_s)) if self.active || (self.filling >= BEGINS && new) => {
                self.active = true;
                Outlook::Full { after: Duration::from_secs_f64(after_s), of: Duration::from_secs_f64(of_s) }
            }
            _ => Outlook::Fine,
        }
    }

    /// When it began to fill up.
    #[must_use]
    pub fn onset(&self) -> Interval {
        Interval { earliest: self.fine_at, latest: self.fills_at }
    }

    /// Seconds until it is full, where a line says so that is to be believed; and up to how many are looked ahead.
    fn full_in_s(&self, at: Timestamp, share: f64) -> Option<(f64, f64)> {
        let seen_s = at.since(self.since).as_secs_f64();
        let lines = self.lines.iter().zip(MEMORIES_S);
        lines
            .filter(|&(_, memory_s)| seen_s >= SEEN_FOR * memory_s)
            .filter_map(|(line, memory_s)| Some((line.fit()?, memory_s)))
            .find_map(|(fit, memory_s)| {
                let seconds = (1.0 - share).max(0.0) / fit.slope;
                let believed = fit.slope > 0.0 && fit.explains >= EXPLAINS;
                let ahead = HORIZON * memory_s;
                (believed && seconds <= ahead).then_some((seconds, ahead))
            })
    }

    /// Keeps what is usual apart from what was reached while it filled up.
    fn follow(&mut self, fills: bool, share: f64, elapsed_s: f64) {
        if fills {
            if self.filling == 0 {
                self.fills_at = self.last;
            }
            self.filling = self.filling.saturating_add(1);
            self.fine = 0;
            self.peak = self.peak.max(share);
            return;
        }
        (self.filling, self.fine_at) = (0, self.last);
        self.fine = self.fine.saturating_add(1);
        if self.fine >= ENDS {
            self.usual *= 1.0 - (elapsed_s / SEEN_MEMORY_S).min(1.0);
            let mut fits = self.lines.iter().filter_map(Line::fit);
            if !fits.any(|fit| fit.slope > 0.0 && fit.explains >= LEANS) {
                // It was as full, and nothing came of it.
                let seen = [share, self.peak].into_iter().filter(|&seen| seen < USED_UP);
                self.usual = seen.fold(self.usual, f64::max);
                self.peak = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + second)
    }

    /// What was said, and when; and whether it was over in the end.
    fn told(points: impl Iterator<Item = (u64, f64)>) -> (Vec<(u64, Duration)>, bool) {
        let (mut exhaustion, mut told, mut over) = (Exhaustion::default(), Vec::new(), false);
        for (second, share) in points {
            match exhaustion.observe(at(second), share) {
                Outlook::Full { after, .. } => {
                    told.push((second, after));
                    over = false;
                }
                Outlook::Over => over = true,
                Outlook::Fine => {}
            }
        }
        (told, over)
    }

    fn noise(random: &mut fastrand::Rng) -> f64 {
        (random.f64() - 0.5) * 0.02
    }

    #[test]
    fn a_leak_is_told_with_the_time_that_is_left() {
        // A connection leaks every few seconds: from a third, full after 40 minutes.
        for (cadence, fills_in) in [(10, 2_400.0), (15, 3_600.0), (60, 5.0 * 3_600.0), (60, 20.0 * 3_600.0)] {
            let mut random = fastrand::Rng::with_seed(3);
            let begins = 7_200u64;
            let points = (0..begins + 80_000).step_by(cadence).map(|second| {
                let leaked = second.saturating_sub(begins) as f64 / fills_in * 0.67;
                (second, (0.33 + leaked + noise(&mut random)).min(1.0))
            });
            let full_at = begins as f64 + fills_in;
            let (told, _) = told(points.take_while(|&(second, _)| (second as f64) < full_at));
            let truly = |second: u64| full_at - second as f64;
            let (first, said) = told.first().copied().expect("it is told");
            println!("full in {} s, said {said:?}", truly(first));
            assert!(truly(first) > 0.2 * fills_in, "told late: {} s before it is full", truly(first));
            assert!((said.as_secs_f64() / truly(first) - 1.0).abs() < 0.5);
            // By then it is known well.
            let late =
                told.iter().find(|(second, _)| truly(*second) < 0.2 * fills_in).expect("it is still told");
            assert!((late.1.as_secs_f64() / truly(late.0) - 1.0).abs() < 0.15, "{late:?}");
        }
    }

    #[test]
    fn what_stops_to_fill_is_over() {
        let points = (0..7_200u64).step_by(10).map(|second| {
            let risen = second.clamp(3_000, 4_500) - 3_000;
            (second, 0.4 + 0.0003 * risen as f64 - if second > 5_000 { 0.4 } else { 0.0 })
        });
        let (told, over) = told(points);
        let first = told.first();
        assert!(first.is_some_and(|(second, _)| *second < 4_500) && over, "{first:?} {over}");
    }

    #[test]
    fn what_comes_and_goes_is_told_once_at_most() {
        // Garbage is collected at four fifths, every twenty minutes; load follows the day.
        let mut random = fastrand::Rng::with_seed(5);
        let heap = |second: u64| 0.3 + 0.5 * (second % 1_200) as f64 / 1_200.0;
        let day = |second: u64| 0.5 - 0.3 * (second as f64 / 86_400.0 * std::f64::consts::TAU).cos();
        let flat = |_: u64| 0.7;
        for (name, share, at_most) in
            [("heap", &heap as &dyn Fn(u64) -> f64, 1), ("day", &day, 1), ("flat", &flat, 0)]
        {
            let (mut exhaustion, mut episodes, mut open) = (Exhaustion::default(), 0, false);
            for second in (0..14 * 86_400).step_by(15) {
                let share = share(second) + noise(&mut random);
                match exhaustion.observe(at(second), share) {
                    Outlook::Full { .. } => {
                        episodes += u32::from(!open);
                        open = true;
                    }
                    Outlook::Over => open = false,
                    Outlook::Fine => {}
                }
            }
            println!("{name}: {episodes} episodes in two weeks");
            assert!(episodes <= at_most, "{name}: {episodes}");
        }
    }
}
