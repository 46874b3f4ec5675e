//! The Parquet files of a bundle. Every column's meaning stands beside its name, and in the files'
//! Arrow schemas as the field's metadata `description`.

use super::Error;
use super::capture::{Chosen, Period};
use super::rows::Attribute;
use super::series::Point;
use crate::model::SpanId;
use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::HashMap;
use std::sync::Arc;

struct Column {
    field: Field,
    values: ArrayRef,
}

fn column(name: &str, data_type: DataType, description: &str, values: ArrayRef) -> Column {
    let metadata = [("description".to_owned(), description.to_owned())];
    Column { field: Field::new(name, data_type, false).with_metadata(HashMap::from(metadata)), values }
}

fn text(name: &str, description: &str, values: impl Iterator<Item = String>) -> Column {
    column(name, DataType::Utf8, description, Arc::new(StringArray::from_iter_values(values)))
}

fn number(name: &str, description: &str, values: impl Iterator<Item = u64>) -> Column {
    column(name, DataType::UInt64, description, Arc::new(UInt64Array::from_iter_values(values)))
}

fn real(name: &str, description: &str, values: impl Iterator<Item = f64>) -> Column {
    column(name, DataType::Float64, description, Arc::new(Float64Array::from_iter_values(values)))
}

fn time(name: &str, description: &str, values: impl Iterator<Item = u64>) -> Column {
    let values = values.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX));
    let array = TimestampNanosecondArray::from_iter_values(values).with_timezone("UTC");
    column(name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), description, Arc::new(array))
}

fn file(columns: Vec<Column>) -> Result<Vec<u8>, Error> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
        columns.into_iter().map(|column| (column.field, column.values)).unzip();
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder()
        .set_created_by("barograph".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    writer.write(&RecordBatch::try_new(schema, arrays)?)?;
    Ok(writer.into_inner()?)
}

/// Attributes as a JSON object.
fn json(attributes: &[Attribute]) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        attributes.iter().map(|(key, value)| (key.to_string(), value.to_string().into())).collect();
    serde_json::Value::Object(map).to_string()
}

fn span_id(id: SpanId) -> String {
    if id.is_none() { String::new() } else { id.to_string() }
}

/// `spans.parquet`: every span of the chosen traces.
///
/// # Errors
/// [`Error::Parquet`], [`Error::Arrow`]
pub fn spans(chosen: &Chosen) -> Result<Vec<u8>, Error> {
    let rows = || chosen.spans.iter().map(|(_, span)| span);
    file(vec![
        text(
            "period",
            "“faulty” from two seconds before the onset on, “healthy” before; “keepsake” and “last_run” long before",
            chosen.spans.iter().map(|(period, _)| period.as_str().to_owned()),
        ),
        text("trace_id", "32 hexadecimal digits", rows().map(|span| span.trace.to_string())),
        text("span_id", "16 hexadecimal digits", rows().map(|span| span_id(span.span))),
        text(
            "parent_span_id",
            "16 hexadecimal digits, empty for a root",
            rows().map(|span| span_id(span.parent)),
        ),
        text(
            "environment",
            "deployment.environment.name",
            rows().map(|span| span.service().environment.to_string()),
        ),
        text("namespace", "service.namespace", rows().map(|span| span.service().namespace.to_string())),
        text("service", "service.name", rows().map(|span| span.service().name.to_string())),
        text("operation", "name of the span", rows().map(|span| span.operation.to_string())),
        text(
            "kind",
            "internal, server, client, producer, consumer or unspecified",
            rows().map(|span| span.kind.as_str().to_owned()),
        ),
        time("start", "start of the span", rows().map(|span| span.start.0)),
        number("duration_ns", "duration in nanoseconds", rows().map(super::rows::SpanRow::duration_ns)),
        text("status", "unset, ok or error", rows().map(|span| format!("{:?}", span.status).to_lowercase())),
        text(
            "message",
            "status message, else the recorded exception",
            rows().map(|span| span.message.to_string()),
        ),
        text(
            "instance",
            "service.instance.id or k8s.pod.name",
            rows().map(|span| span.resource.instance.to_string()),
        ),
        text("version", "service.version", rows().map(|span| span.resource.version.to_string())),
        text("host", "host.name or k8s.node.name", rows().map(|span| span.resource.host.to_string())),
        text(
            "attributes",
            "the span's attributes as a JSON object of texts, secrets redacted",
            rows().map(|span| json(&span.attributes)),
        ),
        text(
            "resource",
            "the resource's attributes as a JSON object of texts, secrets redacted",
            rows().map(|span| json(&span.resource.attributes)),
        ),
    ])
}

/// `logs.parquet`: log records of the chosen traces, and warnings of the services at fault.
///
/// # Errors
/// [`Error::Parquet`], [`Error::Arrow`]
pub fn logs(chosen: &Chosen) -> Result<Vec<u8>, Error> {
    let rows = || chosen.logs.iter().map(|(_, log)| log);
    let severity = UInt8Array::from_iter_values(rows().map(|log| log.severity));
    file(vec![
        text(
            "period",
            "“faulty” from two seconds before the onset on, “healthy” before; “keepsake” and “last_run” long before",
            chosen.logs.iter().map(|(period, _)| period.as_str().to_owned()),
        ),
        time("time", "time of the record, else when it was observed", rows().map(|log| log.time.0)),
        text(
            "environment",
            "deployment.environment.name",
            rows().map(|log| log.service().environment.to_string()),
        ),
        text("namespace", "service.namespace", rows().map(|log| log.service().namespace.to_string())),
        text("service", "service.name", rows().map(|log| log.service().name.to_string())),
        column("severity", DataType::UInt8, "SeverityNumber 1 to 24, 0 if not given", Arc::new(severity)),
        text(
            "severity_text",
            "TRACE to FATAL, empty if not given",
            rows().map(|log| log.severity_text().to_owned()),
        ),
        text("body", "the line, secrets redacted", rows().map(|log| log.body.to_string())),
        text(
            "trace_id",
            "32 hexadecimal digits, empty if none",
            rows().map(|log| if log.trace.is_none() { String::new() } else { log.trace.to_string() }),
        ),
        text("span_id", "16 hexadecimal digits, empty if none", rows().map(|log| span_id(log.span))),
        text(
            "instance",
            "service.instance.id or k8s.pod.name",
            rows().map(|log| log.resource.instance.to_string()),
        ),
        text("version", "service.version", rows().map(|log| log.resource.version.to_string())),
        text(
            "attributes",
            "the record's attributes as a JSON object of texts, secrets redacted",
            rows().map(|log| json(&log.attributes)),
        ),
    ])
}

/// `windows.parquet`: requests, errors and latency of every operation over time.
///
/// # Errors
/// [`Error::Parquet`], [`Error::Arrow`]
pub fn windows(points: &[(Period, Point)]) -> Result<Vec<u8>, Error> {
    let rows = || points.iter().map(|(_, point)| point);
    file(vec![
        text("period", "“faulty” or “healthy”", points.iter().map(|(period, _)| period.as_str().to_owned())),
        time("start", "start of the step", rows().map(|point| point.start.0)),
        text(
            "environment",
            "deployment.environment.name",
            rows().map(|point| point.service.environment.to_string()),
        ),
        text("namespace", "service.namespace", rows().map(|point| point.service.namespace.to_string())),
        text("service", "service.name", rows().map(|point| point.service.name.to_string())),
        text("operation", "name of the spans", rows().map(|point| point.operation.to_string())),
        text("kind", "kind of the spans", rows().map(|point| point.kind.as_str().to_owned())),
        number(
            "requests",
            "spans that ended in the step and were captured",
            rows().map(|point| point.requests),
        ),
        number("errors", "of them with status error", rows().map(|point| point.errors)),
        real("p50_ns", "median duration in nanoseconds", rows().map(|point| point.p50_ns)),
        real("p99_ns", "99th percentile of the durations in nanoseconds", rows().map(|point| point.p99_ns)),
    ])
}

/// `exemplars.parquet`: the chosen traces and why each was.
///
/// # Errors
/// [`Error::Parquet`], [`Error::Arrow`]
pub fn exemplars(chosen: &Chosen) -> Result<Vec<u8>, Error> {
    let mut spans = std::collections::BTreeMap::new();
    for (_, span) in &chosen.spans {
        let (count, errors, start, end) = spans.entry(span.trace).or_insert((0u64, 0u64, u64::MAX, 0u64));
        *count += 1;
        *errors += u64::from(span.failed());
        *start = span.start.0.min(*start);
        *end = span.end.0.max(*end);
    }
    let rows =
        || chosen.traces.iter().map(|(id, role)| (id, role, spans.get(id).copied().unwrap_or((0, 0, 0, 0))));
    file(vec![
        text("trace_id", "32 hexadecimal digits", rows().map(|(id, ..)| id.to_string())),
        text(
            "role",
            "first_failure, distinct_error, slowest, typical, healthy, keepsake or last_run",
            rows().map(|(_, role, _)| role.as_str().to_owned()),
        ),
        time("start", "start of the earliest span", rows().map(|(_, _, (_, _, start, _))| start)),
        number(
            "duration_ns",
            "from the earliest start to the latest end",
            rows().map(|(_, _, (_, _, start, end))| end.saturating_sub(start)),
        ),
        number("spans", "spans captured of the trace", rows().map(|(_, _, (count, ..))| count)),
        number("errors", "of them with status error", rows().map(|(_, _, (_, errors, ..))| errors)),
    ])
}
