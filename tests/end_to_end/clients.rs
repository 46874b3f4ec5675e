//! Real clients: OpenTelemetry's SDKs for Python and JavaScript, and Rotel as a forwarder in front of us.
//! Every item that they send is counted, exactly once.

use crate::support::daemon::Daemon;
use crate::support::{eventually, free_port, tools};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const ITEMS: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);
const WAYS: [(&str, &str); 4] = [("grpc", "none"), ("grpc", "gzip"), ("http", "none"), ("http", "gzip")];

/// Lets the program send everything; panics with what it said when it could not.
pub fn send(mut client: Command, endpoint: &str, (protocol, compression): (&str, &str), service: &str) {
    let output = client
        .args([endpoint, protocol, compression, service, &ITEMS.to_string()])
        .output()
        .expect("the client runs");
    assert!(
        output.status.success(),
        "{service} over {protocol} with {compression}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn python() -> Command {
    let mut command = Command::new(tools::installed("python/bin/python"));
    command.arg(script("python_sdk.py"));
    command
}

fn javascript() -> Command {
    let mut command = Command::new(tools::program(&["node"], "apt-get install nodejs npm"));
    command.env("NODE_MODULES", tools::installed("node/node_modules")).arg(script("js_sdk.mjs"));
    command
}

pub fn receiver(daemon: &Daemon, protocol: &str) -> String {
    daemon.url(if protocol == "grpc" { "otlp_grpc" } else { "otlp_http" })
}

/// Spans, log records and metric points of an object.
fn items(of: &Value) -> [Option<u64>; 3] {
    ["spans", "log_records", "metric_points"].map(|key| of[key].as_u64())
}

/// Waits until the service's row shows exactly what was sent, then that nothing was refused or rejected.
pub async fn counted(daemon: &Daemon, services: &[String]) {
    for service in services {
        let row = || {
            let rows = daemon.ask(&["services", "--since", "1h"]);
            rows.as_array()?.iter().find(|row| row["service"] == **service).cloned()
        };
        let what = format!("{service} has {ITEMS} of each; now: {:?}", row());
        eventually(&what, PATIENCE, async || row().filter(|row| items(row) == [Some(ITEMS); 3])).await;
    }
    let status = daemon.ask(&["status"]);
    let all = ITEMS * services.len() as u64;
    assert_eq!(items(&status["accepted"]), [Some(all); 3], "{status:#}");
    for key in ["refused", "rejected"] {
        let counts = status[key].as_object().expect("an object");
        assert!(counts.values().all(|count| count == 0), "{key}: {counts:?}");
    }
}

async fn sdk(client: fn() -> Command, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut services = Vec::new();
    for way in WAYS {
        let service = format!("{name}-{}-{}", way.0, way.1);
        send(client(), &receiver(&daemon, way.0), way, &service);
        services.push(service);
    }
    counted(&daemon, &services).await;
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_is_counted_exactly() {
    sdk(python, "python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_is_counted_exactly() {
    sdk(javascript, "javascript").await;
}

/// A Rotel that forwards to `endpoint`, until it is dropped.
struct Rotel {
    child: Child,
    grpc: String,
}

impl Rotel {
    async fn start(endpoint: &str, (protocol, compression): (&str, &str)) -> Self {
        let packages = tools::installed("python/lib");
        let agent = std::fs::read_dir(&packages)
            .expect("a folder")
            .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/rotel/rotel-agent")))
            .find(|file| file.exists())
            .expect("rotel-agent below target/test-tools/python: run scripts/install-test-tools");
        let (grpc, http) = (free_port(), free_port());
        let child = Command::new(agent)
            // Where it splits a batch of metrics, this version of Rotel loses their resource.
            .args(["start", "--exporter", "otlp", "--batch-max-size", "100000"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .args(["--otlp-exporter-endpoint", endpoint])
            .args(["--otlp-exporter-protocol", protocol])
            .args(["--otlp-exporter-compression", compression])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rotel starts");
        eventually("rotel listens", PATIENCE, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", grpc)).await.ok()
        })
        .await;
        Self { child, grpc: format!("http://127.0.0.1:{grpc}") }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rotel_forwards_is_counted_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut services = Vec::new();
    let mut running = Vec::new();
    for way in WAYS {
        let service = format!("rotel-{}-{}", way.0, way.1);
        let rotel = Rotel::start(&receiver(&daemon, way.0), way).await;
        send(python(), &rotel.grpc, ("grpc", "none"), &service);
        services.push(service);
        running.push(rotel);
    }
    counted(&daemon, &services).await;
}
