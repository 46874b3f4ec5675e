//! An incident as it is shown.

use super::{Entry, Hash};
use crate::alert::Impact;
use crate::confirm::Severity;
use crate::diagnose::Cause;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Nobody has said that they take care of it.
    Open,
    Acknowledged,
    /// The service is healthy again.
    Recovered,
    /// Closed by an operator.
    Resolved,
}

impl IncidentState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Recovered => "recovered",
            Self::Resolved => "resolved",
        }
    }
}

/// A line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub at: Timestamp,
    /// A person, or `barograph`.
    pub who: String,
    pub what: String,
}

/// One fault from onset to recovery. Its id is that of the anomaly it began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: String,
    /// Ids of the anomalies it consists of: the first, then those found to be one with it.
    pub anomalies: Vec<String>,
    pub state: IncidentState,
    pub title: String,
    pub severity: Severity,
    pub service: Arc<str>,
    pub environment: Arc<str>,
    pub namespace: Arc<str>,
    /// Start of the interval in which it began.
    pub onset: Timestamp,
    /// When the daemon noticed.
    pub detected_at: Timestamp,
    /// When the first target was told; when the alert fired as long as none was.
    pub alerted_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
    pub recovered_at: Option<Timestamp>,
    /// From the onset to `detected_at`.
    pub time_to_detect_ns: u64,
    /// From the onset to `recovered_at`.
    pub time_to_recover_ns: Option<u64>,
    /// The likeliest cause.
    pub cause: Option<Cause>,
    /// What its anomalies cost.
    pub impact: Impact,
    /// In order of time.
    pub timeline: Vec<TimelineEntry>,
    /// What operators did and said, in the order of the ledger.
    pub entries: Vec<Entry>,
    /// Whether every entry is chained to the one before it.
    pub chain_intact: bool,
    #[serde(skip)]
    pub(super) delivered: bool,
    #[serde(skip)]
    pub(super) last_entry: Hash,
}
