//! `backtest` and `explain` over recordings of the simulated shop.

use crate::support::daemon::BINARY;
use barograph::model::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs a command of ours in a folder; what it printed.
fn run(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new(&*BINARY).current_dir(folder).args(arguments).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
    output.stdout
}

/// Records three minutes of the shop; what was recorded.
fn record(folder: &Path, fault: &str, name: &str) -> Value {
    let seed = ["--seed", "1", "--duration", "3m", "--out", name, "-o", "json"];
    let labels = run(folder, &[&["drill", "record", "--fault", fault], seed.as_slice()].concat());
    serde_json::from_slice(&labels).expect("JSON")
}

/// All files below a folder by their path within it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let within = path.strip_prefix(folder).expect("within").to_owned();
                found.insert(within, std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn anomalies(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("anomalies.jsonl")).expect("anomalies.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn moment(value: &Value) -> Timestamp {
    Timestamp::parse_rfc3339(value.as_str().expect("a time")).expect("a time")
}

#[test]
fn a_backtest_finds_the_one_fault_and_answers_the_same_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let labels = record(folder, "slow-database", "fault.jsonl.zst");
    let mut answers = ["once", "again"].map(|out| {
        run(folder, &["backtest", "fault.jsonl.zst", "--scores", "--templates", "--out", out]);
        files(&folder.join(out))
    });
    let (once, again) = answers.split_at_mut(1);
    let names = |of: &BTreeMap<PathBuf, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&once[0]), names(&again[0]));
    for (name, bytes) in &once[0] {
        assert!(again[0][name] == *bytes, "{} differs", name.display());
    }

    let found = anomalies(&folder.join("once"));
    let [anomaly] = found.as_slice() else { panic!("one anomaly: {found:#?}") };
    let (injected, healed) = (moment(&labels["injected_at"]), moment(&labels["healed_at"]));
    assert_eq!(anomaly["causes"][0]["service"], labels["expected"]["service"], "{anomaly:#}");
    assert_eq!(anomaly["causes"][0]["kind"], labels["expected"]["kind"], "{anomaly:#}");
    let fired = moment(&anomaly["fired_at"]);
    assert!(injected < fired && fired <= injected.saturating_add(Duration::from_secs(15)), "{anomaly:#}");
    assert!(moment(&anomaly["onset"]) <= fired, "{anomaly:#}");
    assert!(moment(&anomaly["resolved_at"]) > healed, "{anomaly:#}");
    // Its evidence is where it says, as seen from the folder of the answers.
    let evidence = Path::new(anomaly["evidence"].as_str().expect("a path"));
    for file in ["causes.json", "index.html", "spans.parquet", "logs.parquet"] {
        assert!(once[0].contains_key(&evidence.join(file)), "no {file}: {:?}", names(&once[0]));
    }

    let explain = |at: Timestamp, out: &str| -> Value {
        run(folder, &["explain", "fault.jsonl.zst", "--at", &at.to_string(), "--out", out]);
        let text = std::fs::read(folder.join(out).join("causes.json")).expect("causes.json");
        serde_json::from_slice(&text).expect("JSON")
    };
    let during = explain(injected.saturating_add(Duration::from_secs(45)), "during");
    assert_eq!(during["causes"][0]["service"], labels["expected"]["service"], "{during:#}");
    for before in [15, 1] {
        let healthy = explain(injected.saturating_sub(Duration::from_secs(before)), &format!("{before}"));
        assert_eq!(healthy["causes"], serde_json::json!([]), "{before} s before the fault");
    }
}

#[test]
fn a_backtest_shows_what_changed_settings_would_have_told_beside_the_present_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let labels = record(folder, "slow-database", "fault.jsonl.zst");
    let compared = |changed: &[&str]| -> Value {
        let arguments = [&["backtest", "fault.jsonl.zst", "-o", "json"], changed].concat();
        serde_json::from_slice(&run(folder, &arguments)).expect("JSON")
    };
    // A gathering that takes longer tells the same fault so much later.
    let later = compared(&["--set", "confirm.gather=12s"]);
    assert_eq!(later["both"].as_array().map(Vec::len), Some(1), "{later:#}");
    assert_eq!(later["both"][0]["later_ns"], 10_000_000_000u64, "{later:#}");
    assert_eq!(
        (&later["only_present"], &later["only_changed"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    // What is exempt would not have been told.
    let line = "exemptions = [\"environment=demo because=it is known\"]";
    std::fs::write(folder.join("new.toml"), format!("[confirm]\n{line}\n")).expect("a file");
    let quiet = compared(&["--config", "new.toml"]);
    let [only] = quiet["only_present"].as_array().expect("a list").as_slice() else { panic!("{quiet:#}") };
    assert!(moment(&only["fired_at"]) > moment(&labels["injected_at"]), "{quiet:#}");
    assert_eq!((&quiet["present"]["pages"], &quiet["changed"]["pages"]), (&1.into(), &0.into()), "{quiet:#}");
    let table = run(folder, &["backtest", "fault.jsonl.zst", "--config", "new.toml"]);
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("present only") && table.contains("changed settings: 0 pages"), "{table}");
    // Turned round, from the file of the present settings.
    let turned = ["--set", "confirm.gather=2s", "--present", "new.toml"];
    assert_eq!(compared(&turned)["only_changed"].as_array().map(Vec::len), Some(1));
    let left: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is written: {left:?}");
}

#[test]
fn a_backtest_of_a_healthy_shop_finds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    record(folder.path(), "none", "healthy.jsonl.gz");
    run(folder.path(), &["backtest", "healthy.jsonl.gz", "--out", "out"]);
    assert_eq!(anomalies(&folder.path().join("out")), [Value::Null; 0]);
}
