//! A disk that is full, and then not any more: nothing acknowledged is lost, and nobody needs a restart.

use super::crashes::Traffic;
use crate::support::daemon::Daemon;
use crate::support::http::{self, Sent};
use crate::support::otlp::{Client, Export};
use crate::support::receiver::Request;
use crate::support::{Receiver, eventually};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long after there is room again everything must be taken again.
const HEALTHY_WITHIN: Duration = Duration::from_secs(10);

/// How long the disk stays full: `scripts/release-check` asks for a minute.
fn full_for() -> Duration {
    let seconds = std::env::var("BAROGRAPH_FULL_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// A tmpfs of 64 MiB, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        done.status.success().then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is, in a file beside the data.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let zeros = vec![0u8; size];
            while file.write_all(&zeros).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_that_was_acknowledged_and_needs_no_restart() {
    let Some(disk) = SmallDisk::mount() else {
        println!("NOT RUN: this process may not mount a tmpfs (it takes root), so a full disk cannot be had");
        return;
    };
    let data = disk.path().join("data");
    let daemon = Daemon::start(&data, &["journal.max_bytes=\"16 MiB\""]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let (mut acknowledged, mut refused) = (0u64, 0u64);
    // 200 spans are some 20 KB: the journal turns over many times.
    let mut send = async |service: &str| {
        let sent = client.export(&Export::of(0, service, 200)).await;
        match &sent {
            Ok(()) => acknowledged += 200,
            Err(status) => {
                refused += 1;
                assert_eq!(status.code(), tonic::Code::Unavailable, "a refusal is retryable: {status:?}");
                let retry = says_when_to_retry(status);
                assert!(retry, "with a delay: {status:?}");
            }
        }
        sent.is_ok()
    };
    for _ in 0..100 {
        assert!(send("before").await, "there is room");
    }
    let filler = disk.fill();
    let full = Instant::now();
    while full.elapsed() < full_for() {
        if !send("meanwhile").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Queries are answered all the while.
    assert!(daemon.ask(&["status"])["ready"].as_bool().is_some());
    std::fs::remove_file(filler).expect("removed");
    let freed = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 50 {
        in_a_row = if send("after").await { in_a_row + 1 } else { 0 };
        assert!(freed.elapsed() < HEALTHY_WITHIN, "not healthy {HEALTHY_WITHIN:?} after there is room");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let healthy = freed.elapsed();
    let counted = |daemon: &Daemon| daemon.ask(&["status"])["accepted"]["spans"].as_u64().unwrap_or_default();
    let what = format!("{acknowledged} spans are counted");
    eventually(&what, PATIENCE, async || (counted(&daemon) == acknowledged).then_some(())).await;
    assert_eq!(daemon.stop(), Some(0));
    let daemon = Daemon::start(&data, &["journal.max_bytes=\"16 MiB\""]);
    eventually(&what, PATIENCE, async || (counted(&daemon) == acknowledged).then_some(())).await;
    daemon.kill();
    let daemon = Daemon::start(&data, &["journal.max_bytes=\"16 MiB\""]);
    eventually(&what, PATIENCE, async || (counted(&daemon) == acknowledged).then_some(())).await;
    println!(
        "disk full for {:?}: {acknowledged} spans acknowledged and counted, {refused} requests refused, \
         healthy {healthy:?} after there was room",
        full_for()
    );
}

/// Whether a status says when to try again.
fn says_when_to_retry(status: &tonic::Status) -> bool {
    let details = status.details();
    details.windows(9).any(|part| part == b"RetryInfo")
}

/// The anomalies that events of this type are about, one each event.
fn events(requests: &[Request], kind: &str) -> Vec<String> {
    let of = requests.iter().filter(|request| request.body["type"] == kind);
    of.map(|request| request.body["subject"].as_str().expect("an id").to_owned()).collect()
}

/// Whether the ledger can be written: it takes a change that is told.
async fn takes_a_change(daemon: &Daemon) -> bool {
    let change = serde_json::json!({ "kind": "flag", "title": format!("{}{}", fastrand::u64(..), "x".repeat(200)), "service": "elsewhere" });
    let url = format!("{}/v1/changes", daemon.url("http"));
    let body = Sent::Whole(change.to_string().into());
    let headers = [("content-type", "application/json")];
    http::send(&url, (::http::Method::POST, false), &headers, body).await.expect("an answer").status == 201
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fault_that_begins_while_the_disk_is_full_is_told_while_it_still_is() {
    let Some(disk) = SmallDisk::mount() else {
        println!("NOT RUN: this process may not mount a tmpfs (it takes root), so a full disk cannot be had");
        return;
    };
    let mut receiver = Receiver::start().await;
    let webhook = format!("alert.webhooks=[{:?}]", receiver.url());
    // What arrives meanwhile fits into the segments that there are.
    let settings = ["journal.max_bytes=\"32 MiB\"", &webhook];
    let data = disk.path().join("data");
    let daemon = Daemon::start(&data, &settings);
    let mut traffic = Traffic::start(daemon.url("otlp_grpc"));
    traffic.more(50 * 45).await;
    assert!(receiver.requests().is_empty(), "healthy: {:#?}", receiver.requests());
    let filler = disk.fill();
    // What the database has left of its own.
    eventually("the ledger is full", PATIENCE, async || (!takes_a_change(&daemon).await).then_some(())).await;
    traffic.failing_percent.store(50, Ordering::SeqCst);
    let firing = |requests: &[Request]| events(requests, "barograph.alert.firing");
    let requests =
        receiver.wait("the fault is told", PATIENCE, |requests| !firing(requests).is_empty()).await;
    assert!(!takes_a_change(&daemon).await, "the disk is still full");
    let first = firing(&requests);
    let listed = |daemon: &Daemon| {
        let (code, out, _) = daemon.run(&["anomalies"]);
        code == Some(0) && first.first().is_some_and(|id| out.contains(&**id))
    };
    assert!(!listed(&daemon), "the ledger cannot have it yet");
    std::fs::remove_file(filler).expect("removed");
    let freed = Instant::now();
    eventually("the ledger has it", HEALTHY_WITHIN, async || listed(&daemon).then_some(())).await;
    println!("the ledger has what was told {:?} after there was room", freed.elapsed());
    // Met in the ledger once more, also by the next life, it is not told again.
    let told = |receiver: &Receiver| {
        let mut ids: Vec<String> = (receiver.requests().iter())
            .map(|request| request.body["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    traffic.more(50 * 3).await;
    assert_eq!(daemon.stop(), Some(0));
    let daemon = Daemon::start(&data, &settings);
    traffic.go_on_to(daemon.url("otlp_grpc"));
    traffic.more(50 * 15).await;
    let (all, mut once) = (told(&receiver), told(&receiver));
    once.dedup();
    assert_eq!(all, once, "each revision is told once");
    assert!(firing(&receiver.requests()).iter().all(|id| first.contains(id)), "one fault: {all:?}");
}
