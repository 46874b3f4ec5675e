//! The door from outside: real clients over loopback, and what each of them is told.

use barograph::access::Access;
use barograph::limits::{RefusedReason, RejectedReason};
use barograph::model::{Signal, SystemClock};
use barograph::observe::{Collect, Exposition};
use barograph::otlp::Checked;
use barograph::receive::{Admitted, CallerKey, Config, Counters, Intake, Server};
use barograph::settings::{ByteSize, Seconds};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

/// Counts what it is given as a shard would, and answers at once unless told otherwise.
#[derive(Default)]
struct Shop {
    items: [AtomicU64; 3],
    behaviour: Mutex<Behaviour>,
    held: Mutex<Vec<Admitted>>,
    came: Notify,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Behaviour {
    #[default]
    Answer,
    /// Keeps requests, and with them their permits.
    Hold,
    /// Hands them back.
    Closed,
    /// Says that the journal is full.
    Full,
}

impl Shop {
    fn items(&self, signal: Signal) -> u64 {
        self.items[signal as usize].load(Ordering::SeqCst)
    }

    fn count(&self, admitted: &Admitted) {
        for (index, slice) in admitted.slices.iter().enumerate() {
            let bytes = &admitted.body[slice.range.start as usize..slice.range.end as usize];
            match Checked::new(admitted.signal, bytes) {
                Ok(checked) => {
                    let items = match admitted.signal {
                        Signal::Traces => {
                            checked.spans().scopes().flat_map(|scope| scope.items()).count() as u64
                        }
                        Signal::Logs => {
                            checked.logs().scopes().flat_map(|scope| scope.items()).count() as u64
                        }
                        Signal::Metrics => checked
                            .metrics()
                            .scopes()
                            .flat_map(|scope| scope.items())
                            .map(|metric| metric.points())
                            .sum(),
                    };
                    self.items[admitted.signal as usize].fetch_add(items, Ordering::SeqCst);
                }
                Err(malformed) => {
                    let items = barograph::otlp::count_items(admitted.signal, bytes);
                    admitted.reply.reject(items, RejectedReason::Malformed, || {
                        malformed.in_resource(admitted.signal, index).to_string()
                    });
                }
            }
            admitted.reply.done(1);
        }
        admitted.reply.done(1);
    }
}

impl Intake for Shop {
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
        match *self.behaviour.lock() {
            Behaviour::Answer => self.count(&admitted),
            Behaviour::Hold => {
                self.held.lock().push(admitted);
                self.came.notify_one();
            }
            Behaviour::Closed => return Err(admitted),
            Behaviour::Full => {
                admitted.reply.refuse(RefusedReason::Journal, || "the journal is full".into());
                admitted.reply.done(u32::try_from(admitted.slices.len()).unwrap() + 1);
            }
        }
        Ok(())
    }
}

struct Daemon {
    shop: Arc<Shop>,
    grpc: SocketAddr,
    http: SocketAddr,
    counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<()>,
}

/// Everyone may send.
fn everyone() -> Arc<Access> {
    Access::open(&Default::default(), &Default::default(), Arc::new(SystemClock)).unwrap()
}

async fn daemon(config: Config) -> Daemon {
    let shop = Arc::new(Shop::default());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(any, any, shop.clone(), everyone(), &config, CallerKey::random()).unwrap();
    let (grpc, http, counters) = (server.grpc_address(), server.http_address(), server.counters());
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Daemon { shop, grpc, http, counters, stop: Some(stop), running }
}

fn small() -> Config {
    Config { request_bytes: ByteSize(1 << 20), inflated_bytes: ByteSize(4 << 20), ..Config::default() }
}

impl Daemon {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    async fn traces(&self) -> TraceServiceClient<Channel> {
        TraceServiceClient::new(self.channel().await)
    }

    /// Another client, which nothing may have harmed.
    async fn is_healthy(&self) {
        let before = self.shop.items(Signal::Traces);
        self.traces().await.export(spans("well", 3)).await.unwrap();
        assert_eq!(self.shop.items(Signal::Traces), before + 3);
        let response = self.post("/v1/traces", &[PROTOBUF], spans("well", 2).encode_to_vec()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(self.shop.items(Signal::Traces), before + 5);
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
        self.send(Method::POST, path, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// A call of OTLP/gRPC with a body of our making: HTTP status, gRPC status, message, headers.
    async fn call(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, String, String, Response<()>) {
        let mut request = Request::builder().method(Method::POST).uri(format!("http://{}{path}", self.grpc));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let field = |name: &str| {
            let value = head.headers.get(name).or_else(|| trailers.get(name));
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        (head.status.as_u16(), field("grpc-status"), field("grpc-message"), Response::from_parts(head, ()))
    }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const GRPC: (&str, &str) = ("content-type", "application/grpc");
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn resource(service: &str) -> Option<Resource> {
    let value = Some(AnyValue { value: Some(Value::StringValue(service.into())) });
    let name = KeyValue { key: "service.name".into(), value, ..KeyValue::default() };
    Some(Resource { attributes: vec![name], ..Resource::default() })
}

fn spans(service: &str, count: usize) -> ExportTraceServiceRequest {
    let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "GET /".into(), ..Span::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(service),
            scope_spans: vec![ScopeSpans { spans: vec![span; count], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A resource of two spans, the second of which has a name that is not UTF-8.
fn bad_resource() -> Vec<u8> {
    let delimited = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let scope = [delimited(2, &delimited(5, b"good")), delimited(2, &delimited(5, b"\xff"))].concat();
    delimited(1, &delimited(2, &scope))
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[tokio::test]
async fn three_signals_are_taken_over_grpc_with_every_compression() {
    let daemon = daemon(Config::default()).await;
    let channel = daemon.channel().await;
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource("a"),
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord::default(); 5],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let gauge = Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default(); 7] });
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource("a"),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric { data: Some(gauge), ..Metric::default() }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        macro_rules! with {
            ($client:expr) => {
                match encoding {
                    Some(encoding) => $client.send_compressed(encoding),
                    None => $client,
                }
            };
        }
        let answer =
            with!(TraceServiceClient::new(channel.clone())).export(spans("a", 20_000)).await.unwrap();
        assert_eq!(answer.into_inner(), ExportTraceServiceResponse::default());
        let answer = with!(LogsServiceClient::new(channel.clone())).export(logs.clone()).await.unwrap();
        assert_eq!(answer.into_inner(), ExportLogsServiceResponse::default());
        with!(MetricsServiceClient::new(channel.clone())).export(metrics.clone()).await.unwrap();
    }
    assert_eq!(Signal::ALL.map(|signal| daemon.shop.items(signal)), [60_000, 15, 21]);
    assert_eq!(Signal::ALL.map(|signal| daemon.counters.requests(signal)), [3; 3]);
    let mut out = Exposition::default();
    daemon.counters.collect(&mut out);
    let text = out.finish();
    assert!(text.contains("barograph_receive_requests_total{signal=\"logs\"} 3\n"), "{text}");
    assert!(text.contains("barograph_receive_memory_bytes 0\n"), "all permits came back: {text}");
}

#[tokio::test]
async fn three_signals_are_taken_over_http_in_protobuf_and_json() {
    let daemon = daemon(Config::default()).await;
    let body = spans("a", 4).encode_to_vec();
    for (encoding, body) in
        [("identity", body.clone()), ("gzip", gzip(&body)), ("zstd", zstd::encode_all(&*body, 1).unwrap())]
    {
        let response = daemon.post("/v1/traces", &[PROTOBUF, ("content-encoding", encoding)], body).await;
        assert_eq!(
            (response.status(), response.headers()["content-type"].to_str().unwrap()),
            (StatusCode::OK, PROTOBUF.1)
        );
        assert!(response.body().is_empty(), "an empty response");
    }
    assert_eq!(daemon.shop.items(Signal::Traces), 12);
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}},{}]}]}]}"#;
    for body in [json.as_bytes().to_vec(), gzip(json.as_bytes())] {
        let encoding = if body[0] == b'{' { "identity" } else { "gzip" };
        let response = daemon.post("/v1/logs", &[JSON, ("content-encoding", encoding)], body).await;
        assert_eq!((response.status(), &**response.body()), (StatusCode::OK, &b"{}"[..]));
        assert_eq!(response.headers()["content-type"], "application/json");
    }
    assert_eq!(daemon.shop.items(Signal::Logs), 4);
    let json =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
    assert_eq!(daemon.post("/v1/metrics", &[JSON], json).await.status(), StatusCode::OK);
    assert_eq!(daemon.shop.items(Signal::Metrics), 1);
    // Empty requests are requests.
    assert_eq!(daemon.post("/v1/traces", &[PROTOBUF], "").await.status(), StatusCode::OK);
    assert_eq!(daemon.post("/v1/traces", &[JSON], "{}").await.status(), StatusCode::OK);
    let unknown = [spans("a", 1).encode_to_vec(), vec![0xf8, 0x01, 5]].concat();
    assert_eq!(daemon.post("/v1/traces", &[PROTOBUF], unknown).await.status(), StatusCode::OK);
    assert_eq!(daemon.post("/v1/traces", &[JSON], r#"{"x":[1]}"#).await.status(), StatusCode::OK);
    daemon.is_healthy().await;
}

#[tokio::test]
async fn http_says_precisely_what_is_wrong() {
    let daemon = daemon(small()).await;
    let protobuf = |body: &[u8]| RpcStatus::decode(body).unwrap();
    let cut = spans("a", 4).encode_to_vec();
    let response = daemon.post("/v1/traces", &[PROTOBUF], cut[..cut.len() - 1].to_vec()).await;
    assert_eq!(
        (response.status(), response.headers()["content-type"].to_str().unwrap()),
        (StatusCode::BAD_REQUEST, PROTOBUF.1)
    );
    let status = protobuf(response.body());
    assert_eq!(status.code, 3);
    assert!(status.message.starts_with("resource_spans[0]: announces "), "{}", status.message);

    for (body, message) in [
        ("", "empty, where a JSON object belongs (at byte 0)"),
        ("not json", "expected an object, found null (at byte 0)"),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":5}]}]}]}"#,
            "resourceSpans[0].scopeSpans[0].spans[0].traceId: expected text in hexadecimal, found a number (at byte 54)",
        ),
    ] {
        let response = daemon.post("/v1/traces", &[JSON], body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()["content-type"], "application/json");
        let status: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(status, serde_json::json!({"code": 3, "message": message}));
    }

    let gz = ("content-encoding", "gzip");
    let whole = gzip(&cut);
    let response = daemon.post("/v1/traces", &[PROTOBUF, gz], whole[..whole.len() - 3].to_vec()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(protobuf(response.body()).message, "gzip data end too early");
    let response = daemon.post("/v1/traces", &[PROTOBUF, gz], gzip(&vec![0; 50 << 20])).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(protobuf(response.body()).message.contains("inflates to more than 4194304 bytes"));

    let response = daemon.post("/v1/traces", &[PROTOBUF, ("content-encoding", "deflate")], cut.clone()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(response.headers()["accept-encoding"], "gzip, zstd");
    let response = daemon.post("/v1/traces", &[("content-type", "text/plain")], cut.clone()).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(daemon.post("/v1/nothing", &[PROTOBUF], cut.clone()).await.status(), StatusCode::NOT_FOUND);
    let response = daemon.send(Method::GET, "/v1/traces", &[], "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "POST");

    daemon.is_healthy().await;
    let rejected: Vec<u64> = daemon.counters.rejected().map(|(_, n)| n).collect();
    assert_eq!(rejected, [5, 1, 0, 4, 0], "malformed, too large, too old, unsupported, denied");
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off_and_its_memory_given_back() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let config = Config { body_time: Seconds(Duration::from_secs(1)), ..small() };
    let daemon = daemon(config).await;
    let mut stream = tokio::net::TcpStream::connect(daemon.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // A byte every 100 ms never pauses for long.
    let trickle = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = vec![0u8; 1024];
    let count =
        tokio::time::timeout(Duration::from_secs(20), reader.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    // OTLP/HTTP clients send again on 503, and on 408 they would not.
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("limits.body_time"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
    let slow = daemon.counters.refused().find(|(reason, _)| reason.as_str() == "slow");
    assert_eq!(slow.map(|(_, requests)| requests), Some(1));
    trickle.abort();
    daemon.is_healthy().await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_whether_announced_or_not() {
    let daemon = daemon(Config::default()).await;
    let size = 100 << 20;
    // Announced: the answer can be read though the whole is still being written.
    let response = daemon.post("/v1/traces", &[PROTOBUF], vec![0u8; size]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(RpcStatus::decode(&**response.body()).unwrap().message.contains("16777216"));
    // Not announced: chunks until it is too much.
    let mut stream = TcpStream::connect(daemon.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..100 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // gRPC: the prefix alone says it.
    let (_, status, message, _) = daemon.call(TRACES, &[GRPC], framed(0, &vec![0; 17 << 20])).await;
    assert_eq!(status, "3", "not OUT_OF_RANGE, which clients repeat for ever");
    assert!(message.contains("larger than 16777216 bytes"), "{message}");
    let large = spans("a", 800_000);
    assert!(large.encoded_len() > 16 << 20);
    let error = daemon.traces().await.max_encoding_message_size(64 << 20).export(large).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    daemon.is_healthy().await;
    let mut out = Exposition::default();
    daemon.counters.collect(&mut out);
    assert!(out.finish().contains("barograph_receive_memory_bytes 0\n"));
}

#[tokio::test]
async fn small_bodies_that_would_take_much_memory_are_refused_before_they_do() {
    let config = Config { memory_bytes: ByteSize(64 << 20), inflated_bytes: ByteSize(8 << 20), ..small() };
    let daemon = daemon(config).await;
    // Empty resources: what is known of each takes more than it does.
    let packed = gzip(&[0x0a, 0].repeat(2 << 20));
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    let response = daemon.post("/v1/traces", &headers, packed).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let said = RpcStatus::decode(&**response.body()).unwrap().message;
    assert!(said.contains("more than 65536 resources"), "{said}");
    // A list whose numbers take four times as much on the wire.
    let bounds = vec!["1"; 3 << 20].join(",");
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}]}}]}}]}}"#
    );
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let response = daemon.post("/v1/metrics", &headers, gzip(json.as_bytes())).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // A head that does not end, and is not kept.
    let mut stream = TcpStream::connect(daemon.http).await.unwrap();
    stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let long = format!("x: {}\r\n", "y".repeat(8_000));
    let (mut reader, mut writer) = stream.into_split();
    let sent = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 16 << 20 && writer.write_all(long.as_bytes()).await.is_ok() {
            sent += long.len();
        }
        sent
    });
    let mut answer = [0u8; 12];
    tokio::time::timeout(Duration::from_secs(20), reader.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    drop(reader);
    assert!(sent.await.unwrap() < 16 << 20, "it is read to the limit and no further");
    daemon.is_healthy().await;
    let mut out = Exposition::default();
    daemon.counters.collect(&mut out);
    assert!(out.finish().contains("barograph_receive_memory_bytes 0\n"));
}

#[tokio::test]
async fn grpc_says_precisely_what_is_wrong() {
    let daemon = daemon(small()).await;
    let good = spans("a", 2).encode_to_vec();
    let gz = ("grpc-encoding", "gzip");
    let gzipped = gzip(&good);
    let cases: Vec<(&str, Vec<(&str, &str)>, Vec<u8>, &str, &str)> = vec![
        (TRACES, vec![GRPC], framed(0, &good[..good.len() - 1]), "3", "resource_spans[0]: announces"),
        (
            TRACES,
            vec![GRPC],
            framed(0, &[0x08, 0x01]),
            "3",
            "resource_spans[0]: wire type varint where length-delimited belongs",
        ),
        (TRACES, vec![GRPC], vec![], "3", "the call has no message"),
        (
            TRACES,
            vec![GRPC],
            vec![0, 0],
            "3",
            "the call ends within the prefix of its message, after 2 bytes",
        ),
        (TRACES, vec![GRPC], framed(0, &good)[..20].to_vec(), "3", "the message announces"),
        (TRACES, vec![GRPC], framed(2, &good), "3", "compressed flag is neither 0 nor 1"),
        (TRACES, vec![GRPC], framed(1, &gzipped), "3", "no grpc-encoding was given"),
        (TRACES, vec![GRPC], [framed(0, &good), framed(0, &good)].concat(), "3", "more than one message"),
        (TRACES, vec![GRPC, gz], framed(1, &gzipped[..gzipped.len() - 2]), "3", "gzip data end too early"),
        (
            TRACES,
            vec![GRPC, gz],
            framed(1, &gzip(&vec![0; 50 << 20])),
            "3",
            "inflates to more than 4194304 bytes",
        ),
        (TRACES, vec![GRPC, gz], framed(0, &good), "0", ""),
        (TRACES, vec![("content-type", "application/grpc+proto")], framed(0, &good), "0", ""),
        (TRACES, vec![GRPC], framed(0, &[]), "0", ""),
        (TRACES, vec![("content-type", "application/grpc+json")], framed(0, b"{}"), "12", "content-type"),
        (
            TRACES,
            vec![GRPC, ("grpc-encoding", "snappy")],
            framed(1, &good),
            "12",
            "expected identity, gzip or zstd",
        ),
        ("/x.Y/Z", vec![GRPC], framed(0, &good), "12", "no such method: /x.Y/Z"),
    ];
    for (path, headers, body, code, text) in cases {
        let (http, status, message, response) = daemon.call(path, &headers, body).await;
        assert_eq!((http, status.as_str()), (200, code), "{text}: {message}");
        assert!(message.contains(text), "{text}: {message}");
        let encodings = response.headers().get("grpc-accept-encoding").is_some();
        assert_eq!(encodings, text.starts_with("expected identity"));
    }
    assert_eq!(daemon.call(TRACES, &[PROTOBUF], good).await.0, 415);
    assert_eq!(daemon.shop.items(Signal::Traces), 4);
    daemon.is_healthy().await;
}

#[tokio::test]
async fn one_bad_resource_is_rejected_and_the_rest_counted() {
    let daemon = daemon(Config::default()).await;
    let body = [bad_resource(), spans("a", 3).encode_to_vec()].concat();
    let words =
        "malformed: resource_spans[0].scope_spans[0].spans[1].name: text that is not UTF-8 (at byte 12)";
    let response = daemon.post("/v1/traces", &[PROTOBUF], body.clone()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let partial = ExportTraceServiceResponse::decode(&**response.body()).unwrap().partial_success.unwrap();
    assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (2, words));
    let (_, status, _, _) = daemon.call(TRACES, &[GRPC], framed(0, &body)).await;
    assert_eq!(status, "0");
    assert_eq!(daemon.shop.items(Signal::Traces), 6);
}

#[tokio::test]
async fn under_pressure_clients_are_told_to_come_back() {
    let config = Config { memory_bytes: ByteSize(16 << 20), caller_share: 1.0, ..Config::default() };
    let daemon = daemon(config).await;
    *daemon.shop.behaviour.lock() = Behaviour::Hold;
    // Three quarters of the memory are for requests: 12 MiB.
    let large = spans("a", 100_000);
    let size = large.encoded_len();
    let held = (12 << 20) / size;
    let mut waiting = Vec::new();
    for _ in 0..held {
        let mut client = daemon.traces().await.max_encoding_message_size(64 << 20);
        let large = large.clone();
        waiting.push(tokio::spawn(async move { client.export(large).await }));
        daemon.shop.came.notified().await;
    }
    let mut client = daemon.traces().await.max_encoding_message_size(64 << 20);
    let error = client.export(large.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let status = RpcStatus::decode(error.details()).unwrap();
    assert_eq!((status.code, status.message.as_str()), (14, error.message()));
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let retry = RetryInfo::decode(&*status.details[0].value).unwrap().retry_delay.unwrap();
    assert!(Duration::try_from(retry).unwrap() >= Duration::from_millis(100));
    let response = daemon.post("/v1/traces", &[PROTOBUF], large.encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(daemon.counters.refused().next(), Some((RefusedReason::Memory, 2)));
    // Once the others are dealt with, there is room again.
    *daemon.shop.behaviour.lock() = Behaviour::Answer;
    let taken = std::mem::take(&mut *daemon.shop.held.lock());
    assert_eq!(taken.len(), held);
    for admitted in taken {
        daemon.shop.count(&admitted);
    }
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    client.export(large).await.unwrap();

    *daemon.shop.behaviour.lock() = Behaviour::Closed;
    let error = client.export(spans("a", 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    *daemon.shop.behaviour.lock() = Behaviour::Full;
    let error = client.export(spans("a", 1)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "the journal is full"));
    assert!(!error.details().is_empty());
}

/// Memory that this process has for itself.
fn own_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<u64> = statm.split_whitespace().map(|pages| pages.parse().unwrap()).collect();
    (pages[1] - pages[2]) * rustix::param::page_size() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_near_its_limit_lets_nothing_in_until_there_is_room_again() {
    // Far more than all other tests take beside this one.
    const MORE: u64 = 256 << 20;
    let config = Config { process_bytes: ByteSize(own_bytes() + MORE), ..Config::default() };
    let daemon = daemon(config).await;
    let mut client = daemon.traces().await;
    client.export(spans("a", 1)).await.unwrap();
    let ballast = vec![1u8; 2 * MORE as usize];
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    let error = loop {
        match client.export(spans("a", 1)).await {
            Ok(_) => assert!(tokio::time::Instant::now() < until, "still taken"),
            Err(error) => break error,
        }
    };
    assert!(error.code() == Code::Unavailable && error.message().contains("limits.process_bytes"), "{error}");
    let status = RpcStatus::decode(error.details()).unwrap();
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let response = daemon.post("/v1/traces", &[PROTOBUF], spans("a", 1).encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert!(daemon.counters.refused().any(|of| of == (RefusedReason::Memory, 2)));
    assert_eq!(ballast.iter().step_by(4_096).map(|byte| u64::from(*byte)).sum::<u64>(), 2 * MORE / 4_096);
    drop(ballast);
    while let Err(error) = client.export(spans("a", 1)).await {
        assert!(tokio::time::Instant::now() < until, "{error}");
    }
}

#[tokio::test]
async fn one_caller_cannot_have_all_the_memory_nor_more_than_its_rate() {
    let config = Config { memory_bytes: ByteSize(16 << 20), caller_share: 0.1, ..Config::default() };
    let daemon = daemon(config).await;
    let mut client = daemon.traces().await.max_encoding_message_size(64 << 20);
    let error = client.export(spans("a", 100_000)).await.unwrap_err();
    assert!(error.code() == Code::Unavailable && error.message().contains("limits.caller_share"), "{error}");
    assert!(!error.details().is_empty(), "with a delay");
    client.export(spans("a", 10)).await.unwrap();
    assert_eq!(
        daemon.counters.refused().find(|(reason, _)| *reason == RefusedReason::Caller),
        Some((RefusedReason::Caller, 1))
    );

    let config = Config { caller_bytes_per_second: Some(ByteSize(1 << 10)), ..Config::default() };
    let daemon = self::daemon(config).await;
    let mut client = daemon.traces().await;
    let request = spans("a", 1_000);
    let seconds = request.encoded_len() as u64 >> 10;
    client.export(request.clone()).await.unwrap();
    let error = client.export(request.clone()).await.unwrap_err();
    assert!(error.message().contains("limits.caller_bytes_per_second"), "{error}");
    let status = RpcStatus::decode(error.details()).unwrap();
    let retry = RetryInfo::decode(&*status.details[0].value).unwrap().retry_delay.unwrap();
    // Never earlier than it may, and up to a quarter later, so that not all come at once.
    let until = seconds as i64 * 5 / 4 + 1;
    assert!((seconds as i64 - 5..=until).contains(&retry.seconds), "{retry:?} of {seconds} s");
    let response = daemon.post("/v1/traces", &[PROTOBUF], request.encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "the same caller over HTTP");
}

#[tokio::test]
async fn what_a_client_that_left_had_sent_is_counted() {
    let daemon = daemon(Config::default()).await;
    *daemon.shop.behaviour.lock() = Behaviour::Hold;
    let mut client = daemon.traces().await;
    let call = tokio::spawn(async move { client.export(spans("a", 5)).await });
    daemon.shop.came.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let admitted = daemon.shop.held.lock().pop().unwrap();
    daemon.shop.count(&admitted);
    assert_eq!(daemon.shop.items(Signal::Traces), 5);
    drop(admitted);
    *daemon.shop.behaviour.lock() = Behaviour::Answer;
    daemon.is_healthy().await;
}

#[tokio::test]
async fn over_the_limit_a_connection_that_idles_makes_way_and_one_that_works_does_not() {
    let daemon = daemon(Config { connections: 1, ..Config::default() }).await;
    *daemon.shop.behaviour.lock() = Behaviour::Hold;
    let mut first = daemon.traces().await;
    let mut again = first.clone();
    let call = tokio::spawn(async move { first.export(spans("a", 5)).await });
    daemon.shop.came.notified().await;
    let mut second = TcpStream::connect(daemon.http).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed: the only seat is of one that works");
    let refused = || daemon.counters.refused().find(|(reason, _)| *reason == RefusedReason::Connections);
    assert_eq!(refused(), Some((RefusedReason::Connections, 1)));
    let admitted = daemon.shop.held.lock().pop().unwrap();
    daemon.shop.count(&admitted);
    drop(admitted);
    call.await.unwrap().unwrap();
    *daemon.shop.behaviour.lock() = Behaviour::Answer;
    // Now it idles. The next one gets its seat, and the first one another when it asks again.
    let begun = std::time::Instant::now();
    daemon.traces().await.export(spans("b", 1)).await.unwrap();
    again.export(spans("a", 1)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(daemon.shop.items(Signal::Traces), 7);
    assert_eq!(refused(), Some((RefusedReason::Connections, 1)));
}

#[tokio::test]
async fn stopping_lets_open_requests_end_and_no_new_ones_begin() {
    let mut daemon = daemon(Config::default()).await;
    *daemon.shop.behaviour.lock() = Behaviour::Hold;
    let mut client = daemon.traces().await;
    let call = tokio::spawn(async move { client.export(spans("a", 5)).await });
    daemon.shop.came.notified().await;
    daemon.stop.take().unwrap().send(()).unwrap();
    // The port closes, while the open call may still end.
    while TcpStream::connect(daemon.grpc).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let admitted = daemon.shop.held.lock().pop().unwrap();
    daemon.shop.count(&admitted);
    call.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), daemon.running).await.unwrap().unwrap();
}
