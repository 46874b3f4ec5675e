//! What other stages know of an anomaly, to be told with its alert.

use super::Impact;
use serde::{Deserialize, Serialize};

/// What diagnosis and budgets add to an alert. What is `None`, zero or `false` leaves what was
/// attached before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The likeliest cause in one sentence.
    pub cause_summary: Option<String>,
    /// Name of the service at fault.
    pub cause_service: Option<String>,
    /// `code`, `database`, `dependency`, …
    pub cause_kind: Option<String>,
    /// 0..1.
    pub cause_probability: Option<f64>,
    /// A diagnosis ended without a cause.
    pub inconclusive: bool,
    /// The change that came shortly before, in words.
    pub change: Option<String>,
    /// Budget left and burn, in words.
    pub budget: Option<String>,
    /// What a synthetic check asked that fails with it, and why it failed, in words.
    pub check: Option<String>,
    /// What it has cost so far.
    pub impact: Impact,
    /// Where the evidence can be seen.
    pub evidence_url: Option<String>,
    /// What the evidence holds.
    pub traces: u64,
    pub log_records: u64,
}

impl Attachment {
    /// Takes over what `news` says.
    pub(super) fn update(&mut self, news: Self) {
        if news.cause_summary.is_some() || news.inconclusive {
            self.cause_summary = news.cause_summary;
            self.cause_service = news.cause_service;
            self.cause_kind = news.cause_kind;
            self.cause_probability = news.cause_probability;
            self.inconclusive = news.inconclusive;
        }
        self.change = news.change.or(self.change.take());
        self.budget = news.budget.or(self.budget.take());
        self.check = news.check.or(self.check.take());
        if news.impact != Impact::default() {
            self.impact = news.impact;
        }
        self.evidence_url = news.evidence_url.or(self.evidence_url.take());
        if news.traces > 0 || news.log_records > 0 {
            (self.traces, self.log_records) = (news.traces, news.log_records);
        }
    }

    /// Whether a diagnosis has spoken.
    pub(super) fn is_answer(&self) -> bool {
        self.cause_summary.is_some() || self.inconclusive
    }
}
