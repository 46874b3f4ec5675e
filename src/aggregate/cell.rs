//! What is known of one series in one window. Cells add up: merging is exact in any order.

use crate::journal::Position;
use crate::model::{SpanId, Timestamp, TraceId};
use crate::sketch::Histogram;
use serde::{Deserialize, Serialize};

/// A count of what sampled items stand for, in units of 1/65536, so that sums are exact in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weight(pub u64);

impl Weight {
    pub const ONE: Self = Self(1 << 16);

    #[must_use]
    pub fn items(self) -> f64 {
        self.0 as f64 / 65_536.0
    }

    /// Nearest whole number of items.
    #[must_use]
    pub fn rounded(self) -> u64 {
        self.0.saturating_add(1 << 15) >> 16
    }

    pub fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// A span that shows what a cell is about, and where in the journal it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemplar {
    pub trace: TraceId,
    pub span: SpanId,
    /// Duration of the span.
    pub value_ns: u64,
    /// End of the span.
    pub time: Timestamp,
    pub at: Position,
}

/// Spans of one operation and kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Spans received.
    pub seen: u64,
    /// Spans that those stand for.
    pub weight: Weight,
    /// Spans received with status ERROR.
    pub errors: u64,
    pub errors_weight: Weight,
    /// Sum of the durations of those seen.
    pub sum_ns: u64,
    /// Durations in nanoseconds of those seen.
    pub latency: Histogram,
    pub slowest: Option<Exemplar>,
    /// The latest span with status ERROR.
    pub failed: Option<Exemplar>,
    /// Earliest and latest end of a span.
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Severity classes of log records in the order of [`Lines::by_severity`]: none given, then
/// `SeverityNumber` 1-4, 5-8, 9-12, 13-16, 17-20, 21-24.
pub const SEVERITIES: [&str; 7] = ["unspecified", "trace", "debug", "info", "warn", "error", "fatal"];

/// Log records of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    pub by_severity: [u64; 7],
}

impl Lines {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_severity.iter().sum()
    }
}

/// Points of gauges and of sums that are not monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The value of the latest point, and that point's time.
    pub last: f64,
    pub last_at: Timestamp,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub points: u64,
}

/// Growth of monotonic sums: deltas as sent, cumulative values as differences of their stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    pub delta: f64,
    pub points: u64,
}

/// Histogram metrics (explicit, exponential, summaries' quantiles are not merged but counted).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub histogram: Histogram,
    pub sum: f64,
    pub points: u64,
}

/// What is known of one series in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    Requests(Box<Requests>),
    Lines(Lines),
    Level(Level),
    Total(Total),
    Distribution(Box<Distribution>),
}

impl Requests {
    pub fn merge(&mut self, other: &Self) {
        if other.seen == 0 {
            return;
        }
        self.first = if self.seen == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.seen += other.seen;
        self.weight.add(other.weight);
        self.errors += other.errors;
        self.errors_weight.add(other.errors_weight);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.latency.merge(&other.latency);
        // Ties are broken by position, so that the order of merging does not matter.
        self.slowest = pick(self.slowest, other.slowest, |e| (e.value_ns, std::cmp::Reverse(e.at), e.span));
        self.failed = pick(self.failed, other.failed, |e| (e.time.ns(), std::cmp::Reverse(e.at), e.span));
    }
}

fn pick<K: Ord>(a: Option<Exemplar>, b: Option<Exemplar>, key: impl Fn(&Exemplar) -> K) -> Option<Exemplar> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if key(&b) > key(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl Lines {
    pub fn merge(&mut self, other: &Self) {
        for (sum, n) in self.by_severity.iter_mut().zip(other.by_severity) {
            *sum += n;
        }
    }
}

impl Level {
    #[must_use]
    pub fn of(value: f64, at: Timestamp) -> Self {
        Self { last: value, last_at: at, min: value, max: value, sum: value, points: 1 }
    }

    pub fn merge(&mut self, other: &Self) {
        if (other.last_at, other.last.to_bits()) > (self.last_at, self.last.to_bits()) {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.points += other.points;
    }

    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum / self.points.max(1) as f64
    }
}

impl Total {
    pub fn merge(&mut self, other: &Self) {
        self.delta += other.delta;
        self.points += other.points;
    }
}

impl Distribution {
    pub fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
        self.sum += other.sum;
        self.points += other.points;
    }
}

impl Cell {
    /// Adds what another partial learned of the same series and window. A series whose type changed
    /// keeps the type it had; the other's points are let go.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Requests(a), Self::Requests(b)) => a.merge(b),
            (Self::Lines(a), Self::Lines(b)) => a.merge(b),
            (Self::Level(a), Self::Level(b)) => a.merge(b),
            (Self::Total(a), Self::Total(b)) => a.merge(b),
            (Self::Distribution(a), Self::Distribution(b)) => a.merge(b),
            _ => {}
        }
    }

    /// Spans, log records or metric points received.
    #[must_use]
    pub fn items(&self) -> u64 {
        match self {
            Self::Requests(cell) => cell.seen,
            Self::Lines(cell) => cell.total(),
            Self::Level(cell) => cell.points,
            Self::Total(cell) => cell.points,
            Self::Distribution(cell) => cell.points,
        }
    }
}
