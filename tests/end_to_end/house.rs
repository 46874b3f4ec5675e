//! What holds for the daemon as a whole: its files, its configuration, its metrics, its end.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::{http, tools};
use std::io::Write;
use std::process::{Command, Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_as_promtool_wants_them() {
    let promtool = tools::program(&["promtool"], "apt-get install prometheus");
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &["alert.alertmanagers=[\"http://127.0.0.1:9\"]"]);
    for path in ["/healthz", "/readyz"] {
        let (status, _) = http::get(&format!("{}{path}", daemon.url("http"))).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
    let (status, metrics) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("an answer");
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(&metrics).into_owned();
    assert!(text.contains("barograph_"), "{text}");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    check.stdin.take().expect("piped").write_all(&metrics).expect("written");
    let output = check.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_second_daemon_on_the_same_data_names_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Daemon::start(folder.path(), &[]);
    let output = Command::new(&*BINARY)
        .args(["serve", "--set", &format!("data_dir={:?}", folder.path().display().to_string())])
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&first.id().to_string()), "{said}");
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("barograph.toml");
    for (text, line, key, allowed) in [
        ("[alert]\nresent = \"1s\"\n", 2, "alert.resent", "resend"),
        ("\n[alert]\nresend = 7\n", 3, "alert.resend", "100ms to 1h"),
        ("[alert]\nresend = \"1ms\"\n", 2, "alert.resend", "100ms to 1h"),
        (
            "[alert]\n\n\nalertmanagers = [\"ftp://a\"]\n",
            4,
            "alert.alertmanagers",
            "a list of http[s]://HOST",
        ),
        ("[alerts]\nresend = \"1s\"\n", 1, "alerts", "allowed at the top: access, alert, confirm"),
        ("\n\n[listen]\nhttp = \"127.0.0.1\"\n", 4, "listen.http", "allowed: IP:PORT"),
        ("[limits]\nrequest_bytes = true\n", 2, "limits.request_bytes", "allowed: 1 KiB to 1 GiB"),
        ("[limits]\nrequest_bytes = \"2 GiB\"\n", 2, "limits.request_bytes", "allowed: 1 KiB to 1 GiB"),
        ("[limits]\nconnections = \"many\"\n", 2, "limits.connections", "allowed: 1 to 65536"),
        ("[limits]\n\nconnections = 0\n", 3, "limits.connections", "allowed: 1 to 65536"),
        ("[confirm]\nfalse_pages_per_week = -1\n", 2, "confirm.false_pages_per_week", "0.001 to 1000"),
        ("[journal]\ndurability = \"never\"\n", 2, "journal.durability", "os, interval or always"),
        ("[alert]\nresend = \"1s\"\nresend = \"2s\"\n", 3, "not TOML", "duplicate key"),
    ] {
        std::fs::write(&file, text).expect("a written file");
        let output = Command::new(&*BINARY)
            .args(["serve", "--config", &file.display().to_string()])
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{text:?}: {said}");
        for part in [&format!("{}:{line}: {key}: ", file.display()), allowed] {
            assert!(said.contains(part), "{text:?}: no {part:?} in {said}");
        }
    }
    // What no file says is named by where it was said.
    for (setting, key, allowed) in [
        ("alert.resent=1", "alert.resent", "alert.resend"),
        ("limits.connections=0", "limits.connections", "1 to 65536"),
        ("alert.resend=7", "alert.resend", "100ms to 1h"),
    ] {
        let output =
            Command::new(&*BINARY).args(["serve", "--set", setting]).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{setting}: {said}");
        for part in [&format!("--set: {key}: "), allowed] {
            assert!(said.contains(part), "{setting}: no {part:?} in {said}");
        }
    }
}
