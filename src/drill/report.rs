//! What a demo found, as JSON.

use crate::model::Timestamp;
use serde::Serialize;
use std::path::PathBuf;

/// A service and a kind of cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blame {
    pub service: String,
    pub kind: String,
}

/// The evidence as opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EvidenceReport {
    pub path: PathBuf,
    /// Traces with a span of the service at fault.
    pub traces: u64,
    pub log_records: u64,
    /// Of the traces, those with their logs.
    pub traces_with_logs: u64,
}

/// The report. Durations are counted from the injection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub fault: String,
    pub seed: u64,
    pub injected_at: Option<Timestamp>,
    pub onset: Option<Timestamp>,
    pub fired_at: Option<Timestamp>,
    pub alert_received_at: Option<Timestamp>,
    /// `alertmanager` or `built-in`.
    pub receiver: &'static str,
    pub cause: Option<Blame>,
    pub expected: Option<Blame>,
    /// Alerts received, by anomaly.
    pub alerts: u64,
    pub evidence: Option<EvidenceReport>,
    pub recovered_at: Option<Timestamp>,
    pub time_to_detect_ns: Option<u64>,
    pub time_to_recover_ns: Option<u64>,
    /// Items sent and acknowledged, and of them counted by the daemon.
    pub sent: u64,
    pub counted: u64,
    pub passed: bool,
    /// What did not happen; empty if all did.
    pub failures: Vec<String>,
}
