//! Answers from windows: services, operations, latency, series, the graph.

use super::convert::{duration, nanoseconds, service, span_kind, to_proto};
use super::near::near_in_words;
use super::windows::{Piece, Windows};
use super::{Error, Meter};
use crate::aggregate::{Cell, EdgeCell, Requests};
use crate::api::v1;
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, Timestamp, WINDOW, WindowId};
use crate::sketch::Histogram;
use crate::window::{EdgeKey, Node, Registry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Range of a question that names none.
pub const DEFAULT_RANGE: Duration = Duration::from_secs(3_600);
/// Rows of one answer over time.
const MOST_STEPS: u64 = 10_000;
const MOST_SERIES: usize = 1_000;
const MOST_QUANTILES: usize = 32;
/// What a series costs while a question is worked on: a histogram and its place.
const SERIES_BYTES: u64 = 2_048;
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

/// A range of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Range {
    /// The last `ago` up to the newest data.
    #[must_use]
    pub fn last(ago: Duration, now: Timestamp) -> Self {
        Self { since: now.saturating_sub(ago), until: Timestamp::MAX }
    }

    /// The range of a request; `otherwise` long if it names none.
    ///
    /// # Errors
    /// `Invalid` if it ends before it begins.
    pub fn of(asked: Option<&v1::TimeRange>, now: Timestamp, otherwise: Duration) -> Result<Self, Error> {
        use v1::time_range::{From, To};
        let since = match asked.and_then(|range| range.from.as_ref()) {
            Some(From::Since(at)) => super::from_proto(at),
            Some(From::SinceAgoNs(ns)) => now.saturating_sub(duration(*ns)),
            None => now.saturating_sub(otherwise),
        };
        let until = match asked.and_then(|range| range.to.as_ref()) {
            Some(To::Until(at)) => super::from_proto(at),
            Some(To::UntilAgoNs(ns)) => now.saturating_sub(duration(*ns)),
            None => Timestamp::MAX,
        };
        if until <= since {
            return Err(Error::Invalid(format!("the range ends ({until}) before it begins ({since})")));
        }
        Ok(Self { since, until })
    }
}

/// Answers questions from the windows there are.
#[derive(Clone)]
pub struct Queries {
    pub windows: Arc<dyn Windows>,
    pub registry: Arc<Registry>,
}

/// How a service did over time, for small charts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beat {
    pub start: Timestamp,
    pub requests: u64,
    pub errors: u64,
    pub p99_ns: Option<i64>,
}

impl Queries {
    /// The one service that `text` means; `None` if it is empty.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Invalid` with the candidates if there are several.
    pub fn service(&self, text: &str) -> Result<Option<ServiceKey>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        let known = self.registry.services();
        let mut meant: Vec<&ServiceKey> = known.iter().filter(|service| service.is_meant_by(text)).collect();
        match (meant.pop(), meant.as_slice()) {
            (Some(service), []) => Ok(Some(service.clone())),
            (None, _) => {
                // Who names a service alone means its name alone.
                let name =
                    |of: &ServiceKey| if text.contains('/') { of.to_string() } else { of.name.to_string() };
                let names: BTreeSet<String> = known.iter().map(name).collect();
                let near = near_in_words(text, names.iter().map(String::as_str));
                Err(Error::NotFound(format!(
                    "no service {text:?} has sent anything: `barograph services` lists those that have{near}"
                )))
            }
            (Some(last), others) => {
                let names: Vec<String> = others
                    .iter()
                    .copied()
                    .chain([last])
                    .take(20)
                    .map(|of| format!("{}/{}/{}", of.environment, of.namespace, of.name))
                    .collect();
                Err(Error::Invalid(format!(
                    "{text:?} means several services, name one of: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// All services that `text` means.
    #[must_use]
    pub fn services_meant(&self, text: &str) -> BTreeSet<ServiceKey> {
        self.registry.services().into_iter().filter(|of| of.is_meant_by(text)).collect()
    }

    /// Calls `each` with every piece of the range while time lasts.
    pub(super) fn visit(
        &self,
        range: Range,
        meter: &mut Meter,
        mut each: impl FnMut(Piece<'_>, &mut Meter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut failed = None;
        let read = self.windows.visit(range.since, range.until, &mut |piece| match meter
            .check()
            .and_then(|()| each(piece, meter))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        match failed {
            Some(error) => Err(error),
            None => read.map_err(Error::Storage),
        }
    }

    /// All cells of the range merged by series, of those series that `wanted` takes.
    fn merged(
        &self,
        range: Range,
        meter: &mut Meter,
        wanted: impl Fn(&SeriesKey) -> bool,
    ) -> Result<Vec<(Arc<SeriesKey>, Cell)>, Error> {
        let mut known: HashMap<SeriesId, Option<(Arc<SeriesKey>, Cell)>> = HashMap::new();
        self.visit(range, meter, |piece, meter| {
            for (id, packed) in piece.cells.packed() {
                match known.get_mut(&id) {
                    Some(Some((_, sum))) => {
                        if let Some(cell) = packed.cell() {
                            sum.merge(&cell);
                        }
                    }
                    Some(None) => {}
                    None => {
                        meter.take(SERIES_BYTES)?;
                        let key = self.registry.get(id).filter(|key| wanted(key));
                        known.insert(id, key.and_then(|key| Some((key, packed.cell()?))));
                    }
                }
            }
            Ok(())
        })?;
        let mut merged: Vec<_> = known.into_values().flatten().collect();
        merged.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(merged)
    }

    /// # Errors
    /// As [`Self::service`], or the question's cost.
    pub fn services(
        &self,
        range: Range,
        only: Option<&ServiceKey>,
        meter: &mut Meter,
    ) -> Result<Vec<v1::ServiceSummary>, Error> {
        let mut services: BTreeMap<ServiceKey, (v1::ServiceSummary, Requests)> = BTreeMap::new();
        for (key, cell) in self.merged(range, meter, |key| only.is_none_or(|only| key.service == *only))? {
            let (summary, requests) = services.entry(key.service.clone()).or_default();
            match key.signal {
                Signal::Traces => summary.spans = summary.spans.saturating_add(cell.items()),
                Signal::Logs => summary.log_records = summary.log_records.saturating_add(cell.items()),
                Signal::Metrics => summary.metric_points = summary.metric_points.saturating_add(cell.items()),
            }
            if let Cell::Requests(cell) = &cell
                && key.entry
            {
                requests.merge(cell);
            }
        }
        Ok(services
            .into_iter()
            .map(|(key, (mut summary, requests))| {
                summary.service = Some(service(&key));
                summary.requests = requests.weight.rounded();
                summary.errors = requests.errors_weight.rounded();
                summary.error_ratio = error_ratio(&requests);
                let [p50, p90, p95, p99, p999] = quantiles(&requests.latency);
                (summary.p50_ns, summary.p90_ns, summary.p95_ns) = (p50, p90, p95);
                (summary.p99_ns, summary.p999_ns) = (p99, p999);
                summary
            })
            .collect())
    }

    /// # Errors
    /// The question's cost.
    pub fn operations(
        &self,
        range: Range,
        only: Option<&ServiceKey>,
        meter: &mut Meter,
    ) -> Result<Vec<v1::OperationSummary>, Error> {
        // An operation's roots and its other spans are different series, and so are configured attributes.
        let mut operations: BTreeMap<(ServiceKey, Arc<str>, u8), (v1::SpanKind, Requests)> = BTreeMap::new();
        let wanted =
            |key: &SeriesKey| key.signal == Signal::Traces && only.is_none_or(|only| key.service == *only);
        for (key, cell) in self.merged(range, meter, wanted)? {
            let Cell::Requests(cell) = cell else { continue };
            let kind = span_kind(key.kind);
            let place = (key.service.clone(), key.operation.clone(), kind as u8);
            operations.entry(place).or_insert_with(|| (kind, Requests::default())).1.merge(&cell);
        }
        Ok(operations
            .into_iter()
            .map(|((key, operation, _), (kind, requests))| {
                let [p50_ns, p90_ns, p95_ns, p99_ns, p999_ns] = quantiles(&requests.latency);
                v1::OperationSummary {
                    service: Some(service(&key)),
                    operation: operation.to_string(),
                    kind: kind as i32,
                    requests: requests.weight.rounded(),
                    errors: requests.errors_weight.rounded(),
                    error_ratio: error_ratio(&requests),
                    p50_ns,
                    p90_ns,
                    p95_ns,
                    p99_ns,
                    p999_ns,
                }
            })
            .collect())
    }

    /// # Errors
    /// `Invalid` for quantiles out of range or too many rows, or the question's cost.
    pub fn latency(
        &self,
        request: &v1::GetLatencyRequest,
        range: Range,
        of: &ServiceKey,
        meter: &mut Meter,
    ) -> Result<Vec<v1::LatencyRow>, Error> {
        let asked: &[f64] = if request.quantiles.is_empty() { &QUANTILES } else { &request.quantiles };
        if asked.len() > MOST_QUANTILES {
            return Err(Error::Invalid(format!("at most {MOST_QUANTILES} quantiles at once")));
        }
        if let Some(wrong) = asked.iter().find(|quantile| !(0.0..=1.0).contains(*quantile)) {
            return Err(Error::Invalid(format!("quantile {wrong} is not between 0 and 1")));
        }
        let step = (request.step_ns > 0).then(|| whole_windows(duration(request.step_ns)));
        let mut rows: BTreeMap<Timestamp, Histogram> = BTreeMap::new();
        let mut last = range.since;
        let mut wanted: HashMap<SeriesId, bool> = HashMap::new();
        self.visit(range, meter, |piece, meter| {
            last = last.max(piece.end);
            let at = step.map_or(Timestamp::ZERO, |step| step_of(piece.start, step));
            for (id, packed) in piece.cells.packed() {
                let wanted = *wanted.entry(id).or_insert_with(|| {
                    self.registry.get(id).is_some_and(|key| {
                        key.service == *of
                            && if request.operation.is_empty() {
                                key.entry
                            } else {
                                *key.operation == *request.operation
                            }
                    })
                });
                if !wanted {
                    continue;
                }
                let Some(Cell::Requests(cell)) = packed.cell() else { continue };
                if !rows.contains_key(&at) {
                    meter.take(SERIES_BYTES)?;
                }
                rows.entry(at).or_default().merge(&cell.latency);
            }
            Ok(())
        })?;
        let until = range.until.min(WindowId::of(Timestamp(last.ns().saturating_sub(1))).end());
        let row = |start: Timestamp, end: Timestamp, histogram: Option<&Histogram>| v1::LatencyRow {
            start: Some(to_proto(start)),
            end: Some(to_proto(end)),
            count: histogram.map_or(0, Histogram::count),
            quantiles: histogram
                .map(|histogram| asked.iter().filter_map(|&q| quantile(histogram, q)).collect())
                .unwrap_or_default(),
        };
        let begin = WindowId::of(range.since).start();
        let Some(step) = step else {
            return Ok(vec![row(begin, until.max(begin), rows.get(&Timestamp::ZERO))]);
        };
        let first = step_of(begin, step);
        if until.since(first).as_nanos() / step.as_nanos().max(1) > u128::from(MOST_STEPS) {
            return Err(Error::Invalid(format!("more than {MOST_STEPS} rows: ask for longer steps")));
        }
        let mut out = Vec::new();
        let mut at = first;
        while at < until {
            let next = at.saturating_add(step);
            out.push(row(at, next, rows.get(&at)));
            at = next;
        }
        Ok(out)
    }

    /// # Errors
    /// `Invalid` for too many rows, or the question's cost.
    pub fn time_series(
        &self,
        request: &v1::GetTimeSeriesRequest,
        range: Range,
        of: &ServiceKey,
        meter: &mut Meter,
    ) -> Result<Vec<v1::TimeSeries>, Error> {
        let signal = match request.signal() {
            v1::Signal::Unspecified | v1::Signal::Traces => Signal::Traces,
            v1::Signal::Logs => Signal::Logs,
            v1::Signal::Metrics => Signal::Metrics,
        };
        let step = whole_windows(duration(request.step_ns));
        type Place = (Arc<str>, Arc<str>, Vec<(Arc<str>, Arc<str>)>);
        let place = |key: &SeriesKey| -> Option<Place> {
            let named = request.name.is_empty() || *key.operation == *request.name;
            let wanted = key.service == *of
                && key.signal == signal
                && named
                && (signal != Signal::Traces || !request.name.is_empty() || key.entry);
            wanted.then(|| match signal {
                Signal::Traces => (request.name.as_str().into(), "ns".into(), Vec::new()),
                Signal::Logs => ("".into(), "{record}".into(), Vec::new()),
                Signal::Metrics => (key.operation.clone(), key.unit.clone(), key.attributes.clone()),
            })
        };
        let mut places: HashMap<SeriesId, Option<Place>> = HashMap::new();
        let mut all: BTreeMap<Place, BTreeMap<Timestamp, Cell>> = BTreeMap::new();
        self.visit(range, meter, |piece, meter| {
            let at = step_of(piece.start, step);
            for (id, packed) in piece.cells.packed() {
                let place =
                    places.entry(id).or_insert_with(|| self.registry.get(id).and_then(|key| place(&key)));
                let Some(place) = place else { continue };
                if !all.contains_key(place) && all.len() >= MOST_SERIES {
                    continue;
                }
                let Some(cell) = packed.cell() else { continue };
                let points = all.entry(place.clone()).or_default();
                if let Some(sum) = points.get_mut(&at) {
                    sum.merge(&cell);
                } else if points.len() as u64 >= MOST_STEPS {
                    return Err(Error::Invalid(format!(
                        "more than {MOST_STEPS} points: ask for longer steps"
                    )));
                } else {
                    meter.take(SERIES_BYTES)?;
                    points.insert(at, cell);
                }
            }
            Ok(())
        })?;
        Ok(all
            .into_iter()
            .map(|((name, unit, attributes), points)| v1::TimeSeries {
                service: Some(service(of)),
                name: name.to_string(),
                unit: unit.to_string(),
                attributes: attributes
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
                points: points.iter().map(|(&at, cell)| point(at, at.saturating_add(step), cell)).collect(),
            })
            .collect())
    }

    /// # Errors
    /// The question's cost.
    pub fn graph(
        &self,
        range: Range,
        only: Option<&ServiceKey>,
        meter: &mut Meter,
    ) -> Result<Vec<v1::Edge>, Error> {
        let mut edges: BTreeMap<Arc<EdgeKey>, EdgeCell> = BTreeMap::new();
        self.visit(range, meter, |piece, meter| {
            for (key, cell) in piece.edges {
                let wanted =
                    only.is_none_or(|only| key.client == *only || key.server.service() == Some(only));
                if !wanted {
                    continue;
                }
                if !edges.contains_key(key) {
                    meter.take(SERIES_BYTES)?;
                }
                edges.entry(key.clone()).or_default().merge(cell);
            }
            Ok(())
        })?;
        Ok(edges
            .into_iter()
            .map(|(key, cell)| v1::Edge {
                client: Some(service(&key.client)),
                server: Some(match &key.server {
                    Node::Service(key) => v1::edge::Server::Service(service(key)),
                    Node::Peer { address, system } => v1::edge::Server::Peer(v1::Peer {
                        address: address.to_string(),
                        system: system.to_string(),
                    }),
                }),
                kind: span_kind(key.kind) as i32,
                requests: cell.requests,
                errors: cell.errors,
                p50_ns: cell.latency.quantile(0.5).map(nanoseconds),
                p99_ns: cell.latency.quantile(0.99).map(nanoseconds),
            })
            .collect())
    }

    /// Requests of every service in steps over the range; steps without any are left out.
    ///
    /// # Errors
    /// The question's cost.
    pub fn beats(
        &self,
        range: Range,
        step: Duration,
        meter: &mut Meter,
    ) -> Result<BTreeMap<ServiceKey, Vec<Beat>>, Error> {
        let step = whole_windows(step);
        let mut keys: HashMap<SeriesId, Option<Arc<SeriesKey>>> = HashMap::new();
        let mut all: BTreeMap<ServiceKey, BTreeMap<Timestamp, Requests>> = BTreeMap::new();
        self.visit(range, meter, |piece, meter| {
            let at = step_of(piece.start, step);
            for (id, packed) in piece.cells.packed() {
                let key = keys.entry(id).or_insert_with(|| self.registry.get(id).filter(|key| key.entry));
                let Some(key) = key else { continue };
                let Some(Cell::Requests(cell)) = packed.cell() else { continue };
                let steps = all.entry(key.service.clone()).or_default();
                if !steps.contains_key(&at) {
                    meter.take(SERIES_BYTES)?;
                }
                steps.entry(at).or_default().merge(&cell);
            }
            Ok(())
        })?;
        Ok(all
            .into_iter()
            .map(|(service, steps)| {
                let beat = |(start, of): (Timestamp, Requests)| Beat {
                    start,
                    requests: of.weight.rounded(),
                    errors: of.errors_weight.rounded(),
                    p99_ns: of.latency.quantile(0.99).map(nanoseconds),
                };
                (service, steps.into_iter().map(beat).collect())
            })
            .collect())
    }
}

/// The step, rounded up to whole windows, at least one.
pub(super) fn whole_windows(step: Duration) -> Duration {
    let windows = step.as_nanos().div_ceil(WINDOW.as_nanos()).max(1);
    WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX))
}

/// Start of the step that `at` lies in. Steps are counted from the epoch, so that they stay where they
/// are when the same is asked again.
pub(super) fn step_of(at: Timestamp, step: Duration) -> Timestamp {
    let step = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
    Timestamp(at.ns() - at.ns() % step)
}

fn error_ratio(of: &Requests) -> f64 {
    if of.weight.0 == 0 { 0.0 } else { of.errors_weight.0 as f64 / of.weight.0 as f64 }
}

fn quantiles(of: &Histogram) -> [Option<i64>; 5] {
    QUANTILES.map(|quantile| of.quantile(quantile).map(nanoseconds))
}

fn quantile(of: &Histogram, quantile: f64) -> Option<v1::Quantile> {
    of.quantile(quantile).map(|value| v1::Quantile { quantile, value_ns: nanoseconds(value) })
}

fn point(start: Timestamp, end: Timestamp, cell: &Cell) -> v1::TimeSeriesPoint {
    let mut point = v1::TimeSeriesPoint {
        start: Some(to_proto(start)),
        end: Some(to_proto(end)),
        count: cell.items(),
        ..v1::TimeSeriesPoint::default()
    };
    match cell {
        Cell::Requests(of) => {
            point.errors = of.errors;
            point.p50_ns = of.latency.quantile(0.5).map(nanoseconds);
            point.p99_ns = of.latency.quantile(0.99).map(nanoseconds);
        }
        Cell::Lines(of) => {
            let [.., error, fatal] = of.by_severity;
            point.errors = error.saturating_add(fatal);
        }
        Cell::Level(of) => {
            (point.last, point.mean) = (Some(of.last), Some(of.mean()));
            (point.min, point.max) = (Some(of.min), Some(of.max));
        }
        Cell::Total(of) => point.delta = Some(of.delta),
        Cell::Distribution(of) => {
            point.last = of.histogram.quantile(0.5);
            (point.min, point.max) = (of.histogram.quantile(0.0), of.histogram.quantile(1.0));
            let count = of.histogram.count();
            point.mean = (count > 0).then(|| of.sum / count as f64);
        }
    }
    point
}
