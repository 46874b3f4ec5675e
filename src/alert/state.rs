//! What targets are told of an anomaly.

use super::Impact;
use crate::confirm::{AnomalyId, Severity};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Not told yet: the anomaly gathers, or its cause is being looked for.
    Pending,
    Firing,
    Resolved,
    /// Ended because it is one with an older anomaly, which goes on.
    Merged,
    /// Ended because something known explains it.
    Suppressed,
}

impl AlertState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Merged => "merged",
            Self::Suppressed => "suppressed",
        }
    }

    /// Whether nothing more is expected.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Resolved | Self::Merged | Self::Suppressed)
    }
}

/// What targets are told. Alertmanager identifies alerts by their labels, so these are a pure
/// function of the anomaly's fixed part and its severity; all else is annotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub anomaly: AnomalyId,
    /// Grows by one with each change; (anomaly, revision) is the idempotency key.
    pub revision: u32,
    pub state: AlertState,
    pub severity: Severity,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Onset.
    pub starts_at: Timestamp,
    pub fired_at: Option<Timestamp>,
    /// When it ended, in whichever way.
    pub resolved_at: Option<Timestamp>,
    /// Severities it fired with before, and when each gave way to a higher one: their label sets
    /// have to be ended at targets that identify alerts by labels.
    pub risen_from: Vec<(Severity, Timestamp)>,
    /// What it has cost.
    pub impact: Impact,
}

impl Alert {
    /// The key under which the ledger holds this revision, and the id of its event.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.anomaly, self.revision)
    }

    /// Label sets it fired with before its severity rose, each with the time it ended.
    pub fn earlier_labels(&self) -> impl Iterator<Item = (BTreeMap<String, String>, Timestamp)> {
        self.risen_from.iter().map(|&(severity, ended)| {
            let mut labels = self.labels.clone();
            labels.insert("severity".into(), severity.as_str().into());
            (labels, ended)
        })
    }
}
