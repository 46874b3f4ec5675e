//! Error budgets as queries show them.

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
    /// The rolling period.
    pub window: Duration,
    pub state: DataState,
    /// Exact counts over the period.
    pub good: u64,
    pub total: u64,
    /// 1 = untouched, 0 = used up, negative = overdrawn. Of an objective from a file: of what the counts
    /// allow. Of a default one younger than its period: of a whole period at the traffic seen so far.
    pub budget_remaining_ratio: f64,
    /// Burn rates by the name of their window, shortest first: 1 = the budget lasts exactly the period.
    pub burn: Vec<(&'static str, f64)>,
    /// Since when the budget has been used up.
    pub exhausted_at: Option<Timestamp>,
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
    let days = worst.window.as_secs() / 86_400;
    let mut text = format!(
        "{} % objective {:?}: {:.1} % of the {days}-day budget left",
        worst.target * 100.0,
        worst.slo,
        worst.budget_remaining_ratio * 100.0
    );
    if let Some((window, rate)) =
        worst.burn.iter().max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, rate)| *rate > 1.0)
    {
        text.push_str(&format!(", burning {rate:.1} times too fast over the last {window}"));
    }
    Some(text)
}
