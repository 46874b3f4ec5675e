//! Posting a body over HTTP to a peer that may be down, slow, or hostile: every wait and every
//! answer is bounded, redirects are not followed.

use super::credentials::Credentials;
use super::text::clean;
use super::{Config, Error};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Most bytes read of an answer: only errors are read, to quote them.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;
const LONGEST_QUOTE: usize = 300;

/// An absolute `http://` or `https://` URL without user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err("does not begin with http:// or https://"),
        }
        let authority = uri.authority().ok_or("names no host")?;
        if authority.host().is_empty() {
            return Err("names no host");
        }
        if authority.as_str().contains('@') {
            return Err("holds a user name or password, which is not supported");
        }
        Ok(Self(uri))
    }

    /// The URL with `path` below its own.
    pub(super) fn join(&self, path: &str) -> Result<Uri, http::Error> {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        Uri::builder()
            .scheme(self.0.scheme_str().unwrap_or("http"))
            .authority(authority)
            .path_and_query(format!("{}{path}", self.0.path().trim_end_matches('/')))
            .build()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

/// What came of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// A 2xx status.
    Accepted,
    /// Another status; the beginning of what was said with it.
    Status(StatusCode, String),
    /// No answer in time, or none at all.
    Unreachable(String),
}

/// An HTTP client with one timeout for the whole of a post.
#[derive(Clone, Debug)]
pub(super) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    credentials: Credentials,
    timeout: Duration,
}

impl Client {
    /// A client for one target.
    ///
    /// # Errors
    /// When its credentials cannot be used.
    pub(super) fn new(config: &Config, url: &str) -> Result<Self, Error> {
        let timeout = config.timeout.0;
        let credentials = Credentials::of(config, url)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(credentials.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { inner, credentials, timeout })
    }

    /// What the target is shown.
    pub(super) const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) async fn post(&self, uri: &Uri, content_type: &'static str, body: Bytes) -> Posted {
        self.post_with(uri, content_type, body, &[]).await
    }

    /// The same with further headers.
    pub(super) async fn post_with(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
        headers: &[(&'static str, String)],
    ) -> Posted {
        match tokio::time::timeout(self.timeout, self.exchange(uri, content_type, body, headers)).await {
            Ok(posted) => posted,
            Err(_) => Posted::Unreachable(format!("no answer within {:?}", self.timeout)),
        }
    }

    async fn exchange(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
        headers: &[(&'static str, String)],
    ) -> Posted {
        let mut request = match Request::post(uri).header(CONTENT_TYPE, content_type).body(Full::new(body)) {
            Ok(request) => request,
            Err(error) => return Posted::Unreachable(error.to_string()),
        };
        for (name, value) in headers {
            match HeaderValue::from_str(value) {
                Ok(value) => {
                    request.headers_mut().insert(*name, value);
                }
                Err(error) => return Posted::Unreachable(error.to_string()),
            }
        }
        match self.credentials.authorization() {
            Ok(Some(value)) => {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Ok(None) => {}
            Err(why) => return Posted::Unreachable(why),
        }
        let response = match self.inner.request(request).await {
            Ok(response) => response,
            Err(error) => return Posted::Unreachable(chain(&error)),
        };
        let status = response.status();
        if status.is_success() {
            return Posted::Accepted;
        }
        let said = match Limited::new(response.into_body(), LONGEST_ANSWER_BYTES).collect().await {
            Ok(body) => clean(String::from_utf8_lossy(&body.to_bytes()).trim(), LONGEST_QUOTE),
            Err(_) => "the answer is too long".to_owned(),
        };
        Posted::Status(status, said)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    clean(&text, LONGEST_QUOTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_without_credentials_are_taken() {
        for wrong in
            ["", "localhost:9093", "ftp://a", "https://", "http://", "http://user:secret@a", "http:// a"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong:?} must not be taken");
        }
        let url = Url::parse("http://[::1]:9093/prefix/").unwrap();
        assert_eq!(url.join("/api/v2/alerts").unwrap().to_string(), "http://[::1]:9093/prefix/api/v2/alerts");
    }
}
