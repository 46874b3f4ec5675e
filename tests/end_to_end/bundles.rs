//! The evidence of a real fault, from outside: other people's programs open it, it is diagnosed again offline,
//! holds no secret, and what collectors of one's own said.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::otlp::{Client, Export, now_ns, span, spans, text};
use crate::support::{eventually, tools};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SECRETS: [&str; 3] = ["hunter2", "topsecret", "s3cr3t"];

/// A second of a service: of its spans every third fails if it is broken. All carry secrets.
fn second(service: &str, broken: bool) -> [Export; 2] {
    let now = now_ns();
    let of = |number: u64| {
        let failed = broken && number.is_multiple_of(3);
        let mut span = span("GET /cart", now - number * 20_000_000, 5_000_000, failed);
        span.attributes.push(text("http.request.header.authorization", "Bearer topsecret"));
        span.attributes.push(text("url.full", "http://shop/cart?access_token=s3cr3t&page=2"));
        span
    };
    let all: Vec<_> = (0..40).map(of).collect();
    let record = |span: &opentelemetry_proto::tonic::trace::v1::Span| LogRecord {
        time_unix_nano: span.end_time_unix_nano,
        severity_number: if broken { 17 } else { 9 },
        body: Some(AnyValue { value: Some(Any::StringValue("login with password=hunter2 done".into())) }),
        trace_id: span.trace_id.clone(),
        span_id: span.span_id.clone(),
        ..LogRecord::default()
    };
    let log_records = all.iter().map(record).collect();
    let traces = spans(service, all);
    let resource = traces.resource_spans.first().and_then(|of| of.resource.clone());
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let of = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
    [Export::Traces(traces), Export::Logs(ExportLogsServiceRequest { resource_logs: vec![of] })]
}

/// Sends services that are broken or not, until a condition holds. None calls another.
pub async fn send(daemon: &Daemon, services: &[&str], broken: bool, until: impl Fn() -> bool) {
    let mut client = Client::new(&daemon.url("otlp_grpc"));
    let mut every = tokio::time::interval(Duration::from_secs(1));
    while !until() {
        every.tick().await;
        for export in services.iter().flat_map(|service| second(service, broken)) {
            client.export(&export).await.expect("taken");
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The page as a browser without any network shows it.
fn browse(page: &Path, folder: &Path) -> String {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let profile = tempfile::tempdir_in(folder).expect("a profile");
    run(Command::new(tools::program(&names, "apt-get install chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("file://{}", page.display())]))
}

fn without_secrets(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {what}");
    }
}

/// Breaks something until it is found and all evidence of it is there; its anomaly.
pub async fn broken(daemon: &Daemon) -> String {
    let anomaly = std::sync::OnceLock::new();
    tokio::join!(send(daemon, &["cart"], true, || anomaly.get().is_some()), async {
        let id = eventually("the fault is found", Duration::from_secs(60), async || {
            let rows = daemon.ask(&["anomalies"]);
            let firing = rows.as_array()?.iter().find(|row| row["state"] == "firing")?.clone();
            firing["id"].as_str().map(str::to_owned)
        })
        .await;
        let _ = anomaly.set(id);
    });
    eventually("complete evidence", Duration::from_secs(60), async || {
        let all = daemon.ask(&["evidence"]);
        let complete = all.as_array()?.iter().any(|row| row["complete"] == true);
        complete.then_some(())
    })
    .await;
    anomaly.into_inner().expect("an anomaly")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_says_after_the_complete_evidence_is_added_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let go_on = folder.path().join("go-on");
    let script =
        format!("until [ -e {} ]; do sleep 0.1; done; echo heap of $BAROGRAPH_SERVICE", go_on.display());
    let collectors = format!(
        r#"diagnose.collectors=[{{ name = "heap", command = ["sh", "-c", {script:?}], timeout = "120s" }}]"#
    );
    let settings = ["detect.learn=\"5s\"", "diagnose.complete_after=\"1s\"", &collectors];
    let daemon = Daemon::start(&folder.path().join("data"), &settings);
    let begun = std::time::Instant::now();
    send(&daemon, &["cart"], false, || begun.elapsed() > Duration::from_secs(12)).await;
    let anomaly = &*broken(&daemon).await;
    let told = |daemon: &Daemon| daemon.ask(&["incident", anomaly]).to_string();
    assert!(!told(&daemon).contains("Collector heap"), "it still runs");
    std::fs::write(&go_on, "").expect("a file");
    eventually("the timeline tells of it", Duration::from_secs(30), async || {
        told(&daemon).contains("Collector heap: exit status: 0").then_some(())
    })
    .await;
    let bundle = folder.path().join("bundle");
    // Which checks the hash of each file.
    daemon.ask(&["evidence", anomaly, "--out", &bundle.display().to_string()]);
    let said = std::fs::read_to_string(bundle.join("collected-heap.txt")).expect("what it said");
    assert_eq!(said, "heap of cart\n");
    let page = std::fs::read_to_string(bundle.join("index.html")).expect("a page");
    assert!(page.contains("What your collectors found") && page.contains("heap of cart"));
    let manifest = std::fs::read_to_string(bundle.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["collected"][0]["name"], "heap", "{manifest:#}");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_opens_everywhere_holds_no_secret_and_what_collectors_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let collectors = r#"diagnose.collectors=[
        { name = "dump", command = ["sh", "-c", "echo threads of $BAROGRAPH_SERVICE; echo password=hunter2"] },
        { name = "other", service = "stock", command = ["true"] },
        { name = "hangs", command = ["sleep", "60"], timeout = "1s" }]"#;
    let store = folder.path().join("store");
    let uploads = format!("diagnose.evidence_url=\"file://{}\"", store.display());
    let settings = ["detect.learn=\"5s\"", "diagnose.complete_after=\"4s\"", collectors, &uploads];
    let daemon = Daemon::start(&folder.path().join("data"), &settings);
    let begun = std::time::Instant::now();
    send(&daemon, &["cart"], false, || begun.elapsed() > Duration::from_secs(12)).await;
    let anomaly = &*broken(&daemon).await;
    let (bundle, packed) = (folder.path().join("bundle"), folder.path().join("bundle.tar.zst"));
    daemon.ask(&["evidence", anomaly, "--out", &bundle.display().to_string()]);
    daemon.ask(&["evidence", anomaly, "--out", &packed.display().to_string()]);

    // What the collectors said is in the bundle, on its page, and that they ran in the incident's timeline.
    let dump = std::fs::read_to_string(bundle.join("collected-dump.txt")).expect("what it said");
    assert!(dump.starts_with("threads of cart\n"), "{dump}");
    assert!(!bundle.join("collected-other.txt").exists(), "it is another service's");
    let incident = daemon.ask(&["incident", anomaly]);
    let timeline = incident.to_string();
    assert!(timeline.contains("Collector dump: exit status: 0"), "{incident:#}");
    assert!(timeline.contains("Collector hangs: broken off after 1 s"), "{incident:#}");

    // It was put into the object store, whole, and the timeline says where.
    eventually("the complete bundle is uploaded", Duration::from_secs(30), async || {
        let is_told = daemon
            .ask(&["incident", anomaly])
            .to_string()
            .contains("Evidence (with late spans) uploaded: file://");
        is_told.then_some(())
    })
    .await;
    let day = std::fs::read_dir(&store).expect("a store").flatten().next().expect("a day");
    let uploaded = day.path().join(format!("{anomaly}.tar.zst"));
    assert_eq!(std::fs::read(&uploaded).expect("it is there"), std::fs::read(&packed).expect("an archive"));
    let page = std::fs::read(uploaded.with_file_name(format!("{anomaly}.html"))).expect("its page");
    assert_eq!(page, std::fs::read(bundle.join("index.html")).expect("a page"));

    // It is diagnosed again, offline, from the one file.
    let again = run(Command::new(&*BINARY)
        .args(["explain", "--bundle"])
        .arg(&packed)
        .args(["--out"])
        .arg(folder.path().join("again")));
    assert!(again.contains("cart") && again.contains("shares are of those"), "{again}");
    let causes = |path: &Path| -> Value {
        let text = std::fs::read(path.join("causes.json")).expect("causes");
        serde_json::from_slice(&text).expect("JSON")
    };
    let (told, found) = (causes(&bundle), causes(&folder.path().join("again")));
    assert_eq!(told["causes"][0]["service"], "cart", "{told:#}");
    assert_eq!(found["causes"][0]["service"], "cart", "{found:#}");

    // DuckDB and pandas read its tables, Chromium shows its page without a network.
    let script = format!("{}/tests/readers/open_bundle.py", env!("CARGO_MANIFEST_DIR"));
    let read = run(Command::new(tools::installed("readers/bin/python")).arg(script).arg(&bundle));
    let tables: Value = serde_json::from_str(&read).expect("JSON");
    for table in ["spans", "logs", "windows", "exemplars"] {
        let of = &tables["files"][table];
        assert!(of["rows"].as_u64() > Some(0), "{table}: {of:#}");
        let meant = of["meant"].as_object().expect("a map");
        assert!(meant.values().all(|text| text.as_str().is_some_and(|text| !text.is_empty())), "{meant:?}");
    }
    assert!(tables["failed_spans"].as_u64() > Some(10), "{tables:#}");
    let document = browse(&bundle.join("index.html"), folder.path());
    assert!(document.contains("Most likely cause") && document.contains("threads of cart"), "{document}");

    // No secret is in the bundle, in what a search finds, or in what a search page shows.
    without_secrets("the tables", &read);
    assert!(read.contains("[redacted]"), "secrets were there, and are marked");
    for file in ["index.html", "causes.json", "manifest.json", "collected-dump.txt"] {
        without_secrets(file, &std::fs::read_to_string(bundle.join(file)).expect("text"));
    }
    let traces = daemon.ask(&["traces", "--where", "service=cart,error", "--limit", "3"]);
    let id = traces["traces"][0]["trace"].as_str().expect("a trace").to_owned();
    let whole = daemon.ask(&["traces", &id]).to_string();
    assert!(whole.contains("[redacted]"), "{whole}");
    without_secrets("a trace", &whole);
    without_secrets("log records", &daemon.ask(&["logs", "--where", "body~login"]).to_string());
    let (_, page) =
        crate::support::http::get(&format!("{}/traces/{id}", daemon.url("http"))).await.expect("a page");
    without_secrets("the page of a trace", &String::from_utf8_lossy(&page));
    assert_eq!(daemon.stop(), Some(0));
}
