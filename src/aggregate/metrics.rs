//! How metric points are counted.

use super::indicator::Indicator;
use super::points;
use super::series::{Head, NONE};
use super::shard::{Context, Shard, Tally};
use super::spans::count_second;
use super::streams::{Counts, Growing, Moment};
use super::{Cell, Distribution, Level, Total};
use crate::model::{SeriesKey, Signal, SpanKind, Timestamp, TraceId, WindowId};
use crate::otlp::{
    Attributes, Data, ExplicitRow, ExponentialPoint, HistogramPoint, InstrumentationScope, MetricKind,
    MetricRow, MetricRows, MetricView, NO_RECORDED_VALUE, Number, NumberPoint, PointRow, PointValue,
    ResourceMetrics, Temporality,
};
use crate::sketch::Histogram;
use std::sync::Arc;

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
    scope: InstrumentationScope<'a>,
}

/// What every kind of point has.
#[derive(Clone, Copy)]
struct Point<'a> {
    start: Timestamp,
    time: Timestamp,
    flags: u32,
    attributes: Attributes<'a>,
}

/// A point that counts: its series, and where it counts there.
#[derive(Clone, Copy)]
struct Placed {
    series: u32,
    time: Timestamp,
}

impl Shard {
    /// Looks for the series of points, whose numbers are then the points' notes. `false` when the
    /// attributes of one are not known and not good: then nothing of the resource may be counted.
    pub(super) fn look_up_points(&mut self, service: Option<u32>, rows: &mut MetricRows<'_>) -> bool {
        for metric in &rows.metrics {
            let Some(points) = rows.points.get_mut(metric.points.clone()) else { continue };
            let common = service.map(|service| {
                let mut raw = std::mem::take(&mut self.scratch);
                put_metric(&mut raw, metric.name, metric.unit);
                let hash = self.series.hash(head_of(service), &raw);
                self.scratch = raw;
                hash
            });
            for point in points {
                let hash = common.map(|common| self.series.hash_on(common, point.raw_attributes));
                point.note = hash.and_then(|hash| self.series.find(hash)).unwrap_or(NONE);
                if point.note == NONE && !point.has_good_attributes() {
                    return false;
                }
            }
        }
        true
    }

    /// Counts points whose series were looked up.
    pub(super) fn point_rows(&mut self, context: Context, rows: &MetricRows<'_>, tally: &mut Tally) {
        for row in &rows.metrics {
            let points = rows.points.get(row.points.clone()).unwrap_or_default();
            match row.kind {
                MetricKind::Viewed(view) => self.metric(context, row.scope, &view, tally),
                MetricKind::Level => self.rows(context, row, "level", points, tally),
                MetricKind::Total(_) => self.rows(context, row, "total", points, tally),
                MetricKind::Explicit(_) => self.rows(context, row, "distribution", points, tally),
            }
        }
    }

    fn rows(
        &mut self,
        context: Context,
        row: &MetricRow<'_>,
        shape: &'static str,
        points: &[PointRow<'_>],
        tally: &mut Tally,
    ) {
        let metric = Metric { context, name: row.name, unit: row.unit, shape, scope: row.scope };
        for point in points {
            let at = Point {
                start: point.start,
                time: point.time,
                flags: point.flags,
                attributes: point.attributes(),
            };
            let Some(time) = self.place_point(context, at, tally) else { continue };
            let series = if point.note == NONE {
                self.series_of_row(metric, point)
            } else {
                self.note_overflow(point.note, context.service);
                point.note
            };
            let placed = Placed { series, time };
            match (point.value, row.kind) {
                (PointValue::Number(value), MetricKind::Total(temporality)) => {
                    self.total(metric, placed, at, value, temporality);
                }
                (PointValue::Number(value), _) => self.level(metric, placed, value),
                (PointValue::Explicit(value), MetricKind::Explicit(temporality)) => {
                    self.explicit(metric, placed, at, &value, temporality);
                }
                (PointValue::Explicit(_), _) => {}
            }
        }
    }

    #[cold]
    fn series_of_row(&mut self, metric: Metric<'_>, point: &PointRow<'_>) -> u32 {
        let mut raw = std::mem::take(&mut self.scratch);
        put_metric(&mut raw, metric.name, metric.unit);
        let common = self.series.hash(head_of(metric.context.service), &raw);
        self.scratch = raw;
        let hash = self.series.hash_on(common, point.raw_attributes);
        let series = match self.series.find(hash) {
            Some(known) => known,
            None => {
                let key = self.key_of_point(metric, point.attributes());
                self.series.add(hash, metric.context.service, key, metric.shape)
            }
        };
        self.note_overflow(series, metric.context.service);
        series
    }

    pub(super) fn points(&mut self, context: Context, view: ResourceMetrics<'_>, tally: &mut Tally) {
        for scope in view.scopes() {
            for view in scope.items() {
                self.metric(context, scope.scope(), &view, tally);
            }
        }
    }

    fn metric(
        &mut self,
        context: Context,
        scope: InstrumentationScope<'_>,
        view: &MetricView<'_>,
        tally: &mut Tally,
    ) {
        let metric = |shape| Metric { context, name: view.name, unit: view.unit, shape, scope };
        match view.data {
            Data::Empty => {}
            Data::Gauge(points) | Data::Sum { points, monotonic: false, .. } => points.for_each(|point| {
                if let Some(placed) = self.find_point(metric("level"), (&point).into(), tally) {
                    self.level(metric("level"), placed, point.value);
                }
            }),
            Data::Sum { points, temporality, monotonic: true } => points.for_each(|point| {
                if let Some(placed) = self.find_point(metric("total"), (&point).into(), tally) {
                    self.total(metric("total"), placed, (&point).into(), point.value, temporality);
                }
            }),
            Data::Histogram { points, temporality } => points.for_each(|point| {
                self.explicit_view(metric("distribution"), &point, temporality, tally);
            }),
            Data::Exponential { points, temporality } => {
                points.for_each(|point| self.exponential(metric("distribution"), &point, temporality, tally));
            }
            Data::Summary(points) => points.for_each(|point| {
                let at = Point {
                    start: point.start,
                    time: point.time,
                    flags: point.flags,
                    attributes: point.attributes(),
                };
                let metric = metric("total");
                if let Some(placed) = self.find_point(metric, at, tally)
                    && let Some(moment) = self.moment(metric, placed.series, at)
                {
                    let delta = self.streams.number(moment, point.count as f64);
                    self.indicate(placed, |indicator| indicator.growth(delta));
                    self.add(metric, placed, Cell::Total(Total { delta, points: 1 }));
                }
            }),
        }
    }

    /// Where a point counts; `None` if it is not to be counted in any series.
    fn place_point(&mut self, context: Context, point: Point<'_>, tally: &mut Tally) -> Option<Timestamp> {
        let time = tally.place(point.time, context.arrived)?;
        tally.counted += 1;
        tally.facet(WindowId::of(time)).items += 1;
        self.note(time, TraceId::NONE);
        (point.flags & NO_RECORDED_VALUE == 0).then_some(time)
    }

    /// The same, and its series.
    fn find_point(&mut self, metric: Metric<'_>, point: Point<'_>, tally: &mut Tally) -> Option<Placed> {
        let time = self.place_point(metric.context, point, tally)?;
        let series = self.series_of_point(metric, point.attributes);
        self.note_overflow(series, metric.context.service);
        Some(Placed { series, time })
    }

    /// Where a point of a cumulative stream stands.
    fn moment(&mut self, metric: Metric<'_>, series: u32, point: Point<'_>) -> Option<Moment> {
        let scope = self.scope_identity(&metric.scope);
        let known = self.series.get(series)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.resources.get(metric.context.resource)?.identity);
        hasher.update(&scope);
        hasher.update(&known.id.0);
        hasher.update(metric.shape.as_bytes());
        if known.is_overflow {
            // One series, many streams.
            let mut raw = std::mem::take(&mut self.scratch);
            put_name(&mut raw, metric, point.attributes);
            hasher.update(&raw);
            self.scratch = raw;
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

    fn scope_identity(&mut self, scope: &InstrumentationScope<'_>) -> [u8; 32] {
        match &self.last_scope {
            Some((raw, identity)) if **raw == *scope.bytes() => *identity,
            _ => {
                let identity = scope_identity(scope);
                self.last_scope = Some((scope.bytes().into(), identity));
                identity
            }
        }
    }

    fn series_of_point(&mut self, metric: Metric<'_>, attributes: Attributes<'_>) -> u32 {
        let mut raw = std::mem::take(&mut self.scratch);
        put_name(&mut raw, metric, attributes);
        let hash = self.series.hash(head_of(metric.context.service), &raw);
        self.scratch = raw;
        match self.series.find(hash) {
            Some(known) => known,
            None => {
                let key = self.key_of_point(metric, attributes);
                self.series.add(hash, metric.context.service, key, metric.shape)
            }
        }
    }

    fn key_of_point(&mut self, metric: Metric<'_>, attributes: Attributes<'_>) -> SeriesKey {
        let mut sorted: Vec<(Arc<str>, Arc<str>)> = attributes
            .map(|(key, value)| (self.series.text(key), self.series.text(&value.to_string())))
            .collect();
        sorted.sort();
        // Of a key that is given twice the larger value stays; no sender may do that.
        sorted.reverse();
        sorted.dedup_by(|a, b| a.0 == b.0);
        sorted.reverse();
        sorted.truncate(ATTRIBUTES);
        self.key(head_of(metric.context.service), metric.name, metric.unit, sorted)
    }

    fn add(&mut self, metric: Metric<'_>, placed: Placed, cell: Cell) {
        if let Some(series) = self.series.get_mut(placed.series) {
            let window = WindowId::of(placed.time);
            self.hot.add(placed.series, series, window, metric.context.second, cell);
        }
    }

    /// Counts a point for the indicators that want its series.
    fn indicate(&mut self, placed: Placed, of: impl Fn(&Indicator) -> Option<(u64, u64)>) {
        let Some(series) = self.series.get(placed.series) else { return };
        for &place in self.series.indicators_of(series) {
            let indicator = self.indicators.get(place as usize);
            if let (Some(indicator), Some(seconds)) = (indicator, self.seconds.get_mut(place as usize))
                && let Some((good, total)) = of(indicator).filter(|&(good, total)| good > 0 || total > 0)
            {
                count_second(seconds, placed.time, good, total);
            }
        }
    }

    fn level(&mut self, metric: Metric<'_>, placed: Placed, value: Option<Number>) {
        if let Some(value) = value.map(value_of).filter(|value| value.is_finite()) {
            self.indicate(placed, |indicator| indicator.level(value));
            self.add(metric, placed, Cell::Level(Level::of(value, placed.time)));
        }
    }

    fn total(
        &mut self,
        metric: Metric<'_>,
        placed: Placed,
        at: Point<'_>,
        value: Option<Number>,
        temporality: Temporality,
    ) {
        let Some(value) = value.map(value_of).filter(|value| value.is_finite()) else { return };
        let delta = match temporality {
            Temporality::Delta => value,
            Temporality::Cumulative | Temporality::Unspecified => {
                let Some(moment) = self.moment(metric, placed.series, at) else { return };
                self.streams.number(moment, value)
            }
        };
        self.indicate(placed, |indicator| indicator.growth(delta));
        self.add(metric, placed, Cell::Total(Total { delta, points: 1 }));
    }

    fn explicit_view(
        &mut self,
        metric: Metric<'_>,
        point: &HistogramPoint<'_>,
        temporality: Temporality,
        tally: &mut Tally,
    ) {
        let at = Point {
            start: point.start,
            time: point.time,
            flags: point.flags,
            attributes: point.attributes(),
        };
        let Some(placed) = self.find_point(metric, at, tally) else { return };
        let raw_counts: Vec<u8> = point.bucket_counts().flat_map(u64::to_le_bytes).collect();
        let raw_bounds: Vec<u8> = point.explicit_bounds().flat_map(f64::to_le_bytes).collect();
        let row = ExplicitRow {
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            raw_counts: &raw_counts,
            raw_bounds: &raw_bounds,
        };
        self.explicit(metric, placed, at, &row, temporality);
    }

    fn explicit(
        &mut self,
        metric: Metric<'_>,
        placed: Placed,
        at: Point<'_>,
        point: &ExplicitRow<'_>,
        temporality: Temporality,
    ) {
        match temporality {
            Temporality::Delta => {
                let is_wanted = self
                    .series
                    .get(placed.series)
                    .is_some_and(|of| !self.series.indicators_of(of).is_empty());
                if is_wanted {
                    let (counts, bounds) = buckets_of(point);
                    self.indicate(placed, |indicator| indicator.explicit(&counts, &bounds));
                }
                if let Some(series) = self.series.get_mut(placed.series) {
                    let window = WindowId::of(placed.time);
                    self.hot.add_explicit(placed.series, series, window, metric.context.second, point);
                }
            }
            Temporality::Cumulative | Temporality::Unspecified => {
                let (counts, bounds) = buckets_of(point);
                let sum = point.sum.filter(|sum| sum.is_finite()).unwrap_or(0.0);
                let now = Growing { counts: Counts::Explicit { counts, bounds }, sum };
                let Some(moment) = self.moment(metric, placed.series, at) else { return };
                let cell = self.grown((moment, placed), now, (point.min, point.max));
                self.add(metric, placed, Cell::Distribution(Box::new(cell)));
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
        let at = Point {
            start: point.start,
            time: point.time,
            flags: point.flags,
            attributes: point.attributes(),
        };
        let Some(placed) = self.find_point(metric, at, tally) else { return };
        let histogram = points::exponential(point);
        let sum = point.sum.filter(|sum| sum.is_finite()).unwrap_or(0.0);
        let cell = match temporality {
            Temporality::Delta => {
                self.indicate(placed, |indicator| indicator.exponential(&histogram));
                Distribution { histogram, sum, points: 1 }
            }
            Temporality::Cumulative | Temporality::Unspecified => {
                let Some(moment) = self.moment(metric, placed.series, at) else { return };
                let now = Growing { counts: Counts::Exponential(histogram), sum };
                self.grown((moment, placed), now, (None, None))
            }
        };
        self.add(metric, placed, Cell::Distribution(Box::new(cell)));
    }

    fn grown(
        &mut self,
        (at, placed): (Moment, Placed),
        now: Growing,
        extremes: (Option<f64>, Option<f64>),
    ) -> Distribution {
        let grown = self.streams.histogram(at, now);
        match grown.as_ref().map(|grown| &grown.counts) {
            Some(Counts::Explicit { counts, bounds }) => {
                self.indicate(placed, |indicator| indicator.explicit(counts, bounds));
            }
            Some(Counts::Exponential(histogram)) => {
                self.indicate(placed, |indicator| indicator.exponential(histogram));
            }
            None => {}
        }
        match grown {
            Some(Growing { counts: Counts::Explicit { counts, bounds }, sum }) => {
                Distribution { histogram: explicit_histogram(&counts, &bounds, extremes), sum, points: 1 }
            }
            Some(Growing { counts: Counts::Exponential(histogram), sum }) => {
                Distribution { histogram, sum, points: 1 }
            }
            None => Distribution { points: 1, ..Distribution::default() },
        }
    }
}

impl<'a> From<&NumberPoint<'a>> for Point<'a> {
    fn from(point: &NumberPoint<'a>) -> Self {
        Self { start: point.start, time: point.time, flags: point.flags, attributes: point.attributes() }
    }
}

/// Counts and bounds of explicit buckets.
fn buckets_of(point: &ExplicitRow<'_>) -> (Vec<u64>, Vec<f64>) {
    let mut counts: Vec<u64> = point.counts().take(points::EXPLICIT_BUCKETS).collect();
    if counts.is_empty() && point.count > 0 {
        // A histogram without buckets: sum and count alone.
        counts.push(point.count);
    }
    (counts, point.bounds().take(points::EXPLICIT_BUCKETS).collect())
}

const fn head_of(service: u32) -> Head {
    Head { service, signal: Signal::Metrics, kind: SpanKind::Unspecified, entry: false }
}

fn explicit_histogram(counts: &[u64], bounds: &[f64], (min, max): (Option<f64>, Option<f64>)) -> Histogram {
    let raw_counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
    let raw_bounds: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
    let row =
        ExplicitRow { min, max, raw_counts: &raw_counts, raw_bounds: &raw_bounds, ..ExplicitRow::default() };
    points::explicit(&row).histogram()
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

/// The front of the name of a series of a metric.
fn put_metric(raw: &mut Vec<u8>, name: &str, unit: &str) {
    raw.clear();
    put(raw, |raw| raw.extend_from_slice(name.as_bytes()));
    put(raw, |raw| raw.extend_from_slice(unit.as_bytes()));
}

/// A name of the series of a point, however its attributes are laid out.
fn put_name(raw: &mut Vec<u8>, metric: Metric<'_>, attributes: Attributes<'_>) {
    put_metric(raw, metric.name, metric.unit);
    for attribute in attributes.messages() {
        put(raw, |raw| raw.extend_from_slice(attribute));
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
