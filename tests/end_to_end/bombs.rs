//! Small requests that claim to be, or become, large: refused precisely, and within memory.

use crate::support::daemon::Daemon;
use crate::support::http::{self, Sent};
use crate::support::otlp::{Export, now_ns, span, spans};
use ::http::Method;
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
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

/// A request whose one span has an attribute of this many bytes, nested so deep.
fn nested(depth: usize) -> Vec<u8> {
    // By hand: an encoder would recurse. `AnyValue { array_value { values … } }` around a bool.
    let field = |tag: u8, inner: Vec<u8>| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        out
    };
    let mut value = vec![0x10, 0x01];
    for _ in 0..depth {
        value = field(0x2a, field(0x0a, value));
    }
    let mut attribute = field(0x0a, b"deep".to_vec());
    attribute.extend(field(0x12, value));
    let span = field(0x4a, attribute);
    field(0x0a, field(0x12, field(0x12, span)))
}

fn many_attributes(count: usize) -> Vec<u8> {
    let mut one = span("GET /", now_ns(), 1_000, false);
    one.attributes =
        (0..count).map(|number| key_value(format!("key-{number}"), Value::IntValue(1))).collect();
    Export::Traces(spans("bombs", vec![one])).to_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_within_twice_the_memory_of_the_largest_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(
        folder.path(),
        &[
            "limits.request_bytes=\"8 MiB\"",
            "limits.inflated_bytes=\"32 MiB\"",
            "journal.max_bytes=\"16 MiB\"",
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
    let cases: [(&str, Option<&str>, Vec<u8>, u16, &str); 6] = [
        ("256 MiB of zeros by gzip", Some("gzip"), gzip, 413, "limits.inflated_bytes"),
        ("256 MiB of zeros by zstd", Some("zstd"), zstd, 413, "limits.inflated_bytes"),
        ("a value nested 5,000 deep", None, nested(5_000), 200, ""),
        ("a field that declares 1 GiB", None, declared, 400, ""),
        ("100,000 attributes", None, many_attributes(100_000), 200, ""),
        ("a value nested 25 deep", None, nested(25), 200, ""),
    ];
    let before = memory(daemon.id(), "VmRSS");
    // Forgets the peak of the start.
    std::fs::write(format!("/proc/{}/clear_refs", daemon.id()), "5").expect("the peak is reset");
    for (what, encoding, body, wanted, names) in cases {
        let mut headers = vec![("content-type", "application/x-protobuf")];
        headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
        let url = format!("{}/v1/traces", daemon.url("otlp_http"));
        let answer = http::send(&url, (Method::POST, false), &headers, Sent::Whole(Bytes::from(body))).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, wanted, "{what}: {said}");
        assert!(said.contains(names), "{what}: {said}");
        if what.contains("5,000 deep") {
            assert!(said.contains("deep") || said.contains("nest"), "{what} is refused in part: {said}");
        }
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
