//! HTTP for object_store over the client and the TLS that everything else here uses, so that it brings none of
//! its own. Redirects are not followed: an answer that is one is an error.

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use std::time::Duration;

/// Most bytes of an answer: puts are answered with little, credentials of a cloud with a few KiB.
const ANSWER_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes clients, which show this header if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Transport {
    authorization: Option<HeaderValue>,
}

impl Transport {
    pub(super) fn authorized(mut self, header: Option<HeaderValue>) -> Self {
        self.authorization = header.map(|mut header| {
            header.set_sensitive(true);
            header
        });
        self
    }
}

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = Tcp::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let builder = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let builder = if allows_http { builder.https_or_http() } else { builder.https_only() };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(HttpClient::new(Caller { client, authorization: self.authorization.clone() }))
    }
}

#[derive(Clone, Debug)]
struct Caller {
    client: Client<HttpsConnector<Tcp>, HttpRequestBody>,
    authorization: Option<HeaderValue>,
}

#[async_trait]
impl HttpService for Caller {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(header) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let response = self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body: Bytes =
            body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error))?.to_bytes();
        Ok(HttpResponse::from_parts(
            head,
            HttpResponseBody::new(Full::new(body).map_err(|never| match never {})),
        ))
    }
}
