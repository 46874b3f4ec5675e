//! One service with a name for every span: its totals stay exact, and nobody else's figures change.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use serde_json::Value;
use std::time::Duration;

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
