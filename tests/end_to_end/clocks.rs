//! Senders whose clocks are wrong: theirs are counted where the rules say, and alarm nobody.

use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use crate::support::{eventually, http};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_NS: i64 = 3_600_000_000_000;
/// A round each 400 ms: over five windows, of which three at least are sealed meanwhile.
const ROUNDS: u64 = 120;
const WINDOWS: usize = 5;
/// Rounds in which a clock that leaps is an hour ahead; then it leaps back.
const LEAPT: std::ops::Range<u64> = 40..80;
const EACH: u64 = 10;
/// By an hour and what a request takes, or by more.
const TOO_OLD: [&str; 2] = ["an-hour-behind", "a-day-behind"];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_clocks_are_counted_by_rule_and_alarm_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let frozen = now_ns();
    let mut too_old = 0;
    for round in 0..ROUNDS {
        for (service, skew) in [
            ("right", Some(0)),
            ("an-hour-ahead", Some(HOUR_NS)),
            ("a-day-ahead", Some(24 * HOUR_NS)),
            ("fifty-minutes-behind", Some(-HOUR_NS * 5 / 6)),
            ("an-hour-behind", Some(-HOUR_NS)),
            ("a-day-behind", Some(-24 * HOUR_NS)),
            // A leap second that is told twice.
            ("a-second-behind", Some(-1_000_000_000)),
            ("frozen", None),
            ("leaps", Some(if LEAPT.contains(&round) { HOUR_NS } else { 0 })),
        ] {
            let end = skew.map_or(frozen, |skew| now_ns().checked_add_signed(skew).expect("in range"));
            let of = (0..EACH).map(|number| span("GET /", end, 1_000_000 + number, false)).collect();
            match client.export(&Export::Traces(spans(service, of))).await {
                Ok(()) => assert!(!TOO_OLD.contains(&service), "what is too old is refused: {service}"),
                Err(status) => {
                    assert!(TOO_OLD.contains(&service), "{service}: {status:?}");
                    assert_eq!(status.code(), tonic::Code::DataLoss, "{service}: {status:?}");
                    too_old += EACH;
                }
            }
        }
        // The daemon's clock is the real one: its windows take time.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(too_old, ROUNDS * EACH * 2);
    let status = eventually("all is counted", PATIENCE, async || {
        let status = daemon.ask(&["status"]);
        (status["accepted"]["spans"] == ROUNDS * EACH * 7).then_some(status)
    })
    .await;
    assert_eq!(status["rejected"]["too_old"], too_old, "{status:#}");
    let leapt = LEAPT.end - LEAPT.start;
    assert_eq!(status["late"]["future"], (ROUNDS * 2 + leapt) * EACH, "{status:#}");
    assert!(status["late"]["amended"].as_u64() >= Some(ROUNDS * EACH), "{status:#}");
    // Whose clocks are wrong is told.
    let untimely = status["untimely"].as_array().expect("services");
    let of = |service: &str| untimely.iter().find(|of| of["service"] == service).map(|of| &of["items"]);
    for service in TOO_OLD {
        assert_eq!(of(service), Some(&serde_json::json!({ "too_old": ROUNDS * EACH })), "{status:#}");
    }
    for service in ["an-hour-ahead", "a-day-ahead"] {
        assert_eq!(of(service), Some(&serde_json::json!({ "future": ROUNDS * EACH })), "{status:#}");
    }
    let (_, metrics) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let labels = r#"environment="test",namespace="",service="a-day-behind",reason="too_old""#;
    let sample = format!("barograph_untimely_items_total{{{labels}}} {}\n", ROUNDS * EACH);
    assert!(metrics.contains(&sample), "{metrics}");
    // Nobody's window was closed by another's clock: what is right is all there, once.
    for service in ["right", "an-hour-ahead", "a-day-ahead", "a-second-behind", "frozen", "leaps"] {
        // What comes late is in amendments, which are kept when the next window is sealed.
        let what = format!("{service}: {} are counted", ROUNDS * EACH);
        eventually(&what, PATIENCE, async || {
            let rows = daemon.ask(&["services"]);
            let row = rows.as_array().expect("rows").iter().find(|row| row["service"] == service)?;
            (row["spans"] == ROUNDS * EACH).then_some(())
        })
        .await;
    }
    for service in ["right", "an-hour-ahead", "a-day-ahead", "leaps"] {
        let latency = daemon.ask(&["latency", "--service", service, "--step", "10s"]);
        let rows = latency.as_array().expect("windows");
        let starts: Vec<&str> = rows.iter().filter_map(|row| row["start"].as_str()).collect();
        assert!(starts.is_sorted_by(|a, b| a < b), "{service}: each window once: {starts:?}");
        let counts: Vec<u64> = rows.iter().filter_map(|row| row["count"].as_u64()).collect();
        assert_eq!(
            counts.iter().sum::<u64>(),
            ROUNDS * EACH,
            "{service}: nothing is sealed twice: {latency:#}"
        );
        let filled = counts.iter().filter(|count| **count > 0).count();
        assert!(filled >= WINDOWS, "{service}: {filled} windows: {latency:#}");
    }
    // That telemetry comes late is told as a ticket about data; nothing else is, and nobody is woken.
    for anomaly in daemon.ask(&["anomalies"]).as_array().expect("anomalies") {
        let what = (&anomaly["symptom"], &anomaly["severity"]);
        assert_eq!(what, (&"data".into(), &"ticket".into()), "{anomaly:#}");
        let service = anomaly["service"].as_str().unwrap_or_default();
        assert!(["fifty-minutes-behind", "frozen"].contains(&service), "{anomaly:#}");
    }
    assert_eq!(daemon.stop(), Some(0));
}
