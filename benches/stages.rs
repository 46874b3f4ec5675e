//! What each stage spends by itself: the journal and a shard on a request, the window stage on a barrier, the
//! sketch on a value.

use barograph::aggregate::{Config, Partial, Shard};
use barograph::journal::{self, Cut, Journal, Position};
use barograph::limits::Permit;
use barograph::model::{Signal, SystemClock, Timestamp};
use barograph::otlp::{Encoding, split};
use barograph::receive::{Admitted, CallerTag, Reply};
use barograph::settings::ByteSize;
use barograph::sketch::Histogram;
use barograph::window::{self, Registry, Windows};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::hint::black_box;
use std::sync::Arc;

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
    request_of(random, "front", 30)
}

fn request_of(random: &mut fastrand::Rng, service: &str, operations: u32) -> Admitted {
    let spans = (0..SPANS)
        .map(|number| {
            let end = NOW_S * 1_000_000_000 + random.u64(..1_000_000_000);
            let is_client = number % 3 == 0;
            Span {
                trace_id: (0..16).map(|_| random.u8(..)).collect(),
                span_id: (0..8).map(|_| random.u8(..)).collect(),
                parent_span_id: if number % 8 == 0 { vec![] } else { vec![1; 8] },
                name: format!("GET /api/v1/resource/{}", random.u32(..operations)),
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
            attributes: vec![pair("service.name", service), pair("service.version", "1.2.3")],
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
        caller: CallerTag::NOBODY,
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

/// Appending to a journal whose segments were all written once, in `interval` mode.
fn journal(criterion: &mut Criterion) {
    const MAX_BYTES: u64 = 256 << 20;
    let mut random = fastrand::Rng::with_seed(3);
    let request = request(&mut random);
    // Memory where there is some to be had: the disk is not what is measured.
    let shared_memory = std::path::Path::new("/dev/shm");
    let folder = if shared_memory.is_dir() { shared_memory } else { &std::env::temp_dir() };
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let config = journal::Config { max_bytes: Some(ByteSize(MAX_BYTES)), ..journal::Config::default() };
    let (sequencer, ..) =
        Journal::open(folder.path(), &config, Arc::new(SystemClock), None).expect("a journal");
    let mut sequencer = sequencer.without_checkpoints();
    let again = || Admitted {
        slices: request.slices.clone(),
        wire: request.wire.clone(),
        body: request.body.clone(),
        permit: Permit::free(),
        reply: Reply::nobody(),
        ..request
    };
    let at = Timestamp::from_secs(NOW_S);
    for _ in 0..2 * MAX_BYTES / request.wire.len() as u64 {
        sequencer.append_at(again(), at).expect("room").for_each(drop);
    }
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Bytes(request.wire.len() as u64));
    group.bench_function("append a request of 256 spans", |bencher| {
        bencher.iter(|| sequencer.append_at(again(), at).expect("room").for_each(drop));
    });
    group.finish();
}

/// A barrier's partial, of 20 services with so many series together, merged into the tick and the open window.
fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    for series in [200u32, 20_000] {
        let mut random = fastrand::Rng::with_seed(4);
        let requests: Vec<Admitted> = (0..series / 16)
            .map(|number| request_of(&mut random, &format!("service-{}", number % 20), series / 20))
            .collect();
        let arrived = Timestamp::from_secs(NOW_S + 1);
        let mut shard = Shard::new(0, 1, &Config::default());
        let mut number = NOW_S;
        let mut partial = || -> (Cut, Vec<Partial>) {
            number += 1;
            let cut = Cut { number, arrived, ..Cut::default() };
            requests.iter().for_each(|request| shard.apply(Position(number), arrived, request));
            let mut partial = shard.cut(cut);
            partial.settle();
            (cut, vec![partial])
        };
        let mut windows = Windows::new(window::Config::default(), Arc::new(Registry::default()));
        let (_, partials) = partial();
        let cells = partials.iter().map(|partial| partial.cells.len() as u64).sum();
        group.throughput(Throughput::Elements(cells));
        group.bench_function(format!("merge a barrier's {cells} cells"), |bencher| {
            bencher.iter_batched(
                &mut partial,
                |(cut, partials)| black_box(windows.merge(cut, partials)),
                BatchSize::LargeInput,
            );
        });
    }
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

criterion_group!(benches, journal, shard, merge, sketch);
criterion_main!(benches);
