//! The demo's child processes: the daemon and Alertmanager.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a child is not running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start {name}: {source}")]
    Start { name: &'static str, source: std::io::Error },
    #[error("{name} ended at once ({status}): {last_words}")]
    Ended { name: &'static str, status: String, last_words: String },
    #[error("{name} is not ready after {} s; its output is in {}", START_TIMEOUT.as_secs(), log.display())]
    Slow { name: &'static str, log: PathBuf },
    #[error("the daemon's ready line lacks {0}: {1:?}")]
    Ready(&'static str, String),
}

/// A child that is killed when dropped. Its output goes to a file.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::Start { name, source };
        let file = std::fs::File::create(&log).map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name, child, log })
    }

    async fn ended(&mut self) -> Error {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(5).collect();
        let last_words = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
        Error::Ended { name: self.name, status, last_words }
    }

    /// Asks it to end, and makes it if it does not.
    async fn stop(&mut self) -> bool {
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return false };
        if let Some(id) = rustix::process::Pid::from_raw(id) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => status.success(),
            _ => {
                let _ = self.child.kill().await;
                false
            }
        }
    }
}

/// The addresses that the daemon's ready line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub otlp_grpc: String,
    pub otlp_http: String,
    pub query: String,
    pub http: String,
}

impl Addresses {
    fn parse(line: &str) -> Result<Self, Error> {
        let find = |key: &'static str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
                .ok_or_else(|| Error::Ready(key, line.to_owned()))
        };
        Ok(Self {
            otlp_grpc: find("otlp_grpc")?,
            otlp_http: find("otlp_http")?,
            query: find("query")?,
            http: find("http")?,
        })
    }
}

/// `barograph serve` as a child.
pub struct Daemon {
    running: Running,
    pub addresses: Addresses,
    _drain: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Starts this very program as a daemon on free ports, with default settings but for where its
    /// data lie and where alerts go, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not get ready in time.
    pub async fn start(directory: &Path, alertmanager: &str) -> Result<Self, Error> {
        let name = "the daemon";
        let program = std::env::current_exe().map_err(|source| Error::Start { name, source })?;
        let mut command = Command::new(program);
        command.arg("serve");
        for setting in [
            format!("data_dir={:?}", directory.join("data")),
            "listen.otlp_grpc=\"127.0.0.1:0\"".to_owned(),
            "listen.otlp_http=\"127.0.0.1:0\"".to_owned(),
            "listen.query=\"127.0.0.1:0\"".to_owned(),
            "listen.http=\"127.0.0.1:0\"".to_owned(),
            format!("alert.alertmanagers=[{alertmanager:?}]"),
        ] {
            command.arg("--set").arg(setting);
        }
        let mut running = Running::start(name, &mut command, directory.join("daemon.log"))?;
        let mut lines = running.child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let ready = async {
            while let Some(lines) = &mut lines {
                match lines.next_line().await {
                    Ok(Some(line)) if line.starts_with("ready ") => return Some(line),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
            None
        };
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Some(line)) => {
                let addresses = Addresses::parse(&line)?;
                let drain = tokio::spawn(async move {
                    while let Some(lines) = &mut lines {
                        if !matches!(lines.next_line().await, Ok(Some(_))) {
                            return;
                        }
                    }
                });
                Ok(Self { running, addresses, _drain: drain })
            }
            Ok(None) => Err(running.ended().await),
            Err(_) => Err(Error::Slow { name, log: running.log.clone() }),
        }
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> Error {
        self.running.ended().await
    }

    /// Stops it; whether it ended in good order.
    pub async fn stop(mut self) -> bool {
        self.running.stop().await
    }
}

/// A real Alertmanager as a child.
pub struct Alertmanager {
    running: Running,
    pub url: String,
}

impl Alertmanager {
    /// Where one is installed.
    #[must_use]
    pub fn find() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .flat_map(|folder| ["prometheus-alertmanager", "alertmanager"].map(|name| folder.join(name)))
            .find(|file| file.is_file())
    }

    /// Starts it with a route of its own that tells `webhook` at once, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not get ready in time.
    pub async fn start(program: &Path, directory: &Path, webhook: &str) -> Result<Self, Error> {
        let name = "Alertmanager";
        let failed = |source| Error::Start { name, source };
        let file = directory.join("alertmanager.yml");
        let configuration = format!(
            "route:\n  receiver: demo\n  group_by: [anomaly_id]\n  group_wait: 0s\n  group_interval: 1s\n  \
             repeat_interval: 4h\nreceivers:\n  - name: demo\n    webhook_configs:\n      - url: {webhook}\n        \
             send_resolved: true\n"
        );
        std::fs::write(&file, configuration).map_err(failed)?;
        // It cannot say which port it got, so a free one is looked for.
        let address = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?.local_addr().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", directory.join("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=");
        let mut running = Running::start(name, &mut command, directory.join("alertmanager.log"))?;
        let ready = async {
            while !is_ready(address).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            outcome = tokio::time::timeout(START_TIMEOUT, ready) => match outcome {
                Ok(()) => Ok(Self { running, url: format!("http://{address}") }),
                Err(_) => Err(Error::Slow { name, log: running.log.clone() }),
            },
            error = running.ended() => Err(error),
        }
    }

    pub async fn stop(mut self) {
        self.running.stop().await;
    }
}

/// Whether `GET /-/ready` is answered with 200.
async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer.ends_with(b" 200"))
    };
    ask.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_four_addresses() {
        let line = "ready otlp_grpc=127.0.0.1:1 otlp_http=127.0.0.1:2 query=127.0.0.1:3 http=127.0.0.1:4";
        let addresses = Addresses::parse(line).unwrap();
        assert_eq!((addresses.otlp_grpc.as_str(), addresses.http.as_str()), ("127.0.0.1:1", "127.0.0.1:4"));
        assert!(
            Addresses::parse("ready otlp_grpc=127.0.0.1:1").unwrap_err().to_string().contains("otlp_http")
        );
    }
}
