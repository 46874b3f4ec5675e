//! Journal time: what stamps a request gets, and where the barriers stand.

use super::Cut;
use crate::model::Timestamp;
use std::ops::Range;

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
    }

    #[test]
    fn a_checkpoint_is_gone_on_from() {
        let cut = Cut { number: 10, arrived: Timestamp::from_secs(10), ..Cut::default() };
        assert_eq!(Stamper::after(cut).admit(Timestamp(12_300_000_000)), (Timestamp(12_300_000_000), 11..13));
        assert_eq!(Stamper::after(cut).admit(Timestamp(10_300_000_000)).1, 11..11);
        assert_eq!(Stamper::new().admit(Timestamp(10_300_000_000)).1, 11..11);
    }
}
