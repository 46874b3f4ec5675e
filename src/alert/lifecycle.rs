//! The life of an alert.

use crate::confirm::{AnomalyId, Severity};
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    Pending,
    Firing,
    Resolved,
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
    pub resolved_at: Option<Timestamp>,
}
