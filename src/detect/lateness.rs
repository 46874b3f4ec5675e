//! How much of a service's telemetry comes after its windows were sealed: a backlog, a slow pipeline, or
//! a clock that is behind.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// Share of late items from which a service's telemetry counts as late, and below which it is in time.
const LATE: f64 = 0.3;
const IN_TIME: f64 = 0.1;
const LATE_AT_LEAST: u64 = 10;
/// Length of a block, and how many good ones end it.
const BLOCK_S: u64 = 10;
const GOOD: u8 = 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    block: u64,
    items: u64,
    late: u64,
    good: u8,
    pub active: bool,
}

impl Lateness {
    /// What arrived with a cut. `Some` when telemetry became late, or is in time again.
    pub fn arrived(&mut self, now: Timestamp, items: u64, late: u64) -> Option<bool> {
        let block = now.secs() / BLOCK_S;
        if block != self.block {
            let in_time = self.items > 0 && (self.late as f64) < IN_TIME * self.items as f64;
            self.good = if in_time { self.good.saturating_add(1) } else { 0 };
            (self.block, self.items, self.late) = (block, 0, 0);
        }
        self.items = self.items.saturating_add(items);
        self.late = self.late.saturating_add(late);
        if self.active {
            self.active = self.good < GOOD;
            return (!self.active).then_some(false);
        }
        self.active = self.late >= LATE_AT_LEAST && self.late as f64 >= LATE * self.items as f64;
        if self.active {
            self.good = 0;
        }
        self.active.then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_late_until_it_is_in_time_for_half_a_minute() {
        let mut lateness = Lateness::default();
        let at = Timestamp::from_secs;
        for second in 100..200 {
            assert_eq!(lateness.arrived(at(second), 50, 2), None);
        }
        assert_eq!(lateness.arrived(at(200), 50, 50), Some(true));
        let ended = (201..300).find(|second| lateness.arrived(at(*second), 50, 0) == Some(false));
        assert!((230..=250).contains(&ended.unwrap()), "{ended:?}");
    }
}
