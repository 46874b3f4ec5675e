//! Sends load and measures.

use super::payload::{Shape, Template, templates};
use super::process::Usage;
use super::wire::Prepared;
use crate::model::{Clock, Signal, SystemClock};
use crate::sketch::Histogram;
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// What stands in the details of a status that says when to send again.
const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// URL of an OTLP/gRPC receiver.
    pub endpoint: String,
    /// Requests take turns among them.
    pub signals: Vec<Signal>,
    pub shape: Shape,
    /// Items a second, open loop: requests leave on schedule, and latency counts from then. `None`:
    /// each answer triggers the next request.
    pub rate: Option<f64>,
    pub connections: usize,
    /// Requests under way on a connection.
    pub in_flight: usize,
    pub compression: Compression,
    pub warm_up: Duration,
    pub duration: Duration,
    /// The receiver's process.
    pub pid: Option<u32>,
}

/// Why load could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is no URL of an OTLP/gRPC receiver: {1}")]
    Endpoint(String, tonic::transport::Error),
    #[error("cannot read what process {0} uses: {1}")]
    Process(u32, std::io::Error),
    #[error("no request was answered; the first failed with: {0}")]
    Nothing(String),
}

/// What became of it, in the measured time.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the beginning of the measured time to the last answer.
    pub seconds: f64,
    /// Items that should have left by the rate asked for, but did not before the end: the receiver, or the
    /// sender, cannot keep up with it.
    pub unsent: u64,
    pub requests: u64,
    /// Items acknowledged, by signal in the order of `Signal::ALL`.
    pub accepted: [u64; 3],
    /// Items refused for good within acknowledged requests.
    pub rejected: u64,
    /// Items of requests turned away as retryable.
    pub refused: u64,
    /// Of these, items of requests that were turned away without a word on when to send them again.
    pub refused_without_delay: u64,
    /// Items of requests that failed otherwise.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Of acknowledged requests.
    pub latency: Histogram,
    pub wire_bytes: u64,
    /// Of the receiver: CPU time used, and resident memory at the end.
    pub server: Option<Usage>,
    pub sender_cpu: Duration,
    /// Items acknowledged from the first request on, warm-up included: what a receiver that loses
    /// nothing must have counted.
    pub accepted_whole_run: u64,
}

impl Figures {
    #[must_use]
    pub fn accepted_items(&self) -> u64 {
        self.accepted.iter().sum()
    }

    /// Acknowledged items for each second of CPU time that the receiver used.
    #[must_use]
    pub fn items_per_cpu_second(&self) -> Option<f64> {
        let cpu = self.server?.cpu.as_secs_f64();
        (cpu > 0.0).then(|| self.accepted_items() as f64 / cpu)
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let quantile = |q: f64| self.latency.quantile(q).map(|ns| ns.round() as u64);
        let per_second = |n: u64| n as f64 / self.seconds.max(1e-9);
        json!({
            "seconds": self.seconds,
            "requests": self.requests,
            "items": {
                "accepted": self.accepted_items(),
                "spans": self.accepted[0], "log_records": self.accepted[1], "metric_points": self.accepted[2],
                "rejected": self.rejected, "refused": self.refused,
                "refused_without_delay": self.refused_without_delay, "failed": self.failed, "unsent": self.unsent,
                "per_second": per_second(self.accepted_items()),
            },
            "first_failure": self.first_failure,
            "latency_ns": {
                "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "p999": quantile(0.999),
            },
            "bytes_per_second": per_second(self.wire_bytes),
            "server": self.server.map(|server| json!({
                "cpu_s": server.cpu.as_secs_f64(),
                "resident_bytes": server.resident_bytes,
                "accepted_items_per_cpu_s": self.items_per_cpu_second(),
            })),
            "sender": { "cpu_s": self.sender_cpu.as_secs_f64() },
            "accepted_whole_run": self.accepted_whole_run,
        })
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        for (sum, more) in self.accepted.iter_mut().zip(other.accepted) {
            *sum += more;
        }
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.refused_without_delay += other.refused_without_delay;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.latency.merge(&other.latency);
        self.wire_bytes += other.wire_bytes;
        self.accepted_whole_run += other.accepted_whole_run;
    }
}

/// What the workers share.
struct Plan {
    templates: Vec<Template>,
    /// Number of the next request.
    next: AtomicU64,
    begin: Instant,
    measured_from: Instant,
    end: Instant,
    /// Nothing is sent any more.
    over: AtomicBool,
    /// Time between requests of an open loop.
    interval: Option<Duration>,
}

/// Sends, and waits until the last answer is in. Ends early, with what was measured, when `interrupted` is there.
///
/// # Errors
/// The URL or the process id is wrong, or nothing was ever answered.
pub async fn send(load: &Load, interrupted: impl Future<Output = ()>) -> Result<Figures, Error> {
    let endpoint = Endpoint::from_shared(load.endpoint.clone())
        .map_err(|error| Error::Endpoint(load.endpoint.clone(), error))?
        .timeout(Duration::from_secs(10))
        .tcp_nodelay(true);
    let templates = interleaved(load);
    let begin = Instant::now();
    let measured_from = begin + load.warm_up;
    let per_request = load.shape.items.max(1) as f64;
    let plan = Arc::new(Plan {
        templates,
        next: AtomicU64::new(0),
        begin,
        measured_from,
        end: measured_from + load.duration,
        over: AtomicBool::new(false),
        interval: load.rate.map(|rate| Duration::from_secs_f64(per_request / rate.max(1e-3))),
    });
    let mut workers = JoinSet::new();
    for _ in 0..load.connections.max(1) {
        let channel = endpoint.connect_lazy();
        for _ in 0..load.in_flight.max(1) {
            workers.spawn(work(plan.clone(), client(channel.clone(), load.compression)));
        }
    }
    let usage = |pid: u32| Usage::of(&pid.to_string()).map_err(|error| Error::Process(pid, error));
    let mut interrupted = std::pin::pin!(interrupted);
    let mut is_interrupted = false;
    tokio::select! {
        () = sleep_until(measured_from) => {}
        () = &mut interrupted => is_interrupted = true,
    }
    let before = (load.pid.map(usage).transpose()?, Usage::of("self").unwrap_or_default());
    if !is_interrupted {
        tokio::select! {
            () = sleep_until(plan.end) => {}
            () = &mut interrupted => {}
        }
    }
    let ended = Instant::now();
    plan.over.store(true, Ordering::Relaxed);
    let mut figures = Figures::default();
    while let Some(worker) = workers.join_next().await {
        if let Ok(part) = worker {
            figures.merge(part);
        }
    }
    // What was under way at the end counts, so its time and what it cost do too.
    let after = (load.pid.map(usage).transpose()?, Usage::of("self").unwrap_or_default());
    figures.seconds = measured_from.elapsed().as_secs_f64();
    if let Some(interval) = plan.interval {
        let due = ended.saturating_duration_since(measured_from).as_secs_f64() / interval.as_secs_f64();
        figures.unsent = (due as u64).saturating_sub(figures.requests) * load.shape.items as u64;
    }
    if let (Some(before), Some(after)) = (before.0, after.0) {
        figures.server = Some(Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after });
    }
    figures.sender_cpu = after.1.cpu.saturating_sub(before.1.cpu);
    match &figures.first_failure {
        Some(failure) if figures.accepted_whole_run == 0 => Err(Error::Nothing(failure.clone())),
        _ => Ok(figures),
    }
}

/// The requests of all signals, taking turns.
fn interleaved(load: &Load) -> Vec<Template> {
    let of_each: Vec<Vec<Template>> =
        load.signals.iter().map(|signal| templates(*signal, &load.shape, 1)).collect();
    let longest = of_each.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|at| of_each.iter().filter_map(move |all| all.get(at)).cloned()).collect()
}

fn client(channel: Channel, compression: Compression) -> Grpc<Channel> {
    let client = Grpc::new(channel);
    match compression {
        Compression::None => client,
        Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
        Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
    }
}

const fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    }
}

/// One request under way at a time, until the end.
async fn work(plan: Arc<Plan>, mut client: Grpc<Channel>) -> Figures {
    let mut figures = Figures::default();
    loop {
        let number = plan.next.fetch_add(1, Ordering::Relaxed);
        let scheduled = match plan.interval {
            Some(interval) => plan.begin + interval.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX)),
            None => Instant::now(),
        };
        if scheduled >= plan.end || plan.templates.is_empty() {
            return figures;
        }
        sleep_until(scheduled).await;
        if plan.over.load(Ordering::Relaxed) {
            return figures;
        }
        let at = usize::try_from(number).unwrap_or(0) % plan.templates.len();
        let Some(template) = plan.templates.get(at) else { return figures };
        let bytes = template.stamp(SystemClock.now().ns(), number);
        let length = bytes.len() as u64;
        let outcome = exchange(&mut client, path(template.signal), bytes).await;
        let took = scheduled.elapsed();
        let measured = scheduled >= plan.measured_from;
        figures.note(template, outcome, took, length, measured);
        if figures.accepted_whole_run == 0 && figures.first_failure.is_some() && plan.interval.is_none() {
            // Nobody there: do not spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn exchange(
    client: &mut Grpc<Channel>,
    path: &'static str,
    bytes: Vec<u8>,
) -> Result<u64, tonic::Status> {
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(client.unary(Request::new(bytes), path, Prepared).await?.into_inner())
}

impl Figures {
    fn note(
        &mut self,
        template: &Template,
        outcome: Result<u64, tonic::Status>,
        took: Duration,
        bytes: u64,
        measured: bool,
    ) {
        match outcome {
            Ok(rejected) => {
                let accepted = template.items.saturating_sub(rejected);
                self.accepted_whole_run += accepted;
                if measured {
                    self.requests += 1;
                    self.rejected += rejected;
                    self.wire_bytes += bytes;
                    if let Some(sum) = self.accepted.get_mut(template.signal as usize) {
                        *sum += accepted;
                    }
                    self.latency.record(took.as_nanos() as f64);
                }
            }
            Err(status) => {
                self.first_failure
                    .get_or_insert_with(|| format!("{:?}: {}", status.code(), status.message()));
                if measured {
                    self.requests += 1;
                    match status.code() {
                        Code::Unavailable | Code::ResourceExhausted => {
                            self.refused += template.items;
                            if memchr::memmem::find(status.details(), RETRY_INFO).is_none() {
                                self.refused_without_delay += template.items;
                            }
                        }
                        _ => self.failed += template.items,
                    }
                }
            }
        }
    }
}
