//! Quantiles that the query API answers, against the exact ones of what was sent.

use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use fastrand::Rng;
use serde_json::Value;
use std::time::Duration;

/// In thousandths, with the names that `services` and `operations` use.
const QUANTILES: [(usize, &str, &str); 4] =
    [(500, "0.5", "p50_ns"), (900, "0.9", "p90_ns"), (990, "0.99", "p99_ns"), (999, "0.999", "p999_ns")];
const TOLERANCE: f64 = 0.006;
/// Of an operation. No multiple of 1,000, so that no rank lies between two values.
const SPANS: usize = 6_007;
const BATCH: usize = 500;
const WINDOW_NS: u64 = 10_000_000_000;
/// How far back the spans of an operation end: some into windows that were sealed long ago, some into
/// those that are open.
const SPREAD_NS: u64 = 25 * 60_000_000_000;

type Draw = fn(&mut Rng) -> f64;

/// What one operation was sent: end and duration of its spans, in nanoseconds.
struct Sent {
    service: &'static str,
    operation: &'static str,
    spans: Vec<(u64, u64)>,
}

/// A standard normal value (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

fn lognormal(random: &mut Rng) -> f64 {
    (17.0 + 0.8 * normal(random)).exp()
}

/// Hits of a cache at 200 µs, and misses at 80 ms.
fn bimodal(random: &mut Rng) -> f64 {
    let middle = if random.f64() < 0.93 { 2e5 } else { 8e7 };
    middle * (1.0 + 0.1 * normal(random)).abs().max(0.01)
}

/// Pareto with an index of 1.1: its mean exists, its variance does not. At most 10 minutes.
fn heavy_tail(random: &mut Rng) -> f64 {
    (1e6 * (1.0 - random.f64()).powf(-1.0 / 1.1)).min(6e11)
}

/// One value far more often than any other, such as a timeout.
fn constant(random: &mut Rng) -> f64 {
    if random.f64() < 0.7 { 5e8 } else { 1e6 + 1e6 * random.f64() }
}

/// Nearest rank, in integers: ⌈q·n⌉.
fn exact(durations: &mut [u64], thousandths: usize) -> u64 {
    durations.sort_unstable();
    durations[(durations.len() * thousandths).div_ceil(1_000).max(1) - 1]
}

fn check(what: &str, quantile: &str, answer: &Value, mut durations: Vec<u64>, thousandths: usize) -> f64 {
    let want = exact(&mut durations, thousandths) as f64;
    let got = answer.as_f64().unwrap_or_else(|| panic!("{what}: no quantile {quantile}: {answer}"));
    let error = (got / want - 1.0).abs();
    assert!(error <= TOLERANCE, "{what}, quantile {quantile}: {got} ns, exact {want} ns, error {error:.5}");
    error
}

fn time(ns: u64) -> String {
    barograph::model::Timestamp(ns).to_string()
}

/// Asks all that can be asked about these; the largest error.
fn compare(daemon: &Daemon, sent: &[Sent], now: u64) -> f64 {
    let mut worst = 0.0f64;
    // From all of it down to what the last windows hold, and a range within that ends before now.
    let edge = |ago: u64| (now - ago) / WINDOW_NS * WINDOW_NS;
    let ranges = [
        (edge(SPREAD_NS + WINDOW_NS), u64::MAX),
        (edge(SPREAD_NS / 3), u64::MAX),
        (edge(60_000_000_000), u64::MAX),
        (edge(SPREAD_NS / 2), edge(SPREAD_NS / 5)),
    ];
    for (since, until) in ranges {
        let range = |mut arguments: Vec<String>| {
            arguments.extend(["--since".to_owned(), time(since)]);
            if until != u64::MAX {
                arguments.extend(["--until".to_owned(), time(until)]);
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            daemon.ask(&arguments)
        };
        let within = |of: &Sent| -> Vec<u64> {
            of.spans.iter().filter(|(end, _)| (since..until).contains(end)).map(|&(_, took)| took).collect()
        };
        let operations = range(vec!["operations".into()]);
        let services = range(vec!["services".into()]);
        for of in sent {
            let durations = within(of);
            assert!(durations.len() > 30, "too few to compare: {}", durations.len());
            let what = format!("{} {} since {}", of.service, of.operation, time(since));
            let mut arguments = vec!["latency".into(), "--service".into(), of.service.into()];
            arguments.extend(["--operation".into(), of.operation.into()]);
            for (_, quantile, _) in QUANTILES {
                arguments.extend(["--quantile".to_owned(), quantile.to_owned()]);
            }
            let latency = range(arguments);
            assert_eq!(latency[0]["count"], durations.len(), "{what}: {latency}");
            let row = |rows: &Value, wanted: &dyn Fn(&Value) -> bool| {
                rows.as_array().expect("rows").iter().find(|row| wanted(row)).cloned().expect("the row")
            };
            let operation =
                row(&operations, &|row| row["service"] == of.service && row["operation"] == of.operation);
            assert_eq!(operation["requests"], durations.len(), "{what}: {operation}");
            let together: Vec<u64> =
                sent.iter().filter(|other| other.service == of.service).flat_map(within).collect();
            let service = row(&services, &|row| row["service"] == of.service);
            assert_eq!(service["requests"], together.len(), "{what}: {service}");
            for (thousandths, quantile, field) in QUANTILES {
                for (answer, durations) in [
                    (&latency[0]["quantiles"][quantile], &durations),
                    (&operation[field], &durations),
                    (&service[field], &together),
                ] {
                    worst = worst.max(check(&what, quantile, answer, durations.clone(), thousandths));
                }
            }
        }
    }
    // Row by row: each step's own spans, and none is lost between the steps.
    for of in sent {
        let since = edge(SPREAD_NS + WINDOW_NS);
        let since = time(since - since % 60_000_000_000);
        let arguments = ["latency", "--service", of.service, "--operation", of.operation];
        let steps = ["--quantile", "0.99", "--step", "60s", "--since", &since];
        let rows = daemon.ask(&[arguments.as_slice(), steps.as_slice()].concat());
        let mut counted = 0;
        for row in rows.as_array().expect("rows") {
            let moment = |key: &str| {
                let text = row[key].as_str().expect("a time");
                barograph::model::Timestamp::parse_rfc3339(text).expect("a time").0
            };
            let range = moment("start")..moment("end");
            let durations: Vec<u64> =
                of.spans.iter().filter(|(end, _)| range.contains(end)).map(|&(_, took)| took).collect();
            assert_eq!(row["count"], durations.len(), "{} {}: {row}", of.service, of.operation);
            counted += durations.len();
            if !durations.is_empty() {
                let what = format!("{} {} {}", of.service, of.operation, row["start"]);
                worst = worst.max(check(&what, "0.99", &row["quantiles"]["0.99"], durations, 990));
            }
        }
        assert_eq!(counted, of.spans.len());
    }
    worst
}

#[tokio::test(flavor = "multi_thread")]
async fn quantiles_are_those_of_what_was_sent() {
    const OPERATIONS: [(&str, &str, Draw); 6] = [
        ("storefront", "GET /", lognormal),
        ("storefront", "GET /search", bimodal),
        ("billing", "POST /charges", heavy_tail),
        ("billing", "GET /charges/{id}", constant),
        // Answers are whole nanoseconds: that alone is 0.05 % of a microsecond, and more below.
        ("ledger", "append", |random| 1e3 + 300.0 * random.f64()),
        ("ledger", "compact", |random| 1e3 * (18.0 * random.f64()).exp()),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut random = Rng::with_seed(5);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let now = now_ns();
    let mut sent = Vec::new();
    for (service, operation, draw) in OPERATIONS {
        let mut drawn: Vec<(u64, u64)> = (0..SPANS)
            .map(|number| {
                // Half of them within the last minute: in the windows that are open.
                let spread = if number % 2 == 0 { 60_000_000_000 } else { SPREAD_NS };
                (now - random.u64(0..spread), draw(&mut random).round() as u64)
            })
            .collect();
        random.shuffle(&mut drawn);
        for batch in drawn.chunks(BATCH) {
            let batch = batch.iter().map(|&(end, took)| span(operation, end, took, false)).collect();
            client.export(&Export::Traces(spans(service, batch))).await.expect("acknowledged");
        }
        sent.push(Sent { service, operation, spans: drawn });
    }
    // What came for windows that were sealed is shown when the next one is.
    let all = (SPANS * OPERATIONS.len()) as u64;
    crate::support::eventually("all are counted", Duration::from_secs(30), async || {
        let rows = daemon.ask(&["services"]);
        let shown: u64 = rows.as_array()?.iter().filter_map(|row| row["spans"].as_u64()).sum();
        (shown == all).then_some(())
    })
    .await;
    assert_eq!(daemon.ask(&["status"])["accepted"]["spans"], all);
    let mut worst = compare(&daemon, &sent, now);
    // From the journal alone, and from a checkpoint.
    daemon.kill();
    let daemon = Daemon::start(folder.path(), &[]);
    worst = worst.max(compare(&daemon, &sent, now));
    assert_eq!(daemon.stop(), Some(0));
    let daemon = Daemon::start(folder.path(), &[]);
    worst = worst.max(compare(&daemon, &sent, now));
    assert_eq!(daemon.stop(), Some(0));
    println!("largest relative error of a quantile: {worst:.5}");
}
