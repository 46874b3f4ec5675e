//! Four times as much as the daemon can take, with little memory and a quarter of a processor: it lives, it
//! says no so that clients can act on it, and what it said yes to is counted.

use crate::clients;
use crate::support::cgroup::Cgroup;
use crate::support::daemon::Daemon;
use crate::support::otlp::{Client, Export};
use crate::support::{eventually, load};
use std::time::{Duration, Instant};

const MEMORY_BYTES: u64 = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after the load has ended a request must be answered as on a quiet day.
const NORMAL_WITHIN: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(250);
/// Of four times the capacity, what must be offered at least: the generator shares the machine. And of the capacity, what
/// must be taken while that is so.
const LEAST_OFFERED: f64 = 3.5;
const LEAST_TAKEN: f64 = 0.5;

/// How long the load lasts: `scripts/release-check` asks for a minute.
fn lasts() -> Duration {
    let seconds = std::env::var("BAROGRAPH_OVERLOAD_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

#[tokio::test(flavor = "multi_thread")]
async fn four_times_the_capacity_is_refused_so_that_nothing_is_lost() {
    if !load::can_pin("an overload") {
        return;
    }
    let group = match Cgroup::make("overload", MEMORY_BYTES, 0.25) {
        Ok(group) => group,
        Err(why) => {
            println!("NOT RUN: no cgroup can be made here, so no quota can be had ({why})");
            return;
        }
    };
    let folder = tempfile::tempdir().expect("a folder");
    let words = group.words();
    let before: Vec<&str> = words.iter().map(String::as_str).collect();
    // What is overloaded here are memory and processor: a journal that the calm start's rate (hundreds of MB/s on a
    // fast machine) fills between two checkpoints would refuse for a reason of its own.
    let settings =
        ["journal.max_bytes=\"1 GiB\"", "limits.memory_bytes=\"32 MiB\"", "limits.request_bytes=\"1 MiB\""];
    let daemon = Daemon::start_after(&before, folder.path(), &settings);
    let url = daemon.url("otlp_grpc");
    // Large requests cost their sender little: it has one processor for four times the load.
    let shape = ["--items", "1000", "--resources", "8"];
    let calm = load::send(
        &url,
        Duration::from_secs(3),
        &[&shape[..], &["--connections", "4", "--in-flight", "1"]].concat(),
    )
    .await;
    assert_eq!(calm.refused() + calm.failed(), 0, "{calm:?}");
    let rate = format!("{:.0}", 4.0 * calm.per_second());
    let words = [&shape[..], &["--rate", &rate, "--connections", "32", "--in-flight", "16"]].concat();
    // A real client comes into it before it ends, and delivers when it has ended.
    let sdk = {
        let url = url.clone();
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(lasts().saturating_sub(Duration::from_secs(4)));
            let mut python = clients::python();
            python.args([&url, "grpc", "none", "sdk", &clients::ITEMS.to_string()]);
            python.env("OTEL_EXPORTER_OTLP_TIMEOUT", "120").output().expect("it runs")
        })
    };
    let loaded = load::send(&url, lasts(), &words).await;
    let ended = Instant::now();
    let mut honest = Client::new(&url);
    let mut acknowledged = 0;
    let mut in_a_row = 0;
    while in_a_row < 10 {
        let begun = Instant::now();
        let answer = honest.export(&Export::of(0, "honest", 10)).await;
        acknowledged += if answer.is_ok() { 10 } else { 0 };
        in_a_row = if answer.is_ok() && begun.elapsed() < QUIET { in_a_row + 1 } else { 0 };
        assert!(ended.elapsed() < NORMAL_WITHIN, "not normal {NORMAL_WITHIN:?} after the load: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let normal = ended.elapsed();
    let told = sdk.await.expect("it ends");
    let all = calm.accepted() + loaded.accepted() + acknowledged + 3 * clients::ITEMS;
    let counted = || {
        let accepted = daemon.ask(&["status"])["accepted"].clone();
        accepted.as_object().expect("counts").values().filter_map(|count| count.as_u64()).sum::<u64>()
    };
    let what = format!(
        "{all} items are counted, all of the SDK's among them ({}); now {}",
        String::from_utf8_lossy(&told.stderr),
        counted()
    );
    eventually(&what, PATIENCE, async || (counted() == all).then_some(())).await;
    let status = daemon.ask(&["status"]);
    let rejected: u64 =
        status["rejected"].as_object().expect("counts").values().filter_map(|count| count.as_u64()).sum();
    assert_eq!(rejected, calm.rejected() + loaded.rejected(), "{status:#}");
    assert_eq!(loaded.failed(), 0, "all is accepted, refused with a delay, or rejected: {loaded:?}");
    assert!(loaded.refused() > 0, "that was no overload: {loaded:?}");
    let offered = (loaded.accepted() + loaded.refused()) as f64 / lasts().as_secs_f64() / calm.per_second();
    // An idle generator would prove nothing, nor would a daemon that only says no.
    assert!(offered >= LEAST_OFFERED, "{offered:.1} times what it takes were offered, not four: {loaded:?}");
    let taken = loaded.accepted() as f64 / lasts().as_secs_f64() / calm.per_second();
    assert!(taken >= LEAST_TAKEN, "{taken:.2} of what it takes were taken under the load: {loaded:?}");
    let peak = daemon.peak_bytes();
    assert!(peak <= MEMORY_BYTES, "{} MiB", peak >> 20);
    assert_eq!(group.killed(), 0, "nothing was killed for memory");
    println!(
        "overload of {rate} items a second for {:?} ({offered:.1} times what it takes were offered): {} accepted, {} refused with a \
         delay, {rejected} rejected, the same on the server; the SDK delivered everything; normal after \
         {normal:?}; {} of {} MiB at the peak",
        lasts(),
        loaded.accepted(),
        loaded.refused(),
        peak >> 20,
        MEMORY_BYTES >> 20
    );
    assert_eq!(daemon.stop(), Some(0));
}
