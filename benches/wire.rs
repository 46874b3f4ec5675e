//! What a request of 256 spans costs before it is counted: inflating, splitting, checking, walking; and
//! the reading of JSON.

use barograph::model::Signal;
use barograph::otlp::{Checked, Encoding, inflate, json_to_wire, split};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::hint::black_box;
use std::io::Write;

const SPANS: u64 = 256;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// Spans as an HTTP server's instrumentation writes them: 490 bytes each.
fn request() -> ExportTraceServiceRequest {
    let spans = (0..SPANS).map(|n| Span {
        trace_id: u128::from(n * 0x9e37_79b9_7f4a_7c15).to_be_bytes().into(),
        span_id: (n + 1).to_be_bytes().into(),
        parent_span_id: (n + 7).to_be_bytes().into(),
        flags: 257,
        name: format!("GET /api/v1/products/{{id}}/{}", n % 20),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000 + n,
        end_time_unix_nano: 1_700_000_000_012_000_000 + n,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", "/api/v1/products/6E92ZMYYFZ"),
            text("http.route", "/api/v1/products/{id}"),
            text("url.scheme", "http"),
            text("server.address", "frontend-proxy"),
            number("server.port", 8080),
            text("client.address", "172.18.0.27"),
            text("user_agent.original", "python-requests/2.31.0"),
            text("network.protocol.version", "1.1"),
            number("http.response.status_code", 200),
        ],
        status: Some(Status::default()),
        ..Span::default()
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "frontend"),
                    text("service.version", "1.12.0"),
                    text("service.instance.id", "0d8f2c5e-6c0b-4d37-9d0f-7f8e3b3c9d11"),
                    text("deployment.environment.name", "production"),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "http".into(), ..InstrumentationScope::default() }),
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

/// The same request in JSON, of which only what matters for speed is written.
fn json() -> String {
    let spans: Vec<String> = request()
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .map(|span| {
            let attributes: Vec<String> = span
                .attributes
                .iter()
                .filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
                    Value::StringValue(text) => {
                        Some(format!(r#"{{"key":"{}","value":{{"stringValue":"{text}"}}}}"#, pair.key))
                    }
                    Value::IntValue(n) => Some(format!(r#"{{"key":"{}","value":{{"intValue":"{n}"}}}}"#, pair.key)),
                    _ => None,
                })
                .collect();
            format!(
                r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173","name":"{}","kind":2,"startTimeUnixNano":"{}","endTimeUnixNano":"{}","attributes":[{}],"status":{{}}}}"#,
                span.name,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                attributes.join(",")
            )
        })
        .collect();
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(","))
}

fn wire(criterion: &mut Criterion) {
    let body = request().encode_to_vec();
    let slices = split(Signal::Traces, &body).expect("a good request");
    let slice = &body[slices[0].range.start as usize..slices[0].range.end as usize];
    let checked = Checked::new(Signal::Traces, slice).expect("a good resource");
    let mut group = criterion.benchmark_group("256 spans");
    group.throughput(Throughput::Elements(SPANS));
    group.bench_function("split", |b| b.iter(|| split(Signal::Traces, black_box(&body))));
    group.bench_function("check", |b| b.iter(|| Checked::new(Signal::Traces, black_box(slice)).is_ok()));
    group.bench_function("walk", |b| {
        b.iter(|| {
            let mut sum = 0u64;
            for scope in black_box(&checked).spans().scopes() {
                for span in scope.items() {
                    sum = sum.wrapping_add(span.end.0).wrapping_add(span.name.len() as u64);
                }
            }
            sum
        });
    });
    group.bench_function("walk with attributes", |b| {
        b.iter(|| {
            let mut sum = 0u64;
            for scope in black_box(&checked).spans().scopes() {
                for span in scope.items() {
                    sum = sum.wrapping_add(span.attributes().map(|(key, _)| key.len() as u64).sum());
                }
            }
            sum
        });
    });
    group.bench_function("prost, for comparison", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(&*body)).is_ok());
    });
    let gzipped = Bytes::from(gzip(&body));
    let zstandard = Bytes::from(zstd::encode_all(&*body, 3).expect("a vector takes all"));
    for (name, encoding, wire) in
        [("inflate gzip", Encoding::Gzip, &gzipped), ("inflate zstd", Encoding::Zstd, &zstandard)]
    {
        group.bench_function(name, |b| b.iter(|| inflate(encoding, black_box(wire), 64 << 20).is_ok()));
    }
    let json = json();
    group.bench_function("json to wire", |b| {
        b.iter(|| json_to_wire(Signal::Traces, black_box(json.as_bytes())))
    });
    group.finish();
    println!("{} B a span in protobuf, {} B in JSON", body.len() as u64 / SPANS, json.len() as u64 / SPANS);
}

criterion_group!(benches, wire);
criterion_main!(benches);
