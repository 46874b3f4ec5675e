//! How soon evidence is there, and what it costs ingest, while much is recorded.

use crate::bundles;
use crate::support::daemon::Daemon;
use crate::support::{eventually, http, load};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long is recorded before something breaks, and how many spans a second: `scripts/capture-check` asks
/// for five minutes of 50,000.
fn wanted(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// How long the service fails.
const FAULT: Duration = Duration::from_secs(30);
const FIRST_WITHIN: Duration = Duration::from_secs(5);
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);
/// Late spans are waited for so long before the complete pass begins.
const COMPLETE_AFTER: Duration = Duration::from_secs(30);
const MOST_READ_BYTES: f64 = (1u64 << 30) as f64;

async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let (_, page) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("metrics");
    let page = String::from_utf8_lossy(&page).into_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_else(|| panic!("{name} in {page}"))
}

fn rss_bytes(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("a status");
    let line = text.lines().find(|line| line.starts_with("VmRSS")).expect("what is resident");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn manifest(data: &Path, anomaly: &str) -> serde_json::Value {
    let path = data.join("evidence").join(anomaly).join("manifest.json");
    serde_json::from_slice(&std::fs::read(path).expect("a manifest")).expect("JSON")
}

struct Observed {
    first: Duration,
    complete: Duration,
    manifests: [serde_json::Value; 2],
    /// Of the load while nothing was wrong, and while diagnoses ran.
    alone: load::Figures,
    beside: load::Figures,
    grown_bytes: u64,
}

/// `rate` spans a second for so long, and beside them services that then fail at the same time: the times are those
/// of whichever waited longest.
async fn broken(daemon: &Daemon, data: &Path, rate: u64, healthy: Duration, services: &[&str]) -> Observed {
    let url = daemon.url("otlp_grpc");
    let rate = rate.to_string();
    let many = ["--rate", rate.as_str()];
    let firsts = metric(daemon, "barograph_diagnoses_total{pass=\"first\"}").await;
    let begun = Instant::now();
    let (alone, ()) = tokio::join!(
        load::send(&url, healthy, &many),
        bundles::send(daemon, services, false, || begun.elapsed() > healthy)
    );
    let before = rss_bytes(daemon);
    let is_full = wanted("BAROGRAPH_CAPTURE_SECONDS", 0) > 0;
    // As long as it may take until all evidence is there, so that it is made beside the load.
    let lasts = FAULT + if is_full { COMPLETE_AFTER + COMPLETE_WITHIN / 3 } else { Duration::ZERO };
    let fails = Instant::now();
    let watch = async {
        let anomalies = eventually("every fault is found", FAULT, async || {
            let rows = daemon.ask(&["anomalies"]);
            let firing = rows.as_array()?.iter().filter(|row| row["state"] == "firing");
            let ids: Vec<_> = firing.filter_map(|row| row["id"].as_str().map(str::to_owned)).collect();
            (ids.len() == services.len()).then_some(ids)
        })
        .await;
        let all = firsts + services.len() as f64;
        eventually("the first evidence of each", FIRST_WITHIN * 6, async || {
            (metric(daemon, "barograph_diagnoses_total{pass=\"first\"}").await >= all).then_some(())
        })
        .await;
        let first = manifest(data, &anomalies[0]);
        let asked = Instant::now();
        let complete = eventually("all evidence", COMPLETE_AFTER + COMPLETE_WITHIN * 2, async || {
            let manifests: Vec<_> = anomalies.iter().map(|id| manifest(data, id)).collect();
            let is_complete = manifests.iter().all(|manifest| manifest["pass"] == "complete");
            is_complete.then(|| manifests[0].clone())
        })
        .await;
        println!("complete evidence {:.1} s after the first", asked.elapsed().as_secs_f64());
        [first, complete]
    };
    let (manifests, beside, ()) = tokio::join!(
        watch,
        load::send(&url, lasts, &many),
        bundles::send(daemon, services, true, || fails.elapsed() > FAULT)
    );
    let seconds = async |pass: &str| {
        let name = format!("barograph_diagnosis_longest_seconds{{pass=\"{pass}\"}}");
        Duration::from_secs_f64(metric(daemon, &name).await)
    };
    Observed {
        first: seconds("first").await,
        complete: seconds("complete").await,
        manifests,
        alone,
        beside,
        grown_bytes: rss_bytes(daemon).saturating_sub(before),
    }
}

fn told(what: &str, observed: &Observed) {
    let Observed { first, complete, manifests, alone, beside, grown_bytes } = observed;
    let of = |manifest: &serde_json::Value, name: &str| manifest["read"][name].as_f64().expect("a number");
    for (manifest, took) in manifests.iter().zip([first, complete]) {
        println!(
            "{what}: {} pass in {:.2} s, read {:.0} of {:.0} MiB, share of rows {:.4}",
            manifest["pass"].as_str().unwrap_or_default(),
            took.as_secs_f64(),
            of(manifest, "bytes") / f64::from(1 << 20),
            of(manifest, "of_bytes") / f64::from(1 << 20),
            of(manifest, "share_of_rows"),
        );
    }
    println!(
        "{what}: ingest p99 {:.1} ms before, {:.1} ms beside diagnoses; {} and {} refused; memory grew by {} MiB",
        alone.p99().as_secs_f64() * 1e3,
        beside.p99().as_secs_f64() * 1e3,
        alone.refused(),
        beside.refused(),
        grown_bytes >> 20,
    );
    // Ingest is unaffected: all of it is taken, at the rate at which it was sent.
    assert_eq!(beside.refused() + beside.rejected() + beside.failed(), 0, "{beside:?}");
    assert!(beside.per_second() > 0.97 * alone.per_second(), "{beside:?} after {alone:?}");
    for manifest in manifests {
        let share = of(manifest, "share_of_rows");
        assert!(share > 0.0 && share <= 1.0, "{manifest:#}");
        assert!(manifest["failed_traces"].as_u64() > Some(0), "{manifest:#}");
    }
    assert!(of(&manifests[0], "bytes") <= MOST_READ_BYTES, "{:#}", manifests[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_there_within_seconds_and_ingest_does_not_notice() {
    if !load::can_pin("a capture beside a load") {
        return;
    }
    let seconds = wanted("BAROGRAPH_CAPTURE_SECONDS", 0);
    let is_full = seconds > 0;
    // In the short run three at once, so that their evidence stands in line; the figures in full are of one, and
    // then of three.
    let three = ["cart", "search", "mail"];
    let services = if is_full { &three[..1] } else { &three[..] };
    let (rate, healthy) = if is_full { (50_000, seconds) } else { (2_000, 12) };
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let settings: &[&str] =
        if is_full { &[] } else { &["detect.learn=\"5s\"", "diagnose.complete_after=\"5s\""] };
    let daemon = Daemon::start_after(load::SERVER, &data, settings);
    let rate = wanted("BAROGRAPH_CAPTURE_RATE", rate);
    let observed = broken(&daemon, &data, rate, Duration::from_secs(healthy), services).await;
    told(&format!("capture at {rate} spans/s, {healthy} s deep"), &observed);
    if is_full {
        assert!(observed.first <= FIRST_WITHIN, "{:?}", observed.first);
        assert!(observed.complete <= COMPLETE_WITHIN, "{:?}", observed.complete);
        assert!(observed.beside.p99() < observed.alone.p99() * 3 + Duration::from_millis(20));
    }
    assert_eq!(daemon.stop(), Some(0));
    if wanted("BAROGRAPH_CAPTURE_HALF", 0) > 0 {
        let data = folder.path().join("three");
        let daemon = Daemon::start_after(load::SERVER, &data, &[]);
        let observed = broken(&daemon, &data, 50_000, Duration::from_secs(60), &three).await;
        told("capture of three faults at 50000 spans/s, 60 s deep", &observed);
        assert!(observed.first <= FIRST_WITHIN * 2, "{:?}", observed.first);
        assert_eq!(daemon.stop(), Some(0));
        let data = folder.path().join("half");
        let daemon = Daemon::start_after(load::SERVER, &data, &[]);
        let rate = (load::capacity(&daemon.url("otlp_grpc")).await / 2.0) as u64;
        let observed = broken(&daemon, &data, rate, Duration::from_secs(60), &three[..1]).await;
        told(&format!("capture at half of capacity, {rate} spans/s"), &observed);
        assert!(observed.first <= FIRST_WITHIN * 2, "{:?}", observed.first);
        assert_eq!(daemon.stop(), Some(0));
    }
}
