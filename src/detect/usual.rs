//! A ratio that hardly ever changes, such as spans a counted request, or requests a span: when it does,
//! somebody changed how telemetry is made, not how the service fares.

use serde::{Deserialize, Serialize};

/// Windows learned from first, after the one in which it begins, which holds only a part of what it counts.
const LEARN: usize = 3;
/// What lies outside of these times the usual is another regime.
const LOW: f64 = 0.6;
const HIGH: f64 = 1.6;
/// Windows in a row that make it one, and that end it.
const ENOUGH: u16 = 2;
/// Weight of a new window in what is usual.
const FADES: f64 = 0.05;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    mean: f64,
    /// The first window has been.
    begun: bool,
    /// What it is learned from: its median, so that one odd window does not become the usual.
    first: Vec<f64>,
    /// Windows in a row that were off, and their mean.
    off: u16,
    off_mean: f64,
    /// Windows in a row that were as usual while it was off.
    back: u16,
    active: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shift {
    Begins,
    /// It is over; the usual is now so many times what it was: 1 if all is as before.
    Ends(f64),
}

impl Usual {
    /// The ratio of one window. After `adopt` windows elsewhere, that is the usual.
    pub fn observe(&mut self, ratio: f64, adopt: u16) -> Option<Shift> {
        if !std::mem::replace(&mut self.begun, true) {
            return None;
        }
        if self.mean <= 0.0 {
            self.first.push(ratio);
            if self.first.len() == LEARN {
                let mut first = std::mem::take(&mut self.first);
                first.sort_by(f64::total_cmp);
                self.mean = first.get(LEARN / 2).copied().unwrap_or(ratio);
            }
            return None;
        }
        let times = ratio / self.mean;
        if (LOW..=HIGH).contains(&times) {
            if !self.active {
                self.off = 0;
                self.mean += FADES * (ratio - self.mean);
                return None;
            }
            self.back = self.back.saturating_add(1);
            if self.back < ENOUGH {
                return None;
            }
            (self.off, self.back, self.active) = (0, 0, false);
            return Some(Shift::Ends(1.0));
        }
        (self.off, self.back) = (self.off.saturating_add(1), 0);
        self.off_mean += (ratio - self.off_mean) / f64::from(self.off);
        if self.active && self.off >= adopt && self.off_mean > 0.0 {
            let times = self.off_mean / self.mean;
            (self.mean, self.off, self.active) = (self.off_mean, 0, false);
            return Some(Shift::Ends(times));
        }
        if self.active || self.off < ENOUGH {
            return None;
        }
        self.active = true;
        Some(Shift::Begins)
    }

    /// Whether the latest window was off, or a regime that is not the usual goes on.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.active || self.off > 0
    }

    /// Whether a regime that is not the usual goes on.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the latest window alone was off: the next one tells whether that is a regime.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        !self.active && self.off > 0
    }

    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_beginning_is_not_the_usual() {
        for odd in 0..3 {
            let mut usual = Usual::default();
            for window in 0..20 {
                let ratio = if window == odd { 4.0 } else { 1.0 };
                assert_eq!(usual.observe(ratio, 6), None, "window {window}, odd {odd}");
            }
            assert!(!usual.is_off());
        }
    }

    #[test]
    fn another_regime_begins_ends_and_becomes_the_usual() {
        let mut usual = Usual::default();
        (0..10).for_each(|_| assert_eq!(usual.observe(1.0, 6), None));
        assert_eq!(usual.observe(0.1, 6), None);
        assert!(usual.is_off());
        assert_eq!(usual.observe(0.1, 6), Some(Shift::Begins));
        assert_eq!(usual.observe(1.0, 6), None);
        assert_eq!(usual.observe(1.1, 6), Some(Shift::Ends(1.0)));
        assert_eq!(usual.observe(4.0, 6), None);
        assert_eq!(usual.observe(4.0, 6), Some(Shift::Begins));
        let later: Vec<_> = (0..4).map(|_| usual.observe(4.0, 6)).collect();
        assert!(matches!(later[3], Some(Shift::Ends(times)) if (3.5..4.5).contains(&times)), "{later:?}");
        assert_eq!(usual.observe(4.0, 6), None);
        assert!(!usual.is_off());
        // What is gone for good is never the usual.
        (0..100).for_each(|_| assert!(!matches!(usual.observe(0.0, 6), Some(Shift::Ends(_)))));
    }
}
