//! A real Alertmanager that routes everything to one webhook, as `docs/alertmanager.md` says.

use super::{eventually, free_port, http, tools};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running Alertmanager, until it is dropped.
pub struct Alertmanager {
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Alertmanager {
    /// Starts one on a free port. What it is told it passes on to `webhook`.
    pub async fn start(webhook: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let routes = format!(
            "route:\n  receiver: all\n  group_by: [anomaly_id]\n  group_wait: 0s\n  group_interval: 1s\n  \
             repeat_interval: 4h\nreceivers:\n  - name: all\n    webhook_configs:\n      - url: {webhook}\n        \
             send_resolved: true\n"
        );
        std::fs::write(folder.path().join("alertmanager.yml"), routes).expect("a written file");
        let mut started = Self { port: free_port(), folder, child: None };
        started.run().await;
        started
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port with what it stored.
    pub async fn run(&mut self) {
        let program = tools::program(
            &["prometheus-alertmanager", "alertmanager"],
            "apt-get install prometheus-alertmanager",
        );
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let child = Command::new(program)
            .arg(format!("--config.file={}", self.folder.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", self.folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Alertmanager starts");
        self.child = Some(child);
        let ready = format!("{}/-/ready", self.url());
        eventually("Alertmanager is ready", Duration::from_secs(20), async || {
            http::get(&ready).await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
    }

    /// The alerts it holds.
    pub async fn alerts(&self) -> Vec<Value> {
        let url = format!("{}/api/v2/alerts", self.url());
        http::get_json(&url).await.and_then(|alerts| alerts.as_array().cloned()).unwrap_or_default()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.stop();
    }
}
