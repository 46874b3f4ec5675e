//! Reaching the daemon.

use super::failure::Failure;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

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
    /// File with the access token to show.
    #[arg(long, global = true, value_name = "FILE", env = "BAROGRAPH_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust with https://; default: the system's.
    #[arg(long, global = true, value_name = "FILE", env = "BAROGRAPH_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// A connection to the daemon that shows the caller's token.
pub(super) type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Puts the token, if there is one, into every call.
#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
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
        let endpoint = if url.starts_with("https://") {
            let tls = match &self.ca_file {
                None => ClientTlsConfig::new().with_native_roots(),
                Some(file) => {
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca-file", file)?))
                }
            };
            endpoint
                .tls_config(tls)
                .map_err(|error| Failure::usage(format!("--ca-file: {}", root_cause(&error))))?
        } else {
            endpoint
        };
        let bearer = self.bearer()?;
        let channel =
            endpoint.connect().await.map_err(|error| Failure::unreachable(&url, &root_cause(&error)))?;
        Ok(InterceptedService::new(channel, bearer))
    }

    fn bearer(&self) -> Result<Bearer, Failure> {
        let Some(file) = &self.token_file else { return Ok(Bearer(None)) };
        let token = read("--token-file", file)?;
        // Whatever is wrong with it, the token itself is not shown.
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| Failure::usage("--token-file: what it holds is no token"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    pub fn failure(&self, status: &tonic::Status) -> Failure {
        Failure::from_status(&self.url(), status)
    }

    /// Asks on a runtime of this thread.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(Channel) -> Result<T, Failure>) -> Result<T, Failure> {
        runtime()?.block_on(async { question(self.connect().await?).await })
    }
}

fn read(argument: &str, file: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{argument}: {}: {error}", file.display())))
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
