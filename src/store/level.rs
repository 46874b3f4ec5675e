//! How wide windows are stored.

use crate::model::{Timestamp, WINDOW, WindowId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Widths of stored windows. A window of any level is named by the id of its first 10 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    Seconds10,
    Minute1,
    Minutes5,
    Hour1,
}

impl Level {
    /// Finest first.
    pub const ALL: [Self; 4] = [Self::Seconds10, Self::Minute1, Self::Minutes5, Self::Hour1];

    /// Width in windows of 10 s.
    #[must_use]
    pub const fn windows(self) -> u64 {
        match self {
            Self::Seconds10 => 1,
            Self::Minute1 => 6,
            Self::Minutes5 => 30,
            Self::Hour1 => 360,
        }
    }

    #[must_use]
    pub const fn width(self) -> Duration {
        Duration::from_secs(self.windows() * WINDOW.as_secs())
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds10 => "10s",
            Self::Minute1 => "1m",
            Self::Minutes5 => "5m",
            Self::Hour1 => "1h",
        }
    }

    #[must_use]
    pub fn coarser(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// The coarsest level that shows a range in at least 300 steps (if any does): a choice for sums
    /// over it, and for charts.
    #[must_use]
    pub fn for_range(range: Duration) -> Self {
        let fits = |level: &&Self| range >= level.width() * 300;
        Self::ALL.iter().rev().find(fits).copied().unwrap_or(Self::Seconds10)
    }

    /// The coarsest level whose windows fill steps of `step` exactly.
    #[must_use]
    pub fn for_step(step: Duration) -> Self {
        let fits =
            |level: &&Self| step >= level.width() && step.as_nanos().is_multiple_of(level.width().as_nanos());
        Self::ALL.iter().rev().find(fits).copied().unwrap_or(Self::Seconds10)
    }

    /// The window of this level in which a window of 10 s lies.
    #[must_use]
    pub const fn slot(self, window: WindowId) -> WindowId {
        WindowId(window.0 - window.0 % self.windows())
    }

    /// First window of 10 s after the window of this level that begins at `slot`.
    #[must_use]
    pub const fn after(self, slot: WindowId) -> WindowId {
        WindowId(slot.0.saturating_add(self.windows()))
    }

    /// First moment after the window of this level that begins at `slot`.
    #[must_use]
    pub const fn end(self, slot: WindowId) -> Timestamp {
        self.after(slot).start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_fit_ranges_and_steps() {
        let secs = Duration::from_secs;
        assert_eq!(Level::for_range(secs(600)), Level::Seconds10);
        assert_eq!(Level::for_range(secs(18_000)), Level::Minute1);
        assert_eq!(Level::for_range(secs(90_000)), Level::Minutes5);
        assert_eq!(Level::for_range(secs(30 * 86_400)), Level::Hour1);
        assert_eq!(Level::for_step(secs(10)), Level::Seconds10);
        assert_eq!(Level::for_step(secs(90)), Level::Seconds10);
        assert_eq!(Level::for_step(secs(120)), Level::Minute1);
        assert_eq!(Level::for_step(secs(7_200)), Level::Hour1);
        assert_eq!(Level::Minute1.slot(WindowId(17)), WindowId(12));
    }
}
