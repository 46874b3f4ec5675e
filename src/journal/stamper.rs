//! Journal time: what stamps a request gets, and where the barriers stand.

use super::Cut;
use crate::model::Timestamp;
use std::ops::Range;
use std::time::Duration;

/// Gives arrivals their stamps and says which barriers stand before them. Pure: barriers are a
/// function of the arrivals, whether they come from a clock, from records or from a recording.
#[derive(Clone, Debug, Default)]
pub struct Stamper {
    last: Timestamp,
    /// Number of the next barrier; `None` before the first arrival.
    next: Option<u64>,
}

impl Stamper {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on after a cut, so that its barriers follow the cut's by one.
    #[must_use]
    pub fn after(cut: Cut) -> Self {
        Self { last: cut.arrived, next: Some(cut.number.saturating_add(1)) }
    }

    /// Stamps an arrival: never before an earlier one. Of the second value, each is the number of a
    /// barrier that stands before it, in order.
    pub fn admit(&mut self, arrival: Timestamp) -> (Timestamp, Range<u64>) {
        self.last = self.last.max(arrival);
        let second = self.last.secs();
        let next = *self.next.get_or_insert(second.saturating_add(1));
        let end = second.saturating_add(1).max(next);
        self.next = Some(end);
        (self.last, next..end)
    }

    /// The latest stamp.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.last
    }
}

/// Turns the wall clock into journal time, which never goes back and does not follow the wall clock
/// into the future before the monotonic clock has confirmed it.
///
/// A wall clock that was set back is waited for at half speed. One that was set forward by more than
/// a minute is followed once it has run evenly with the monotonic clock for ten seconds.
#[derive(Clone, Debug)]
pub struct JournalClock {
    now: Timestamp,
    monotonic: Duration,
    /// The wall clock that is on probation, and since when.
    jumped: Option<(Timestamp, Duration)>,
}

const JUMP: Duration = Duration::from_secs(60);
const PROBATION: Duration = Duration::from_secs(10);
/// How far two clocks that run evenly may drift apart in the time of probation.
const EVEN: Duration = Duration::from_secs(1);

impl JournalClock {
    /// A clock that goes on from `last`, the latest stamp of an earlier life; from the wall clock if
    /// that is zero.
    #[must_use]
    pub fn new(last: Timestamp, wall: Timestamp, monotonic: Duration) -> Self {
        Self { now: last.max(wall), monotonic, jumped: None }
    }

    /// The journal time at which the two clocks show this.
    pub fn read(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        let passed = monotonic.saturating_sub(self.monotonic);
        self.monotonic = self.monotonic.max(monotonic);
        let expected = self.now.saturating_add(passed);
        self.now = if wall < self.now {
            self.jumped = None;
            self.now.saturating_add(passed / 2)
        } else if wall.since(expected) <= JUMP {
            self.jumped = None;
            wall
        } else {
            let (from, since) = *self.jumped.get_or_insert((wall, monotonic));
            let probation = monotonic.saturating_sub(since);
            let on_probation = from.saturating_add(probation);
            if wall.since(on_probation).max(on_probation.since(wall)) > EVEN {
                self.jumped = Some((wall, monotonic));
                expected
            } else if probation >= PROBATION {
                self.jumped = None;
                wall
            } else {
                expected
            }
        };
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn barriers_follow_each_other_by_one_and_stand_before_what_came_later(steps in prop::collection::vec(0u64..3_000_000_000, 1..50), back in 0u64..2_000_000_000) {
            let mut stamper = Stamper::new();
            let mut at = 5_000_000_000u64;
            let (mut expected, mut last): (Option<u64>, u64) = (None, 0);
            for (number, step) in steps.iter().enumerate() {
                at += step;
                let arrival = if number % 3 == 2 { at.saturating_sub(back) } else { at };
                let (stamp, barriers) = stamper.admit(Timestamp(arrival));
                prop_assert!(stamp.0 >= last && stamp.0 >= arrival);
                for barrier in barriers {
                    prop_assert!(expected.is_none_or(|expected| expected == barrier));
                    prop_assert!(Timestamp::from_secs(barrier) <= stamp);
                    prop_assert!(Timestamp::from_secs(barrier).0 > last);
                    expected = Some(barrier + 1);
                }
                prop_assert!(expected.is_none_or(|expected| Timestamp::from_secs(expected) > stamp));
                last = stamp.0;
            }
        }

        #[test]
        fn journal_time_never_goes_back(readings in prop::collection::vec((0u64..400, 0u64..5_000), 1..60)) {
            let mut monotonic = Duration::ZERO;
            let mut clock = JournalClock::new(Timestamp::ZERO, Timestamp::from_secs(1_000), monotonic);
            let mut last = Timestamp::from_secs(1_000);
            for (wall_s, passed_ms) in readings {
                monotonic += Duration::from_millis(passed_ms);
                let now = clock.read(Timestamp::from_secs(900 + wall_s), monotonic);
                prop_assert!(now >= last);
                last = now;
            }
        }
    }

    #[test]
    fn a_checkpoint_is_gone_on_from() {
        let cut = Cut { number: 10, arrived: Timestamp::from_secs(10), ..Cut::default() };
        assert_eq!(Stamper::after(cut).admit(Timestamp(12_300_000_000)), (Timestamp(12_300_000_000), 11..13));
        assert_eq!(Stamper::after(cut).admit(Timestamp(10_300_000_000)).1, 11..11);
        assert_eq!(Stamper::new().admit(Timestamp(10_300_000_000)).1, 11..11);
    }

    #[test]
    fn a_far_step_forward_waits_for_the_monotonic_clock() {
        let at = |s: u64| Timestamp::from_secs(s);
        let mut clock = JournalClock::new(Timestamp::ZERO, at(1_000), Duration::ZERO);
        assert_eq!(clock.read(at(1_001), Duration::from_secs(1)), at(1_001));
        // An hour ahead: not believed yet, then confirmed by ten even seconds.
        for s in 2..12 {
            assert_eq!(clock.read(at(4_600 + s), Duration::from_secs(s)), at(1_000 + s));
        }
        assert_eq!(clock.read(at(4_612), Duration::from_secs(12)), at(4_612));
        // Ten seconds back: half speed until the wall clock has caught up.
        assert_eq!(clock.read(at(4_604), Duration::from_secs(14)), at(4_613));
        assert_eq!(clock.read(at(4_620), Duration::from_secs(30)), at(4_620));
    }
}
