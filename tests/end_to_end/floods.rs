//! HTTP/2 used as a weapon, and sockets that do nothing: an honest client notices none of it.

use crate::support::daemon::Daemon;
use crate::support::load::{self, Comparison};
use crate::support::otlp::{Client, Export};
use crate::support::{eventually, http};
use barograph::api::v1::{ListOperationsRequest, TimeRange};
use prost::Message as _;
use std::io::ErrorKind::WouldBlock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
/// `:method: POST`, `:scheme: http`, `:path: /`, `:authority: x` in HPACK.
const BLOCK: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'x'];

/// How long each flood lasts: `scripts/release-check` asks for more, and has the machine for itself, so that
/// the latency is a figure.
fn lasts() -> Duration {
    let seconds = std::env::var("BAROGRAPH_FLOOD_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

fn is_full() -> bool {
    std::env::var_os("BAROGRAPH_FLOOD_SECONDS").is_some()
}

/// Sockets that are opened and say nothing.
fn sockets() -> usize {
    if is_full() { 5_000 } else { 500 }
}

/// Each flood is held against none as often; the middle one is the figure. Where none is, once shows what else there is.
fn rounds() -> usize {
    if is_full() { 3 } else { 1 }
}

/// The default of `limits.connections`.
const CONNECTIONS: usize = 1_024;
/// Connections to each port over which answers stall, and calls of each.
const STALLED: usize = 30;
const CALLS: u32 = 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Floods again and again for as long as a flood lasts; whether the other side closed a connection over it.
async fn flood(address: String, mut next: impl FnMut(u32) -> Vec<u8>) -> bool {
    let end = Instant::now() + lasts();
    let mut closed = false;
    while Instant::now() < end {
        closed |= flood_once(address.clone(), &mut next, end).await;
    }
    closed
}

async fn flood_once(address: String, next: &mut impl FnMut(u32) -> Vec<u8>, end: Instant) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    if stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.is_err() {
        return true;
    }
    let (mut reader, mut writer) = stream.into_split();
    let closed = Arc::new(AtomicBool::new(false));
    let noticed = closed.clone();
    // What comes back is read, so that only the other side's rules end it.
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0u8; 1 << 16];
        while let Ok(1..) = reader.read(&mut bytes).await {}
        noticed.store(true, Ordering::SeqCst);
    });
    let mut number = 0;
    while Instant::now() < end && !closed.load(Ordering::SeqCst) {
        let mut batch = Vec::new();
        for _ in 0..100 {
            batch.extend(next(number));
            number += 1;
        }
        match tokio::time::timeout(Duration::from_secs(1), writer.write_all(&batch)).await {
            Ok(Ok(())) | Err(_) => tokio::task::yield_now().await,
            Ok(Err(_)) => break,
        }
    }
    let was_closed = tokio::time::timeout(Duration::from_millis(200), reading).await.is_ok();
    was_closed || closed.load(Ordering::SeqCst)
}

const FLOODS: [&str; 5] = ["rapid reset", "CONTINUATION", "PING", "SETTINGS", "empty DATA"];

/// Where a daemon is attacked.
#[derive(Clone)]
struct Ports {
    otlp_grpc: String,
    otlp_http: String,
    query: String,
    http: String,
}

impl Ports {
    fn of(daemon: &Daemon) -> Self {
        let of = |name| daemon.url(name).replace("http://", "");
        Self { otlp_grpc: of("otlp_grpc"), otlp_http: of("otlp_http"), query: of("query"), http: of("http") }
    }
}

/// The head of a call in HPACK, nothing of it indexed beyond what is from the beginning.
fn call(path: &str, content_type: &str) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short"));
        out.extend(text.as_bytes());
    };
    // `:method: POST`, `:scheme: http`; `:path`, `:authority`, `content-type`, and `te` by its name.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "x");
    block.extend([0x0f, 0x10]);
    text(&mut block, content_type);
    block.push(0x00);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

/// A message as gRPC sends it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// Calls over HTTP/2 whose answers nobody takes: streams have no window, and nothing is read.
async fn stall_calls(address: &str, path: &str, content_type: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let mut sent = PREFACE.to_vec();
    // No window for what is answered.
    sent.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for number in 0..CALLS {
        sent.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &call(path, content_type)));
        sent.extend(frame(DATA, END_STREAM, 2 * number + 1, body));
    }
    stream.write_all(&sent).await.expect("sent");
    stream
}

/// Requests one behind the other over HTTP/1, whose answers are more than all buffers between hold, and nothing is read.
async fn stall_requests(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(address.parse().expect("an address")).await.expect("connected");
    let sent = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n").repeat(1_000);
    stream.write_all(sent.as_bytes()).await.expect("sent");
    stream
}

/// As many of each as one address may well have; by the port that they are at.
async fn stall(ports: &Ports, each: usize) -> Vec<(&'static str, TcpStream)> {
    let range = Some(TimeRange::default());
    let message = ListOperationsRequest { range, ..Default::default() }.encode_to_vec();
    let export = Export::of(0, "stalls", 1).to_bytes();
    let (grpc, protobuf) = ("application/grpc", "application/x-protobuf");
    let mut stalled = Vec::new();
    for _ in 0..each {
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        stalled.push(("otlp_grpc", stall_calls(&ports.otlp_grpc, path, grpc, &framed(&export)).await));
        // What is wrong with it is answered at more length than that nothing is.
        stalled.push(("otlp_http", stall_calls(&ports.otlp_http, "/v1/traces", protobuf, b"torn").await));
        let path = "/barograph.v1.QueryService/ListOperations";
        stalled.push(("query", stall_calls(&ports.query, path, grpc, &framed(&message)).await));
        stalled.push(("http", stall_requests(&ports.http).await));
    }
    stalled
}

/// Whether the answers to these have begun and do not get on: over HTTP/2 that the heads of all calls have come and
/// none of what they announce, else that the daemon has bytes that it cannot send.
async fn is_stalled(name: &str, stream: &TcpStream) -> bool {
    if name == "http" {
        return unsent(stream).is_some_and(|bytes| bytes > 0);
    }
    let mut bytes = vec![0; 1 << 16];
    let Ok(count) = stream.peek(&mut bytes).await else { return false };
    let (mut rest, mut heads, mut data) = (&bytes[..count], 0, 0);
    while let [a, b, c, kind, _, _, _, _, _, payload @ ..] = rest {
        heads += u32::from(*kind == HEADERS);
        data += u32::from(*kind == DATA);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = payload.get(length..).unwrap_or_default();
    }
    assert_eq!(data, 0, "{name}: there is no window for it");
    heads == CALLS
}

/// How many bytes the daemon could not send yet at the other end of this connection; `None` if it has given it up.
fn unsent(stream: &TcpStream) -> Option<u64> {
    let (ours, theirs) = (stream.local_addr().ok()?.port(), stream.peer_addr().ok()?.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |word: &str| u16::from_str_radix(word.split_once(':')?.1, 16).ok();
        // One that its process has closed is nobody's, and has no inode.
        let is_it = port(words.get(1)?)? == theirs && port(words.get(2)?)? == ours && *words.get(9)? != "0";
        let unsent = u64::from_str_radix(words.get(4)?.split_once(':')?.0, 16).ok()?;
        is_it.then_some(unsent)
    })
}

/// What an attack came to.
struct Done {
    /// Whether the other side closed a connection over it.
    closed: bool,
    /// Connections that were opened to do nothing more, by their ports.
    held: Vec<(&'static str, TcpStream)>,
}

/// Does one kind of harm for a while.
async fn attack(name: &'static str, ports: Ports) -> Done {
    let address = ports.otlp_grpc.clone();
    let stream_of = |number: u32| 2 * number + 1;
    let closed = match name {
        "rapid reset" => {
            let next = |number| {
                let mut out = frame(HEADERS, END_HEADERS, stream_of(number), BLOCK);
                out.extend(frame(RST_STREAM, 0, stream_of(number), &8u32.to_be_bytes()));
                out
            };
            flood(address, next).await
        }
        "CONTINUATION" => {
            let next = |number| match number {
                0 => frame(HEADERS, 0, 1, BLOCK),
                // A header that is never indexed: name "a", value "b".
                _ => frame(CONTINUATION, 0, 1, &[0x10, 0x01, b'a', 0x01, b'b']),
            };
            flood(address, next).await
        }
        "PING" => flood(address, |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())).await,
        "SETTINGS" => flood(address, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])).await,
        "empty DATA" => {
            let next = |number| match number {
                0 => frame(HEADERS, END_HEADERS, 1, BLOCK),
                _ => frame(DATA, 0, 1, &[]),
            };
            flood(address, next).await
        }
        "idle sockets" => {
            let mut idle = Vec::new();
            for _ in 0..sockets() {
                idle.push(("otlp_grpc", TcpStream::connect(&address).await.expect("connected")));
            }
            tokio::time::sleep(lasts()).await;
            return Done { closed: false, held: idle };
        }
        "slow reads" => {
            let stalled = stall(&ports, STALLED).await;
            tokio::time::sleep(lasts()).await;
            return Done { closed: false, held: stalled };
        }
        other => panic!("{other}"),
    };
    Done { closed, held: Vec::new() }
}

/// Of sockets that idled more than the daemon holds connections: all beyond those are closed by now. How many are.
async fn closed_of(idle: &[(&str, TcpStream)]) -> usize {
    // What the daemon says at first is nothing that we wait for.
    let is_open = |stream: &TcpStream| loop {
        match stream.try_read(&mut [0; 1024]) {
            Ok(1..) => {}
            Ok(0) => break false,
            Err(error) => break error.kind() == WouldBlock,
        }
    };
    let least = idle.len().saturating_sub(CONNECTIONS);
    eventually(&format!("{least} of {} idle sockets are closed", idle.len()), NEWCOMER_WITHIN, async || {
        let closed = idle.iter().filter(|(_, stream)| !is_open(stream)).count();
        (closed >= least).then_some(closed)
    })
    .await
}

/// Answers over all of these have begun, and do not get on.
async fn all_stall(stalled: &[(&str, TcpStream)]) {
    for (name, stream) in stalled {
        eventually(&format!("{name}: an answer stalls"), NEWCOMER_WITHIN * 10, async || {
            is_stalled(name, stream).await.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_idle_sockets_cost_the_honest_client_nothing() {
    if !load::can_pin("a load beside floods") {
        return;
    }
    let _ = barograph::limits::raise_open_files(sockets() as u64 + 500);
    let folder = tempfile::tempdir().expect("a folder");
    // It has to hold what arrives between two checkpoints; a short run ends before it would be full.
    let journal = if is_full() { "journal.max_bytes=\"2 GiB\"" } else { "journal.max_bytes=\"512 MiB\"" };
    let daemon = Daemon::start_after(load::SERVER, folder.path(), &[journal]);
    let url = daemon.url("otlp_grpc");
    let ports = Ports::of(&daemon);
    if is_full() {
        load::recycle(&url, folder.path()).await;
    }
    let rate = format!("{:.0}", load::capacity(&url).await / 4.0);
    let lesser = load::lesser_runtime();
    for name in FLOODS.into_iter().chain(["idle sockets", "slow reads"]) {
        let mut found = Vec::new();
        let mut came_to = Vec::new();
        for _ in 0..rounds() {
            let alone = load::send(&url, lasts(), &["--rate", &rate]).await;
            // The honest client is there first. What it sent is counted a second later: too late, of two that it lasts.
            let beside = tokio::spawn({
                let (url, rate) = (url.clone(), rate.clone());
                async move { load::send(&url, lasts(), &["--rate", &rate]).await }
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            let done = lesser.spawn(attack(name, ports.clone())).await.expect("an attack");
            came_to.push(match name {
                "idle sockets" => format!("{} of {} were closed", closed_of(&done.held).await, sockets()),
                "slow reads" => {
                    all_stall(&done.held).await;
                    format!("{} stalled", done.held.len())
                }
                _ => {
                    assert!(done.closed, "{name}: the attacker is closed");
                    "the attacker was closed".to_owned()
                }
            });
            let beside = beside.await.expect("a load");
            for figures in [&alone, &beside] {
                assert_eq!(figures.refused() + figures.failed(), 0, "{name}: {figures:?}");
            }
            found.push(Comparison { alone, beside });
        }
        let compared = load::middle(found);
        println!(
            "flood of {name} beside {rate} items a second: none failed, p99 {:?} against {:?}, {:.2} times; {}",
            compared.beside.p99(),
            compared.alone.p99(),
            compared.slower(),
            came_to.join(", ")
        );
        assert!(!is_full() || compared.slower() <= 2.0, "{name}: {compared:?}");
    }
    lesser.shutdown_background();
    assert_eq!(daemon.stop(), Some(0));
}

/// How soon somebody who comes while all connections are taken by sockets that idle must be answered.
const NEWCOMER_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_keep_no_newcomer_waiting() {
    let (idle, limit) = (sockets(), sockets() / 5);
    let files = barograph::limits::raise_open_files(2 * idle as u64 + 500);
    assert!(files.is_none_or(|files| files > idle as u64 + 100), "{files:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(
        folder.path(),
        &[&format!("limits.connections={limit}"), &format!("serve.connections={}", limit / 4)],
    );
    let mut there_before = Client::new(&daemon.url("otlp_grpc"));
    there_before.export(&Export::of(0, "before", 1)).await.expect("taken");
    let mut held = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..idle {
        for name in ["otlp_grpc", "otlp_http", "query", "http"] {
            let address = daemon.url(name).replace("http://", "");
            held.push(TcpStream::connect(address).await.expect("connected"));
        }
        held.drain(..held.len().saturating_sub(idle));
        if number % (idle / 10) == idle / 10 - 1 {
            let begun = Instant::now();
            let mut newcomer = Client::new(&daemon.url("otlp_grpc"));
            newcomer.export(&Export::of(0, "newcomer", 1)).await.expect("taken");
            let url = format!("{}/readyz", daemon.url("http"));
            let (status, _) = http::get(&url).await.expect("nobody is turned away");
            assert_eq!(status, 200);
            slowest = slowest.max(begun.elapsed());
        }
    }
    there_before.export(&Export::of(0, "before", 1)).await.expect("taken");
    println!(
        "flood of {} idle sockets at {limit} connections: a newcomer is answered after {slowest:?} at most",
        4 * idle
    );
    assert!(slowest < NEWCOMER_WITHIN, "{slowest:?}");
    eventually("what all sent is counted", NEWCOMER_WITHIN * 10, async || {
        (daemon.ask(&["status"])["accepted"]["spans"] == 12).then_some(())
    })
    .await;
    assert_eq!(daemon.stop(), Some(0));
}

/// What `docs/operations.md` says of how long a connection stays over which nothing gets on, and what a look may take.
const ENDED_WITHIN: [(&str, Duration); 4] = [
    ("otlp_grpc", Duration::from_secs(60)),
    ("otlp_http", Duration::from_secs(70)),
    ("query", Duration::from_secs(70)),
    ("http", Duration::from_secs(120)),
];
const LOOK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_hold_nobody_up_and_end_their_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut there_before = Client::new(&daemon.url("otlp_grpc"));
    there_before.export(&Export::of(0, "before", 1)).await.expect("taken");
    let stalled = stall(&Ports::of(&daemon), STALLED).await;
    all_stall(&stalled).await;
    let begun = Instant::now();
    // Nobody else waits for them.
    there_before.export(&Export::of(0, "before", 1)).await.expect("taken");
    let (status, _) = http::get(&format!("{}/readyz", daemon.url("http"))).await.expect("an answer");
    assert_eq!((status, daemon.ask(&["status"])["ready"].as_bool()), (200, Some(true)));
    assert!(begun.elapsed() < NEWCOMER_WITHIN, "{:?}", begun.elapsed());
    println!("flood of {} connections with answers that nobody takes: others are answered", stalled.len());
    // It takes two minutes.
    for (name, within) in ENDED_WITHIN.into_iter().filter(|_| is_full()) {
        let left = (within + LOOK).saturating_sub(begun.elapsed());
        eventually(&format!("{name}: their connections are given up"), left, async || {
            let mut of = stalled.iter().filter(|(of, _)| *of == name);
            of.all(|(_, stream)| unsent(stream).is_none()).then_some(())
        })
        .await;
        println!("flood of answers that nobody takes: all given up at {name} after {:?}", begun.elapsed());
    }
    assert_eq!(daemon.stop(), Some(0));
}

/// Sends this from one of the machine's own addresses.
async fn say(to: &str, from: [u8; 4], words: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of our own");
    let mut stream = socket.connect(to.parse().expect("an address")).await.expect("connected");
    stream.write_all(words).await.expect("sent");
    stream
}

/// The head of what is answered, or nothing if the connection is closed.
async fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    let read = async {
        while !head.ends_with(b"\r\n\r\n")
            && let Ok(1) = stream.read(&mut byte).await
        {
            head.extend(byte);
        }
    };
    tokio::time::timeout(NEWCOMER_WITHIN * 10, read).await.expect("an answer or an end");
    String::from_utf8(head).expect("text")
}

fn post(path: &str, length: usize, expect: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\n{expect}content-type: application/x-protobuf\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_trickle_from_one_address_lock_no_other_out() {
    const CONNECTIONS: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[&format!("limits.connections={CONNECTIONS}")]);
    let address = daemon.url("otlp_http").replace("http://", "");
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS {
        let asked = post("/v1/traces", 1_000, "expect: 100-continue\r\n");
        let mut stream = say(&address, [127, 0, 0, 1], &asked).await;
        // The body is asked for: so the request is under way.
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 100"));
        stream.write_all(b"\n").await.expect("sent");
        slow.push(stream);
    }
    // Its own newcomers find no seat.
    let mut more = say(&address, [127, 0, 0, 1], &[]).await;
    assert_eq!(head(&mut more).await, "");
    let body = Export::of(0, "honest", 1).to_bytes();
    let mut honest = Vec::new();
    for _ in 0..CONNECTIONS / 2 {
        let begun = Instant::now();
        let sent = [post("/v1/traces", body.len(), ""), body.clone()].concat();
        let mut stream = say(&address, [127, 0, 0, 2], &sent).await;
        let answered = head(&mut stream).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered:?}");
        assert!(begun.elapsed() < NEWCOMER_WITHIN, "{:?}", begun.elapsed());
        honest.push(stream);
    }
    // The one whose body has been arriving longest lost its seat.
    assert_eq!(head(&mut slow[0]).await, "");
    assert_eq!(daemon.stop(), Some(0));
}
