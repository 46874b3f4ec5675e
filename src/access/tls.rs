//! TLS by rustls: certificates from files, read again when they change.

use super::tokens::{Digest, digest};
use super::{Error, TlsConfig};
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of the ports a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    OtlpGrpc,
    OtlpHttp,
    Query,
    Page,
}

impl Port {
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::OtlpGrpc | Self::Query => &[b"h2"],
            Self::OtlpHttp => &[b"h2", b"http/1.1"],
            Self::Page => &[b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }

    /// Whether a trusted client certificate is a must where authorities of such are named.
    const fn demands_certificate(self) -> bool {
        matches!(self, Self::OtlpGrpc | Self::OtlpHttp)
    }
}

const PORTS: [Port; 4] = [Port::OtlpGrpc, Port::OtlpHttp, Port::Query, Port::Page];

/// The configuration of each port, as the files say now.
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    /// Of all files together.
    digest: Digest,
    ports: [Arc<ServerConfig>; PORTS.len()],
}

impl Tls {
    /// `None` if no certificate is configured.
    pub fn open(config: &TlsConfig) -> Result<Option<Self>, Error> {
        let (cert, key) = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (Some(_), None) => {
                return Err(Error::Half { given: "tls.cert_file", missing: "tls.key_file" });
            }
            (None, Some(_)) => {
                return Err(Error::Half { given: "tls.key_file", missing: "tls.cert_file" });
            }
            (None, None) if config.client_ca_file.is_some() => {
                return Err(Error::Half { given: "tls.client_ca_file", missing: "tls.cert_file" });
            }
            (None, None) => return Ok(None),
        };
        let client_ca = config.client_ca_file.clone();
        let loaded = load(&cert, &key, client_ca.as_deref())?;
        Ok(Some(Self { cert, key, client_ca, current: ArcSwap::from_pointee(loaded) }))
    }

    pub const fn wants_certificates(&self) -> bool {
        self.client_ca.is_some()
    }

    pub fn server(&self, port: Port) -> Arc<ServerConfig> {
        let [otlp_grpc, otlp_http, query, page] = &self.current.load().ports;
        match port {
            Port::OtlpGrpc => otlp_grpc,
            Port::OtlpHttp => otlp_http,
            Port::Query => query,
            Port::Page => page,
        }
        .clone()
    }

    /// Takes up what the files say now; whether that is something new. What was read last stays when
    /// they cannot be used.
    pub fn reload(&self) -> Result<bool, Error> {
        let loaded = load(&self.cert, &self.key, self.client_ca.as_deref())?;
        let is_new = loaded.digest != self.current.load().digest;
        if is_new {
            self.current.store(Arc::new(loaded));
        }
        Ok(is_new)
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::file(key, path)(error.to_string()))
}

/// # Errors
/// What is wrong with a file. rustls' errors name no secrets.
fn load(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Loaded, Error> {
    let chain_pem = read("tls.cert_file", cert)?;
    let key_pem = read("tls.key_file", key)?;
    let ca_pem = client_ca.map(|path| read("tls.client_ca_file", path)).transpose()?;
    let mut all = chain_pem.clone();
    all.extend_from_slice(&key_pem);
    all.extend_from_slice(ca_pem.as_deref().unwrap_or_default());

    let chain = certificates(&chain_pem).map_err(Error::file("tls.cert_file", cert))?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| Error::file("tls.key_file", key)("holds no private key in PEM form".to_owned()))?;
    let authorities = match (client_ca, &ca_pem) {
        (Some(path), Some(pem)) => {
            let wrong = |what| Error::file("tls.client_ca_file", path)(what);
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem).map_err(wrong)? {
                roots.add(authority).map_err(|error| wrong(error.to_string()))?;
            }
            Some((path, Arc::new(roots)))
        }
        _ => None,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = |port: Port| -> Result<Arc<ServerConfig>, Error> {
        let wrong = |error: rustls::Error| Error::file("tls.cert_file", cert)(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let builder = match &authorities {
            None => builder.with_no_client_auth(),
            Some((path, roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                let verifier =
                    if port.demands_certificate() { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier
                    .build()
                    .map_err(|error| Error::file("tls.client_ca_file", *path)(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder.with_single_cert(chain.clone(), private.clone_key()).map_err(wrong)?;
        server.alpn_protocols = port.protocols();
        Ok(Arc::new(server))
    };
    let [otlp_grpc, otlp_http, query, page] = PORTS;
    let ports = [server(otlp_grpc)?, server(otlp_http)?, server(query)?, server(page)?];
    Ok(Loaded { digest: digest(&all), ports })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "is not in PEM form".to_owned())?;
    if found.is_empty() { Err("holds no certificate in PEM form".to_owned()) } else { Ok(found) }
}
