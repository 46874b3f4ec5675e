//! The page as a browser shows it.

use crate::support::daemon::Daemon;
use crate::support::{http, tools};
use ::http::Method;
use std::path::Path;
use std::process::Command;

/// What Chromium makes of a page: the document, and a picture `width` wide.
fn browse(url: &str, width: u32, folder: &Path) -> (String, Vec<u8>) {
    let chromium =
        tools::program(&["chromium", "chromium-browser", "google-chrome"], "apt-get install chromium");
    let picture = folder.join(format!("{width}.png"));
    let run = |arguments: &[String]| {
        let profile = tempfile::tempdir_in(folder).expect("a profile");
        let output = Command::new(&chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},1200"))
            .args(arguments)
            .arg(url)
            .output()
            .expect("Chromium runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let document = String::from_utf8(run(&["--dump-dom".to_owned()])).expect("text");
    run(&[format!("--screenshot={}", picture.display())]);
    (document, std::fs::read(picture).expect("a picture"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_page_at_both_widths() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&folder.path().join("data"), &[]);
    let body = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"<b>cart</b>"}}]},"scopeLogs":[{"logRecords":[{"observedTimeUnixNano":"NOW","severityNumber":9,"body":{"stringValue":"hello"}}]}]}]}"#;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let body = body.replace("NOW", &now.as_nanos().to_string());
    let url = format!("{}/v1/logs", daemon.url("otlp_http"));
    let headers = [("content-type", "application/json")];
    let answer = http::send(&url, (Method::POST, false), &headers, http::Sent::Whole(body.into()))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    crate::support::eventually("the service is known", std::time::Duration::from_secs(10), async || {
        (daemon.ask(&["services"]).as_array().is_some_and(|rows| rows.len() == 1)).then_some(())
    })
    .await;
    for width in [1280u32, 390] {
        let (document, picture) = browse(&daemon.url("http"), width, folder.path());
        assert!(document.contains("&lt;b&gt;cart&lt;/b&gt;"), "the service, escaped: {document}");
        assert!(!document.contains("<b>cart"), "nothing of telemetry is markup");
        // A PNG states its width in the first chunk.
        let stated = picture.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        assert_eq!(stated, Some(width));
    }
    assert_eq!(daemon.stop(), Some(0));
}
