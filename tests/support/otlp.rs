//! A client of our own where a test must know exactly what was sent and what was acknowledged.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::transport::{Channel, Endpoint};

/// Nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

/// An attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    let attributes = vec![
        text("service.name", service),
        text("service.instance.id", service),
        text("deployment.environment.name", "test"),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

/// A SERVER span that is a trace of its own.
pub fn span(operation: &str, end_ns: u64, duration_ns: u64, failed: bool) -> Span {
    let code = if failed { StatusCode::Error } else { StatusCode::Unset };
    Span {
        trace_id: fastrand::u128(1..).to_be_bytes().to_vec(),
        span_id: fastrand::u64(1..).to_be_bytes().to_vec(),
        name: operation.to_owned(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: end_ns - duration_ns,
        end_time_unix_nano: end_ns,
        status: Some(Status { code: code as i32, ..Status::default() }),
        ..Span::default()
    }
}

pub fn spans(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let of = ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of] }
}

fn log_records(service: &str, count: u64) -> ExportLogsServiceRequest {
    let record = |number: u64| LogRecord {
        time_unix_nano: now_ns(),
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::StringValue(format!("item {number} done"))) }),
        ..LogRecord::default()
    };
    logs(service, (0..count).map(record).collect())
}

pub fn logs(service: &str, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let of = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![of] }
}

fn metric_points(service: &str, count: u64) -> ExportMetricsServiceRequest {
    let point = |number: u64| NumberDataPoint {
        time_unix_nano: now_ns() + number,
        value: Some(number_data_point::Value::AsDouble(number as f64)),
        ..NumberDataPoint::default()
    };
    let gauge = Gauge { data_points: (0..count).map(point).collect() };
    let metric = Metric {
        name: "queue.depth".to_owned(),
        data: Some(metric::Data::Gauge(gauge)),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let of = ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of] }
}

/// An export of one of the signals, numbered 0 spans, 1 log records, 2 metric points.
#[derive(Clone, Debug)]
pub enum Export {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Export {
    /// `count` items of a signal, of now.
    pub fn of(signal: usize, service: &str, count: u64) -> Self {
        match signal {
            0 => {
                let now = now_ns();
                let one = |number| span(&format!("GET /{}", number % 3), now, 1_000_000 + number, false);
                Self::Traces(spans(service, (0..count).map(one).collect()))
            }
            1 => Self::Logs(log_records(service, count)),
            _ => Self::Metrics(metric_points(service, count)),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Traces(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
        }
    }
}

/// An OTLP/gRPC client over one connection.
pub struct Client {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
}

impl Client {
    /// Connects at the first export.
    pub fn new(url: &str) -> Self {
        let channel = Endpoint::from_shared(url.to_owned()).expect("a URL").connect_lazy();
        Self {
            traces: TraceServiceClient::new(channel.clone()),
            logs: LogsServiceClient::new(channel.clone()),
            metrics: MetricsServiceClient::new(channel),
        }
    }

    /// Whether all of it was acknowledged. A part that is rejected is no acknowledgement.
    pub async fn export(&mut self, export: &Export) -> Result<(), tonic::Status> {
        let rejected = match export.clone() {
            Export::Traces(request) => {
                self.traces.export(request).await?.into_inner().partial_success.map(|p| p.rejected_spans)
            }
            Export::Logs(request) => {
                self.logs.export(request).await?.into_inner().partial_success.map(|p| p.rejected_log_records)
            }
            Export::Metrics(request) => self
                .metrics
                .export(request)
                .await?
                .into_inner()
                .partial_success
                .map(|partial| partial.rejected_data_points),
        };
        match rejected {
            None | Some(0) => Ok(()),
            Some(items) => Err(tonic::Status::data_loss(format!("{items} items were rejected"))),
        }
    }
}
