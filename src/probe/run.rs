//! One run of a check.

use super::span::Context;
use super::target::Target;
use super::{Check, Outcome, dns};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::sync::Arc;
use tokio::net::{TcpStream, UdpSocket};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Of an answer, so much is read.
const ANSWER_BYTES: usize = 256 * 1024;
/// Longest text of what went wrong.
const ERROR_BYTES: usize = 300;

type HttpClient = legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// What a check keeps between its runs.
pub(super) struct Runner {
    check: Check,
    http: Result<HttpClient, String>,
}

impl Runner {
    pub fn new(check: Check) -> Self {
        let http = http_client(&check);
        Self { check, http }
    }

    /// Asks once. Ends within the timeout.
    pub async fn run(&self, context: Context) -> Outcome {
        let asked = tokio::time::timeout(self.check.timeout, self.ask(context)).await;
        let mut outcome = asked.unwrap_or_else(|_| {
            Outcome::failed(format!("no answer within {} s", self.check.timeout.as_secs_f64()))
        });
        if let Some(error) = &mut outcome.error {
            error.truncate(error.floor_char_boundary(ERROR_BYTES));
        }
        outcome
    }

    async fn ask(&self, context: Context) -> Outcome {
        let asked = match &self.check.target {
            Target::Http(uri) => return self.http(uri, context).await,
            Target::Grpc { host, port, tls, service } => self.grpc(host, *port, *tls, service, context).await,
            Target::Tcp { host, port } => match TcpStream::connect((host.as_str(), *port)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            Target::Dns { server: Some((host, port)), name } => look_up(host, *port, name).await,
            Target::Dns { server: None, name } => match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(mut addresses) => addresses.next().map(drop).ok_or_else(|| "it has no address".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        };
        Outcome { error: asked.err(), ..Outcome::default() }
    }

    async fn http(&self, uri: &Uri, context: Context) -> Outcome {
        let client = match &self.http {
            Ok(client) => client,
            Err(error) => return Outcome::failed(error.clone()),
        };
        let request = Request::get(uri.clone())
            .header("traceparent", context.traceparent())
            .header("user-agent", concat!("barograph/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new());
        let answer = match request {
            Ok(request) => client.request(request).await,
            Err(error) => return Outcome::failed(error.to_string()),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Outcome::failed(whole(&error)),
        };
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut read = Vec::new();
        while read.len() < ANSWER_BYTES {
            match body.frame().await {
                None => break,
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    read.extend(data.iter().take(ANSWER_BYTES - read.len()));
                }
                Some(Err(error)) => {
                    let error = Some(format!("the answer ends too early: {}", whole(&error)));
                    return Outcome { http_status: Some(status), error };
                }
            }
        }
        let wanted = self.check.contains.as_deref();
        let is_there = wanted.is_none_or(|text| memchr::memmem::find(&read, text.as_bytes()).is_some());
        let error = if !self.check.statuses.contains(&status) {
            Some(format!("HTTP status {status}"))
        } else if !is_there {
            Some(format!("the answer does not hold {:?}", wanted.unwrap_or_default()))
        } else {
            None
        };
        Outcome { http_status: Some(status), error }
    }

    async fn grpc(
        &self,
        host: &str,
        port: u16,
        tls: bool,
        service: &str,
        context: Context,
    ) -> Result<(), String> {
        let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let url = format!("{}://{at}", if tls { "https" } else { "http" });
        let mut endpoint = Endpoint::from_shared(url).map_err(|error| whole(&error))?;
        if tls {
            let mut config = ClientTlsConfig::new();
            config = match &self.check.ca_file {
                Some(path) => {
                    let pem = tokio::fs::read(path).await;
                    let pem = pem.map_err(|error| format!("{}: {error}", path.display()))?;
                    config.ca_certificate(Certificate::from_pem(pem))
                }
                None => config.with_native_roots(),
            };
            endpoint = endpoint.tls_config(config).map_err(|error| whole(&error))?;
        }
        let channel = endpoint.connect().await.map_err(|error| whole(&error))?;
        let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        if let Ok(value) = context.traceparent().parse() {
            request.metadata_mut().insert("traceparent", value);
        }
        let answer = HealthClient::new(channel).check(request).await;
        let answer = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("its health is {}", other.as_str_name())),
        }
    }
}

async fn look_up(host: &str, port: u16, name: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let server = tokio::net::lookup_host((host, port)).await.map_err(text)?.next();
    let server = server.ok_or_else(|| format!("{host} has no address"))?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    socket.connect(server).await.map_err(text)?;
    let id = fastrand::u16(..);
    socket.send(&dns::question(id, name)).await.map_err(text)?;
    let mut message = [0; 512];
    let length = socket.recv(&mut message).await.map_err(text)?;
    dns::answer(id, message.get(..length).unwrap_or_default())
}

fn http_client(check: &Check) -> Result<HttpClient, String> {
    let mut roots = rustls::RootCertStore::empty();
    match &check.ca_file {
        Some(path) => {
            let wrong = |what: String| format!("{}: {what}", path.display());
            let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in all {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        // Those that do not read are left out: what is missing shows when the target is not trusted.
        None if matches!(&check.target, Target::Http(uri) if uri.scheme_str() == Some("https")) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    // Each run opens a connection of its own, as somebody new would.
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// An error with what it comes from.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
