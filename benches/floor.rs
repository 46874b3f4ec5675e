//! What Barograph is measured against by `scripts/bench`: plain servers that keep nothing, and its own
//! parts each alone.
//!
//! ```text
//! floor transport ADDRESS   the receiver with nothing behind it: requests are framed, split and answered
//! floor tonic ADDRESS       tonic and prost: requests are decoded, counted and thrown away
//! floor parts DIRECTORY     nanoseconds an item of walking and counting, and of appending to a journal
//! floor sketch              nanoseconds of recording a latency: in one sketch, over 4,096 of them
//! ```

use barograph::access::Access;
use barograph::aggregate::{self, Shard};
use barograph::drill::load::{Shape, Template, templates};
use barograph::journal::{self, Cut, Journal, Position};
use barograph::limits::Permit;
use barograph::model::{Clock, Signal, SystemClock, Timestamp};
use barograph::otlp::{Encoding, split};
use barograph::receive::{Admitted, CallerKey, CallerTag, Config, Intake, Reply, Server};
use barograph::settings::ByteSize;
use barograph::sketch::{Recording, Recordings};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["transport", address] => serve(transport(address)),
        ["tonic", address] => serve(plain_tonic(address)),
        ["parts", directory] => parts(directory.as_ref()),
        ["sketch"] => {
            sketch();
            Ok(())
        }
        // `cargo bench` without words: what needs nothing.
        [] => {
            sketch();
            Ok(())
        }
        _ => Err("say `transport ADDRESS`, `tonic ADDRESS`, `parts DIRECTORY` or `sketch`".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(server: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?.block_on(server)
}

/// Answers at once.
struct Nothing;

impl Intake for Nothing {
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
        admitted.reply.done(u32::try_from(admitted.slices.len()).unwrap_or(u32::MAX - 1) + 1);
        Ok(())
    }
}

async fn transport(address: &str) -> Result<(), Failure> {
    let access = Access::open(&Default::default(), &Default::default(), Arc::new(SystemClock))?;
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let server = Server::bind(
        address.parse()?,
        anywhere,
        Arc::new(Nothing),
        access,
        &Config::default(),
        CallerKey::random(),
    )?;
    server.run(std::future::pending()).await;
    Ok(())
}

#[derive(Clone, Copy)]
struct Count;

macro_rules! counted {
    ($service:ident, $request:ident, $response:ident, $items:expr) => {
        #[tonic::async_trait]
        impl $service for Count {
            async fn export(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                black_box(($items)(request.into_inner()));
                Ok(Response::new($response::default()))
            }
        }
    };
}

counted!(
    TraceService,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    |of: ExportTraceServiceRequest| {
        let scopes = of.resource_spans.iter().flat_map(|of| &of.scope_spans);
        scopes.map(|of| of.spans.len()).sum::<usize>()
    }
);
counted!(LogsService, ExportLogsServiceRequest, ExportLogsServiceResponse, |of: ExportLogsServiceRequest| {
    let scopes = of.resource_logs.iter().flat_map(|of| &of.scope_logs);
    scopes.map(|of| of.log_records.len()).sum::<usize>()
});
counted!(
    MetricsService,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    |of: ExportMetricsServiceRequest| {
        let scopes = of.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
        scopes.map(|of| of.metrics.len()).sum::<usize>()
    }
);

async fn plain_tonic(address: &str) -> Result<(), Failure> {
    const LIMIT_BYTES: usize = 64 << 20;
    macro_rules! service {
        ($server:ident) => {
            $server::new(Count)
                .max_decoding_message_size(LIMIT_BYTES)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
        };
    }
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service!(TraceServiceServer))
        .add_service(service!(LogsServiceServer))
        .add_service(service!(MetricsServiceServer))
        .serve(address.parse()?)
        .await?;
    Ok(())
}

fn admitted(template: &Template, now: Timestamp, number: u64) -> Result<Admitted, Failure> {
    let body = bytes::Bytes::from(template.stamp(now.ns(), number));
    Ok(Admitted {
        signal: template.signal,
        encoding: Encoding::Identity,
        slices: split(template.signal, &body)?,
        wire: body.clone(),
        body,
        caller: CallerTag::NOBODY,
        permit: Permit::free(),
        reply: Reply::nobody(),
    })
}

/// Time an item, as the fastest of several rounds: what disturbs only adds.
fn parts(directory: &std::path::Path) -> Result<(), Failure> {
    const ROUNDS: usize = 7;
    const SECONDS_A_ROUND: u64 = 8;
    let shape = Shape { items: 256, attributes: 10, resources: 4, services: 20, series: 200, errors: 0.02 };
    let config = journal::Config { max_bytes: Some(ByteSize(256 << 20)), ..journal::Config::default() };
    for signal in Signal::ALL {
        let templates = templates(signal, &shape, 1);
        let mut shard = Shard::new(0, 1, &aggregate::Config::default());
        let folder = directory.join(signal.as_str());
        let (sequencer, _, _) = Journal::open(&folder, &config, Arc::new(SystemClock), None)?;
        let mut sequencer = sequencer.without_checkpoints();
        let (mut walk, mut append) = (Duration::MAX, Duration::MAX);
        let items = templates.iter().map(|template| template.items).sum::<u64>() * SECONDS_A_ROUND;
        let mut now = SystemClock.now();
        for round in 0..ROUNDS {
            let (mut walking, mut appending) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..SECONDS_A_ROUND {
                now = now.saturating_add(Duration::from_secs(1));
                let requests: Vec<Admitted> =
                    templates.iter().map(|of| admitted(of, now, round as u64)).collect::<Result<_, _>>()?;
                let begun = Instant::now();
                for request in &requests {
                    shard.apply(Position(0), now, request);
                }
                black_box(shard.cut(Cut {
                    number: now.secs() + 1,
                    arrived: Timestamp::from_secs(now.secs() + 1),
                    through: Position(0),
                    checkpoint: false,
                }));
                walking += begun.elapsed();
                let begun = Instant::now();
                for request in requests {
                    sequencer.append_at(request, now)?.for_each(drop);
                }
                appending += begun.elapsed();
            }
            (walk, append) = (walk.min(walking), append.min(appending));
        }
        let per_item = |of: Duration| of.as_nanos() as f64 / items as f64;
        println!(
            r#"{{"signal":"{}","walk_and_aggregate_ns":{:.1},"journal_ns":{:.1}}}"#,
            signal.as_str(),
            per_item(walk),
            per_item(append)
        );
    }
    Ok(())
}

fn sketch() {
    const ROUNDS: usize = 9;
    const VALUES: usize = 1 << 20;
    let mut random = fastrand::Rng::with_seed(1);
    // Around 20 ms, as latencies of one operation are: four in five within a factor of three.
    let durations: Vec<u64> = (0..4_096)
        .map(|_| (20e6 * ((0..4).map(|_| random.f64() - 0.5).sum::<f64>() * 1.2).exp()) as u64)
        .collect();
    for sketches in [1usize, 4_096] {
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let mut recordings = Recordings::default();
            let mut all = vec![Recording::default(); sketches];
            let order: Vec<u32> = (0..VALUES).map(|_| random.u32(..sketches as u32)).collect();
            // Each has widened before it is measured.
            for round in 0..20 {
                for recording in &mut all {
                    recording.record(durations[round * 7], &mut recordings);
                }
            }
            let begun = Instant::now();
            for (number, place) in order.iter().enumerate() {
                all[*place as usize].record(durations[number & 4_095], &mut recordings);
            }
            best = best.min(begun.elapsed());
            black_box(&all);
        }
        println!(r#"{{"sketches":{sketches},"insert_ns":{:.2}}}"#, best.as_nanos() as f64 / VALUES as f64);
    }
}
