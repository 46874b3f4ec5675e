//! Bits that flip and files that end too early, in every kind of file of a data directory: the daemon starts,
//! loses at most what is damaged, and `barograph journal check` names it.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::eventually;
use crate::support::otlp::{Client, Export};
use fastrand::Rng;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const REQUESTS: u64 = 60;

/// How often a file is damaged: `scripts/release-check` asks for 1,000.
fn damages() -> usize {
    std::env::var("BAROGRAPH_DAMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target)
        } else {
            std::fs::copy(&path, target).map(drop).expect("copied")
        }
    }
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, into);
        } else if path.metadata().expect("a file").len() > 0
            && path.file_name().is_some_and(|name| name != "log" && name != "lock")
        {
            into.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_daemon_starts_and_the_damage_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let settings = ["journal.max_bytes=\"4 MiB\""];
    // An orderly stop leaves blocks and a checkpoint, a kill leaves records behind it.
    for (life, stops) in [(0, true), (1, false)] {
        let daemon = Daemon::start(&whole, &settings);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        for number in 0..REQUESTS {
            let service = format!("life-{life}");
            client.export(&Export::of((number % 3) as usize, &service, 5)).await.expect("acknowledged");
        }
        if stops { assert_eq!(daemon.stop(), Some(0)) } else { daemon.kill() }
    }
    let mut random = Rng::with_seed(31);
    let (mut named, mut harmless) = (0, 0);
    let rounds = damages();
    for round in 0..rounds {
        let data = folder.path().join("damaged");
        let _ = std::fs::remove_dir_all(&data);
        copy(&whole, &data);
        let mut all = Vec::new();
        files(&data, &mut all);
        all.sort();
        let file = &all[random.usize(..all.len())];
        let mut bytes = std::fs::read(file).expect("read");
        // Most of a segment was never written, and much of a database is free: damage what is in use.
        let used: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        let at = used[random.usize(..used.len())];
        let what = if random.u8(..4) == 0 {
            bytes.truncate(at);
            "cut short"
        } else {
            bytes[at] ^= 1 << random.u8(..8);
            "a bit flipped"
        };
        std::fs::write(file, &bytes).expect("written");
        let what = format!("round {round}: {} {what}", file.strip_prefix(&data).expect("below").display());
        let check = Command::new(&*BINARY).args(["journal", "check"]).arg(&data).output().expect("it runs");
        let told = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(
            matches!(check.status.code(), Some(0 | 1)),
            "{what}: {}",
            String::from_utf8_lossy(&check.stderr)
        );
        let daemon = Daemon::start(&data, &settings);
        // What was behind the checkpoint is replayed, but for at most one record of five items.
        let of = |daemon: &Daemon| -> u64 {
            let rows = daemon.ask(&["services"]);
            let row = rows.as_array().expect("rows").iter().find(|row| row["service"] == "life-1").cloned();
            row.map_or(0, |row| {
                ["spans", "log_records", "metric_points"]
                    .map(|field| row[field].as_u64().expect("a count"))
                    .iter()
                    .sum()
            })
        };
        let is_whole = check.status.code() == Some(0);
        let is_cut = what.ends_with("cut short");
        let least = if is_cut { 0 } else { REQUESTS * 5 - 5 };
        eventually(&format!("{what}: at most one record is lost: {told}"), PATIENCE, async || {
            (of(&daemon) >= least).then_some(())
        })
        .await;
        assert!(of(&daemon) <= REQUESTS * 5, "{what}: nothing is counted twice");
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        client.export(&Export::of(0, "after", 3)).await.expect("acknowledged");
        daemon.kill();
        named += usize::from(!is_whole);
        harmless += usize::from(is_whole);
    }
    println!(
        "{rounds} times damaged: {named} named, {harmless} without anything lost or of the newest record"
    );
    assert!(named > rounds / 4, "{named} of {rounds} are named");
}
