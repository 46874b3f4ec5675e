//! The little HTTP that tests ask with.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Status and body of `GET url`; `None` if nobody answers.
pub async fn get(url: &str) -> Option<(u16, Bytes)> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse().expect("a URL")).await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.into_body().collect().await.ok()?.to_bytes()))
}

/// The body of `GET url` as JSON; `None` unless the status is 200.
pub async fn get_json(url: &str) -> Option<Value> {
    let (status, body) = get(url).await?;
    (status == 200).then(|| serde_json::from_slice(&body).expect("JSON"))
}
