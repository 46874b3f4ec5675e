//! What a run is told as: one span, the root of its trace.

use super::{Check, Outcome};
use crate::model::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

/// `service.namespace` of all checks; `service.name` is the name of the check.
pub const NAMESPACE: &str = "synthetic-checks";

/// Who a run is to everybody it meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    trace: u128,
    span: u64,
}

impl Context {
    pub fn new() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..) }
    }

    /// The header of W3C Trace Context, sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// A run as an `ExportTraceServiceRequest`.
pub(super) fn export(
    check: &Check,
    context: Context,
    from: Timestamp,
    until: Timestamp,
    of: &Outcome,
) -> Vec<u8> {
    let mut resource = vec![text("service.name", &check.name), text("service.namespace", NAMESPACE)];
    if !check.environment.is_empty() {
        resource.push(text("deployment.environment.name", &check.environment));
    }
    let mut attributes =
        vec![text("url.full", &check.target.to_string()), text("user_agent.synthetic.type", "test")];
    if let Some((host, port)) = check.target.peer() {
        attributes.push(text("server.address", host));
        attributes.push(attribute("server.port", Value::IntValue(port.into())));
    }
    if !check.service.is_empty() {
        attributes.push(text("peer.service", check.service.rsplit('/').next().unwrap_or_default()));
    }
    if let Some(status) = of.http_status {
        attributes.push(text("http.request.method", "GET"));
        attributes.push(attribute("http.response.status_code", Value::IntValue(status.into())));
    }
    let status = of.error.as_ref().map(|error| {
        let kind = of.http_status.map_or_else(|| "failed".to_owned(), |status| status.to_string());
        attributes.push(text("error.type", &kind));
        Status { message: error.clone(), code: StatusCode::Error.into() }
    });
    let span = Span {
        trace_id: context.trace.to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        flags: 1,
        name: check.target.operation(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: from.ns(),
        end_time_unix_nano: until.ns().max(from.ns()),
        attributes,
        status,
        ..Span::default()
    };
    let scope =
        InstrumentationScope { name: "barograph.probe".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
}
