//! How metric points are counted.

use super::indicator::Indicator;
use super::point_names::{Metric, Point};
use super::points;
use super::series::NONE;
use super::shard::{Context, Shard, Tally};
use super::spans::count_second;
use super::streams::{Counts, Growing, Moment};
use super::{Cell, Distribution, Level, Total};
use crate::model::{Timestamp, TraceId, WindowId};
use crate::otlp::{
    Data, ExplicitRow, ExponentialPoint, HistogramPoint, InstrumentationScope, MetricKind, MetricRow,
    MetricRows, MetricView, NO_RECORDED_VALUE, Number, PointRow, PointValue, ResourceMetrics, Temporality,
};
use crate::sketch::Histogram;

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
            let common = service.map(|service| self.name_of_metric(service, metric.name, metric.unit));
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
            let at = Point::from(point);
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
                let at = Point::from(&point);
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
        self.bound_late(context.arrived, tally);
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
        let at = Point::from(point);
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
        let at = Point::from(point);
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
        match self.streams.histogram(at, now) {
            Some(Growing { counts: Counts::Explicit { counts, bounds }, sum }) => {
                self.indicate(placed, |indicator| indicator.explicit(&counts, &bounds));
                Distribution { histogram: explicit_histogram(&counts, &bounds, extremes), sum, points: 1 }
            }
            Some(Growing { counts: Counts::Exponential(histogram), sum }) => {
                self.indicate(placed, |indicator| indicator.exponential(&histogram));
                Distribution { histogram, sum, points: 1 }
            }
            None => Distribution { points: 1, ..Distribution::default() },
        }
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
