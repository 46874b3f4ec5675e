//! `barograph load` beside the daemon, on a processor of its own.

use super::daemon::BINARY;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Words that pin the daemon to one processor.
pub const SERVER: &[&str] = &["taskset", "-c", "0"];
/// Words that pin what loads it to another.
pub const CLIENT: &[&str] = &["taskset", "-c", "1"];

/// How soon a closed loop fills the journal of a check.
const RECYCLED_WITHIN: Duration = Duration::from_secs(120);

/// Whether there are two processors to pin to; says so if not.
pub fn can_pin(what: &str) -> bool {
    let has_two = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let can = has_two && std::process::Command::new("taskset").arg("-V").output().is_ok();
    if !can {
        println!("NOT RUN: {what} takes two processors and taskset");
    }
    can
}

/// What became of one load.
#[derive(Debug)]
pub struct Figures(Value);

impl Figures {
    fn items(&self, of: &str) -> u64 {
        self.0["items"][of].as_u64().expect("a count")
    }

    pub fn accepted(&self) -> u64 {
        self.items("accepted")
    }

    pub fn refused(&self) -> u64 {
        self.items("refused")
    }

    pub fn rejected(&self) -> u64 {
        self.items("rejected")
    }

    /// Neither acknowledged nor refused so that they can be sent again after a delay that was named.
    pub fn failed(&self) -> u64 {
        self.items("failed") + self.items("refused_without_delay")
    }

    pub fn per_second(&self) -> f64 {
        self.0["items"]["per_second"].as_f64().expect("a rate")
    }

    pub fn p99(&self) -> Duration {
        Duration::from_nanos(self.0["latency_ns"]["p99"].as_u64().unwrap_or(u64::MAX))
    }
}

/// Sends for so long; everything that was sent is in the figures.
pub async fn send(endpoint: &str, lasts: Duration, words: &[&str]) -> Figures {
    let (first, rest) = CLIENT.split_first().expect("words");
    let output = tokio::process::Command::new(first)
        .args(rest)
        .arg(&*BINARY)
        .args(["load", "--endpoint", endpoint, "--warm-up", "0s", "-o", "json"])
        .args(["--duration", &format!("{}ms", lasts.as_millis())])
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Figures(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Sends until the first segment of this data directory's journal is recycled. What a file's first use costs a machine,
/// memory or disk that nothing was in before, is no part of what is compared later.
pub async fn recycle(endpoint: &str, data: &Path) {
    let oldest = || {
        let files = std::fs::read_dir(data.join("journal")).expect("a journal");
        let names = files.map(|file| file.expect("an entry").file_name());
        // By its position; one that is being made has none yet.
        names.filter(|name| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)).min()
    };
    let begun = Instant::now();
    send(endpoint, Duration::from_secs(1), &[]).await;
    let first = oldest().expect("what was sent is in a segment");
    while oldest().as_ref() == Some(&first) {
        assert!(begun.elapsed() < RECYCLED_WITHIN, "the journal does not fill");
        send(endpoint, Duration::from_secs(1), &[]).await;
    }
}

/// Items a second that a closed loop gets through.
pub async fn capacity(endpoint: &str) -> f64 {
    send(endpoint, Duration::from_secs(3), &[]).await.per_second()
}

/// Where those run that must not be able to hurt anybody: beside the other clients, but with less right to
/// the processor.
pub fn lesser_runtime() -> tokio::runtime::Runtime {
    let settle = || {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(1);
        rustix::thread::sched_setaffinity(None, &cpus).expect("pinned");
        // Of this thread alone.
        rustix::process::setpriority_process(None, 19).expect("one may always give way");
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(settle)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// An honest load with nothing beside it, and with something.
#[derive(Debug)]
pub struct Comparison {
    pub alone: Figures,
    pub beside: Figures,
}

impl Comparison {
    /// How many times as long answers take, at the 99th percentile.
    pub fn slower(&self) -> f64 {
        self.beside.p99().as_secs_f64() / self.alone.p99().as_secs_f64()
    }

    pub fn rate(&self) -> f64 {
        self.beside.per_second() / self.alone.per_second()
    }
}

/// The middle one by p99.
pub fn middle(mut found: Vec<Comparison>) -> Comparison {
    found.sort_by(|one, other| one.slower().total_cmp(&other.slower()));
    let at = found.len() / 2;
    found.swap_remove(at)
}
