//! A rate of bytes that may be used up for a second ahead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what is sent at once may be in front of the rate.
const BURST_NS: u64 = 1_000_000_000;

/// The generic cell rate algorithm over bytes, without a lock.
#[derive(Debug)]
pub struct Rate {
    begun: Instant,
    bytes_per_second: u64,
    /// Nanoseconds since the beginning at which everything so far would have come at the rate.
    due_ns: AtomicU64,
}

impl Rate {
    #[must_use]
    pub fn new(bytes_per_second: u64, begun: Instant) -> Self {
        Self { begun, bytes_per_second: bytes_per_second.max(1), due_ns: AtomicU64::new(0) }
    }

    fn elapsed_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long to wait before more may be sent; `None` if it may be now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let ahead = self.due_ns.load(Ordering::Acquire).saturating_sub(self.elapsed_ns(now));
        ahead.checked_sub(BURST_NS).filter(|ns| *ns > 0).map(Duration::from_nanos)
    }

    /// So many bytes were sent.
    pub fn charge(&self, bytes: u64, now: Instant) {
        let cost = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let now = self.elapsed_ns(now);
        let _ = self
            .due_ns
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |due| Some(due.max(now).saturating_add(cost)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_minute_the_rate_holds_and_what_was_saved_is_one_second() {
        let begun = Instant::now();
        let rate = Rate::new(1_000, begun);
        let mut sent = 0;
        for ms in 0..60_000 {
            let now = begun + Duration::from_millis(ms);
            if rate.wait(now).is_none() {
                rate.charge(100, now);
                sent += 100;
            }
        }
        assert!((60_000..=61_200).contains(&sent), "{sent}");
        let later = begun + Duration::from_secs(600);
        assert_eq!(rate.wait(later), None);
        rate.charge(5_000, later);
        assert_eq!(rate.wait(later), Some(Duration::from_secs(4)));
    }
}
