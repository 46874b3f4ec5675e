//! One service with a name for every span: its totals stay exact, and nobody else's figures change.

use crate::support::cgroup::Cgroup;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::load::{self, Comparison};
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(60);
const BATCH: u64 = 500;

/// Distinct names: `scripts/release-check` asks for ten million.
fn names() -> u64 {
    std::env::var("BAROGRAPH_NAMES").ok().and_then(|names| names.parse().ok()).unwrap_or(100_000)
}

fn is_ten_million() -> bool {
    names() >= 10_000_000
}

fn row(daemon: &Daemon, service: &str) -> Option<Value> {
    daemon.ask(&["services"]).as_array()?.iter().find(|row| row["service"] == service).cloned()
}

/// How many names come each second: ten million in a minute.
const NAMES_PER_SECOND: f64 = 10_000_000.0 / 60.0;
/// Connections that bring them.
const CONNECTIONS: usize = 8;
/// The part of that rate which shows that it was kept.
const KEPT: f64 = 0.95;

/// The template of a request whose spans have a name of their own each: it is encoded once, then names, ids and times are
/// written over it, so that names without end cost their sender little.
#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    /// Where spans begin, and where in each of them its fields lie.
    spans: Vec<usize>,
    name: usize,
    trace: usize,
    span: usize,
    start: usize,
    end: usize,
}

const DIGITS: usize = 8;
const TOOK_NS: u64 = 5_000_000;

impl Template {
    fn new() -> Self {
        const START: u64 = 0xc3c3_c3c3_c3c3_c3c3;
        let mut one = span("op-00000000-x", START + TOOK_NS, TOOK_NS, false);
        one.trace_id = vec![0xa1; 16];
        one.span_id = vec![0xb2; 8];
        let of_one = one.encode_to_vec();
        let at = |what: &[u8]| memchr::memmem::find(&of_one, what).expect("a field");
        let bytes = spans("noisy", vec![one; BATCH as usize]).encode_to_vec();
        Self {
            spans: memchr::memmem::find_iter(&bytes, &of_one).collect(),
            bytes,
            name: at(b"00000000"),
            trace: at(&[0xa1; 16]),
            span: at(&[0xb2; 8]),
            start: at(&START.to_le_bytes()),
            end: at(&(START + TOOK_NS).to_le_bytes()),
        }
    }

    /// A request whose names are numbered from here on.
    fn request(&mut self, first: u64) -> Bytes {
        let now = now_ns();
        for (number, at) in (first..).zip(&self.spans) {
            let mut put = |field: usize, bytes: &[u8]| {
                self.bytes[at + field..at + field + bytes.len()].copy_from_slice(bytes);
            };
            put(self.name, format!("{number:0DIGITS$}").as_bytes());
            put(self.trace, &fastrand::u128(1..).to_be_bytes());
            put(self.span, &fastrand::u64(1..).to_be_bytes());
            put(self.start, &(now - TOOK_NS).to_le_bytes());
            put(self.end, &now.to_le_bytes());
        }
        Bytes::copy_from_slice(&self.bytes)
    }
}

/// Sends bytes as they are, and understands how many of what is in them were rejected.
#[derive(Clone, Copy, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = i64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = i64;
    type Error = tonic::Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<i64>, tonic::Status> {
        let answer = ExportTraceServiceResponse::decode(answer.copy_to_bytes(answer.remaining()));
        let answer = answer.map_err(|error| tonic::Status::internal(error.to_string()))?;
        Ok(Some(answer.partial_success.map_or(0, |partial| partial.rejected_spans)))
    }
}

/// Names in hand for those that send them.
#[derive(Clone)]
struct Plan {
    url: String,
    /// The first name, and how many there are.
    first: u64,
    names: u64,
    per_second: f64,
    begun: Instant,
    /// The number of the next request.
    next: Arc<AtomicU64>,
}

impl Plan {
    fn new(url: &str, first: u64, names: u64, per_second: f64) -> Self {
        Self { url: url.to_owned(), first, names, per_second, begun: Instant::now(), next: Arc::default() }
    }

    /// When so many are due.
    fn due(&self, names: u64) -> Instant {
        self.begun + Duration::from_secs_f64(names as f64 / self.per_second)
    }

    /// When they all are to be sent.
    fn end(&self) -> Instant {
        self.due(self.names)
    }

    /// Sends over one connection what nobody else sends, at the rate that is asked for, until it is all sent or its time
    /// is over: how many names were taken. Where each has to count, it is sent until it is taken.
    async fn work(self, must_all: bool) -> u64 {
        let channel = Endpoint::from_shared(self.url.clone()).expect("a URL").connect_lazy();
        let mut client = Grpc::new(channel);
        let (mut template, mut taken) = (Template::new(), 0);
        loop {
            let sent = self.next.fetch_add(1, Ordering::SeqCst) * BATCH;
            if sent >= self.names || !must_all && Instant::now() >= self.end() {
                return taken;
            }
            tokio::time::sleep_until(self.due(sent).into()).await;
            let request = template.request(self.first + sent);
            let begun = Instant::now();
            loop {
                client.ready().await.expect("connected");
                let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                let path = PathAndQuery::from_static(path);
                match client.unary(tonic::Request::new(request.clone()), path, Encoded).await {
                    Ok(rejected) => {
                        assert_eq!(rejected.into_inner(), 0, "all of them are good");
                        taken += BATCH;
                        break;
                    }
                    // What is refused under such a load counts for nobody, unless it is sent again.
                    Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
                }
                if !must_all {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "it is refused for {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Sends over all connections: how many names were taken.
    async fn run(self, must_all: bool) -> u64 {
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            connections.spawn(self.clone().work(must_all));
        }
        connections.join_all().await.into_iter().sum()
    }
}

/// Says so where fewer names came each second than ten million in a minute are.
fn told_rate(names: u64, lasted: Duration, is_full: bool, what: &str) {
    let rate = names as f64 / lasted.as_secs_f64();
    if is_full && rate < KEPT * NAMES_PER_SECOND {
        println!(
            "NOT RUN: ten million names in 60 s {what}: this machine had room for {:.1} million",
            rate * 60e-6
        );
    }
}

/// No less than there are: what is bounded here is memory.
const PROCESSORS: f64 = 64.0;
/// What the daemon may have: as many series as by default, and all that is held for them, fit into it.
const MEMORY_BYTES: u64 = 512 << 20;

/// Sends the same of the quiet service, and, if it is to, names without end of the noisy one at the same time.
async fn run(is_noisy: bool) -> (Value, u64) {
    let group = match Cgroup::make(&format!("cardinality-{is_noisy}"), MEMORY_BYTES, PROCESSORS) {
        Ok(group) => Some(group),
        Err(why) => {
            println!("NOT RUN: no cgroup can be made here, so memory is only measured ({why})");
            None
        }
    };
    let words = group.as_ref().map(Cgroup::words).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start_after(&words, folder.path(), &["journal.max_bytes=\"512 MiB\""]);
    let url = daemon.url("otlp_grpc");
    let batches = names() / BATCH;
    let plan = Plan::new(&url, 0, batches * BATCH, NAMES_PER_SECOND);
    let (begun, lasts) = (plan.begun, plan.end() - plan.begun);
    let noise = is_noisy.then(|| tokio::spawn(plan.run(true)));
    let mut client = Client::new(&url);
    let mut quiet = 0;
    // The same durations at the same places of the run, whatever the clock says, and over the whole of it.
    for batch in (0..batches).step_by(4) {
        if is_noisy {
            tokio::time::sleep_until((begun + lasts.mul_f64(batch as f64 / batches as f64)).into()).await;
        }
        let one = |number: u64| {
            span("GET /cart", now_ns(), 1_000_000 + (batch * 7 + number * 13) % 997 * 10_000, false)
        };
        let taken = client.export(&Export::Traces(spans("quiet", (0..10).map(one).collect()))).await;
        let killed = group.as_ref().map_or(0, Cgroup::killed);
        assert!(
            taken.is_ok() && killed == 0,
            "{killed} killed for want of {} MiB: {taken:?}",
            MEMORY_BYTES >> 20
        );
        quiet += 10;
    }
    eventually("all of the quiet service is counted", PATIENCE, async || {
        (row(&daemon, "quiet")?["spans"] == quiet).then_some(())
    })
    .await;
    if let Some(noise) = noise {
        let taken = noise.await.expect("all names are sent");
        assert_eq!(taken, batches * BATCH);
        told_rate(taken, begun.elapsed(), is_ten_million(), "with exact totals");
        let what = format!("{taken} spans of the noisy service are counted exactly");
        eventually(&what, PATIENCE, async || (row(&daemon, "noisy")?["spans"] == taken).then_some(())).await;
        let status = daemon.ask(&["status"]);
        let series = &status["series"];
        assert!(series["live"].as_u64() <= series["limit"].as_u64(), "{series}");
        assert!(series["overflowed"].as_u64() > Some(0), "{series}");
        let crowded = &series["crowded"][0];
        assert_eq!(crowded["service"], "noisy", "{series}");
        assert_eq!(
            (&crowded["part"], &crowded["pattern"]),
            (&"span names".into(), &"op-*".into()),
            "{series}"
        );
        assert_eq!(crowded["overflowed"], series["overflowed"], "{series}");
    }
    let of = row(&daemon, "quiet").expect("a row");
    let peak = daemon.peak_bytes();
    assert!(peak <= MEMORY_BYTES, "{} MiB", peak >> 20);
    assert_eq!(group.as_ref().map_or(0, Cgroup::killed), 0, "nothing was killed for memory");
    assert_eq!(daemon.stop(), Some(0));
    (of, peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_every_span_costs_the_others_nothing() {
    let (alone, before) = run(false).await;
    let (beside, after) = run(true).await;
    for field in ["spans", "requests", "errors", "p50_ns", "p90_ns", "p99_ns", "p999_ns"] {
        assert_eq!(alone[field], beside[field], "{field} of the quiet service");
    }
    println!(
        "{} distinct names: {} of {} MiB at the peak, {} without them; the other service's figures are equal",
        names(),
        after >> 20,
        MEMORY_BYTES >> 20,
        before >> 20
    );
    let more = after.saturating_sub(before) >> 20;
    assert!(more < 192, "{more} MiB more");
}

/// How long a load lasts: `scripts/release-check` asks for more, and has the machine for itself, so that the latency is
/// a figure.
fn lasts() -> (Duration, bool) {
    let seconds = std::env::var("BAROGRAPH_NAMES_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    (Duration::from_secs(seconds.unwrap_or(2)), seconds.is_some())
}

/// Distinct names that must be taken each second beside the load, and the part of the load's rate that must be: else
/// nothing was held against nothing.
const LEAST_NAMES: f64 = 1_000.0;
const LEAST_RATE: f64 = 0.9;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_every_span_keeps_nobody_else_waiting() {
    if !load::can_pin("a load beside names without end") {
        return;
    }
    let (lasts, is_alone) = lasts();
    let folder = tempfile::tempdir().expect("a folder");
    // Both together fill half a GiB in seconds, within which a disk that others use may finish no checkpoint.
    let daemon = Daemon::start_after(load::SERVER, folder.path(), &["journal.max_bytes=\"2 GiB\""]);
    let url = daemon.url("otlp_grpc");
    let offered = load::capacity(&url).await / 4.0;
    let rate = format!("{offered:.0}");
    let lesser = load::lesser_runtime();
    let mut found = Vec::new();
    let mut names = 0;
    // A machine that others use, too, has no room for all of them.
    let per_second = if is_alone { NAMES_PER_SECOND } else { NAMES_PER_SECOND / 10.0 };
    let each = (lasts.as_secs_f64() * per_second) as u64;
    for round in 0..3 {
        let alone = load::send(&url, lasts, &["--rate", &rate]).await;
        let noisy = lesser.spawn(Plan::new(&url, round * each, each, per_second).run(false));
        let beside = load::send(&url, lasts, &["--rate", &rate]).await;
        names += noisy.await.expect("a load");
        for figures in [&alone, &beside] {
            assert_eq!(figures.refused() + figures.failed(), 0, "{figures:?}");
            let accepted = figures.accepted() as f64 / lasts.as_secs_f64();
            assert!(accepted >= LEAST_RATE * offered, "{accepted:.0} of {rate} items a second: {figures:?}");
        }
        found.push(Comparison { alone, beside });
    }
    lesser.shutdown_background();
    let names_per_second = names as f64 / (3.0 * lasts.as_secs_f64());
    assert!(names_per_second >= LEAST_NAMES, "{names_per_second:.0} distinct names a second");
    told_rate(names, 3 * lasts, is_alone, "beside the load");
    eventually("all names that were taken are counted", PATIENCE, async || {
        (row(&daemon, "noisy")?["spans"] == names).then_some(())
    })
    .await;
    let middle = load::middle(found);
    println!(
        "{names} distinct names, {names_per_second:.0} a second, beside {rate} items a second: p99 {:?} against {:?}, {:.2} times",
        middle.beside.p99(),
        middle.alone.p99(),
        middle.slower()
    );
    assert!(!is_alone || middle.slower() <= 2.0, "{middle:?}");
    assert_eq!(daemon.stop(), Some(0));
}
