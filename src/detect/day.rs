//! What a metric usually is at a time of day.
//!
//! Half-hour slots hold the mean over days, and the envelope: the lowest and highest value seen then or
//! an hour before or after on days before; and hours of the week before their range. What a nightly job does every night, though not to the
//! minute, lies in the envelope and is no news.

use super::last_week::LastWeek;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// Slots of a day.
const SLOTS: usize = 48;
const DAY_S: u64 = 86_400;
const SLOT_S: u64 = DAY_S / SLOTS as u64;
/// Slots before and after that count as the same time of day.
const AROUND: usize = 2;
/// Share by which the envelope closes towards the mean in a day.
const CLOSING: f32 = 0.05;
/// Share of its height by which the envelope is widened.
const MARGIN: f64 = 0.1;
/// Days that the means reach back.
const DAYS: f32 = 7.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    mean: f32,
    /// Days that are in the mean, at most [`DAYS`], and in the envelope.
    days: f32,
    low: f32,
    high: f32,
    enclosed: f32,
}

/// What was seen today, before it counts as a day before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Today {
    /// Number of the slot since the epoch.
    slot: u64,
    low: f32,
    high: f32,
    share: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Day {
    slots: Vec<Slot>,
    today: Vec<Today>,
    /// From the third day on.
    week: Option<Box<LastWeek>>,
}

impl Default for Day {
    fn default() -> Self {
        Self { slots: vec![Slot::default(); SLOTS], today: Vec::with_capacity(AROUND + 2), week: None }
    }
}

fn widened(low: f64, high: f64, noise: f64) -> (f64, f64) {
    let margin = MARGIN * (high - low).max(noise);
    (low - margin, high + margin)
}

fn number(at: Timestamp) -> u64 {
    at.secs() / SLOT_S
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

impl Day {
    /// The mean at this time of day, once two days are known.
    #[must_use]
    pub fn usual(&self, at: Timestamp) -> Option<f64> {
        self.slots.get(index(number(at))).filter(|slot| slot.days >= 1.99).map(|slot| f64::from(slot.mean))
    }

    /// Lowest and highest value around this time on days before, once more than one is known; widened by a tenth,
    /// or by `noise` where that is more.
    #[must_use]
    pub fn envelope(&self, at: Timestamp, noise: f64) -> Option<(f64, f64)> {
        let here = index(number(at));
        self.slots.get(here).filter(|slot| slot.enclosed > 1.01)?;
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for around in 0..=2 * AROUND {
            let slot = self.slots.get((here + SLOTS + around - AROUND) % SLOTS)?;
            if slot.enclosed > 0.0 {
                low = low.min(slot.low);
                high = high.max(slot.high);
            }
        }
        Some(widened(f64::from(low), f64::from(high), noise))
    }

    /// The same of this hour a week ago, once that is known.
    #[must_use]
    pub fn last_week(&self, at: Timestamp, noise: f64) -> Option<(f64, f64)> {
        let (low, high) = self.week.as_ref()?.range(at)?;
        Some(widened(low, high, noise))
    }

    /// Learns a value; `cadence_s` is the usual pause between two.
    pub fn learn(&mut self, at: Timestamp, value: f64, cadence_s: f64) {
        let number = number(at);
        let share = (cadence_s.max(1.0) / SLOT_S as f64).min(1.0) as f32;
        if self.week.is_some() || self.usual(at).is_some() {
            self.week.get_or_insert_default().learn(at, value);
        }
        let value = value as f32;
        if let Some(today) = self.today.iter_mut().find(|today| today.slot == number) {
            today.low = today.low.min(value);
            today.high = today.high.max(value);
            today.share += share;
        } else {
            let mut past = std::mem::take(&mut self.today);
            // What is further back than "around" is a day before for whatever comes.
            past.retain(|today| {
                let recent = today.slot + AROUND as u64 >= number;
                if !recent {
                    self.enclose(*today);
                }
                recent
            });
            past.push(Today { slot: number, low: value, high: value, share });
            self.today = past;
        }
        if let Some(slot) = self.slots.get_mut(index(number)) {
            // One day's values of a slot together weigh one day.
            slot.days = (slot.days + share).min(DAYS);
            slot.mean += (share / slot.days.max(share)) * (value - slot.mean);
        }
    }

    fn enclose(&mut self, today: Today) {
        let Some(slot) = self.slots.get_mut(index(today.slot)) else { return };
        if slot.enclosed > 0.0 {
            slot.low += CLOSING * (slot.mean - slot.low).max(0.0);
            slot.high -= CLOSING * (slot.high - slot.mean).max(0.0);
            slot.low = slot.low.min(today.low);
            slot.high = slot.high.max(today.high);
        } else {
            (slot.low, slot.high) = (today.low, today.high);
        }
        slot.enclosed = (slot.enclosed + today.share).min(DAYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64, minute: u64) -> Timestamp {
        Timestamp::from_secs(day * DAY_S + minute * 60)
    }

    #[test]
    fn a_nightly_peak_is_in_the_envelope_and_one_at_noon_is_not() {
        let mut day = Day::default();
        for number in 0..3 {
            for minute in (0..1_440).step_by(5) {
                // Not to the minute: within an hour.
                let peak = minute / 5 == (120 + 20 * number) / 5;
                day.learn(at(number, minute), if peak { 100.0 } else { 1.0 }, 300.0);
            }
        }
        let (_, night) = day.envelope(at(3, 150), 0.0).unwrap();
        let (_, noon) = day.envelope(at(3, 720), 0.0).unwrap();
        assert!(night >= 95.0, "{night}");
        assert!(noon < 2.0, "{noon}");
        assert_eq!(day.usual(at(3, 720)), Some(1.0));
    }

    #[test]
    fn today_is_no_day_before() {
        let mut day = Day::default();
        for number in 0..3 {
            for minute in (0..1_440).step_by(5) {
                day.learn(at(number, minute), 50.0, 300.0);
            }
        }
        // Half an hour of something else does not widen what the next slot is held against.
        for minute in (600..630).step_by(5) {
            day.learn(at(3, minute), 0.0, 300.0);
        }
        let (low, _) = day.envelope(at(3, 631), 0.0).unwrap();
        assert!(low > 40.0, "{low}");
    }
}
