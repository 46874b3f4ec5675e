//! Rows from the bodies of OTLP export requests. A capture is not the hot path, so the messages are
//! decoded whole.

use super::redact::Redaction;
use super::rows::{Attribute, Gather, LogRow, PointKind, PointRow, Resource, SpanRow, Status};
use crate::aggregate::operation_name;
use crate::model::{ServiceKey, Signal, SpanId, SpanKind, Timestamp, TraceId};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::Arc;

/// Longest attribute value kept, and longest log body, in bytes.
const VALUE_BYTES: usize = 1_024;
const BODY_BYTES: usize = 8 << 10;
/// Most attributes of one row.
const ATTRIBUTES: usize = 128;
/// `Status.code` of a span that failed.
const FAILED: i32 = 2;
/// Deepest nesting of an attribute's value that is still shown.
const DEPTH: usize = 8;

/// A decoded export request.
pub(super) enum Decoded {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

/// Which rows are wanted, by their time and their trace; that of a metric point is none.
pub(super) type Wanted<'a> = &'a dyn Fn(Timestamp, TraceId) -> bool;

impl Decoded {
    /// # Errors
    /// When the body is no such message.
    pub fn of(signal: Signal, body: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match signal {
            Signal::Traces => Self::Traces(ExportTraceServiceRequest::decode(body)?),
            Signal::Logs => Self::Logs(ExportLogsServiceRequest::decode(body)?),
            Signal::Metrics => Self::Metrics(ExportMetricsServiceRequest::decode(body)?),
        })
    }

    /// Adds the rows that are wanted.
    pub fn add(&self, redaction: &Redaction, wanted: Wanted<'_>, into: &mut Gather) {
        match self {
            Self::Traces(request) => traces(request, redaction, wanted, into),
            Self::Logs(request) => logs(request, redaction, wanted, into),
            Self::Metrics(request) => metrics(request, redaction, wanted, into),
        }
    }
}

/// Adds the rows of one export request, of which `keep` says whether their time is wanted.
///
/// # Errors
/// When the body is no such message; nothing is added then.
pub fn decode(
    signal: Signal,
    body: &[u8],
    redaction: &Redaction,
    keep: &dyn Fn(Timestamp) -> bool,
    into: &mut Gather,
) -> Result<(), prost::DecodeError> {
    Decoded::of(signal, body)?.add(redaction, &|at, _| keep(at), into);
    Ok(())
}

fn traces(request: &ExportTraceServiceRequest, redaction: &Redaction, wanted: Wanted<'_>, into: &mut Gather) {
    for group in &request.resource_spans {
        let mut sender = None;
        for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let (end, trace) = (Timestamp(span.end_time_unix_nano), TraceId::from_wire(&span.trace_id));
            if !wanted(end, trace) {
                continue;
            }
            if span.status.as_ref().is_some_and(|status| status.code == FAILED) {
                into.note_failed(trace, end);
            }
            // What a sample leaves out need not be made.
            if into.keeps(trace, end) {
                let of = sender.get_or_insert_with(|| {
                    resource(group.resource.as_ref().map(|of| of.attributes.as_slice()), redaction, into)
                });
                let row = span_row(span, of, redaction, into);
                into.span(row);
            }
        }
    }
}

fn span_row(span: &Span, resource: &Arc<Resource>, redaction: &Redaction, into: &mut Gather) -> SpanRow {
    let (code, said) = span.status.as_ref().map_or((0, ""), |of| (of.code, of.message.as_str()));
    let exception = span.events.iter().rev().find(|event| event.name == "exception").map(|event| {
        let value = |wanted: &str| {
            let found = event.attributes.iter().find(|attribute| attribute.key == wanted);
            found
                .and_then(|attribute| attribute.value.as_ref())
                .map(|value| text(value, 0))
                .unwrap_or_default()
        };
        format!("{}: {}", value("exception.type"), value("exception.message"))
    });
    let message = if said.is_empty() { exception.unwrap_or_default() } else { said.to_owned() };
    SpanRow {
        trace: TraceId::from_wire(&span.trace_id),
        span: SpanId::from_wire(&span.span_id),
        parent: SpanId::from_wire(&span.parent_span_id),
        resource: resource.clone(),
        operation: into.interner.intern(cut(&operation_name(&span.name), VALUE_BYTES)),
        kind: SpanKind::from_wire(u64::try_from(span.kind).unwrap_or(0)),
        start: Timestamp(span.start_time_unix_nano),
        end: Timestamp(span.end_time_unix_nano),
        status: match code {
            1 => Status::Ok,
            FAILED => Status::Error,
            _ => Status::Unset,
        },
        message: into.interner.intern(&redaction.text(cut(&message, VALUE_BYTES))),
        attributes: attributes(&span.attributes, redaction, into),
    }
}

fn logs(request: &ExportLogsServiceRequest, redaction: &Redaction, wanted: Wanted<'_>, into: &mut Gather) {
    for group in &request.resource_logs {
        let mut sender = None;
        for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            let own = record.time_unix_nano;
            let time = Timestamp(if own == 0 { record.observed_time_unix_nano } else { own });
            let trace = TraceId::from_wire(&record.trace_id);
            if wanted(time, trace) && into.keeps(trace, time) {
                let of = sender.get_or_insert_with(|| {
                    resource(group.resource.as_ref().map(|of| of.attributes.as_slice()), redaction, into)
                });
                let row = log_row(record, time, of, redaction, into);
                into.log(row);
            }
        }
    }
}

fn log_row(
    record: &LogRecord,
    time: Timestamp,
    resource: &Arc<Resource>,
    redaction: &Redaction,
    into: &mut Gather,
) -> LogRow {
    let body = record.body.as_ref().map(|body| text(body, 0)).unwrap_or_default();
    let number = u8::try_from(record.severity_number).ok().filter(|number| (1..=24).contains(number));
    LogRow {
        time,
        resource: resource.clone(),
        severity: number.unwrap_or_else(|| severity_of(&record.severity_text)),
        body: into.interner.intern(&redaction.text(cut(&body, BODY_BYTES))),
        trace: TraceId::from_wire(&record.trace_id),
        span: SpanId::from_wire(&record.span_id),
        attributes: attributes(&record.attributes, redaction, into),
    }
}

/// The number a severity's name stands for, 0 if it is none that is widely used.
fn severity_of(name: &str) -> u8 {
    match name.trim().to_ascii_uppercase().as_str() {
        "TRACE" | "VERBOSE" | "FINEST" => 1,
        "DEBUG" | "FINE" => 5,
        "INFO" | "INFORMATION" | "INFORMATIONAL" | "NOTICE" => 9,
        "WARN" | "WARNING" => 13,
        "ERROR" | "ERR" | "SEVERE" => 17,
        "FATAL" | "CRITICAL" | "CRIT" | "ALERT" | "EMERG" | "EMERGENCY" | "PANIC" => 21,
        _ => 0,
    }
}

fn metrics(
    request: &ExportMetricsServiceRequest,
    redaction: &Redaction,
    wanted: Wanted<'_>,
    into: &mut Gather,
) {
    for group in &request.resource_metrics {
        let resource = resource(group.resource.as_ref().map(|of| of.attributes.as_slice()), redaction, into);
        for found in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            points(found, &resource, redaction, wanted, into);
        }
    }
}

fn points(
    found: &Metric,
    resource: &Arc<Resource>,
    redaction: &Redaction,
    wanted: Wanted<'_>,
    into: &mut Gather,
) {
    let (name, unit) =
        (into.interner.intern(cut(&found.name, VALUE_BYTES)), into.interner.intern(cut(&found.unit, 64)));
    let add = |into: &mut Gather, time: u64, kind, value: f64, count, found: &[KeyValue]| {
        let time = Timestamp(time);
        if wanted(time, TraceId::NONE) && value.is_finite() {
            let attributes = attributes(found, redaction, into);
            let (resource, metric, unit) = (resource.clone(), name.clone(), unit.clone());
            into.point(PointRow { time, resource, metric, unit, kind, value, count, attributes });
        }
    };
    let number = |value: Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        #[expect(clippy::cast_precision_loss, reason = "a level is compared, not counted")]
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => f64::NAN,
    };
    let temporality = |number: i32| if number == 1 { PointKind::Delta } else { PointKind::Cumulative };
    match &found.data {
        Some(metric::Data::Gauge(gauge)) => {
            for point in &gauge.data_points {
                add(
                    into,
                    point.time_unix_nano,
                    PointKind::Gauge,
                    number(point.value),
                    None,
                    &point.attributes,
                );
            }
        }
        Some(metric::Data::Sum(sum)) => {
            // A sum that may fall is a level, whatever its temporality says; its deltas are not.
            let kind = match temporality(sum.aggregation_temporality) {
                PointKind::Cumulative if !sum.is_monotonic => PointKind::Gauge,
                kind => kind,
            };
            for point in &sum.data_points {
                add(into, point.time_unix_nano, kind, number(point.value), None, &point.attributes);
            }
        }
        Some(metric::Data::Histogram(histogram)) => {
            let kind = temporality(histogram.aggregation_temporality);
            for point in &histogram.data_points {
                let sum = point.sum.unwrap_or(f64::NAN);
                add(into, point.time_unix_nano, kind, sum, Some(point.count), &point.attributes);
            }
        }
        Some(metric::Data::ExponentialHistogram(histogram)) => {
            let kind = temporality(histogram.aggregation_temporality);
            for point in &histogram.data_points {
                let sum = point.sum.unwrap_or(f64::NAN);
                add(into, point.time_unix_nano, kind, sum, Some(point.count), &point.attributes);
            }
        }
        Some(metric::Data::Summary(summary)) => {
            for point in &summary.data_points {
                add(
                    into,
                    point.time_unix_nano,
                    PointKind::Cumulative,
                    point.sum,
                    Some(point.count),
                    &point.attributes,
                );
            }
        }
        None => {}
    }
}

fn resource(found: Option<&[KeyValue]>, redaction: &Redaction, into: &mut Gather) -> Arc<Resource> {
    let attributes = attributes(found.unwrap_or_default(), redaction, into);
    let get = |keys: &[&str]| -> Arc<str> {
        let found = keys.iter().find_map(|key| attributes.iter().find(|(known, _)| **known == **key));
        found.map_or_else(|| "".into(), |(_, value)| value.clone())
    };
    let name = get(&["service.name"]);
    let service = ServiceKey {
        environment: get(&["deployment.environment.name", "deployment.environment"]),
        namespace: get(&["service.namespace"]),
        name: if name.is_empty() { "unknown_service".into() } else { name },
    };
    let (instance, version) = (get(&["service.instance.id", "k8s.pod.name"]), get(&["service.version"]));
    let host = get(&["host.name", "k8s.node.name"]);
    into.resource(Resource { service, instance, version, host, attributes })
}

fn attributes(found: &[KeyValue], redaction: &Redaction, into: &mut Gather) -> Vec<Attribute> {
    let mut all: Vec<Attribute> = found
        .iter()
        .take(ATTRIBUTES)
        .map(|attribute| {
            let value = attribute.value.as_ref().map(|value| text(value, 0)).unwrap_or_default();
            let value = redaction.value(&attribute.key, cut(&value, VALUE_BYTES));
            (into.interner.intern(cut(&attribute.key, VALUE_BYTES)), into.interner.intern(&value))
        })
        .collect();
    all.sort();
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

/// A value as one reads it: texts bare, lists and maps as in JSON.
fn text(value: &AnyValue, depth: usize) -> String {
    if depth > DEPTH {
        return "…".to_owned();
    }
    match &value.value {
        None => String::new(),
        Some(any_value::Value::StringValue(value)) => value.clone(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(any_value::Value::ArrayValue(list)) => {
            let inner: Vec<String> =
                list.values.iter().take(ATTRIBUTES).map(|value| text(value, depth + 1)).collect();
            format!("[{}]", inner.join(","))
        }
        Some(any_value::Value::KvlistValue(map)) => {
            let pairs = map.values.iter().take(ATTRIBUTES).map(|pair| {
                let value = pair.value.as_ref().map(|value| text(value, depth + 1)).unwrap_or_default();
                format!("{}={value}", pair.key)
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Some(any_value::Value::BytesValue(bytes)) => {
            bytes.iter().take(VALUE_BYTES).map(|byte| format!("{byte:02x}")).collect()
        }
        Some(any_value::Value::StringValueStrindex(_)) => String::new(),
    }
}

/// At most `bytes` of a text, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
