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
            "[alert]\n\n\nalertmanagers = [\"https://a\"]\n",
            4,
            "alert.alertmanagers",
            "https:// is not spoken yet",
        ),
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
}
