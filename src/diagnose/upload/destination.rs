//! The object store that a URL names. What opens it comes from the environment alone, so that neither the
//! configuration nor anything that shows it can give a secret away.

use super::retry::Failure;
use super::transport::Transport;
use crate::settings::Setting;
use bytes::Bytes;
use http::HeaderValue;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, ObjectStore, ObjectStoreScheme, PutOptions, RetryConfig,
};
use std::fmt;
use std::sync::Arc;
use url::Url;

/// The header `authorization` of plain HTTP and WebDAV servers.
const AUTHORIZATION: &str = "BAROGRAPH_EVIDENCE_AUTHORIZATION";
/// Variables whose name holds one of these are secrets.
const SECRET: [&str; 8] =
    ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD", "CREDENTIAL", "AUTHORIZATION", "ACCOUNT"];
/// What is shorter is no secret that could be hidden without hiding words.
const SHORTEST_SECRET: usize = 6;
/// Longest reason that is told, in characters.
const LONGEST_REASON: usize = 300;

/// The URL of a prefix in an object store, which holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUrl(Url);

impl ObjectUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it. The URL is not repeated: it may be a secret that makes it wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "that is no URL")?;
        // abfss://CONTAINER@ACCOUNT… is how Azure writes where something is.
        let is_container = matches!(url.scheme(), "abfs" | "abfss");
        if url.password().is_some() || !url.username().is_empty() && !is_container {
            return Err("a user name or password in the URL is not taken, they belong into the environment");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "a query or fragment in the URL is not taken, signatures belong into the environment",
            );
        }
        match ObjectStoreScheme::parse(&url) {
            Ok((ObjectStoreScheme::Memory, _)) | Err(_) => Err("that is no object store which is known"),
            Ok(_) => Ok(Self(url)),
        }
    }

    /// The URL of an object below it.
    fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.0.as_str().trim_end_matches('/'))
    }
}

impl Setting for ObjectUrl {
    fn read(value: &toml::Value) -> Result<Self, String> {
        Self::parse(&String::read(value)?).map_err(str::to_owned)
    }

    fn show(&self) -> String {
        format!("{:?}", self.0.as_str())
    }
}

/// A prefix in an object store, opened. Nothing is sent before the first object is put.
#[derive(Clone)]
pub struct Bucket {
    url: ObjectUrl,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    takes_content_type: bool,
    secrets: Arc<[String]>,
}

/// Not the store: it holds credentials.
impl fmt::Debug for Bucket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Bucket").field(&self.url).finish()
    }
}

impl Bucket {
    /// Opens the store of a URL with what these variables of the environment say: `AWS_…` for `s3://`,
    /// `GOOGLE_…` for `gs://`, `AZURE_…` for `az://` as object_store names them, and
    /// `BAROGRAPH_EVIDENCE_AUTHORIZATION`, a whole `authorization` header, for `http(s)://`.
    ///
    /// # Errors
    /// Why it cannot be used, without secrets.
    pub fn open(
        url: &ObjectUrl,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let variables: Vec<(String, String)> = environment.into_iter().collect();
        let is_secret = |(name, value): &&(String, String)| {
            value.len() >= SHORTEST_SECRET
                && SECRET.iter().any(|word| name.to_ascii_uppercase().contains(word))
        };
        let secrets: Arc<[String]> =
            variables.iter().filter(is_secret).map(|(_, value)| value.clone()).collect();
        let failed = |error: object_store::Error| hidden(&error.to_string(), &secrets);
        let (scheme, prefix) = ObjectStoreScheme::parse(&url.0).map_err(|error| error.to_string())?;
        let of = |prefix: &str| {
            let prefix = prefix.to_owned();
            variables
                .iter()
                .filter(move |(name, _)| name.starts_with(&prefix))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        };
        let transport = Transport::default();
        // Every try is ours, so that it is bounded, counted and told.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        macro_rules! cloud {
            ($builder:ty, $prefix:literal) => {{
                let builder =
                    of($prefix).fold(<$builder>::new(), |builder, (name, value)| match name.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    });
                let builder =
                    builder.with_url(url.0.as_str()).with_retry(once).with_http_connector(transport);
                Arc::new(builder.build().map_err(failed)?)
            }};
        }
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
            ObjectStoreScheme::AmazonS3 => cloud!(AmazonS3Builder, "AWS_"),
            ObjectStoreScheme::GoogleCloudStorage => cloud!(GoogleCloudStorageBuilder, "GOOGLE_"),
            ObjectStoreScheme::MicrosoftAzure => cloud!(MicrosoftAzureBuilder, "AZURE_"),
            ObjectStoreScheme::Http => {
                let header = variables.iter().find(|(name, _)| name == AUTHORIZATION).map(|(_, value)| {
                    HeaderValue::from_str(value).map_err(|_| format!("{AUTHORIZATION} holds no header"))
                });
                // Whoever writes http:// means it.
                let options = ClientOptions::new().with_allow_http(url.0.scheme() == "http");
                let builder = HttpBuilder::new()
                    .with_url(&url.0[..url::Position::BeforePath])
                    .with_client_options(options)
                    .with_retry(once)
                    .with_http_connector(transport.authorized(header.transpose()?));
                Arc::new(builder.build().map_err(failed)?)
            }
            _ => return Err("that is no object store which is known".to_owned()),
        };
        let takes_content_type = scheme != ObjectStoreScheme::Local;
        Ok(Self { url: url.clone(), store, prefix, takes_content_type, secrets })
    }

    /// The URL of an object, by its name below the prefix.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        self.url.join(name)
    }

    /// Puts an object, in place of one with the same name. One try.
    ///
    /// # Errors
    /// Why it is not there, without secrets, and whether another try may help.
    pub async fn put(&self, name: &str, content_type: &'static str, content: Bytes) -> Result<(), Failure> {
        let path = name.split('/').fold(self.prefix.clone(), |path, part| path.join(part));
        let mut options = PutOptions::default();
        if self.takes_content_type {
            options.attributes = Attributes::from_iter([(
                Attribute::ContentType,
                object_store::AttributeValue::from(content_type),
            )]);
        }
        match self.store.put_opts(&path, content.into(), options).await {
            Ok(_) => Ok(()),
            Err(error) => {
                use object_store::Error::{
                    NotFound, NotImplemented, NotSupported, PermissionDenied, Unauthenticated,
                };
                let is_final = matches!(
                    error,
                    PermissionDenied { .. }
                        | Unauthenticated { .. }
                        | NotFound { .. }
                        | NotSupported { .. }
                        | NotImplemented { .. }
                );
                Err(Failure { reason: hidden(&error.to_string(), &self.secrets), is_final })
            }
        }
    }
}

/// A reason on one line without any of the secrets.
fn hidden(reason: &str, secrets: &[String]) -> String {
    let reason = secrets
        .iter()
        .fold(reason.to_owned(), |reason, secret| reason.replace(secret.as_str(), "[redacted]"));
    reason.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_object_stores_are_taken_and_those_with_secrets_refused_without_repeating_them() {
        for good in [
            "s3://bucket/evidence",
            "gs://bucket",
            "az://container/a/b",
            "abfss://container@account.dfs.core.windows.net/a",
            "https://dav.example/evidence/",
            "http://127.0.0.1:8080/a",
            "file:///var/evidence",
        ] {
            assert!(ObjectUrl::parse(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "/var/evidence",
            "ftp://host/a",
            "memory:///a",
            "https://user:hunter2@dav.example/a",
            "https://hunter2@dav.example/a",
            "https://account.blob.core.windows.net/container?sig=hunter2",
            "s3://bucket/a#hunter2",
        ] {
            let value = toml::Value::String(wrong.to_owned());
            let said = ObjectUrl::read(&value).unwrap_err();
            assert!(!said.contains("hunter2"), "{wrong}: {said}");
        }
    }

    #[test]
    fn nothing_that_is_shown_holds_a_secret() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "AKIAHUNTER2"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2-secret"),
            ("AWS_REGION", "eu-west-1"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let url = ObjectUrl::parse("s3://bucket/evidence/").unwrap();
        let bucket = Bucket::open(&url, environment).unwrap();
        assert_eq!(bucket.url_of("2026-12-01/a.html"), "s3://bucket/evidence/2026-12-01/a.html");
        let shown = format!("{bucket:?} {:?} {}", bucket.clone(), url.show());
        assert!(!shown.contains("hunter2") && !shown.contains("HUNTER2"), "{shown}");
        let said = hidden("no: <Key>AKIAHUNTER2</Key>\n hunter2-secret in eu-west-1", &bucket.secrets);
        assert_eq!(said, "no: <Key>[redacted]</Key> [redacted] in eu-west-1");
        assert!(hidden(&"x ".repeat(1_000), &[]).len() <= LONGEST_REASON);
    }

    #[test]
    fn half_of_a_secret_is_an_error() {
        let url = ObjectUrl::parse("s3://bucket").unwrap();
        let half = [("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2-secret".to_owned())];
        let said = Bucket::open(&url, half).unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }
}
