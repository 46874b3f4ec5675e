//! What speaks against a service, and how strongly.

use super::evidence::CauseKind;
use crate::model::ServiceKey;
use serde::{Deserialize, Serialize};

/// How a fault shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Spans fail of which no child failed.
    Errors,
    /// More time is spent in the service itself.
    SelfTime,
    /// Calls of a database take longer.
    DatabaseTime,
    DatabaseErrors,
    /// Calls of something without telemetry take longer or fail.
    PeerTime,
    PeerErrors,
    /// Time is lost between a call's two ends.
    EdgeTime,
    /// Calls that used to be made are not, or new ones are.
    Calls,
    /// Log lines that were not there, or not as often.
    NewLines,
    /// Log lines that used to be there and are not.
    LostLines,
    /// A resource's use, such as CPU or memory, left its range.
    Resource,
    /// A limited resource, such as a pool, is used up.
    Pool,
    /// A metric that tells how long requests take, or how many fail.
    SlowMetric,
    FailureMetric,
    /// Any other metric.
    Level,
    /// Requests stopped coming.
    Traffic,
    /// Runs of a job stopped.
    Job,
    /// Only what a new version runs is worse.
    Version,
    /// Telemetry is missing, late or refused: what is seen of the service is not what it does.
    Data,
}

impl Mechanism {
    /// The class it speaks for.
    #[must_use]
    pub const fn kind(self) -> CauseKind {
        match self {
            Self::DatabaseTime | Self::DatabaseErrors => CauseKind::Database,
            Self::PeerTime | Self::PeerErrors | Self::EdgeTime => CauseKind::Dependency,
            Self::Resource | Self::Pool => CauseKind::Saturation,
            Self::Traffic => CauseKind::Traffic,
            Self::Job => CauseKind::Job,
            Self::Version => CauseKind::Deploy,
            Self::Data => CauseKind::Data,
            Self::Errors
            | Self::SelfTime
            | Self::Calls
            | Self::NewLines
            | Self::LostLines
            | Self::SlowMetric
            | Self::FailureMetric
            | Self::Level => CauseKind::Code,
        }
    }
}

/// One observation that speaks against a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clue {
    pub service: ServiceKey,
    pub operation: Option<String>,
    pub mechanism: Mechanism,
    /// Natural logarithm of how much likelier it is under a fault of this service, bounded.
    pub weight: f64,
    /// In words.
    pub text: String,
}

/// Evidence beyond this adds nothing: rows are not independent.
pub const STRONGEST: f64 = 10.0;

/// How much of the Bonferroni correction is taken off each clue: tests of one service depend on each
/// other, and what is left over is judged once more when clues are joined.
const CORRECTION: f64 = 0.5;

/// Evidence of one test among many, as a weight: what the correction for `tests` leaves of the log
/// likelihood ratio, times how large the effect is (0..=1), bounded. 0 when the correction leaves nothing.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a count of tests")]
pub fn weight(log_likelihood_ratio: f64, tests: usize, effect: f64) -> f64 {
    let left = log_likelihood_ratio - (tests.max(1) as f64).ln() * CORRECTION - 1.5;
    if left <= 0.0 { 0.0 } else { left.min(STRONGEST) * effect.clamp(0.0, 1.0) }
}
