//! The batch processors of SDKs: telemetry gathers in its instance and leaves as export requests.

use super::instance::Instance;
use super::simulation::{Emission, Item};
use crate::model::{Signal, Timestamp};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use std::time::Duration;

/// Longest time that telemetry waits in its instance.
const SCHEDULE: Duration = Duration::from_millis(800);
/// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
const MAX_BATCH: usize = 512;

/// One export.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Request {
    #[must_use]
    pub const fn signal(&self) -> Signal {
        match self {
            Self::Traces(_) => Signal::Traces,
            Self::Logs(_) => Signal::Logs,
            Self::Metrics(_) => Signal::Metrics,
        }
    }
}

/// An export when it leaves its instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub at: Timestamp,
    pub instance: usize,
    pub request: Request,
    /// Spans, log records or metric points.
    pub items: u64,
}

#[derive(Debug)]
struct Buffer {
    spans: Vec<Span>,
    records: Vec<LogRecord>,
    due: Timestamp,
}

/// The processors of all instances.
#[derive(Debug, Default)]
pub struct Batcher(Vec<Buffer>);

impl Batcher {
    /// Takes what was emitted up to `until`, in order, and hands out what leaves up to then, in order.
    pub fn pass(
        &mut self,
        instances: &[Instance],
        emissions: Vec<Emission>,
        until: Timestamp,
    ) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for emission in emissions {
            self.flush_due(instances, emission.at, &mut out);
            self.take(instances, emission, &mut out);
        }
        self.flush_due(instances, until, &mut out);
        out
    }

    /// Hands out all that is left, as at an orderly shutdown.
    pub fn finish(&mut self, instances: &[Instance], at: Timestamp) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for number in 0..self.0.len() {
            self.flush(instances, number, at, &mut out);
        }
        out
    }

    fn take(&mut self, instances: &[Instance], emission: Emission, out: &mut Vec<Outgoing>) {
        let number = emission.instance;
        while self.0.len() <= number {
            // Instances do not beat in time.
            let phase = SCHEDULE.mul_f64((self.0.len() % 8) as f64 / 8.0);
            let due = emission.at.saturating_add(SCHEDULE.saturating_sub(phase));
            self.0.push(Buffer { spans: Vec::new(), records: Vec::new(), due });
        }
        let Some(buffer) = self.0.get_mut(number) else { return };
        match emission.item {
            Item::Span(span) => buffer.spans.push(*span),
            Item::Log(record) => buffer.records.push(*record),
            Item::Metrics(metrics) => {
                if let Some(instance) = instances.get(number) {
                    out.push(export_metrics(instance, number, emission.at, metrics));
                }
                return;
            }
        }
        if buffer.spans.len() >= MAX_BATCH || buffer.records.len() >= MAX_BATCH {
            self.flush(instances, number, emission.at, out);
        }
    }

    fn flush_due(&mut self, instances: &[Instance], now: Timestamp, out: &mut Vec<Outgoing>) {
        loop {
            let due = self.0.iter().enumerate().map(|(number, buffer)| (buffer.due, number)).min();
            match due {
                Some((at, number)) if at <= now => {
                    self.flush(instances, number, at, out);
                    if let Some(buffer) = self.0.get_mut(number) {
                        buffer.due = at.saturating_add(SCHEDULE);
                    }
                }
                _ => return,
            }
        }
    }

    fn flush(&mut self, instances: &[Instance], number: usize, at: Timestamp, out: &mut Vec<Outgoing>) {
        let (Some(buffer), Some(instance)) = (self.0.get_mut(number), instances.get(number)) else { return };
        let spans = std::mem::take(&mut buffer.spans);
        if !spans.is_empty() {
            let items = spans.len() as u64;
            let scope_spans =
                vec![ScopeSpans { scope: Some(instance.scope()), spans, ..ScopeSpans::default() }];
            let resource_spans = vec![ResourceSpans {
                resource: Some(instance.resource()),
                scope_spans,
                ..ResourceSpans::default()
            }];
            let request = Request::Traces(ExportTraceServiceRequest { resource_spans });
            out.push(Outgoing { at, instance: number, request, items });
        }
        let log_records = std::mem::take(&mut buffer.records);
        if !log_records.is_empty() {
            let items = log_records.len() as u64;
            let scope_logs =
                vec![ScopeLogs { scope: Some(instance.scope()), log_records, ..ScopeLogs::default() }];
            let resource_logs = vec![ResourceLogs {
                resource: Some(instance.resource()),
                scope_logs,
                ..ResourceLogs::default()
            }];
            let request = Request::Logs(ExportLogsServiceRequest { resource_logs });
            out.push(Outgoing { at, instance: number, request, items });
        }
    }
}

fn export_metrics(instance: &Instance, number: usize, at: Timestamp, metrics: Vec<Metric>) -> Outgoing {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let points = |metric: &Metric| match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    };
    let items = metrics.iter().map(points).sum::<usize>() as u64;
    let scope_metrics =
        vec![ScopeMetrics { scope: Some(instance.scope()), metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics {
        resource: Some(instance.resource()),
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    let request = Request::Metrics(ExportMetricsServiceRequest { resource_metrics });
    Outgoing { at, instance: number, request, items }
}
