//! What a detector says.

use crate::aggregate::Exemplar;
use crate::model::{SeriesId, ServiceKey, Timestamp};
use serde::{Deserialize, Serialize};

/// What is wrong, as users would say it. Part of an anomaly's fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    Errors,
    Latency,
    TrafficDrop,
    Silence,
    MissedJob,
    Saturation,
    /// An error budget burns too fast.
    BudgetBurn,
    /// A metric left the band of its own past.
    Level,
    /// The telemetry itself, not the service.
    Data,
}

impl Symptom {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::TrafficDrop => "traffic_drop",
            Self::Silence => "silence",
            Self::MissedJob => "missed_job",
            Self::Saturation => "saturation",
            Self::BudgetBurn => "budget_burn",
            Self::Level => "level",
            Self::Data => "data",
        }
    }
}

/// Where a healthy value would lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    pub low: f64,
    pub high: f64,
}

/// Between which two moments something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    pub earliest: Timestamp,
    pub latest: Timestamp,
}

/// What a detector says of one series at one cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub at: Timestamp,
    pub series: Option<SeriesId>,
    pub service: ServiceKey,
    /// The operation or metric.
    pub signal: String,
    pub attributes: Vec<(String, String)>,
    pub symptom: Symptom,
    /// Probability of something at least as unusual while healthy.
    pub tail: f64,
    /// Natural logarithm of the e-value of this cut.
    pub log_evidence: f32,
    pub observed: f64,
    pub expected: Band,
    /// Unit of `observed` and `expected`: `ns`, `1` (ratio), `{request}/s`, or a metric's own.
    pub unit: String,
    pub onset: Interval,
    pub exemplars: Vec<Exemplar>,
}
