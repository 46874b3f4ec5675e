//! Spans and log records in the form that SDKs send.

use super::instance::text;
use crate::model::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

/// W3C flag "sampled", and that it is known whether the parent is remote.
const FLAGS: u32 = 0x101;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Why an operation failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// HTTP status that it is answered with.
    pub status: u16,
    /// `error.type`.
    pub kind: String,
    pub message: String,
    /// Whether it began here, rather than having been passed on.
    pub own: bool,
}

impl Failure {
    #[must_use]
    pub fn exception(kind: &str, message: String) -> Self {
        Self { status: 500, kind: kind.to_owned(), message, own: true }
    }

    /// Nobody listens there.
    #[must_use]
    pub fn refused(address: &str) -> Self {
        Self {
            status: 503,
            kind: "ECONNREFUSED".to_owned(),
            message: format!("connect to {address}: connection refused"),
            own: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

#[must_use]
pub fn span(
    trace: [u8; 16],
    id: [u8; 8],
    parent: Option<[u8; 8]>,
    name: &str,
    kind: SpanKind,
    start: Timestamp,
    end: Timestamp,
) -> Span {
    let remote = parent.is_some() && matches!(kind, SpanKind::Server | SpanKind::Consumer);
    Span {
        trace_id: trace.to_vec(),
        span_id: id.to_vec(),
        parent_span_id: parent.map(Vec::from).unwrap_or_default(),
        flags: if remote { FLAGS | PARENT_IS_REMOTE } else { FLAGS },
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: start.ns(),
        end_time_unix_nano: end.ns(),
        ..Span::default()
    }
}

/// Marks a span as failed; where the failure began, with the exception as an event.
pub fn fail(span: &mut Span, failure: &Failure, at: Timestamp) {
    span.status = Some(Status { message: failure.message.clone(), code: StatusCode::Error.into() });
    span.attributes.push(text("error.type", &failure.kind));
    if failure.own {
        span.events.push(Event {
            time_unix_nano: at.ns(),
            name: "exception".into(),
            attributes: vec![
                text("exception.type", &failure.kind),
                text("exception.message", &failure.message),
            ],
            ..Event::default()
        });
    }
}

/// A log record, within a span if there is one.
#[must_use]
pub fn log(at: Timestamp, level: Level, line: &str, within: Option<([u8; 16], [u8; 8])>) -> LogRecord {
    let (severity, name) = match level {
        Level::Info => (SeverityNumber::Info, "INFO"),
        Level::Warn => (SeverityNumber::Warn, "WARN"),
        Level::Error => (SeverityNumber::Error, "ERROR"),
    };
    let (trace_id, span_id) = within.map(|(trace, span)| (trace.to_vec(), span.to_vec())).unwrap_or_default();
    LogRecord {
        time_unix_nano: at.ns(),
        observed_time_unix_nano: at.ns(),
        severity_number: severity.into(),
        severity_text: name.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(line.to_owned())) }),
        flags: u32::from(within.is_some()),
        trace_id,
        span_id,
        ..LogRecord::default()
    }
}
