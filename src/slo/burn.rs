//! Multi-window, multi-burn-rate alerts as the Google SRE workbook's chapter "Alerting on SLOs"
//! gives them.

use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One line of the workbook's table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurnRule {
    pub long: Duration,
    /// Ends the alert soon after the burning does. As long as `long`: one window alone is judged.
    pub short: Duration,
    /// How many times faster than evenly the budget burns in both windows.
    pub factor: f64,
    pub page: bool,
    /// How long it has to burn before it is said.
    pub after: Duration,
    /// How long it must not burn before its end is said.
    pub keep_firing_for: Duration,
}

/// When an objective alerts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    Burn(BurnRule),
    /// At the rate of the last hour the budget ends within this.
    EndsWithin {
        within: Duration,
        page: bool,
    },
    /// So much of the whole budget (0..1) was spent in this window.
    Dropped {
        share: f64,
        over: Duration,
        page: bool,
    },
}

impl Rule {
    #[must_use]
    pub const fn page(&self) -> bool {
        match self {
            Self::Burn(rule) => rule.page,
            Self::EndsWithin { page, .. } | Self::Dropped { page, .. } => *page,
        }
    }

    /// The longest time that it looks back on.
    #[must_use]
    pub const fn long(&self) -> Duration {
        match self {
            Self::Burn(rule) => rule.long,
            Self::EndsWithin { .. } => Duration::from_secs(HOUR),
            Self::Dropped { over, .. } => *over,
        }
    }
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
    let (long, short) = (Duration::from_secs(long_s), Duration::from_secs(short_s));
    BurnRule { long, short, factor, page, after: Duration::ZERO, keep_firing_for: Duration::ZERO }
}

/// Rows that others alert by. `workbook` and `sloth` are the same four; `None` for a name that is none.
#[must_use]
pub fn preset(name: &str, period: Duration) -> Option<Vec<Rule>> {
    match name {
        "workbook" | "sloth" => Some(RULES.map(Rule::Burn).to_vec()),
        "pyrra" => Some(pyrra(period)),
        _ => None,
    }
}

/// Pyrra's windows: parts of the period, which give whole hours for one of 28 days.
fn pyrra(period: Duration) -> Vec<Rule> {
    let part =
        |of: f64| Duration::from_secs(((period.as_secs_f64() / of / 60.0).round() * 60.0).max(60.0) as u64);
    [
        (672.0, 8_064.0, 14.0, true, 20_160.0),
        (112.0, 1_344.0, 7.0, true, 2_688.0),
        (28.0, 336.0, 2.0, false, 672.0),
        (7.0, 112.0, 1.0, false, 224.0),
    ]
    .map(|(long, short, factor, page, after)| {
        let rule = BurnRule { long: part(long), short: part(short), factor, page, ..RULES[0] };
        Rule::Burn(BurnRule { after: part(after), ..rule })
    })
    .to_vec()
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
    /// How many times faster than evenly it has to burn; 0 for rules of another kind.
    pub factor: f64,
    /// Bad ones and all in the long window.
    pub bad: u64,
    pub total: u64,
    /// Burn rates over the two windows now.
    pub long_rate: f64,
    pub short_rate: f64,
    pub target: f64,
    /// Share of bad ones in the short window.
    pub bad_share: f64,
    /// When the burning began that was noticed, looked for within the long window and 6 h; never before anything was
    /// counted.
    pub since: Timestamp,
    /// Some of what it goes by is not older than this: what came last when it began, or all that the short
    /// window holds.
    pub fresh: Timestamp,
}

/// How many times faster than evenly the budget burns: share of bad ones over the share allowed.
/// 0 without traffic.
#[must_use]
pub fn burn_rate(good: u64, total: u64, target: f64) -> f64 {
    bad_rate(total.saturating_sub(good), total, target)
}

/// The same of so many bad ones, which need not be all that were.
pub(super) fn bad_rate(bad: u64, total: u64, target: f64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    bad as f64 / total as f64 / (1.0 - target).max(1e-12)
}
