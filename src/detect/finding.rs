//! What a detector says.

use crate::aggregate::Exemplar;
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, Timestamp};
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
    /// A rule that somebody else evaluates.
    Rule,
    /// A resource fills up, and is full before long.
    Exhaustion,
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
            Self::Rule => "rule",
            Self::Exhaustion => "exhaustion",
        }
    }

    /// Whether it says that something does not come, from a service or of its data.
    #[must_use]
    pub const fn is_blindness(self) -> bool {
        matches!(self, Self::Silence | Self::Data)
    }
}

/// Where a healthy value would lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    #[serde(deserialize_with = "open_below")]
    pub low: f64,
    #[serde(deserialize_with = "open_above")]
    pub high: f64,
}

/// JSON has no infinity and writes `null`: a bound that is not there.
fn bound<'de, D: serde::Deserializer<'de>>(deserializer: D, open: f64) -> Result<f64, D::Error> {
    if deserializer.is_human_readable() {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(open))
    } else {
        f64::deserialize(deserializer)
    }
}

fn open_below<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    bound(deserializer, f64::NEG_INFINITY)
}

fn open_above<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    bound(deserializer, f64::INFINITY)
}

/// Between which two moments something began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    pub earliest: Timestamp,
    pub latest: Timestamp,
}

/// Whether a finding goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is seen now.
    Active,
    /// It was seen, and has been healthy for long enough since.
    Cleared,
}

/// What a finding may come to on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// Joins an anomaly, never opens one: what a caller sees of its servers.
    Support,
    Info,
    Ticket,
    /// Users are hit.
    Page,
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
    pub phase: Phase,
    pub gravity: Gravity,
    /// Whether the detector decided by itself (a deadline passed, a limit was reached). If not, the
    /// evidence has to reach what the false-alarm budget asks.
    pub decided: bool,
    /// Probability of something at least as unusual while healthy.
    pub tail: f64,
    /// Natural logarithm of the evidence accumulated up to this cut (Shiryaev–Roberts).
    pub log_evidence: f32,
    pub observed: f64,
    pub expected: Band,
    /// Unit of `observed` and `expected`: `ns`, `1` (ratio), `{request}/s`, or a metric's own.
    pub unit: String,
    pub onset: Interval,
    pub exemplars: Vec<Exemplar>,
    /// Said by others of a service that may not be able to speak for itself: if it is the deepest of all
    /// that are under suspicion, the fault is there.
    pub blames: bool,
}

impl Finding {
    /// An active finding without numbers yet, about a whole service or one of its signals.
    #[must_use]
    pub fn about(at: Timestamp, service: &ServiceKey, signal: &str, symptom: Symptom) -> Self {
        Self {
            at,
            series: None,
            service: service.clone(),
            signal: signal.to_owned(),
            attributes: Vec::new(),
            symptom,
            phase: Phase::Active,
            gravity: Gravity::Support,
            decided: false,
            tail: 1.0,
            log_evidence: 0.0,
            observed: 0.0,
            expected: Band { low: 0.0, high: 0.0 },
            unit: String::new(),
            onset: Interval { earliest: at, latest: at },
            exemplars: Vec::new(),
            blames: false,
        }
    }

    /// What is wrong with the telemetry of a service, not with the service: a ticket.
    #[must_use]
    pub fn of_data(at: Timestamp, service: &ServiceKey, signal: &str) -> Self {
        Self {
            gravity: Gravity::Ticket,
            decided: true,
            tail: 1e-3,
            log_evidence: 7.0,
            ..Self::about(at, service, signal, Symptom::Data)
        }
    }

    /// The same of one series.
    #[must_use]
    pub fn of(at: Timestamp, key: &SeriesKey, id: SeriesId, symptom: Symptom) -> Self {
        let attributes = key.attributes.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        // What it calls may have the name of what it serves.
        let called = (key.signal == Signal::Traces && !key.entry).then(|| key.kind.as_str().to_owned());
        Self {
            series: Some(id),
            attributes: attributes.chain(called.map(|kind| ("span.kind".to_owned(), kind))).collect(),
            ..Self::about(at, &key.service, &key.operation, symptom)
        }
    }
}
