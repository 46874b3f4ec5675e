//! A disk that says it could not write: nothing more is acknowledged, and the daemon ends saying so. And two
//! daemons that want the same data directory.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::otlp::{Client, Export};
use crate::support::{Receiver, eventually, http, tools};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the syncs of a process fail once there is a file of this name, or hang as long as there is one; all of
/// them, or those of files whose paths hold `SYNC_OF`, or end with `SYNC_AT`. That one hangs is noted in a file beside the other.
const SHIM: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int is_meant(int fd) {
    const char *of = getenv(\"SYNC_OF\"), *at = getenv(\"SYNC_AT\");
    char link[64], name[4096];
    if (!of && !at) return 1;
    snprintf(link, sizeof link, \"/proc/self/fd/%d\", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    if (of) return strstr(name, of) != NULL;
    size_t end = strlen(at);
    return (size_t)length >= end && strcmp(name + length - end, at) == 0;
}
static int is_there(const char *variable) {
    const char *name = getenv(variable);
    return name && access(name, F_OK) == 0;
}
static int fails(int fd) {
    if (is_meant(fd) && is_there(\"SYNC_HANGS\")) {
        char noted[4096];
        snprintf(noted, sizeof noted, \"%s.noted\", getenv(\"SYNC_HANGS\"));
        close(open(noted, O_CREAT | O_WRONLY, 0600));
        while (is_there(\"SYNC_HANGS\")) usleep(10000);
    }
    return is_meant(fd) && is_there(\"SYNC_FAILS\");
}
int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, \"fdatasync\"))(fd);
}
int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, \"fsync\"))(fd);
}
";

fn shim(folder: &Path) -> String {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).expect("written");
    let built = Command::new(tools::program(&["cc", "gcc", "clang"], "apt-get install gcc"))
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("it runs");
    assert!(built.success());
    library.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_daemon_and_loses_nothing_acknowledged() {
    for durability in ["always", "interval"] {
        let folder = tempfile::tempdir().expect("a folder");
        let fails = folder.path().join("fails");
        let (preload, name) =
            (format!("LD_PRELOAD={}", shim(folder.path())), format!("SYNC_FAILS={}", fails.display()));
        let setting = format!("journal.durability=\"{durability}\"");
        let data = folder.path().join("data");
        let mut daemon = Daemon::start_after(&["env", &preload, &name], &data, &[&setting]);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        let mut acknowledged = 0;
        for _ in 0..20 {
            client.export(&Export::of(0, "before", 10)).await.expect("taken");
            acknowledged += 10;
        }
        std::fs::write(&fails, "").expect("written");
        let code = eventually("the daemon ends", PATIENCE, async || {
            if client.export(&Export::of(0, "after", 10)).await.is_ok() {
                acknowledged += 10;
                assert_ne!(durability, "always", "acknowledged though the sync failed");
            }
            daemon.ended()
        })
        .await;
        assert_eq!(code, Some(1), "{durability}");
        let log = std::fs::read_to_string(data.join("log")).expect("a log");
        assert!(log.contains("could not be made durable"), "{log}");
        drop(daemon);
        // The kernel still had everything: only a power loss would have cost what was not synced.
        let daemon = Daemon::start(&data, &[&setting]);
        let counted = || daemon.ask(&["status"])["accepted"]["spans"].as_u64();
        let what = format!("{durability}: {acknowledged} are counted; now {:?}", counted());
        eventually(&what, PATIENCE, async || (counted() >= Some(acknowledged)).then_some(())).await;
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_the_database_alone_that_fails_ends_the_daemon_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let fails = folder.path().join("fails");
    let preload = format!("LD_PRELOAD={}", shim(folder.path()));
    let name = format!("SYNC_FAILS={}", fails.display());
    let data = folder.path().join("data");
    let words = ["env", &preload, &name, "SYNC_OF=barograph.redb"];
    let mut daemon = Daemon::start_after(&words, &data, &[]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    client.export(&Export::of(0, "before", 10)).await.expect("taken");
    std::fs::write(&fails, "").expect("written");
    // Whoever writes to it: here somebody who tells of a change.
    let (code, ..) = daemon.run(&["changes", "tell", "a change"]);
    assert_ne!(code, Some(0), "told as recorded though the sync failed");
    let code = eventually("the daemon ends", PATIENCE, async || daemon.ended()).await;
    assert_eq!(code, Some(1));
    let log = std::fs::read_to_string(data.join("log")).expect("a log");
    assert!(log.contains("the disk failed"), "{log}");
    assert!(!log.contains("could not be made durable"), "the journal was sound: {log}");
    drop(daemon);
    let daemon = Daemon::start(&data, &[]);
    let counted = || daemon.ask(&["status"])["accepted"]["spans"].as_u64();
    eventually("10 are counted", PATIENCE, async || (counted() == Some(10)).then_some(())).await;
    assert_eq!(daemon.stop(), Some(0));
}

/// The name of a new part of the journal that may not outlive a power loss is no name: a second try would succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_the_journals_folder_that_fails_is_not_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let fails = folder.path().join("fails");
    let preload = format!("LD_PRELOAD={}", shim(folder.path()));
    let name = format!("SYNC_FAILS={}", fails.display());
    let data = folder.path().join("data");
    let words = ["env", &preload, &name, "SYNC_AT=/journal"];
    let mut daemon = Daemon::start_after(&words, &data, &["journal.max_bytes=\"16 MiB\""]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    std::fs::write(&fails, "").expect("written");
    let code = eventually("the daemon ends", PATIENCE, async || {
        for _ in 0..50 {
            let _ = client.export(&Export::of(0, "after", 1_000)).await;
        }
        daemon.ended()
    })
    .await;
    assert_eq!(code, Some(1));
    let log = std::fs::read_to_string(data.join("log")).expect("a log");
    assert!(log.contains("could not be made durable"), "{log}");
    drop(daemon);
    assert_eq!(Daemon::start(&data, &[]).stop(), Some(0));
}

/// How long after a thread came to a stop `/readyz` must fail, and for the machine.
const UNREADY_WITHIN: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_millis(500);
/// Time between heartbeats, and for the machine.
const HEARTBEAT: Duration = Duration::from_secs(35);

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_hangs_makes_the_daemon_unready_and_its_heart_stand_still() {
    let hanging = [("barograph.redb", "interval", "judge"), (".segment", "always", "sequencer")];
    futures_util::future::join_all(hanging.map(|(of, durability, stage)| hang(of, durability, stage))).await;
}

/// A disk that hangs in the syncs of some files stops a thread.
async fn hang(of: &str, durability: &str, stage: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let hangs = folder.path().join("hangs");
    let preload = format!("LD_PRELOAD={}", shim(folder.path()));
    let (name, of) = (format!("SYNC_HANGS={}", hangs.display()), format!("SYNC_OF={of}"));
    let mut receiver = Receiver::start().await;
    let settings = [
        format!("journal.durability=\"{durability}\""),
        "journal.max_bytes=\"4 MiB\"".to_owned(),
        format!("alert.heartbeat_urls=[{:?}]", receiver.url()),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let data = folder.path().join("data");
    let daemon = Daemon::start_after(&["env", &preload, &name, &of], &data, &settings);
    receiver.wait("a heartbeat", HEARTBEAT, |requests| requests.len() == 1).await;
    let ready = format!("{}/readyz", daemon.url("http"));
    assert_eq!(http::get(&ready).await.map(|(status, _)| status), Some(200), "{stage}");
    std::fs::write(&hangs, "").expect("written");
    // With each half of the journal comes a checkpoint. Nobody waits for answers: there may be none.
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let sending = tokio::spawn(async move {
        loop {
            let _ = client.export(&Export::of(0, "cart", 2_000)).await;
        }
    });
    let noted = folder.path().join("hangs.noted");
    eventually("a sync hangs", PATIENCE, async || noted.exists().then_some(())).await;
    let hung = Instant::now();
    let said = eventually("it is not ready", UNREADY_WITHIN + SLACK, async || {
        let (status, body) = http::get(&ready).await?;
        (status == 503).then(|| String::from_utf8_lossy(&body).into_owned())
    })
    .await;
    println!("{stage}: unready {:?} after it hangs: {said}", hung.elapsed());
    assert!(said.contains(&format!("{stage} has not got on for ")), "{said}");
    sending.abort();
    let status = daemon.ask(&["status"]);
    let late = status["late_stages"].as_array().expect("a list");
    assert!(status["ready"] == false && late.iter().any(|of| of["name"] == stage), "{status}");
    assert!(daemon.command(&["status"]).contains(&format!("no: {stage}")), "{stage}");
    let (_, metrics) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let sample = format!("barograph_stage_late_seconds{{stage=\"{stage}\"}} ");
    let seconds = metrics.lines().find_map(|line| line.strip_prefix(&sample)?.parse::<f64>().ok());
    assert!(seconds > Some(0.0), "{metrics}");
    // As long as that is so, nobody is told that we are alive.
    tokio::time::sleep(HEARTBEAT.saturating_sub(hung.elapsed())).await;
    assert_eq!(receiver.requests().len(), 1, "{stage}: a heartbeat though it hangs");
    std::fs::remove_file(&hangs).expect("removed");
    eventually("it is ready again", PATIENCE, async || (http::get(&ready).await?.0 == 200).then_some(()))
        .await;
    receiver.wait("a heartbeat again", HEARTBEAT, |requests| requests.len() == 2).await;
    assert_eq!(daemon.stop(), Some(0), "{stage}");
}

/// After so long without a sync nothing more is taken, and for the machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(10 + 10);

#[tokio::test(flavor = "multi_thread")]
async fn while_syncs_hang_no_more_is_acknowledged_than_ten_seconds_bring() {
    // With large segments the sync itself hangs, with small ones the making of the next one soon, too. Who sends seldom
    // is refused as soon.
    let often = Duration::from_millis(20);
    let cases = [("4 MiB", often), ("1 GiB", often), ("1 GiB", Duration::from_secs(4))];
    futures_util::future::join_all(cases.map(|(journal, every)| hang_in_interval(journal, every))).await;
}

async fn hang_in_interval(journal: &str, every: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let hangs = folder.path().join("hangs");
    let preload = format!("LD_PRELOAD={}", shim(folder.path()));
    let name = format!("SYNC_HANGS={}", hangs.display());
    let setting = format!("journal.max_bytes=\"{journal}\"");
    let data = folder.path().join("data");
    let words = ["env", &preload, &name, "SYNC_OF=.segment"];
    let daemon = Daemon::start_after(&words, &data, &[&setting]);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let mut acknowledged = 0;
    client.export(&Export::of(0, "cart", 10)).await.expect("taken");
    acknowledged += 10;
    std::fs::write(&hangs, "").expect("written");
    let begun = Instant::now();
    let status = loop {
        match client.export(&Export::of(0, "cart", 10)).await {
            Ok(()) => acknowledged += 10,
            Err(status) => break status,
        }
        assert!(begun.elapsed() < REFUSED_WITHIN, "{journal}: still taken");
        tokio::time::sleep(every).await;
    };
    assert_eq!(status.code(), tonic::Code::Unavailable, "{journal}: {status:?}");
    assert!(status.message().contains("does not answer"), "{journal}: {status:?}");
    // A sync that is slow is no reason.
    assert!(begun.elapsed() > REFUSED_WITHIN / 4, "{journal}: refused after {:?}", begun.elapsed());
    let (unready, _) = http::get(&format!("{}/readyz", daemon.url("http"))).await.expect("an answer");
    assert_eq!(unready, 503, "{journal}");
    std::fs::remove_file(&hangs).expect("removed");
    eventually("it takes more", PATIENCE, async || {
        let is_taken = client.export(&Export::of(0, "cart", 10)).await.is_ok();
        acknowledged += if is_taken { 10 } else { 0 };
        is_taken.then_some(())
    })
    .await;
    let counted = || daemon.ask(&["status"])["accepted"]["spans"].as_u64();
    let what = format!("{journal}: {acknowledged} are counted");
    eventually(&what, PATIENCE, async || (counted() == Some(acknowledged)).then_some(())).await;
    assert_eq!(daemon.stop(), Some(0), "{journal}");
}

/// The journal of a daemon whose judge hangs, what else it may hold then, and how long it may take to fill.
const JOURNAL_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES: u64 = JOURNAL_BYTES / 16;
const MORE_MEMORY_BYTES: u64 = 128 << 20;
const FULL_WITHIN: Duration = Duration::from_secs(120);

/// No checkpoint passes a judge that hangs, so that nothing of the journal may be recycled.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_judge_that_hangs_ingest_goes_on_to_the_end_of_the_journal_and_nothing_is_lost() {
    const EACH: u64 = 2_000;
    let folder = tempfile::tempdir().expect("a folder");
    let hangs = folder.path().join("hangs");
    let preload = format!("LD_PRELOAD={}", shim(folder.path()));
    let name = format!("SYNC_HANGS={}", hangs.display());
    let settings =
        [format!("journal.max_bytes=\"{JOURNAL_BYTES} B\""), "limits.memory_bytes=\"32 MiB\"".into()];
    let settings = settings.each_ref().map(String::as_str);
    let data = folder.path().join("data");
    let words = ["env", &preload, &name, "SYNC_OF=barograph.redb"];
    let daemon = Daemon::start_after(&words, &data, &settings);
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let mut acknowledged = 0;
    for _ in 0..20 {
        client.export(&Export::of(0, "cart", EACH)).await.expect("taken");
        acknowledged += EACH;
    }
    let before = daemon.peak_bytes();
    std::fs::write(&hangs, "").expect("written");
    let begun = Instant::now();
    let status = loop {
        match client.export(&Export::of(0, "cart", EACH)).await {
            Ok(()) => acknowledged += EACH,
            Err(status) => break status,
        }
        assert!(begun.elapsed() < FULL_WITHIN, "still taken");
    };
    println!("refused after {:?} and {acknowledged} spans", begun.elapsed());
    let is_right = |status: &tonic::Status| {
        status.code() == tonic::Code::Unavailable
            && status.message().contains("full up to the last checkpoint")
            && status.details().windows(9).any(|part| part == b"RetryInfo")
    };
    assert!(is_right(&status), "{status:?}");
    let noted = folder.path().join("hangs.noted");
    eventually("a sync hangs", PATIENCE, async || noted.exists().then_some(())).await;
    let ready = format!("{}/readyz", daemon.url("http"));
    eventually("the judge is named", PATIENCE, async || {
        let (status, body) = http::get(&ready).await?;
        (status == 503 && String::from_utf8_lossy(&body).contains("judge has not got on")).then_some(())
    })
    .await;
    // It stays so, and costs nothing more.
    for _ in 0..200 {
        let status = client.export(&Export::of(0, "cart", EACH)).await.expect_err("refused");
        assert!(is_right(&status), "{status:?}");
    }
    let status = daemon.ask(&["status"]);
    let bytes = status["journal"]["bytes"].as_u64().expect("bytes");
    assert!((JOURNAL_BYTES - SEGMENT_BYTES..=JOURNAL_BYTES).contains(&bytes), "{status:#}");
    assert_eq!(status["refused"]["journal"], 201, "{status:#}");
    let more = daemon.peak_bytes().saturating_sub(before);
    println!("{} MiB more than before", more >> 20);
    assert!(more < MORE_MEMORY_BYTES, "{more} bytes more");
    daemon.kill();
    std::fs::remove_file(&hangs).expect("removed");
    let daemon = Daemon::start(&data, &settings);
    assert_eq!(daemon.ask(&["status"])["accepted"]["spans"], acknowledged);
    // The start made a checkpoint: there is room again.
    client = Client::new(&daemon.url("otlp_grpc"));
    client.export(&Export::of(0, "cart", EACH)).await.expect("taken");
    let counted = || daemon.ask(&["status"])["accepted"]["spans"].as_u64();
    eventually("and counted", PATIENCE, async || (counted() == Some(acknowledged + EACH)).then_some(()))
        .await;
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_second_daemon_on_a_data_directory_ends_and_names_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut second = Command::new(&*BINARY);
    second.arg("serve").args(["--set", &format!("data_dir={:?}", folder.path().display().to_string())]);
    for name in ["otlp_grpc", "otlp_http", "query", "http"] {
        second.args(["--set", &format!("listen.{name}=\"127.0.0.1:0\"")]);
    }
    let output = second.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("process {}", daemon.id())), "{told}");
    assert_eq!(daemon.stop(), Some(0));
}
