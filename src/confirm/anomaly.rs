//! One fault, one anomaly.

use crate::context::ChangeId;
use crate::detect::{Band, Interval, Symptom};
use crate::model::{SeriesId, ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// H(fingerprint, opening cut): the same after a replay. 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AnomalyId(pub String);

impl fmt::Display for AnomalyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// H(service, symptom): the same each time the same thing breaks. 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Ticket,
    Page,
}

impl Severity {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Ticket => "ticket",
            Self::Page => "page",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyState {
    /// Opened, gathering what else belongs to it before it is told.
    Gathering,
    /// Told: it fires.
    Confirmed,
    /// Every member is healthy again.
    Recovered,
    /// It turned out to be one with `merged_into`.
    Merged,
    /// Explained by `suppressed_by`.
    Suppressed,
}

/// A series that takes part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub service: ServiceKey,
    /// The operation or metric.
    pub signal: String,
    pub attributes: Vec<(String, String)>,
    pub symptom: Symptom,
    /// If it is a single series.
    #[serde(default)]
    pub series: Option<SeriesId>,
    pub observed: f64,
    pub expected: Band,
    pub unit: String,
    pub tail: f64,
    /// Accumulated natural logarithm of evidence: members are listed strongest first.
    pub log_evidence: f32,
    pub onset: Interval,
    pub last_seen: Timestamp,
    pub recovered: bool,
}

/// What a page took of the false-alarm budget, in false pages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetDraw {
    /// How much of a false page it may be: the less, the further its evidence was above what is asked for.
    pub share: f64,
    /// What the pages of the seven days up to it took, its own share included.
    pub in_week: f64,
    /// What is accepted in a week.
    pub per_week: f64,
}

/// An exemption that did not cover an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovering {
    pub line: String,
    /// In words.
    pub why_not: String,
}

/// The exemptions that were looked at when an anomaly was confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// How many there were.
    pub exemptions: u64,
    /// Those that came nearest to covering it, nearest first.
    pub nearest: Vec<Uncovering>,
}

/// One fault. Id, fingerprint, service and symptom are fixed at opening; the rest may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    pub id: AnomalyId,
    pub fingerprint: Fingerprint,
    pub service: ServiceKey,
    pub symptom: Symptom,
    pub severity: Severity,
    pub state: AnomalyState,
    pub opened_at: Timestamp,
    /// When it was confirmed.
    pub fired_at: Option<Timestamp>,
    /// When it recovered or was merged.
    pub ended_at: Option<Timestamp>,
    pub onset: Interval,
    /// Strongest first.
    pub members: Vec<Member>,
    /// Tail probability of the strongest member.
    pub p_value: f64,
    /// Changes shortly before the onset, latest first.
    pub suspects: Vec<ChangeId>,
    pub merged_into: Option<AnomalyId>,
    pub suppressed_by: Option<String>,
    /// Nothing if a deadline or a limit decided, or if it opened as less than a page.
    #[serde(default)]
    pub budget_draw: Option<BudgetDraw>,
    /// Why it was told all the same.
    #[serde(default)]
    pub examined: Examined,
    /// One line: what broke, how much.
    pub title: String,
    /// Grows by one with each change.
    pub revision: u32,
}

/// What is seen a little after the last bad request may still be part of it.
const AFTER_LAST: Duration = Duration::from_secs(10);

impl Anomaly {
    /// Until when it is seen to go on: what comes later is health, and shows nothing of the fault. `now` unless
    /// requests alone speak of it.
    #[must_use]
    pub fn seen_until(&self, now: Timestamp) -> Timestamp {
        let mut until = Timestamp::ZERO;
        for member in &self.members {
            match member.symptom {
                Symptom::Errors | Symptom::Latency => until = until.max(member.last_seen),
                Symptom::BudgetBurn => {}
                _ if member.recovered => {}
                _ => return now,
            }
        }
        if until == Timestamp::ZERO { now } else { until.saturating_add(AFTER_LAST).min(now) }
    }
}
