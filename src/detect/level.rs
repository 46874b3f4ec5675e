//! A metric against its own past: several statistics over several memories, each calibrated by its own
//! past ([`super::tail`]).
//!
//! * spike: the point against the mean of the last three, in units of usual residuals (predictor residual)
//! * jump: the point against the one before
//! * level: the point against a long memory (windowed Gaussian)
//! * shift: the mean of the last points against the long memory (short against long mean)
//! * rhythm: the point against the same time on days before, once days are known
//! * drift: the mean of what the rhythm leaves, over the last points
//!
//! Memories of values count points, so that they adapt to any cadence from seconds to minutes; what is usual of their
//! deviations is remembered for days at any cadence. Each point is judged before it is learned, and learned clipped.
//!
//! Two answers: how surprising the point is by itself, where values that are usual at this time of day
//! are no surprise ([`super::day`]); and how surprising it is as one of many, which
//! [`super::together`] adds up over a service.

use super::day::Day;
use super::tail::{ABOVE, Scale, Tail, stretch};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Points, and time, that are only learned from.
pub const LEARN: u32 = 100;
const LEARN_TIME: Duration = Duration::from_secs(900);
/// Observations of the rhythm until its tail is known.
const LEARN_RHYTHM: u16 = 288;
/// Points a memory reaches back.
const SHORT: f64 = 3.0;
const RECENT: f64 = 24.0;
const LONG: f64 = 1000.0;
/// Points for which the largest value is remembered.
const PEAK: f64 = 4000.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    points: u32,
    cadence_s: f32,
    first_at: Timestamp,
    last_at: Timestamp,
    last: f64,
    short: f64,
    recent: f64,
    long: f64,
    variance: f64,
    /// Usual size of the residual against the short memory, of the step from the point before, and of
    /// the residual against the rhythm; the recent mean of the latter.
    residual: f32,
    step: f32,
    off_rhythm: f32,
    drift: f32,
    peak: f32,
    /// By itself: spike, jump, level, shift, rhythm, drift.
    alone: [Tail; 6],
    /// As one of many: spike, level, shift, rhythm.
    among: [Tail; 4],
    day: Option<Box<Day>>,
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelSeen {
    /// Negative natural logarithm of the tail probability by itself, and as one of many.
    pub alone: f64,
    pub among: f64,
    /// Where a healthy value would lie.
    pub low: f64,
    pub high: f64,
}

/// The statistics of a point.
struct Statistics {
    spike: f64,
    jump: f64,
    level: f64,
    shift: f64,
    /// Once days are known.
    rhythm: Option<(f64, f64)>,
    /// Distance outside of what is usual at this time of day, in units of spike, jump, level, rhythm.
    outside: Option<[f64; 4]>,
    low: f64,
    high: f64,
}

impl Level {
    /// A new point.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> LevelSeen {
        if !value.is_finite() {
            return LevelSeen { alone: 0.0, among: 0.0, low: self.long, high: self.long };
        }
        if self.points == 0 {
            self.first_at = at;
            (self.last, self.short, self.recent, self.long) = (value, value, value, value);
        } else {
            let pause = at.since(self.last_at).as_secs_f64() as f32;
            self.cadence_s += (pause - self.cadence_s) / self.points.min(50) as f32;
        }
        self.last_at = self.last_at.max(at);
        self.points = self.points.saturating_add(1);
        let statistics = self.statistics(at, value);
        let (alone, among) = self.judge(&statistics);
        self.learn(at, value);
        let Statistics { low, high, .. } = statistics;
        if !self.has_learned() {
            return LevelSeen { alone: 0.0, among: 0.0, low, high };
        }
        LevelSeen { alone: -alone, among: -among, low, high }
    }

    /// Whether points are judged, and not only learned from.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.points > LEARN && self.last_at.since(self.first_at) >= LEARN_TIME
    }

    /// No deviation is taken to be smaller: a part of what the values are.
    fn floor(&self) -> f64 {
        (1e-3 * self.long.abs()).max(1e-4 * f64::from(self.peak)).max(1e-9)
    }

    fn statistics(&self, at: Timestamp, value: f64) -> Statistics {
        let floor = self.floor();
        let spread = self.variance.sqrt().max(floor);
        let residual = f64::from(self.residual).max(floor);
        let step = f64::from(self.step).max(floor);
        let off_rhythm = f64::from(self.off_rhythm).max(floor);
        let recent = self.recent + (value - self.recent) / RECENT;
        let rhythm = self.day.as_ref().and_then(|day| day.usual(at)).map(|usual| {
            let drift = f64::from(self.drift) + (value - usual - f64::from(self.drift)) / RECENT;
            ((value - usual).abs() / off_rhythm, drift.abs() / off_rhythm)
        });
        let envelope = self.day.as_ref().and_then(|day| day.envelope(at, residual));
        // What is as it was at this time of days before, or of the same day a week ago, is no surprise.
        let last_week = self.day.as_ref().and_then(|day| day.last_week(at, residual));
        let ranges = || envelope.iter().chain(&last_week);
        let outside = envelope.is_some().then(|| {
            let beyond = |(low, high): &(f64, f64)| (low - value).max(value - high).max(0.0);
            let outside = ranges().map(beyond).fold(f64::INFINITY, f64::min);
            [residual, step, spread, off_rhythm].map(|unit| outside / unit)
        });
        let (low, high) = envelope.unwrap_or((self.long - 3.0 * spread, self.long + 3.0 * spread));
        Statistics {
            spike: (value - self.short).abs() / residual,
            jump: (value - self.last).abs() / step,
            level: (value - self.long).abs() / spread,
            shift: (recent - self.long).abs() / spread,
            rhythm,
            outside,
            low,
            high,
        }
    }

    /// Natural logarithms of the tail probabilities: by itself, as one of many.
    fn judge(&mut self, of: &Statistics) -> (f64, f64) {
        let outside = of.outside.unwrap_or([f64::INFINITY; 4]);
        let rhythm = of.rhythm.map(|(rhythm, _)| rhythm);
        let alone = [
            Some(of.spike.min(outside[0])),
            Some(of.jump.min(outside[1])),
            Some(of.level.min(outside[2])),
            Some(of.shift),
            rhythm.map(|rhythm| rhythm.min(outside[3])),
            of.rhythm.map(|(_, drift)| drift),
        ];
        let among = [Some(of.spike), Some(of.level), Some(of.shift), rhythm];
        let stretch = stretch(self.cadence_s());
        (combined(&mut self.alone, alone, 4, stretch), combined(&mut self.among, among, 3, stretch))
    }

    fn learn(&mut self, at: Timestamp, value: f64) {
        let points = f64::from(self.points);
        let weight = |reach: f64| (1.0 / points).max(1.0 / reach);
        let young = self.points <= LEARN;
        let slow = weight(LONG);
        let clipped = |size: f64, usual: f32| {
            if young { size } else { size.min(6.0 * f64::from(usual).max(1e-9)) }
        };
        let toward = |mean: &mut f32, size: f64| *mean += (slow * (size - f64::from(*mean))) as f32;
        let spread = self.variance.sqrt().max(self.floor());
        let (residual, step) = ((value - self.short).abs(), (value - self.last).abs());
        let (residual, step) = (clipped(residual, self.residual), clipped(step, self.step));
        toward(&mut self.residual, residual);
        toward(&mut self.step, step);
        let deviation = value - self.long;
        let deviation = if young { deviation } else { deviation.clamp(-6.0 * spread, 6.0 * spread) };
        self.long += slow * deviation;
        self.variance = (1.0 - slow) * (self.variance + slow * deviation * deviation);
        self.short += weight(SHORT) * (value - self.short);
        self.recent += weight(RECENT) * (value - self.recent);
        self.last = value;
        self.peak = (self.peak * (1.0 - 1.0 / PEAK) as f32).max(value.abs() as f32);
        let day = self.day.get_or_insert_default();
        if let Some(usual) = day.usual(at) {
            let off = value - usual;
            // From nothing: while few days are known its unit is small, so that what is said of the rhythm
            // is calibrated on larger deviations than there are later.
            self.off_rhythm += (slow * (off.abs() - f64::from(self.off_rhythm))) as f32;
            self.drift += ((off - f64::from(self.drift)) / RECENT) as f32;
        }
        day.learn(at, value, f64::from(self.cadence_s));
    }

    /// Learned pause between points, in seconds; 0 while unknown.
    #[must_use]
    pub fn cadence_s(&self) -> f64 {
        f64::from(self.cadence_s)
    }
}

/// The strongest statistic counts whole, the next two half of what they have beyond their quantile.
/// From `rhythm` on, statistics of the time of day, which are known later.
fn combined<const N: usize>(
    tails: &mut [Tail; N],
    statistics: [Option<f64>; N],
    rhythm: usize,
    stretch: f64,
) -> f64 {
    let (mut first, mut second, mut third) = (0.0f64, 0.0f64, 0.0f64);
    for (number, (tail, statistic)) in tails.iter_mut().zip(statistics).enumerate() {
        let Some(statistic) = statistic else { continue };
        let log = tail.observe(statistic, Scale::Logarithmic, stretch);
        let known = if number < rhythm { LEARN as u16 } else { LEARN_RHYTHM };
        if tail.seen() <= known {
            continue;
        }
        (first, second, third) = if log < first {
            (log, first, second)
        } else if log < second {
            (first, log, second)
        } else {
            (first, second, third.min(log))
        };
    }
    let beyond = -ABOVE.ln();
    first + 0.5 * (second + beyond).min(0.0) + 0.5 * (third + beyond).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day's rhythm with noise, every five minutes; `odd` changes points.
    fn surprises(days: u64, odd: impl Fn(u64, f64) -> f64) -> Vec<f64> {
        let (mut level, mut random) = (Level::default(), fastrand::Rng::with_seed(3));
        let points = (0..days * 288).map(|n| {
            let day = std::f64::consts::TAU * n as f64 / 288.0;
            let noise: f64 = (0..6).map(|_| random.f64() - 0.5).sum();
            let value = odd(n, 50.0 + 20.0 * day.sin() + noise);
            level.observe(Timestamp::from_secs(1_700_006_400 + 300 * n), value).alone
        });
        points.collect()
    }

    fn highest(surprises: &[f64]) -> f64 {
        surprises.iter().copied().fold(0.0, f64::max)
    }

    #[test]
    fn health_is_no_surprise_and_a_step_is_one() {
        let healthy = surprises(14, |_, value| value);
        let odd = healthy.iter().filter(|surprise| **surprise > 9.0).count();
        assert!(odd <= 2, "{odd} in two weeks");
        let stepped = surprises(14, |n, value| if (3000..3040).contains(&n) { value + 60.0 } else { value });
        assert!(stepped[3000] > 14.0, "{}", stepped[3000]);
    }

    #[test]
    fn a_missing_peak_is_odd_though_its_values_are_usual() {
        let flat = surprises(14, |n, value| if (3528..3600).contains(&n) { 50.0 } else { value });
        assert!(highest(&flat[3528..3600]) > 10.0, "{}", highest(&flat[3528..3600]));
    }

    #[test]
    fn a_nightly_peak_is_news_once_and_at_noon_again() {
        let nightly = |n: u64| n % 288 == 20 + n / 288 % 3;
        let spiky = surprises(12, |n, value| value + if nightly(n) || n == 2_700 { 80.0 } else { 0.0 });
        let nights = highest(&spiky[6 * 288..9 * 288]);
        assert!(nights < 9.0, "{nights}");
        assert!(spiky[2_700] > 12.0, "{}", spiky[2_700]);
    }

    #[test]
    fn a_weekly_peak_is_news_on_the_first_weeks_and_on_another_day_again() {
        let weekly = |n: u64| n % 2_016 == 1_700;
        let odd = 5 * 2_016 + 500;
        let spiky =
            surprises(42, |n, value| value + if n > 288 && weekly(n) || n == odd { 200.0 } else { 0.0 });
        assert!(spiky[1_700] > 12.0, "{}", spiky[1_700]);
        for week in 2..6 {
            let peak = spiky[week * 2_016 + 1_700];
            assert!(peak < 9.0, "week {week}: {peak}");
        }
        assert!(spiky[odd as usize] > 12.0, "{}", spiky[odd as usize]);
    }

    #[test]
    fn nothing_but_zeros_and_then_a_value_is_judged_by_what_values_are() {
        let sparse = |n: u64, _: f64| if n % 97 == 5 { 1e7 + (n % 13) as f64 * 1e5 } else { 0.0 };
        let seen = surprises(14, sparse);
        let alarms = seen[2_000..].iter().filter(|surprise| **surprise > 9.0).count();
        assert_eq!(alarms, 0);
    }

    #[test]
    fn points_are_judged_after_a_hundred_and_a_quarter_of_an_hour() {
        for (pause_s, first_judged) in [(1, 900), (300, 100)] {
            let mut level = Level::default();
            let mut judged = (0..1_000).filter(|n| {
                level.observe(Timestamp::from_secs(1_700_006_400 + pause_s * n), (n % 7) as f64);
                level.has_learned()
            });
            assert_eq!(judged.next(), Some(first_judged), "a point each {pause_s} s");
        }
    }

    #[test]
    fn what_is_no_number_is_ignored() {
        let mut level = Level::default();
        assert_eq!(level.observe(Timestamp::from_secs(1), f64::NAN).alone, 0.0);
    }

    #[test]
    fn a_series_without_its_day_is_small() {
        assert!(size_of::<Level>() <= 256, "{}", size_of::<Level>());
    }
}
