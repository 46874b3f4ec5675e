//! Traces that outlive the journal, and the process.

use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export, now_ns, span, spans, text};
use crate::support::{eventually, http};
use std::time::Duration;

/// A part of the journal is looked at half a minute after it arrived, with a checkpoint, of which there is one every
/// half minute.
const LOOKED_AT: Duration = Duration::from_secs(150);

/// A second of a service, with what fills a journal.
fn second(operation: &str) -> Export {
    let now = now_ns();
    let of = |number: u64| {
        let mut span = span(operation, now - number * 20_000_000, 5_000_000, false);
        span.attributes.push(text("http.request.header.authorization", "Bearer topsecret"));
        let noise: String = (0..1_000).map(|_| fastrand::alphanumeric()).collect();
        span.attributes.push(text("payload", &noise));
        span
    };
    Export::Traces(spans("cart", (0..40).map(of).collect()))
}

async fn send(daemon: &Daemon, operation: &str, until: impl Fn() -> bool) {
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let mut every = tokio::time::interval(Duration::from_secs(1));
    while !until() {
        every.tick().await;
        client.export(&second(operation)).await.expect("taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_was_kept_opens_by_its_id_when_the_journal_has_lost_it_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let settings = ["journal.max_bytes=\"4 MiB\""];
    let daemon = Daemon::start(&data, &settings);
    let kept = std::sync::OnceLock::new();
    tokio::join!(send(&daemon, "GET /cart", || kept.get().is_some()), async {
        let id = eventually("a keepsake", LOOKED_AT, async || {
            let file = std::fs::read_dir(data.join("keepsakes")).ok()?.flatten().next()?;
            let name = file.file_name().into_string().ok()?;
            name.strip_suffix(".keepsake").map(str::to_owned)
        })
        .await;
        let _ = kept.set(id);
    });
    let id = kept.get().expect("a keepsake").as_str();
    let status = daemon.ask(&["status"]);
    assert!(status["journal"]["keepsakes"].as_u64() > Some(0), "{status:#}");
    assert!(status["journal"]["keepsake_bytes"].as_u64() > Some(100), "{status:#}");
    assert!(daemon.command(&["status"]).contains("keepsakes"));
    let (_, page) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("metrics");
    let metrics = String::from_utf8_lossy(&page).into_owned();
    assert!(metrics.contains("barograph_keepsakes_shed_total{reason=\"pressure\"} "), "{metrics}");
    // The journal goes on until it begins after the trace.
    let whole = daemon.ask(&["traces", id]);
    let start = whole["spans"][0]["start"].as_str().expect("a time").to_owned();
    let lost = std::sync::OnceLock::new();
    tokio::join!(send(&daemon, "GET /other", || lost.get().is_some()), async {
        eventually("the journal has lost the trace", LOOKED_AT, async || {
            let oldest = daemon.ask(&["status"])["journal"]["oldest"].as_str()?.to_owned();
            (oldest > start).then_some(())
        })
        .await;
        let _ = lost.set(());
    });
    assert_eq!(daemon.stop(), Some(0));
    let daemon = Daemon::start(&data, &settings);
    let again = daemon.ask(&["traces", id]);
    assert_eq!(again["spans"][0]["start"], whole["spans"][0]["start"], "{again:#}");
    let shown = again.to_string();
    assert!(shown.contains("[redacted]") && !shown.contains("topsecret"), "{shown}");
    assert_eq!(daemon.stop(), Some(0));
}
