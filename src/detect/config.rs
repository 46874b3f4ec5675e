//! How sensitive the detectors are.

use crate::settings::Seconds;
use std::time::Duration;

crate::settings! {
    /// Detectors against each series' own past.
    pub struct Config in "detect" {
        /// How long a new series is only learned from before it is judged.
        learn: Seconds = Seconds(Duration::from_secs(20)), "5s to 1d", |t| (5..=86_400).contains(&t.0.as_secs());
        /// How many requests a new series is only learned from before it is judged.
        learn_requests: u64 = 20, "1 to 100000", |n| (1..=100_000).contains(n);
        /// Error ratios below this are not worth a page, however unusual they are.
        errors_floor: f64 = 0.002, "0.00001 to 0.5", |x| (1e-5..=0.5).contains(x);
        /// Failed or slow requests that an alarm needs at least.
        bad_requests: u64 = 5, "1 to 1000", |n| (1..=1000).contains(n);
        /// How long a series must be healthy again, with traffic, until its finding is cleared.
        healthy: Seconds = Seconds(Duration::from_secs(20)), "5s to 1h", |t| (5..=3_600).contains(&t.0.as_secs());
        /// Tickets about its metrics that one service may raise in a week while it is healthy.
        level_tickets_per_week: f64 = 0.5, "0.001 to 1000", |x| (0.001..=1000.0).contains(x);
        /// Share of its limit at which a pool, queue or disk counts as saturated.
        saturated: f64 = 0.9, "0.5 to 1.0", |x| (0.5..=1.0).contains(x);
        /// Series that are judged at most; further ones are only counted, until others have sent nothing for an hour.
        series: u64 = 100_000, "1 to 10000000", |n| (1..=10_000_000).contains(n);
    }
}
