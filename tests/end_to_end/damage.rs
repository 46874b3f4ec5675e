//! Bits that flip and files that end too early, in every kind of file of a data directory: the daemon starts,
//! loses at most what is damaged, and `barograph journal check` names it.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::eventually;
use crate::support::otlp::{Client, Export};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const REQUESTS: u64 = 60;

/// How often a file is damaged: `scripts/release-check` asks for 1,000.
fn damages() -> usize {
    std::env::var("BAROGRAPH_DAMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

fn is_full() -> bool {
    std::env::var_os("BAROGRAPH_DAMAGES").is_some()
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

/// Where a file lies and how its name ends: what reads it.
fn kind(file: &Path, data: &Path) -> String {
    let below = file.strip_prefix(data).expect("below");
    let folder = below.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let end = below.extension().unwrap_or_default().to_string_lossy().into_owned();
    format!("{folder}/*.{end}")
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_daemon_starts_and_the_damage_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let settings = ["journal.max_bytes=\"4 MiB\"", "diagnose.keepsake_every=\"1s\""];
    // An orderly stop leaves blocks and a checkpoint, a kill leaves records behind it.
    for (life, stops) in [(0, true), (1, false)] {
        let daemon = Daemon::start(&whole, &settings);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        for number in 0..REQUESTS {
            let service = format!("life-{life}");
            client.export(&Export::of((number % 3) as usize, &service, 5)).await.expect("acknowledged");
        }
        // Both come with checkpoints, half a minute and more after what is in them.
        if stops {
            eventually("a block is written", 3 * PATIENCE, async || {
                let mut blocks = std::fs::read_dir(whole.join("blocks")).ok()?;
                blocks.next().map(drop)
            })
            .await;
        }
        if stops && is_full() {
            eventually("keepsakes are kept", 5 * PATIENCE, async || {
                (daemon.ask(&["status"])["journal"]["keepsakes"].as_u64() > Some(0)).then_some(())
            })
            .await;
        }
        if stops { assert_eq!(daemon.stop(), Some(0)) } else { daemon.kill() }
    }
    let mut kinds = BTreeMap::new();
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
        let mut of_kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in all {
            of_kinds.entry(kind(&file, &data)).or_default().push(file);
        }
        for kind in ["/*.redb", "blocks/*.arrow", "journal/*.segment"] {
            assert!(of_kinds.contains_key(kind), "{:?}", of_kinds.keys());
        }
        assert!(
            !is_full() || of_kinds.keys().any(|kind| kind.starts_with("keepsakes/")),
            "{:?}",
            of_kinds.keys()
        );
        // Of each kind as many as of any other, however many files there are.
        let (kind, all) = of_kinds.iter().nth(round % of_kinds.len()).expect("a kind");
        let file = &all[random.usize(..all.len())];
        let damaged_of_kind: &mut (usize, usize) = kinds.entry(kind.clone()).or_default();
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
        damaged_of_kind.0 += 1;
        damaged_of_kind.1 += usize::from(!is_whole);
        named += usize::from(!is_whole);
        harmless += usize::from(is_whole);
    }
    println!(
        "{rounds} times damaged: {named} named, {harmless} without anything lost or of the newest record"
    );
    for (kind, (damaged, named)) in kinds {
        println!("    {kind}: {damaged} damaged, {named} named");
    }
    assert!(named > rounds / 4, "{named} of {rounds} are named");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_kept_aside_are_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let aside = folder.path().join("journal/quarantine");
    std::fs::create_dir_all(&aside).expect("a folder");
    for name in ["00000000000000000064.traces", "00000000000000000640.logs"] {
        std::fs::write(aside.join(name), "what killed us").expect("written");
    }
    let daemon = Daemon::start(folder.path(), &[]);
    assert_eq!(daemon.ask(&["status"])["journal"]["quarantined"], 2);
    let told = daemon.command(&["status"]);
    assert!(told.contains("2 records at which starts had ended are left out: journal/quarantine/"), "{told}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn damaged_keepsakes_and_bundles_are_named_and_told_by_the_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let check = |arguments: &[&str]| {
        let mut command = Command::new(&*BINARY);
        let done = command.args(["journal", "check"]).arg(data).args(arguments).output().expect("it runs");
        (done.status.code(), String::from_utf8(done.stdout).expect("UTF-8"))
    };
    let bundle = data.join("evidence/a-fault");
    for below in [&data.join("journal"), &data.join("keepsakes"), &bundle] {
        std::fs::create_dir_all(below).expect("a folder");
    }
    let (code, told) = check(&[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("0 keepsakes, 0 evidence bundles: nothing is damaged"), "{told}");
    let (keepsake, manifest) =
        (data.join(format!("keepsakes/{}.keepsake", "7".repeat(32))), bundle.join("manifest.json"));
    for file in [&keepsake, &manifest] {
        std::fs::write(file, "no more what it was").expect("written");
    }
    let (code, told) = check(&[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("1 keepsake, 1 evidence bundle; damaged:\n"), "{told}");
    assert!(told.contains(&format!("{}: damaged: it is cut off", keepsake.display())), "{told}");
    assert!(told.contains(&format!("{}: damaged: ", manifest.display())), "{told}");
    let (code, told) = check(&["-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((code, &told["keepsakes"], &told["bundles"]), (Some(1), &1.into(), &1.into()));
    let damage = told["damage"].as_array().expect("a list");
    assert_eq!(damage.len(), 2, "{told}");
    assert!(damage[0].as_str().expect("text").starts_with(&*keepsake.display().to_string()), "{told}");
}
