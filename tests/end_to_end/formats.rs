//! What is on disk is read by later versions: `tests/formats/` holds a data directory as each released version left it,
//! with what was in it, and one of the version under way, `unreleased`.
//!
//! `scripts/format-fixture NAME` writes one. At a release `unreleased` is copied under the release's number; whoever
//! changes a format before then writes `unreleased` anew. Where a version may not be read any more (before 1.0, between
//! minor versions), its `.json` says with what words it is refused instead: `{"refused": "…"}`.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::otlp::{Client, Export};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Nothing is to be too old, however long ago it was written.
const SETTINGS: [&str; 3] =
    ["journal.max_bytes=\"4 MiB\"", "journal.max_age=\"3650d\"", "store.max_age=\"3650d\""];
const REQUESTS: usize = 45;
/// A window is sealed up to 25 s after what is in it: so long one that writes a fixture has to send.
const EVERY: Duration = Duration::from_secs(1);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn tar(words: &[&str], folder: &Path, archive: &Path) {
    let status = Command::new("tar").arg("-C").arg(folder).args(words).arg(archive).arg(".").status();
    assert!(status.is_ok_and(|status| status.success()), "tar {words:?} {}", archive.display());
}

/// What the daemon knows that must outlive it.
fn known(daemon: &Daemon) -> Value {
    let mut services = daemon.ask(&["services", "--since", "2020-01-01T00:00:00Z"]);
    for row in services.as_array_mut().expect("rows") {
        let counts =
            ["service", "spans", "log_records", "metric_points", "requests", "errors", "p50_ns", "p99_ns"];
        *row = counts
            .into_iter()
            .map(|field| (field.to_owned(), row[field].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
    }
    json!({
        "accepted": daemon.ask(&["status"])["accepted"],
        "services": services,
        "changes": daemon.ask(&["changes", "--since", "2020-01-01T00:00:00Z"]).as_array().map(Vec::len),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn data_directories_of_released_versions_are_read() {
    let name = std::env::var("BAROGRAPH_WRITE_FORMAT").ok();
    if let Some(name) = &name {
        write(name).await;
    }
    let mut archives: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .expect("fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    archives.sort();
    assert!(!archives.is_empty(), "there is no fixture");
    for archive in archives {
        let name = archive.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let name = name.strip_suffix(".tar.gz").expect("a fixture").to_owned();
        let text = std::fs::read_to_string(fixtures().join(format!("{name}.json"))).expect("what is in it");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let folder = tempfile::tempdir().expect("a folder");
        tar(&["-xzf"], folder.path(), &archive);
        if let Some(words) = expected["refused"].as_str() {
            let set = format!("data_dir={:?}", folder.path().display().to_string());
            let output = Command::new(&*BINARY).args(["serve", "--set", &set]).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(words), "{name}: {said}");
            continue;
        }
        let check = Command::new(&*BINARY).args(["journal", "check"]).arg(folder.path()).status();
        assert!(check.is_ok_and(|status| status.success()), "{name} is whole");
        let daemon = Daemon::start(folder.path(), &SETTINGS);
        assert_eq!(known(&daemon), expected, "{name}");
        Client::new(&daemon.url("otlp_grpc")).export(&Export::of(0, "later", 1)).await.expect("it goes on");
        assert_eq!(daemon.stop(), Some(0));
        println!("the data directory of {name} is read");
    }
}

/// Two lives: an orderly stop leaves blocks and a checkpoint, a kill leaves records behind it.
async fn write(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    for (life, stops) in [(0, true), (1, false)] {
        let daemon = Daemon::start(folder.path(), &SETTINGS);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        let mut every = tokio::time::interval(EVERY);
        for number in 0..REQUESTS {
            every.tick().await;
            let service = format!("life-{life}");
            client.export(&Export::of(number % 3, &service, 5)).await.expect("acknowledged");
        }
        daemon.command(&["changes", "tell", "--service", "life-0", "--kind", "deploy", "v2"]);
        if stops { assert_eq!(daemon.stop(), Some(0)) } else { daemon.kill() }
    }
    std::fs::remove_file(folder.path().join("log")).expect("a log");
    std::fs::create_dir_all(fixtures()).expect("a folder");
    let archive = fixtures().join(format!("{name}.tar.gz"));
    tar(&["--owner=0", "--group=0", "--sort=name", "-czf"], folder.path(), &archive);
    let daemon = Daemon::start(folder.path(), &SETTINGS);
    let text = serde_json::to_string_pretty(&known(&daemon)).expect("JSON");
    std::fs::write(fixtures().join(format!("{name}.json")), text + "\n").expect("written");
    assert_eq!(daemon.stop(), Some(0));
}
