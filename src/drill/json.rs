//! Export requests as OTLP/JSON: lower camel case, ids in hexadecimal, 64-bit integers as text.

use super::batch::Request;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Map, Value, json};

/// The request as one JSON value. What the shop never sends (summaries, exponential histograms,
/// links, exemplars) is not written.
#[must_use]
pub fn request(request: &Request) -> Value {
    match request {
        Request::Traces(traces) => list("resourceSpans", &traces.resource_spans, |one| {
            let scoped = many(
                &one.scope_spans,
                |scoped| json!({"scope": scope(scoped.scope.as_ref()), "spans": many(&scoped.spans, span)}),
            );
            json!({"resource": resource(one.resource.as_ref()), "scopeSpans": scoped})
        }),
        Request::Logs(logs) => list("resourceLogs", &logs.resource_logs, |one| {
            let scoped = many(
                &one.scope_logs,
                |scoped| json!({"scope": scope(scoped.scope.as_ref()), "logRecords": many(&scoped.log_records, record)}),
            );
            json!({"resource": resource(one.resource.as_ref()), "scopeLogs": scoped})
        }),
        Request::Metrics(metrics) => list("resourceMetrics", &metrics.resource_metrics, |one| {
            let scoped = many(
                &one.scope_metrics,
                |scoped| json!({"scope": scope(scoped.scope.as_ref()), "metrics": many(&scoped.metrics, metric)}),
            );
            json!({"resource": resource(one.resource.as_ref()), "scopeMetrics": scoped})
        }),
    }
}

fn list<T>(key: &str, items: &[T], convert: impl Fn(&T) -> Value) -> Value {
    let mut object = Map::new();
    object.insert(key.to_owned(), many(items, convert));
    Value::Object(object)
}

fn many<T>(items: &[T], convert: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(convert).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn any(value: Option<&AnyValue>) -> Value {
    use any_value::Value as Any;
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!({"stringValue": text}),
        Some(Any::BoolValue(truth)) => json!({"boolValue": truth}),
        Some(Any::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Any::DoubleValue(number)) => json!({"doubleValue": number}),
        _ => json!({}),
    }
}

fn attributes(attributes: &[KeyValue]) -> Value {
    many(attributes, |attribute| json!({"key": attribute.key, "value": any(attribute.value.as_ref())}))
}

fn resource(resource: Option<&Resource>) -> Value {
    json!({"attributes": resource.map(|resource| attributes(&resource.attributes)).unwrap_or_default()})
}

fn scope(scope: Option<&InstrumentationScope>) -> Value {
    scope.map_or_else(|| json!({}), |scope| json!({"name": scope.name, "version": scope.version}))
}

fn span(span: &Span) -> Value {
    let events = many(&span.events, |event| {
        json!({
            "timeUnixNano": event.time_unix_nano.to_string(),
            "name": event.name,
            "attributes": attributes(&event.attributes),
        })
    });
    let mut object = json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "events": events,
    });
    if let Some(status) = &span.status {
        object["status"] = json!({"code": status.code, "message": status.message});
    }
    object
}

fn record(record: &LogRecord) -> Value {
    json!({
        "timeUnixNano": record.time_unix_nano.to_string(),
        "observedTimeUnixNano": record.observed_time_unix_nano.to_string(),
        "severityNumber": record.severity_number,
        "severityText": record.severity_text,
        "body": any(record.body.as_ref()),
        "attributes": attributes(&record.attributes),
        "flags": record.flags,
        "traceId": hex(&record.trace_id),
        "spanId": hex(&record.span_id),
    })
}

fn metric(metric: &Metric) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(metric.name));
    object.insert("unit".into(), json!(metric.unit));
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => {
            object.insert("gauge".into(), json!({"dataPoints": many(&gauge.data_points, number)}));
        }
        Some(metric::Data::Sum(sum)) => {
            let data = json!({
                "dataPoints": many(&sum.data_points, number),
                "aggregationTemporality": sum.aggregation_temporality,
                "isMonotonic": sum.is_monotonic,
            });
            object.insert("sum".into(), data);
        }
        Some(metric::Data::Histogram(histogram)) => {
            let data = json!({
                "dataPoints": many(&histogram.data_points, distribution),
                "aggregationTemporality": histogram.aggregation_temporality,
            });
            object.insert("histogram".into(), data);
        }
        _ => {}
    }
    Value::Object(object)
}

fn number(point: &NumberDataPoint) -> Value {
    let mut object = json!({
        "attributes": attributes(&point.attributes),
        "startTimeUnixNano": point.start_time_unix_nano.to_string(),
        "timeUnixNano": point.time_unix_nano.to_string(),
    });
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => object["asInt"] = json!(value.to_string()),
        Some(number_data_point::Value::AsDouble(value)) => object["asDouble"] = json!(value),
        None => {}
    }
    object
}

fn distribution(point: &HistogramDataPoint) -> Value {
    let counts = many(&point.bucket_counts, |count| json!(count.to_string()));
    json!({
        "attributes": attributes(&point.attributes),
        "startTimeUnixNano": point.start_time_unix_nano.to_string(),
        "timeUnixNano": point.time_unix_nano.to_string(),
        "count": point.count.to_string(),
        "sum": point.sum,
        "bucketCounts": counts,
        "explicitBounds": point.explicit_bounds,
    })
}
