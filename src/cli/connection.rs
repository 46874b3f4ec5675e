//! Reaching the daemon.

use super::failure::Failure;
use clap::Args;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Answers of the daemon are bounded by it; this only keeps a stranger from filling our memory.
pub(super) const ANSWER_LIMIT_BYTES: usize = 256 << 20;

/// Which daemon to ask.
#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// Query address of the daemon.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BAROGRAPH_ENDPOINT",
        default_value = "http://127.0.0.1:4319"
    )]
    pub endpoint: String,
}

impl Daemon {
    /// The address with a scheme: `127.0.0.1:4319` means `http://127.0.0.1:4319`.
    pub fn url(&self) -> String {
        if self.endpoint.contains("://") {
            self.endpoint.clone()
        } else {
            format!("http://{}", self.endpoint)
        }
    }

    /// A connection, made now.
    pub async fn connect(&self) -> Result<Channel, Failure> {
        let url = self.url();
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Failure::usage(format!("--endpoint {url:?} is no URL: {error}")))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true);
        endpoint.connect().await.map_err(|error| Failure::unreachable(&url, &root_cause(&error)))
    }

    pub fn failure(&self, status: &tonic::Status) -> Failure {
        Failure::from_status(&self.url(), status)
    }

    /// Asks on a runtime of this thread.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(Channel) -> Result<T, Failure>) -> Result<T, Failure> {
        runtime()?.block_on(async { question(self.connect().await?).await })
    }
}

/// One thread is enough to ask.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

/// The innermost reason, which is the one that says something.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
