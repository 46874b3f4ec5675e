//! How unusual each point of a metric was: what `backtest --scores` writes.

use crate::model::{SeriesId, Timestamp};

/// One metric point.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    pub series: SeriesId,
    /// The point's own time.
    pub time: Timestamp,
    pub value: f64,
    /// 0..1, larger is more unusual; high only on the first point of an episode.
    pub score: f64,
    /// Whether an anomaly of severity ticket or page begins here.
    pub alarm: bool,
    /// Probability of such a point in health, by itself; `None` while it is only learned from.
    pub p_value: Option<f64>,
    /// Probability in health of the round that it belongs to, by which anomalies are decided.
    pub round_p_value: Option<f64>,
}
