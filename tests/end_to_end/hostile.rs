//! What is wrong is refused with a precise status, and nobody else notices.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::http::{self, Answer, Sent};
use crate::support::otlp::{Client, Export};
use ::http::Method;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(30);
const PATHS: [&str; 3] = ["/v1/traces", "/v1/logs", "/v1/metrics"];
const METHODS: [&str; 3] = ["trace.v1.TraceService", "logs.v1.LogsService", "metrics.v1.MetricsService"];
const FIELDS: [&str; 3] = ["spans", "log_records", "metric_points"];
const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;
const HUNDRED_MEGABYTES: usize = 100_000_000;

/// `rejected` of the status by reason, as it must become.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rejected {
    malformed: u64,
    too_large: u64,
    unsupported: u64,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}

/// 100 KB that inflate to 100 MB.
fn bomb() -> Bytes {
    gzip(&vec![0; HUNDRED_MEGABYTES]).into()
}

/// A request of one item with fields that no version of OTLP has, in the request itself and in its first
/// resource.
fn with_unknown_fields(signal: usize, service: &str) -> Vec<u8> {
    const VARINT: [u8; 3] = [0xc0, 0x3e, 0x07]; // field 1000
    const BYTES: [u8; 6] = [0xca, 0x3e, 0x03, b'n', b'e', b'w']; // field 1001
    let known = Export::of(signal, service, 1).to_bytes();
    // Field 1, with the length of the resource's message in two bytes.
    let (&tag, rest) = known.split_first().expect("a field");
    assert_eq!(tag, 0x0a);
    let length = known.len() - 3;
    assert_eq!(
        usize::from(rest[0] & 0x7f) | usize::from(rest[1]) << 7,
        length,
        "between 128 and 16383 bytes"
    );
    let inner = [&rest[2..], &BYTES].concat();
    let prefix = [tag, (inner.len() & 0x7f) as u8 | 0x80, (inner.len() >> 7) as u8];
    [&VARINT, prefix.as_slice(), &inner, &BYTES].concat()
}

struct Hostile<'a> {
    daemon: &'a Daemon,
    rejected: Rejected,
}

impl Hostile<'_> {
    /// Health, after every single request.
    async fn healthy(&self, what: &str) {
        let (status, _) = http::get(&format!("{}/readyz", self.daemon.url("http"))).await.expect(what);
        assert_eq!(status, 200, "not ready after {what}");
    }

    fn count(&mut self, http_status: u16) {
        match http_status {
            200 => {}
            400 => self.rejected.malformed += 1,
            413 => self.rejected.too_large += 1,
            404 | 405 | 415 => self.rejected.unsupported += 1,
            status => panic!("{status} is expected nowhere"),
        }
    }

    /// Over HTTP: the status, and for what is refused a `google.rpc.Status` in the request's format.
    async fn http(
        &mut self,
        what: &str,
        path: &str,
        headers: &[(&str, &str)],
        sent: Sent,
        wanted: u16,
    ) -> Answer {
        let url = format!("{}{path}", self.daemon.url("otlp_http"));
        let answer = http::send(&url, (Method::POST, false), headers, sent).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        assert_eq!(answer.status, wanted, "{what}: {}", String::from_utf8_lossy(&answer.body));
        let kind = headers.iter().find(|(name, _)| *name == "content-type").map(|(_, kind)| *kind);
        if let Some(kind @ ("application/json" | "application/x-protobuf")) = kind {
            assert_eq!(answer.headers["content-type"], kind, "{what}");
        }
        if wanted != 200 {
            let message = match answer.headers["content-type"].to_str().expect("text") {
                "application/json" => {
                    let status: Value = serde_json::from_slice(&answer.body).expect("JSON");
                    status["message"].as_str().expect("a message").to_owned()
                }
                _ => {
                    let status: tonic_types_status::Status =
                        prost::Message::decode(answer.body.clone()).expect("a status");
                    status.message
                }
            };
            assert!(!message.is_empty(), "{what}: says nothing");
        }
        self.count(wanted);
        self.healthy(what).await;
        answer
    }

    /// Over gRPC: the status, always with HTTP's 200.
    async fn grpc(&mut self, what: &str, method: &str, headers: &[(&str, &str)], sent: Sent, wanted: i32) {
        let url = format!("{}/opentelemetry.proto.collector.{method}", self.daemon.url("otlp_grpc"));
        let headers = [&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat();
        let answer = http::send(&url, (Method::POST, true), &headers, sent).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        let said = answer.headers.get("grpc-message");
        assert_eq!((answer.status, answer.grpc_status), (200, Some(wanted)), "{what}: {said:?}");
        let large = what.contains("MB");
        match wanted {
            OK => {}
            INVALID_ARGUMENT if large => self.rejected.too_large += 1,
            INVALID_ARGUMENT => self.rejected.malformed += 1,
            _ => self.rejected.unsupported += 1,
        }
        assert!(wanted == OK || said.is_some_and(|said| !said.is_empty()), "{what}: says nothing");
        self.healthy(what).await;
    }
}

/// `google.rpc.Status`, as far as it matters here.
mod tonic_types_status {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
    }
}

/// One message of gRPC.
fn framed(compressed: bool, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(compressed.into());
    out.put_u32(message.len().try_into().expect("a length"));
    out.put_slice(message);
    out.freeze()
}

fn whole(bytes: impl Into<Bytes>) -> Sent {
    Sent::Whole(bytes.into())
}

/// A client that does nothing wrong, all the while; what it was acknowledged.
async fn bystander(grpc: String, http: String, stop: Arc<AtomicBool>) -> [u64; 3] {
    let mut client = Client::new(&grpc);
    let mut acknowledged = [0; 3];
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let signal = number % 3;
        let count = 1 + (number as u64 * 7) % 40;
        let export = Export::of(signal, "bystander", count);
        if number % 2 == 0 {
            client.export(&export).await.expect("acknowledged over gRPC");
        } else {
            let headers = [("content-type", "application/x-protobuf")];
            let url = format!("{http}{}", PATHS[signal]);
            let answer = http::send(&url, (Method::POST, false), &headers, whole(export.to_bytes())).await;
            let answer = answer.expect("an answer over HTTP");
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
        }
        acknowledged[signal] += count;
        number += 1;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_precisely_and_others_are_counted_exactly() {
    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const JSON: (&str, &str) = ("content-type", "application/json");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");
    const GRPC_GZIP: (&str, &str) = ("grpc-encoding", "gzip");
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let bystander = tokio::spawn(bystander(daemon.url("otlp_grpc"), daemon.url("otlp_http"), stop.clone()));
    let mut hostile = Hostile { daemon: &daemon, rejected: Rejected::default() };
    let mut strange = [0; 3];

    for (signal, (path, service)) in PATHS.into_iter().zip(METHODS).enumerate() {
        let method = &format!("{service}/Export");
        let good = Export::of(signal, "strange", 1).to_bytes();
        let (cut, zipped) = (good[..good.len() - 1].to_vec(), gzip(&good));
        let half = zipped[..zipped.len() / 2].to_vec();
        let trailer_cut = zipped[..zipped.len() - 3].to_vec();
        let mut corrupt = zipped.clone();
        corrupt[zipped.len() - 6] ^= 1; // of the check sum
        for (what, headers, body, wanted) in [
            ("an empty protobuf body", &[PROTOBUF][..], vec![], 200),
            ("no protobuf at all", &[PROTOBUF], b"\xff\xff\xff not protobuf".to_vec(), 400),
            ("a request cut off", &[PROTOBUF], cut.clone(), 400),
            ("protobuf with a wrong wire type", &[PROTOBUF], vec![0x08, 0x01], 400),
            ("unknown fields", &[PROTOBUF], with_unknown_fields(signal, "strange"), 200),
            ("a truncated gzip", &[PROTOBUF, GZIP], half.clone(), 400),
            ("a gzip without its end", &[PROTOBUF, GZIP], trailer_cut.clone(), 400),
            ("a gzip with a wrong check sum", &[PROTOBUF, GZIP], corrupt.clone(), 400),
            ("no gzip at all", &[PROTOBUF, GZIP], good.clone(), 400),
            ("an empty gzip body", &[PROTOBUF, GZIP], vec![], 400),
            ("an unknown encoding", &[PROTOBUF, ("content-encoding", "br")], good.clone(), 415),
            ("an unknown type", &[("content-type", "text/plain")], good.clone(), 415),
            ("no type", &[], good.clone(), 415),
            ("an empty JSON body", &[JSON], vec![], 400),
            ("JSON cut off", &[JSON], b"{\"resourceSpans\":[".to_vec(), 400),
            ("JSON that is an array", &[JSON], b"[]".to_vec(), 400),
            ("protobuf as JSON", &[JSON], good.clone(), 400),
            ("an empty JSON object", &[JSON], b"{}".to_vec(), 200),
            ("unknown JSON fields", &[JSON], br#"{"resourceThings":[1,{"a":null}],"b":"c"}"#.to_vec(), 200),
            ("a truncated gzip of JSON", &[JSON, GZIP], gzip(b"{\"a\": 1}")[..15].to_vec(), 400),
        ] {
            let what = format!("{what} to {path}");
            let answer = hostile.http(&what, path, headers, whole(body), wanted).await;
            if wanted == 200 && headers.contains(&JSON) {
                assert_eq!(&answer.body[..], b"{}", "{what}");
            } else if wanted == 200 {
                assert_eq!(answer.body.len(), 0, "{what}: {:?}", answer.body);
            }
        }
        let key = ["resourceSpans", "resourceLogs", "resourceMetrics"][signal];
        for wrong in [r#"{"KEY":7}"#, r#"{"KEY":[7]}"#, r#"{"KEY":[{"resource":{"attributes":"x"}}]}"#] {
            let body = wrong.replace("KEY", key);
            let what = format!("{body} to {path}");
            let answer = hostile.http(&what, path, &[JSON], whole(body.into_bytes()), 400).await;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(said.contains(key), "{what}: which field is not said: {said}");
        }
        for (what, headers, message, wanted) in [
            ("an empty protobuf message", &[][..], framed(false, &[]), OK),
            ("no protobuf at all", &[], framed(false, b"\xff\xff\xff not protobuf"), INVALID_ARGUMENT),
            ("a request cut off", &[], framed(false, &cut), INVALID_ARGUMENT),
            ("unknown fields", &[], framed(false, &with_unknown_fields(signal, "strange")), OK),
            ("a truncated gzip", &[GRPC_GZIP], framed(true, &half), INVALID_ARGUMENT),
            ("a gzip without its end", &[GRPC_GZIP], framed(true, &trailer_cut), INVALID_ARGUMENT),
            ("a gzip with a wrong check sum", &[GRPC_GZIP], framed(true, &corrupt), INVALID_ARGUMENT),
            ("compressed, but how is not said", &[], framed(true, &zipped), INVALID_ARGUMENT),
            ("a frame cut off", &[], framed(false, &good).slice(..good.len()), INVALID_ARGUMENT),
            ("half a prefix", &[], Bytes::from_static(&[0, 0]), INVALID_ARGUMENT),
            ("no message", &[], Bytes::new(), INVALID_ARGUMENT),
            ("an unknown encoding", &[("grpc-encoding", "snappy")], framed(true, &zipped), UNIMPLEMENTED),
        ] {
            hostile.grpc(&format!("{what} to {method}"), method, headers, whole(message), wanted).await;
        }
        let unknown = format!("{service}/Import");
        hostile.grpc("an unknown method", &unknown, &[], whole(framed(false, &good)), UNIMPLEMENTED).await;
        strange[signal] += 2; // those with unknown fields
    }
    hostile.http("an unknown path", "/v1/profiles", &[PROTOBUF], whole(vec![]), 404).await;

    // Too large: announced, not announced, and only once it is inflated.
    let large = Bytes::from(vec![b' '; HUNDRED_MEGABYTES]);
    let chunks = || Sent::Chunks { bytes: large.clone(), each: 1 << 20 };
    hostile.http("100 MB announced", PATHS[0], &[PROTOBUF], whole(large.clone()), 413).await;
    hostile.http("100 MB of JSON announced", PATHS[1], &[JSON], whole(large.clone()), 413).await;
    hostile.http("100 MB in chunks", PATHS[0], &[PROTOBUF], chunks(), 413).await;
    hostile.http("100 MB of JSON in chunks", PATHS[2], &[JSON], chunks(), 413).await;
    hostile.http("a bomb of gzip", PATHS[0], &[PROTOBUF, GZIP], whole(bomb()), 413).await;
    hostile.http("a bomb of gzip as JSON", PATHS[1], &[JSON, GZIP], whole(bomb()), 413).await;
    let method = &format!("{}/Export", METHODS[0]);
    hostile.grpc("100 MB in one message", method, &[], whole(framed(false, &large)), INVALID_ARGUMENT).await;
    let bomb = framed(true, &bomb());
    hostile.grpc("a bomb of 100 MB", method, &[GRPC_GZIP], whole(bomb), INVALID_ARGUMENT).await;

    // What is no protocol at all ends the connection.
    for name in ["otlp_grpc", "otlp_http"] {
        let address = daemon.url(name).replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        stream
            .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, b'\r', b'\n', b'\r', b'\n'])
            .await
            .expect("sent");
        let _ = stream.write_all(&vec![0xff; 1 << 16]).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{name}: the connection stays open");
        hostile.healthy("what is no protocol").await;
    }

    stop.store(true, Ordering::SeqCst);
    let acknowledged = bystander.await.expect("the other client is served all the while");
    assert!(acknowledged.iter().all(|&items| items > 200), "it did send meanwhile: {acknowledged:?}");
    let row = |service: &str| {
        let rows = daemon.ask(&["services"]);
        let row = rows.as_array()?.iter().find(|row| row["service"] == service)?.clone();
        Some(FIELDS.map(|field| row[field].as_u64().unwrap_or_default()))
    };
    let what = format!("{acknowledged:?} of the other client, {strange:?} with unknown fields");
    eventually(&what, PATIENCE, async || {
        (row("bystander") == Some(acknowledged) && row("strange") == Some(strange)).then_some(())
    })
    .await;
    let status = daemon.ask(&["status"]);
    for (signal, field) in FIELDS.iter().enumerate() {
        assert_eq!(status["accepted"][field], acknowledged[signal] + strange[signal], "{status:#}");
    }
    let count = |reason: &str| status["rejected"][reason].as_u64().unwrap_or_default();
    let found = Rejected {
        malformed: count("malformed"),
        too_large: count("too_large"),
        unsupported: count("unsupported"),
    };
    assert_eq!(found, hostile.rejected, "{status:#}");
    let refused = status["refused"].as_object().expect("counts");
    assert!(refused.values().all(|count| count == 0), "{refused:?}");
    println!("refused {found:?}; meanwhile {acknowledged:?} of another client");
    assert_eq!(daemon.stop(), Some(0));
}
