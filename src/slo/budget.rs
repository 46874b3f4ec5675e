//! Error budgets as queries show them.

use super::calendar::in_words as in_words_at;
use crate::model::{ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whether there is anything to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataState {
    /// Requests come.
    Ok,
    /// No requests, but its instances send something.
    Quiet,
    /// Nothing from any instance for max(3 cadences, 30 s).
    Silent,
    /// Silent for an hour.
    Gone,
}

impl DataState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Quiet => "quiet",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

/// One objective of one service and what is left of its budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub slo: String,
    pub service: ServiceKey,
    pub target: f64,
    /// Length of the period.
    pub window: Duration,
    pub state: DataState,
    /// Exact counts over the period; of slices of time, those.
    pub good: u64,
    pub total: u64,
    /// 1 = untouched, 0 = used up, negative = overdrawn. Of an objective from a file: of what the counts
    /// allow. Of a default one younger than its period: of a whole period at the traffic seen so far.
    pub budget_remaining_ratio: f64,
    /// Burn rates by the name of their window, shortest first: 1 = the budget lasts exactly the period.
    pub burn: Vec<(&'static str, f64)>,
    /// Bad ones and all in the same windows.
    pub seen: Vec<(u64, u64)>,
    /// Distinct users of the last hour that something bad happened to, and all; `None` where nobody counts them.
    pub users: Option<(u64, u64)>,
    /// Since when the budget has been used up.
    pub exhausted_at: Option<Timestamp>,
    /// When it will be at the rate of the last hour.
    pub ends_at: Option<Timestamp>,
    /// The moment that all this is about.
    pub published_at: Timestamp,
    /// Where people are who read of moments.
    pub time_zone: String,
    /// Made by default, not from a file.
    pub default: bool,
    /// What counts as too slow, if anything does.
    pub threshold_ns: Option<u64>,
    pub operation: Option<String>,
}

/// How the budget of a service stands that burns fastest, in one sentence; `None` if it has none.
#[must_use]
pub fn in_words(budgets: &[Budget], service: &ServiceKey) -> Option<String> {
    let fastest = |budget: &Budget| budget.burn.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
    let worst = budgets
        .iter()
        .filter(|budget| budget.service == *service)
        .max_by(|a, b| fastest(a).total_cmp(&fastest(b)).then_with(|| b.slo.cmp(&a.slo)))?;
    let hours = worst.window.as_secs() / 3_600;
    let length = if hours >= 48 { format!("{}-day", hours / 24) } else { format!("{hours}-hour") };
    let mut text = format!(
        "{} % objective {:?}: {:.1} % of the {length} budget left",
        worst.target * 100.0,
        worst.slo,
        worst.budget_remaining_ratio * 100.0
    );
    let windows = worst.burn.iter().zip(&worst.seen);
    // A window that holds one or two says little; the longest of those that do not is taken then.
    let fastest = windows
        .max_by(|(a, a_seen), (b, b_seen)| {
            (a_seen.1 >= 3).cmp(&(b_seen.1 >= 3)).then_with(|| a.1.total_cmp(&b.1))
        })
        .filter(|((_, rate), _)| *rate > 1.0);
    if let Some(((window, rate), (bad, total))) = fastest {
        text.push_str(&format!(
            ", burning {rate:.1} times too fast over the last {window} ({bad} of {total} bad)"
        ));
    }
    if let Some(at) = worst.ends_at {
        let moment = in_words_at(at, worst.published_at, &worst.time_zone);
        text.push_str(&format!(". At this rate the budget ends on {moment}"));
    }
    Some(text)
}
