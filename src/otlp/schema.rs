//! The messages of OTLP as tables: what checking, paths in errors, and the reading of JSON follow.
//! From `opentelemetry-proto` 1.9 (`common`, `resource`, `trace`, `logs`, `metrics`).

use super::wire::WireType;
use crate::model::Signal;

/// A message type.
#[derive(Debug)]
pub(super) struct Message {
    /// Fields by their number.
    pub by_number: [Option<Field>; Self::NUMBERS],
}

impl Message {
    /// One more than the largest field number in use.
    pub const NUMBERS: usize = 17;

    const fn of(list: &[Field]) -> Self {
        let mut by_number = [None; Self::NUMBERS];
        let mut at = 0;
        while at < list.len() {
            by_number[list[at].number as usize] = Some(list[at]);
            at += 1;
        }
        Self { by_number }
    }

    #[inline]
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.by_number.get(number as usize)?.as_ref()
    }

    /// A field by its name in JSON (`traceId`) or in the `.proto` file (`trace_id`).
    pub fn named(&self, name: &str) -> Option<&Field> {
        self.by_number.iter().flatten().find(|field| field.json == name || field.name == name)
    }
}

/// A field of a message type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub number: u32,
    pub name: &'static str,
    pub json: &'static str,
    pub kind: Kind,
    pub label: Label,
}

/// How often a field may occur, and whether zero differs from absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// Zero is the same as absent.
    Implicit,
    /// `optional`, messages, and members of a `oneof`: zero is not the same as absent.
    Explicit,
    Repeated,
}

/// The type of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Bytes,
    /// Bytes of exactly this length, or none; hexadecimal in JSON.
    Id(usize),
    Bool,
    Int32,
    Uint32,
    Sint32,
    Int64,
    Uint64,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number, of which these are the names: the prefix they share, and the rest by number.
    Enum(&'static str, &'static [&'static str]),
    Message(&'static Message),
}

impl Kind {
    #[inline]
    pub const fn wire_type(self) -> WireType {
        match self {
            Self::Text | Self::Bytes | Self::Id(_) | Self::Message(_) => WireType::Bytes,
            Self::Bool
            | Self::Int32
            | Self::Uint32
            | Self::Sint32
            | Self::Int64
            | Self::Uint64
            | Self::Enum(..) => WireType::Varint,
            Self::Fixed32 => WireType::Fixed32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => WireType::Fixed64,
        }
    }
}

const fn field(number: u32, name: &'static str, json: &'static str, kind: Kind, label: Label) -> Field {
    Field { number, name, json, kind, label }
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Sfixed64, Sint32, Text, Uint32, Uint64,
};
use Label::{Explicit, Implicit, Repeated};

/// The request of a signal: one field, the resources.
pub(super) const fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Logs => &LOGS,
        Signal::Metrics => &METRICS,
    }
}

/// One resource of a signal.
pub(super) const fn resource(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &RESOURCE_SPANS,
        Signal::Logs => &RESOURCE_LOGS,
        Signal::Metrics => &RESOURCE_METRICS,
    }
}

/// What the one field of a signal's request is called.
pub(super) const fn resources_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "resource_spans",
        Signal::Logs => "resource_logs",
        Signal::Metrics => "resource_metrics",
    }
}

static TRACES: Message =
    Message::of(&[message(1, "resource_spans", "resourceSpans", &RESOURCE_SPANS, Repeated)]);
static LOGS: Message = Message::of(&[message(1, "resource_logs", "resourceLogs", &RESOURCE_LOGS, Repeated)]);
static METRICS: Message =
    Message::of(&[message(1, "resource_metrics", "resourceMetrics", &RESOURCE_METRICS, Repeated)]);

const fn message(
    number: u32,
    name: &'static str,
    json: &'static str,
    of: &'static Message,
    label: Label,
) -> Field {
    field(number, name, json, Kind::Message(of), label)
}

const fn attributes(number: u32) -> Field {
    message(number, "attributes", "attributes", &KEY_VALUE, Repeated)
}

const fn dropped_attributes(number: u32) -> Field {
    field(number, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit)
}

const fn schema_url(number: u32) -> Field {
    field(number, "schema_url", "schemaUrl", Text, Implicit)
}

const fn trace_id(number: u32) -> Field {
    field(number, "trace_id", "traceId", Id(16), Implicit)
}

const fn span_id(number: u32) -> Field {
    field(number, "span_id", "spanId", Id(8), Implicit)
}

const fn trace_state(number: u32) -> Field {
    field(number, "trace_state", "traceState", Text, Implicit)
}

const fn flags(number: u32, kind: Kind) -> Field {
    field(number, "flags", "flags", kind, Implicit)
}

const fn time(number: u32) -> Field {
    field(number, "time_unix_nano", "timeUnixNano", Fixed64, Implicit)
}

const fn start_time(number: u32) -> Field {
    field(number, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit)
}

// common and resource

pub(super) static ANY_VALUE: Message = Message::of(&[
    field(1, "string_value", "stringValue", Text, Explicit),
    field(2, "bool_value", "boolValue", Bool, Explicit),
    field(3, "int_value", "intValue", Int64, Explicit),
    field(4, "double_value", "doubleValue", Double, Explicit),
    message(5, "array_value", "arrayValue", &ARRAY_VALUE, Explicit),
    message(6, "kvlist_value", "kvlistValue", &KEY_VALUE_LIST, Explicit),
    field(7, "bytes_value", "bytesValue", Bytes, Explicit),
    field(8, "string_value_strindex", "stringValueStrindex", Int32, Explicit),
]);

static ARRAY_VALUE: Message = Message::of(&[message(1, "values", "values", &ANY_VALUE, Repeated)]);

static KEY_VALUE_LIST: Message = Message::of(&[message(1, "values", "values", &KEY_VALUE, Repeated)]);

pub(super) static KEY_VALUE: Message = Message::of(&[
    field(1, "key", "key", Text, Implicit),
    message(2, "value", "value", &ANY_VALUE, Explicit),
    field(3, "key_strindex", "keyStrindex", Int32, Implicit),
]);

pub(super) static SCOPE: Message = Message::of(&[
    field(1, "name", "name", Text, Implicit),
    field(2, "version", "version", Text, Implicit),
    attributes(3),
    dropped_attributes(4),
]);

static ENTITY_REF: Message = Message::of(&[
    schema_url(1),
    field(2, "type", "type", Text, Implicit),
    field(3, "id_keys", "idKeys", Text, Repeated),
    field(4, "description_keys", "descriptionKeys", Text, Repeated),
]);

pub(super) static RESOURCE: Message = Message::of(&[
    attributes(1),
    dropped_attributes(2),
    message(3, "entity_refs", "entityRefs", &ENTITY_REF, Repeated),
]);

const RESOURCE_FIELD: Field = message(1, "resource", "resource", &RESOURCE, Explicit);
const SCOPE_FIELD: Field = message(1, "scope", "scope", &SCOPE, Explicit);

// traces

static RESOURCE_SPANS: Message = Message::of(&[
    RESOURCE_FIELD,
    message(2, "scope_spans", "scopeSpans", &SCOPE_SPANS, Repeated),
    schema_url(3),
]);

static SCOPE_SPANS: Message =
    Message::of(&[SCOPE_FIELD, message(2, "spans", "spans", &SPAN, Repeated), schema_url(3)]);

const SPAN_KINDS: Kind =
    Enum("SPAN_KIND_", &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]);

pub(super) static SPAN: Message = Message::of(&[
    trace_id(1),
    span_id(2),
    trace_state(3),
    field(4, "parent_span_id", "parentSpanId", Id(8), Implicit),
    field(5, "name", "name", Text, Implicit),
    field(6, "kind", "kind", SPAN_KINDS, Implicit),
    start_time(7),
    field(8, "end_time_unix_nano", "endTimeUnixNano", Fixed64, Implicit),
    attributes(9),
    dropped_attributes(10),
    message(11, "events", "events", &EVENT, Repeated),
    field(12, "dropped_events_count", "droppedEventsCount", Uint32, Implicit),
    message(13, "links", "links", &LINK, Repeated),
    field(14, "dropped_links_count", "droppedLinksCount", Uint32, Implicit),
    message(15, "status", "status", &STATUS, Explicit),
    flags(16, Fixed32),
]);

pub(super) static EVENT: Message =
    Message::of(&[time(1), field(2, "name", "name", Text, Implicit), attributes(3), dropped_attributes(4)]);

pub(super) static LINK: Message = Message::of(&[
    trace_id(1),
    span_id(2),
    trace_state(3),
    attributes(4),
    dropped_attributes(5),
    flags(6, Fixed32),
]);

pub(super) static STATUS: Message = Message::of(&[
    field(2, "message", "message", Text, Implicit),
    field(3, "code", "code", Enum("STATUS_CODE_", &["UNSET", "OK", "ERROR"]), Implicit),
]);

// logs

static RESOURCE_LOGS: Message = Message::of(&[
    RESOURCE_FIELD,
    message(2, "scope_logs", "scopeLogs", &SCOPE_LOGS, Repeated),
    schema_url(3),
]);

static SCOPE_LOGS: Message = Message::of(&[
    SCOPE_FIELD,
    message(2, "log_records", "logRecords", &LOG_RECORD, Repeated),
    schema_url(3),
]);

#[rustfmt::skip]
const SEVERITIES: Kind = Enum("SEVERITY_NUMBER_", &[
    "UNSPECIFIED", "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4",
    "INFO", "INFO2", "INFO3", "INFO4", "WARN", "WARN2", "WARN3", "WARN4",
    "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL", "FATAL2", "FATAL3", "FATAL4",
]);

pub(super) static LOG_RECORD: Message = Message::of(&[
    time(1),
    field(2, "severity_number", "severityNumber", SEVERITIES, Implicit),
    field(3, "severity_text", "severityText", Text, Implicit),
    message(5, "body", "body", &ANY_VALUE, Explicit),
    attributes(6),
    dropped_attributes(7),
    flags(8, Fixed32),
    trace_id(9),
    span_id(10),
    field(11, "observed_time_unix_nano", "observedTimeUnixNano", Fixed64, Implicit),
    field(12, "event_name", "eventName", Text, Implicit),
]);

// metrics

static RESOURCE_METRICS: Message = Message::of(&[
    RESOURCE_FIELD,
    message(2, "scope_metrics", "scopeMetrics", &SCOPE_METRICS, Repeated),
    schema_url(3),
]);

static SCOPE_METRICS: Message =
    Message::of(&[SCOPE_FIELD, message(2, "metrics", "metrics", &METRIC, Repeated), schema_url(3)]);

pub(super) static METRIC: Message = Message::of(&[
    field(1, "name", "name", Text, Implicit),
    field(2, "description", "description", Text, Implicit),
    field(3, "unit", "unit", Text, Implicit),
    message(5, "gauge", "gauge", &GAUGE, Explicit),
    message(7, "sum", "sum", &SUM, Explicit),
    message(9, "histogram", "histogram", &HISTOGRAM, Explicit),
    message(10, "exponential_histogram", "exponentialHistogram", &EXPONENTIAL_HISTOGRAM, Explicit),
    message(11, "summary", "summary", &SUMMARY, Explicit),
    message(12, "metadata", "metadata", &KEY_VALUE, Repeated),
]);

const fn points(of: &'static Message) -> Field {
    message(1, "data_points", "dataPoints", of, Repeated)
}

const TEMPORALITY: Field = field(
    2,
    "aggregation_temporality",
    "aggregationTemporality",
    Enum("AGGREGATION_TEMPORALITY_", &["UNSPECIFIED", "DELTA", "CUMULATIVE"]),
    Implicit,
);

static GAUGE: Message = Message::of(&[points(&NUMBER_POINT)]);
static SUM: Message = Message::of(&[
    points(&NUMBER_POINT),
    TEMPORALITY,
    field(3, "is_monotonic", "isMonotonic", Bool, Implicit),
]);
static HISTOGRAM: Message = Message::of(&[points(&HISTOGRAM_POINT), TEMPORALITY]);
static EXPONENTIAL_HISTOGRAM: Message = Message::of(&[points(&EXPONENTIAL_POINT), TEMPORALITY]);
static SUMMARY: Message = Message::of(&[points(&SUMMARY_POINT)]);

const fn exemplars(number: u32) -> Field {
    message(number, "exemplars", "exemplars", &EXEMPLAR, Repeated)
}

const fn count(number: u32) -> Field {
    field(number, "count", "count", Fixed64, Implicit)
}

const fn optional_double(number: u32, name: &'static str) -> Field {
    field(number, name, name, Double, Explicit)
}

static NUMBER_POINT: Message = Message::of(&[
    start_time(2),
    time(3),
    field(4, "as_double", "asDouble", Double, Explicit),
    exemplars(5),
    field(6, "as_int", "asInt", Sfixed64, Explicit),
    attributes(7),
    flags(8, Uint32),
]);

static HISTOGRAM_POINT: Message = Message::of(&[
    start_time(2),
    time(3),
    count(4),
    optional_double(5, "sum"),
    field(6, "bucket_counts", "bucketCounts", Fixed64, Repeated),
    field(7, "explicit_bounds", "explicitBounds", Double, Repeated),
    exemplars(8),
    attributes(9),
    flags(10, Uint32),
    optional_double(11, "min"),
    optional_double(12, "max"),
]);

static EXPONENTIAL_POINT: Message = Message::of(&[
    attributes(1),
    start_time(2),
    time(3),
    count(4),
    optional_double(5, "sum"),
    field(6, "scale", "scale", Sint32, Implicit),
    field(7, "zero_count", "zeroCount", Fixed64, Implicit),
    message(8, "positive", "positive", &BUCKETS, Explicit),
    message(9, "negative", "negative", &BUCKETS, Explicit),
    flags(10, Uint32),
    exemplars(11),
    optional_double(12, "min"),
    optional_double(13, "max"),
    field(14, "zero_threshold", "zeroThreshold", Double, Implicit),
]);

static BUCKETS: Message = Message::of(&[
    field(1, "offset", "offset", Sint32, Implicit),
    field(2, "bucket_counts", "bucketCounts", Uint64, Repeated),
]);

static SUMMARY_POINT: Message = Message::of(&[
    start_time(2),
    time(3),
    count(4),
    field(5, "sum", "sum", Double, Implicit),
    message(6, "quantile_values", "quantileValues", &QUANTILE, Repeated),
    attributes(7),
    flags(8, Uint32),
]);

static QUANTILE: Message = Message::of(&[
    field(1, "quantile", "quantile", Double, Implicit),
    field(2, "value", "value", Double, Implicit),
]);

pub(super) static EXEMPLAR: Message = Message::of(&[
    time(2),
    field(3, "as_double", "asDouble", Double, Explicit),
    span_id(4),
    trace_id(5),
    field(6, "as_int", "asInt", Sfixed64, Explicit),
    message(7, "filtered_attributes", "filteredAttributes", &KEY_VALUE, Repeated),
]);
