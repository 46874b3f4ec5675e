//! What a service's traffic was at the same time on days before, and on the same day of weeks before.
//!
//! A shop that closes at six, or a batch that ends on Fridays, loses its traffic at once and is well. What was as low
//! at this time on two of the last seven days, of which this day of last week is one, or on the same day of two of the
//! last three weeks, is no drop; once is not enough, for that may have been an outage. While last week is not known,
//! the last two days speak for it: a weekend alone says nothing of the days after it.

use super::half::Half;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

const SLOT_S: u64 = 1_200;
const DAY: u64 = 86_400 / SLOT_S;
const WEEK: u64 = 7 * DAY;
/// Weeks that are remembered.
const WEEKS: usize = 3;
/// Windows of ten seconds that a slot has to hold to be remembered: half of them.
const WINDOWS_AT_LEAST: u32 = 60;
/// How often it has to have been as low before.
const TIMES: usize = 2;

/// The slot that is being filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Filling {
    slot: u64,
    windows: u32,
    sum: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Week {
    filling: Filling,
    /// The slot before, which becomes the past when the next one ends: until then, what is around it is last week's.
    last: Option<(u64, Half)>,
    /// Requests a window in each slot of a week, latest week first; empty until there is one.
    slots: Vec<[Half; WEEKS]>,
}

impl Week {
    /// A window that began at this moment had so many requests.
    pub fn learn(&mut self, at: Timestamp, requests: f64) {
        let slot = at.secs() / SLOT_S;
        if slot > self.filling.slot {
            self.turn(slot);
        }
        if slot == self.filling.slot {
            self.filling.windows += 1;
            self.filling.sum += requests;
        }
    }

    fn turn(&mut self, slot: u64) {
        let full = std::mem::replace(&mut self.filling, Filling { slot, ..Filling::default() });
        let known = full.windows >= WINDOWS_AT_LEAST;
        let next = known.then(|| (full.slot, Half::of(full.sum / f64::from(full.windows))));
        if let Some((past, rate)) = std::mem::replace(&mut self.last, next) {
            if self.slots.is_empty() {
                self.slots = vec![[Half::UNKNOWN; WEEKS]; WEEK as usize];
            }
            if let Some(weeks) = self.slots.get_mut((past % WEEK) as usize) {
                weeks.rotate_right(1);
                weeks[0] = rate;
            }
        }
    }

    /// Requests that a window had at this time of days or weeks before when there were few, an average of twenty minutes
    /// within twenty of it; `None` while it is not known of two.
    #[must_use]
    pub fn low(&self, at: Timestamp) -> Option<f64> {
        let here = at.secs() / SLOT_S;
        let around = &|slot: u64, week: usize| {
            let rates = (slot - 1..=slot + 1)
                .filter_map(|slot| self.slots.get((slot % WEEK) as usize)?.get(week)?.get());
            rates.reduce(f64::min)
        };
        let days = |days| (1..=days).filter_map(move |day| around(here + WEEK - day * DAY, 0));
        // Seven days before is the same slot.
        let days = match around(here + WEEK, 0) {
            Some(last_week) => nth_lowest(days(7)).map(|low| low.max(last_week)),
            None => nth_lowest(days(2)),
        };
        let weeks = (0..WEEKS).filter_map(|week| around(here + WEEK, week));
        [days, nth_lowest(weeks)].into_iter().flatten().reduce(f64::min)
    }
}

/// What so many of them are not above.
fn nth_lowest(rates: impl Iterator<Item = f64>) -> Option<f64> {
    let mut rates: Vec<f64> = rates.collect();
    rates.sort_by(f64::total_cmp);
    rates.get(TIMES - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 1_700_438_400;

    fn at(day: u64, hour: f64) -> Timestamp {
        Timestamp::from_secs(MONDAY + day * 86_400 + (hour * 3_600.0) as u64)
    }

    /// The traffic of a shop by its day and hour, for so many days.
    fn after(days: u64, traffic: impl Fn(u64, f64) -> f64) -> Week {
        let mut week = Week::default();
        for window in 0..days * 8_640 {
            let (day, hour) = (window / 8_640, (window % 8_640) as f64 / 360.0);
            week.learn(at(day, hour), traffic(day, hour));
        }
        week
    }

    #[test]
    fn what_closes_at_six_is_known_to_after_two_days() {
        let shop = |_: u64, hour: f64| if (8.0..18.0).contains(&hour) { 500.0 } else { 3.0 };
        assert_eq!(after(1, shop).low(at(1, 18.1)), None);
        let known = after(2, shop);
        let low = known.low(at(2, 18.1)).expect("known");
        assert!((low - 3.0).abs() < 0.03, "{low}");
        // Up to twenty minutes early, and not at noon.
        assert!(known.low(at(2, 17.7)).is_some_and(|low| low < 4.0));
        assert!(known.low(at(2, 12.0)).is_some_and(|low| low > 490.0));
    }

    #[test]
    fn what_rests_on_saturdays_is_known_to_after_two_of_them() {
        let shop = |day: u64, _: f64| if day % 7 == 5 { 3.0 } else { 500.0 };
        let low = |days: u64| after(days, shop).low(at(days, 12.0)).expect("known");
        assert!(low(12) > 490.0, "one Saturday may have been an outage");
        assert!(low(19) < 4.0);
        // Its eve and the day after are held against what they are themselves.
        assert!(low(18) > 490.0 && low(20) > 490.0);
    }

    #[test]
    fn quiet_weekends_and_an_outage_of_two_days_excuse_no_weekday() {
        let office = |day: u64, _: f64| if day % 7 >= 5 { 3.0 } else { 500.0 };
        let low = |days: u64| after(days, office).low(at(days, 12.0)).expect("known") < 4.0;
        for (day, is_low) in
            [(6, false), (7, false), (9, false), (12, true), (13, true), (14, false), (16, false)]
        {
            assert_eq!(low(day), is_low, "{day}");
        }
        let outage = |day: u64, _: f64| if (8..10).contains(&day) { 0.0 } else { 500.0 };
        for days in 10..15 {
            assert!(after(days, outage).low(at(days, 12.0)).is_some_and(|low| low > 490.0), "{days}");
        }
    }

    #[test]
    fn one_outage_excuses_no_other() {
        let outage = |day: u64, hour: f64| if day == 2 && (9.0..12.0).contains(&hour) { 0.0 } else { 500.0 };
        let known = after(3, outage);
        assert!(known.low(at(3, 10.0)).is_some_and(|low| low > 490.0));
    }
}
