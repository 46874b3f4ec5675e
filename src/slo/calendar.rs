//! Budgets that begin anew with a week, month, quarter or year of somebody's calendar.

use crate::model::Timestamp;
use jiff::Span;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Units of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// Periods of so many units one after another, counted from a moment on the clocks of a time zone. A
/// month that begins on the 31st begins on the last day of a shorter one. A time that clocks skip is the
/// same time by the clocks as they were before; of one that comes twice the first is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calendar {
    pub from: DateTime,
    /// Its name in the IANA data base.
    pub time_zone: String,
    pub unit: Unit,
    pub count: u32,
}

impl Unit {
    /// The unit of an OpenSLO duration.
    #[must_use]
    pub const fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'm' => Self::Minute,
            'h' => Self::Hour,
            'd' => Self::Day,
            'w' => Self::Week,
            'M' => Self::Month,
            'Q' => Self::Quarter,
            'Y' => Self::Year,
            _ => return None,
        })
    }

    const fn longest_s(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            // A day may have 25 hours, where clocks are put back.
            Self::Day => 25 * 3_600,
            Self::Week => 7 * 86_400 + 3_600,
            Self::Month => 31 * 86_400 + 3_600,
            Self::Quarter => 92 * 86_400 + 3_600,
            Self::Year => 366 * 86_400,
        }
    }
}

impl Calendar {
    /// The longest a period can be.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.unit.longest_s().saturating_mul(u64::from(self.count)))
    }

    fn span(&self, periods: i64) -> Option<Span> {
        let n = i64::from(self.count).checked_mul(periods)?;
        let span = Span::new();
        match self.unit {
            Unit::Minute => span.try_minutes(n),
            Unit::Hour => span.try_hours(n),
            Unit::Day => span.try_days(n),
            Unit::Week => span.try_weeks(n),
            Unit::Month => span.try_months(n),
            Unit::Quarter => span.try_months(n.checked_mul(3)?),
            Unit::Year => span.try_years(n),
        }
        .ok()
    }

    /// Second in which a period begins.
    fn begins(&self, zone: &TimeZone, period: i64) -> Option<i64> {
        let zoned = match self.unit {
            // Hours pass also where clocks jump.
            Unit::Minute | Unit::Hour => {
                zone.to_zoned(self.from).ok()?.checked_add(self.span(period)?).ok()?
            }
            _ => zone.to_zoned(self.from.checked_add(self.span(period)?).ok()?).ok()?,
        };
        Some(zoned.timestamp().as_second())
    }

    /// First second of the period that a moment lies in, and of the next one. Where the calendar ends (in
    /// the year 9999) all that was is one period.
    #[must_use]
    pub fn period_at(&self, now: Timestamp) -> (u64, u64) {
        let found = || {
            let zone = TimeZone::get(&self.time_zone).ok()?;
            let second = i64::try_from(now.secs()).ok()?;
            let first = self.begins(&zone, 0)?;
            let guess = i64::try_from(self.longest().as_secs()).ok()?.max(1);
            // No period is longer than that, so this is never too far along.
            let mut period = (second - first).div_euclid(guess);
            if second < first {
                // Before the beginning, shorter periods lie farther back.
                period = period.saturating_mul(2).saturating_sub(2);
            }
            loop {
                let next = self.begins(&zone, period.checked_add(1)?)?;
                if next > second {
                    let begin = u64::try_from(self.begins(&zone, period)?.max(0)).ok()?;
                    return Some((begin, u64::try_from(next).ok()?));
                }
                let left = (second - next).div_euclid(guess).max(0);
                period = period.checked_add(1)?.checked_add(left)?;
            }
        };
        found().unwrap_or((0, u64::MAX))
    }
}

/// Whether the IANA data base knows a zone.
#[must_use]
pub fn is_time_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

/// A moment as people of a zone say it: `Friday at 14:00`, or with the date if it is more than six days
/// away.
#[must_use]
pub fn in_words(at: Timestamp, now: Timestamp, time_zone: &str) -> String {
    let zone = TimeZone::get(time_zone).unwrap_or(TimeZone::UTC);
    let Ok(moment) = jiff::Timestamp::from_second(i64::try_from(at.secs()).unwrap_or(i64::MAX)) else {
        return at.to_string();
    };
    let zoned = moment.to_zoned(zone);
    let of =
        if at.since(now) <= Duration::from_secs(6 * 86_400) { "%A at %H:%M" } else { "%-d %B %Y at %H:%M" };
    let text = zoned.strftime(of).to_string();
    if time_zone == "UTC" { format!("{text} UTC") } else { text }
}

/// A rolling length as OpenSLO writes it: a month is one of 30 days here, a quarter three and a year twelve
/// of them plus five days.
#[must_use]
pub fn rolling(count: u32, unit: Unit) -> Duration {
    let seconds = match unit {
        Unit::Month => 30 * 86_400,
        Unit::Quarter => 90 * 86_400,
        Unit::Year => 365 * 86_400,
        Unit::Day => 86_400,
        Unit::Week => 7 * 86_400,
        Unit::Minute | Unit::Hour => unit.longest_s(),
    };
    Duration::from_secs(seconds * u64::from(count))
}

/// Reads `30d`, `1M`.
#[must_use]
pub fn shorthand(text: &str) -> Option<(u32, Unit)> {
    let unit = text.chars().last().and_then(Unit::of)?;
    let count: u32 = text.get(..text.len() - 1)?.parse().ok()?;
    (count > 0 && count <= 10_000).then_some((count, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(from: &str, time_zone: &str, text: &str) -> Calendar {
        let (count, unit) = shorthand(text).unwrap();
        Calendar { from: from.parse().unwrap(), time_zone: time_zone.to_owned(), unit, count }
    }

    fn second(text: &str) -> u64 {
        u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_second()).unwrap()
    }

    #[test]
    fn periods_begin_by_the_clocks_of_their_zone() {
        for (from, zone, length, now, begin, end) in [
            (
                "2024-01-01 00:00:00",
                "Europe/Berlin",
                "1M",
                "2026-03-15T12:00:00Z",
                "2026-02-28T23:00:00Z",
                "2026-03-31T22:00:00Z",
            ),
            // Clocks are put forward on the 29th and back on 25 October.
            (
                "2024-01-01 00:00:00",
                "Europe/Berlin",
                "1d",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                "2024-01-01 00:00:00",
                "Europe/Berlin",
                "1d",
                "2026-10-25T00:30:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            // The hour from 2 to 3 does not exist on the day.
            (
                "2024-01-01 02:30:00",
                "Europe/Berlin",
                "1d",
                "2026-03-29T01:40:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z",
            ),
            (
                "2024-01-31 00:00:00",
                "UTC",
                "1M",
                "2026-02-28T01:00:00Z",
                "2026-02-28T00:00:00Z",
                "2026-03-31T00:00:00Z",
            ),
            (
                "2024-01-01 00:00:00",
                "America/New_York",
                "1Q",
                "2026-11-25T08:00:00Z",
                "2026-10-01T04:00:00Z",
                "2027-01-01T05:00:00Z",
            ),
            (
                "2024-01-01 00:00:00",
                "UTC",
                "1w",
                "2026-11-25T08:00:00Z",
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            // Before the beginning.
            (
                "2026-06-01 00:00:00",
                "UTC",
                "1M",
                "2026-02-10T00:00:00Z",
                "2026-02-01T00:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
        ] {
            let calendar = calendar(from, zone, length);
            let found = calendar.period_at(Timestamp::from_secs(second(now)));
            assert_eq!(found, (second(begin), second(end)), "{from} {zone} {length} at {now}");
        }
    }

    #[test]
    fn every_moment_lies_in_its_period_and_periods_leave_no_gap() {
        let mut random = fastrand::Rng::with_seed(7);
        for (zone, length) in [
            ("Europe/Berlin", "1d"),
            ("Australia/Lord_Howe", "1w"),
            ("America/Sao_Paulo", "1M"),
            ("UTC", "90m"),
        ] {
            let calendar = calendar("2020-05-31 00:15:00", zone, length);
            for _ in 0..500 {
                let now = random.u64(1_200_000_000..2_000_000_000);
                let (begin, end) = calendar.period_at(Timestamp::from_secs(now));
                assert!(begin <= now && now < end, "{zone} {length}: {begin} {now} {end}");
                assert!(end - begin <= calendar.longest().as_secs());
                assert_eq!(calendar.period_at(Timestamp::from_secs(end)).0, end);
                assert_eq!(calendar.period_at(Timestamp::from_secs(end - 1)).0, begin);
            }
        }
    }

    #[test]
    fn moments_are_said_as_people_say_them() {
        let now = Timestamp::from_secs(second("2026-11-25T08:00:00Z"));
        let at = |text: &str| Timestamp::from_secs(second(text));
        assert_eq!(in_words(at("2026-11-27T13:00:00Z"), now, "Europe/Berlin"), "Friday at 14:00");
        assert_eq!(in_words(at("2026-11-27T14:00:00Z"), now, "UTC"), "Friday at 14:00 UTC");
        assert_eq!(in_words(at("2026-12-24T14:00:00Z"), now, "UTC"), "24 December 2026 at 14:00 UTC");
    }
}
