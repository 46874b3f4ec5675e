//! The range of a metric in each hour of the week before.
//!
//! What a backup does on Sundays alone is no news on the next Sunday, though six days lie between.

use super::half::Half;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

const HOUR_S: u64 = 3_600;
const HOURS: u64 = 7 * 24;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Range {
    hour: u64,
    low: f32,
    high: f32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastWeek {
    filling: Option<Range>,
    /// The hour before, which becomes the past when the next one ends: until then, what is around it is last week's.
    last: Option<Range>,
    /// Lowest and highest of each hour; empty until there is one.
    hours: Vec<(Half, Half)>,
}

impl LastWeek {
    pub fn learn(&mut self, at: Timestamp, value: f64) {
        let (hour, value) = (at.secs() / HOUR_S, value as f32);
        match &mut self.filling {
            Some(range) if hour <= range.hour => {
                range.low = range.low.min(value);
                range.high = range.high.max(value);
            }
            filling => {
                let full = filling.replace(Range { hour, low: value, high: value });
                if let Some(past) = std::mem::replace(&mut self.last, full) {
                    if self.hours.is_empty() {
                        self.hours = vec![(Half::UNKNOWN, Half::UNKNOWN); HOURS as usize];
                    }
                    if let Some(known) = self.hours.get_mut((past.hour % HOURS) as usize) {
                        *known = (Half::of(past.low.into()), Half::of(past.high.into()));
                    }
                }
            }
        }
    }

    /// Lowest and highest value within an hour of this time a week ago; `None` while that is not known.
    #[must_use]
    pub fn range(&self, at: Timestamp) -> Option<(f64, f64)> {
        let here = at.secs() / HOUR_S + HOURS;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for hour in here - 1..=here + 1 {
            let (lowest, highest) = self.hours.get((hour % HOURS) as usize)?;
            low = low.min(lowest.get()?);
            high = high.max(highest.get()?);
        }
        Some((low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_later_the_range_of_the_same_hours_is_known_and_not_before() {
        let mut week = LastWeek::default();
        let at = |hour: u64| Timestamp::from_secs(1_700_438_400 + hour * HOUR_S);
        let backup = |hour: u64| hour % HOURS == 147;
        for hour in 0..2 * HOURS {
            let known = week.range(at(hour));
            assert_eq!(known.is_some(), hour > HOURS, "{hour}");
            if let Some((low, high)) = known {
                let near = (146..=148).contains(&(hour % HOURS));
                assert_eq!((low, high), (1.0, if near { 100.0 } else { 1.0 }), "{hour}");
            }
            for minute in [0, 20, 40] {
                let at = at(hour).saturating_add(std::time::Duration::from_secs(minute * 60));
                week.learn(at, if backup(hour) && minute == 20 { 100.0 } else { 1.0 });
            }
        }
    }
}
