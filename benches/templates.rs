//! How many log lines a second one core sorts into templates: lines in the shapes that services, web
//! servers and operating systems write, 70 bytes each on average.

use barograph::diagnose::Templates;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const LINES: u64 = 20_000;

fn lines() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..LINES)
        .map(|n| {
            let (a, b) = (random.u32(..), random.u16(..));
            match n % 10 {
                0 => format!(
                    "10.0.{}.{} \"GET /v2/orders/{a:08x} HTTP/1.1\" status: 200 len: {b}",
                    b % 256,
                    a % 256
                ),
                1 => format!(
                    "Receiving block blk_{a} src: /10.250.19.{}:{b} dest: /10.250.19.102:50010",
                    a % 256
                ),
                2 => format!(
                    "connection from 10.1.2.{} (host-{b}.example.net) at Fri Jun 17 07:07:{:02} 2005",
                    a % 256,
                    a % 60
                ),
                3 => format!(
                    "[req-{a:08x}-{b:04x}] instance {a:x} spawned successfully in {}.{} s",
                    b % 60,
                    b % 10
                ),
                4 => format!(
                    "c.s.OrderService#{} TraceID: {a:08x}{a:08x} SpanID: {b:08x} [find][found {b} seats]",
                    30 + a % 4
                ),
                5 => "cache refreshed, all entries are valid".to_owned(),
                6 => format!(
                    "user {} logged in from 192.168.1.{}",
                    ["ann", "bob", "cem", "eva"][n as usize / 10 % 4],
                    a % 256
                ),
                7 => format!("slow query took {b} ms: SELECT id FROM orders WHERE customer = {a}"),
                8 => format!("level=warn msg=\"queue is {} % full\" queue=billing depth={b}", a % 100),
                _ => format!("generating core.{b} after {a} cycles, {} parity errors corrected", a % 7),
            }
        })
        .collect()
}

fn templates(criterion: &mut Criterion) {
    let lines = lines();
    let mut group = criterion.benchmark_group("templates");
    group.throughput(Throughput::Elements(LINES));
    group.bench_function("learn", |bencher| {
        let mut templates = Templates::default();
        bencher.iter(|| {
            for line in &lines {
                black_box(templates.learn(line));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, templates);
criterion_main!(benches);
