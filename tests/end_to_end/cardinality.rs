//! One service with a name for every span: its totals stay exact, and nobody else's figures change.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::load::{self, Comparison};
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use serde_json::Value;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const BATCH: u64 = 500;

/// Distinct names: `scripts/release-check` asks for ten million.
fn names() -> u64 {
    std::env::var("BAROGRAPH_NAMES").ok().and_then(|names| names.parse().ok()).unwrap_or(100_000)
}

fn row(daemon: &Daemon, service: &str) -> Option<Value> {
    daemon.ask(&["services"]).as_array()?.iter().find(|row| row["service"] == service).cloned()
}

/// Sends the same of the quiet service, and, if it is to, names without end of the noisy one.
async fn run(is_noisy: bool) -> (Value, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &["limits.series=5000"]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let batches = names() / BATCH;
    let mut quiet = 0;
    for batch in 0..batches {
        // The same durations at the same places of the run, whatever the clock says.
        if batch % 4 == 0 {
            let one = |number: u64| {
                span("GET /cart", now_ns(), 1_000_000 + (batch * 7 + number * 13) % 997 * 10_000, false)
            };
            client.export(&Export::Traces(spans("quiet", (0..10).map(one).collect()))).await.expect("taken");
            quiet += 10;
        }
        if is_noisy {
            let one =
                |number: u64| span(&format!("op-{}-x", batch * BATCH + number), now_ns(), 5_000_000, false);
            client
                .export(&Export::Traces(spans("noisy", (0..BATCH).map(one).collect())))
                .await
                .expect("taken");
        }
    }
    eventually("all of the quiet service is counted", PATIENCE, async || {
        (row(&daemon, "quiet")?["spans"] == quiet).then_some(())
    })
    .await;
    if is_noisy {
        let what = format!("{} spans of the noisy service are counted exactly", batches * BATCH);
        eventually(&what, PATIENCE, async || {
            (row(&daemon, "noisy")?["spans"] == batches * BATCH).then_some(())
        })
        .await;
        let series = daemon.ask(&["status"])["series"].clone();
        assert!(series["live"].as_u64() <= Some(5_000), "{series}");
        assert!(series["overflowed"].as_u64() > Some(0), "{series}");
        let crowded = &series["crowded"][0];
        assert_eq!(crowded["service"], "noisy", "{series}");
        assert_eq!(
            (&crowded["part"], &crowded["pattern"]),
            (&"span names".into(), &"op-*".into()),
            "{series}"
        );
        assert_eq!(crowded["overflowed"], series["overflowed"], "{series}");
    }
    let of = row(&daemon, "quiet").expect("a row");
    let peak = daemon.peak_bytes();
    assert_eq!(daemon.stop(), Some(0));
    (of, peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_every_span_costs_the_others_nothing() {
    let (alone, before) = run(false).await;
    let (beside, after) = run(true).await;
    for field in ["spans", "requests", "errors", "p50_ns", "p90_ns", "p99_ns", "p999_ns"] {
        assert_eq!(alone[field], beside[field], "{field} of the quiet service");
    }
    let more = after.saturating_sub(before) >> 20;
    println!(
        "{} distinct names: {more} MiB more at the peak; the other service's figures are equal",
        names()
    );
    assert!(more < 192, "{more} MiB more");
}

/// How long a load lasts: `scripts/release-check` asks for more, and has the machine for itself, so that the latency is
/// a figure.
fn lasts() -> (Duration, bool) {
    let seconds = std::env::var("BAROGRAPH_NAMES_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    (Duration::from_secs(seconds.unwrap_or(2)), seconds.is_some())
}

/// Distinct names that must be taken each second beside the load, and the part of the load's rate that must be: else
/// nothing was held against nothing.
const LEAST_NAMES: f64 = 1_000.0;
const LEAST_RATE: f64 = 0.9;

/// Sends a name for every span until then: how many were taken.
async fn noise(url: String, end: Instant) -> u64 {
    let mut client = Client::new(&url);
    let (mut sent, mut taken) = (0, 0);
    while Instant::now() < end {
        let one = |number: u64| span(&format!("op-{}-x", sent + number), now_ns(), 5_000_000, false);
        let of = (0..BATCH).map(one).collect();
        // What is refused under such a load is no matter here.
        let is_taken = client.export(&Export::Traces(spans("noisy", of))).await.is_ok();
        taken += if is_taken { BATCH } else { 0 };
        sent += BATCH;
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_every_span_keeps_nobody_else_waiting() {
    if !load::can_pin("a load beside names without end") {
        return;
    }
    let (lasts, is_alone) = lasts();
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ["journal.max_bytes=\"512 MiB\"", "limits.series=5000"];
    let daemon = Daemon::start_after(load::SERVER, folder.path(), &settings);
    let url = daemon.url("otlp_grpc");
    let offered = load::capacity(&url).await / 4.0;
    let rate = format!("{offered:.0}");
    let lesser = load::lesser_runtime();
    let mut found = Vec::new();
    let mut names = 0;
    for _ in 0..3 {
        let alone = load::send(&url, lasts, &["--rate", &rate]).await;
        let noisy = lesser.spawn(noise(url.clone(), Instant::now() + lasts));
        let beside = load::send(&url, lasts, &["--rate", &rate]).await;
        names += noisy.await.expect("a load");
        for figures in [&alone, &beside] {
            assert_eq!(figures.refused() + figures.failed(), 0, "{figures:?}");
            let accepted = figures.accepted() as f64 / lasts.as_secs_f64();
            assert!(accepted >= LEAST_RATE * offered, "{accepted:.0} of {rate} items a second: {figures:?}");
        }
        found.push(Comparison { alone, beside });
    }
    lesser.shutdown_background();
    let names_per_second = names as f64 / (3.0 * lasts.as_secs_f64());
    assert!(names_per_second >= LEAST_NAMES, "{names_per_second:.0} distinct names a second");
    let middle = load::middle(found);
    println!(
        "{names} distinct names beside {rate} items a second: p99 {:?} against {:?}, {:.2} times",
        middle.beside.p99(),
        middle.alone.p99(),
        middle.slower()
    );
    assert!(!is_alone || middle.slower() <= 2.0, "{middle:?}");
    assert_eq!(daemon.stop(), Some(0));
}
