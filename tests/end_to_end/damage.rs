//! Bits that flip and files that end too early, in every kind of file of a data directory: the daemon starts,
//! loses at most what is damaged, and `barograph journal check` names it.

use super::bundles;
use crate::support::daemon::{BINARY, Daemon};
use crate::support::eventually;
use crate::support::otlp::{Client, Export};
use fastrand::Rng;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests of each life.
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

/// Where a file lies and how its name ends: what reads it. Of evidence bundles all are one kind, so that their many
/// files leave rounds for the others.
fn kind(file: &Path, data: &Path) -> String {
    let below = file.strip_prefix(data).expect("below");
    if below.starts_with("evidence") {
        return "evidence/*".to_owned();
    }
    let folder = below.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let end = below.extension().unwrap_or_default().to_string_lossy().into_owned();
    format!("{folder}/*.{end}")
}

const SETTINGS: [&str; 4] = [
    "journal.max_bytes=\"8 MiB\"",
    "diagnose.keepsake_every=\"1s\"",
    "diagnose.complete_after=\"1s\"",
    "detect.learn=\"5s\"",
];
/// All there is, however long the rounds take.
const ALL: [&str; 2] = ["--since", "2020-01-01T00:00:00Z"];
/// Items of a request.
const EACH: u64 = 5;
/// How far before the first mention of its service a record may begin.
const NEAR: usize = 256;
const LIVES: [&str; 2] = ["life-0", "life-1"];

/// What a daemon tells of its data: items of each service, items in all, ids of anomalies.
#[derive(Clone, Debug, Default)]
struct Told {
    services: BTreeMap<String, u64>,
    accepted: u64,
    anomalies: BTreeSet<String>,
}

impl Told {
    fn by(daemon: &Daemon) -> Self {
        let sum = |of: &Value| -> u64 {
            ["spans", "log_records", "metric_points"].iter().filter_map(|field| of[field].as_u64()).sum()
        };
        let name = |row: &Value, field: &str| row[field].as_str().expect("a name").to_owned();
        let services = daemon.ask(&[&["services"], &ALL[..]].concat());
        let anomalies = daemon.ask(&[&["anomalies"], &ALL[..]].concat());
        Self {
            services: services
                .as_array()
                .expect("rows")
                .iter()
                .map(|row| (name(row, "service"), sum(row)))
                .collect(),
            accepted: sum(&daemon.ask(&["status"])["accepted"]),
            anomalies: anomalies.as_array().expect("rows").iter().map(|row| name(row, "id")).collect(),
        }
    }

    /// Waits until everything is told of that may not be lost; what is told then.
    async fn at_least(daemon: &Daemon, least: &Self, what: &str) -> Self {
        let mut last = Self::default();
        let end = Instant::now() + PATIENCE;
        loop {
            let told = Self::by(daemon);
            let are_counted =
                least.services.iter().all(|(of, least)| told.services.get(of).unwrap_or(&0) >= least);
            if are_counted && told.accepted >= least.accepted && told.anomalies.is_superset(&least.anomalies)
            {
                return told;
            }
            assert!(Instant::now() < end, "{what}: {last:?} are told, and not {least:?}");
            last = told;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same with this many items of a service fewer.
    fn less(&self, service: &str, items: u64) -> Self {
        let mut less = self.clone();
        let of = less.services.get_mut(service).expect("a service");
        less.accepted -= items.min(*of);
        *of = of.saturating_sub(items);
        less
    }
}

/// A data directory with every kind of file: an orderly stop leaves blocks, a checkpoint, an anomaly in the ledger with
/// its evidence, and keepsakes; a kill leaves records behind the checkpoint.
async fn live_twice(whole: &Path) {
    for (life, service) in LIVES.into_iter().enumerate() {
        let daemon = Daemon::start(whole, &SETTINGS);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        for number in 0..REQUESTS {
            client.export(&Export::of((number % 3) as usize, service, EACH)).await.expect("acknowledged");
        }
        if life == 1 {
            daemon.kill();
            return;
        }
        let begun = Instant::now();
        bundles::send(&daemon, &["cart"], false, || begun.elapsed() > Duration::from_secs(12)).await;
        bundles::broken(&daemon).await;
        // Both come with checkpoints, half a minute and more after what is in them.
        eventually("a block is written", 3 * PATIENCE, async || {
            let mut blocks = std::fs::read_dir(whole.join("blocks")).ok()?;
            blocks.next().map(drop)
        })
        .await;
        if is_full() {
            eventually("keepsakes are kept", 5 * PATIENCE, async || {
                (daemon.ask(&["status"])["journal"]["keepsakes"].as_u64() > Some(0)).then_some(())
            })
            .await;
        }
        assert_eq!(daemon.stop(), Some(0));
    }
}

/// What is told where nothing is damaged, and of each block what is told without it.
async fn undamaged(whole: &Path, data: &Path) -> (Told, BTreeMap<PathBuf, Told>) {
    let items = REQUESTS * EACH;
    let least = Told {
        services: LIVES.map(|service| (service.to_owned(), items)).into(),
        accepted: 2 * items,
        ..Told::default()
    };
    copy(whole, data);
    let daemon = Daemon::start(data, &SETTINGS);
    let told = Told::at_least(&daemon, &least, "nothing is damaged").await;
    daemon.kill();
    for service in LIVES {
        assert_eq!(told.services[service], items, "{told:?}");
    }
    assert_eq!(told.services.values().sum::<u64>(), told.accepted, "{told:?}");
    assert!(!told.anomalies.is_empty(), "{told:?}");
    let mut without = BTreeMap::new();
    let mut blocks = Vec::new();
    files(&whole.join("blocks"), &mut blocks);
    for block in blocks {
        let below = block.strip_prefix(whole).expect("below").to_owned();
        let _ = std::fs::remove_dir_all(data);
        copy(whole, data);
        std::fs::remove_file(data.join(&below)).expect("removed");
        let daemon = Daemon::start(data, &SETTINGS);
        let least = Told {
            services: [(LIVES[1].to_owned(), items)].into(),
            accepted: told.accepted,
            anomalies: told.anomalies.clone(),
        };
        without.insert(below, Told::at_least(&daemon, &least, "a block is not there").await);
        daemon.kill();
    }
    (told, without)
}

/// How many requests of a service lie in these bytes, of which the last need not be whole: each names it twice.
fn requests(bytes: &[u8], service: &str) -> u64 {
    memchr::memmem::find_iter(bytes, service.as_bytes()).count() as u64 / 2
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_daemon_starts_and_the_damage_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, data) = (folder.path().join("whole"), folder.path().join("damaged"));
    live_twice(&whole).await;
    let (undamaged, without_block) = undamaged(&whole, &data).await;
    let mut kinds = BTreeMap::new();
    let mut random = Rng::with_seed(31);
    let (mut named, mut harmless) = (0, 0);
    let rounds = damages();
    for round in 0..rounds {
        let _ = std::fs::remove_dir_all(&data);
        copy(&whole, &data);
        let mut all = Vec::new();
        files(&data, &mut all);
        all.sort();
        let newest = all.iter().rfind(|file| {
            file.extension().is_some_and(|end| end == "segment")
                && requests(&std::fs::read(file).expect("read"), LIVES[1]) > 0
        });
        let newest = newest.expect("a segment with what is behind the checkpoint").clone();
        let mut of_kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in all {
            of_kinds.entry(kind(&file, &data)).or_default().push(file);
        }
        for kind in ["/*.redb", "blocks/*.arrow", "journal/*.segment", "evidence/*"] {
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
        let is_cut = random.u8(..4) == 0;
        let requests_before = requests(&bytes, LIVES[1]);
        let what = if is_cut {
            bytes.truncate(at);
            "cut short"
        } else {
            bytes[at] ^= 1 << random.u8(..8);
            "a bit flipped"
        };
        std::fs::write(file, &bytes).expect("written");
        let below = file.strip_prefix(&data).expect("below");
        let what = format!("round {round}: {} {what} at {at}", below.display());
        let check = Command::new(&*BINARY)
            .args(["journal", "check", "-o", "json"])
            .arg(&data)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(matches!(check.status.code(), Some(0 | 1)), "{what}: {said}");
        let is_whole = check.status.code() == Some(0);
        let damage: Value =
            serde_json::from_slice(&check.stdout).unwrap_or_else(|_| panic!("{what}: {said}"));
        let damage = damage["damage"].as_array().expect("a list").clone();
        assert_eq!(damage.is_empty(), is_whole, "{what}: {damage:?}");
        // Where a manifest says what no file of its bundle is, it cannot be told which of both is damaged.
        let named_as = if below.ends_with("manifest.json") { file.parent().expect("a bundle") } else { file };
        for damage in &damage {
            let is_named = damage.as_str().expect("text").contains(&*named_as.display().to_string());
            assert!(is_named, "{what}: something else is named: {damage}");
        }
        let least = if is_cut && *file == newest {
            // What was whole before the cut: of the last request in there one cannot tell.
            undamaged.less(LIVES[1], EACH * (requests_before - requests(&bytes, LIVES[1]) + 1))
        } else if *file == newest {
            // One record: the one that is named, or the newest, which may have been under way.
            undamaged.less(LIVES[1], EACH)
        } else {
            match without_block.get(below) {
                Some(without) if !is_whole => without.clone(),
                _ => undamaged.clone(),
            }
        };
        let daemon = Daemon::start(&data, &SETTINGS);
        let told = Told::at_least(&daemon, &least, &format!("{what}: {damage:?}")).await;
        assert!(told.accepted <= undamaged.accepted, "{what}: nothing is counted twice: {told:?}");
        for (service, items) in &told.services {
            assert!(*items <= undamaged.services[service], "{what}: nothing is counted twice: {told:?}");
        }
        if *file == newest && !is_cut && is_whole && told.services[LIVES[1]] < undamaged.services[LIVES[1]] {
            let last = memchr::memmem::rfind(&bytes, LIVES[1].as_bytes()).expect("the newest record");
            // It names its service at its beginning, and no other follows it.
            assert!(at + NEAR > last, "{what}: a record other than the newest is lost, and none is named");
        }
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
    for (kind, (damaged, named)) in &kinds {
        println!("    {kind}: {damaged} damaged, {named} named");
    }
    // Whatever is damaged in these is told by their checksums.
    for kind in ["blocks/*.arrow", "keepsakes/*.keepsake"] {
        assert!(kinds.get(kind).is_none_or(|(damaged, named)| damaged == named), "{kind}: {kinds:?}");
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
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((code, &told["keepsakes"], &told["bundles"]), (Some(1), &1.into(), &1.into()));
    let damage = told["damage"].as_array().expect("a list");
    assert_eq!(damage.len(), 2, "{told}");
    assert!(damage[0].as_str().expect("text").starts_with(&*keepsake.display().to_string()), "{told}");
}
