//! Points in time, windows, and the clock that tests and replays can inject.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Nanoseconds since the Unix epoch, UTC. Serialised as that integer in compact formats and as
/// RFC 3339 in human-readable ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

const NS_PER_S: u64 = 1_000_000_000;

impl Timestamp {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(NS_PER_S))
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0 / NS_PER_S
    }

    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this one; zero if this one is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Reads RFC 3339 with a zone.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let at: jiff::Timestamp =
            text.parse().map_err(|error| format!("{text:?} is not RFC 3339: {error}"))?;
        u64::try_from(at.as_nanosecond())
            .map(Self)
            .map_err(|_| format!("{text:?} is before 1970 or after 2554"))
    }
}

/// RFC 3339 in UTC with as many fractional digits as are needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(at) => write!(f, "{at}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// Length of a window of event time.
pub const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_NS: u64 = 10 * NS_PER_S;

/// Number of a 10 s window of event time since the epoch: ⌊time / 10 s⌋.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowId(pub u64);

impl WindowId {
    #[must_use]
    pub const fn of(at: Timestamp) -> Self {
        Self(at.0 / WINDOW_NS)
    }

    #[must_use]
    pub const fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(WINDOW_NS))
    }

    /// First moment after the window.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        Timestamp(self.0.saturating_add(1).saturating_mul(WINDOW_NS))
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Where a stage gets the time from. Below the sequencer nobody asks a clock: the time of a stage
/// is the arrival time of the cut it works on.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is set: for tests and replays.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(AtomicU64::new(at.0))
    }

    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_goes_both_ways() {
        let at = Timestamp(1_704_067_200_250_000_000);
        assert_eq!(at.to_string(), "2024-01-01T00:00:00.25Z");
        assert_eq!(Timestamp::parse_rfc3339("2024-01-01T01:00:00.25+01:00"), Ok(at));
        assert!(Timestamp::parse_rfc3339("2024-01-01T00:00:00").is_err());
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let window = WindowId::of(Timestamp::from_secs(1234));
        assert_eq!(window.start(), Timestamp::from_secs(1230));
        assert_eq!(WindowId::of(window.start()), window);
        assert_eq!(WindowId::of(window.end()), window.next());
    }
}
