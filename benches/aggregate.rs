//! What a shard spends on a span, and the sketch on a value.

use barograph::aggregate::{Config, Shard};
use barograph::journal::{Cut, Position};
use barograph::limits::Permit;
use barograph::model::{Signal, Timestamp};
use barograph::otlp::{Encoding, split};
use barograph::receive::{Admitted, Reply};
use barograph::sketch::Histogram;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::hint::black_box;

const SPANS: u64 = 256;
const NOW_S: u64 = 1_700_000_000;

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..KeyValue::default()
    }
}

/// A request of one resource as an SDK sends it: about 480 bytes a span.
fn request(random: &mut fastrand::Rng) -> Admitted {
    let spans = (0..SPANS)
        .map(|number| {
            let end = NOW_S * 1_000_000_000 + random.u64(..1_000_000_000);
            let is_client = number % 3 == 0;
            Span {
                trace_id: (0..16).map(|_| random.u8(..)).collect(),
                span_id: (0..8).map(|_| random.u8(..)).collect(),
                parent_span_id: if number % 8 == 0 { vec![] } else { vec![1; 8] },
                name: format!("GET /api/v1/resource/{}", random.u32(..30)),
                kind: if is_client { 3 } else { 2 },
                start_time_unix_nano: end - random.u64(100_000..800_000_000),
                end_time_unix_nano: end,
                status: (number % 50 == 0).then(|| Status { code: 2, ..Status::default() }),
                attributes: vec![
                    pair("http.request.method", "GET"),
                    pair("http.route", "/api/v1/resource/{id}"),
                    pair("server.address", "inventory.shop.svc.cluster.local"),
                    pair("network.protocol.version", "1.1"),
                    pair("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
                    pair("url.full", "https://inventory.shop.svc.cluster.local/api/v1/resource/123456"),
                ],
                ..Span::default()
            }
        })
        .collect();
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource {
            attributes: vec![pair("service.name", "front"), pair("service.version", "1.2.3")],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }];
    let body = bytes::Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
    let slices = split(Signal::Traces, &body).expect("a request that prost wrote");
    Admitted {
        signal: Signal::Traces,
        encoding: Encoding::Identity,
        wire: body.clone(),
        body,
        slices,
        permit: Permit::free(),
        reply: Reply::nobody(),
    }
}

fn shard(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    let requests: Vec<Admitted> = (0..16).map(|_| request(&mut random)).collect();
    let arrived = Timestamp::from_secs(NOW_S + 1);
    let cut = Cut { number: NOW_S + 1, arrived, ..Cut::default() };
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(SPANS));
    group.bench_function("apply a request of 256 spans", |bencher| {
        let mut shard = Shard::new(0, 1, &Config::default());
        let mut number = 0usize;
        bencher.iter(|| {
            number += 1;
            shard.apply(Position(number as u64), arrived, &requests[number % requests.len()]);
            // As at 400,000 spans a second.
            if number.is_multiple_of(1_600) {
                black_box(shard.cut(cut));
            }
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("barrier");
    group.bench_function("cut after 16 requests", |bencher| {
        let mut shard = Shard::new(0, 1, &Config::default());
        bencher.iter_batched_ref(
            || (),
            |()| {
                requests.iter().for_each(|request| shard.apply(Position(1), arrived, request));
                black_box(shard.cut(cut))
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("cut of an idle shard", |bencher| {
        let mut shard = Shard::new(0, 1, &Config::default());
        bencher.iter(|| black_box(shard.cut(cut)));
    });
    group.finish();
}

fn sketch(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(2);
    let values: Vec<f64> = (0..1_024).map(|_| random.f64() * 1e9 + 1e5).collect();
    let mut group = criterion.benchmark_group("sketch");
    group.throughput(Throughput::Elements(values.len() as u64));
    group.bench_function("record", |bencher| {
        let mut histogram = Histogram::new();
        bencher.iter(|| values.iter().for_each(|&value| histogram.record(value)));
    });
    group.bench_function("bucket of a value", |bencher| {
        bencher
            .iter(|| values.iter().map(|&value| Histogram::bucket_of(value)).fold(0i32, i32::wrapping_add));
    });
    group.finish();
}

criterion_group!(benches, shard, sketch);
criterion_main!(benches);
