//! Requests that are encoded once and only stamped before each sending: times and trace ids change.

use crate::drill::instance::{number, text};
use crate::drill::random::Random;
use crate::model::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::time::Duration;

/// What requests look like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Spans, log records or metric points a request.
    pub items: usize,
    /// Attributes an item.
    pub attributes: usize,
    /// Resources a request: one resembles an SDK, several a Collector.
    pub resources: usize,
    pub services: usize,
    /// Distinct operations, or metric series, over all services.
    pub series: usize,
    /// Share of spans with status ERROR.
    pub errors: f64,
}

/// The upper half of a time that is to be stamped: no UTF-8 text holds these bytes. The lower half is
/// by how many nanoseconds it lies before the stamp.
const TIME_MARK: u32 = 0xe5fe_a5ff;
/// The first half of a trace id that is to be stamped.
const TRACE_MARK: [u8; 8] = [0xf7, 0xfe, 0xf7, 0xff, 0xfe, 0xf7, 0xff, 0xf7];

fn marked(before: Duration) -> u64 {
    u64::from(TIME_MARK) << 32 | before.as_nanos().min(u128::from(u32::MAX)) as u64
}

/// A request and where it is to be stamped.
#[derive(Clone, Debug)]
pub struct Template {
    pub signal: Signal,
    pub items: u64,
    bytes: Vec<u8>,
    /// Where times are, and how long before the stamp each lies.
    times: Vec<(usize, u64)>,
    traces: Vec<usize>,
}

impl Template {
    fn new(signal: Signal, items: usize, bytes: Vec<u8>) -> Self {
        let find = |mark: &[u8]| -> Vec<usize> {
            bytes.windows(mark.len()).enumerate().filter(|(_, w)| *w == mark).map(|(at, _)| at).collect()
        };
        let times = find(&TIME_MARK.to_le_bytes())
            .into_iter()
            .filter_map(|at| {
                let at = at.checked_sub(4)?;
                let before = bytes.get(at..at + 4)?.try_into().ok()?;
                Some((at, u64::from(u32::from_le_bytes(before))))
            })
            .collect();
        let traces = find(&TRACE_MARK);
        Self { signal, items: items as u64, bytes, times, traces }
    }

    /// The request as of `now`, with trace ids that begin with `number`.
    #[must_use]
    pub fn stamp(&self, now_ns: u64, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut put = |at: usize, value: [u8; 8]| {
            if let Some(place) = bytes.get_mut(at..at + 8) {
                place.copy_from_slice(&value);
            }
        };
        for &(at, before) in &self.times {
            put(at, now_ns.saturating_sub(before).to_le_bytes());
        }
        for &at in &self.traces {
            // Spread like random ids, and never all zero.
            put(at, (number | 1 << 63).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        }
        bytes
    }
}

/// Instances of each service.
const INSTANCES: usize = 3;
/// Distinct requests, at least, and how often each series is in them.
const REQUESTS: usize = 64;
const ITEMS_OF_A_SERIES: usize = 13;

/// Distinct requests of one signal; the same seed gives the same ones.
#[must_use]
pub fn templates(signal: Signal, shape: &Shape, seed: u64) -> Vec<Template> {
    let mut random = Random::new(seed);
    let requests = REQUESTS.max(ITEMS_OF_A_SERIES * shape.series / shape.items.max(1));
    (0..requests).map(|number| template(signal, shape, number, &mut random)).collect()
}

fn resource(service: usize, instance: usize) -> Resource {
    let name = format!("load-{service}");
    let pod = format!("{name}-7c9d5b6f48-{instance:05}");
    Resource {
        attributes: vec![
            text("service.name", &name),
            text("service.namespace", "load"),
            text("service.version", "1.0.0"),
            text("service.instance.id", &pod),
            text("deployment.environment.name", "load"),
            text("host.name", &format!("node-{instance}")),
            text("k8s.namespace.name", "load"),
            text("k8s.pod.name", &pod),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Resource::default()
    }
}

fn template(signal: Signal, shape: &Shape, number: usize, random: &mut Random) -> Template {
    let parts = shape.resources.clamp(1, shape.items.max(1));
    let own = (shape.series / shape.services.max(1)).max(1);
    let mut each = (0..parts).map(|part| {
        let turn = number * parts + part;
        let services = shape.services.max(1);
        // As even as it goes.
        let items = shape.items * (part + 1) / parts - shape.items * part / parts;
        (Some(resource(turn % services, turn / services % INSTANCES)), items)
    });
    let scope =
        Some(InstrumentationScope { name: "barograph.load".into(), ..InstrumentationScope::default() });
    let bytes = match signal {
        Signal::Traces => {
            let resource_spans = each
                .by_ref()
                .map(|(resource, items)| {
                    let spans = (0..items).map(|item| span(shape, item, own, random)).collect();
                    let scope_spans =
                        vec![ScopeSpans { scope: scope.clone(), spans, ..ScopeSpans::default() }];
                    ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
                })
                .collect();
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        }
        Signal::Logs => {
            let resource_logs = each
                .by_ref()
                .map(|(resource, items)| {
                    let log_records = (0..items).map(|item| record(shape, item, random)).collect();
                    let scope_logs =
                        vec![ScopeLogs { scope: scope.clone(), log_records, ..ScopeLogs::default() }];
                    ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }
                })
                .collect();
            ExportLogsServiceRequest { resource_logs }.encode_to_vec()
        }
        Signal::Metrics => {
            let resource_metrics = each
                .by_ref()
                .map(|(resource, items)| {
                    let metrics = metrics(shape, items, number * items, own, random);
                    let scope_metrics =
                        vec![ScopeMetrics { scope: scope.clone(), metrics, ..ScopeMetrics::default() }];
                    ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }
                })
                .collect();
            ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
        }
    };
    Template::new(signal, shape.items, bytes)
}

/// Attributes as HTTP instrumentation sets them, and then more.
fn attributes(shape: &Shape, route: usize, random: &mut Random) -> Vec<KeyValue> {
    (0..shape.attributes)
        .map(|at| match at {
            0 => text("http.request.method", "GET"),
            1 => text("url.path", &format!("/load/r{route}/items/{}", random.below(10_000))),
            2 => text("http.route", &format!("/load/r{route}/items/{{id}}")),
            3 => number("http.response.status_code", 200),
            4 => text("url.scheme", "https"),
            5 => text("server.address", "api.load.svc.cluster.local"),
            6 => number("server.port", 8443),
            7 => text("network.protocol.version", "1.1"),
            8 => text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            9 => text("client.address", &format!("10.1.{}.{}", random.below(250), random.below(250))),
            _ => text(&format!("load.attribute.{at}"), &format!("value-{}", random.below(100_000))),
        })
        .collect()
}

/// Traces of four spans: a SERVER span and its children, of which two are CLIENT spans and one is INTERNAL.
fn span(shape: &Shape, item: usize, own: usize, random: &mut Random) -> Span {
    let place = item % 4;
    let id = |item: usize| (item as u64 + 1).to_be_bytes().to_vec();
    let mut trace_id = TRACE_MARK.to_vec();
    trace_id.extend(((item / 4) as u64).to_be_bytes());
    let duration = random.latency(Duration::from_millis(20), 0.6).min(Duration::from_secs(4));
    // An operation has one kind, and no name that would be taken for an id of something.
    let route = (random.below(own) / 4 * 4 + place) % own;
    let status = random.chance(shape.errors).then(|| Status { message: "refused".into(), code: 2 });
    Span {
        trace_id,
        span_id: id(item),
        parent_span_id: if place == 0 { Vec::new() } else { id(item - place) },
        name: format!("GET /load/r{route}/items/{{id}}"),
        kind: match place {
            0 => 2,
            1 => 1,
            _ => 3,
        },
        start_time_unix_nano: marked(duration),
        end_time_unix_nano: marked(Duration::ZERO),
        attributes: attributes(shape, route, random),
        status,
        ..Span::default()
    }
}

fn record(shape: &Shape, item: usize, random: &mut Random) -> LogRecord {
    let mut trace_id = TRACE_MARK.to_vec();
    trace_id.extend(((item / 4) as u64).to_be_bytes());
    let line = format!("handled request {} of user {}", random.below(1_000_000), random.below(10_000));
    LogRecord {
        time_unix_nano: marked(Duration::from_micros(item as u64)),
        observed_time_unix_nano: marked(Duration::ZERO),
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(line)) }),
        attributes: attributes(shape, item % 10, random),
        trace_id,
        span_id: (item as u64 + 1).to_be_bytes().to_vec(),
        ..LogRecord::default()
    }
}

/// Half of them points of a counter, half of a histogram, both delta. The first points are the series with
/// the numbers from `first` on.
fn metrics(shape: &Shape, points: usize, first: usize, own: usize, random: &mut Random) -> Vec<Metric> {
    const BOUNDS_S: [f64; 14] =
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    let delta = AggregationTemporality::Delta.into();
    let of = |point: usize| {
        // What the attributes say decides the series: the same for the same number.
        let series = (first + point) % own.max(1);
        attributes(shape, series, &mut Random::new(series as u64))
    };
    let counters = (0..points / 2)
        .map(|point| NumberDataPoint {
            attributes: of(point),
            start_time_unix_nano: marked(Duration::from_secs(4)),
            time_unix_nano: marked(Duration::ZERO),
            value: Some(number_data_point::Value::AsInt(random.below(5_000) as i64)),
            ..NumberDataPoint::default()
        })
        .collect();
    let histograms = (points / 2..points)
        .map(|point| {
            let bucket_counts: Vec<u64> = (0..=BOUNDS_S.len()).map(|_| random.below(200) as u64).collect();
            HistogramDataPoint {
                attributes: of(point),
                start_time_unix_nano: marked(Duration::from_secs(4)),
                time_unix_nano: marked(Duration::ZERO),
                count: bucket_counts.iter().sum(),
                sum: Some(random.between(0.0, 100.0)),
                bucket_counts,
                explicit_bounds: BOUNDS_S.to_vec(),
                ..HistogramDataPoint::default()
            }
        })
        .collect();
    let named = |name: &str, unit: &str, data| Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    };
    vec![
        named(
            "http.server.requests",
            "{request}",
            metric::Data::Sum(Sum {
                data_points: counters,
                aggregation_temporality: delta,
                is_monotonic: true,
            }),
        ),
        named(
            "http.server.request.duration",
            "s",
            metric::Data::Histogram(Histogram { data_points: histograms, aggregation_temporality: delta }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_items_resources_and_attributes_that_were_asked_for() {
        let shape = Shape { items: 50, attributes: 20, resources: 4, services: 3, series: 30, errors: 0.0 };
        for template in templates(Signal::Traces, &shape, 1) {
            let request = ExportTraceServiceRequest::decode(&template.stamp(1 << 60, 1)[..]).unwrap();
            assert_eq!(request.resource_spans.len(), 4);
            let spans: Vec<&Span> =
                request.resource_spans.iter().flat_map(|of| &of.scope_spans[0].spans).collect();
            assert_eq!(spans.len(), 50);
            assert!(spans.iter().all(|span| span.attributes.len() == 20));
        }
    }

    #[test]
    fn there_are_as_many_operations_as_were_asked_for() {
        let shape =
            Shape { items: 256, attributes: 2, resources: 4, services: 20, series: 2_000, errors: 0.0 };
        let mut seen = std::collections::BTreeSet::new();
        for template in templates(Signal::Traces, &shape, 1) {
            let request = ExportTraceServiceRequest::decode(&template.stamp(1 << 60, 1)[..]).unwrap();
            for of in request.resource_spans {
                let service = format!("{:?}", of.resource.unwrap().attributes.first());
                seen.extend(of.scope_spans.into_iter().flat_map(|of| of.spans).map(|span| {
                    let name = crate::aggregate::operation_name(&span.name).into_owned();
                    (service.clone(), name, span.kind)
                }));
            }
        }
        assert!((1_950..=2_000).contains(&seen.len()), "{}", seen.len());
    }

    #[test]
    fn stamping_changes_times_and_trace_ids_and_nothing_else() {
        let shape = Shape { items: 40, attributes: 6, resources: 1, services: 3, series: 30, errors: 0.1 };
        let now = 1_700_000_000_000_000_000;
        for signal in Signal::ALL {
            for template in templates(signal, &shape, 1) {
                let (first, second) = (template.stamp(now, 1), template.stamp(now, 2));
                assert_eq!(first, template.stamp(now, 1));
                assert_eq!(first == second, signal == Signal::Metrics);
                assert_eq!(crate::journal::latest_event(signal, &first).map(|at| at.0), Some(now));
                match signal {
                    Signal::Traces => {
                        let request = ExportTraceServiceRequest::decode(&first[..]).unwrap();
                        let spans = &request.resource_spans[0].scope_spans[0].spans;
                        assert_eq!(spans.len(), 40);
                        let traces: std::collections::BTreeSet<_> =
                            spans.iter().map(|span| span.trace_id.clone()).collect();
                        assert_eq!(traces.len(), 10);
                        assert!(spans.iter().all(|span| span.end_time_unix_nano == now
                            && span.start_time_unix_nano > now - 5_000_000_000
                            && span.start_time_unix_nano < now));
                    }
                    Signal::Logs => {
                        let request = ExportLogsServiceRequest::decode(&first[..]).unwrap();
                        assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), 40);
                    }
                    Signal::Metrics => {
                        let request = ExportMetricsServiceRequest::decode(&first[..]).unwrap();
                        assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics.len(), 2);
                    }
                }
            }
        }
    }
}
