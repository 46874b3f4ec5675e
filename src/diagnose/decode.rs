//! Rows from the bodies of OTLP export requests. Spans and log records are read by views, for a capture
//! looks at many more than it keeps; metric points, of which there are few, are decoded whole.

use super::redact::{REDACTED, Redaction};
use super::rows::{Attribute, Gather, LogRow, PointKind, PointRow, Resource, SpanRow, Status};
use crate::aggregate::operation_name;
use crate::model::{ServiceKey, Signal, Timestamp, TraceId};
use crate::otlp::{self, Attributes, Checked, LogView, Malformed, SpanView, StatusCode};
use opentelemetry_proto::tonic::common::v1::{self as common, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, metric, number_data_point};
use prost::Message;
use std::borrow::Cow;
use std::sync::Arc;

/// Longest attribute value kept, and longest log body, in bytes.
const VALUE_BYTES: usize = 1_024;
const BODY_BYTES: usize = 8 << 10;
/// Most attributes of one row.
const ATTRIBUTES: usize = 128;
/// Deepest nesting of an attribute's value that is still shown.
const DEPTH: usize = 8;

/// Into which of several gatherings a row goes, by its time and its trace; that of a metric point is none.
pub(super) type Route<'a> = &'a dyn Fn(Timestamp, TraceId) -> Option<usize>;

/// Adds the rows of one export request, of which `keep` says whether their time is wanted. A resource that
/// is damaged is left out, as it was refused when it came.
///
/// # Errors
/// When the body is no such message; nothing is added then.
pub fn decode(
    signal: Signal,
    body: &[u8],
    redaction: &Redaction,
    keep: &dyn Fn(Timestamp) -> bool,
    into: &mut Gather,
) -> Result<(), Malformed> {
    add(signal, body, redaction, &|at, _| keep(at).then_some(0), std::slice::from_mut(into))
}

/// Adds the rows of one export request to where `route` says.
///
/// # Errors
/// As [`decode`].
pub(super) fn add(
    signal: Signal,
    body: &[u8],
    redaction: &Redaction,
    route: Route<'_>,
    into: &mut [Gather],
) -> Result<(), Malformed> {
    let mut views = otlp::Rows::default();
    for slice in otlp::split(signal, body)? {
        let range = slice.range.start as usize..slice.range.end as usize;
        let Some(bytes) = body.get(range) else { continue };
        match signal {
            Signal::Traces => resource_spans(bytes, &mut views, redaction, route, into),
            Signal::Logs => resource_logs(bytes, &mut views, redaction, route, into),
            Signal::Metrics => resource_metrics(bytes, redaction, route, into),
        }
    }
    Ok(())
}

/// The sender of a resource's rows, made once for each gathering that takes one of them.
struct Senders<'a> {
    attributes: Attributes<'a>,
    redaction: &'a Redaction,
    made: [Option<Arc<Resource>>; 2],
}

impl Senders<'_> {
    fn of(&mut self, number: usize, into: &mut Gather) -> Arc<Resource> {
        let made = self.made.get(number).and_then(Option::as_ref);
        if let Some(made) = made {
            return made.clone();
        }
        let made = resource(attributes(self.attributes, self.redaction, into), into);
        if let Some(place) = self.made.get_mut(number) {
            *place = Some(made.clone());
        }
        made
    }
}

fn resource_spans(
    bytes: &[u8],
    views: &mut otlp::Rows,
    redaction: &Redaction,
    route: Route<'_>,
    into: &mut [Gather],
) {
    let mut add = |senders: &mut Senders<'_>, span: &SpanView<'_>| {
        let (end, trace) = (span.end, span.trace_id);
        let Some(number) = route(end, trace) else { return };
        let Some(into) = into.get_mut(number) else { return };
        if span.status == StatusCode::Error {
            let sender = senders.of(number, into);
            into.note_failed(trace, end, &sender.service, &redacted_operation(span.name, redaction));
        }
        // What a sample leaves out need not be made.
        if into.keeps_span(trace, end) {
            let sender = senders.of(number, into);
            let row = span_row(span, sender, redaction, into);
            into.span(row);
        }
    };
    if let Some((of, spans)) = views.spans(bytes, |_| false) {
        let mut senders = Senders { attributes: of.attributes(), redaction, made: [None, None] };
        spans.iter().for_each(|span| add(&mut senders, span));
        views.keep_spans(spans);
    } else if let Ok(checked) = Checked::new(Signal::Traces, bytes) {
        let all = checked.spans();
        let attributes = all.resource().attributes();
        let mut senders = Senders { attributes, redaction, made: [None, None] };
        all.scopes().flat_map(|scope| scope.items()).for_each(|span| add(&mut senders, &span));
    }
}

fn span_row(
    span: &SpanView<'_>,
    resource: Arc<Resource>,
    redaction: &Redaction,
    into: &mut Gather,
) -> SpanRow {
    let exception = || {
        let event = span.events().filter(|event| event.name == "exception").last()?;
        let value = |wanted: &str| {
            let value = event.attributes().get(wanted);
            value.map(|value| text(&value, redaction, 0).into_owned()).unwrap_or_default()
        };
        Some(format!("{}: {}", value("exception.type"), value("exception.message")))
    };
    let message = match span.status_message {
        "" => exception().map_or(Cow::Borrowed(""), Cow::Owned),
        said => Cow::Borrowed(said),
    };
    SpanRow {
        trace: span.trace_id,
        span: span.span_id,
        parent: span.parent_span_id,
        resource,
        operation: into.interner.intern(&redacted_operation(span.name, redaction)),
        kind: span.kind,
        start: span.start,
        end: span.end,
        status: match span.status {
            StatusCode::Unset => Status::Unset,
            StatusCode::Ok => Status::Ok,
            StatusCode::Error => Status::Error,
        },
        message: into.interner.intern(&redacted(&message, VALUE_BYTES, redaction)),
        attributes: attributes(span.attributes(), redaction, into),
    }
}

fn resource_logs(
    bytes: &[u8],
    views: &mut otlp::Rows,
    redaction: &Redaction,
    route: Route<'_>,
    into: &mut [Gather],
) {
    let mut add = |senders: &mut Senders<'_>, log: &LogView<'_>| {
        let (time, trace) = (log.time_or_observed(), log.trace_id);
        let Some(number) = route(time, trace) else { return };
        let Some(into) = into.get_mut(number) else { return };
        if into.keeps_log(trace, time) {
            let sender = senders.of(number, into);
            let row = log_row(log, sender, redaction, into);
            into.log(row);
        }
    };
    if let Some((of, logs)) = views.logs(bytes, |_| false) {
        let mut senders = Senders { attributes: of.attributes(), redaction, made: [None, None] };
        logs.iter().for_each(|log| add(&mut senders, log));
        views.keep_logs(logs);
    } else if let Ok(checked) = Checked::new(Signal::Logs, bytes) {
        let all = checked.logs();
        let attributes = all.resource().attributes();
        let mut senders = Senders { attributes, redaction, made: [None, None] };
        all.scopes().flat_map(|scope| scope.items()).for_each(|log| add(&mut senders, &log));
    }
}

fn log_row(log: &LogView<'_>, resource: Arc<Resource>, redaction: &Redaction, into: &mut Gather) -> LogRow {
    let number = u8::try_from(log.severity_number).ok().filter(|number| (1..=24).contains(number));
    LogRow {
        time: log.time_or_observed(),
        resource,
        severity: number.unwrap_or_else(|| severity_of(log.severity_text)),
        body: into.interner.intern(&redacted(&text(&log.body, redaction, 0), BODY_BYTES, redaction)),
        trace: log.trace_id,
        span: log.span_id,
        attributes: attributes(log.attributes(), redaction, into),
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

fn resource_metrics(bytes: &[u8], redaction: &Redaction, route: Route<'_>, into: &mut [Gather]) {
    let Ok(group) = ResourceMetrics::decode(bytes) else { return };
    let found = group.resource.as_ref().map_or(&[][..], |of| &of.attributes);
    for (number, into) in into.iter_mut().enumerate() {
        let mut sender = None;
        for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let wanted = |at| route(at, TraceId::NONE) == Some(number);
            let sender = sender.get_or_insert_with(|| {
                let attributes = decoded_attributes(found, redaction, into);
                resource(attributes, into)
            });
            points(metric, sender, redaction, &wanted, into);
        }
    }
}

fn points(
    found: &Metric,
    resource: &Arc<Resource>,
    redaction: &Redaction,
    wanted: &dyn Fn(Timestamp) -> bool,
    into: &mut Gather,
) {
    let name = into.interner.intern(&redacted(&found.name, VALUE_BYTES, redaction));
    let unit = into.interner.intern(cut(&found.unit, 64));
    let add = |into: &mut Gather, time: u64, kind, value: f64, count, found: &[KeyValue]| {
        let time = Timestamp(time);
        if wanted(time) && value.is_finite() {
            let attributes = decoded_attributes(found, redaction, into);
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

fn resource(attributes: Vec<Attribute>, into: &mut Gather) -> Arc<Resource> {
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

fn attributes(found: Attributes<'_>, redaction: &Redaction, into: &mut Gather) -> Vec<Attribute> {
    let mut all = std::mem::take(&mut into.attributes);
    all.extend(found.take(ATTRIBUTES).map(|(key, value)| {
        let value = text(&value, redaction, 0);
        attribute(key, &value, redaction, into)
    }));
    sorted(all, into)
}

fn decoded_attributes(found: &[KeyValue], redaction: &Redaction, into: &mut Gather) -> Vec<Attribute> {
    let mut all = std::mem::take(&mut into.attributes);
    all.extend(found.iter().take(ATTRIBUTES).map(|pair| {
        let value = pair.value.as_ref().map(|value| decoded_text(value, redaction, 0)).unwrap_or_default();
        attribute(&pair.key, &value, redaction, into)
    }));
    sorted(all, into)
}

fn attribute(key: &str, value: &str, redaction: &Redaction, into: &mut Gather) -> Attribute {
    let value =
        if redaction.hides(key) { Cow::Borrowed(REDACTED) } else { redacted(value, VALUE_BYTES, redaction) };
    (into.interner.intern(cut(key, VALUE_BYTES)), into.interner.intern(&value))
}

/// Sorted by key, each once, in no more memory than they take; the list they were gathered in is for the next.
fn sorted(mut all: Vec<Attribute>, into: &mut Gather) -> Vec<Attribute> {
    all.sort();
    all.dedup_by(|a, b| a.0 == b.0);
    let mut kept = Vec::with_capacity(all.len());
    kept.append(&mut all);
    into.attributes = all;
    kept
}

/// A value as one reads it: texts bare, lists and maps as in JSON.
fn text<'a>(value: &otlp::AnyValue<'a>, redaction: &Redaction, depth: usize) -> Cow<'a, str> {
    use otlp::AnyValue;
    if depth > DEPTH {
        return Cow::Borrowed("…");
    }
    Cow::Owned(match value {
        AnyValue::Empty | AnyValue::TextIndex(_) => return Cow::Borrowed(""),
        AnyValue::Text(value) => return Cow::Borrowed(value),
        AnyValue::Bool(value) => return Cow::Borrowed(if *value { "true" } else { "false" }),
        AnyValue::Int(value) => value.to_string(),
        AnyValue::Double(value) => value.to_string(),
        AnyValue::Array(values) => {
            let inner: Vec<_> =
                values.take(ATTRIBUTES).map(|value| text(&value, redaction, depth + 1)).collect();
            format!("[{}]", inner.join(","))
        }
        AnyValue::KeyValues(pairs) => {
            let pairs = pairs.take(ATTRIBUTES).map(|(key, value)| match redaction.hides(key) {
                true => format!("{key}={REDACTED}"),
                false => format!("{key}={}", text(&value, redaction, depth + 1)),
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        AnyValue::Bytes(bytes) => hex(bytes),
    })
}

/// The same of a decoded one.
fn decoded_text(value: &common::AnyValue, redaction: &Redaction, depth: usize) -> String {
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
            let values = list.values.iter().take(ATTRIBUTES);
            let inner: Vec<String> = values.map(|value| decoded_text(value, redaction, depth + 1)).collect();
            format!("[{}]", inner.join(","))
        }
        Some(any_value::Value::KvlistValue(map)) => {
            let pairs = map.values.iter().take(ATTRIBUTES).map(|pair| {
                let shown = |value| decoded_text(value, redaction, depth + 1);
                let value = match redaction.hides(&pair.key) {
                    true => REDACTED.to_owned(),
                    false => pair.value.as_ref().map(shown).unwrap_or_default(),
                };
                format!("{}={value}", pair.key)
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Some(any_value::Value::BytesValue(bytes)) => hex(bytes),
        Some(any_value::Value::StringValueStrindex(_)) => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(VALUE_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// At most `bytes` of a text without its secrets. What tells that something is one may stand behind it.
fn redacted<'a>(text: &'a str, bytes: usize, redaction: &Redaction) -> Cow<'a, str> {
    match redaction.text(cut(text, bytes.saturating_add(VALUE_BYTES))) {
        Cow::Borrowed(shown) => Cow::Borrowed(cut(shown, bytes)),
        Cow::Owned(shown) => Cow::Owned(cut(&shown, bytes).to_owned()),
    }
}

/// The name of an operation, as rows hold it.
pub(super) fn redacted_operation<'a>(name: &'a str, redaction: &Redaction) -> Cow<'a, str> {
    match operation_name(name) {
        Cow::Borrowed(name) => redacted(name, VALUE_BYTES, redaction),
        Cow::Owned(name) => Cow::Owned(redacted(&name, VALUE_BYTES, redaction).into_owned()),
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
