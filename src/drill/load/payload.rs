//! Requests that are encoded once and only stamped before each sending: times and trace ids change.

use crate::drill::instance::{number, text};
use crate::drill::random::Random;
use crate::model::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
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

/// Distinct requests of one signal: at least one for each service.
#[must_use]
pub fn templates(signal: Signal, shape: &Shape, random: &mut Random) -> Vec<Template> {
    (0..shape.services.max(16))
        .map(|of| template(signal, shape, of % shape.services.max(1), random))
        .collect()
}

fn template(signal: Signal, shape: &Shape, service: usize, random: &mut Random) -> Template {
    let resource = Some(Resource {
        attributes: vec![
            text("service.name", &format!("load-{service}")),
            text("service.namespace", "load"),
            text("service.version", "1.0.0"),
            text("service.instance.id", &format!("load-{service}-0")),
            text("deployment.environment.name", "load"),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Resource::default()
    });
    let own = (shape.series / shape.services.max(1)).max(1);
    let bytes = match signal {
        Signal::Traces => {
            let spans = (0..shape.items).map(|item| span(shape, item, own, random)).collect();
            let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
            let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
            ExportTraceServiceRequest { resource_spans }.encode_to_vec()
        }
        Signal::Logs => {
            let log_records = (0..shape.items).map(|item| record(shape, item, random)).collect();
            let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
            let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
            ExportLogsServiceRequest { resource_logs }.encode_to_vec()
        }
        Signal::Metrics => {
            let data_points = (0..shape.items).map(|item| point(shape, item % own, random)).collect();
            let metrics = vec![Metric {
                name: "load.level".into(),
                unit: "1".into(),
                data: Some(metric::Data::Gauge(Gauge { data_points })),
                ..Metric::default()
            }];
            let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
            let resource_metrics =
                vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
            ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
        }
    };
    Template::new(signal, shape.items, bytes)
}

fn attributes(shape: &Shape, random: &mut Random) -> Vec<KeyValue> {
    (0..shape.attributes)
        .map(|at| match at % 3 {
            0 => text(&format!("load.text.{at}"), &format!("value-{}", random.below(1_000))),
            1 => number(&format!("load.number.{at}"), random.below(100_000) as i64),
            _ => text(&format!("load.path.{at}"), &format!("/items/{}/parts", random.below(10_000))),
        })
        .collect()
}

/// Traces of four spans: a SERVER span and its CLIENT children.
fn span(shape: &Shape, item: usize, own: usize, random: &mut Random) -> Span {
    let place = item % 4;
    let id = |item: usize| (item as u64 + 1).to_be_bytes().to_vec();
    let mut trace_id = TRACE_MARK.to_vec();
    trace_id.extend(((item / 4) as u64).to_be_bytes());
    let duration = random.latency(Duration::from_millis(20), 0.6).min(Duration::from_secs(4));
    let status = random.chance(shape.errors).then(|| Status { message: "refused".into(), code: 2 });
    Span {
        trace_id,
        span_id: id(item),
        parent_span_id: if place == 0 { Vec::new() } else { id(item - place) },
        name: format!("GET /load/{}", random.below(own)),
        kind: if place == 0 { 2 } else { 3 },
        start_time_unix_nano: marked(duration),
        end_time_unix_nano: marked(Duration::ZERO),
        attributes: attributes(shape, random),
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
        attributes: attributes(shape, random),
        trace_id,
        span_id: (item as u64 + 1).to_be_bytes().to_vec(),
        ..LogRecord::default()
    }
}

fn point(shape: &Shape, series: usize, random: &mut Random) -> NumberDataPoint {
    let mut attributes = attributes(&Shape { attributes: shape.attributes.min(1), ..shape.clone() }, random);
    attributes.clear();
    attributes.push(text("load.series", &series.to_string()));
    NumberDataPoint {
        attributes,
        start_time_unix_nano: marked(Duration::from_secs(4)),
        time_unix_nano: marked(Duration::ZERO),
        value: Some(number_data_point::Value::AsDouble(random.between(0.0, 1.0))),
        ..NumberDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamping_changes_times_and_trace_ids_and_nothing_else() {
        let shape = Shape { items: 40, attributes: 6, services: 3, series: 30, errors: 0.1 };
        let now = 1_700_000_000_000_000_000;
        for signal in Signal::ALL {
            for template in templates(signal, &shape, &mut Random::new(1)) {
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
                        assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics.len(), 1);
                    }
                }
            }
        }
    }
}
