//! Live exporters: one a service instance, over OTLP/gRPC, with the retries that SDKs do.

use super::batch::{Outgoing, Request};
use crate::model::Signal;
use crate::observe::Counter;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Exports that wait for the one under way; more are dropped, as SDKs do.
const QUEUE: usize = 64;
/// `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const ATTEMPTS: u32 = 6;

/// What all exporters did, in items.
#[derive(Debug, Default)]
pub struct Sent {
    pub spans: Counter,
    pub log_records: Counter,
    pub metric_points: Counter,
    /// Refused for good by `partial_success`.
    pub rejected: Counter,
    /// Lost: the queue was full, or no attempt succeeded.
    pub dropped: Counter,
    /// Attempts that had to be repeated.
    pub retries: Counter,
}

impl Sent {
    const fn counter(&self, signal: Signal) -> &Counter {
        match signal {
            Signal::Traces => &self.spans,
            Signal::Logs => &self.log_records,
            Signal::Metrics => &self.metric_points,
        }
    }
}

/// The exporters of all instances.
pub struct Exporters {
    endpoint: Endpoint,
    queues: Vec<mpsc::Sender<Outgoing>>,
    tasks: JoinSet<()>,
    sent: Arc<Sent>,
}

impl Exporters {
    /// Exporters to an OTLP/gRPC address such as `127.0.0.1:4317`.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(TIMEOUT);
        Ok(Self { endpoint, queues: Vec::new(), tasks: JoinSet::new(), sent: Arc::default() })
    }

    #[must_use]
    pub fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }

    /// Hands an export to its instance's exporter. Must be called within a tokio runtime.
    pub fn send(&mut self, outgoing: Outgoing) {
        while self.queues.len() <= outgoing.instance {
            let (sender, receiver) = mpsc::channel(QUEUE);
            // Every other instance is configured with compression.
            let gzip = self.queues.len() % 2 == 1;
            let exporter = Exporter::new(self.endpoint.connect_lazy(), gzip, self.sent.clone());
            self.tasks.spawn(exporter.run(receiver));
            self.queues.push(sender);
        }
        let items = outgoing.items;
        let queue = self.queues.get(outgoing.instance);
        if queue.is_none_or(|queue| queue.try_send(outgoing).is_err()) {
            self.sent.dropped.add(items);
        }
    }

    /// Waits until all that was handed over is sent or given up.
    pub async fn finish(mut self) {
        self.queues.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Exporter {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    metrics: MetricsServiceClient<Channel>,
    sent: Arc<Sent>,
}

impl Exporter {
    fn new(channel: Channel, gzip: bool, sent: Arc<Sent>) -> Self {
        let (traces, logs, metrics) = (
            TraceServiceClient::new(channel.clone()),
            LogsServiceClient::new(channel.clone()),
            MetricsServiceClient::new(channel),
        );
        if gzip {
            let encoding = CompressionEncoding::Gzip;
            Self {
                traces: traces.send_compressed(encoding),
                logs: logs.send_compressed(encoding),
                metrics: metrics.send_compressed(encoding),
                sent,
            }
        } else {
            Self { traces, logs, metrics, sent }
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Outgoing>) {
        while let Some(outgoing) = queue.recv().await {
            match self.export(&outgoing.request).await {
                Ok(rejected) => {
                    self.sent.rejected.add(rejected);
                    let accepted = outgoing.items.saturating_sub(rejected);
                    self.sent.counter(outgoing.request.signal()).add(accepted);
                }
                Err(status) => {
                    tracing::debug!(%status, "an export was given up");
                    self.sent.dropped.add(outgoing.items);
                }
            }
        }
    }

    /// How many items were refused for good.
    async fn export(&mut self, request: &Request) -> Result<u64, Status> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(request.clone()).await {
                Err(status) if is_retryable(status.code()) => {
                    self.sent.retries.add(1);
                    tokio::time::sleep(pause).await;
                    pause = pause.mul_f64(1.8);
                }
                done => return done,
            }
        }
        self.attempt(request.clone()).await
    }

    async fn attempt(&mut self, request: Request) -> Result<u64, Status> {
        let rejected = match request {
            Request::Traces(request) => {
                let answer = self.traces.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_spans)
            }
            Request::Logs(request) => {
                let answer = self.logs.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_log_records)
            }
            Request::Metrics(request) => {
                let answer = self.metrics.export(request).await?.into_inner();
                answer.partial_success.map(|partial| partial.rejected_data_points)
            }
        };
        Ok(u64::try_from(rejected.unwrap_or(0)).unwrap_or(0))
    }
}

/// As the OTLP specification says.
const fn is_retryable(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::fault::Fault;
    use crate::drill::{Batcher, Simulation};
    use crate::model::Timestamp;
    use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
        LogsService, LogsServiceServer,
    };
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use std::sync::atomic::{AtomicU64, Ordering};
    use tonic::{Request as Call, Response};

    /// Turns each third export away as retryable, rejects one span of each other, and all logs for good.
    #[derive(Default)]
    struct Sink {
        calls: AtomicU64,
        spans: AtomicU64,
        compressed: AtomicU64,
    }

    #[tonic::async_trait]
    impl TraceService for Sink {
        async fn export(
            &self,
            call: Call<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            if self.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
                return Err(Status::unavailable("later"));
            }
            let spans: usize = call
                .get_ref()
                .resource_spans
                .iter()
                .flat_map(|resource| &resource.scope_spans)
                .map(|scope| scope.spans.len())
                .sum();
            if call.metadata().get("grpc-encoding").is_some_and(|encoding| encoding == "gzip") {
                self.compressed.fetch_add(1, Ordering::SeqCst);
            }
            self.spans.fetch_add(spans as u64, Ordering::SeqCst);
            let partial_success =
                Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "one".into() });
            Ok(Response::new(ExportTraceServiceResponse { partial_success }))
        }
    }

    #[tonic::async_trait]
    impl LogsService for Sink {
        async fn export(
            &self,
            _: Call<ExportLogsServiceRequest>,
        ) -> Result<Response<ExportLogsServiceResponse>, Status> {
            Err(Status::invalid_argument("no logs here"))
        }
    }

    #[tokio::test]
    async fn every_span_arrives_also_when_turned_away_at_first() {
        let sink = Arc::new(Sink::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(
                TraceServiceServer::from_arc(sink.clone()).accept_compressed(CompressionEncoding::Gzip),
            )
            .add_service(
                LogsServiceServer::from_arc(sink.clone()).accept_compressed(CompressionEncoding::Gzip),
            )
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(server);

        let start = Timestamp::from_secs(1_700_000_000);
        let end = start.saturating_add(Duration::from_secs(2));
        let mut shop = Simulation::new(Fault::None, 1, 0.3, start);
        let mut batcher = Batcher::default();
        let emissions = shop.advance(end);
        let mut outgoing = batcher.pass(shop.instances(), emissions, end);
        outgoing.extend(batcher.finish(shop.instances(), end));
        let items = |signal| -> u64 {
            outgoing.iter().filter(|one| one.request.signal() == signal).map(|one| one.items).sum()
        };
        let (spans, others) = (items(Signal::Traces), items(Signal::Logs) + items(Signal::Metrics));
        let exports = outgoing.iter().filter(|one| one.request.signal() == Signal::Traces).count() as u64;
        let mut exporters = Exporters::new(&address).unwrap();
        let sent = exporters.sent();
        for one in outgoing {
            exporters.send(one);
        }
        exporters.finish().await;
        assert_eq!(sink.spans.load(Ordering::SeqCst), spans);
        assert_eq!((sent.spans.get(), sent.rejected.get()), (spans - exports, exports));
        // Refused for good, or nobody there who understands it: not repeated.
        assert_eq!(sent.dropped.get(), others);
        assert!(sent.retries.get() > 0);
        let compressed = sink.compressed.load(Ordering::SeqCst);
        assert!(compressed > 0 && compressed < exports, "{compressed} of {exports}");
    }
}
