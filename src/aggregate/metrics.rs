//! How metric points are counted.

use super::points;
use super::series::Head;
use super::shard::{Context, Shard, Tally};
use super::streams::{Counts, Growing, Moment};
use super::{Cell, Distribution, Level, Total};
use crate::model::{Signal, SpanKind, Timestamp, TraceId, WindowId};
use crate::otlp::{
    Attributes, Data, ExponentialPoint, HistogramPoint, InstrumentationScope, MetricView, NO_RECORDED_VALUE,
    Number, NumberPoint, ResourceMetrics, Temporality,
};
use std::sync::Arc;

/// Buckets of one explicit histogram point; more are cut.
const BUCKETS: usize = 1_024;
/// Attributes in a series key; further ones are left out.
const ATTRIBUTES: usize = 64;

/// What all points of a metric share.
#[derive(Clone, Copy)]
struct Metric<'a> {
    context: Context,
    name: &'a str,
    unit: &'a str,
    /// Type: tells overflow series and streams apart.
    shape: &'static str,
    scope: &'a [u8; 32],
}

/// What every kind of point has.
#[derive(Clone, Copy)]
struct Point {
    start: Timestamp,
    time: Timestamp,
    flags: u32,
}

impl Shard {
    pub(super) fn points(&mut self, context: Context, view: ResourceMetrics<'_>, tally: &mut Tally) {
        for scope in view.scopes() {
            let identity = scope_identity(&scope.scope());
            for view in scope.items() {
                self.metric(context, &identity, &view, tally);
            }
        }
    }

    fn metric(&mut self, context: Context, scope: &[u8; 32], view: &MetricView<'_>, tally: &mut Tally) {
        let metric = |shape| Metric { context, name: view.name, unit: view.unit, shape, scope };
        match view.data {
            Data::Empty => {}
            Data::Gauge(points) => points.for_each(|point| self.level(metric("level"), &point, tally)),
            Data::Sum { points, monotonic: false, .. } => {
                points.for_each(|point| self.level(metric("level"), &point, tally));
            }
            Data::Sum { points, temporality, monotonic: true } => {
                points.for_each(|point| self.total(metric("total"), &point, temporality, tally));
            }
            Data::Histogram { points, temporality } => {
                points.for_each(|point| self.explicit(metric("distribution"), &point, temporality, tally));
            }
            Data::Exponential { points, temporality } => {
                points.for_each(|point| self.exponential(metric("distribution"), &point, temporality, tally));
            }
            Data::Summary(points) => points.for_each(|point| {
                let at = Point { start: point.start, time: point.time, flags: point.flags };
                let metric = metric("total");
                if let Some((series, time)) = self.point(metric, at, point.attributes(), tally)
                    && let Some(moment) = self.moment(metric, series, at)
                {
                    let delta = self.streams.number(moment, point.count as f64);
                    self.add(metric, series, time, Cell::Total(Total { delta, points: 1 }));
                }
            }),
        }
    }

    /// Places a point and finds its series; `None` if it is not to be counted in any.
    fn point(
        &mut self,
        metric: Metric<'_>,
        point: Point,
        attributes: Attributes<'_>,
        tally: &mut Tally,
    ) -> Option<(u32, Timestamp)> {
        let time = tally.place(point.time, metric.context.arrived)?;
        tally.counted += 1;
        tally.facet(WindowId::of(time)).items += 1;
        self.note(time, TraceId::NONE);
        if point.flags & NO_RECORDED_VALUE != 0 {
            return None;
        }
        let series = self.series_of_point(metric, attributes);
        self.note_overflow(series, metric.context.service);
        Some((series, time))
    }

    /// Where a point of a cumulative stream stands; to be asked right after [`Shard::point`].
    fn moment(&self, metric: Metric<'_>, series: u32, point: Point) -> Option<Moment> {
        let known = self.series.get(series)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.resources.get(metric.context.resource)?.identity);
        hasher.update(metric.scope);
        hasher.update(&known.id.0);
        hasher.update(metric.shape.as_bytes());
        if known.is_overflow {
            // One series, many streams.
            hasher.update(&self.scratch);
        }
        let mut id = [0u8; 16];
        hasher.finalize_xof().fill(&mut id);
        Some(Moment {
            id: u128::from_le_bytes(id),
            start: point.start,
            time: point.time,
            partition: metric.context.partition,
            used: metric.context.arrived.secs(),
        })
    }

    /// The series of a point. Leaves the raw name in `scratch`.
    fn series_of_point(&mut self, metric: Metric<'_>, attributes: Attributes<'_>) -> u32 {
        let head = Head {
            service: metric.context.service,
            signal: Signal::Metrics,
            kind: SpanKind::Unspecified,
            entry: false,
        };
        let mut raw = std::mem::take(&mut self.scratch);
        raw.clear();
        put(&mut raw, |raw| raw.extend_from_slice(metric.name.as_bytes()));
        put(&mut raw, |raw| raw.extend_from_slice(metric.unit.as_bytes()));
        for attribute in attributes.messages() {
            put(&mut raw, |raw| raw.extend_from_slice(attribute));
        }
        let hash = self.series.hash(head, &raw);
        let series = match self.series.find(hash, head, &raw) {
            Some(known) => known,
            None => {
                let mut sorted: Vec<(Arc<str>, Arc<str>)> = attributes
                    .map(|(key, value)| (self.series.text(key), self.series.text(&value.to_string())))
                    .collect();
                sorted.sort();
                // Of a key that is given twice the larger value stays; no sender may do that.
                sorted.reverse();
                sorted.dedup_by(|a, b| a.0 == b.0);
                sorted.reverse();
                sorted.truncate(ATTRIBUTES);
                let key = self.key(head, metric.name, metric.unit, sorted);
                self.series.add(hash, head, &raw, key, metric.shape)
            }
        };
        self.scratch = raw;
        series
    }

    fn add(&mut self, metric: Metric<'_>, number: u32, time: Timestamp, cell: Cell) {
        if let Some(series) = self.series.get_mut(number) {
            self.hot.add(number, series, WindowId::of(time), metric.context.second, cell);
        }
    }

    fn level(&mut self, metric: Metric<'_>, point: &NumberPoint<'_>, tally: &mut Tally) {
        let at = Point { start: point.start, time: point.time, flags: point.flags };
        let Some((series, time)) = self.point(metric, at, point.attributes(), tally) else { return };
        if let Some(value) = point.value.map(value_of).filter(|value| value.is_finite()) {
            self.add(metric, series, time, Cell::Level(Level::of(value, time)));
        }
    }

    fn total(
        &mut self,
        metric: Metric<'_>,
        point: &NumberPoint<'_>,
        temporality: Temporality,
        tally: &mut Tally,
    ) {
        let at = Point { start: point.start, time: point.time, flags: point.flags };
        let Some((series, time)) = self.point(metric, at, point.attributes(), tally) else { return };
        let Some(value) = point.value.map(value_of).filter(|value| value.is_finite()) else { return };
        let delta = match temporality {
            Temporality::Delta => value,
            Temporality::Cumulative | Temporality::Unspecified => {
                let Some(moment) = self.moment(metric, series, at) else { return };
                self.streams.number(moment, value)
            }
        };
        self.add(metric, series, time, Cell::Total(Total { delta, points: 1 }));
    }

    fn explicit(
        &mut self,
        metric: Metric<'_>,
        point: &HistogramPoint<'_>,
        temporality: Temporality,
        tally: &mut Tally,
    ) {
        let at = Point { start: point.start, time: point.time, flags: point.flags };
        let Some((series, time)) = self.point(metric, at, point.attributes(), tally) else { return };
        let (mut counts, mut bounds) = std::mem::take(&mut self.counts);
        counts.clear();
        bounds.clear();
        counts.extend(point.bucket_counts().take(BUCKETS));
        bounds.extend(point.explicit_bounds().take(BUCKETS));
        if counts.is_empty() && point.count > 0 {
            // A histogram without buckets: sum and count alone.
            counts.push(point.count);
        }
        let sum = point.sum.filter(|sum| sum.is_finite()).unwrap_or(0.0);
        match temporality {
            Temporality::Delta => {
                let values = points::explicit(&counts, &bounds, point.min, point.max);
                self.counts = (counts, bounds);
                if let Some(known) = self.series.get_mut(series) {
                    let window = WindowId::of(time);
                    self.hot.add_values(series, known, window, metric.context.second, (&values, sum));
                }
            }
            Temporality::Cumulative | Temporality::Unspecified => {
                let now = Growing {
                    counts: Counts::Explicit { counts: counts.clone(), bounds: bounds.clone() },
                    sum,
                };
                self.counts = (counts, bounds);
                let Some(moment) = self.moment(metric, series, at) else { return };
                let cell = self.grown(moment, now, (point.min, point.max));
                self.add(metric, series, time, Cell::Distribution(Box::new(cell)));
            }
        }
    }

    fn exponential(
        &mut self,
        metric: Metric<'_>,
        point: &ExponentialPoint<'_>,
        temporality: Temporality,
        tally: &mut Tally,
    ) {
        let at = Point { start: point.start, time: point.time, flags: point.flags };
        let Some((series, time)) = self.point(metric, at, point.attributes(), tally) else { return };
        let histogram = points::exponential(point);
        let sum = point.sum.filter(|sum| sum.is_finite()).unwrap_or(0.0);
        let cell = match temporality {
            Temporality::Delta => Distribution { histogram, sum, points: 1 },
            Temporality::Cumulative | Temporality::Unspecified => {
                let Some(moment) = self.moment(metric, series, at) else { return };
                self.grown(moment, Growing { counts: Counts::Exponential(histogram), sum }, (None, None))
            }
        };
        self.add(metric, series, time, Cell::Distribution(Box::new(cell)));
    }

    fn grown(&mut self, at: Moment, now: Growing, extremes: (Option<f64>, Option<f64>)) -> Distribution {
        match self.streams.histogram(at, now) {
            Some(Growing { counts: Counts::Explicit { counts, bounds }, sum }) => Distribution {
                histogram: points::explicit(&counts, &bounds, extremes.0, extremes.1).histogram(),
                sum,
                points: 1,
            },
            Some(Growing { counts: Counts::Exponential(histogram), sum }) => {
                Distribution { histogram, sum, points: 1 }
            }
            None => Distribution { points: 1, ..Distribution::default() },
        }
    }
}

fn value_of(number: Number) -> f64 {
    match number {
        Number::Int(value) => value as f64,
        Number::Double(value) => value,
    }
}

/// Appends a text behind its length, so that no two lists of texts look alike.
fn put(raw: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
    let at = raw.len();
    raw.extend_from_slice(&[0; 4]);
    text(raw);
    let length = u32::try_from(raw.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = raw.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn scope_identity(scope: &InstrumentationScope<'_>) -> [u8; 32] {
    let mut raw = Vec::new();
    for text in [scope.name, scope.version] {
        put(&mut raw, |raw| raw.extend_from_slice(text.as_bytes()));
    }
    let mut attributes: Vec<(&str, String)> =
        scope.attributes().map(|(key, value)| (key, value.to_string())).collect();
    attributes.sort();
    for (key, value) in &attributes {
        put(&mut raw, |raw| raw.extend_from_slice(key.as_bytes()));
        put(&mut raw, |raw| raw.extend_from_slice(value.as_bytes()));
    }
    *blake3::hash(&raw).as_bytes()
}
