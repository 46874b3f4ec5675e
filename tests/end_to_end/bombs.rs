//! Small requests that claim to be, or become, large: refused precisely, and within memory.

use crate::support::daemon::Daemon;
use crate::support::http::{self, Sent};
use crate::support::otlp::Export;
use ::http::Method;
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use std::borrow::Cow;
use std::io::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const INFLATED_LIMIT: u64 = 32 << 20;
const REQUEST_LIMIT: u64 = 8 << 20;

/// `VmRSS` or `VmHWM` of a process.
fn memory(process: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a status");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn key_value(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A field of the wire format that holds others, by its number.
fn field(number: u64, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    prost::encoding::encode_varint(inner.len() as u64, &mut out);
    out.extend(inner);
    out
}

/// The signals, as the paths of OTLP name them.
const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// A request of one item with these attributes.
fn request(signal: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let of = |number: u64| attributes.iter().flat_map(|one| field(number, one)).collect::<Vec<u8>>();
    let item = match signal {
        "traces" => of(9),
        "logs" => of(6),
        // A point of a gauge of a metric.
        _ => field(5, &field(1, &of(7))),
    };
    field(1, &field(2, &field(2, &item)))
}

/// A request whose one item has an attribute that is nested so deep.
fn nested(signal: &str, depth: usize) -> Vec<u8> {
    // By hand: an encoder would recurse. `AnyValue { array_value { values … } }` around a bool.
    let mut value = vec![0x10, 0x01];
    for _ in 0..depth {
        value = field(5, &field(1, &value));
    }
    request(signal, &[[field(1, b"deep"), field(2, &value)].concat()])
}

fn many_attributes(signal: &str, count: usize) -> Vec<u8> {
    let one = |number| key_value(format!("key-{number}"), Value::IntValue(1)).encode_to_vec();
    request(signal, &(0..count).map(one).collect::<Vec<_>>())
}

/// What came of one request.
struct Said {
    status: u16,
    grpc_status: Option<i32>,
    text: String,
}

/// Sends a body as it is, over one of the protocols.
async fn deliver(daemon: &Daemon, signal: &str, is_grpc: bool, encoding: Option<&str>, body: &[u8]) -> Said {
    let (url, body, mut headers) = if is_grpc {
        let (package, service) = match signal {
            "traces" => ("trace", "Trace"),
            "metrics" => ("metrics", "Metrics"),
            _ => ("logs", "Logs"),
        };
        let path = format!("opentelemetry.proto.collector.{package}.v1.{service}Service/Export");
        let mut framed = vec![u8::from(encoding.is_some())];
        framed.extend(u32::try_from(body.len()).expect("small").to_be_bytes());
        framed.extend(body);
        let headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        (format!("{}/{path}", daemon.url("otlp_grpc")), framed, headers)
    } else {
        let headers = vec![("content-type", "application/x-protobuf")];
        (format!("{}/v1/{signal}", daemon.url("otlp_http")), body.to_vec(), headers)
    };
    let name = if is_grpc { "grpc-encoding" } else { "content-encoding" };
    headers.extend(encoding.map(|encoding| (name, encoding)));
    let answer = http::send(&url, (Method::POST, is_grpc), &headers, Sent::Whole(Bytes::from(body))).await;
    let answer = answer.unwrap_or_else(|error| panic!("{url}: {error}"));
    let message = answer.headers.get("grpc-message").and_then(|message| message.to_str().ok());
    let text = format!("{}{}", message.unwrap_or_default(), String::from_utf8_lossy(&answer.body));
    Said { status: answer.status, grpc_status: answer.grpc_status, text }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_within_twice_the_memory_of_the_largest_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(
        folder.path(),
        &[
            "limits.request_bytes=\"8 MiB\"",
            "limits.inflated_bytes=\"32 MiB\"",
            "journal.max_bytes=\"64 MiB\"",
        ],
    );
    let zeros = vec![0u8; 256 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).expect("written");
    let gzip = gzip.finish().expect("finished");
    let zstd = zstd::bulk::compress(&zeros, 1).expect("compressed");
    drop(zeros);
    let mut declared = vec![0x0a];
    prost::encoding::encode_varint(1 << 30, &mut declared);
    let before = memory(daemon.id(), "VmRSS");
    // Forgets the peak of the start.
    std::fs::write(format!("/proc/{}/clear_refs", daemon.id()), "5").expect("the peak is reset");
    let signals_and_protocols = SIGNALS.into_iter().flat_map(|signal| [(signal, false), (signal, true)]);
    for (signal, is_grpc) in signals_and_protocols {
        // What is in it, how it is packed, what HTTP says and what gRPC says, and what the text names.
        let cases: [(&str, Option<&str>, Cow<'_, [u8]>, u16, i32, &str); 6] = [
            ("zeros by gzip", Some("gzip"), (&gzip).into(), 413, 3, "limits.inflated_bytes"),
            ("zeros by zstd", Some("zstd"), (&zstd).into(), 413, 3, "limits.inflated_bytes"),
            ("a value nested 5,000 deep", None, nested(signal, 5_000).into(), 200, 0, "nest"),
            ("a field that declares 1 GiB", None, (&declared).into(), 400, 3, ""),
            (
                "100,000 attributes",
                None,
                many_attributes(signal, 100_000).into(),
                200,
                0,
                "attributes[10000]: more than 10000 attributes",
            ),
            ("a value nested 25 deep", None, nested(signal, 25).into(), 200, 0, ""),
        ];
        for (what, encoding, body, http_status, grpc_status, names) in cases {
            let what = format!("{what}, {signal}, {}", if is_grpc { "gRPC" } else { "HTTP" });
            let said = deliver(&daemon, signal, is_grpc, encoding, &body).await;
            let wanted = if is_grpc { (200, Some(grpc_status)) } else { (http_status, None) };
            assert_eq!((said.status, said.grpc_status), wanted, "{what}: {}", said.text);
            assert!(said.text.contains(names), "{what}: {}", said.text);
        }
    }
    // A message of gRPC that is announced to be 1 GiB.
    for service in ["trace.v1.Trace", "metrics.v1.Metrics", "logs.v1.Logs"] {
        let path = format!("opentelemetry.proto.collector.{service}Service/Export");
        let url = format!("{}/{path}", daemon.url("otlp_grpc"));
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let announced = Sent::Whole(Bytes::from_static(&[0, 0x40, 0, 0, 0, 0x0a]));
        let answer = http::send(&url, (Method::POST, true), &headers, announced).await.expect("an answer");
        assert_eq!(answer.grpc_status, Some(3), "{service}: {answer:?}");
    }
    // Announced, and never sent.
    for head in [
        format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            1u64 << 30
        ),
        format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            u64::MAX
        ),
    ] {
        let address = daemon.url("otlp_http").replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0u8; 64];
        let count = stream.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{head}: {answer}");
    }
    let peak = memory(daemon.id(), "VmHWM");
    let more = peak.saturating_sub(before);
    println!(
        "bombs refused within {} MiB more than before, limit {} MiB",
        more >> 20,
        (2 * INFLATED_LIMIT) >> 20
    );
    assert!(more <= 2 * INFLATED_LIMIT, "{} MiB of {REQUEST_LIMIT} on the wire", more >> 20);
    let url = format!("{}/v1/traces", daemon.url("otlp_http"));
    let good = http::send(
        &url,
        (Method::POST, false),
        &[("content-type", "application/x-protobuf")],
        Sent::Whole(Export::of(0, "bombs", 3).to_bytes().into()),
    );
    assert_eq!(good.await.expect("an answer").status, 200);
    assert_eq!(daemon.stop(), Some(0));
}
