//! Where in time an item counts. A function of the item and its arrival alone.

use crate::model::Timestamp;
use std::time::Duration;

/// Older items are refused.
pub const TOO_OLD: Duration = Duration::from_secs(3_600);
/// Items further ahead of their arrival count at arrival.
pub const AHEAD: Duration = Duration::from_secs(10);

/// Where an item counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    At(Timestamp),
    /// Its time lies in the future: it counts at arrival.
    Ahead(Timestamp),
    TooOld,
}

/// Places an item by its event time and arrival.
#[inline]
pub(super) fn place(event: Timestamp, arrived: Timestamp) -> Place {
    if event > arrived.saturating_add(AHEAD) {
        Place::Ahead(arrived)
    } else if arrived.since(event) > TOO_OLD {
        Place::TooOld
    } else {
        Place::At(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_and_the_ten_seconds_are_still_in() {
        let at = Timestamp::from_secs;
        assert_eq!(place(at(6_400), at(10_000)), Place::At(at(6_400)));
        assert_eq!(place(Timestamp(at(6_400).0 - 1), at(10_000)), Place::TooOld);
        assert_eq!(place(at(10_010), at(10_000)), Place::At(at(10_010)));
        assert_eq!(place(Timestamp(at(10_010).0 + 1), at(10_000)), Place::Ahead(at(10_000)));
    }
}
