//! What a target is shown, and which authorities are trusted for it: from files, one entry a target.

use super::template::Format;
use super::{Config, Error};
use http::HeaderValue;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An entry of `alert.targets_file`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The URL as it stands in `alertmanagers`, `webhooks` or `heartbeat_urls`.
    url: String,
    /// File with a bearer token; read with every request, so that it can be changed.
    token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; default: the system's.
    ca_file: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    /// Whose form a webhook's messages have.
    #[serde(default)]
    format: Format,
    /// File with the secret that CloudEvents are signed with, or with PagerDuty's routing key; read with every
    /// message.
    secret_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    target: Vec<Entry>,
}

/// How one target is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub tls: ClientConfig,
    token_file: Option<PathBuf>,
    pub format: Format,
    secret_file: Option<PathBuf>,
}

impl Credentials {
    /// What `alert.targets_file` says of a URL.
    ///
    /// # Errors
    /// Which file cannot be used, and why; never what stands in it.
    pub fn of(config: &Config, url: &str) -> Result<Self, Error> {
        let entry = match &config.targets_file {
            None => Entry::default(),
            Some(path) => {
                let wrong = |what: String| Error::File { path: path.clone(), what };
                let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
                let file: File =
                    toml::from_str(&text).map_err(|error| wrong(error.message().replace('\n', ", ")))?;
                file.target.into_iter().find(|entry| entry.url == url).unwrap_or_default()
            }
        };
        if let (Format::PagerDuty, None, Some(path)) =
            (entry.format, &entry.secret_file, &config.targets_file)
        {
            let what = format!("{url}: pagerduty needs secret_file, which holds the routing key");
            return Err(Error::File { path: path.clone(), what });
        }
        let Entry { token_file, format, secret_file, .. } = &entry;
        let (token_file, secret_file) = (token_file.clone(), secret_file.clone());
        Ok(Self { tls: tls(&entry)?, token_file, format: *format, secret_file })
    }

    /// The secret, if there is one.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn secret(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.secret_file else { return Ok(None) };
        let secret = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match secret.trim() {
            "" => Err(format!("{}: holds no secret", path.display())),
            secret => Ok(Some(secret.to_owned())),
        }
    }

    /// The `authorization` header, if there is a token.
    ///
    /// # Errors
    /// Why the token cannot be read, in words.
    pub fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let token = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| format!("{}: holds no token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn tls(entry: &Entry) -> Result<ClientConfig, Error> {
    let failed = |path: &Path, what: String| Error::File { path: path.to_owned(), what };
    let mut roots = RootCertStore::empty();
    match &entry.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| failed(path, error.to_string()))?;
            }
        }
        // Those that do not read are left out: what is missing shows when a target is not trusted.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let any = Path::new("TLS");
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(any, error.to_string()))?
        .with_root_certificates(roots);
    match (&entry.cert_file, &entry.key_file) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|_| failed(key, "holds no private key in PEM form".to_owned()))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|error| failed(cert, error.to_string()))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(path), None) | (None, Some(path)) => {
            Err(failed(path, "cert_file and key_file go together".to_owned()))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| Error::File { path: path.to_owned(), what: error.to_string() })
}
