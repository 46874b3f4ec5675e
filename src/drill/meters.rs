//! What an instance's meters hold, and how a periodic reader exports them: cumulative sums and
//! histograms, gauges as of now.

use super::instance::{number, text};
use super::shop::{Entry, Operation};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric,
    number_data_point::Value,
};
use std::collections::BTreeMap;

/// The bounds that the semantic conventions advise for durations in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Durations of the requests that had one route and status.
#[derive(Clone, Debug, Default)]
struct Durations {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
    count: u64,
}

/// The meters of one instance.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    started_ns: u64,
    /// By operation's number and status code.
    requests: BTreeMap<(usize, u16), (Route, Durations)>,
    sums: BTreeMap<&'static str, u64>,
}

/// Method and route.
type Route = (&'static str, &'static str);

/// The state of a pool of database connections.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub size: u32,
    pub used: u32,
    pub pending: u32,
}

impl Meters {
    #[must_use]
    pub fn new(started_ns: u64) -> Self {
        Self { started_ns, ..Self::default() }
    }

    pub fn request(&mut self, number: usize, operation: &Operation, status: u16, seconds: f64) {
        let Entry::Http(method, route) = operation.entry else { return };
        let (_, durations) =
            self.requests.entry((number, status)).or_insert_with(|| ((method, route), Durations::default()));
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = durations.counts.get_mut(bucket) {
            *count += 1;
        }
        durations.sum += seconds;
        durations.count += 1;
    }

    /// Adds to a monotonic sum.
    pub fn add(&mut self, name: &'static str, n: u64) {
        *self.sums.entry(name).or_default() += n;
    }

    fn point(&self, at_ns: u64, attributes: Vec<KeyValue>, value: Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.started_ns,
            time_unix_nano: at_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    /// An instrument that goes up and down: a non-monotonic cumulative sum.
    #[must_use]
    pub fn up_down(&self, name: &str, unit: &str, at_ns: u64, values: Vec<(Vec<KeyValue>, i64)>) -> Metric {
        let data_points = values
            .into_iter()
            .map(|(attributes, value)| self.point(at_ns, attributes, Value::AsInt(value)))
            .collect();
        metric(
            name,
            unit,
            metric::Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: false,
            }),
        )
    }

    #[must_use]
    pub fn gauge(&self, name: &str, unit: &str, at_ns: u64, value: f64) -> Metric {
        let data_points = vec![self.point(at_ns, Vec::new(), Value::AsDouble(value))];
        metric(name, unit, metric::Data::Gauge(Gauge { data_points }))
    }

    /// The pool as `db.client.connection.*`.
    #[must_use]
    pub fn pool(&self, at_ns: u64, pool: Pool) -> Vec<Metric> {
        let name = || text("db.client.connection.pool.name", "postgres-primary");
        let state =
            |state, value: u32| (vec![name(), text("db.client.connection.state", state)], i64::from(value));
        vec![
            self.up_down(
                "db.client.connection.count",
                "{connection}",
                at_ns,
                vec![state("used", pool.used), state("idle", pool.size.saturating_sub(pool.used))],
            ),
            self.up_down(
                "db.client.connection.max",
                "{connection}",
                at_ns,
                vec![(vec![name()], i64::from(pool.size))],
            ),
            self.up_down(
                "db.client.connection.pending_requests",
                "{request}",
                at_ns,
                vec![(vec![name()], i64::from(pool.pending))],
            ),
        ]
    }

    /// All that was counted.
    #[must_use]
    pub fn counted(&self, at_ns: u64) -> Vec<Metric> {
        let mut metrics = Vec::new();
        if !self.requests.is_empty() {
            let data_points = self
                .requests
                .iter()
                .map(|((_, status), ((method, route), durations))| HistogramDataPoint {
                    attributes: vec![
                        text("http.request.method", method),
                        text("http.route", route),
                        number("http.response.status_code", i64::from(*status)),
                    ],
                    start_time_unix_nano: self.started_ns,
                    time_unix_nano: at_ns,
                    count: durations.count,
                    sum: Some(durations.sum),
                    bucket_counts: durations.counts.to_vec(),
                    explicit_bounds: BOUNDS.to_vec(),
                    ..HistogramDataPoint::default()
                })
                .collect();
            metrics.push(metric(
                "http.server.request.duration",
                "s",
                metric::Data::Histogram(Histogram {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                }),
            ));
        }
        for (name, value) in &self.sums {
            let value = Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX));
            metrics.push(metric(
                name,
                "1",
                metric::Data::Sum(Sum {
                    data_points: vec![self.point(at_ns, Vec::new(), value)],
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }),
            ));
        }
        metrics
    }
}

fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}
