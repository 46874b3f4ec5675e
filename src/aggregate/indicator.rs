//! What service level indicators need counted exactly, per second of event time.

use super::matcher::{Matcher, same_name};
use crate::model::{SeriesKey, ServiceKey, Signal};
use crate::otlp::{AnyValue, Attributes, LogView};
use crate::sketch::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Number of an indicator, given by whoever defined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndicatorId(pub u32);

/// Which items count, and which of them are good. An SLO's counts are never read from a sketch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Indicator {
    pub id: IndicatorId,
    pub service: ServiceKey,
    pub source: Source,
    /// Only items count whose attributes match all of these.
    pub only: Vec<Matcher>,
    /// The attribute that tells users of spans or log records apart; `None`: they are not counted.
    pub users: Option<Arc<str>>,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// The requests of a service: SERVER and CONSUMER spans, and roots.
    Spans {
        /// Only spans of this name; all of the service's requests if `None`.
        operation: Option<Arc<str>>,
        good: GoodSpans,
    },
    /// Log records; good are those of a lower `SeverityNumber` than this.
    Logs { bad_from: i32 },
    /// Events (log records with this name) by a number that they have as an attribute, such as the web vitals
    /// of a browser; good are those for which the comparison holds.
    Events { name: Arc<str>, value: Arc<str>, how: Comparison, threshold: f64 },
    /// Points of a metric, by its name in OpenTelemetry or in Prometheus.
    Metric { name: Arc<str>, counted: Meaning },
}

/// Which spans are good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoodSpans {
    /// Not slower than this.
    pub threshold_ns: Option<u64>,
    /// Whether errors count as bad (false: latency alone is judged).
    pub errors_are_bad: bool,
    /// Their attributes match all of these.
    pub matching: Vec<Matcher>,
    /// Attributes that match all of these, if there are any, make a span bad.
    pub bad: Vec<Matcher>,
}

/// What of a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Meaning {
    /// The growth of a sum, or the observations of a histogram, in whole units.
    Growth(Part),
    /// Points of a gauge, or observations of a histogram; good are those for which this holds. Of a
    /// histogram, observations are good whose whole bucket is: give a bound that it has.
    Compared(Comparison, f64),
    /// The observations of a histogram up to a bound that it has.
    UpTo(Part, f64),
    /// Points of a gauge that is itself the share of good events (or of bad ones), in millionths.
    Ratio { of_good: bool },
}

/// What a sum counts of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The good ones, or the bad ones.
    Some,
    /// All of them.
    Total,
}

/// How a value is compared with the threshold of an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    AtMost,
    Below,
    AtLeast,
    Above,
}

/// What a ratio gauge's point counts as.
pub const RATIO_UNIT: u64 = 1_000_000;

impl Comparison {
    #[must_use]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtMost => value <= threshold,
            Self::Below => value < threshold,
            Self::AtLeast => value >= threshold,
            Self::Above => value > threshold,
        }
    }

    /// Whether it holds for all of a histogram's bucket (low, high].
    fn holds_for_bucket(self, low: f64, high: f64, threshold: f64) -> bool {
        // Bounds are often computed; a rounding error must not move a bucket to the other side.
        let slack = threshold.abs() * 1e-9;
        match self {
            Self::AtMost | Self::Below => high <= threshold + slack,
            Self::AtLeast | Self::Above => low >= threshold - slack,
        }
    }
}

impl Indicator {
    /// Whether items of this series may count.
    #[must_use]
    pub fn counts(&self, key: &SeriesKey) -> bool {
        key.service == self.service
            && match &self.source {
                Source::Spans { operation, .. } => {
                    key.signal == Signal::Traces
                        && key.entry
                        && operation.as_ref().is_none_or(|name| *name == key.operation)
                }
                Source::Logs { .. } | Source::Events { .. } => key.signal == Signal::Logs,
                Source::Metric { name, .. } => {
                    key.signal == Signal::Metrics
                        && same_name(name, &key.operation, &key.unit)
                        && self.only.iter().all(|matcher| matcher.holds_for(&key.attributes))
                }
            }
    }

    /// Whether a span is good; `None` if it does not count, or the indicator is of something else.
    #[inline]
    #[must_use]
    pub fn span(&self, error: bool, duration_ns: u64, attributes: Attributes<'_>) -> Option<bool> {
        let Source::Spans { good, .. } = &self.source else { return None };
        if !self.only.iter().all(|matcher| matcher.holds(attributes)) {
            return None;
        }
        let bad = !good.bad.is_empty() && good.bad.iter().all(|matcher| matcher.holds(attributes));
        Some(
            !(error && good.errors_are_bad)
                && good.threshold_ns.is_none_or(|limit| duration_ns <= limit)
                && good.matching.iter().all(|matcher| matcher.holds(attributes))
                && !bad,
        )
    }

    /// Whether a log record is good; `None` if it does not count.
    #[must_use]
    pub fn log(&self, record: &LogView<'_>) -> Option<bool> {
        let attributes = record.attributes();
        let good = match &self.source {
            Source::Logs { bad_from } => record.severity_number < *bad_from,
            Source::Events { name, value, how, threshold } => {
                let named = if record.event_name.is_empty() {
                    attributes.get("event.name").and_then(|name| name.as_str())
                } else {
                    Some(record.event_name)
                };
                if named != Some(&**name) {
                    return None;
                }
                how.holds(number(attributes.get(value)?)?, *threshold)
            }
            Source::Spans { .. } | Source::Metric { .. } => return None,
        };
        self.only.iter().all(|matcher| matcher.holds(attributes)).then_some(good)
    }

    /// Good and total of a gauge's point.
    #[must_use]
    pub fn level(&self, value: f64) -> Option<(u64, u64)> {
        let Source::Metric { counted, .. } = &self.source else { return None };
        match *counted {
            Meaning::Compared(how, threshold) => Some((u64::from(how.holds(value, threshold)), 1)),
            Meaning::Ratio { of_good } => {
                let share = (value.clamp(0.0, 1.0) * RATIO_UNIT as f64).round() as u64;
                Some((if of_good { share } else { RATIO_UNIT - share }, RATIO_UNIT))
            }
            Meaning::Growth(_) | Meaning::UpTo(..) => None,
        }
    }

    /// Good and total of what a sum grew by.
    #[must_use]
    pub fn growth(&self, delta: f64) -> Option<(u64, u64)> {
        let Source::Metric { counted: Meaning::Growth(part), .. } = &self.source else { return None };
        Some(part.of(delta.round().max(0.0) as u64))
    }

    /// Good and total of explicit buckets: bucket `i` holds (bounds[i-1], bounds[i]].
    #[must_use]
    pub fn explicit(&self, counts: &[u64], bounds: &[f64]) -> Option<(u64, u64)> {
        let total = || counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        self.of_buckets(total, |how, threshold| {
            let edge = |at: Option<usize>| at.and_then(|at| bounds.get(at)).copied();
            let good = counts.iter().enumerate().filter(|&(at, _)| {
                let low = edge(at.checked_sub(1)).unwrap_or(f64::NEG_INFINITY);
                how.holds_for_bucket(low, edge(Some(at)).unwrap_or(f64::INFINITY), threshold)
            });
            good.fold(0, |sum, (_, count)| sum.saturating_add(*count))
        })
    }

    /// Good and total of an exponential histogram. Negative values are below every threshold above 0.
    #[must_use]
    pub fn exponential(&self, histogram: &Histogram) -> Option<(u64, u64)> {
        self.of_buckets(
            || histogram.count(),
            |how, threshold| {
                let width = f64::from(-histogram.scale()).exp2();
                let edge = |bucket: i32| (f64::from(bucket) * width).exp2();
                let (mut above_zero, mut good) = (0u64, 0u64);
                for (bucket, count) in histogram.positive() {
                    above_zero = above_zero.saturating_add(count);
                    let (low, high) = (edge(bucket), edge(bucket.saturating_add(1)));
                    if how.holds_for_bucket(low, high, threshold) {
                        good = good.saturating_add(count);
                    }
                }
                if how.holds_for_bucket(f64::NEG_INFINITY, 0.0, threshold) {
                    good = good.saturating_add(histogram.count().saturating_sub(above_zero));
                }
                good
            },
        )
    }

    /// What buckets mean: `total` counts all of them, `holding` those that lie whole where a comparison holds.
    fn of_buckets(
        &self,
        total: impl FnOnce() -> u64,
        holding: impl FnOnce(Comparison, f64) -> u64,
    ) -> Option<(u64, u64)> {
        let Source::Metric { counted, .. } = &self.source else { return None };
        match *counted {
            Meaning::Growth(part) => Some(part.of(total())),
            Meaning::Compared(how, threshold) => Some((holding(how, threshold), total())),
            Meaning::UpTo(part, bound) => Some(part.of(holding(Comparison::AtMost, bound))),
            Meaning::Ratio { .. } => None,
        }
    }
}

/// A number, also one that was sent as text.
fn number(value: AnyValue<'_>) -> Option<f64> {
    let number = match value {
        AnyValue::Double(number) => number,
        AnyValue::Int(number) => number as f64,
        AnyValue::Text(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

impl Part {
    const fn of(self, items: u64) -> (u64, u64) {
        match self {
            Self::Some => (items, 0),
            Self::Total => (0, items),
        }
    }
}

/// Good and total of one indicator in one second of event time. Exact. Where good ones and all are counted
/// by two sums, each brings its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondCount {
    /// Whole second of event time since the epoch.
    pub second: u64,
    pub good: u64,
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(counted: Meaning) -> Indicator {
        Indicator {
            id: IndicatorId(1),
            service: ServiceKey::named("shop"),
            source: Source::Metric { name: "http.server.request.duration".into(), counted },
            only: Vec::new(),
            users: None,
        }
    }

    #[test]
    fn buckets_are_good_that_lie_whole_on_the_good_side() {
        let (counts, bounds) = ([1, 2, 4, 8], [0.1, 0.25, 1.0]);
        for (how, threshold, good) in [
            (Comparison::AtMost, 0.25, 3),
            (Comparison::AtMost, 0.3, 3),
            (Comparison::AtMost, 0.05, 0),
            (Comparison::AtLeast, 0.25, 12),
            (Comparison::Above, 1.0, 8),
        ] {
            let indicator = metric(Meaning::Compared(how, threshold));
            assert_eq!(indicator.explicit(&counts, &bounds), Some((good, 15)), "{how:?} {threshold}");
        }
        assert_eq!(metric(Meaning::Growth(Part::Total)).explicit(&counts, &bounds), Some((0, 15)));
        assert_eq!(metric(Meaning::Growth(Part::Some)).growth(3.0), Some((3, 0)));
        assert_eq!(metric(Meaning::Growth(Part::Some)).growth(-3.0), Some((0, 0)), "a sum never shrinks");
    }

    #[test]
    fn exponential_buckets_have_powers_of_two_as_bounds() {
        let mut histogram = Histogram::with_scale(0);
        histogram.record_zero(1);
        histogram.add_bucket(-1, 2, false); // (0.5, 1]
        histogram.add_bucket(0, 4, false); // (1, 2]
        let at_most = |threshold| metric(Meaning::Compared(Comparison::AtMost, threshold));
        assert_eq!(at_most(1.0).exponential(&histogram), Some((3, 7)));
        assert_eq!(at_most(1.9).exponential(&histogram), Some((3, 7)));
        assert_eq!(at_most(2.0).exponential(&histogram), Some((7, 7)));
        let above = metric(Meaning::Compared(Comparison::Above, 1.0));
        assert_eq!(above.exponential(&histogram), Some((4, 7)));
    }

    #[test]
    fn gauges_count_points() {
        let alive = metric(Meaning::Compared(Comparison::AtLeast, 1.0));
        assert_eq!((alive.level(1.0), alive.level(0.0)), (Some((1, 1)), Some((0, 1))));
        assert_eq!(metric(Meaning::Ratio { of_good: false }).level(0.25), Some((750_000, 1_000_000)));
    }
}
