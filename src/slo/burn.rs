//! Multi-window, multi-burn-rate alerts as the Google SRE workbook's chapter "Alerting on SLOs"
//! gives them.

use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One line of the workbook's table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnRule {
    pub long: Duration,
    /// Ends the alert soon after the burning does.
    pub short: Duration,
    /// How many times faster than evenly the budget burns in both windows.
    pub factor: f64,
    pub page: bool,
}

const HOUR: u64 = 3_600;

/// Fastest first.
pub const RULES: [BurnRule; 4] = [
    rule(HOUR, 300, 14.4, true),
    rule(6 * HOUR, 1_800, 6.0, true),
    rule(24 * HOUR, 2 * HOUR, 3.0, false),
    rule(72 * HOUR, 6 * HOUR, 1.0, false),
];

/// Windows for which burn rates are given, with the names that queries use.
pub const WINDOWS: [(&str, u64); 7] = [
    ("5m", 300),
    ("30m", 1_800),
    ("1h", HOUR),
    ("2h", 2 * HOUR),
    ("6h", 6 * HOUR),
    ("1d", 24 * HOUR),
    ("3d", 72 * HOUR),
];

const fn rule(long_s: u64, short_s: u64, factor: f64, page: bool) -> BurnRule {
    BurnRule { long: Duration::from_secs(long_s), short: Duration::from_secs(short_s), factor, page }
}

/// An objective begins or ceases to burn too fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burn {
    pub at: Timestamp,
    pub slo: String,
    pub service: ServiceKey,
    /// False when it ceased.
    pub burning: bool,
    pub page: bool,
    /// Made by default, not from a file, and still too young to alert on its own.
    pub supporting: bool,
    pub long: Duration,
    pub short: Duration,
    pub factor: f64,
    /// Burn rates over the two windows now.
    pub long_rate: f64,
    pub short_rate: f64,
    pub target: f64,
    /// Share of bad ones in the short window.
    pub bad_share: f64,
    /// When the short window's burning began, at the earliest.
    pub since: Timestamp,
}

/// How many times faster than evenly the budget burns: share of bad ones over the share allowed.
/// 0 without traffic.
#[must_use]
pub fn burn_rate(good: u64, total: u64, target: f64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let bad = total.saturating_sub(good) as f64 / total as f64;
    bad / (1.0 - target).max(1e-12)
}
