//! Nothing comes from any instance of a service, for three of its own cadences and at least 30 s.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const AT_LEAST: Duration = Duration::from_secs(30);
/// Arrivals and life time until the cadence counts as known.
const LEARN_ARRIVALS: u32 = 5;
const LEARN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub first: Timestamp,
    pub last: Timestamp,
    arrivals: u32,
    /// The longest pause, slowly forgotten, in seconds.
    pause_s: f64,
    pub silent: bool,
    /// The present pause is the pipeline's: nothing is learned from it.
    pub excused: bool,
}

impl Silence {
    /// Something arrived. True if it ends a silence.
    pub fn arrived(&mut self, now: Timestamp) -> bool {
        if self.first == Timestamp::ZERO {
            (self.first, self.last) = (now, now);
        }
        let pause = now.since(self.last).as_secs_f64();
        // A silence that was told is no cadence, unless it keeps happening.
        self.pause_s = (self.pause_s * 0.98).max(if self.silent || self.excused {
            pause.min(2.0 * self.pause_s)
        } else {
            pause
        });
        self.excused = false;
        self.last = now;
        self.arrivals = self.arrivals.saturating_add(1);
        std::mem::replace(&mut self.silent, false)
    }

    /// The longest pause of late.
    #[must_use]
    pub fn pause(&self) -> Duration {
        Duration::try_from_secs_f64(self.pause_s).unwrap_or_default()
    }

    /// Whether its cadence is known.
    #[must_use]
    pub fn is_learned(&self) -> bool {
        self.arrivals >= LEARN_ARRIVALS && self.last.since(self.first) >= LEARN
    }

    /// Whether it pauses for longer than it does, though not yet for long enough to be called silent.
    #[must_use]
    pub fn is_pausing(&self, now: Timestamp, at_least: Duration) -> bool {
        self.is_learned() && now.since(self.last) > (3 * self.pause()).max(at_least)
    }

    /// When it counts as silent if nothing comes; `None` while its cadence is not known.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if !self.is_learned() {
            return None;
        }
        let patience = Duration::try_from_secs_f64(3.0 * self.pause_s).unwrap_or(AT_LEAST).max(AT_LEAST);
        Some(self.last.saturating_add(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_cadence() {
        for (cadence, patience) in [(1, 30), (60, 180)] {
            let mut silence = Silence::default();
            for n in 0..50 {
                silence.arrived(Timestamp::from_secs(1000 + n * cadence));
            }
            let last = 1000 + 49 * cadence;
            assert_eq!(silence.deadline(), Some(Timestamp::from_secs(last + patience)));
        }
        let mut silence = Silence::default();
        silence.arrived(Timestamp::from_secs(1));
        assert_eq!(silence.deadline(), None);
    }
}
